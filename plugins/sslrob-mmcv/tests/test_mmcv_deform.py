"""Deformable convolutions and deformable attention against torchvision, ordinary convolutions, mmcv's PyTorch version and gradcheck."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack, deform_conv2d, modulated_deform_conv2d
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from torch import Tensor

# stride, padding, dilation (vertical, horizontal each), groups, deformable groups
GEOMETRIES = {"plain": ((1, 1), (0, 0), (1, 1), 1, 1), "uneven": ((2, 1), (1, 2), (1, 2), 1, 1), "groups": ((1, 1), (1, 1), (1, 1), 2, 2)}


def convolution_tensors(geometry: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Small input, offset, mask, weight and bias that fit ``geometry``."""
    stride, padding, dilation, groups, deform_groups = GEOMETRIES[geometry]
    generator = torch.Generator().manual_seed(0)
    size, kernel = (5, 6), (3, 2)
    out = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    shapes = {
        "input": (2, 4, *size),
        "offset": (2, 2 * deform_groups * 6, *out),
        "mask": (2, deform_groups * 6, *out),
        "weight": (4, 4 // groups, *kernel),
        "bias": (4,),
    }
    return {name: torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for name, shape in shapes.items()}


def torchvisions(tensors: dict[str, Tensor], geometry: str) -> Tensor:
    """Torchvision's public function, which reads both numbers of groups from the shapes."""
    stride, padding, dilation, _, _ = GEOMETRIES[geometry]
    return torchvision.ops.deform_conv2d(**tensors, stride=stride, padding=padding, dilation=dilation)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_modulated_convolution_is_torchvisions(geometry: str, bias: bool) -> None:
    tensors = convolution_tensors(geometry)
    if not bias:
        del tensors["bias"]
    output = modulated_deform_conv2d(*(tensors.get(name) for name in ("input", "offset", "mask", "weight", "bias")), *GEOMETRIES[geometry])
    expected = torchvisions(tensors, geometry)
    assert torch.equal(output, expected)
    ours = torch.autograd.grad(output.square().sum(), list(tensors.values()))
    theirs = torch.autograd.grad(expected.square().sum(), list(tensors.values()))
    for name, gradient, wanted in zip(tensors, ours, theirs, strict=True):
        assert torch.allclose(gradient, wanted), name


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_unmodulated_convolution_is_torchvisions(geometry: str) -> None:
    tensors = {name: tensor for name, tensor in convolution_tensors(geometry).items() if name not in ("mask", "bias")}
    output = deform_conv2d(tensors["input"], tensors["offset"], tensors["weight"], *GEOMETRIES[geometry])
    expected = torchvisions(tensors, geometry)
    assert torch.equal(output, expected)
    ours = torch.autograd.grad(output.square().sum(), list(tensors.values()))
    theirs = torch.autograd.grad(expected.square().sum(), list(tensors.values()))
    for name, gradient, wanted in zip(tensors, ours, theirs, strict=True):
        assert torch.allclose(gradient, wanted), name


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_gradients(geometry: str) -> None:
    tensors = convolution_tensors(geometry)
    plain = [tensors[name] for name in ("input", "offset", "weight")]
    assert torch.autograd.gradcheck(lambda *t: deform_conv2d(*t, *GEOMETRIES[geometry]), plain, fast_mode=True)
    modulated = [tensors[name] for name in ("input", "offset", "mask", "weight", "bias")]
    assert torch.autograd.gradcheck(lambda *t: modulated_deform_conv2d(*t, *GEOMETRIES[geometry]), modulated, fast_mode=True)


def test_layers_without_displacement_are_ordinary_convolutions() -> None:
    x = torch.randn(2, 4, 7, 7, generator=torch.Generator().manual_seed(0))
    plain = DeformConv2dPack(4, 6, 3, padding=1)  # its offsets start at zero
    assert torch.allclose(plain(x), F.conv2d(x, plain.weight, padding=1), atol=1e-5)
    modulated = ModulatedDeformConv2dPack(4, 6, 3, padding=1)  # its mask starts at sigmoid(0)
    assert torch.allclose(modulated(x), F.conv2d(x, 0.5 * modulated.weight, modulated.bias, padding=1), atol=1e-5)


def test_gradients_of_weights_are_added() -> None:
    from mmcv import _ext

    tensors = {name: tensor.detach() for name, tensor in convolution_tensors("plain").items()}
    empty = torch.empty(0)
    grad_output = torch.ones(2, 4, 3, 5, dtype=torch.float64)
    total, twice = torch.zeros_like(tensors["weight"]), torch.ones_like(tensors["weight"])
    settings = {"kW": 2, "kH": 3, "dW": 1, "dH": 1, "padW": 0, "padH": 0, "dilationW": 1, "dilationH": 1, "group": 1, "deformable_group": 1}
    for grad_weight, scale in ((total, 1), (twice, 2)):
        _ext.deform_conv_backward_parameters(
            tensors["input"], tensors["offset"], grad_output, grad_weight, empty, empty, **settings, scale=scale, im2col_step=2
        )
    assert torch.allclose(twice, 1 + 2 * total)


def attention_tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, level sizes, locations (some outside the maps) and weights: 2 images, 2 heads of 4 channels, 3 levels, 5 queries, 2 points."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[4, 5], [3, 2], [1, 2]])
    value = torch.randn(2, 28, 2, 4, dtype=dtype, generator=generator)
    locations = 1.4 * torch.rand(2, 5, 2, 3, 2, 2, dtype=dtype, generator=generator) - 0.2
    weights = torch.rand(2, 5, 2, 3, 2, dtype=dtype, generator=generator)
    return value.requires_grad_(), shapes, locations.requires_grad_(), weights.requires_grad_()


def attend(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(dim=1).cumsum(0)[:-1]])
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


def test_attention_is_mmcvs_pytorch_version() -> None:
    value, shapes, locations, weights = attention_tensors(torch.float32)
    output = attend(value, shapes, locations, weights)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    assert output.shape == (2, 5, 8)
    assert torch.allclose(output, expected, atol=1e-6)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(output, (value, locations, weights), upstream)
    theirs = torch.autograd.grad(expected, (value, locations, weights), upstream)
    for gradient, wanted in zip(ours, theirs, strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-5)
        assert gradient.abs().sum() > 0


def test_attention_gradient() -> None:
    value, shapes, locations, weights = attention_tensors(torch.float64)
    assert torch.autograd.gradcheck(lambda v, at, w: attend(v, shapes, at, w), (value, locations, weights), fast_mode=True)
