"""Victims from a backbone and a head, or from a whole config of mmdet with its checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.registry import MODELS
from sslrob_mmcv import bridge, checkpoint

from sslrob.backbone import Backbone
from sslrob.errors import SslrobError
from sslrob.whole import fill, require_classes
from sslrob.zoo import Weights
from sslrob_mmdet import HINT, heads
from sslrob_mmdet.candidates import classes_of
from sslrob_mmdet.sampling import stable
from sslrob_mmdet.victim import MMDetVictim

with warnings.catch_warnings():  # mmdet calls meshgrid without `indexing`, of which torch warns once a process: let it be now
    warnings.simplefilter("ignore", UserWarning)
    torch.meshgrid(torch.zeros(1), torch.zeros(1))


def victim(backbone: Backbone, *, kind: str, classes: Sequence[str], settings: Mapping[str, Any]) -> MMDetVictim:
    """A backbone under a detector's neck and heads, with initial weights."""
    if not classes:
        raise SslrobError(f"a head of kind {kind!r} needs the names of its classes", hint="name the data set, or its classes")
    config = heads.config(backbone, kind=kind, classes=len(classes), settings=settings)
    detector = bridge.build(MODELS, {**config, "backbone": {"type": "sslrob", "backbone": backbone}})
    return MMDetVictim(detector, bridge.Prepare.before(backbone, max(backbone.strides)))


def whole(reference: str, *, weights: Weights | None, classes: Sequence[str]) -> MMDetVictim:
    """The `model` of an mmdet config with its own backbone, its preprocessing made part of it.

    Raises:
        SslrobError: the config or its weights are missing, cannot be read or do not fit one another or the data set's classes.
    """
    try:
        config = bridge.read_config(reference, "mmdet")
        detector = bridge.build(MODELS, stable(config))
        prepare = bridge.Prepare.like(detector.data_preprocessor, config.get("data_preprocessor"))
    except bridge.ConfigError as error:
        raise SslrobError(str(error), hint=HINT) from None
    require_classes(reference, classes_of(detector), classes)
    if weights is not None:
        fill(detector, weights, what=reference, classes=classes, reader=checkpoint.load)
    if getattr(detector, "with_mask", False):
        detector.roi_head.mask_head = None  # masks are neither judged nor attacked
    return MMDetVictim(detector, prepare)
