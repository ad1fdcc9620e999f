"""A backbone under a decode head: losses, verdicts, training, attacks."""

import json
from types import SimpleNamespace

import pytest
import torch
from sslrob_mmcv.bridge import Prepare
from sslrob_mmseg.dataset import IGNORED
from sslrob_mmseg.task import Segmentation
from sslrob_mmseg.victim import Segmentor
from torch import nn
from torch.nn import functional as F

from sslrob import Batch, Linf
from sslrob.builtin.apgd import APGD
from sslrob.builtin.gradient import PGD
from sslrob.builtin.sea import SEA
from sslrob.errors import SslrobError
from sslrob.evaluate import Question, evaluate
from sslrob.objective import build as objective_of
from sslrob.streams import Streams
from sslrob.task_objective import TaskObjective

LOSSES = Segmentor.losses
PROGRESS = 0.4


def look(victim, images, targets, loss):
    """Loss, gradient, fooled and quality, each per image."""
    x = images.clone().requires_grad_()
    outputs = victim(x)
    values = victim.loss(outputs, targets, loss, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient, victim.fooled(outputs, targets), victim.quality(outputs, targets)


class Echo(nn.Module):
    """A segmentor whose logits are its input."""

    out_channels = 3

    def __init__(self):
        super().__init__()
        self.backbone = nn.Identity()

    def inference(self, x, metas):
        assert {m["pad_shape"] for m in metas} == {tuple(x.shape[2:])}
        return x


@pytest.fixture
def echo():
    return Segmentor(Echo(), Prepare())


@pytest.fixture
def pixels():
    """Logits (2, 3, 4, 5), and labels of which some are ignored and some are predicted rightly."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (2, 4, 5), generator=draw, dtype=torch.uint8)
    labels[0, :2] = labels[1, 3, 4] = IGNORED
    return torch.randn(2, 3, 4, 5, generator=draw), labels


def by_hand(logits, labels, loss):
    """(n,) the mean of a loss over the labelled pixels, one by one; `loss` takes a pixel's probabilities, label and logits."""
    losses = []
    for image, mask in zip(logits, labels, strict=True):
        terms = [
            loss(image[:, y, x].exp() / image[:, y, x].exp().sum(), int(mask[y, x]), image[:, y, x])
            for y, x in (mask != IGNORED).nonzero().tolist()
        ]
        losses.append(sum(terms) / len(terms))
    return torch.stack(losses)


def crossed(p, label, logits):
    return -p[label].log()


def jensen_shannon(p, label, logits):
    truth = torch.eye(3)[label]
    mean = (p + truth) / 2
    return ((p * (p / mean).log()).sum() + (truth * (truth / mean).clamp_min(1e-30).log()).sum()) / 2


def spherical(p, label, logits):
    return -logits[label] / logits.square().sum().sqrt()


def segpgd_weight(p, label):
    return 1 - PROGRESS / 2 if p.argmax() == label else PROGRESS / 2


def cospgd_weight(p, label):
    return F.cosine_similarity(p, torch.eye(3)[label], dim=0)


def mask(p, label):
    return float(p.argmax() == label)


FORMULAS = {  # what it counts, and the weight of a pixel's gradient
    "ce": (crossed, lambda p, label: 1.0),
    "segpgd": (crossed, segpgd_weight),
    "cospgd": (crossed, cospgd_weight),
    "mask-ce": (crossed, mask),
    "js": (jensen_shannon, lambda p, label: 1.0),
    "mask-spherical": (spherical, mask),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_the_papers_formulas_over_labelled_pixels(echo, pixels, loss):
    """The value leaves the weights out; in the gradient they are there, as numbers."""
    logits, labels = pixels
    formula, weight = FORMULAS[loss]
    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ours = echo.loss(echo(x), list(labels), loss, PROGRESS)
    torch.testing.assert_close(ours, by_hand(logits, labels, formula))
    weighed = by_hand(y, labels, lambda p, label, z: weight(p.detach(), label) * formula(p, label, z))
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), z)[0] for loss, z in ((ours, x), (weighed, y))))


