"""timm's own files, of any of its models."""

from __future__ import annotations

from itertools import product

from sslrob_backbones.layouts.placed import Kind, Place, Placed

WRAPPERS: tuple[tuple[str, ...], ...] = ((), ("state_dict_ema",), ("state_dict",), ("model_ema",), ("model",))
PREFIXES = ("module.", "")  # the longer first: without a prefix any tensor fits
CLASSIFIERS = ("head.fc", "head", "fc", "classifier", "last_linear", "head.linear", "head.fc2", "head.l", "head.proj")
ELSEWHERE = r"(classif|aux_head|heads?\.\d+|head(\.head)?\.bn|head\.classifier\.\w+|head\.fc\.\w+)\."  # other parts of classifiers


class Timm(Placed):
    """Every tensor but the classifier's, which is the head; a training's checkpoint wraps them, and prefers its moving average.

    Source: huggingface/pytorch-image-models, models/_helpers.py (wrappers) and the models' pretrained_cfg (classifiers).
    """

    name = "timm"
    kinds = (Kind("network", "", "net."),)
    places = tuple(Place(keys, prefix) for keys, prefix in product(WRAPPERS, PREFIXES))
    heads = tuple(Place(keys, f"{prefix}{name}.") for keys, prefix, name in product(WRAPPERS, PREFIXES, CLASSIFIERS))
    marks = rf"({'|'.join((*CLASSIFIERS, 'head_dist'))})\.(weight|bias)$"
    drops = rf"{marks}|{ELSEWHERE}"
