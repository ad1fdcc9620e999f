"""The doctor names what is broken or missing, and what mends it."""

from __future__ import annotations

import pytest

from sslrob import doctor
from sslrob.plugins import Plugins


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No zoo file and no cache of whoever runs the tests."""
    monkeypatch.delenv("SSLROB_ZOO", raising=False)
    monkeypatch.delenv("SSLROB_PLUGINS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SSLROB_CACHE", str(tmp_path / "cache"))


def checks(plugins: Plugins | None = None, zoos=()) -> dict[tuple[str, str], doctor.Check]:
    return {(check.area, check.name): check for check in doctor.examine(zoos, plugins or Plugins())}


def test_what_is_installed_is_listed():
    found = checks()
    assert found["packages", "sslrob"].found
    assert found["packages", "torch"].state == "ok"
    assert "threads" in found["devices", "cpu"].found
    assert "free" in found["folders", "cache"].found
    assert "entries" in found["zoo", "file"].found


def test_a_missing_first_party_plugin_comes_with_its_install_command():
    check = checks()["plugins", "sslrob-mmdet"]
    assert check.state == "missing"
    assert "detection" in check.found
    assert "pip install" in check.fix
    assert "sslrob-mmdet" in check.fix


def test_a_broken_plugin_comes_with_its_reason():
    plugins = Plugins(broken={"sslrob-a 1.0": "ModuleNotFoundError: No module named 'b'", "sslrob-c 2.0": "ValueError: no"})
    found = checks(plugins)
    lacking, faulty = found["plugins", "sslrob-a 1.0"], found["plugins", "sslrob-c 2.0"]
    assert (lacking.state, faulty.state) == ("broken", "broken")
    assert "No module named 'b'" in lacking.found
    assert lacking.fix.endswith("pip install sslrob-a")
    assert "author" in faulty.fix


def test_what_a_distribution_does_not_find_is_named(monkeypatch):
    class Fake:
        requires = ("torch>=9999", "nowhere-to-be-found", "extra-only; extra == 'all'", "pluggy")

    monkeypatch.setattr(doctor, "distribution", lambda name: Fake)
    too_old, absent = doctor.unmet("sslrob-a")
    assert too_old.startswith("needs torch>=9999, found ")
    assert absent == "needs nowhere-to-be-found, which is not installed"


def test_a_broken_zoo_file_is_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("schema: 1\nbackbnes: {}\n")
    check = checks(zoos=[file])["zoo", "file"]
    assert check.state == "broken"
    assert "mine.yaml:2" in check.found
    assert "backbones" in check.fix


def test_missing_weights_and_data_are_named(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        """schema: 1
backbones:
  gone: {use: toy, license: MIT, weights: {file: gone.safetensors}}
datasets:
  away: {task: classification, format: imagefolder, path: away, threat_model: "linf:1/255", license: MIT}
"""
    )
    found = checks(zoos=[file])
    assert found["zoo", "gone"].state == "broken"
    assert "mine.yaml" in found["zoo", "gone"].fix
    assert found["zoo", "away"].state == "missing"


def test_a_small_disk_is_broken(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10_000_000})())
    check = checks()["folders", "cache"]
    assert check.state == "broken"
    assert "10.0 MB free" in check.found


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (2_500_000, "2.5 MB"), (8e12, "8000.0 GB")])
def test_sizes(n, text):
    assert doctor._size(n) == text