def test_segpgd_looks_at_right_pixels_first_and_at_all_of_them_last(echo, pixels):
    logits, labels = pixels

    def gradient(loss, progress, targets):
        x = logits.clone().requires_grad_()
        return torch.autograd.grad(echo.loss(x, targets, loss, progress).sum(), x)[0]

    torch.testing.assert_close(gradient("segpgd", 1.0, list(labels)), gradient("ce", 1.0, list(labels)) / 2)
    torch.testing.assert_close(gradient("segpgd", 0.0, list(labels)), gradient("mask-ce", 0.0, list(labels)))
    wrong = [torch.where(logits[i].argmax(0) == m, IGNORED, m) for i, m in enumerate(labels)]
    assert not gradient("segpgd", 0.0, wrong).any()


@pytest.mark.parametrize("loss", ["mask-ce", "mask-spherical"])
def test_masks_are_off_in_an_image_where_no_pixel_is_right(echo, pixels, loss):
    logits, labels = pixels
    wrong = [torch.where(logits[0].argmax(0) == labels[0], IGNORED, labels[0]), labels[1]]
    x = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(echo.loss(x, wrong, loss, PROGRESS).sum(), x)
    assert torch.equal(gradient[0].any(0), wrong[0] != IGNORED)
    assert torch.equal(gradient[1].any(0), logits[1].argmax(0) == labels[1])


@pytest.mark.parametrize("loss", LOSSES)
def test_turning_a_pixel_never_lowers_the_value(echo, loss):
    """Or a search that compares values would shun what it is after."""
    label = torch.tensor([[0]], dtype=torch.uint8)
    lead = torch.linspace(2, -2, 41)
    values = [echo.loss(torch.tensor([true, 0.0, 0.0]).view(1, 3, 1, 1), [label], loss, PROGRESS).item() for true in lead]
    assert values == sorted(values)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_saturated_and_equal_logits_give_finite_losses_and_gradients(echo, pixels, loss, scale):
    logits, labels = pixels
    x = (scale * logits).requires_grad_()
    values = echo.loss(x, list(labels), loss, PROGRESS)
    (gradient,) = torch.autograd.grad(values.sum(), x)
    assert values.isfinite().all()
    assert gradient.isfinite().all()


def test_unlabelled_pixels_do_not_matter(echo, pixels):
    logits, labels = pixels
    changed = torch.where((labels == IGNORED)[:, None], 9 * torch.rand(logits.shape), logits)
    for loss in LOSSES:
        assert torch.equal(echo.loss(logits, list(labels), loss, PROGRESS), echo.loss(changed, list(labels), loss, PROGRESS))
    assert torch.equal(echo.quality(logits, list(labels)), echo.quality(changed, list(labels)))


