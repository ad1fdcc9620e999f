"""Plain tables: they answer at once, and can be searched and cut by other programs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

import typer

GAP = "  "
NARROWEST = 24  # columns that the last cell may be squeezed into


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under bold names; the last one wraps at the edge of the terminal, where there is one.  Empty columns are left out."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    cells = [[row[i] for i in kept] for row in rows]
    names = [header[i] for i in kept]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(kept))]
    room = shutil.get_terminal_size((10_000, 24)).columns - sum(w + len(GAP) for w in widths[:-1])
    lines = [typer.style(_line(names, widths), bold=True)]
    for row in cells:
        first, *rest = textwrap.wrap(row[-1], max(room, NARROWEST), break_long_words=False) or [""]
        lines.append(_line([*row[:-1], first], widths))
        lines += [_line([*[""] * (len(row) - 1), more], widths) for more in rest]
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return GAP.join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def aligned(pairs: Sequence[tuple[str, str]]) -> str:
    """What each name stands for, the values below each other."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name:{width}}{GAP}{value}" for name, value in pairs)
