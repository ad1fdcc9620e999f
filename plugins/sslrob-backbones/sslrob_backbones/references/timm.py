"""`timm:NAME`: a model of timm with the weights that timm has for it, which are fetched by sslrob."""

from __future__ import annotations

from typing import Any

from sslrob.errors import SslrobError, close_names
from sslrob.license import LICENSES
from sslrob.references import split
from sslrob.zoo import Backbone, Weights


def backbone(text: str) -> Backbone:
    """The record of `timm:NAME`, such as timm:resnet50.a1_in1k; without a tag, of those weights that timm prefers.

    Raises:
        SslrobError: timm has no such model, or no such weights of it.
    """
    bare, given = split(text)
    name = bare.partition(":")[2]
    config = configuration(name)
    tagged = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    return Backbone(
        use="timm",
        settings={"model": tagged, **given},
        weights=_weights(config),
        paper=config.paper_name or config.paper_ids or "",
        license=known_license(config.license),
    )


def configuration(name: str) -> Any:
    """What timm knows of a model's weights.

    Raises:
        SslrobError: there is no such model, or no such tag of it.
    """
    from timm.models import get_pretrained_cfg, list_pretrained

    from sslrob_backbones.timm import require_model

    architecture = require_model(name)
    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        tags = list_pretrained(f"{architecture}.*")
        close = close_names(name, tags)
        hint = f"did you mean {close[0]!r}?" if close else f"its weights are {', '.join(tags) or 'none'}"
        raise SslrobError(f"timm has no weights {name!r}", hint=hint) from None


def known_license(text: str | None) -> str:
    """A licence as sslrob writes it, where it knows it: timm and the hub write all in lower case."""
    return next((name for name in LICENSES if name.casefold() == (text or "").casefold()), text or "unknown")


def _weights(config: Any) -> Weights | None:
    if config.hf_hub_id:
        file = f"/{config.hf_hub_filename}" if config.hf_hub_filename else ""
        return Weights(hf=f"{config.hf_hub_id}{file}", sha256="unknown", layout="timm")
    if config.url:
        return Weights(url=config.url, sha256="unknown", layout="timm")
    return None
