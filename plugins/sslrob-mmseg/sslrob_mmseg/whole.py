"""Whole segmentors from configs and checkpoints of OpenMMLab."""

from __future__ import annotations

from collections.abc import Sequence

from sslrob_mmcv import checkpoint
from sslrob_mmcv.bridge import ConfigError, Prepare, build, describe, models, read_config

from sslrob.errors import SslrobError
from sslrob.whole import fill, require_classes
from sslrob.zoo import Weights
from sslrob_mmseg.victim import Segmentor

SCHEME = "mmseg:"
HINT = "name a config file of mmseg, or a config that mmseg ships"


def described(reference: str) -> str:
    """The model of a config as text.

    Raises:
        SslrobError: the config is missing or broken.
    """
    try:
        return describe(reference.removeprefix(SCHEME), "mmseg")
    except ConfigError as error:
        raise SslrobError(str(error), hint=HINT) from error


def whole(reference: str, weights: Weights | None, classes: Sequence[str]) -> Segmentor:
    """The segmentor of a config, with the weights of a checkpoint and the preprocessing of the config.

    The config is a program and is run; the checkpoint is only read.

    Args:
        reference: `mmseg:CONFIG`, or CONFIG alone: a file, or the name of a config shipped with mmseg.
        classes: the data set's, in the order of its labels; empty: not known.

    Raises:
        SslrobError: config or checkpoint is missing, broken, or not supported, or they do not fit each other or the classes.
    """
    if weights is None:
        raise SslrobError(f"{reference!r} names a config, which holds no weights", hint="add the checkpoint: --weights FILE")
    registry = models("mmseg")
    try:
        config = read_config(reference.removeprefix(SCHEME), "mmseg")
        if "decode_head" not in config:
            raise ConfigError(f"{reference!r} describes no segmentor but a {config.type!r}")
        config["test_cfg"] = {"mode": "whole", **(config.get("test_cfg") or {})}
        model = build(registry, config)
        prepare = Prepare.like(model.data_preprocessor, config.get("data_preprocessor"))
    except ConfigError as error:
        raise SslrobError(str(error), hint=HINT) from error
    except Exception as error:  # what a config asks for may fail in any way
        raise SslrobError(
            f"the model of {reference!r} cannot be built: {type(error).__name__}: {error}",
            hint="see that mmseg 1.2.2 can build this config",
        ) from error
    require_classes(reference, model.num_classes, classes)
    fill(model, weights, what=reference, classes=classes, reader=checkpoint.load)
    return Segmentor(model, prepare).eval()
