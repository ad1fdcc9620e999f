"""ResNets of every depth and width, with torch's padding and TensorFlow's."""

from __future__ import annotations

import pytest
import torch
import torchvision
from sslrob_backbones.resnet import ResNet
from torch import Tensor
from torch.nn import functional as F

from sslrob.errors import SslrobError
from sslrob.testing import check_backbone


def drawn(net: ResNet) -> ResNet:
    """The same network with batch norms that do something."""
    torch.manual_seed(1)
    for name, tensor in net.state_dict().items():
        if "bn" in name or "downsample.1" in name:
            tensor.copy_(torch.rand(tensor.shape) + 0.5 if tensor.is_floating_point() else tensor)
    return net.eval()


@pytest.mark.parametrize("depth", [18, 34, 50, 152])
def test_tensors_are_torchvisions(depth):
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"resnet{depth}")()
        ours = ResNet(depth)
    wanted = {name: tensor.shape for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == wanted


@pytest.mark.parametrize("size", [(64, 64), (45, 61)])
def test_the_embedding_is_torchvisions(size):
    torch.manual_seed(0)
    ours = drawn(ResNet(14))
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1]).eval()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(1, 3, *size)
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        torch.testing.assert_close(ours(images).pooled, theirs(normalise(images)))


def same(x: Tensor, kernel: int, fill: float = 0.0) -> Tensor:
    """Padded as TensorFlow pads for a stride of 2: the odd pixel below and on the right."""
    above, below = [], []
    for side in x.shape[2:]:
        total = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
        above.append(total // 2)
        below.append(total - total // 2)
    return F.pad(x, (above[1], below[1], above[0], below[0]), value=fill)


def plain(state: dict[str, Tensor], x: Tensor, convolutions: bool) -> Tensor:
    """The embedding of a ResNet-14 with SAME padding of its max-pool and, if so, of its strided convolutions."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-5)

    def strided(x: Tensor, weight: Tensor) -> Tensor:
        kernel = weight.shape[2]
        padded = same(x, kernel) if convolutions else F.pad(x, [kernel // 2] * 4)
        return F.conv2d(padded, weight, stride=2)

    x = F.relu(norm(strided(x, state["conv1.weight"]), "bn1"))
    x = F.max_pool2d(same(x, 3, float("-inf")), 3, 2)
    for stage in (1, 2, 3, 4):
        at = f"layer{stage}.0"
        y = F.relu(norm(F.conv2d(x, state[f"{at}.conv1.weight"]), f"{at}.bn1"))
        second = state[f"{at}.conv2.weight"]
        y = F.relu(norm(F.conv2d(y, second, padding=1) if stage == 1 else strided(y, second), f"{at}.bn2"))
        y = norm(F.conv2d(y, state[f"{at}.conv3.weight"]), f"{at}.bn3")
        shortcut = F.conv2d(x, state[f"{at}.downsample.0.weight"], stride=1 if stage == 1 else 2)
        x = F.relu(y + norm(shortcut, f"{at}.downsample.1"))
    return x.mean((2, 3))


@pytest.mark.parametrize("size", [(64, 96), (48, 61)])
@pytest.mark.parametrize("padding", ["same", "same-pool"])
def test_padding_is_tensorflows(padding, size):
    torch.manual_seed(0)
    net = drawn(ResNet(14, width=0.125, padding=padding))
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = plain(net.state_dict(), (images - net.mean) / net.std, convolutions=padding == "same")
        torch.testing.assert_close(net(images).pooled, expected, rtol=1e-5, atol=1e-5)
        other = ResNet(14, width=0.125).eval()
        other.load_state_dict(net.state_dict())
        assert not torch.allclose(other(images).pooled, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "channels"),
    [
        ({"width": 2}, (512, 1024, 2048, 4096)),
        ({"width": 5}, (1280, 2560, 5120, 10240)),
        ({"depth": 200, "width": 2}, (512, 1024, 2048, 4096)),
        ({"depth": 34, "width": 0.25}, (16, 32, 64, 128)),
    ],
)
def test_the_width_multiplies_all_channels(settings, channels):
    with torch.device("meta"):
        net = ResNet(**settings)
    assert net.channels == channels
    assert (net.width, net.strides) == (channels[-1], (4, 8, 16, 32))
    assert net.conv1.out_channels == 64 * settings["width"]
    assert net.get_submodule("layer1.0.conv1").out_channels == 64 * settings["width"]


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 14},
        {"depth": 14, "padding": "same", "mean": 0.5, "std": 0.25},
        {"depth": 18, "padding": "same-pool", "mean": 0, "std": 1},
    ],
    ids=["torch", "byol", "simclr"],
)
def test_contract(settings):
    torch.manual_seed(0)
    check_backbone(ResNet(width=0.125, **settings), sizes=((64, 64), (73, 105), (33, 31)))


def test_simclr_takes_pixels_as_they_are():
    net, images = ResNet(14, width=0.125, mean=0, std=1), torch.rand(1, 3, 8, 8)
    assert torch.equal(net.normalised(images), images)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"depth": 51}, "no ResNet has depth 51"),
        ({"padding": "valid"}, "no padding of a ResNet is 'valid'"),
        ({"width": 0}, "width 0 leaves no channel"),
        ({"mean": [124, 116, 104]}, r"mean \[124, 116, 104\] is no colour in \[0, 1\]"),
        ({"std": 0}, r"std 0 is not in \(0, 1\]"),
        ({"mean": [0.5, 0.5]}, "neither a number nor three"),
    ],
)
def test_what_no_resnet_is(settings, says):
    with torch.device("meta"), pytest.raises(SslrobError, match=says):
        ResNet(**settings)
