"""sslrob's attacks beside those of other libraries: the same model, images and settings, one run of each in turn.

    uv run --group benchmark python benchmarks/attacks.py                    # every attack, 64 images
    uv run --group benchmark python benchmarks/attacks.py pgd apgd --images 128 --repeats 5 --json table.json
    STEPS=2 uv run --group benchmark python benchmarks/attacks.py pgd --model resnet50 --size 224 --images 4

STEPS are those of PGD; other attacks' grow with them.  "sslrob, as it is": without the copy that `sslrob.engine` makes of the model.  "sslrob,
bfloat16": through that copy in half as many bits.
A ratio above 1: the peer takes longer than sslrob did in the same round.  Processor time of one thread on a CPU, wall time on a GPU.  Beside
it stand the passes, and what was reached: a faster and weaker attack is no win.  Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
import warnings
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import typer
from contestants import ATTACKS, MINIMUM_NORM
from models import made

from sslrob.epsilon import parse_epsilon
from sslrob.table import table
from sslrob.threat_model import NORMS


@dataclass(frozen=True)
class Run:
    """One attack by one contestant.

    Attributes:
        seconds: of one processor thread, or of the GPU.
        forwards, backwards: images through the model, an attacked image.
        robust: share of all images that the model still gets right, in percent; None for a minimum-norm attack.
        distance: median length of the moves that fool; None where the budget is fixed.
    """

    seconds: float
    forwards: float
    backwards: float
    robust: float | None
    distance: float | None


class Arena:
    """A model and the images that it gets right."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = options.device
        self.model, images, labels, self.name = made(options.model, options.images, options.size, options.fit, torch.device(options.device))
        self.all, self.epsilon = len(images), float(parse_epsilon(options.epsilon, "linf"))
        with torch.no_grad():
            right = self.model(images).argmax(1) == labels
        self.images, self.labels = images[right], labels[right]

    def run(self, attack: str, contestant: Any, epsilon: float) -> Run:
        """Time one contestant, and judge what it found by the model itself."""
        model = self.model.requires_grad_(True)  # as a user's model comes
        model.passes.forwards = model.passes.backwards = 0
        began = self._clock()
        found = contestant(model, self.images.clone(), self.labels, epsilon).detach()
        seconds = self._clock() - began
        passes = model.passes.forwards / len(self.images), model.passes.backwards / len(self.images)
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            fooled = model(found).argmax(1) != self.labels
        norm = NORMS[MINIMUM_NORM.get(attack, "linf")](epsilon)
        distance = norm.distance(found, self.images)
        if attack in MINIMUM_NORM:
            median = distance[fooled].median().item() if fooled.any() else float("inf")
            return Run(seconds, *passes, None, median)
        allowed = distance <= epsilon * (1 + 1e-4)
        return Run(seconds, *passes, 100 * (~(fooled & allowed)).sum().item() / self.all, None)

    def _clock(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def contestants(attack: str, wanted: Collection[str] | None) -> dict[str, Any]:
    """Those that are installed, and wanted."""
    found = {}
    for name, build in ATTACKS[attack].items():
        if wanted is not None and name not in ("sslrob", *wanted):
            continue
        try:
            found[name] = build()
        except ImportError as error:
            print(f"{attack}: {name} is left out: {error}", file=sys.stderr)
    return found


def compared(arena: Arena, attack: str, known: dict[str, Any], epsilon: float, repeats: int) -> dict[str, list[Run]]:
    """Runs of each contestant in turn, after one that is not counted; those that fail are struck from `known`."""
    runs: dict[str, list[Run]] = {name: [] for name in known}
    for name in list(known):
        try:
            arena.run(attack, known[name], epsilon)
        except Exception as error:  # another library's fault must not cost the others' figures
            if name == "sslrob":
                raise
            print(f"{attack}: {name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
            del known[name], runs[name]
    for _ in range(repeats):
        for name, contestant in known.items():
            runs[name].append(arena.run(attack, contestant, epsilon))
    return runs


def peaks(arena: Arena, attacks: Iterable[str], wanted: Collection[str] | None) -> dict[str, dict[str, float]]:
    """Megabytes that each contestant needs above what the model and the images take.

    On a CPU each runs once in a process of its own, forked off this one before anything was attacked; Linux only.
    """
    found: dict[str, dict[str, float]] = {}
    for attack in attacks:
        found[attack] = {}
        for name, contestant in contestants(attack, wanted).items():
            if arena.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                arena.run(attack, contestant, reach(arena, attack))
                found[attack][name] = (torch.cuda.max_memory_allocated() - before) / 2**20
                continue
            here, there = get_context("fork").Pipe(duplex=False)
            child = get_context("fork").Process(target=_peak, args=(arena, attack, contestant, there))
            child.start()
            there.close()
            with suppress(EOFError):  # it failed, as it will again when it is timed
                found[attack][name] = here.recv()
            child.join()
    return found


def _peak(arena: Arena, attack: str, contestant: Any, there: Connection) -> None:
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be used again for nothing
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
    before = _resident("VmRSS")
    arena.run(attack, contestant, reach(arena, attack))
    there.send(_resident("VmHWM") - before)


def _resident(what: str) -> float:
    """Megabytes of this process's memory: VmRSS now, VmHWM at its highest."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line for line in lines if line.startswith(what)).split()[1]) / 2**10


def rows(attack: str, runs: dict[str, list[Run]], memory: dict[str, float]) -> list[list[str]]:
    """A row each: how much longer than sslrob, round by round, passes, memory, and what was reached."""
    mine = [run.seconds for run in runs["sslrob"]]
    told = []
    for name, own in runs.items():
        ratio = statistics.median(run.seconds / base for run, base in zip(own, mine, strict=True))
        last = own[-1]
        reached = f"robust {last.robust:.1f} %" if last.robust is not None else f"median {last.distance:.5f}"
        room = f"{memory[name]:.0f}" if name in memory else ""
        told.append([attack, name, f"{ratio:.2f}", f"{statistics.median(run.seconds for run in own):.2f}"])
        told[-1] += [f"{last.forwards:.1f}", f"{last.backwards:.1f}", room, reached]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; default: all")
    parser.add_argument("--model", default="mini-swav-mi-at", help="a backbone of the zoo under its linear head, or resnet18 or resnet50")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="resize the images")
    parser.add_argument("--fit", type=int, default=0, metavar="STEPS", help="of 16 images, that resnet18 or resnet50 learns before")
    parser.add_argument("--epsilon", default="2/255", help="in Linf; minimum-norm attacks look as far as it takes")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="measure each one's peak memory too, in a process of its own")
    parser.add_argument("--libraries", nargs="+", metavar="NAME", help="only sslrob and these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single run there")
    options = parser.parse_args()
    unknown = sorted(set(options.attacks) - set(ATTACKS))
    if unknown:
        parser.error(f"no attack {unknown[0]!r} here; there are {', '.join(ATTACKS)}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arena, chosen = Arena(options), options.attacks or list(ATTACKS)
    memory = peaks(arena, chosen, options.libraries) if options.memory else {}
    all_runs, lines = {}, []
    told = f"{arena.name}, {len(arena.images)} of {arena.all} images right, linf:{options.epsilon}"
    print(f"{told}, torch {torch.__version__}, {options.device}\n")
    try:
        for attack in chosen:
            runs = compared(arena, attack, contestants(attack, options.libraries), reach(arena, attack), options.repeats)
            lines += rows(attack, runs, memory.get(attack, {}))
            all_runs[attack] = {name: [asdict(run) for run in own] for name, own in runs.items()}
            print(f"{attack} done", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(all_runs, indent=1), encoding="utf-8")
    except KeyboardInterrupt:
        print("stopped; what was finished:", file=sys.stderr)
    typer.echo(table(["attack", "library", "ratio", "seconds", "forwards", "backwards", "MB", "reached"], lines))


def reach(arena: Arena, attack: str) -> float:
    """The epsilon of an attack; for minimum-norm ones the length of the longest move that there is."""
    return arena.images[0].numel() ** 0.5 if attack in MINIMUM_NORM else arena.epsilon


if __name__ == "__main__":
    main()
