"""Decode heads, sized by the backbone they stand on: mmseg configs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from sslrob.backbone import Backbone
from sslrob.errors import SslrobError, unknown
from sslrob.settings import checked

MapIndex = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Head(ABC):
    """What every kind has."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    width: Annotated[int, Field(ge=1, description="channels inside the head")] = 128
    dropout: Annotated[float, Field(ge=0, lt=1, description="share of channels dropped before the last layer, in training")] = 0.1

    @abstractmethod
    def config(self, backbone: Backbone, classes: int) -> dict[str, Any]:
        """The `decode_head` of an mmseg model."""

    def _config(self, classes: int, **kind: Any) -> dict[str, Any]:
        return {
            **kind,
            "channels": self.width,
            "dropout_ratio": self.dropout,
            "num_classes": classes,
            "norm_cfg": {"type": "BN"},
            "align_corners": False,
        }


@dataclass(frozen=True)
class Fcn(Head):
    """3 × 3 convolutions on maps brought to the size of the finest of them; Long et al., Fully convolutional networks, CVPR 2015.

    Without `maps` it takes all but the finest: strides 8, 16 and 32 of a usual pyramid, as FCN-8s does.
    """

    convs: Annotated[int, Field(ge=1, description="convolutions before the last layer")] = 2
    maps: Annotated[tuple[MapIndex, ...], Field(description="which maps of the backbone, 0 is the finest; none: all but the finest")] = ()

    def config(self, backbone: Backbone, classes: int) -> dict[str, Any]:
        count = len(backbone.channels)
        maps = list(self.maps or range(min(1, count - 1), count))
        if max(maps) >= count:
            raise SslrobError(f"setting 'maps' of head 'fcn' names map {max(maps)}, but the backbone has {count}", hint="maps count from 0")
        return self._config(
            classes,
            type="FCNHead",
            in_channels=[backbone.channels[i] for i in maps],
            in_index=maps,
            input_transform="resize_concat",
            num_convs=self.convs,
            concat_input=False,
        )


@dataclass(frozen=True)
class UperNet(Head):
    """A pyramid over all maps with pooling over the coarsest; Xiao et al., Unified perceptual parsing, ECCV 2018.

    Its pooling to 1 × 1 takes BatchNorm statistics over the images of a batch: train it with batches of several images.
    """

    def config(self, backbone: Backbone, classes: int) -> dict[str, Any]:
        return self._config(
            classes,
            type="UPerHead",
            in_channels=list(backbone.channels),
            in_index=list(range(len(backbone.channels))),
            pool_scales=(1, 2, 3, 6),
        )


KINDS: dict[str, type[Head]] = {"fcn": Fcn, "upernet": UperNet}


def head_config(kind: str, settings: Mapping[str, Any], backbone: Backbone, classes: int) -> dict[str, Any]:
    """The `decode_head` of an mmseg model.

    Raises:
        SslrobError: there is no such kind, or a setting does not fit.
    """
    if kind not in KINDS:
        raise unknown("segmentation head", kind, KINDS)
    return checked(KINDS[kind], settings, f"head {kind!r}").config(backbone, classes)
