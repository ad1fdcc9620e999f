"""Whole segmentors from configs and checkpoints of OpenMMLab."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sslrob_mmcv.bridge import ConfigError, Prepare, build, models, read_config
from sslrob_mmcv.checkpoint import CheckpointError, load_state_dict
from torch import nn

from sslrob.errors import SslrobError
from sslrob_mmseg.victim import Segmentor


def whole(reference: str, weights: Path | None) -> Segmentor:
    """The segmentor of a config, with the weights of a checkpoint and the preprocessing of the config.

    The config is a program and is run; the checkpoint is only read.

    Args:
        reference: `mmseg:CONFIG`, or CONFIG alone: a file, or the name of a config shipped with mmseg.

    Raises:
        SslrobError: config or checkpoint is missing, broken, or not supported, or they do not fit each other.
    """
    if weights is None:
        raise SslrobError(f"{reference!r} names a config, which holds no weights", hint="add the checkpoint: --weights FILE")
    registry = models("mmseg")
    try:
        config = read_config(reference.removeprefix("mmseg:"), "mmseg")
        if "decode_head" not in config:
            raise ConfigError(f"{reference!r} describes no segmentor but a {config.type!r}")
        config["test_cfg"] = {"mode": "whole", **(config.get("test_cfg") or {})}
        model = build(registry, config)
        prepare = Prepare.like(model.data_preprocessor, config.get("data_preprocessor"))
    except ConfigError as error:
        raise SslrobError(str(error), hint="name a config file of mmseg, or a config that mmseg ships") from error
    except Exception as error:  # what a config asks for may fail in any way
        raise SslrobError(
            f"the model of {reference!r} cannot be built: {type(error).__name__}: {error}",
            hint="see that mmseg 1.2.2 can build this config",
        ) from error
    _load(model, weights)
    return Segmentor(model, prepare).eval()


def _load(model: nn.Module, path: Path) -> None:
    """Fill a model, all of it, from a checkpoint."""
    try:
        tensors = load_state_dict(path)
    except FileNotFoundError:
        raise SslrobError(f"no checkpoint {str(path)!r}", hint="check --weights") from None
    except (OSError, CheckpointError) as error:
        raise SslrobError(f"weights: {error}", hint="take a checkpoint of mmseg, a file that ends in .pth") from error
    own = model.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]  # which old files lack
    surplus = [name for name in tensors if name not in own]
    if missing or surplus:
        wrong = " and ".join(text for text in (_told("lacks", missing), _told("has in surplus", surplus)) if text)
        raise SslrobError(f"checkpoint {str(path)!r} is not of this config: it {wrong}", hint="name the config that it was trained with")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise SslrobError(
                f"checkpoint {str(path)!r} is not of this config: {name!r} is {tuple(tensor.shape)} in it, {tuple(own[name].shape)} in the model",
                hint="name the config that it was trained with",
            )
    model.load_state_dict(tensors, strict=False)


def _told(verb: str, names: Iterable[str]) -> str:
    """How many tensors, and the first of them."""
    first, *rest = [*names, ""]
    return first and f"{verb} {len(rest)} tensor{'s' if len(rest) > 1 else ''} such as {first!r}"
