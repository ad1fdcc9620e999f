"""`robustbench:[DATASET/NORM/]NAME`: a classifier of RobustBench's model zoo, as RobustBench itself builds and loads it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from sslrob.builtin.classification import WholeClassifier
from sslrob.errors import RunFailed, SslrobError, close_names
from sslrob.references import split
from sslrob.task import Victim as Built
from sslrob.weights import cache
from sslrob.zoo import Settings, Victim, Weights

INSTALL = (  # without its pins, which are of an old timm, and with what it imports but does not name
    "uv pip install --no-deps robustbench gdown beautifulsoup4 soupsieve geotorch torchdiffeq pandas 'setuptools<81' "
    "git+https://github.com/fra31/auto-attack"
)


def victim(text: str) -> Victim:
    """The record of a classifier, whose checkpoint RobustBench downloads now if it is not there.

    Raises:
        SslrobError: RobustBench is not installed, or has no such model.
        RunFailed: downloads are off.
    """
    bare, given = split(text)
    if given:
        raise SslrobError(
            f"a model of RobustBench has no setting {next(iter(given))!r}", hint="leave it out: RobustBench normalises by itself"
        )
    dataset, norm, name = _found(bare.partition(":")[2])
    settings: Settings = {"dataset": dataset, "norm": norm, "name": name}
    path = _checkpoint(settings)
    if not path.is_file():
        if os.environ.get("SSLROB_OFFLINE", "0") not in ("", "0"):
            raise RunFailed(f"{name!r} is not in the cache, and downloads are off", hint=f"put its checkpoint at {path}")
        _loaded(settings)
    if not path.is_file():
        raise SslrobError(f"RobustBench keeps no single checkpoint of {name!r}", hint="choose another of its models")
    notes = f"{bare}: RobustBench's code builds and loads it ({dataset}, {norm})"
    return Victim(
        task="classification", reference=f"robustbench:{dataset}/{norm}/{name}", weights=Weights(file=path), settings=settings, notes=notes
    )


def build(reference: str, weights: Weights | None, settings: Settings) -> Built:
    """The classifier; its checkpoint is checked first.

    Raises:
        SslrobError: it is not the checkpoint of the record, or RobustBench is not installed.
    """
    from sslrob.weights import fetch

    if weights is not None:
        fetch(weights)
    return WholeClassifier(_loaded(settings))


def _loaded(settings: Settings) -> Any:
    utils, _ = _robustbench()
    return utils.load_model(model_name=settings["name"], model_dir=str(_home()), dataset=settings["dataset"], threat_model=settings["norm"])


def _found(text: str) -> tuple[str, str, str]:
    """Dataset, threat model and name of a model, as RobustBench calls them.

    Raises:
        SslrobError: there is none, or the name alone means several.
    """
    _, models = _robustbench()
    everything = [(data.value, norm.value, name) for data, norms in models.items() for norm, named in norms.items() for name in named]
    *where, name = text.split("/")
    matching = [
        one for one in everything if one[2] == name and (not where or [part.lower() for part in one[:2]] == [w.lower() for w in where])
    ]
    if not matching:
        close = close_names(name, {one[2] for one in everything})
        raise SslrobError(
            f"RobustBench has no model {text!r}", hint=f"did you mean {close[0]!r}?" if close else "see robustbench.github.io"
        )
    if len(matching) > 1:
        choices = " or ".join(f"robustbench:{'/'.join(one)}" for one in matching)
        raise SslrobError(f"RobustBench has {len(matching)} models {name!r}", hint=f"write {choices}")
    return matching[0]


def _robustbench() -> tuple[Any, Any]:
    try:
        return importlib.import_module("robustbench.utils"), importlib.import_module("robustbench.model_zoo").model_dicts
    except ImportError as error:
        absent = (error.name or "").partition(".")[0] == "robustbench"
        told = "is not installed" if absent else f"cannot be imported: {error}"
        raise SslrobError(f"robustbench {told}", hint=f"install it: {INSTALL}") from error


def _home() -> Path:
    return cache() / "robustbench"


def _checkpoint(settings: Settings) -> Path:
    return _home() / str(settings["dataset"]) / str(settings["norm"]) / f"{settings['name']}.pt"
