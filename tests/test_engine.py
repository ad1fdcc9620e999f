"""The copy that is searched in a victim's place: what is folded, what is not, and that the victim never notices."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sslrob.attack import Attack
from sslrob.backbone import Backbone, Features
from sslrob.builtin.classification import LinearClassifier
from sslrob.builtin.gradient import PGD
from sslrob.data import Batch
from sslrob.engine import prepared
from sslrob.errors import SslrobError
from sslrob.evaluate import Question, evaluate
from sslrob.testing import toys
from sslrob.threat_model import Linf
from sslrob.trust import state_digest

LIKE = torch.zeros(3, 16, 16)


class Net(Backbone):
    """Whatever `layers` are, from three channels to eight."""

    width, channels, strides = 8, (8,), (1,)

    def __init__(self, layers):
        super().__init__()
        self.register_buffer("mean", torch.full((3, 1, 1), 0.5))
        self.layers = layers

    def forward(self, images):
        maps = self.layers(images - self.mean)
        return Features(maps.mean((2, 3)), (maps,))


class Branching(nn.Module):
    """What the convolution gives is taken by the norm and, one way or another, by something else."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.norm, self.way = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), way

    def forward(self, x):
        y = self.conv(x)
        if self.way == "sum":
            return self.norm(y) + y
        if self.way == "view":
            return self.norm(y) * y.flatten(1).amax(1).view(-1, 1, 1, 1)
        if self.way == "in place":
            return self.norm(y.relu_())
        return self.norm(y) if self.way == "shape" and y.shape[2] > 1 else y


class Shared(nn.Module):
    """One convolution before two norms, or before the same norm twice."""

    def __init__(self, norms):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8)] * 2 if norms == 1 else [nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.conv(x)).relu()
        return x


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8, affine=False))

    def forward(self, x):
        return F.relu(x + self.second(self.first(x)))


def victim_of(*layers, head=10):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = LinearClassifier(Net(nn.Sequential(*layers)), head).eval()
        for module in victim.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 3)
                if module.affine:
                    nn.init.uniform_(module.weight, -2, 2)
                    nn.init.normal_(module.bias)
    return victim


def stem():
    return nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")


def norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def same(victim, found):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    wanted, reached = victim(images), found(images)
    assert torch.allclose(reached, wanted, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(outputs[:, 0].sum(), images)[0] for outputs in (wanted, reached)]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_a_resnet_is_folded_and_sees_the_same():
    victim = victim_of(stem(), nn.BatchNorm2d(8), nn.ReLU(), Residual(), nn.Dropout(0.9), Residual())
    found, told = prepared(victim, LIKE)
    assert found is not victim
    assert (norms(victim), norms(found)) == (5, 0)
    assert told == "a copy: 5 of 5 batch norms folded, channels last"
    assert not any(parameter.requires_grad for parameter in found.parameters())
    same(victim, found)


@pytest.mark.parametrize(("channels", "layout"), [(8, ", channels last"), (192, "")])
def test_images_lie_channels_last_where_convolutions_move_more_than_they_multiply(channels, layout):
    victim = victim_of(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Conv2d(channels, channels, 3), nn.Conv2d(channels, 8, 1))
    found, told = prepared(victim, LIKE)
    assert told == f"a copy: 1 of 1 batch norms folded{layout}"
    assert found.body.layers[2].weight.is_contiguous(memory_format=torch.channels_last) == bool(layout)
    same(victim, found)


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([Branching("sum")], 1),
        ([Branching("view")], 1),
        ([Branching("in place")], 1),
        ([Branching("shape")], 0),  # who asks for a shape takes nothing
        ([stem(), Shared(2)], 2),
        ([stem(), Shared(1)], 0),  # the same pair twice
        ([stem(), nn.ReLU(), nn.BatchNorm2d(8)], 1),
        ([parametrizations.weight_norm(stem()), nn.BatchNorm2d(8)], 1),
        ([stem(), nn.BatchNorm2d(8, track_running_stats=False)], 1),  # the batch's own statistics, even at rest
        ([stem(), nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8))], 1),
    ],
    ids=["sum", "view", "in place", "shape", "two norms", "twice", "not at once", "weight norm", "no statistics", "second norm"],
)
def test_a_norm_is_folded_only_where_it_alone_takes_what_the_convolution_gives(layers, left):
    victim = victim_of(*layers, stem_of_eight(), nn.BatchNorm2d(8))
    found, _ = prepared(victim, LIKE)
    assert norms(found) == left
    if not any(getattr(layer, "track_running_stats", True) is False for layer in layers):
        same(victim, found)


def stem_of_eight():
    return nn.Conv2d(8, 8, 1)


