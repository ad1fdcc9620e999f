"""What `evaluate()` guarantees, one test each."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from sslrob import Attack
from sslrob.builtin.gradient import FGSM, PGD
from sslrob.builtin.noise import Noise
from sslrob.data import batches
from sslrob.errors import BudgetExceeded, RunFailed
from sslrob.evaluate import Question, at_rest, evaluate
from sslrob.summary import attack_success_rate
from sslrob.testing import LinearVictim, ToyDataset, ToySegmenter, toys
from sslrob.threat_model import L1, L2, Linf, ThreatModel
from sslrob.trust import Watch

KINDS = ["classification", "segmentation", "detection"]
EPSILON = Linf(16 / 255)


def judged(kind="classification", attack=PGD(), threat_model=EPSILON, *, size=8, victim=None, dataset=None, **question):  # noqa: B008
    toy = toys()[kind]
    asked = Question(toy.task, victim or toy.victim, attack, threat_model, **question)
    return list(evaluate(asked, batches(dataset or toy.dataset, size)))


def rows(*args, **keywords):
    return [row for part in judged(*args, **keywords) for row in part.rows]


@dataclass(frozen=True)
class Returns(Attack):
    """What `make(images, threat model)` returns."""

    make: object
    access: ClassVar[str] = "score"

    def perturb(self, objective, images, threat_model, *, streams):
        return self.make(images, threat_model)


# the answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_says_what_happened_to_its_image(kind):
    parts = judged(kind)
    assert [row["id"] for part in parts for row in part.rows] == list(toys()[kind].dataset.ids)
    for part in parts:
        victim = toys()[kind].victim
        outputs = victim(part.adversarial)
        assert [row["robust"]["fooled"] for row in part.rows] == victim.fooled(outputs, part.batch.targets).tolist()
        for i, row in enumerate(part.rows):
            assert row["clean"]["fooled"] is False
            assert row["clean"]["measure"] == toys()[kind].task.measure(part.clean.predictions[i], part.batch.targets[i])
            assert row["robust"]["measure"] == toys()[kind].task.measure(part.robust.predictions[i], part.batch.targets[i])
            assert row["robust"]["quality"] == pytest.approx(float(part.robust.quality[i]), abs=1e-6)
            assert row["distance"] == pytest.approx(float(EPSILON.distance(part.adversarial, part.batch.images)[i]), abs=1e-6)
            assert 0 < row["distance"] <= EPSILON.epsilon + 1e-6
            assert row["forwards"] >= row["backwards"] > 0
            assert row["robust"]["quality"] < 0.2  # of 1 for segments and objects, of 2 to 4.5 for classes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", [PGD(steps=5), FGSM(), Noise(draws=3)], ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("objective", ["task", "embedding"])
def test_rows_do_not_depend_on_the_batch_size(kind, attack, objective):
    threat_model = Linf(4 / 255)
    one, three, eight = (rows(kind, attack, threat_model, size=size, objective=objective) for size in (1, 3, 8))
    assert one == three == eight


def test_rows_do_not_depend_on_the_order():
    toy = toys()["segmentation"]
    question = Question(toy.task, toy.victim, PGD(steps=5), EPSILON)
    backwards = [row for part in evaluate(question, batches(toy.dataset, 3, indices=[3, 2, 1, 0])) for row in part.rows]
    assert sorted(backwards, key=lambda row: row["id"]) == rows("segmentation", PGD(steps=5))


def test_the_seed_is_part_of_the_question():
    answers = [rows("segmentation", PGD(steps=1), Linf(1 / 255), seed=seed) for seed in (0, 0, 1)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("threat_model", [L2(0.5), L1(3.0)], ids=str)
def test_every_norm(threat_model):
    for row in rows("classification", PGD(), threat_model):
        assert row["robust"]["fooled"]
        assert row["distance"] <= threat_model.epsilon + 1e-5


# images that are wrong already


def test_images_that_are_wrong_already_are_not_attacked_and_not_robust():
    dataset = toys()["classification"].dataset
    wrong = ToyDataset(dataset.images, [1 - t if i in (1, 4) else t for i, t in enumerate(dataset.targets)], "f")
    seen = []

    def look(images, threat_model):
        seen.append(images.clone())
        return images

    answer = rows(attack=Returns(look), dataset=wrong)
    assert [row["clean"]["fooled"] for row in answer] == [False, True, False, False, True, False]
    assert torch.equal(torch.cat(seen), dataset.images[[0, 2, 3, 5]])
    for row in (answer[1], answer[4]):
        assert row["robust"]["fooled"]
        assert (row["distance"], row["forwards"], row["backwards"]) == (0.0, 0, 0)
    assert attack_success_rate(answer) == (0, 4)
    assert attack_success_rate(rows(dataset=wrong)) == (4, 4)


def test_nothing_left_to_attack():
    dataset = toys()["classification"].dataset
    wrong = ToyDataset(dataset.images, [1 - t for t in dataset.targets], "f")

    def never(images, threat_model):
        raise AssertionError("attacked")

    assert attack_success_rate(rows(attack=Returns(never), dataset=wrong)) == (0, 0)


# the budget


class Cheat(PGD):
    def perturb(self, objective, images, threat_model, *, streams):
        return super().perturb(objective, images, type(threat_model)(1.2 * threat_model.epsilon), streams=streams)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threat_model", [Linf(4 / 255), L2(0.2), L1(1.0)], ids=str)
def test_a_cheat_gets_no_number(kind, threat_model: ThreatModel):
    with pytest.raises(BudgetExceeded, match=r"attack Cheat left .*'toy-00\d' moved by") as caught:
        judged(kind, Cheat(steps=5), threat_model)
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_a_cheat_on_one_image_of_many_is_found_and_named():
    def one(images, threat_model):
        x = images.clone()
        x[4, 0, 0, 0] += 1.01 * threat_model.epsilon
        return x

    with pytest.raises(BudgetExceeded, match=r"on 1 of 6 images: 'toy-004' moved by 0\.063373"):
        judged(attack=Returns(one))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda x, t: x + float("nan"), "left Linf"),
        (lambda x, t: torch.where(x == x.amax(), float("nan"), x), "on 1 of 6 images"),
        (lambda x, t: x.clone() - 0.51, "left Linf"),
        (lambda x, t: x[:, :, :4], r"returned torch.float32 \(6, 3, 4, 8\) for images of torch.float32 \(6, 3, 8, 8\)"),
        (lambda x, t: x[:5], r"returned torch.float32 \(5, 3, 8, 8\)"),
        (lambda x, t: x.double(), r"returned torch.float64"),
        (lambda x, t: x.numpy(), "returned ndarray"),
        (lambda x, t: None, "returned NoneType"),
    ],
    ids=["nan", "one-nan", "moved", "cropped", "too-few", "float64", "array", "nothing"],
)
def test_what_is_no_allowed_image_is_refused(make, says):
    with pytest.raises(BudgetExceeded, match=says):
        judged(attack=Returns(make))


@pytest.mark.parametrize("value", [-1e-4, 1 + 1e-4])
def test_pixels_outside_the_range_are_refused_within_epsilon_too(value):
    dataset = toys()["segmentation"].dataset  # has black and white pixels

    def leave(images, threat_model):
        x = images.clone()
        return torch.where(x == (0.0 if value < 0 else 1.0), value, x)

    with pytest.raises(BudgetExceeded, match="values from"):
        judged("segmentation", Returns(leave), dataset=dataset)


def test_no_row_of_a_refused_batch():
    def cheat_later(images, threat_model):
        return images + (0.5 if float(images[0, 0, 0, 0]) == float(toys()["classification"].dataset.images[4, 0, 0, 0]) else 0)

    toy, found = toys()["classification"], []
    run = evaluate(Question(toy.task, toy.victim, Returns(cheat_later), EPSILON), batches(toy.dataset, 2))
    with pytest.raises(BudgetExceeded):
        found.extend(row["id"] for part in run for row in part.rows)
    assert found == ["toy-000", "toy-001", "toy-002", "toy-003"]


def test_an_attack_cannot_change_the_clean_images():
    parts = judged(attack=Returns(lambda x, t: x.add_(0.01)))
    assert torch.equal(parts[0].batch.images, toys()["classification"].dataset.images)
    moved = [row for row in parts[0].rows if not row["declined"]]
    assert len(moved) == 3
    assert all(row["distance"] == pytest.approx(0.01, abs=1e-6) for row in moved)


# the adversary may decline


def test_the_adversary_declines_what_helps_the_victim():
    victim = toys()["classification"].victim
    sign = victim.weight.detach().sign()

    def help_class_1(images, threat_model):
        return images + 0.01 * sign  # class 1 gets better, class 0 worse

    part = judged(attack=Returns(help_class_1))[0]
    assert [row["declined"] for row in part.rows] == [True, False] * 3
    for i, row in enumerate(part.rows):
        assert row["robust"]["quality"] <= row["clean"]["quality"]
        assert torch.equal(part.adversarial[i], part.batch.images[i]) == row["declined"]
        assert (row["distance"] == 0) == row["declined"]
        if row["declined"]:
            assert row["robust"] == row["clean"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["task", "embedding"])
def test_robust_is_never_above_clean(kind, objective):
    for row in rows(kind, PGD(steps=2, step_size=1.0), Linf(2 / 255), objective=objective):
        assert row["robust"]["quality"] <= row["clean"]["quality"]


# the victim


class Restless(ToySegmenter):
    """Dropout and BatchNorm that would give random and changing answers in train mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, images):
        return super().forward(self.drop(self.norm(images)))


