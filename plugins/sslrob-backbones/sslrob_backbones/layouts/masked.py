"""MAE and MSN, which learn from masked images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslrob_backbones.layouts.classes import NAMESPACE, PATHS
from sslrob_backbones.layouts.moves import State
from sslrob_backbones.layouts.placed import VIT, Place, Placed

NORM_EPSILON = 1e-6  # of the norm before MAE's linear classifier


class Mae(Placed):
    """The encoder in `model`; decoder and mask token stay.

    A linear probe's classifier stands behind a batch norm without parameters of its own, which the head that comes out has taken in.
    Source: facebookresearch/mae, models_mae.py, main_linprobe.py and util/misc.py.
    """

    name = "mae"
    kinds = (VIT,)
    places = (Place(("model",)),)
    heads = (Place(("model",), "head."),)
    drops = r"head\.|decoder_|mask_token$"
    marks = r"decoder_|mask_token$"
    allowed = (*NAMESPACE, *PATHS)

    def linear(self, found: Mapping[str, Any]) -> State:
        state = self.heads[0].of(found)
        if {"0.running_mean", "0.running_var", "1.weight", "1.bias"} <= state.keys():
            weight = state["1.weight"] / (state["0.running_var"] + NORM_EPSILON).sqrt()
            return {"weight": weight, "bias": state["1.bias"] - weight @ state["0.running_mean"]}
        return super().linear(found)


class Msn(Placed):
    """The target encoder, in DataParallel's `module.`; its projector `fc` and its predictor stay.

    Source: facebookresearch/msn, logistic_eval.load_pretrained and src/msn_train.py.
    """

    name = "msn"
    kinds = (VIT,)
    places = (Place(("target_encoder",), "module."), Place(("target_encoder",)))
    drops = r"fc\.|pred\."