def test_a_norm_that_stays_in_train_mode_is_not_folded():
    class Stubborn(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(True)

    victim = victim_of(stem(), Stubborn(8), stem_of_eight(), nn.BatchNorm2d(8))
    before = state_digest(victim.state_dict())
    found, told = prepared(victim, LIKE)
    assert found is victim
    assert told == "the victim itself: a part of it stays in train mode"
    assert state_digest(victim.state_dict()) == before  # it was not even looked at


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("hook", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_whoever_changes_gradients_still_sees_them(place, hook):
    layers, seen = (stem(), nn.BatchNorm2d(8)), []
    victim = victim_of(*layers, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
    getattr(layers[place], hook)(lambda module, *gradients: seen.append(gradients[-1][0].sum().item()))
    found = prepared(victim, LIKE).victim
    assert found is not victim
    assert norms(found) == 1
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    for one in (victim, found):
        pixels = images.clone().requires_grad_(True)
        one(pixels).square().sum().backward()
    assert len(seen) == 2
    assert seen[1] == pytest.approx(seen[0], rel=1e-3, abs=1e-3)


def test_a_victim_whose_maps_show_what_comes_before_the_norm_is_left_alone():
    class Early(Net):
        def forward(self, images):
            early = self.layers[0](images)
            return Features(self.layers[1](early).mean((2, 3)), (early,))

    victim = LinearClassifier(Early(nn.Sequential(stem(), nn.BatchNorm2d(8))), 4).eval()
    victim.body.layers[1].running_mean.fill_(3)
    found, told = prepared(victim, LIKE)
    assert found is victim
    assert "differs by" in told


@pytest.mark.parametrize("kind", toys())
def test_where_there_is_nothing_to_gain_the_victim_itself_is_searched(kind):
    toy = toys()[kind]
    found, told = prepared(toy.victim, toy.dataset[0].image)
    assert found is toy.victim
    assert told == "the victim itself: nothing to fold"


def test_nothing_of_the_victim_changes():
    victim = victim_of(stem(), nn.BatchNorm2d(8), Residual())
    victim.train()
    victim.body.layers[1].eval()
    victim.head.weight.requires_grad_(False)
    victim.head.bias.grad = torch.ones(10)
    flags = [(module.training, len(module._forward_hooks)) for module in victim.modules()]
    wanted, digest = [parameter.requires_grad for parameter in victim.parameters()], state_digest(victim.state_dict())
    strides, state = [parameter.stride() for parameter in victim.parameters()], torch.get_rng_state()
    found, _ = prepared(victim, LIKE)
    assert found is not victim
    assert [(module.training, len(module._forward_hooks)) for module in victim.modules()] == flags
    assert [parameter.requires_grad for parameter in victim.parameters()] == wanted
    assert [parameter.stride() for parameter in victim.parameters()] == strides
    assert state_digest(victim.state_dict()) == digest
    assert torch.equal(victim.head.bias.grad, torch.ones(10))
    assert all(parameter.grad is None for parameter in found.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    originals = {parameter.data_ptr() for parameter in victim.parameters()}
    assert not originals & {parameter.data_ptr() for parameter in found.parameters()}


def test_a_victim_that_cannot_be_copied_is_searched_itself():
    victim = victim_of(stem(), nn.BatchNorm2d(8))
    victim.lock = threading.Lock()
    found, told = prepared(victim, LIKE)
    assert found is victim
    assert told.startswith("the victim itself: TypeError: ")


def test_a_victim_whose_copy_still_runs_the_original_is_searched_itself():
    class Closed(LinearClassifier):
        def __init__(self, inner):
            super().__init__(inner.body, 10)
            self.answer = lambda images: inner(images)

        def forward(self, images):
            return self.answer(images)

    victim = Closed(victim_of(stem(), nn.BatchNorm2d(8), stem_of_eight())).eval()
    found, told = prepared(victim, LIKE)
    assert found is victim or torch.equal(found(LIKE[None]), victim(LIKE[None])), told


def test_a_victim_that_draws_at_random_is_searched_itself():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + 0.1 * torch.randn_like(x)

    victim = victim_of(Noisy(), stem(), nn.BatchNorm2d(8), stem_of_eight())
    found, told = prepared(victim, LIKE)
    assert found is victim
    assert "differs by" in told


@pytest.mark.parametrize("bright", ["like", "noise"])
def test_a_victim_that_treats_other_images_otherwise_is_searched_itself_unless_the_copy_does_so_too(bright):
    """In noise one norm is seen, in a bright image another."""

    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norms = stem(), nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])

        def forward(self, x):
            return self.norms[int(x.mean() > 0.1)](self.conv(x))

    victim = victim_of(Choosing(), stem_of_eight(), nn.BatchNorm2d(8))
    like = LIKE + 0.99 if bright == "like" else LIKE
    found, _ = prepared(victim, like)
    for image in (like[None], torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)):
        assert torch.allclose(found(image), victim(image), rtol=1e-4, atol=1e-5)


def test_a_victim_that_breaks_is_left_to_whoever_runs_it():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("no\nsuch luck")

    victim = victim_of(Broken(), stem())
    assert prepared(victim, LIKE) == (victim, "the victim itself: ValueError: no")


class Shifted(LinearClassifier):
    """Nearly the same: its logits are moved by a little."""

    shift = 0.0

    def forward(self, images):
        return super().forward(images) + torch.tensor([self.shift, 0.0])


class Creeping(Attack):
    """Stops at once where whom it sees is fooled, next to the border, as searches for the smallest move do."""

    def perturb(self, objective, images, threat_model, *, streams):
        x = images.clone()
        for _ in range(40):
            x.requires_grad_()
            feedback = objective(x)
            (gradient,) = torch.autograd.grad(feedback.loss.sum(), x)
            going = ~feedback.fooled[:, None, None, None]
            x = threat_model.project(x.detach() + 4e-3 * going * gradient.sign(), images)
        return x


def test_whom_only_the_copy_takes_for_fooled_is_attacked_again_through_the_victim():
    """The original judges; what its copy's rounding let go is searched on the original itself, and costs twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = Shifted(Net(nn.Conv2d(3, 8, 1)), 2).eval()
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        victim.head.bias[0] -= (victim(images) @ torch.tensor([1.0, -1.0])).mean()  # as many images of either class
    batch = Batch(tuple("abcdef"), images, tuple(victim(images).argmax(1).tolist()))
    copied = copy.deepcopy(victim)
    copied.shift = -5e-3  # a few steps; it gives up sooner on class 0
    task = toys()["classification"].task
    task.measure = lambda prediction, target: {}
    alone, through = (next(evaluate(Question(task, victim, Creeping(), Linf(0.3), searched=seen), [batch])) for seen in (None, copied))
    assert alone.robust.fooled.all()
    assert through.robust.fooled.all()
    again = torch.tensor(batch.targets) == 0
    assert 0 < again.sum() < 6
    assert [row["forwards"] for row in alone.rows] == [40] * 6
    assert [row["forwards"] for row in through.rows] == [80 if twice else 40 for twice in again.tolist()]
    assert torch.equal(through.adversarial[again], alone.adversarial[again])


def test_an_evaluation_through_the_copy_gives_the_same_verdicts():
    victim = victim_of(stem(), nn.BatchNorm2d(8), nn.ReLU(), Residual())
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(tuple("abcdef"), images, tuple(victim(images).argmax(1).tolist()))
    task = toys()["classification"].task
    task.measure = lambda prediction, target: {}
    found, _ = prepared(victim, images[0])
    runs = [next(evaluate(Question(task, victim, PGD(steps=5), Linf(2 / 255), searched=seen), [batch])) for seen in (None, found)]
    assert torch.equal(runs[0].robust.fooled, runs[1].robust.fooled)
    assert torch.allclose(runs[0].robust.quality, runs[1].robust.quality, atol=1e-3)


def test_in_bfloat16_the_copy_answers_nearly_the_same_in_float32_and_the_victim_stays_as_it_is():
    victim = victim_of(stem(), nn.BatchNorm2d(8), stem_of_eight())
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = victim(image)
    found, told = prepared(victim, LIKE, "bfloat16")
    assert told.endswith(", bfloat16")
    features, originals = found.backbone(image), victim.backbone(image)
    assert features.pooled.dtype == features.maps[0].dtype == torch.float32
    difference = (features.pooled - originals.pooled).abs().max() / originals.pooled.abs().max()
    assert 1e-5 < difference < 0.05
    assert torch.equal(victim(image), before)
    x = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(found(x).sum(), x)
    assert gradient.dtype == torch.float32
    assert gradient.abs().max() > 0


def test_bfloat16_wants_a_copy():
    class Locked(nn.Conv2d):
        def __deepcopy__(self, memo):
            raise TypeError("it holds a lock")

    with pytest.raises(SslrobError, match="no copy of the victim to search in bfloat16: the victim itself: TypeError: it holds a lock"):
        prepared(victim_of(Locked(3, 8, 3)), LIKE, "bfloat16")


def test_an_evaluation_in_bfloat16_says_how_often_the_victim_was_searched_again():
    """Every row that is called fooled is so in the victim's own eyes."""
    victim = victim_of(stem(), nn.BatchNorm2d(8), stem_of_eight(), head=2)
    images = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        victim.head.bias[0] -= (victim(images) @ torch.tensor([1.0, -1.0])).mean()  # as many images of either class
    batch = Batch(tuple(map(str, range(32))), images, tuple(victim(images).argmax(1).tolist()))
    task = toys()["classification"].task
    task.measure = lambda prediction, target: {}
    searched = prepared(victim, LIKE, "bfloat16").victim
    found = next(evaluate(Question(task, victim, Creeping(), Linf(0.3), searched=searched), [batch]))
    wrong = victim(found.adversarial).argmax(1) != torch.tensor(batch.targets)
    assert torch.equal(found.robust.fooled, wrong)
    assert wrong.any()
    copies = searched(found.adversarial).argmax(1) != torch.tensor(batch.targets)
    again = torch.tensor([row.get("searched_again", False) for row in found.rows])
    assert again.any()
    assert not (copies & ~wrong & ~again).any()