def restless():
    victim = Restless()
    victim.train()
    victim.norm.eval()
    victim.norm.weight.requires_grad_(False)
    return victim


def test_the_victim_rests_meanwhile_and_gets_its_flags_back():
    victim = restless()
    modes = {name: module.training for name, module in victim.named_modules()}
    wanted = {name: parameter.requires_grad for name, parameter in victim.named_parameters()}
    assert {True, False} == set(modes.values()) == set(wanted.values())
    state = {name: value.clone() for name, value in victim.state_dict().items()}
    toy = toys()["segmentation"]
    seen = []
    for part in evaluate(Question(toy.task, victim, PGD(steps=3), EPSILON), batches(toy.dataset, 2)):
        seen.append(any(m.training for m in victim.modules()) or any(p.requires_grad for p in victim.parameters()))
        assert len(part.rows) == 2
    assert seen == [False, False]
    assert {name: module.training for name, module in victim.named_modules()} == modes
    assert {name: parameter.requires_grad for name, parameter in victim.named_parameters()} == wanted
    assert all(torch.equal(value, state[name]) for name, value in victim.state_dict().items())
    assert all(parameter.grad is None for parameter in victim.parameters())


def test_the_flags_come_back_after_an_error_and_after_a_break():
    for attack in (Returns(lambda x, t: x + 1), PGD(steps=1)):
        victim = restless()
        toy = toys()["segmentation"]
        run = evaluate(Question(toy.task, victim, attack, EPSILON), batches(toy.dataset, 2))
        if isinstance(attack, PGD):
            next(run)
            run.close()
        else:
            with pytest.raises(BudgetExceeded):
                next(run)
        assert victim.training
        assert not victim.norm.training
        assert victim.body.mix.weight.requires_grad


