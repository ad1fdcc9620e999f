"""VISSL: SimCLR, SwAV, Barlow Twins, MoCo v2 and supervised networks of one code base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslrob_backbones.layouts.moves import State, tensors
from sslrob_backbones.layouts.placed import RESNET, Place, Placed

MODEL = ("classy_state_dict", "base_model", "model")


class Vissl(Placed):
    """The trunk below `_feature_blocks.`, torchvision's names at any width; converted files hold it alone, with that prefix or without.

    A supervised network has one linear layer for all its heads.  Nothing but tensors and plain values is saved: the state of each part
    of a training is a dict.  Source: facebookresearch/vissl, models/trunks/resnext.py, models/base_ssl_model.py, hooks/log_hooks.py and
    extra_scripts/convert_vissl_to_torchvision.py.
    """

    name = "vissl"
    kinds = (RESNET,)
    places = (
        Place((*MODEL, "trunk"), "_feature_blocks."),
        Place(("model_state_dict",), "_feature_blocks."),
        Place(("model_state_dict",)),
        Place((), "_feature_blocks."),
        Place(),
    )
    heads = (Place((*MODEL, "heads"), "0.clf.0."),)

    def linear(self, found: Mapping[str, Any]) -> State:
        alone = len(tensors(found, self.heads[0].keys)) == 2  # else it is the first layer of a projector
        return super().linear(found) if alone else {}
