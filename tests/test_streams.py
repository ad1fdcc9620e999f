"""An image's random numbers are its own."""

import pytest
import torch

from sslrob.streams import Streams

IDS = ("a", "b", "c")


@pytest.mark.parametrize("draw", [lambda s: s.uniform((2, 3)), lambda s: s.normal((2, 3)), lambda s: s.integers((2, 3), 1000)])
def test_numbers_depend_on_seed_id_and_purpose_alone(draw):
    together = draw(Streams(0, IDS))
    assert together.shape == (3, 2, 3)
    assert torch.equal(draw(Streams(0, ("c", "a", "b"))), together[[2, 0, 1]])
    assert torch.equal(draw(Streams(0, ("b",)))[0], together[1])
    others = [draw(Streams(1, IDS)), draw(Streams(0, IDS, "fit")), draw(Streams(0, ("d", "e", "f")))]
    assert not any(torch.equal(other[i], together[i]) for other in others for i in range(3))


def test_no_two_images_share_numbers():
    drawn = Streams(0, [str(i) for i in range(200)]).uniform((4,))
    assert len({tuple(row) for row in drawn.tolist()}) == 200


def test_seed_and_id_are_kept_apart():
    assert not torch.equal(Streams(1, ["1a"]).uniform((4,)), Streams(11, ["a"]).uniform((4,)))


def test_a_subset_goes_on_where_the_whole_stopped():
    whole, split = Streams(0, IDS), Streams(0, IDS)
    first = whole.uniform((4,))
    second = whole.uniform((4,))
    assert not torch.equal(first, second)
    split.uniform((4,))
    keep = torch.tensor([True, False, True])
    subset = split[keep]
    assert len(subset) == 2
    assert torch.equal(subset.uniform((4,)), second[keep])
    assert torch.equal(split.uniform((4,))[1], second[1])  # the one left out is where it was
    assert not torch.equal(split[keep].uniform((4,)), second[keep])  # what the subset drew is not drawn again


def test_an_empty_subset_draws_nothing():
    none = Streams(0, IDS)[torch.zeros(3, dtype=torch.bool)]
    assert none.uniform((2, 2)).shape == none.normal((2, 2)).shape == none.integers((2, 2), 5).shape == (0, 2, 2)
    assert none.integers((2,), 5).dtype == torch.int64


@pytest.mark.parametrize("keep", [torch.tensor([0, 2]), torch.tensor([True, False]), torch.ones(3)])
def test_a_subset_is_taken_by_a_mask_alone(keep):
    with pytest.raises(ValueError, match="not bool"):
        Streams(0, IDS)[keep]


def test_distributions():
    streams = Streams(0, [str(i) for i in range(50)])
    uniform, normal, integers = streams.uniform((1000,), -2, 3), streams.normal((1000,)), streams.integers((1000,), 7)
    assert uniform.min() >= -2
    assert uniform.max() < 3
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(normal.mean()) == pytest.approx(0, abs=0.03)
    assert float(normal.std()) == pytest.approx(1, abs=0.03)
    assert integers.unique().tolist() == list(range(7))
    assert uniform.dtype == normal.dtype == torch.float32


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    Streams(0, IDS).normal((3,))
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_stay_the_same_from_version_to_version():
    """Golden: a change here changes every stored result."""
    assert Streams(0, ["image-1"]).uniform((3,))[0].tolist() == pytest.approx([0.6223107, 0.2478424, 0.4468251], abs=1e-7)
