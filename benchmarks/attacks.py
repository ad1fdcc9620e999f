"""sslrob's attacks beside those of other libraries: the same model, images and settings, one run of each in turn.

    uv run --group benchmark python benchmarks/attacks.py                    # every attack, 64 images
    uv run --group benchmark python benchmarks/attacks.py pgd apgd --images 128 --repeats 5 --json table.json

A ratio above 1: the peer takes longer than sslrob did in the same round.  Processor time of one thread on a CPU, wall time on a GPU.  Beside
it stand the passes, and what was reached: a faster and weaker attack is no win.  Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from contestants import ATTACKS, MINIMUM_NORM
from torch import Tensor

from sslrob import assemble, zoo_files
from sslrob.builtin.classification import LinearClassifier
from sslrob.choice import choose, usual_dataset
from sslrob.data import batches
from sslrob.epsilon import parse_epsilon
from sslrob.plugins import installed
from sslrob.table import table
from sslrob.threat_model import NORMS


class Counted(LinearClassifier):
    """A classifier that counts the images which pass through it, forwards and backwards."""

    def __init__(self, victim: LinearClassifier) -> None:
        super().__init__(victim.body, victim.head.out_features)
        self.head = victim.head
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        self.forwards += len(images)
        logits = super().forward(images)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


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

    def __init__(self, backbone: str, epsilon: str, images: int, device: str) -> None:
        zoo = zoo_files.load()
        task, chosen = assemble.task("classification"), usual_dataset(installed().find("task", "classification"), zoo)
        dataset, record = zoo.datasets[chosen], zoo.heads[choose(backbone, chosen, "linear", zoo).head]
        body = assemble.backbone(zoo.backbones[backbone], name=backbone)
        victim = assemble.victim(record, body, task, classes=dataset.classes, name=backbone, dataset=dataset, device=torch.device(device))
        self.model, self.epsilon = Counted(victim).eval(), float(parse_epsilon(epsilon, "linf"))
        batch = next(iter(batches(assemble.dataset(dataset, task), images))).to(torch.device(device))
        self.all, labels = len(batch), torch.as_tensor(batch.targets, device=device)
        with torch.no_grad():
            right = self.model(batch.images).argmax(1) == labels
        self.images, self.labels, self.device = batch.images[right], labels[right], device

    def run(self, attack: str, contestant: Any, epsilon: float) -> Run:
        """Time one contestant, and judge what it found by the model itself."""
        model = self.model.requires_grad_(True)  # as a user's model comes
        model.forwards = model.backwards = 0
        began = self._clock()
        found = contestant(model, self.images.clone(), self.labels, epsilon).detach()
        seconds = self._clock() - began
        passes = model.forwards / len(self.images), model.backwards / len(self.images)
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


def compared(arena: Arena, attack: str, epsilon: float, repeats: int) -> dict[str, list[Run]]:
    """Runs of each contestant that is installed, in turn, after one that is not counted."""
    contestants = {}
    for name, build in ATTACKS[attack].items():
        try:
            contestants[name] = build()
        except ImportError as error:
            print(f"{attack}: {name} is left out: {error}", file=sys.stderr)
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for name in list(contestants):
        try:
            arena.run(attack, contestants[name], epsilon)
        except Exception as error:  # another library's fault must not cost the others' figures
            if name == "sslrob":
                raise
            print(f"{attack}: {name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
            del contestants[name], runs[name]
    for _ in range(repeats):
        for name, contestant in contestants.items():
            runs[name].append(arena.run(attack, contestant, epsilon))
    return runs


def peak(options: argparse.Namespace, attack: str, contestant: str) -> float:
    """Megabytes that a contestant needs above what the model and the images take, in a process of its own."""
    words = [__file__, attack, "--only", contestant]
    for name in ("backbone", "epsilon", "images", "device"):
        words += [f"--{name}", str(getattr(options, name))]
    return float(subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout.split()[-1])


def own_peak(arena: Arena, attack: str, contestant: str, epsilon: float) -> float:
    build = ATTACKS[attack][contestant]()
    if arena.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        arena.run(attack, build, epsilon)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading; Linux only
    before = _resident("VmRSS")
    arena.run(attack, build, epsilon)
    return _resident("VmHWM") - before


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
    parser.add_argument("--backbone", default="mini-swav-mi-at", help="of the zoo, with a linear head")
    parser.add_argument("--epsilon", default="2/255", help="in Linf; minimum-norm attacks look as far as it takes")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action="store_true", help="measure each one's peak memory too, in a process of its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single run there")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = sorted(set(options.attacks) - set(ATTACKS))
    if unknown:
        parser.error(f"no attack {unknown[0]!r} here; there are {', '.join(ATTACKS)}")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arena, all_runs, lines = Arena(options.backbone, options.epsilon, options.images, options.device), {}, []
    if options.only:
        (attack,) = options.attacks
        print(own_peak(arena, attack, options.only, reach(arena, attack)))
        return
    told = f"{options.backbone}, {len(arena.images)} of {arena.all} images right, linf:{options.epsilon}"
    print(f"{told}, torch {torch.__version__}, {options.device}\n")
    try:
        for attack in options.attacks or ATTACKS:
            runs = compared(arena, attack, reach(arena, attack), options.repeats)
            memory = {name: peak(options, attack, name) for name in runs} if options.memory else {}
            lines += rows(attack, runs, memory)
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
