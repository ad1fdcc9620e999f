"""What one may do with weights and data, by the licence that their entry names.  Plain words, no legal advice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Use = Literal["commercial", "noncommercial"]
USES: tuple[Use, ...] = ("commercial", "noncommercial")
FLAG = "(nc)"  # behind a licence that forbids commercial use, wherever it is listed


class License(NamedTuple):
    """A licence that is known here.

    Attributes:
        commercial: whether it permits commercial use.
        terms: what it permits, and what for.
        link: its text.
    """

    name: str
    commercial: bool
    terms: str
    link: str


_NOTICE = "use, change and pass on, commercially too, as long as copyright and licence stay with it"
LICENSES = {
    "Apache-2.0": License(
        "Apache License 2.0", True, f"{_NOTICE}, and changes are told; it grants patents", "https://www.apache.org/licenses/LICENSE-2.0"
    ),
    "BSD-3-Clause": License(
        "BSD 3-Clause", True, f"{_NOTICE}; its authors' names are no advertisement", "https://opensource.org/license/bsd-3-clause"
    ),
    "CC0-1.0": License("CC0 1.0", True, "anything; nothing is reserved", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "CC-BY-NC-4.0": License(
        "Creative Commons Attribution-NonCommercial 4.0",
        False,
        "use, change and pass on for what is not commercial, as long as you name the authors and the licence and tell your changes; "
        "weights that are trained from it are commonly held to inherit this",
        "https://creativecommons.org/licenses/by-nc/4.0/",
    ),
    "DINOv3-License": License(
        "DINOv3 License",
        True,
        "use, change and pass on, commercially too, under this same licence and its acceptable uses (no arms, no military, among others); "
        "its own pages ask for a form first",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
    ),
    "ImageNet-Terms": License(
        "ImageNet terms of access", False, "research and teaching that are not commercial", "https://image-net.org/download.php"
    ),
    "MIT": License("MIT", True, _NOTICE, "https://opensource.org/license/mit"),
}


def of(license: str) -> License | None:
    """What is known of a licence; None for one that is not known here, which its entry may tell in words."""
    return LICENSES.get(license)


def permits(license: str, wanted: str) -> bool:
    """Whether a licence is the wanted one, by its id in any case, or of the wanted use, "commercial" or "noncommercial".

    One that is not known permits nothing.
    """
    if wanted in USES:
        known = of(license)
        return known is not None and known.commercial == (wanted == "commercial")
    return license.casefold() == wanted.casefold()


def flagged(license: str) -> str:
    """The licence as lists show it: with a mark behind it where commercial use is forbidden."""
    known = of(license)
    return f"{license} {FLAG}" if known is not None and not known.commercial else license


def told(license: str) -> str:
    """What one may do, in a sentence or two."""
    known = of(license)
    if known is None:
        return f"{license}: read its text before you use it" if license else "no licence is recorded: ask its authors"
    refusal = "" if known.commercial else "no commercial use; "
    return f"{refusal}{known.terms} ({known.name}, {known.link})"


def warnings(used: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each of those that a command uses whose licence forbids commercial use.

    Args:
        used: names and licences.
    """
    known = {name: of(license) for name, license in used}
    return [
        f"{name} is under {found.name}: no commercial use" for name, found in known.items() if found is not None and not found.commercial
    ]
