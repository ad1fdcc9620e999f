"""What the layouts have in common: tensors of a known architecture that lie in a known place of a torch file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from sslrob.errors import SslrobError
from sslrob.layout import Layout
from sslrob_backbones.layouts.moves import SHOWN, State, below, counted, described, renamed, tensors, without

if TYPE_CHECKING:
    from torch import Tensor


class Place(NamedTuple):
    """The keys that lead to the tensors, outermost first, and how their names start there."""

    keys: tuple[str, ...] = ()
    prefix: str = ""

    def of(self, found: Mapping[Any, Any]) -> State:
        """The tensors that lie there, named without the prefix."""
        return below(tensors(found, self.keys), self.prefix)

    def named(self, name: str) -> str:
        """How messages call a tensor that lies there."""
        return "/".join((*self.keys, self.prefix + name))


class Kind(NamedTuple):
    """A kind of network, the tensor that tells it, and what the architecture here puts before its tensors' names."""

    word: str
    sign: str  # empty: any tensor of a module
    prefix: str


class Fit(NamedTuple):
    """How a file fits a layout."""

    place: Place
    kind: Kind
    state: State  # all that lies there, already renamed


RESNET = Kind("ResNet", "conv1.weight", "")
VIT = Kind("ViT", "patch_embed.proj.weight", "net.")


class Placed(Layout):
    """A layout told by places.

    Attributes:
        name: what it is registered as.
        kinds: the networks that are published so.
        places: where the backbone may lie, the likeliest first; empty if such files hold a head alone.
        heads: where a linear head may lie: two tensors, `weight` (classes, width) and `bias`.
        drops: a regular expression for the beginning of the names of what lies with the backbone and is none of it.
        marks: likewise, for names in the same place that only this layout has, with or without the prefix; they decide a guess.
        renames: regular expressions and what to put for them, from the published names to those of timm or torchvision.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[Kind, ...]] = ()
    places: ClassVar[tuple[Place, ...]] = ()
    heads: ClassVar[tuple[Place, ...]] = ()
    drops: ClassVar[str] = r"fc\.|head\."
    marks: ClassVar[str] = ""
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()

    def backbone(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors of the backbone, as the architecture here calls them.

        Raises:
            SslrobError: none lies where this layout keeps it.
        """
        fit = self.fit(found)
        if fit is None:
            raise SslrobError(f"layout {self.name!r} finds no backbone: {self._expected(found)}", hint=_advice(found, self.name))
        state = counted(self.adapted(without(fit.state, self.drops)))
        return {fit.kind.prefix + name: tensor for name, tensor in state.items()}

    def head(self, found: Mapping[str, Any]) -> dict[str, Tensor]:
        """The linear head: `head.weight` (classes, width) and `head.bias` (classes,).

        Raises:
            SslrobError: none is published so, or none is there.
        """
        if not self.heads:
            raise SslrobError(f"checkpoints of layout {self.name!r} hold no linear head", hint="train one: sslrob train")
        state = self.linear(found)
        if not state:
            expected = _either([place.named("weight") for place in self.heads])
            raise SslrobError(
                f"layout {self.name!r} finds no linear head: expected {expected} of two dimensions and its bias, found {described(found)}",
                hint=_head_advice(found),
            )
        return {f"head.{name}": tensor for name, tensor in state.items()}

    def fit(self, found: Mapping[str, Any]) -> Fit | None:
        """The first place where a network lies."""
        for place in self.places:
            state = renamed(place.of(found), self.renames)
            for kind in self.kinds:
                if kind.sign in state or (not kind.sign and any("." in name for name in state)):
                    return Fit(place, kind, state)
        return None

    def linear(self, found: Mapping[str, Any]) -> State:
        """`weight` and `bias` of the first place that holds just these; empty if none does."""
        for place in self.heads:
            state = place.of(found)
            if state.keys() == {"weight", "bias"} and state["weight"].ndim == 2:
                return state
        return {}

    def adapted(self, state: State) -> State:
        """For layouts that store other numbers than the architecture here: what it stores."""
        return state

    def _expected(self, found: Mapping[str, Any]) -> str:
        if not self.places:
            return f"its files hold a linear head alone, this one holds {described(found)}"
        signs = [place.named(kind.sign or "…") for place in self.places for kind in self.kinds]
        return f"expected a tensor {_either(signs)}, found {described(found)}"


def _either(names: list[str]) -> str:
    return " or ".join(map(repr, names[:SHOWN])) + (" …" if len(names) > SHOWN else "")


def _head_advice(found: Mapping[str, Any]) -> str:
    from sslrob_backbones.guess import guess_head

    for candidate in guess_head(found):
        return f"say `layout: {candidate.layout}`: {candidate.reason}"
    return "take the file of the linear evaluation, not that of the pretraining; or train a head: sslrob train"


def _advice(found: Mapping[str, Any], tried: str) -> str:
    from sslrob_backbones.guess import guess, guess_head

    for candidate in guess(found):
        if candidate.layout != tried:
            return f"say `layout: {candidate.layout}`: {candidate.reason}"
    for candidate in guess_head(found):
        return f"point to the backbone's own file; this is a linear head of layout {candidate.layout!r}: {candidate.reason}"
    return "point to a checkpoint with the whole backbone in it; these names are of no layout that is known (a projector is no backbone)"
