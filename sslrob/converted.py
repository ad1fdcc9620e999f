"""Tensors that a layout took out of a published checkpoint, kept in the cache as safetensors: the next time they are only read."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sslrob.checksums import sha256
from sslrob.fetching import cache, lock_of
from sslrob.locks import held
from sslrob.plugins import installed

if TYPE_CHECKING:
    from torch import Tensor

    from sslrob.layout import Layout

Part = Literal["backbone", "head"]


def convert(path: Path, layout: str, part: Part) -> dict[str, Tensor]:
    """The tensors of the backbone or of the head, as the architectures here call them.

    What is kept is made again if it is damaged, or the layout changed its version.  Where nothing can be kept, that is said on stderr.

    Args:
        path: of the checkpoint, checked before.
        layout: as a plugin registered it.

    Raises:
        SslrobError: no such layout; or the file is damaged, of another layout, or holds NaN.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    made: dict[str, Tensor] | None = None
    kind: type[Layout] = installed().get("layout", layout)
    kept = folder() / f"{stem(sha256(path), layout)}-{part}.safetensors"
    try:
        with held(lock_of(_part(kept)), kept.name):
            if _is_whole(kept):
                return load_file(kept)
            made = _made(kind(), path, part)
            _keep(made, kept)
    except (OSError, SafetensorError) as error:
        print(f"note:  {str(kept)!r} cannot be kept for the next time: {error}", file=sys.stderr)
    return _made(kind(), path, part) if made is None else made


def folder() -> Path:
    """Where converted weights are kept."""
    return cache() / "converted"


def stem(digest: str, layout: str) -> str:
    """How the names begin of what the present version of a layout makes of the file with that sha256.

    Raises:
        SslrobError: no such layout.
    """
    kind: type[Layout] = installed().get("layout", layout)
    return f"{digest[:16]}-{layout.replace('/', '.')}-v{kind.version}"


def sum_of(kept: Path) -> Path:
    """Where the checksum of a kept file stands, as `sha256sum -c` reads it."""
    return kept.with_name(f"{kept.name}.sha256")


def _made(layout: Layout, path: Path, part: Part) -> dict[str, Tensor]:
    from sslrob.checkpoint import require_finite

    found = layout.read(path)
    state = layout.backbone(found) if part == "backbone" else layout.head(found)
    require_finite(state, path)
    return state


def _is_whole(kept: Path) -> bool:
    noted = sum_of(kept)
    return kept.is_file() and noted.is_file() and noted.read_bytes().startswith(sha256(kept).encode())


def _keep(state: dict[str, Tensor], kept: Path) -> None:
    """Write the tensors, then their checksum: a kill between the two leaves what counts for nothing."""
    from safetensors.torch import save_file

    kept.parent.mkdir(parents=True, exist_ok=True)
    part = _part(kept)
    try:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, part)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        part.replace(kept)
        part.write_text(f"{digest}  {kept.name}\n", encoding="utf-8")
        part.replace(sum_of(kept))
    finally:
        part.unlink(missing_ok=True)


def _part(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.part")
