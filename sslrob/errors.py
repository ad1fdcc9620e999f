"""Mistakes that a user can mend, and how they are told."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 40  # names that an error lists


class SslrobError(Exception):
    """A mistake the user can mend.

    Args:
        message: what is wrong and where, the offending value in quotes; lower case, no full stop.
        hint: one thing to do about it.
        note: what else is worth knowing, such as a plugin that failed to load.
    """

    exit_code = 2  # asked wrongly

    def __init__(self, message: str, *, hint: str = "", note: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.note = note


class RunFailed(SslrobError):
    """The question was fine; something went wrong while answering it (a full disk, no network)."""

    exit_code = 1


class Unreadable(SslrobError):
    """A file of weights that cannot be read: cut, something else, or made to execute code.  What it should have been does not matter."""


class BudgetExceeded(SslrobError):
    """An attack returned an image that its threat model forbids: no repair, no number."""

    exit_code = 3


class Suspect(SslrobError):
    """A result carries trust flags and the user asked for `--strict`."""

    exit_code = 4


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """At most three of `known`, closest first."""
    return get_close_matches(name, sorted(known), n=3, cutoff=0.5)


def unknown(kind: str, name: str, known: Iterable[str], *, broken: Iterable[str] = ()) -> SslrobError:
    """The error for a name that nothing has: it suggests close names and names the plugins that failed to load."""
    names, failed = sorted(known), list(broken)
    close = close_names(name, names)
    if close:
        hint = f"did you mean {' or '.join(repr(c) for c in close)}?"
    else:
        hint = (
            f"known: {', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''}"
            if names
            else f"no installed plugin offers any {kind}; try: sslrob doctor"
        )
    note = ""
    if failed:
        plugins = "1 plugin" if len(failed) == 1 else f"{len(failed)} plugins"
        note = f"{plugins} failed to load and may provide it: {'; '.join(failed)}"
    return SslrobError(f"no {kind} is named {name!r}", hint=hint, note=note)
