"""Warning signs, stored with every result: a robustness number is a claim that an adversary failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

OF_VICTIM = frozenset({"random-victim", "changed-victim"})  # seen while images are evaluated; the others follow from the rows
CLEAN_OFF = 0.5  # percentage points between two measurements of one victim on the same images: rounding explains less
PUBLISHED_OFF = 1.0  # of them between ours and somebody else's: libraries decode and resize images in their own ways
DEAD_SHARE = 0.05  # of the gradients; more of them zero or not finite, and a gradient attack proves little
BLIND_SHARE = 0.002  # of the images, as in AutoAttack; more of them fooled only without gradients, and the gradients hide something
BLIND_IMAGES = 2  # at the least: one may be chance
STILL_SHARE = 0.95  # of the images that were right when clean; more of them given back as they were, and the attack hardly took place


class Flag(NamedTuple):
    """A reason to doubt a result.

    Attributes:
        name: "nothing-attacked", "nothing-moved", "dead-gradients", "masked-gradients", "random-victim", "changed-victim", "clean-metric-off".
        evidence: what was seen, with numbers.
    """

    name: str
    evidence: str


class Watch:
    """Collects, while an evaluation runs, what needs no extra pass (but one, on the first batch)."""

    def __init__(self) -> None:
        self.difference: float | None = None

    def repeat(self, quality: Tensor, again: Callable[[], Tensor]) -> None:
        """Whether two looks at the first batch agree."""
        if self.difference is None:
            self.difference = float((quality - again()).abs().max())

    def flags(self) -> list[Flag]:
        if self.difference:
            return [
                Flag(
                    "random-victim", f"two forwards of the same images differ by {self.difference:.2g} in quality; average over draws (EOT)"
                )
            ]
        return []


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Changes when any parameter or buffer does."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def changed_victim(before: str, after: str) -> list[Flag]:
    """Flag a victim whose parameters or buffers moved while it was attacked."""
    return [] if before == after else [Flag("changed-victim", "its parameters or buffers changed while it was evaluated")]


def of_rows(rows: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """All flags that follow from the rows of a run."""
    return [*nothing_attacked(rows), *nothing_moved(rows), *dead_gradients(rows), *masked_gradients(rows)]


def nothing_attacked(rows: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """Flag a victim that gets no image right: there was nothing to attack."""
    if rows and all(row["clean"]["fooled"] for row in rows):
        return [Flag("nothing-attacked", f"none of the {len(rows)} images is right when clean: check classes, weights and preprocessing")]
    return []


def nothing_moved(rows: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """Flag an attack that gave back the clean image for more than `STILL_SHARE` of those that were right.

    An image that the adversary declined was moved, in vain.
    """
    right = [row for row in rows if not row["clean"]["fooled"]]
    still = sum(not (row["distance"] or row["declined"] or row["robust"]["fooled"]) for row in right)
    if right and still > STILL_SHARE * len(right):
        told = f"the attack gave back {still} of the {len(right)} images that are right when clean just as they were"
        return [Flag("nothing-moved", f"{told}: it found no way to begin, or none within its epsilon")]
    return []


def dead_gradients(rows: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """Flag gradients that were zero or not finite more often than `DEAD_SHARE`."""
    taken = sum(row["backwards"] for row in rows)
    dead = sum(row["dead_gradients"] for row in rows)
    if taken and dead / taken > DEAD_SHARE:
        return [Flag("dead-gradients", f"{dead} of {taken} gradients ({dead / taken:.0%}) were zero or not finite: the attack was blind")]
    return []


def masked_gradients(rows: Sequence[Mapping[str, Any]]) -> list[Flag]:
    """Flag images that every attack of a cascade that sees gradients left, and one that sees none fooled, if more than `BLIND_SHARE`."""
    attacked = [row for row in rows if row["backwards"]]
    blind = [row["fooled_by"]["attack"] for row in attacked if row.get("fooled_by", {}).get("access", "white-box") != "white-box"]
    if len(blind) >= max(BLIND_IMAGES, BLIND_SHARE * len(attacked)):
        who = " and ".join(sorted({*blind}))
        told = f"{len(blind)} of {len(attacked)} images withstood all attacks that see gradients and fell to {who}, which sees none"
        return [Flag("masked-gradients", f"{told}: the gradients mislead")]
    return []


def clean_metric_off(
    recorded: Mapping[str, float], measured: Mapping[str, float], published: Mapping[str, float] = MappingProxyType({})
) -> list[Flag]:
    """Flag a clean metric, of a whole split, that is not what it was: other data, other preprocessing or other weights.

    Args:
        recorded: of a run of the zoo's own, in percent.
        measured: this run's, in percent.
        published: what others measured, in percent; looked at where the zoo has no number of its own.
    """
    told = [(name, published[name], "as published", PUBLISHED_OFF) for name in published if name not in recorded]
    told += [(name, recorded[name], "in the zoo", CLEAN_OFF) for name in recorded]
    flags = []
    for name, value, whose, most in told:
        if name in measured and (off := abs(measured[name] - value)) > most:
            flags.append(
                Flag("clean-metric-off", f"clean {name} is {measured[name]:.2f} here and {value:.2f} {whose}, {off:.2f} points off")
            )
    return flags
