"""Every installed component keeps its contract: a new one brings no new test file."""

import pytest

from sslrob.plugins import installed
from sslrob.testing import checks

PLUGINS = installed()
QUICK = {("attack", "noise"): {"draws": 3}}  # other than the default settings, where these are slow
CHECKS = [check for origin in PLUGINS.origins for check in checks(origin.split()[0], settings=QUICK)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_component(check):
    check()


def test_every_plugin_loads():
    assert PLUGINS.broken == {}


def test_every_component_is_looked_at():
    looked_at = {check.name.partition(":")[0] for check in CHECKS}
    assert {f"{component.kind} {component.name}" for component in PLUGINS.components} <= looked_at
