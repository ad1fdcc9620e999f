"""The contract of backbones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslrob.backbone import Backbone, Features
from sslrob.testing.unchanged import module_unchanged


def check_backbone(backbone: Backbone, *, sizes: Sequence[tuple[int, int]] = ((64, 64), (72, 104)), atol: float = 1e-4) -> None:
    """Check that shapes are as declared, pixels are normalised inside, and no image depends on another.

    Args:
        sizes: (height, width) of the images to try.
        atol: how far features of an image alone and in a batch may differ; a share of the largest feature where that is above 1.

    Raises:
        AssertionError: says what broke, where, and what to do.
    """
    name = type(backbone).__name__
    _check_declared(backbone, name)
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with module_unchanged(backbone, name):
            for height, width in sizes:
                images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
                _check_shapes(backbone, images, f"{name} on {height} × {width} pixels")
                _check_dependence(backbone, images, f"{name} on {height} × {width} pixels", atol)
            _check_normalisation(backbone, sizes[0], name)
            _check_copies(backbone, images, name)
    finally:
        for module, training in modes.items():
            module.training = training


def _check_declared(backbone: Backbone, name: str) -> None:
    mean = dict(backbone.named_buffers()).get("mean")
    assert mean is not None, f"{name} has no buffer `mean`; call register_buffer('mean', ...)"
    assert mean.shape == (3, 1, 1), f"{name}.mean has shape {tuple(mean.shape)}, not (3, 1, 1)"
    assert ((mean >= 0) & (mean <= 1)).all(), f"{name}.mean is {mean.flatten().tolist()}; give it on the [0, 1] scale"
    channels, strides = tuple(backbone.channels), tuple(backbone.strides)
    assert 1 <= len(channels) == len(strides), f"{name} has channels {channels} and strides {strides}; give one of each per map"
    assert list(strides) == sorted({*strides}), f"{name}.strides is {strides}; order the maps from fine to coarse"


def _check_shapes(backbone: Backbone, images: Tensor, where: str) -> None:
    n, _, height, width = images.shape
    before = images.clone()
    with torch.no_grad():
        features = backbone(images)
    assert torch.equal(images, before), f"{where}: changed its input in place; normalise into a new tensor"
    assert isinstance(features, Features), f"{where}: returned {type(features).__name__}; return sslrob.Features(pooled, maps)"
    wanted: list[tuple[int, ...]] = [(n, backbone.width)]
    wanted += [(n, c, -(-height // s), -(-width // s)) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    got = [tuple(tensor.shape) for tensor in (features.pooled, *features.maps)]
    assert got == wanted, f"{where}: pooled and maps are {got}; width, channels and strides promise {wanted}"
    for tensor in (features.pooled, *features.maps):
        assert tensor.dtype == torch.float32, f"{where}: features are {tensor.dtype}; return float32"
        assert tensor.isfinite().all(), f"{where}: a feature is not finite; look at its layers"


def _check_dependence(backbone: Backbone, images: Tensor, where: str, atol: float) -> None:
    x = images.clone().requires_grad_()
    features = backbone(x)
    for i, tensor in enumerate((features.pooled, *features.maps)):
        what = f"map {i - 1}" if i else "the embedding"
        goal = tensor[0].square().sum()
        assert goal.requires_grad, f"{where}: {what} carries no graph to the pixels; compute it without detach() or no_grad()"
        (gradient,) = torch.autograd.grad(goal, x, retain_graph=True)
        assert gradient[0].isfinite().all(), f"{where}: a gradient of {what} is not finite; look for sqrt or division at zero"
        assert gradient[0].any(), f"{where}: the gradient of {what} is zero; keep it differentiable"
        assert not gradient[1].any(), f"{where}: {what} of an image depends on another image; eval mode must not use batch statistics"
    with torch.no_grad():
        again, alone = backbone(images), backbone(images[:1])
    for i, tensor in enumerate((features.pooled, *features.maps)):
        what = f"map {i - 1}" if i else "the embedding"
        second = again.maps[i - 1] if i else again.pooled
        single = alone.maps[i - 1] if i else alone.pooled
        assert torch.allclose(tensor.detach(), second, atol=1e-6), f"{where}: {what} differs from call to call; eval mode draws nothing"
        far = float((single - tensor[:1].detach()).abs().max())
        scale = max(1.0, float(tensor.detach().abs().max()))
        assert far <= atol * scale, f"{where}: {what} of an image alone and in a batch differ by {far:.2g}; let no image depend on another"


def _check_normalisation(backbone: Backbone, size: tuple[int, int], name: str) -> None:
    """The first layer that has parameters must see zeros for an image all of the colour `mean`."""
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        del module
        seen.extend(x for x in inputs if isinstance(x, Tensor))

    leaves = [m for m in backbone.modules() if not any(True for _ in m.children()) and any(True for _ in m.parameters())]
    hooks = [leaf.register_forward_pre_hook(look) for leaf in leaves]
    try:
        with torch.no_grad():
            backbone(backbone.mean.expand(3, *size)[None].clone())
    finally:
        for hook in hooks:
            hook.remove()
    assert seen, f"{name} has no layer with parameters"
    peak = float(seen[0].abs().max())
    assert peak < 1e-3, (
        f"{name}: an image of the colour `mean` reaches the first layer with parameters as values up to {peak:.3g}, not 0; "
        "normalise pixels in [0, 1] inside forward(), and let `mean` be the colour that becomes zero"
    )


def _check_copies(backbone: Backbone, images: Tensor, name: str) -> None:
    clone = copy.deepcopy(backbone)
    clone.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        same = torch.allclose(clone(images).pooled, backbone(images).pooled, atol=1e-6)
    assert same, f"{name}: a deep copy with the same state gives another embedding; keep what matters in parameters and buffers"
