"""Heads made by a recipe: solved or trained on a data set's fit split, measured on the split that is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sslrob import assemble, weights, zoo
from sslrob.builtin.classification import LinearClassifier
from sslrob.checkpoint import State
from sslrob.data import Batch, Dataset, Sample, batches, collate
from sslrob.errors import SslrobError
from sslrob.execute import chosen_devices
from sslrob.packed import pack
from sslrob.plugins import Plugins, installed
from sslrob.probe import embedded, logistic_regression
from sslrob.recipes import Plan, plan
from sslrob.runs import alone, telling_of_the_disk
from sslrob.settings import complete
from sslrob.task import Task
from sslrob.training import Schedule, train
from sslrob.verify import clean_rows

SEED = 0
ROOM = 2**31  # bytes of images that are kept in memory from epoch to epoch; the others are read again
LOOK = 250  # images embedded at a time
Log = Callable[[dict[str, float]], None]
Progress = Callable[[int, int], None]


def fit_head(
    everything: zoo.Zoo,
    backbone: str,
    recipe: str,
    dataset: str | None = None,
    *,
    out: Path,
    device: str = "auto",
    log: Log | None = None,
    progress: Progress | None = None,
    plugins: Plugins | None = None,
) -> tuple[str, zoo.Head]:
    """Name and record of a head of `backbone`, made by the zoo's recipe on the fit split of `dataset`, with its clean metrics.

    Its weights are `OUT/NAME.safetensors`.  A killed call leaves `OUT/NAME.*.part.pt`, from which the same call goes on after the last
    whole epoch, and ends as if it had not been killed.

    Args:
        dataset: by default the usual one of the recipe's task.
        log: takes {epoch, epochs, loss, rate} after every epoch.
        progress: takes the steps done and the steps in all.

    Raises:
        SslrobError: a name that nothing has; a recipe that does not fit the task of the data set, or the backbone; no fit split;
            another process makes the same head.
    """
    plugins = plugins or installed()
    made = plan(everything, plugins, backbone, recipe, dataset)
    place = torch.device(chosen_devices(device)[0])
    out = out.resolve()  # the record names files by their whole path
    work, head = _Work(made, everything, plugins, place), made.head
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with alone(out / f".{made.name}.lock", made.name), torch.random.fork_rng(devices=[]), exact:
        if made.record.protocol != "knn":
            path = out / f"{made.name}.safetensors"
            work.fit(out / f"{made.name}.{head.made_from[:8]}.part.pt", path, log, progress)
            head = head.model_copy(update={"weights": zoo.Weights(file=path, sha256=weights.sha256(path))})
        measured = work.measured(head)
    clean = {metric: round(value, 2) for metric, value in measured.items()}
    return made.name, head.model_copy(update={"clean": clean})


class _Work:
    """What a plan names, put together."""

    def __init__(self, made: Plan, everything: zoo.Zoo, plugins: Plugins, device: torch.device) -> None:
        self.plan, self.device, self.plugins = made, device, plugins
        self.backbone: zoo.Backbone = everything.get("backbone", made.head.backbone)
        self.record: zoo.Dataset = everything.get("dataset", made.head.dataset)
        self.task: Task = assemble.task(made.record.task, plugins)
        self.data: Any = assemble.dataset(self.record, self.task)
        self.classes: tuple[str, ...] = self.record.classes or tuple(getattr(self.data, "classes", ()))

    def fit(self, checkpoint: Path, path: Path, log: Log | None, progress: Progress | None) -> None:
        """Make the head's weights and write them to `path`, whole or not at all."""
        data = Kept(assemble.fit_split(self.record, self.task, self.classes), ROOM)
        body = assemble.backbone(self.backbone, name=self.plan.head.backbone, plugins=self.plugins)
        recipe = self.plan.record
        torch.manual_seed(SEED)
        victim = self.task.victim(body, kind=recipe.kind, classes=self.classes, settings=recipe.settings)
        victim.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(victim, LinearClassifier):
            solve(victim, data)
        if recipe.schedule:
            size = min(recipe.batch_size, len(data))
            batches_of = shuffled(data, size, self.task.mirrored, SEED)
            schedule = _schedule(self.plan)
            train(victim, batches_of, len(data) // size, schedule, seed=SEED, checkpoint=checkpoint, log=log, progress=progress)
        elif not isinstance(victim, LinearClassifier) or recipe.protocol != "linear":
            raise SslrobError(
                f"a recipe without a schedule can only solve linear classifiers, not train {recipe.protocol} {recipe.kind!r} heads",
                hint="give the recipe a schedule in the zoo: {epochs: …, learning_rate: …}",
            )
        state = victim.state_dict() if recipe.protocol == "finetuned" else weights.head_state(victim)
        part = path.with_suffix(".part")
        with telling_of_the_disk(path.parent):
            save_file(_stored({name: tensor.cpu() for name, tensor in state.items()}, recipe.protocol), part)
            part.replace(path)
            for old in path.parent.glob(f"{self.plan.name}.????????.part.pt"):
                old.unlink()

    def measured(self, head: zoo.Head) -> dict[str, float]:
        """The head's clean metrics on the split that is evaluated, its weights read from their file."""
        body = assemble.backbone(self.backbone, name=head.backbone, plugins=self.plugins)
        name, device = self.plan.name, self.device
        victim = assemble.victim(head, body, self.task, classes=self.classes, name=name, dataset=self.record, device=device)
        return self.task.aggregate(clean_rows(self.task, victim, self.data))


class Kept:
    """A data set whose images are read once and kept, the first ones up to `room` bytes."""

    def __init__(self, dataset: Dataset, room: int) -> None:
        self.dataset, self.room = dataset, room
        self.ids, self.fingerprint = dataset.ids, dataset.fingerprint
        self.kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if index in self.kept:
            return self.kept[index]
        sample = self.dataset[index]
        if self.room >= sample.image.nbytes:
            self.room -= sample.image.nbytes
            self.kept[index] = sample
        return sample


def shuffled(data: Dataset, size: int, mirrored: Callable[[Sample], Sample], seed: int) -> Callable[[int], Iterator[Batch]]:
    """The whole batches of an epoch, by its number: in a new order every time, half of the images mirrored.

    The same epoch always gives the same batches.  Images of several shapes are batched with those of their own.
    """

    def of_epoch(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(data), generator=generator).tolist()
        mirror = (torch.rand(len(data), generator=generator) < 0.5).tolist()
        waiting: dict[torch.Size, list[Sample]] = {}
        whole = 0
        for i in order:
            sample = mirrored(data[i]) if mirror[i] else data[i]
            group = waiting.setdefault(sample.image.shape, [])
            group.append(sample)
            if len(group) == size:
                yield collate(group)
                group.clear()
                whole += 1
        if not whole:
            raise SslrobError(
                f"no {size} images of the fit split have the same shape",
                hint="bring them to one size in the data set's settings, or give the recipe a smaller batch_size",
            )

    return of_epoch


def solve(victim: LinearClassifier, data: Dataset) -> None:
    """Set the linear layer to the logistic regression on standardised embeddings (L-BFGS)."""
    weight, bias = logistic_regression(*embedded(victim.body, batches(data, LOOK)), classes=victim.head.out_features)
    with torch.no_grad():
        victim.head.weight.copy_(weight)
        victim.head.bias.copy_(bias)


def _stored(state: State, protocol: zoo.Protocol) -> State:
    """What the file holds: the few numbers of a linear layer in half precision, all else in 8 bits; vectors as they are."""
    if protocol == "linear":
        return {name: (tensor.half() if tensor.ndim > 1 else tensor).contiguous() for name, tensor in state.items()}
    return pack(state)


def _schedule(made: Plan) -> Schedule:
    """The recipe's schedule; what it trains is what its protocol says."""
    given = {"train": "all" if made.record.protocol == "finetuned" else "head", **made.record.schedule}
    settings: Any = complete(Schedule, given, (), f"the schedule of the recipe for head {made.name!r}")
    schedule = Schedule(**settings)
    if (schedule.train == "all") != (made.record.protocol == "finetuned"):
        raise SslrobError(
            f"protocol {made.record.protocol!r} does not train {schedule.train!r}", hint="leave `train` out of the recipe's schedule"
        )
    return schedule