def test_quality_is_the_share_of_right_pixels_and_none_right_is_fooled(echo):
    labels = torch.tensor([[0, 1, IGNORED, 2]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 2, 0, 2]], [[1, 2, 0, 1]]])
    logits = F.one_hot(predicted, 3).movedim(-1, 1).float()
    torch.testing.assert_close(echo.quality(logits, [labels, labels]), torch.tensor([2 / 3, 0]))
    assert echo.fooled(logits, [labels, labels]).tolist() == [False, True]
    assert all(torch.equal(a, b.byte()) for a, b in zip(echo.predict(logits), predicted, strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_an_image_without_labels_has_nothing_to_lose(trained, scenes, loss):
    images, masks = scenes(2)
    values, gradient, fooled, quality = look(trained, images, [torch.full_like(masks[0], IGNORED), masks[1]], loss)
    assert values[0] == 0
    assert not gradient[0].any()
    assert gradient[1].any()
    assert fooled.tolist() == [True, False]
    assert quality[0] == 0


@pytest.mark.parametrize("kind", ["fcn", "upernet"])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_image_alone_is_an_image_in_a_batch_and_twice_the_same(compose, scenes, kind, loss):
    victim, (images, masks) = compose(kind).eval(), scenes(3)
    together, again = look(victim, images, masks, loss), look(victim, images, masks, loss)
    alone = [look(victim, images[i : i + 1], masks[i : i + 1], loss) for i in range(3)]
    for batched, repeated, single in zip(together, again, zip(*alone, strict=True), strict=True):
        assert torch.equal(batched, repeated)
        torch.testing.assert_close(batched, torch.cat(single), rtol=1e-4, atol=1e-6)
    assert together[1].flatten(1).any(1).all()


class Drawing(Echo):
    """Its logits are its input and noise, as heads that start from random bases have it."""

    rand_init = True

    def inference(self, x, metas):
        return x + torch.rand_like(x)


def test_heads_that_draw_do_so_repeatably_and_for_each_image_alike(pixels):
    victim, (logits, labels) = Segmentor(Drawing(), Prepare()), pixels
    torch.manual_seed(3)
    together, again = (look(victim, logits, list(labels), "ce")[0] for _ in range(2))
    assert torch.equal(together, again)
    assert torch.equal(together[1:], look(victim, logits[1:], list(labels[1:]), "ce")[0])
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("kind", ["fcn", "upernet"])
def test_logits_have_the_images_size_whatever_it_is(compose, scenes, kind):
    victim = compose(kind).eval()
    for size in ((45, 61), (32, 64), (33, 31)):
        assert victim(scenes(1, size=size)[0]).shape == (1, 4, *size)


def test_a_padded_image_is_one_on_a_larger_ground_of_the_mean_colour(compose):
    victim = compose("fcn").eval()
    image = torch.rand(1, 3, 32, 40)
    larger = victim.backbone.mean.expand(1, 3, 32, 64).clone()
    larger[..., :40] = image
    torch.testing.assert_close(victim(image), victim(larger)[..., :40])


def test_the_backbone_is_held_once_and_left_as_it_was(compose):
    torch.manual_seed(0)
    reference = compose("upernet")
    backbone = reference.backbone
    weights = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    victim = Segmentation().victim(backbone, kind="fcn", classes=["a", "b"], settings={"width": 4})
    assert victim.backbone is backbone
    assert all(torch.equal(tensor, weights[name]) for name, tensor in backbone.state_dict().items())
    held = [name for name in victim.state_dict() if name.endswith("stem.weight")]
    assert held == ["segmentor.backbone.backbone.stem.weight"]
    assert {name.split(".")[1] for name in victim.state_dict()} == {"backbone", "decode_head"}


def test_the_same_loss_trains_a_head(compose, train):
    victim = compose("upernet")
    before = {name: tensor.clone() for name, tensor in victim.named_buffers()}
    losses = train(victim, 12)
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert any(not torch.equal(tensor, before[name]) for name, tensor in victim.named_buffers() if name.endswith("running_mean"))


def test_dropout_is_on_in_training_only(compose, scenes):
    victim, (images, _) = compose("fcn", dropout=0.5), scenes(2)
    assert not torch.equal(victim(images), victim(images))
    victim.eval()
    assert torch.equal(victim(images), victim(images))


def test_a_forward_in_eval_mode_changes_no_state(trained, scenes):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    look(trained, *scenes(2), "ce")
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


@pytest.mark.parametrize("loss", LOSSES)
def test_three_steps_of_ascent_raise_the_loss_and_lower_the_quality(trained, scenes, loss):
    images, masks = scenes(4, seed=7)
    batch, limits = Batch(tuple("abcd"), images, masks), Linf(8 / 255)
    objective = objective_of(f"task:{loss}", trained, batch, "white-box")
    assert isinstance(objective, TaskObjective)
    clean, x = objective(images), images
    for step in range(3):
        x = x.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x, progress=step / 3).loss.sum(), x)
        x = limits.project(x.detach() + limits.steepest(gradient, images, 0.5), images)
    attacked = objective(x.detach())
    assert limits.allows(x, images).all()
    assert (trained.loss(trained(x), masks, "ce", 1.0) > trained.loss(trained(images), masks, "ce", 1.0)).all()
    assert attacked.quality.mean() < clean.quality.mean() - 0.02


