"""Batches of equal shape, in order, without reading what is done."""

import pytest
import torch

from sslrob.data import Batch, Sample, batches, collate


class Sizes:
    """A data set of images of given widths, that remembers which were read."""

    fingerprint = "sizes"

    def __init__(self, widths):
        self.widths = widths
        self.ids = tuple(f"{i}" for i in range(len(widths)))
        self.read = []

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        self.read.append(index)
        return Sample(self.ids[index], torch.full((3, 2, self.widths[index]), index / 10), index)


def ids(dataset, *args, **keywords):
    return [batch.ids for batch in batches(dataset, *args, **keywords)]


def test_batches_hold_one_shape_and_keep_the_order():
    assert ids(Sizes([4, 4, 4, 5, 5, 4]), 2) == [("0", "1"), ("2",), ("3", "4"), ("5",)]
    assert ids(Sizes([4] * 5), 8) == [("0", "1", "2", "3", "4")]
    assert ids(Sizes([4] * 4), 2) == [("0", "1"), ("2", "3")]
    assert ids(Sizes([]), 2) == []


def test_images_and_targets_belong_to_their_ids():
    for batch in batches(Sizes([4] * 5), 2):
        assert len(batch) == len(batch.ids) == len(batch.images) == len(batch.targets)
        for id, image, target in zip(batch.ids, batch.images, batch.targets, strict=True):
            assert (str(target), float(image[0, 0, 0])) == (id, pytest.approx(int(id) / 10))


def test_what_is_done_is_not_read():
    dataset = Sizes([4] * 5)
    assert ids(dataset, 2, done={"0", "3"}) == [("1", "2"), ("4",)]
    assert dataset.read == [1, 2, 4]


def test_indices_choose_and_order():
    assert ids(Sizes([4] * 5), 2, indices=[4, 0, 2]) == [("4", "0"), ("2",)]
    assert ids(Sizes([4] * 5), 2, indices=[4, 0, 2], done=["0"]) == [("4", "2")]


def test_images_are_read_as_they_are_needed():
    dataset = Sizes([4] * 100)
    next(batches(dataset, 2))
    assert len(dataset.read) <= 3


def test_a_part_of_a_batch():
    batch = collate([Sample(str(i), torch.full((3, 2, 2), i / 10), i) for i in range(3)])
    part = batch[torch.tensor([True, False, True])]
    assert (part.ids, part.targets) == (("0", "2"), (0, 2))
    assert torch.equal(part.images, batch.images[[0, 2]])
    assert len(batch[torch.zeros(3, dtype=torch.bool)]) == 0
    assert isinstance(batch.to(torch.device("cpu")), Batch)
