"""The builders of checkpoints and the plain forwards beside the tests are imported by their names."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def own_machine(tmp_path, monkeypatch):
    """An empty home and cache; downloads are off, and no code is trusted."""
    for name in ("CACHE", "HOME"):
        monkeypatch.setenv(f"SSLROB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("SSLROB_OFFLINE", "1")
    monkeypatch.setenv("SSLROB_TRUST_CODE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
