"""Contracts that every component must keep, and toys on which they are checked.  Public: plugin authors test with it.

All checks of an installed plugin, one test each, as `sslrob plugins check NAME` runs them:

    import pytest
    from sslrob.testing import checks

    @pytest.mark.parametrize("check", checks("sslrob-noise"), ids=str)
    def test_contract(check):
        check()

Each check raises an AssertionError that says what broke, where, and what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslrob.testing.attacks import check_attack, check_strength
    from sslrob.testing.backbones import check_backbone
    from sslrob.testing.defenses import check_defense
    from sslrob.testing.layouts import check_layout
    from sslrob.testing.plugin import Check, check_plugin, checks
    from sslrob.testing.settings import check_settings
    from sslrob.testing.tasks import check_task
    from sslrob.testing.toy_tasks import Toy, ToyDataset, ToyTask, toys
    from sslrob.testing.toy_victims import LinearVictim, ToyBackbone, ToyDetector, ToySegmenter
    from sslrob.testing.victims import check_victim

__all__ = [
    "Check",
    "LinearVictim",
    "Toy",
    "ToyBackbone",
    "ToyDataset",
    "ToyDetector",
    "ToySegmenter",
    "ToyTask",
    "check_attack",
    "check_backbone",
    "check_defense",
    "check_layout",
    "check_plugin",
    "check_settings",
    "check_strength",
    "check_task",
    "check_victim",
    "checks",
    "toys",
]

_HOMES = {
    "Check": "plugin",
    "LinearVictim": "toy_victims",
    "Toy": "toy_tasks",
    "ToyBackbone": "toy_victims",
    "ToyDataset": "toy_tasks",
    "ToyDetector": "toy_victims",
    "ToySegmenter": "toy_victims",
    "ToyTask": "toy_tasks",
    "check_attack": "attacks",
    "check_backbone": "backbones",
    "check_defense": "defenses",
    "check_layout": "layouts",
    "check_plugin": "plugin",
    "check_settings": "settings",
    "check_strength": "attacks",
    "check_task": "tasks",
    "check_victim": "victims",
    "checks": "plugin",
    "toys": "toy_tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
