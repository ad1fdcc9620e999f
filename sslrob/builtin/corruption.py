"""The common corruptions of Hendrycks & Dietterich: what weather, lenses and files do to images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from sslrob.attack import Attack
from sslrob.errors import SslrobError
from sslrob.objective import Access, Objective
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel

SMALLEST = 32  # pixels of a side that the library takes
SEEDED = ("glass-blur", "impulse-noise")  # these draw from generators of their own
Type = Literal[
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic-transform",
    "pixelate",
    "jpeg-compression",
]


@dataclass(frozen=True)
class Corruption(Attack):
    """One of the 15 common corruptions, at one of 5 severities (Hendrycks & Dietterich, ICLR 2019), as the package imagecorruptions makes it.

    It looks for nothing, and no epsilon holds it: its threat model is every image.  Images are made 8-bit first, as the package needs
    them; one with a side below 32 pixels is mirrored out to 32 and cut again.
    """

    access: ClassVar[Access] = "decision"
    norms: ClassVar[frozenset[str] | None] = frozenset({"linf"})
    bounded: ClassVar[bool] = False
    type: Annotated[Type, Field(description="which corruption")] = "gaussian-noise"
    severity: Annotated[int, Field(ge=1, le=5, description="how strong, from 1 to 5")] = 3

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        del objective, threat_model
        corrupt = _library()
        seeds = streams.integers((), 2**31 - 1).tolist()
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        found = [self._corrupted(corrupt, image, seed) for image, seed in zip(pixels, seeds, strict=True)]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(images) / 255

    def _corrupted(self, corrupt: Any, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Args:
        image: (h, w, 3).
        """
        height, width, _ = image.shape
        large = np.pad(image, ((0, max(0, SMALLEST - height)), (0, max(0, SMALLEST - width)), (0, 0)), mode="symmetric")
        own = {"seed": seed} if self.type in SEEDED else {}
        with _numpy_seeded(seed):
            found: NDArray[np.uint8] = corrupt(large, severity=self.severity, corruption_name=self.type.replace("-", "_"), **own)
        return found[:height, :width]


def _library() -> Any:
    try:
        return import_module("imagecorruptions").corrupt
    except ImportError as error:
        raise SslrobError(
            f"common corruptions need the package 'imagecorruptions-imaug' ({error})", hint='install it: pip install "sslrob[corruptions]"'
        ) from error


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """NumPy's global generator, from which the package draws, seeded meanwhile, and then as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
