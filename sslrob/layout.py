"""A layout reads one kind of published checkpoint: what lies where in the file, and what the architectures here call it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslrob.errors import SslrobError

if TYPE_CHECKING:
    from torch import Tensor


class Layout(ABC):
    """From a file to the tensors of a backbone or of its linear head; nothing in the file is executed.

    Attributes:
        version: raised when the tensors that come out change; what was converted before is converted again.
        allowed: dotted names of the classes that a pickle of this kind may hold besides tensors, the fewest that do; nothing of them is
            imported or run, objects that keep their attributes stand for theirs.
    """

    version: ClassVar[int] = 1
    allowed: ClassVar[tuple[str, ...]] = ()

    def read(self, path: Path) -> Mapping[str, Any]:
        """What the file holds, as it is nested there.

        Raises:
            SslrobError: it is damaged, something else, or would execute code.
        """
        from sslrob.checkpoint import format_of, load, load_torch

        return load_torch(path, allowed=self.allowed) if format_of(path) == "torch" else load(path)

    @abstractmethod
    def backbone(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """The backbone's tensors, named as the architecture here calls them; nothing of projectors, optimizers or heads.

        Raises:
            SslrobError: this is another layout; says what was expected, and what is there.
        """

    def head(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """The published linear head: `head.weight` (classes, width) and `head.bias` (classes,).

        Raises:
            SslrobError: the file holds none.
        """
        del found
        raise SslrobError(f"checkpoints of layout {type(self).__name__!r} hold no linear head", hint="train one: sslrob train")
