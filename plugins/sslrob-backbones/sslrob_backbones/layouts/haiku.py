"""BYOL as DeepMind published it: Haiku's parameters in a pickle of dill."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslrob.archive import require_room
from sslrob.errors import SslrobError
from sslrob.layout import Layout
from sslrob_backbones.haiku import Array, Record, read
from sslrob_backbones.layouts.moves import counted
from sslrob_backbones.pickle_machine import Span

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = re.compile(r".*block_group_(\d+)/.*block_(\d+)/~/(shortcut_)?(conv|batchnorm)(?:_(\d+))?")
STEM = re.compile(r".*initial_(conv|batchnorm)(?:_1)?")  # _1: a stem that the network's own replaced took the name before
OTHERS = re.compile(r"(.*/)?(projector|predictor|classifier|logits)(/.*)?")  # parts that are not of the backbone
NORM = {"scale": "weight", "offset": "bias", "mean_ema": "running_mean", "var_ema": "running_var"}


class Haiku(Layout):
    """The online network of `experiment_state`; its classifier was trained beside it, without gradients to it.

    The network pads as TensorFlow's SAME.  Source: deepmind-research, byol/byol_experiment.py and byol/utils/networks.py; the names are
    those of dm-haiku's nets/resnet.py.
    """

    name: ClassVar[str] = "haiku"

    def read(self, path: Path) -> Mapping[str, Any]:
        """`params` and `state` of the online network, by module and then by name; the values stay in the file.

        Raises:
            SslrobError: it is damaged, would call something, or is not BYOL's.
        """
        found = read(path)
        kept = found.get("experiment_state") if isinstance(found, Mapping) else None
        fields = kept.fields if isinstance(kept, Record) else kept
        if not isinstance(fields, Mapping) or not {"online_params", "online_state"} <= fields.keys():
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else f"a {type(found).__name__}"
            raise SslrobError(
                f"layout 'haiku' expects 'online_params' and 'online_state' in the 'experiment_state' of {str(path)!r}, found {there}",
                hint="take a checkpoint of BYOL's pretraining",
            )
        return {"params": fields["online_params"], "state": fields["online_state"]}

    def backbone(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors of the ResNet, named as torchvision's.

        Raises:
            SslrobError: there is no ResNet, or more than one.
            RunFailed: there is too little memory for it: names are short, and many may mean the same values.
        """
        state: dict[str, Tensor] = {}
        parts = [*_leaves(found.get("params", {})), *_averages(found.get("state", {}))]
        parts = [(module, leaf, values) for module, leaf, values in parts if not OTHERS.fullmatch(module)]
        lie = next((values.values.path for _, _, values in parts if isinstance(values, Array) and isinstance(values.values, Span)), None)
        if lie is not None:
            require_room(sum(values.size for _, _, values in parts if isinstance(values, Array)), lie)
        for module, leaf, values in parts:
            name = _renamed(module, leaf)
            if name is None or name in state:
                why = "is the second of its kind" if name else "is none of a ResNet's"
                raise SslrobError(f"layout 'haiku' does not know what '{module}/{leaf}' is: it {why}", hint="take a ResNet of BYOL")
            tensor = _tensor(values, f"{module}/{leaf}")
            if tensor.ndim != 4 or (leaf != "w" and tensor.shape[:3] != (1, 1, 1)):
                expected = "(height, width, in, out)" if leaf == "w" else "(1, 1, 1, channels)"
                raise SslrobError(
                    f"'{module}/{leaf}' has shape {tuple(tensor.shape)}, not {expected}", hint="take a convolutional network of Haiku"
                )
            state[name] = tensor.permute(3, 2, 0, 1).contiguous() if leaf == "w" else tensor.reshape(-1)
        if "conv1.weight" not in state:
            names = ", ".join(list(map(str, found.get("params", {})))[:3]) or "nothing"
            raise SslrobError(f"layout 'haiku' finds no backbone: expected '…/initial_conv', found {names}", hint="take a ResNet of BYOL")
        return counted(state)

    def head(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """`head.weight` (classes, width) and `head.bias` (classes,).

        Raises:
            SslrobError: there is no classifier.
        """
        parts = next((values for module, values in found.get("params", {}).items() if module.split("/")[-1] == "classifier"), None)
        if not isinstance(parts, Mapping) or not {"w", "b"} <= parts.keys():
            raise SslrobError("layout 'haiku' finds no linear head: expected 'classifier' with w and b", hint="train one: sslrob train")
        return {
            "head.weight": _tensor(parts["w"], "classifier/w").t().contiguous(),
            "head.bias": _tensor(parts["b"], "classifier/b"),
        }


def _leaves(params: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    """Each parameter: its module, its name there and its value."""
    for module, parts in params.items():
        yield from ((module, leaf, values) for leaf, values in parts.items())


def _averages(state: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    """The running averages of each batch norm: its module, `mean_ema` or `var_ema`, and the value without Adam's debiasing left to do."""
    for module, parts in state.items():
        norm, _, leaf = module.rpartition("/~/")
        if leaf in NORM:
            yield norm, leaf, parts.get("average")


def _renamed(module: str, leaf: str) -> str | None:
    """Torchvision's name; None if a ResNet has no such part."""
    block, stem = BLOCK.fullmatch(module), STEM.fullmatch(module)
    if block:
        group, index, shortcut, kind, number = block.groups()
        if bool(shortcut) == bool(number):
            return None
        part = f"downsample.{int(kind == 'batchnorm')}" if shortcut else f"{'conv' if kind == 'conv' else 'bn'}{int(number) + 1}"
        place = f"layer{int(group) + 1}.{index}.{part}"
    elif stem:
        kind = stem[1]
        place = "conv1" if kind == "conv" else "bn1"
    else:
        return None
    if kind == "conv":
        return f"{place}.weight" if leaf == "w" else None
    return f"{place}.{NORM[leaf]}" if leaf in NORM else None


def _tensor(values: Any, name: str) -> Tensor:
    import torch

    if not isinstance(values, Array):
        raise SslrobError(f"{name!r} is a {type(values).__name__}, not an array", hint="get the file again")
    try:
        return torch.from_numpy(values.numpy())
    except (ValueError, OSError, TypeError) as error:
        raise SslrobError(f"the values of {name!r} are not whole: {error}", hint="get the file again") from error
