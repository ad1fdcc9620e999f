"""Records of a zoo or a spec → the objects they name, with their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sslrob import weights, zoo
from sslrob.backbone import Backbone
from sslrob.builtin.restarts import Restarts
from sslrob.data import batches
from sslrob.errors import SslrobError
from sslrob.plugins import Plugins, installed
from sslrob.records import unset
from sslrob.settings import checked
from sslrob.task import Remembering, Task, Victim

if TYPE_CHECKING:
    from sslrob.attack import Attack
    from sslrob.data import Dataset
    from sslrob.spec import BackboneSpec, DatasetSpec, HeadSpec

REMEMBERED = 32  # images at a time; fixed, since embeddings of other batches are rounded otherwise


def task(name: str, plugins: Plugins | None = None) -> Task:
    """The task that a plugin registered as `name`."""
    found: Task = (plugins or installed()).get("task", name)()
    return found


def backbone(
    record: zoo.Backbone | BackboneSpec, *, name: str, state: Mapping[str, torch.Tensor] | None = None, plugins: Plugins | None = None
) -> Backbone:
    """The backbone of a record, in eval mode.

    Random weights are drawn from the record's seed; the global generators are left as they were.

    Args:
        name: of the record, for errors.
        state: tensors to use instead of the record's weights.

    Raises:
        SslrobError: a setting that its class does not take, or weights that do not fit.
    """
    kind = (plugins or installed()).get("backbone", record.use)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(record.seed or 0)
        try:
            built: Backbone = kind(**record.settings)
        except TypeError as error:
            raise SslrobError(f"settings of backbone {name!r}: {error}", hint=f"see the arguments of {kind.__name__}") from error
    if state is None and record.weights is not None:
        state = weights.read(record.weights)
    if state is not None:
        weights.apply(built, state, what=f"backbone {name!r}")
    return built.eval()


def dataset(record: zoo.Dataset | DatasetSpec, task: Task, *, fit: bool = False) -> Dataset:
    """The data set of a record; with `fit`, its images for whatever learns.

    Raises:
        SslrobError: the data are missing or inconsistent, there is no fit split, or a path begins with a variable that is not set.
    """
    if not fit:
        _require_set(record.path)
        return task.dataset(record.path, format=record.format, classes=record.classes, settings=record.settings)
    if record.fit is None:
        raise SslrobError("this data set has no fit split", hint="add `fit: {path: …}` to its zoo entry: what learns needs other images")
    settings = {**record.settings, **record.fit.settings}
    if (record.fit.path, settings) == (record.path, record.settings):
        raise SslrobError(
            "the fit split is the split that is evaluated", hint="give `fit` in the zoo entry another path, or other settings"
        )
    _require_set(record.fit.path)
    return task.dataset(record.fit.path, format=record.format, classes=record.classes, settings=settings)


def require_there(record: zoo.Dataset | DatasetSpec, task: Task, *, fit: bool = False) -> None:
    """Raise what `dataset` raises where the images are not there; where they are, none is looked at."""
    path = record.path if not fit or record.fit is None else record.fit.path
    if unset(path) or not path.exists() or (fit and record.fit is None):
        dataset(record, task, fit=fit)


def _require_set(path: Path) -> None:
    """Raises:
    SslrobError: a data set's path begins with an environment variable that is not set.
    """
    if name := unset(path):
        where = "/".join(path.parts[1:])
        raise SslrobError(
            f"the data lie at {str(path)!r}, and {name} is not set", hint=f"export {name}=FOLDER, the folder that holds {where}"
        )


def fit_split(record: zoo.Dataset | DatasetSpec, task: Task, classes: Sequence[str]) -> Dataset:
    """The images that a data set gives to whatever learns, their labels counted as in the evaluated split.

    Args:
        classes: of the evaluated split, in the order of its labels.

    Raises:
        SslrobError: see `dataset`.
    """
    return dataset(record.model_copy(update={"classes": tuple(classes)}), task, fit=True)


def victim(
    head: zoo.Head | HeadSpec,
    body: Backbone,
    task: Task,
    *,
    classes: Sequence[str],
    name: str,
    state: Mapping[str, torch.Tensor] | None = None,
    dataset: zoo.Dataset | DatasetSpec | None = None,
    device: str | torch.device = "cpu",
) -> Victim:
    """A backbone under a head, with the head's weights or its memory, in eval mode, on `device`.

    Args:
        name: of the head's record, for errors.
        state: tensors to use instead of the record's weights.
        dataset: the record of the head's data set, whose fit split a head of protocol knn remembers; no other head looks at it.
        device: where a memory is made, and the victim is.

    Raises:
        SslrobError: the head has no weights, or they do not fit; or there is no fit split to remember.
    """
    built = task.victim(body, kind=head.kind, classes=classes, settings=head.settings).to(device)
    if (head.protocol == "knn") != isinstance(built, Remembering):
        told = "remembers the fit split" if isinstance(built, Remembering) else "is trained"
        raise SslrobError(
            f"head {name!r} is recorded as {head.protocol}, but a head of kind {head.kind!r} {told}",
            hint="correct protocol or kind in its zoo entry",
        )
    if isinstance(built, Remembering):
        if head.weights is not None or state is not None:
            raise SslrobError(f"head {name!r} has weights, but all that it has to know it remembers", hint="remove them from its zoo entry")
        if dataset is None:
            raise ValueError(f"head {name!r} remembers a fit split: give the record of its data set")
        built.remember(batches(fit_split(dataset, task, classes), REMEMBERED))
        return built.eval()
    if state is None:
        if head.weights is None:
            raise SslrobError(f"head {name!r} has no weights", hint="add them to its zoo entry")
        state = weights.read(head.weights, "head")
    found = weights.load_head(built, state, what=f"head {name!r}")
    if (found == "finetuned") != (head.protocol == "finetuned"):
        raise SslrobError(
            f"head {name!r} is recorded as {head.protocol}, but its weights are {found}", hint="correct protocol in its zoo entry"
        )
    return built.eval()


def attack(use: str, settings: Mapping[str, Any], *, restarts: int = 1, plugins: Plugins | None = None) -> Attack:
    """An attack with its settings, run `restarts` times.

    Raises:
        SslrobError: a setting that it does not have, or of the wrong type.
    """
    kind = (plugins or installed()).get("attack", use)
    built: Attack = checked(kind, settings, f"attack {use!r}")
    return built if restarts == 1 else Restarts(built, restarts)
