"""Write docs/reference/ from the code: `python docs/generate.py`, or with `--check` say what differs."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from pydantic import TypeAdapter
from typer.cli import get_docs_for_click

from sslrob import assemble, cli, hookspecs, zoo, zoo_files
from sslrob.attack import Attack
from sslrob.builtin.classification import LinearClassifier
from sslrob.data import Batch
from sslrob.objective import build
from sslrob.plugins import installed
from sslrob.streams import Streams
from sslrob.testing.toy_victims import ToyBackbone
from sslrob.threat_model import NORMS

REFERENCE = Path(__file__).parent / "reference"
SIDE = 8  # pixels
LEARNED = 32  # images of a batch that a universal attack learns from
ATTACKS = """A preset is a search, an objective and settings; `--attack` takes its name, or that of a search. `--set KEY=VALUE`, `--objective`,
`--restarts` and `--epsilon` change any of it. Which to choose: [how to choose an attack](../how-to/choose-an-attack.md).

The costs are passes through the victim, counted for an image that withstands, among ten classes; images that are fooled cost less, unless
the search is for the smallest move. A universal attack spends its passes once, on the fit split. A quick look costs less: `--set steps=10`.
"""
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
    """sslrob's own presets with what they cost, and its attacks with what they assume and their settings."""
    parts = ["# Attacks\n", ATTACKS, "## Presets\n", _presets(), "## What each assumes, and its settings\n"]
    for component in installed().of("attack"):
        if component.distribution == "sslrob":
            parts.append(_attack(component.name, component.load()))
    return "\n".join(parts)


def _presets() -> str:
    rows = ["| preset | search | raises | forwards | backwards | what it is, and its source |", "|---|---|---|---|---|---|"]
    for name, record in zoo_files.read(zoo_files.first_party()).records.attacks.items():
        told = "; ".join(text for text in (record.description, record.paper) if text)
        given = " ".join(f"`{key}={json.dumps(value)}`" for key, value in record.settings.items())
        given += f" restarts {record.restarts}" if record.restarts > 1 else ""
        rows.append(f"| `{name}` | `{record.use}` {given} | {record.objective} | {' | '.join(_cost(record))} | {told} |")
    return "\n".join(rows) + "\n"


class TenClasses(LinearClassifier):
    """Tells ten classes apart, and takes the losses of other victims for its own: they cost the same passes."""

    losses = (*LinearClassifier.losses, "guide", "mask-ce", "segpgd", "cospgd", "js", "mask-spherical")
    losses += ("vanish", "fabricate", "mislabel", "dag", "ranking")

    def loss(self, outputs: torch.Tensor, targets: Sequence[int], name: str, progress: float) -> torch.Tensor:
        return super().loss(outputs, targets, name if name in LinearClassifier.losses else "ce", progress)


def _cost(record: zoo.Attack) -> list[str]:
    """Passes each way through a victim that tells ten classes apart, for an image that nothing within epsilon fools."""
    attack = assemble.attack(record.use, record.settings, restarts=record.restarts)
    images = torch.rand(LEARNED, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = TenClasses(ToyBackbone(), 10).eval().requires_grad_(False)
    batch = Batch(tuple(map(str, range(LEARNED))), images, tuple(victim(images).argmax(1).tolist()))
    first = torch.arange(LEARNED) == 0
    objective = build(record.objective, victim, batch, attack.access, guide=lambda batch: batch.images.flip(-1))
    model = NORMS[min(attack.norms or {"linf"}, key=("linf", "l2", "l1").index)](1e-6 if attack.bounded else 1.0)
    streams, spent = Streams(0, batch.ids), (objective.cost.forwards, objective.cost.backwards)
    before = [int(passes.sum()) for passes in spent]  # of an embedding to move from, or towards, one pass an image
    fitted = attack.fit([(objective, images)], model, streams=streams)
    learned = [int(passes.sum()) - earlier for passes, earlier in zip(spent, before, strict=True)]
    if any(learned):
        return [f"{_told(n)} in all" for n in learned]
    fitted.perturb(objective[first], images[first], model, streams=streams[first])
    return [_told(int(passes[first].sum())) for passes in spent]


def _told(passes: int) -> str:
    """Thousands to two digits: some searches end when they have converged, and machines round differently."""
    return f"{passes}" if passes < 1000 else f"about {float(f'{passes:.2g}'):,.0f}"


def _attack(name: str, attack: type[Attack]) -> str:
    access = {"white-box": "gradients", "score": "losses", "decision": "verdicts"}[attack.access]
    assumed = [f"sees {access}"]
    for what, limits in (("norms", attack.norms), ("tasks", attack.tasks), ("objectives", attack.objectives)):
        assumed.append(f"{what}: {', '.join(sorted(limits)) if limits else 'any'}")
    if not attack.bounded:
        assumed[1] = "norms: none, its threat model is every image"
    if attack.fit is not Attack.fit:
        assumed.append("learns on the fit split first")
    text = f"### `{name}`\n\n{inspect.getdoc(attack)}\n\n*{'; '.join(assumed)}.*\n"
    fields = TypeAdapter(attack).json_schema().get("properties", {})
    rows = [f"| `{setting}` | {json.dumps(field['default'])} | {field.get('description', '')} |" for setting, field in fields.items()]
    return text + ("\n".join(["", "| setting | default | meaning |", "|---|---|---|", *rows, ""]) if rows else "")


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
