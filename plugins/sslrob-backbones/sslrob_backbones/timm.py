"""Whatever timm builds, with every way in which published heads read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslrob.backbone import Features
from sslrob.errors import SslrobError, close_names
from sslrob_backbones.normalised import MEAN, STD, Colour, Normalised
from sslrob_backbones.positions import stretch_as_dino

FINEST = 4  # stride of the finest map that is kept
ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})  # the first that the model takes
ELSEWHERE = ("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")  # bring weights that nobody checked
READOUTS = ("", "cls", "mean", "cls+mean", "cls-mean-pairs", "cls4", "cls4+mean")


class Timm(Normalised):
    """A model of timm (Wightman 2019) that offers `forward_intermediates`, without its classifier; tensors are named `net.` and as timm does.

    Maps are those of stride 4 and more; a vision transformer has one, of the last block's patches behind the final norm.  Images are
    padded with the mean colour to whole patches where the model cuts them into patches.

    Args:
        model: its name, perhaps with a tag, such as vit_small_patch16_224.dino.
        readout: what the embedding is.  Nothing: what the model's own classifier reads.  Else the class token (cls), the mean of the
            patches or of the coarsest map (mean), both one after the other (cls+mean), both in turn, number by number
            (cls-mean-pairs, DINO's linear evaluation of ViT-B), the class tokens of the last four blocks, each behind the final norm
            (cls4, DINO's of ViT-S), or those and the mean of the patches (cls4+mean, DINOv2's with four layers).
        mean, std: of the pixels, which are normalised with them; one number or three; null: as the model's own weights were trained.
        arguments: further ones of the model, such as num_heads or patch_size.
        positions: who stretches a vision transformer's positions to other image sizes: timm, or dino, as DINO, iBOT and DINOv2 do.
    """

    def __init__(
        self,
        model: str = "test_vit",
        readout: str = "",
        mean: Colour | None = None,
        std: Colour | None = None,
        arguments: Mapping[str, Any] = {},
        positions: str = "timm",
    ) -> None:
        net = _built(model, arguments)
        own = net.pretrained_cfg
        super().__init__(own.get("mean", MEAN) if mean is None else mean, own.get("std", STD) if std is None else std)
        self.model, self.readout, self.net = model, readout, net
        self.tokens = hasattr(net, "num_prefix_tokens") and hasattr(net, "blocks")
        self._require_readout()
        self._set_positions(positions)
        levels = {level["reduction"]: (index, level["num_chs"]) for index, level in enumerate(_levels(net)) if level["reduction"] >= FINEST}
        self.strides = tuple(sorted(levels))
        self.channels = tuple(levels[stride][1] for stride in self.strides)
        self.indices = [levels[stride][0] for stride in self.strides]
        self.patch = self.strides[-1] if any(map(_cuts, net.modules())) else 1
        self.width = self._length()

    def forward(self, images: Tensor) -> Features:
        """Features of images (n, 3, h, w) RGB in [0, 1].

        Raises:
            SslrobError: the model takes images of one size, and these are of another.
        """
        height, width = images.shape[2:]
        x = F.pad(self.normalised(images), (0, -width % self.patch, 0, -height % self.patch))
        self._require_size(x)
        pooled, maps = self._read_tokens(x) if self.tokens else self._read_maps(x)
        sizes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in self.strides]
        return Features(pooled, tuple(part[:, :, :h, :w] for part, (h, w) in zip(maps, sizes, strict=True)))

    def _read_maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        last, maps = self.net.forward_intermediates(x, indices=self.indices, output_fmt="NCHW")
        return self.net.forward_head(last, pre_logits=True) if self.readout == "" else maps[-1].mean((2, 3)), maps

    def _read_tokens(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The final norm has no part of its own in the maps: what it makes of the last block is all that is returned there."""
        blocks = 4 if "4" in self.readout else 1
        prefixed = self.net.num_prefix_tokens > 0
        last, found = self.net.forward_intermediates(x, indices=blocks, norm=True, output_fmt="NCHW", return_prefix_tokens=True)
        maps = [part[0] for part in found] if prefixed else found
        patches = maps[-1].mean((2, 3))
        if self.readout == "":
            return self.net.forward_head(last, pre_logits=True), maps[-1:]
        if self.readout == "mean":
            return patches, maps[-1:]
        classes = torch.cat([part[1][:, 0] for part in found], 1)
        if self.readout.endswith("pairs"):
            return torch.stack((classes, patches), 2).flatten(1), maps[-1:]
        return torch.cat((classes, patches), 1) if self.readout.endswith("mean") else classes, maps[-1:]

    def _length(self) -> int:
        if self.readout == "":
            return int(getattr(self.net, "head_hidden_size", None) or self.net.num_features)
        classes = 4 if "4" in self.readout else int("cls" in self.readout)
        return self.channels[-1] * (classes + int("mean" in self.readout))

    def _require_readout(self) -> None:
        if self.readout not in READOUTS:
            close = close_names(self.readout, READOUTS)
            hint = f"did you mean {close[0]!r}?" if close else f"choose {', '.join(filter(None, READOUTS))}, or none"
            raise SslrobError(f"no readout is named {self.readout!r}", hint=hint)
        if "cls" in self.readout and not (self.tokens and getattr(self.net, "cls_token", None) is not None):
            raise SslrobError(
                f"model {self.model!r} has no class token, which readout {self.readout!r} reads", hint="leave readout out, or use mean"
            )

    def _set_positions(self, positions: str) -> None:
        if positions not in ("timm", "dino"):
            raise SslrobError(f"nobody named {positions!r} is known to stretch positions", hint="set positions to timm or dino")
        if positions == "dino":
            if not self.tokens or self.net.num_prefix_tokens != 1 or getattr(self.net, "cls_token", None) is None:
                raise SslrobError(
                    f"model {self.model!r} is no vision transformer with one class token, whose positions 'dino' stretches",
                    hint="leave positions out",
                )
            stretch_as_dino(self.net)

    def _require_size(self, x: Tensor) -> None:
        embed = getattr(self.net, "patch_embed", None)
        if getattr(embed, "strict_img_size", False) and tuple(x.shape[2:]) != tuple(embed.img_size):
            told = " × ".join(map(str, reversed(embed.img_size)))
            raise SslrobError(
                f"model {self.model!r} takes images of {told} pixels only, not {x.shape[3]} × {x.shape[2]}",
                hint="set resize and crop in the data set's zoo entry, or img_size in the arguments of the model",
            )


def require_model(model: str) -> str:
    """The model's name without its tag.

    Raises:
        SslrobError: timm has none of that name; suggests close ones.
    """
    import timm

    name = model.partition(".")[0]
    if not timm.is_model(name):
        close = close_names(name, timm.list_models())
        raise SslrobError(f"timm has no model {name!r}", hint=f"did you mean {close[0]!r}?" if close else "see timm.list_models()")
    return name


def _built(model: str, arguments: Mapping[str, Any]) -> Any:
    """The model without weights and classifier, for images of any size if it can be.

    Raises:
        SslrobError: there is none of that name, it takes no such argument, or shows no maps.
    """
    import timm

    require_model(model)
    for name in ELSEWHERE:
        if name in arguments:
            raise SslrobError(f"timm's argument {name!r} would bring other weights than those of the zoo", hint="leave it out")
    errors: list[Exception] = []
    for sizes in ANY_SIZE:
        try:
            net: Any = timm.create_model(model, pretrained=False, num_classes=0, **{**sizes, **arguments})
            break
        except TypeError as error:  # no such argument
            errors.append(error)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise SslrobError(f"timm cannot build {model!r}: {error}", hint="correct model and arguments") from error
    else:
        raise SslrobError(f"timm cannot build {model!r}: {errors[-1]}", hint="correct the arguments of the model") from errors[-1]
    if not hasattr(net, "forward_intermediates"):
        raise SslrobError(f"timm's {model!r} shows no maps of its features", hint="choose a model that has forward_intermediates")
    return net


def _levels(net: Any) -> list[dict[str, Any]]:
    info = net.feature_info
    return list(info if isinstance(info, list) else info.info)


def _cuts(module: nn.Module) -> bool:
    """Whether it cuts images into patches, and loses what is no whole patch."""
    from timm.layers.conv2d_same import Conv2dSame

    if not isinstance(module, nn.Conv2d) or isinstance(module, Conv2dSame):
        return False
    return module.kernel_size[0] == module.stride[0] > 1 and module.padding in ("valid", (0, 0))
