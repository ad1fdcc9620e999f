"""The pictures of a run: what is in them, where they go, and that a full disk is told."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sslrob import pictures
from sslrob.data import Batch
from sslrob.errors import RunFailed
from sslrob.evaluate import Judged, Verdict

SIDE = 96
EPSILON = 4 / 255


class Drawer:
    """A task that marks what it was asked to draw."""

    def __init__(self):
        self.drawn = []

    def draw(self, canvas, prediction, *, classes, scale):
        self.drawn.append((prediction, scale))
        canvas.text((3, 3), classes[prediction], fill="white")
        canvas.rectangle((20, 20, 60, 60), fill=(255, 0, 0, 128))


def judged(n: int = 3, *, wrong: int = 2) -> Judged:
    clean = torch.full((n, 3, SIDE, SIDE), 0.4)
    adversarial = clean + EPSILON
    adversarial[wrong] = clean[wrong]
    fooled = torch.arange(n) == wrong
    rows = [
        {"id": f"cat/{i}.jpg", "clean": {"fooled": bool(fooled[i])}, "robust": {"fooled": True}, "declined": False, "distance": EPSILON}
        for i in range(n)
    ]
    batch = Batch(tuple(row["id"] for row in rows), clean, (0,) * n)
    return Judged(
        batch,
        adversarial,
        Verdict(fooled, torch.zeros(n), [0] * n),
        Verdict(torch.ones(n, dtype=torch.bool), torch.zeros(n), [1] * n),
        rows,
    )


def save(found: Judged, folder, ids=("cat/0.jpg", "cat/2.jpg"), task=None) -> int:
    return pictures.save(found, task or Drawer(), classes=("cat", "dog"), folder=folder, ids=ids)


def test_a_picture_an_asked_image_and_a_contact_sheet(tmp_path):
    assert save(judged(), tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat-0.png", "cat-2.png", "overview.png"]
    one, sheet = pictures._read(tmp_path / "cat-0.png"), pictures._read(tmp_path / "overview.png")
    assert sheet.size == (one.width, 2 * one.height + pictures.GAP)


def test_clean_adversarial_and_amplified_difference_side_by_side():
    task = Drawer()
    picture = np.asarray(pictures.picture(judged(), 0, task, classes=("cat", "dog")))
    scale = pictures.SHOWN // SIDE
    assert task.drawn == [(0, scale), (1, scale)]
    assert picture.shape == (pictures.SHOWN + pictures.CAPTION, 3 * pictures.SHOWN + 2 * pictures.GAP, 3)
    row, step = picture.shape[0] - 10, pictures.SHOWN + pictures.GAP
    clean, adversarial, difference = (picture[row, 10 + k * step] for k in range(3))
    assert (clean == 102).all()
    assert (adversarial == 106).all()
    assert (difference > 250).all()  # 0.5 + 31 · 4/255
    blended = picture[pictures.CAPTION + 40, 40]
    assert blended[0] > 170
    assert 45 < blended[1] < 60


def test_the_factor_is_as_large_as_the_range_takes():
    amplified, factor = pictures.amplify(np.array([EPSILON, -EPSILON / 2]))
    assert factor == 31
    assert np.allclose(amplified, [0.5 + 31 * EPSILON, 0.5 - 31 * EPSILON / 2])
    assert amplified.max() <= 1
    assert pictures.amplify(np.zeros(3))[1] == 0
    assert pictures.amplify(np.array([0.9]))[1] == 1


@pytest.mark.parametrize(
    ("clean", "robust", "declined", "told"),
    [
        (False, True, False, "adversarial, fooled: moved 0.01569"),
        (False, False, False, "adversarial: moved 0.01569"),
        (False, False, True, "attack only helped: clean image kept"),
        (True, True, False, "the same image"),
    ],
)
def test_captions(clean, robust, declined, told):
    row = {"clean": {"fooled": clean}, "robust": {"fooled": robust}, "declined": declined, "distance": EPSILON}
    assert pictures._adversarial_caption(row) == told
    assert ("fooled already" in pictures._clean_caption(row)) == clean


def test_pictures_that_are_there_are_left_alone(tmp_path):
    save(judged(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    task = Drawer()
    assert save(judged(), tmp_path, task=task) == 2
    assert not task.drawn
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_two_shards_may_write_the_contact_sheet_at_once(tmp_path):
    code = """
import sys
from pathlib import Path
from PIL import Image
from sslrob import pictures
for _ in range(100):
    pictures._write(Image.new("RGB", (8, 8)), Path(sys.argv[1]) / pictures.OVERVIEW)
"""
    shards = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [shard.wait() for shard in shards] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [pictures.OVERVIEW]


def test_nothing_asked_makes_no_folder(tmp_path):
    assert save(judged(), tmp_path / "pictures", ids=()) == 0
    assert not (tmp_path / "pictures").exists()


def test_file_names_are_harmless():
    assert pictures.file_name("cat/1.jpg") == "cat-1.png"
    assert pictures.file_name("../../etc/passwd") == "etc-passwd.png"
    assert pictures.file_name("überall: 1") == "berall-1.png"
    assert len(pictures.file_name("x" * 500)) < 130


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunFailed, match="No space left") as error:
        save(judged(), tmp_path)
    assert "free some space" in error.value.hint
