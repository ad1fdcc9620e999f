"""Write docs/reference/ from the code: `python docs/generate.py`, or with `--check` say what differs."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import typer
from pydantic import TypeAdapter
from typer.cli import get_docs_for_click

from sslrob import cli, hookspecs, zoo
from sslrob.plugins import installed

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- written by docs/generate.py: change the code, not this file -->\n\n"


def commands() -> str:
    """Every command with its options, as `--help` tells them."""
    command = typer.main.get_command(cli.app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command), name="sslrob", title="Command line")


def hooks() -> str:
    """Every hook with its exact arguments."""
    parts = ["# Hooks\n", "A plugin is an entry point in the group `sslrob`; see [the tutorial](../tutorial/plugin.md).\n"]
    for name, function in inspect.getmembers(hookspecs, lambda member: hasattr(member, "sslrob_spec")):
        arguments = ", ".join(inspect.signature(function).parameters)
        parts.append(f"## `{name}({arguments})`\n\n{inspect.getdoc(function)}\n")
    return "\n".join(parts)


def attacks() -> str:
    """sslrob's own attacks with their settings."""
    parts = ["# Attacks\n", "Every attack works in every norm, on every task, with every objective. Presets: `sslrob attacks list`.\n"]
    for component in installed().of("attack"):
        if component.distribution != "sslrob":
            continue
        attack = component.load()
        parts.append(f"## `{component.name}`\n\n{inspect.getdoc(attack)}\n\nAccess: {attack.access}.\n")
        fields = TypeAdapter(attack).json_schema().get("properties", {})
        if fields:
            rows = [f"| `{setting}` | {field['default']} | {field['description']} |" for setting, field in fields.items()]
            parts.append("\n".join(["| setting | default | meaning |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def zoo_schema() -> str:
    """The JSON Schema of a zoo file."""
    return f"# Zoo files\n\nThe JSON Schema of `zoo.yaml` (`sslrob zoo schema`):\n\n```json\n{json.dumps(zoo.schema(), indent=2)}\n```"


PAGES = {"cli.md": commands, "hooks.md": hooks, "attacks.md": attacks, "zoo.md": zoo_schema}


def main() -> int:
    """Exit status: 1 if a page differs under `--check`."""
    stale = []
    for name, page in PAGES.items():
        text, path = NOTE + page().strip() + "\n", REFERENCE / name
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"docs/reference/ differs from the code: {', '.join(stale)}; run: python docs/generate.py", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
