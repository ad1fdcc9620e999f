"""The contracts of sslrob.testing."""

import numpy as np
import pytest
from PIL import Image
from sslrob_mmseg.dataset import IGNORED, MaskSettings
from sslrob_mmseg.heads import KINDS
from sslrob_mmseg.task import Segmentation

from sslrob.testing import check_settings, check_task, check_victim

CLASSES = ("ground", "red", "green", "blue")


@pytest.mark.parametrize("kind", KINDS)
def test_victims(compose, scenes, kind):
    images, masks = scenes(3)
    masks[1][:] = IGNORED
    check_victim(compose(kind), images, masks, signal=[True, False, True])


def test_task(trained, scenes, tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i, (image, mask) in enumerate(zip(*scenes(4), strict=True)):
        Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / f"images/{i}.png")
        Image.fromarray(np.asarray(mask)).save(tmp_path / f"masks/{i}.png")
    task = Segmentation()
    data = task.dataset(tmp_path, format="masks", classes=CLASSES, settings={})
    check_task(task, data, trained, classes=CLASSES)


@pytest.mark.parametrize("settings", [*KINDS.values(), MaskSettings])
def test_settings(settings):
    check_settings(settings)
