"""Victims from a backbone and a head, or from a whole config of mmdet with its checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from sslrob_mmcv import bridge, checkpoint
from torch import nn

from sslrob.backbone import Backbone
from sslrob.errors import SslrobError
from sslrob_mmdet import heads
from sslrob_mmdet.sampling import stable
from sslrob_mmdet.victim import MMDetVictim

with warnings.catch_warnings():  # mmdet calls meshgrid without `indexing`, of which torch warns once a process: let it be now
    warnings.simplefilter("ignore", UserWarning)
    torch.meshgrid(torch.zeros(1), torch.zeros(1))

HINT = "give the checkpoint that belongs to this config"


def victim(backbone: Backbone, *, kind: str, classes: Sequence[str], settings: Mapping[str, Any]) -> MMDetVictim:
    """A backbone under a detector's neck and heads, with initial weights."""
    if not classes:
        raise SslrobError(f"a head of kind {kind!r} needs the names of its classes", hint="name the data set, or its classes")
    config = heads.config(backbone, kind=kind, classes=len(classes), settings=settings)
    detector = bridge.build(MODELS, {**config, "backbone": {"type": "sslrob", "backbone": backbone}})
    return MMDetVictim(detector, bridge.Prepare.before(backbone, max(backbone.strides)))


def whole(reference: str, *, weights: Path | None) -> MMDetVictim:
    """The `model` of an mmdet config with its own backbone, its preprocessing made part of it.

    Raises:
        SslrobError: the config or its weights are missing, cannot be read or do not fit one another.
    """
    try:
        config = bridge.read_config(reference, "mmdet")
        detector = bridge.build(MODELS, stable(config))
        prepare = bridge.Prepare.like(detector.data_preprocessor, config.get("data_preprocessor"))
    except bridge.ConfigError as error:
        raise SslrobError(str(error), hint="give a config of mmdet 3: mmdet:FILE.py or mmdet:NAME") from None
    if weights is not None:
        _load(detector, weights, reference)
    if getattr(detector, "with_mask", False):
        detector.roi_head.mask_head = None  # masks are neither judged nor attacked
    return MMDetVictim(detector, prepare)


def _load(detector: nn.Module, weights: Path, reference: str) -> None:
    try:
        missing, surplus = detector.load_state_dict(checkpoint.load_state_dict(weights), strict=False)
    except FileNotFoundError:
        raise SslrobError(f"no weights {str(weights)!r}", hint="check the path") from None
    except checkpoint.CheckpointError as error:
        raise SslrobError(str(error), hint="give a checkpoint of mmdet") from None
    except RuntimeError as error:
        raise SslrobError(f"{str(weights)!r} does not fit {reference!r}: {str(error).splitlines()[-1].strip()}", hint=HINT) from None
    if missing or surplus:
        kinds = [f"{len(keys)} {what}, such as {keys[0]!r}" for what, keys in (("missing", missing), ("unknown", surplus)) if keys]
        raise SslrobError(f"{str(weights)!r} does not fit {reference!r}: weights are {'; '.join(kinds)}", hint=HINT)