def test_an_evaluation_end_to_end(trained, scenes):
    images, masks = scenes(5, seed=8)
    masks[2][:] = IGNORED
    task, batch = Segmentation(), Batch(tuple("abcde"), images, masks)
    (judged,) = evaluate(Question(task, trained, PGD(steps=5), Linf(8 / 255), "task:segpgd"), [batch])
    rows = json.loads(json.dumps(judged.rows))
    clean, robust = (task.aggregate([row[when]["measure"] for row in rows]) for when in ("clean", "robust"))
    assert all(robust[name] < clean[name] for name in clean)
    assert clean["mIoU"] > 80
    assert [row["clean"]["fooled"] for row in rows] == [False, False, True, False, False]
    assert rows[2]["forwards"] == 0
    assert not any(row["dead_gradients"] for row in rows)


def test_sea_leaves_less_than_any_of_its_losses_alone(trained, scenes):
    images, masks = scenes(3, seed=9)
    masks[1][:] = IGNORED
    batch, limits = Batch(tuple("abc"), images, masks), Linf(8 / 255)

    def left(attack, name):
        objective = objective_of(name, trained, batch, "white-box")
        return trained.quality(trained(attack.perturb(objective, images, limits, streams=Streams(0, batch.ids))), masks), objective.cost

    worst, cost = left(SEA(steps=10), "task")
    assert set(trained.strongest) < set(LOSSES)
    assert cost.backwards.tolist()[0] == 10 * len(trained.strongest)
    first, _ = left(APGD(10, radii=(2.0, 1.5, 1.0)), f"task:{trained.strongest[0]}")
    assert (worst <= first).all()
    assert worst[1] == 0
    paper, _ = left(SEA(steps=10, losses=("mask-ce", "segpgd", "js", "mask-spherical")), "task")
    assert (paper[[0, 2]] < trained.quality(trained(images), masks)[[0, 2]] - 0.05).all()


def test_embedding_objectives_find_the_backbone(trained, scenes):
    images, masks = scenes(2)
    feedback = objective_of("embedding", trained, Batch(("a", "b"), images, masks), "white-box")((images + 0.02).clamp(0, 1))
    assert (feedback.loss > 0).all()


def test_labels_beyond_the_victims_classes_are_an_error(echo):
    label = torch.full((2, 2), 3, dtype=torch.uint8)
    with pytest.raises(SslrobError, match="label 3, but this victim tells 3 classes"):
        echo.loss(torch.zeros(1, 3, 2, 2), [label], "ce", 1.0)


def test_an_unknown_loss_is_a_mistake_of_the_caller(echo, pixels):
    with pytest.raises(ValueError, match="no loss 'dice'"):
        echo.loss(pixels[0], list(pixels[1]), "dice", 1.0)


def test_segmentors_with_one_channel_are_refused():
    with pytest.raises(SslrobError, match="one output channel"):
        Segmentor(SimpleNamespace(out_channels=1), Prepare())


@pytest.mark.parametrize(
    ("kind", "settings", "message", "hint"),
    [
        ("upperhead", {}, "no segmentation head is named 'upperhead'", "upernet"),
        ("fcn", {"widht": 3}, "head 'fcn' has no setting 'widht'", "'width'"),
        ("fcn", {"width": 0}, "setting 'width' of head 'fcn': input should be greater", "width, dropout, convs, maps"),
        ("fcn", {"maps": [0, -1]}, r"setting 'maps\.1' of head 'fcn': .* got -1", "default"),
        ("upernet", {"dropout": "much"}, "setting 'dropout' of head 'upernet': .* got 'much'", "default"),
        ("upernet", {"convs": 2}, "head 'upernet' has no setting 'convs'", "width"),
        ("fcn", {"maps": [4]}, "names map 4, but the backbone has 4", "from 0"),
    ],
)
def test_wrong_heads_are_explained(compose, kind, settings, message, hint):
    with pytest.raises(SslrobError, match=message) as caught:
        compose(kind, **settings)
    assert hint in caught.value.hint
