"""DINOv2, with and without registers."""

from __future__ import annotations

from sslrob_backbones.layouts.moves import State
from sslrob_backbones.layouts.placed import VIT, Place, Placed


class Dinov2(Placed):
    """The backbone alone, under timm's names but for the registers and the gated MLP of ViT-g; the mask token stays.

    With registers timm adds no position to the class token, so its own is added here.  Source: facebookresearch/dinov2,
    models/vision_transformer.py; timm's own conversion in models/vision_transformer.py.
    """

    name = "dinov2"
    kinds = (VIT,)
    places = (Place(),)
    drops = r"head\.|mask_token$"
    marks = r"mask_token$|register_tokens$"
    renames = ((r"^register_tokens$", "reg_token"), (r"\.mlp\.w12\.", ".mlp.fc1."), (r"\.mlp\.w3\.", ".mlp.fc2."))

    def adapted(self, state: State) -> State:
        if "reg_token" not in state:
            return state
        positions = state["pos_embed"]
        return {**state, "cls_token": state["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:].clone()}


class Dinov2Linear(Placed):
    """A bare linear layer: of class token and mean patch, or of the class tokens of four blocks and the mean patch."""

    name = "dinov2-linear"
    heads = (Place(),)
