"""Every installed component keeps its contract: a new one brings no new test file."""

import pytest

from sslrob.plugins import installed
from sslrob.testing import checks

PLUGINS = installed()
QUICK = {  # other than the default settings, where these are slow
    ("attack", "apgd"): {"steps": 20},
    ("attack", "apgd-t"): {"steps": 20},
    ("attack", "autoattack"): {"steps": 10, "queries": 10, "restarts": 1},
    ("attack", "carlini-wagner"): {"steps": 30, "searches": 4, "weight": 1.0, "rate": 0.03},
    ("attack", "data-free"): {"steps": 5},
    ("attack", "ddn"): {"steps": 30},
    ("attack", "deepfool-uap"): {"images": 30},
    ("attack", "eot-pgd"): {"steps": 10, "draws": 2},
    ("attack", "fab"): {"steps": 10},
    ("attack", "fab-t"): {"steps": 10},
    ("attack", "fmn"): {"steps": 30},
    ("attack", "hop-skip-jump"): {"queries": 150, "draws": 10, "directions": 20},
    ("attack", "noise"): {"draws": 3},
    ("attack", "noise-gaussian"): {"draws": 3},
    ("attack", "noise-sign"): {"draws": 3},
    ("attack", "sea"): {"steps": 12},
    ("attack", "square"): {"queries": 20},
    ("attack", "spsa"): {"queries": 60, "pairs": 5},
    ("attack", "uap"): {"steps": 30, "step_size": 0.2},
}
CHECKS = [check for origin in PLUGINS.origins for check in checks(origin.split()[0], settings=QUICK)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_component(check):
    check()


def test_every_plugin_loads():
    assert PLUGINS.broken == {}


def test_every_component_is_looked_at():
    looked_at = {check.name.partition(":")[0] for check in CHECKS}
    assert {f"{component.kind} {component.name}" for component in PLUGINS.components} <= looked_at
