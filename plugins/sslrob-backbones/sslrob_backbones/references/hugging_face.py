"""`hf:ORG/NAME[/FILE][@REVISION]`: a model of timm on the Hugging Face hub, as its config.json describes it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from sslrob import weights
from sslrob.errors import SslrobError
from sslrob.references import split
from sslrob.zoo import Backbone, Settings, Weights
from sslrob_backbones.references.timm import known_license

CONFIG = "config.json"


def backbone(text: str) -> Backbone:
    """The record of a repository that holds a model of timm.

    Raises:
        SslrobError: it holds something else, or there is no such repository.
        RunFailed: its config.json cannot be downloaded.
    """
    bare, given = split(text)
    source = bare.partition(":")[2]
    path, at, revision = source.partition("@")
    if path.count("/") < 1 or "" in path.split("/"):
        raise SslrobError(f"{bare!r} names no repository", hint="write hf:ORG/NAME, perhaps with @REVISION")
    repository, found = "/".join(path.split("/")[:2]), _weights(source, bare)
    config = _config(repository, at + revision)
    return Backbone(
        use="timm",
        settings={**_settings(config, repository), **given},
        weights=found,
        license=known_license(config.get("license") or config.get("pretrained_cfg", {}).get("license")),
    )


def _config(repository: str, revision: str) -> dict[str, Any]:
    path = weights.fetch(_weights(f"{repository}/{CONFIG}{revision}", f"hf:{repository}{revision}"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SslrobError(f"{CONFIG} of {repository!r} cannot be read: {error}", hint="choose another revision: @REVISION") from error
    return found if isinstance(found, dict) else {}


def _weights(source: str, told: str) -> Weights:
    try:
        return Weights(hf=source, sha256="unknown", layout="timm")
    except ValidationError as error:
        raise SslrobError(f"{told!r} names no file of a repository", hint="write hf:ORG/NAME/FILE, perhaps with @REVISION") from error


def _settings(config: dict[str, Any], repository: str) -> Settings:
    import timm

    architecture = str(config.get("architecture", ""))
    if not timm.is_model(architecture):
        others = ", ".join(map(str, config.get("architectures", ()))) or config.get("model_type") or "no architecture"
        raise SslrobError(
            f"{repository!r} is no model of timm: its {CONFIG} names {architecture or others}",
            hint="download its weights and name the architecture: --backbone 'file:PATH?model=TIMM_NAME'",
        )
    trained = config.get("pretrained_cfg", config)
    settings: Settings = {"model": architecture}
    settings |= {name: list(trained[name]) for name in ("mean", "std") if trained.get(name)}
    arguments = config.get("model_args") or {}
    return {**settings, "arguments": arguments} if arguments else settings
