"""EfficientNets as lukemelas' ports of TensorFlow's are saved: efficientnet-pytorch and efficientnet-lite-pytorch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sslrob_backbones.layouts.moves import State
from sslrob_backbones.layouts.placed import Kind, Place, Placed

if TYPE_CHECKING:
    from torch import Tensor

SIZES = {(16, 320): 0, (23, 320): 1, (23, 352): 2, (26, 384): 3, (32, 448): 4, (39, 512): 5, (45, 576): 6, (55, 640): 7}  # blocks, width
TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
WIDENED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # of a block that does not widen first
BLOCK = re.compile(r"_blocks\.(\d+)\.([^.]+)\.(.+)")


class EfficientNetPytorch(Placed):
    """Blocks are counted through; timm counts those of a stage, and a stage ends where the number of channels changes.

    Source: lukemelas/EfficientNet-PyTorch, efficientnet_pytorch/model.py, and its fork efficientnet-lite-pytorch.
    """

    name = "efficientnet-pytorch"
    kinds = (Kind("EfficientNet", "_conv_stem.weight", "net."),)
    places = (Place(), Place(("state_dict",)), Place(("state_dict",), "module."), Place((), "module."))
    heads = tuple(Place(place.keys, f"{place.prefix}_fc.") for place in places)
    drops = r"_fc\."
    marks = r"_conv_stem\.|_blocks\."

    def adapted(self, state: State) -> State:
        """All tensors, as timm's `tf_efficientnet_*` call them."""
        stages = _stages(state)
        renamed: State = {}
        for name, tensor in state.items():
            if (match := BLOCK.match(name)) is None:
                part, _, rest = name.partition(".")
                renamed[f"{TOP.get(part, part)}.{rest}"] = tensor
                continue
            number, part, rest = match.groups()
            names = {**SQUEEZE, **(WIDENED if f"_blocks.{number}._expand_conv.weight" in state else PLAIN)}
            renamed[f"blocks.{stages[int(number)]}.{names.get(part, part)}.{rest}"] = tensor
        return renamed


def model(state: Mapping[str, Tensor]) -> str:
    """timm's model that the renamed tensors are of: TensorFlow's padding and batch norms; empty if it is none of them.

    Args:
        state: what the layout's `backbone` returned.
    """
    last = [tensor for name, tensor in state.items() if re.fullmatch(r"net\.blocks\.\d+\.\d+\.conv_pwl\.weight", name)]
    blocks = {name.rpartition(".conv_dw")[0] for name in state if name.endswith(".conv_dw.weight")}
    size = SIZES.get((len(blocks), last[-1].shape[0])) if last else None
    if size is None:
        return ""
    return f"tf_efficientnet_{'b' if any('.se.' in name for name in state) else 'lite'}{size}"


def _stages(state: State) -> dict[int, str]:
    """`STAGE.BLOCK` of each block, by its number."""
    pattern = re.compile(r"_blocks\.(\d+)\._project_conv\.weight")
    channels = sorted((int(match[1]), tensor.shape[0]) for name, tensor in state.items() if (match := pattern.fullmatch(name)))
    places, stage, block, before = {}, -1, 0, 0
    for number, width in channels:
        stage, block = (stage, block + 1) if width == before else (stage + 1, 0)
        places[number], before = f"{stage}.{block}", width
    return places