def test_at_rest_can_be_nested():
    victim = restless()
    with at_rest(victim):
        with at_rest(victim):
            pass
        assert not any(module.training for module in victim.modules())
    assert victim.training


@pytest.mark.parametrize("when", ["clean", "adversarial"])
def test_a_victim_that_returns_nan_fails_the_run(when):
    clean = toys()["classification"].dataset.images

    class Broken(LinearVictim):
        def forward(self, images):
            hit = torch.tensor([when == "clean" or not any(torch.equal(x, y) for y in clean) for x in images.detach()])
            return torch.where(hit, float("nan"), super().forward(images))

    with pytest.raises(RunFailed, match="NaN") as caught:
        rows(attack=Returns(lambda x, t: x + 0.01), victim=Broken())
    assert caught.value.exit_code == 1


# 8 bits


def test_what_an_8_bit_file_would_hold_is_judged_too():
    """Just over the robust radius: the float image fools, its rounded self does not."""
    toy = toys()["classification"]
    levels = (toy.dataset.images * 255).round() / 255
    victim = toy.victim
    dataset = ToyDataset(levels, victim.predict(victim(levels)), "f")
    radius = victim.radius(levels, Linf)
    answer = rows(threat_model=Linf(float(radius[0]) * 1.05), dataset=dataset)
    assert answer[0]["robust"]["fooled"]
    assert not answer[0]["rounded"]["fooled"]
    generous = rows(threat_model=Linf(16 / 255), dataset=dataset)
    assert all(row["rounded"]["fooled"] for row in generous)


def test_less_than_a_level_is_nothing_in_8_bits():
    for row in rows(threat_model=Linf(0.9 / 255)):
        assert row["rounded"]["quality"] == pytest.approx(row["clean"]["quality"], abs=0.5)


# trust


def test_a_random_victim_is_watched():
    class Random(LinearVictim):
        def forward(self, images):
            return super().forward(images) + torch.rand(())

    toy = toys()["classification"]
    for victim, names in ((Random(), ["random-victim"]), (toy.victim, [])):
        watch = Watch()
        list(evaluate(Question(toy.task, victim, Noise(draws=1), Linf(1e-4)), batches(toy.dataset, 2), watch=watch))
        assert [flag.name for flag in watch.flags()] == names


def test_dead_gradients_reach_the_rows():
    class Flat(LinearVictim):
        def loss(self, outputs, targets, name, progress):
            return super().loss(outputs, targets, name, progress) * 0

    for row in rows(attack=PGD(steps=4), victim=Flat()):
        assert row["dead_gradients"] == row["backwards"] == 4
