"""What every layout keeps to, whatever files it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from sslrob.errors import SslrobError
from sslrob.layout import Layout

STRANGE: tuple[Mapping[str, Any], ...] = ({}, {"epoch": 3}, {"epoch": torch.tensor(3), "optimizer": {}}, {"state_dict": None})


def check_layout(layout: Layout) -> None:
    """Fail if a layout takes what it cannot be: every file of another kind is refused with a clear error.

    Raises:
        AssertionError: names what is wrong.
    """
    name = type(layout).__name__
    assert layout.version >= 1, f"{name}.version is {layout.version!r}; count from 1"
    listed = not isinstance(layout.allowed, str) and all("." in one for one in layout.allowed)
    assert listed, f"{name}.allowed is {layout.allowed!r}; list dotted names of classes"
    for found in STRANGE:
        for part in (layout.backbone, layout.head):
            _refuses(partial(part, found), f"{name}.{part.__name__}() of {found!r}")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        path.write_text("<html>not found</html>")
        _refuses(partial(layout.read, path), f"{name}.read() of a web page")
        _refuses(partial(layout.read, path.with_name("nowhere.pth")), f"{name}.read() of a file that is not there")


def _refuses(call: Callable[[], Any], what: str) -> None:
    try:
        found = call()
    except SslrobError:
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__}: {error}; raise an SslrobError that says what was expected") from error
    raise AssertionError(f"{what} gives {type(found).__name__}; raise an SslrobError that says what was expected")
