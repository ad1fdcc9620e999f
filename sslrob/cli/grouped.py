"""Help whose options stand in groups, as plain text: it answers at once, where rich's takes longer to import than to read."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class Grouped(TyperCommand):
    """A command whose help groups the options by their `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            told = parameter.get_help_record(ctx)
            if told:
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Other", []).append(told)
        for title, options in groups.items():
            with formatter.section(title):
                formatter.write_dl(options)
