"""Every installed component keeps its contract: a new one brings no new test file."""

from pathlib import Path

import pytest
import yaml

from sslrob.plugins import installed
from sslrob.testing import checks

PLUGINS = installed()
QUICK = {("attack", name): settings for name, settings in yaml.safe_load((Path(__file__).parents[1] / "quick.yaml").read_text()).items()}
CHECKS = [check for origin in PLUGINS.origins for check in checks(origin.split()[0], settings=QUICK)]


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_component(check):
    check()


def test_every_plugin_loads():
    assert PLUGINS.broken == {}


def test_every_component_is_looked_at():
    looked_at = {check.name.partition(":")[0] for check in CHECKS}
    assert {f"{component.kind} {component.name}" for component in PLUGINS.components} <= looked_at
