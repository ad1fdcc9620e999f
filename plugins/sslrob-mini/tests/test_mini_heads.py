"""What the head recipes do to samples on the way."""

import pytest
import torch
from sslrob_mini.heads import RECIPES, halved, mirrored, shuffled

from sslrob.data import Sample


def sample(target, n=0):
    return Sample(f"{n}", torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(n)), target)


def test_a_label_is_the_same_in_a_mirror():
    before = sample(3)
    after = mirrored(before)
    assert after.target == 3
    assert torch.equal(after.image, before.image.flip(-1))


def test_a_mask_is_mirrored_with_its_image():
    before = sample(torch.arange(24).view(4, 6))
    assert torch.equal(mirrored(before).target, before.target.flip(-1))


def test_boxes_are_mirrored_with_their_image():
    from sslrob_mmdet.objects import objects

    before = sample(objects(torch.tensor([[1.0, 0, 3, 2]]), torch.tensor([4]), crowd=torch.tensor([[0.0, 0, 6, 1]])))
    after = mirrored(before).target
    assert after.boxes.tolist() == [[3, 0, 5, 2]]
    assert after.crowd.tolist() == [[0, 0, 6, 1]]
    assert torch.equal(mirrored(mirrored(before)).target.boxes, before.target.boxes)


def test_every_epoch_shuffles_in_its_own_way_and_always_the_same():
    samples = [sample(i, i) for i in range(10)]
    batches = shuffled(samples, 3)
    first, again, second = ([batch.ids for batch in batches(epoch)] for epoch in (0, 0, 1))
    assert first == again != second
    assert [len(ids) for ids in first] == [3, 3, 3]
    assert len({id for ids in first for id in ids}) == 9


def test_matrices_are_halved_and_vectors_are_not():
    assert halved(torch.zeros(2, 2)).dtype == torch.float16
    assert halved(torch.zeros(2)).dtype == torch.float32
    assert halved(torch.zeros(2, 2, dtype=torch.long)).dtype == torch.int64


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_in_the_zoo(name):
    from sslrob import zoo_files

    record, recipe = zoo_files.load().heads[f"mini-{name}"], RECIPES[name]
    assert (record.backbone, record.kind, record.protocol) == (recipe.backbone, recipe.kind, recipe.protocol)
    assert record.settings == recipe.settings
