"""`hub:REPOSITORY:ENTRY`: what an entry of a repository's hubconf.py gives, which runs that repository's code."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from sslrob import assemble, weights
from sslrob.errors import SslrobError
from sslrob.references import file_safe, split
from sslrob.zoo import Backbone, Settings, Weights
from sslrob_backbones.guess import architecture, guess, guess_head
from sslrob_backbones.layouts.moves import State
from sslrob_backbones.normalised import MEAN, STD

CLOSE = 1e-3  # of the largest number of an embedding: how far two forwards of the same network may differ by rounding
PROBE = 224  # pixels a side of the image on which they are compared
LARGER = 336  # likewise, where positions are stretched for other images


def backbone(text: str) -> Backbone:
    """The record of the module that an entry gives.

    If it is a network that is built here too, with the same embedding of an image, that one gets its tensors, and its maps serve every
    task; else the module itself is the backbone, and its output the embedding.

    Raises:
        SslrobError: the code is not trusted, fails, or gives no module.
        RunFailed: downloads are off.
    """
    from sslrob_backbones.hub import load

    bare, given = split(text)
    repository, _, entry = bare.partition(":")[2].rpartition(":")
    if not repository or not entry:
        raise SslrobError(f"{bare!r} names no entry of a repository", hint="write hub:OWNER/NAME:ENTRY, or hub:FOLDER:ENTRY")
    arguments: Any = given.pop("arguments", {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what the code draws is the same every time, as the head of yesterday expects it
        module = load(repository, entry, arguments)
    own = _transferred(module, given, bare)
    if own is not None:
        return own
    settings: Settings = {"repository": repository, "entry": entry, **({"arguments": arguments} if arguments else {}), **given}
    state = {f"net.{name}": tensor for name, tensor in module.state_dict().items()}
    notes = f"{bare}: its code runs whenever it is used, and its output is the embedding\n  {_pixels(given)}"
    return Backbone(use="hub", settings=settings, weights=_kept(state, bare), license="unknown", notes=notes)


def _transferred(module: nn.Module, given: Settings, bare: str) -> Backbone | None:
    """The record of one of the networks that are built here, with the module's tensors; None if none gives the same embedding."""
    from sslrob.plugins import installed

    held = module.state_dict()
    for layout, reason in sorted(guess(held), key=lambda candidate: candidate.layout == "timm"):  # the habits of the others can be tried
        try:
            state = installed().get("layout", layout)().backbone(held)
            told = architecture(state, layout)
            colours = {"mean": list(MEAN), "std": list(STD)} if told.backbone == "timm" else {}
            record = Backbone(use=told.backbone, settings={**colours, **told.settings, **given}, license="unknown")
            built = assemble.backbone(record, name=bare, state=state)
        except SslrobError:  # another network after all
            continue
        head = guess_head(held) and installed().get("layout", layout)().linear(held)
        sides = (PROBE, LARGER) if "positions" in record.settings else (PROBE,)
        if all(_same(module, built, head or {}, side) for side in sides):
            notes = f"{bare}: {reason}; the same embedding as {told.reason}\n  {_pixels(given)}"
            return record.model_copy(update={"weights": _kept(state, bare), "notes": notes})
    return None


@torch.no_grad()
def _same(module: nn.Module, built: Any, head: State, side: int) -> bool:
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    try:
        theirs = module(built.normalised(image))
    except (RuntimeError, AssertionError, ValueError):  # a ViT of one size
        return False
    ours: Tensor = built(image).pooled
    if head and isinstance(theirs, Tensor) and theirs.shape[-1] == len(head["weight"]):
        ours = nn.functional.linear(ours, head["weight"], head["bias"])
    same_shape = isinstance(theirs, Tensor) and theirs.shape == ours.shape
    return same_shape and bool((theirs - ours).abs().max() <= CLOSE * theirs.abs().max())


def _kept(state: State, bare: str) -> Weights:
    """A file of the tensors in the cache, so that no later process has to ask the repository for them."""
    from safetensors.torch import save

    content = save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()})
    digest = hashlib.sha256(content).hexdigest()
    path = weights.cache() / "hub" / f"{file_safe(bare)}-{digest[:16]}.safetensors"
    if not path.is_file() or weights.sha256(path) != digest:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    return Weights(file=path, sha256=digest)


def _pixels(given: Settings) -> str:
    mean, std = given.get("mean", list(MEAN)), given.get("std", list(STD))
    return f"pixels: mean {mean}, std {std}, which the code does not say; if they were others: 'hub:…?mean=…&std=…'"
