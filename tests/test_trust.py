"""Each warning sign is raised by what it is for, and by nothing else."""

import pytest
import torch

from sslrob.builtin.hop_skip_jump import HopSkipJump
from sslrob.data import batches
from sslrob.evaluate import Question, evaluate
from sslrob.testing import ToySegmenter, toys
from sslrob.threat_model import Linf
from sslrob.trust import (
    Watch,
    changed_victim,
    clean_metric_off,
    dead_gradients,
    masked_gradients,
    nothing_attacked,
    nothing_moved,
    of_rows,
    state_digest,
)


def names(flags):
    return [flag.name for flag in flags]


def test_a_victim_that_answers_differently():
    watch = Watch()
    assert watch.flags() == []
    watch.repeat(torch.tensor([1.0, 2.0]), lambda: torch.tensor([1.0, 2.5]))
    assert names(watch.flags()) == ["random-victim"]
    assert "0.5" in watch.flags()[0].evidence


def test_only_the_first_batch_is_looked_at_twice():
    watch = Watch()
    watch.repeat(torch.ones(2), lambda: torch.ones(2))

    def never():
        raise AssertionError("looked again")

    watch.repeat(torch.ones(2), never)
    assert watch.flags() == []


@pytest.mark.parametrize("change", ["parameter", "buffer", "mean of nothing"])
def test_a_victim_that_changed(change):
    victim = ToySegmenter()
    before = state_digest(victim.state_dict())
    with torch.no_grad():
        if change == "parameter":
            victim.body.mix.weight[0, 0] += 1e-6
        if change == "buffer":
            victim.body.mean += 1e-6
    after = state_digest(victim.state_dict())
    assert names(changed_victim(before, after)) == ([] if change == "mean of nothing" else ["changed-victim"])


def test_the_digest_takes_every_type_of_number():
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
    states = [{"x": torch.ones(3, dtype=kind), "scalar": torch.tensor(1), "empty": torch.empty(0)} for kind in kinds]
    assert len({state_digest(state) for state in states}) == len(kinds)
    assert state_digest({"x": torch.arange(6).view(2, 3).t()}) == state_digest({"x": torch.arange(6).view(2, 3).t().clone()})
    assert state_digest({"a": torch.ones(1)}) != state_digest({"b": torch.ones(1)})


def rows(*pairs):
    return [{"backwards": taken, "dead_gradients": dead} for taken, dead in pairs]


def test_nothing_attacked():
    right, wrong = {"clean": {"fooled": False}}, {"clean": {"fooled": True}}
    assert names(nothing_attacked([wrong, wrong])) == ["nothing-attacked"]
    assert nothing_attacked([wrong, right]) == nothing_attacked([]) == []


def moved(distance, *, declined=False, clean=False, robust=False):
    return {"clean": {"fooled": clean}, "robust": {"fooled": robust}, "distance": distance, "declined": declined}


def test_nothing_moved():
    still, gone, wrong = moved(0.0), moved(0.01), moved(0.0, clean=True, robust=True)
    assert names(nothing_moved([still, still, wrong])) == ["nothing-moved"]
    assert "2 of the 2 images that are right when clean" in nothing_moved([still, still, wrong])[0].evidence
    assert names(nothing_moved([still] * 96 + [gone] * 4)) == ["nothing-moved"]
    assert nothing_moved([still] * 95 + [gone] * 5) == []
    assert nothing_moved([wrong, wrong]) == nothing_moved([]) == []  # another flag tells
    assert nothing_moved([moved(0.0, declined=True)]) == []  # it did move, but to no avail
    assert nothing_moved([moved(0.0, robust=True)]) == []  # a victim that draws at random


@pytest.mark.parametrize(("kind", "flags"), [("classification", []), ("segmentation", ["nothing-moved"])])
def test_an_attack_that_finds_no_start(kind, flags):
    """An image of noise fools a classifier, but not of every pixel."""
    toy = toys()[kind]
    question = Question(toy.task, toy.victim, HopSkipJump(queries=30, draws=3, directions=5), Linf(1e-3))
    assert names(of_rows([row for part in evaluate(question, batches(toy.dataset, 8)) for row in part.rows])) == flags


def test_dead_gradients():
    assert names(dead_gradients(rows((10, 0), (10, 2)))) == ["dead-gradients"]
    assert "2 of 20 gradients (10%)" in dead_gradients(rows((10, 0), (10, 2)))[0].evidence
    assert dead_gradients(rows((10, 0), (10, 1))) == []  # one in twenty is no more than one in twenty
    assert dead_gradients(rows((0, 0), (0, 0))) == []
    assert dead_gradients([]) == []


def fooled(*whom, backwards=10):
    """Rows of a cascade: the access of the attack that fooled each image, or None."""
    names = {"white-box": "apgd-ce", "score": "square"}
    by = [{} if access is None else {"fooled_by": {"attack": names[access], "access": access}} for access in whom]
    return [{"backwards": backwards, "dead_gradients": 0, **moved(0.01), **credit} for credit in by]


def test_masked_gradients():
    flags = masked_gradients(fooled("white-box", "score", None, "score"))
    assert names(flags) == ["masked-gradients"]
    assert "2 of 4 images" in flags[0].evidence
    assert "square" in flags[0].evidence
    assert masked_gradients(fooled("white-box", "score", None)) == []  # one may be chance
    assert masked_gradients(fooled(*["white-box"] * 1499, *["score"] * 2)) == []
    assert masked_gradients(fooled("score", "score", backwards=0)) == []  # no attack with gradients was tried
    assert names(of_rows(fooled("score", "score"))) == ["masked-gradients"]


def test_a_clean_metric_that_is_not_the_zoos():
    recorded = {"top1": 85.0, "top5": 99.0}
    assert clean_metric_off(recorded, {"top1": 84.6, "top5": 99.4, "other": 2.0}) == []
    flags = clean_metric_off(recorded, {"top1": 86.0, "top5": 98.4})
    assert names(flags) == ["clean-metric-off"] * 2
    assert "86.00 here and 85.00 in the zoo, 1.00 points off" in flags[0].evidence


def test_what_others_published_is_held_against_a_run_more_loosely():
    assert clean_metric_off({}, {"top1": 74.4}, {"top1": 75.3, "other": 1.0}) == []
    (flag,) = clean_metric_off({}, {"top1": 59.4}, {"top1": 55.3})
    assert flag.evidence == "clean top1 is 59.40 here and 55.30 as published, 4.10 points off"
    assert clean_metric_off({"top1": 59.4}, {"top1": 59.5}, {"top1": 55.3}) == []  # a run of the zoo's own says more
