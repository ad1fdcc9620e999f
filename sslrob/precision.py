"""Backbones that multiply in fewer bits than they answer in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from sslrob.backbone import Backbone, Features

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def lower(backbone: Backbone, precision: Precision) -> None:
    """From now on the backbone multiplies in `precision`; what it answers is float32 as ever.  `del backbone.forward` takes it back."""
    if precision == "float32":
        return
    import torch

    forward, dtype = backbone.forward, getattr(torch, precision)

    def quick(images: Tensor) -> Features:
        with torch.autocast(images.device.type, dtype):
            features = forward(images)
        return features._replace(pooled=features.pooled.float(), maps=tuple(m.float() for m in features.maps))

    backbone.forward = quick  # type: ignore[method-assign]
