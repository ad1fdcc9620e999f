"""Robustness of self-supervised vision backbones.

Names are imported when they are first used, so that listing and `--help` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sslrob.hookspecs import hookimpl

if TYPE_CHECKING:
    from sslrob.attack import Attack, Best
    from sslrob.backbone import Backbone, Features
    from sslrob.data import Batch, Sample
    from sslrob.defense import Defense
    from sslrob.errors import SslrobError
    from sslrob.layout import Layout
    from sslrob.objective import Feedback, Objective
    from sslrob.streams import Streams
    from sslrob.task import Task, Victim
    from sslrob.threat_model import L1, L2, Linf, ThreatModel

    __version__: str

__all__ = [
    "L1",
    "L2",
    "Attack",
    "Backbone",
    "Batch",
    "Best",
    "Defense",
    "Features",
    "Feedback",
    "Layout",
    "Linf",
    "Objective",
    "Sample",
    "SslrobError",
    "Streams",
    "Task",
    "ThreatModel",
    "Victim",
    "hookimpl",
]

_HOMES = {
    "Attack": "attack",
    "Best": "attack",
    "Backbone": "backbone",
    "Features": "backbone",
    "Batch": "data",
    "Sample": "data",
    "Defense": "defense",
    "SslrobError": "errors",
    "Layout": "layout",
    "Feedback": "objective",
    "Objective": "objective",
    "Streams": "streams",
    "Task": "task",
    "Victim": "task",
    "L1": "threat_model",
    "L2": "threat_model",
    "Linf": "threat_model",
    "ThreatModel": "threat_model",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sslrob")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
