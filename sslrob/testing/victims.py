"""The contract of victims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sslrob.backbone import Backbone
from sslrob.evaluate import at_rest
from sslrob.task import Victim
from sslrob.testing.unchanged import module_unchanged


def check_victim(
    victim: Victim,
    images: Tensor,
    targets: Sequence[Any],
    *,
    signal: Sequence[bool] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Check that losses, verdicts and predictions are one an image, depend on no other image, and repeat.

    Args:
        images: (n, 3, h, w) in [0, 1], at least two.
        targets: n, as the task's data sets hold them.
        signal: whether each target gives a loss something to raise; an image without objects may not.  All do by default.
        rtol, atol: how far an image alone and in a batch may differ, relatively and absolutely.

    Raises:
        AssertionError: says what broke, where, and what to do.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images are too few to see whether one depends on another; give at least 2")
    name = type(victim).__name__
    assert 1 <= len({*victim.losses}) == len(victim.losses), f"{name}.losses is {victim.losses!r}; name each loss once"
    assert victim.read_every >= 1, f"{name}.read_every is {victim.read_every}; it is a number of steps, at least 1"
    inside = victim.backbone
    assert inside is None or isinstance(inside, Backbone), f"{name}.backbone is {type(inside).__name__}; return a Backbone or None"
    before = images.clone()
    with at_rest(victim), module_unchanged(victim, name):
        for loss in victim.losses:
            _check_loss(victim, images, targets, loss, signal or [True] * len(images), (rtol, atol))
        _check_verdicts(victim, images, targets, (rtol, atol))
    assert torch.equal(images, before), f"{name} changed its input in place; work on a new tensor"


def _check_loss(
    victim: Victim, images: Tensor, targets: Sequence[Any], name: str, signal: Sequence[bool], tolerance: tuple[float, float]
) -> None:
    where, n = f"{type(victim).__name__}, loss {name!r}", len(images)
    for progress in (0.0, 1.0):
        ends = victim.loss(victim(images), targets, name, progress)
        assert ends.isfinite().all(), f"{where} at progress {progress}: {ends.tolist()}; every loss is finite"
    x = images.clone().requires_grad_()
    together = victim.loss(victim(x), targets, name, 0.5)
    assert together.shape == (n,), f"{where} has shape {tuple(together.shape)}; return one value an image, ({n},)"
    assert together.isfinite().all(), f"{where}: {together.tolist()}; every loss is finite"
    assert together.requires_grad, f"{where} carries no graph to the images; compute it without detach() or no_grad()"
    (other,) = torch.autograd.grad(together[0], x, retain_graph=True, allow_unused=True)
    assert other is not None, f"{where} does not depend on the images; compute it from the outputs"
    assert not other[1:].any(), f"{where}: the first image's loss has a gradient at other images; reduce per image, never over the batch"
    (gradient,) = torch.autograd.grad(together.sum(), x)
    assert gradient.isfinite().all(), f"{where}: a gradient is not finite; look for sqrt, log or division at zero"
    attacked = ~victim.fooled(victim(images), targets).bool()  # what is wrong already may be flat: no attack begins there
    looked_at = attacked if attacked.any() else ~attacked
    silent = [i for i in range(n) if signal[i] and looked_at[i] and not gradient[i].any()]
    assert not silent, f"{where}: zero gradient for image {silent[:1]}, whose target gives a signal; keep the loss differentiable"
    alone = torch.cat([victim.loss(victim(one), target, name, 0.5).detach() for one, target in _one_by_one(images, targets)])
    _assert_close(alone, together.detach(), f"{where}: alone and in a batch", tolerance)
    again = victim.loss(victim(images), targets, name, 0.5).detach()
    assert torch.equal(again, victim.loss(victim(images), targets, name, 0.5).detach()), (
        f"{where} differs from call to call; rank candidates by a fixed hash instead of sampling them"
    )


@torch.no_grad()
def _check_verdicts(victim: Victim, images: Tensor, targets: Sequence[Any], tolerance: tuple[float, float]) -> None:
    name, n = type(victim).__name__, len(images)
    outputs = victim(images)
    fooled, quality = victim.fooled(outputs, targets), victim.quality(outputs, targets)
    got = fooled.dtype, tuple(fooled.shape)
    assert got == (torch.bool, (n,)), f"{name}.fooled is {got[0]} {got[1]}; return bool ({n},)"
    got = quality.dtype, tuple(quality.shape)
    assert (quality.is_floating_point(), got[1]) == (True, (n,)), f"{name}.quality is {got[0]} {got[1]}; return floating point ({n},)"
    assert not quality.isnan().any(), f"{name}.quality is NaN: {quality.tolist()}; an empty target needs a value too"
    predictions = victim.predict(outputs)
    assert len(predictions) == n, f"{name}.predict returned {len(predictions)} predictions for {n} images; return one an image"
    away = [tensor for prediction in predictions for tensor in _tensors(prediction) if tensor.device.type != "cpu"]
    assert not away, f"{name}.predict returned tensors on {away[0].device}; move predictions to the CPU"
    singly = [(victim(one), target) for one, target in _one_by_one(images, targets)]
    _assert_close(torch.cat([victim.quality(o, t) for o, t in singly]), quality, f"{name}.quality alone and in a batch", tolerance)
    verdicts = torch.cat([victim.fooled(o, t) for o, t in singly])
    assert torch.equal(verdicts, fooled), (
        f"{name}.fooled alone is {verdicts.tolist()}, in a batch {fooled.tolist()}; judge each image by itself"
    )


def _assert_close(found: Tensor, wanted: Tensor, what: str, tolerance: tuple[float, float]) -> None:
    rtol, atol = tolerance
    far = float((found - wanted).abs().max())
    assert torch.allclose(found, wanted, rtol=rtol, atol=atol), f"{what} differ by {far:.2g}; let no image depend on another"


def _one_by_one(images: Tensor, targets: Sequence[Any]) -> Iterator[tuple[Tensor, Sequence[Any]]]:
    for i in range(len(images)):
        yield images[i : i + 1], targets[i : i + 1]


def _tensors(prediction: Any) -> Iterator[Tensor]:
    """The tensors in a prediction, a tensor or a plain container of them."""
    if isinstance(prediction, Tensor):
        yield prediction
    elif isinstance(prediction, dict):
        yield from (tensor for value in prediction.values() for tensor in _tensors(value))
    elif isinstance(prediction, (list, tuple)):
        yield from (tensor for value in prediction for tensor in _tensors(value))
