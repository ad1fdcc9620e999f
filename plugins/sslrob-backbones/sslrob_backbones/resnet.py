"""ResNets as they were published: any width, and either torch's or TensorFlow's padding."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslrob.backbone import Features
from sslrob.errors import SslrobError
from sslrob_backbones.normalised import MEAN, STD, Colour, Normalised

Padding = Literal["torch", "same", "same-pool"]
BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
STAGES = 4


class ResNet(Normalised):
    """ResNet (He et al. 2016) with stride in the 3 × 3 convolutions; its tensors are named as torchvision's, without `fc`.

    Args:
        depth: 18 and 34 have basic blocks; 14, 26, 50, 101, 152 and 200 bottlenecks.
        width: factor of all channels, the stem's included: 2 is SwAV's RN50-w2, not torchvision's wide_resnet50_2.
        padding: torch: the same on both sides.  same: TensorFlow's SAME, which pads strided convolutions and the max-pool more on the
            right and below (BYOL).  same-pool: that of the max-pool alone (SimCLR, whose convolutions pad as torch's).
        mean, std: of the pixels, which are normalised with them; one number or three.  SwAV's std of red is 0.228; SimCLR's weights
            take pixels as they are: mean 0, std 1.
    """

    def __init__(self, depth: int = 50, width: float = 1, padding: Padding = "torch", mean: Colour = MEAN, std: Colour = STD) -> None:
        super().__init__(mean, std)
        if depth not in BASIC and depth not in BOTTLENECK:
            raise SslrobError(f"no ResNet has depth {depth!r}", hint=f"its depths are {', '.join(map(str, sorted([*BASIC, *BOTTLENECK])))}")
        if padding not in get_args(Padding):
            raise SslrobError(f"no padding of a ResNet is {padding!r}", hint=f"choose {', '.join(get_args(Padding))}")
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth in BASIC else Bottleneck
        planes = [round(64 * width) << stage for stage in range(STAGES)]
        if planes[0] < 1:
            raise SslrobError(f"width {width!r} leaves no channel", hint="use 1, or what the checkpoint was trained with")
        self.channels = tuple(block.expansion * n for n in planes)
        self.strides = tuple(4 << stage for stage in range(STAGES))
        self.width = self.channels[-1]
        self.conv1 = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = (planes[0], *self.channels[:-1])
        for stage, count in enumerate({**BASIC, **BOTTLENECK}[depth]):
            self.add_module(f"layer{stage + 1}", _stage(block, inputs[stage], planes[stage], count, stride=1 if stage == 0 else 2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if padding != "torch":
            _pad_as_tensorflow(self, convolutions=padding == "same")

    def forward(self, images: Tensor) -> Features:
        """Features of images (n, 3, h, w) RGB in [0, 1]; the embedding is the mean of the coarsest map."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalised(images)))))
        maps = []
        for stage in range(STAGES):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            maps.append(x)
        return Features(x.mean((2, 3)), tuple(maps))


def _stage(block: type[BasicBlock] | type[Bottleneck], inputs: int, planes: int, count: int, stride: int) -> nn.Sequential:
    outputs = block.expansion * planes
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(block(inputs, planes, stride, shortcut), *(block(outputs, planes) for _ in range(count - 1)))


def _pad_as_tensorflow(net: ResNet, *, convolutions: bool) -> None:
    """Let the max-pool, and the strided convolutions too, pad each image so that a side of h becomes ceil(h / stride), more at its end."""
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.pool2d_same import MaxPool2dSame

    net.maxpool = MaxPool2dSame(3, stride=2)
    strided = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1) and m.kernel_size != (1, 1)]
    for name, old in strided if convolutions else ():
        new = Conv2dSame(old.in_channels, old.out_channels, old.kernel_size, old.stride, bias=False)  # type: ignore[arg-type]
        new.weight = old.weight
        parent, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, new)
