"""A hardening of the embedded SwAV that is killed ends as the one that was let alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("sslrob_mini")

BRIEFLY = """
import sys
from pathlib import Path
from sslrob import zoo_files
from sslrob.hardened import Words, plan
from sslrob.hardening import join_zoo
from sslrob.plugins import installed

out = Path(sys.argv[1])
made = plan(Words(backbone="swav", defense="mi-at", settings=("steps=8", "batch_size=16"), name="brief"), zoo_files.load(), installed())
join_zoo(made, lambda: zoo_files.load(path for path in [out / "zoo.yaml"] if path.exists()), out=out, heads=False, device="cpu", every=0)
"""


def start(out):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SSLROB_HOME": str(out.parent / "home"), "SSLROB_PLUGINS": "sslrob-mi,sslrob-mini"}
    return subprocess.Popen([sys.executable, "-c", BRIEFLY, str(out)], env=environment)


def steps(out):
    log = out / "brief.log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")] if log.exists() else []


@pytest.mark.slow
def test_a_killed_hardening_ends_as_the_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    process = start(killed)
    while len(steps(killed)) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(steps(killed)) < 8
    assert list(killed.glob("brief.*.part.pt"))
    assert not (killed / "zoo.yaml").exists()
    assert start(killed).wait() == 0
    for name in ("brief.safetensors", "brief.log.jsonl", "zoo.yaml"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert steps(killed) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not list(killed.glob("*.part.pt"))
