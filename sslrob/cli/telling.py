"""What a command prints when it does not work out."""

from __future__ import annotations

import traceback
from typing import Any

import typer

from sslrob.errors import RunFailed, SslrobError

COLORS = {"error": "red", "hint": "green", "note": "yellow"}


def told(error: Exception) -> SslrobError:
    """Any error as one that can be told: the user's mistake, a mistake in the command's words, or a fault of ours or a plugin's."""
    if isinstance(error, SslrobError):
        return error
    if hasattr(error, "format_message"):  # the command line's parser found a word that it does not know
        return _misspelt(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return RunFailed(
        f"{type(error).__name__}: {error}".rstrip(": "),
        hint="this is a fault of sslrob or of a plugin, not yours; add --traceback to see where, and report it",
        note=f"raised in {place.filename}:{place.lineno}, {place.name}",
    )


def _misspelt(error: Exception) -> SslrobError:
    message = str(getattr(error, "message", error)).rstrip(".") or str(error)
    close: list[str] = sorted(getattr(error, "possibilities", None) or ())
    message, _, meant = message.partition(". Did you mean ")
    param: Any = getattr(error, "param", None)
    message = message[:1].lower() + message[1:]
    if param is not None:
        name = param.opts[0] if param.opts[0].startswith("-") else param.name.upper()
        message = f"{name} is missing" if type(error).__name__ == "MissingParameter" else f"{name}: {message}"
    context: Any = getattr(error, "ctx", None)
    hint = f"see: {context.command_path} --help" if context else ""
    if meant or close:
        hint = f"did you mean {meant.rstrip('?') or ' or '.join(close)}?"
    return SslrobError(message, hint=hint)


def text(error: SslrobError) -> str:
    """`error: …`, then `hint:  …` and `note:  …` where there are any."""
    parts = {"error": str(error), "hint": error.hint, "note": error.note}
    return "\n".join(
        typer.style(f"{name}:", fg=COLORS[name], bold=True) + " " * (6 - len(name)) + part for name, part in parts.items() if part
    )
