"""Modules of other people's repositories, through torch.hub: their code is run, if the user trusts it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslrob.backbone import Features
from sslrob.errors import RunFailed, SslrobError
from sslrob_backbones.normalised import MEAN, STD, Colour, Normalised

EXAMPLE = Path(__file__).parent / "hub_example"  # the only one that is trusted unasked
TRUST = "SSLROB_TRUST_CODE"
GITHUB = re.compile(r"[\w-][\w.-]*/[\w.-]+(:.+)?")  # OWNER/NAME, perhaps with a branch or a tag


class Hub(Normalised):
    """A module as an entry of a hubconf.py gives it.  Its output (n, width) is the embedding; or (n, c, h, w) is a map, and its mean is.

    Without a map, it serves no dense task.  Tensors are named `net.` and as in the module.

    Args:
        repository: OWNER/NAME[:REF] on GitHub, or a folder; none: the example that comes with this plugin.
        entry: a function of its hubconf.py.
        arguments: of that function.
        size: pixels a side of the image that tells the length of the embedding.
        mean, std: of the pixels, which are normalised with them; one number or three.
    """

    def __init__(
        self,
        repository: str = "",
        entry: str = "tiny",
        arguments: Mapping[str, Any] = {},
        size: int = 224,
        mean: Colour = MEAN,
        std: Colour = STD,
    ) -> None:
        super().__init__(mean, std)
        self.net = load(repository or str(EXAMPLE), entry, arguments)
        self.name = f"hub:{repository}:{entry}"
        with torch.no_grad():
            found = self._output(torch.zeros(1, 3, size, size))
        self.width = found.shape[1]
        self._strides = (round(size / found.shape[2]),) if found.ndim == 4 else ()

    @property
    def strides(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._of_maps(self._strides)

    @property
    def channels(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._of_maps((self.width,) * len(self._strides))

    def forward(self, images: Tensor) -> Features:
        """Features of images (n, 3, h, w) RGB in [0, 1]."""
        found = self._output(self.normalised(images))
        if found.ndim == 2:
            return Features(found, ())
        height, width = (math.ceil(side / self._strides[0]) for side in images.shape[2:])
        return Features(found.mean((2, 3)), (found[:, :, :height, :width],))

    def _output(self, x: Tensor) -> Tensor:
        found = self.net(x)
        if not isinstance(found, Tensor) or found.ndim not in (2, 4):
            shape = f"a tensor of {found.ndim} dimensions" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise SslrobError(f"{self.name!r} gives {shape}", hint="choose an entry whose module gives one embedding an image")
        return found

    def _of_maps(self, told: tuple[int, ...]) -> tuple[int, ...]:
        if not told:
            raise SslrobError(f"{self.name!r} shows no feature maps, only an embedding", hint="use it with --task classification")
        return told


def load(repository: str, entry: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The module that an entry gives, in eval mode.

    Raises:
        SslrobError: there is no such folder; the code is not trusted, fails, or gives no module.
        RunFailed: downloads are off, and the repository is no folder.
    """
    folder = Path(repository).expanduser()
    if not folder.is_dir() and not GITHUB.fullmatch(repository):
        raise SslrobError(f"no folder at {repository!r}", hint="check the path: hub:FOLDER:ENTRY, or on GitHub hub:OWNER/NAME:ENTRY")
    if folder != EXAMPLE and os.environ.get(TRUST, "0") in ("", "0"):
        hint = f"if you trust it, add --trust-code, or set {TRUST}=1"
        raise SslrobError(f"'hub:{repository}:{entry}' would run the code of {repository!r} with all that you may do", hint=hint)
    if not folder.is_dir() and os.environ.get("SSLROB_OFFLINE", "0") not in ("", "0"):
        raise RunFailed(
            f"the code of {repository!r} is not on this machine, and downloads are off", hint="give its folder: hub:FOLDER:ENTRY"
        )
    where = {"repo_or_dir": str(folder), "source": "local"} if folder.is_dir() else {"repo_or_dir": repository, "trust_repo": True}
    try:
        module = torch.hub.load(model=entry, verbose=False, **where, **arguments)
    except Exception as error:  # whatever somebody else's code raises
        raise SslrobError(
            f"'hub:{repository}:{entry}' failed: {type(error).__name__}: {error}", hint="see the entries in its hubconf.py"
        ) from error
    if not isinstance(module, nn.Module):
        raise SslrobError(
            f"'hub:{repository}:{entry}' gives a {type(module).__name__}, no module", hint="see the entries in its hubconf.py"
        )
    return module.eval()
