"""Backbones hardened by a defense: its images in a fixed order, random numbers of their own, checkpoints, measures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sslrob import assemble, own, recipes, weights, zoo
from sslrob.attack import Attack
from sslrob.backbone import Backbone
from sslrob.data import Batch, Dataset, collate
from sslrob.defense import Defense
from sslrob.errors import RunFailed, SslrobError
from sslrob.execute import chosen_devices
from sslrob.fitting import ROOM, Kept, fit_head
from sslrob.hardened import Plan, done, usual_recipes
from sslrob.packed import pack
from sslrob.plugins import Plugins, installed
from sslrob.runs import Run, telling_of_the_disk
from sslrob.settings import checked
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel, parse
from sslrob.training import keep

EVERY = 10.0  # seconds between two checkpoints
PURPOSE = "harden"  # of the random numbers

Measures = dict[str, float]
Progress = Callable[[int, int], None]  # steps done, steps in all


def make(
    plan: Plan,
    everything: zoo.Zoo,
    *,
    out: Path,
    device: str = "auto",
    progress: Progress = lambda done, total: None,
    every: float = EVERY,
    plugins: Plugins | None = None,
) -> zoo.Backbone:
    """The record of the hardened backbone: `OUT/NAME.safetensors`, and the measures of every step in `OUT/NAME.log.jsonl`.

    A killed call leaves `OUT/NAME.*.part.pt`, from which the same call goes on after the last checkpoint, and ends as if it had not been
    killed.

    Args:
        every: see `harden`.

    Raises:
        SslrobError, RunFailed: see `harden`; data or weights that are missing or do not fit.
    """
    plugins = plugins or installed()
    made, place = plan.hardening, torch.device(chosen_devices(device)[0])
    defense: Defense = checked(plan.defense.load(), made.settings, f"defense {made.defense!r}")
    attack = assemble.attack(
        f"{plan.attack.distribution}/{plan.attack.name}", made.attack_settings, restarts=plan.restarts, plugins=plugins
    )
    record: zoo.Dataset = everything.get("dataset", made.dataset)
    data = Kept(assemble.dataset(record, assemble.task(record.task, plugins), fit=True), ROOM)
    natural = assemble.backbone(plan.natural, name=made.backbone, plugins=plugins).to(place)
    path, log = out / f"{plan.name}.safetensors", StepLog(out / f"{plan.name}.log.jsonl")
    checkpoint = out / f"{plan.name}.{made.made_from[:8]}.part.pt"

    def tell(measures: Measures) -> None:
        log(measures)
        progress(int(measures["step"]), defense.steps)

    with telling_of_the_disk(out):
        out.mkdir(parents=True, exist_ok=True)
        hardened = harden(
            defense, natural, data, attack, parse(made.threat_model), seed=made.seed, checkpoint=checkpoint, every=every, log=tell
        )
        part = path.with_suffix(".part")
        save_file(pack({name: tensor.cpu() for name, tensor in hardened.state_dict().items()}), part)
        part.replace(path)
        for old in out.glob(f"{plan.name}.????????.part.pt"):
            old.unlink()
    before = plan.natural.pretraining
    told: dict[str, Any] = {
        "pretraining": before and before.model_copy(update={"log": None}),  # it stays with the natural backbone
        "weights": zoo.Weights(file=path, sha256=weights.sha256(path)),
        "seed": 0,
        "family": None,
        "default": False,
        "reported": {},
        "hardening": made.model_copy(update={"log": log.path}),
    }
    return plan.natural.model_copy(update=told)


def join_zoo(
    plan: Plan,
    load: Callable[[], zoo.Zoo],
    *,
    out: Path,
    heads: bool = True,
    device: str = "auto",
    show: Callable[[str], Progress] = lambda title: lambda done, total: None,
    every: float = EVERY,
    plugins: Plugins | None = None,
) -> zoo.Zoo:
    """The zoo with the hardened backbone in it, and with its heads by the usual frozen recipes; what is there already is not made again.

    Args:
        load: reads the zoo's files, `OUT/zoo.yaml` among them.
        out: for the weights, and the zoo file that names them.
        show: what shows how far the making of something of that title is.

    Raises:
        SslrobError, RunFailed: see `make` and `sslrob.fitting.fit_head`; or another process does the same.
    """
    plugins, everything, out = plugins or installed(), load(), out.resolve()
    with Run(out).alone():
        if not done(plan, everything):
            record = make(plan, everything, out=out, device=device, progress=show(plan.name), every=every, plugins=plugins)
            own.add(out / own.FILE, {"backbones": {plan.name: record}})
            everything = load()
        for recipe in usual_recipes(everything, plugins) if heads else ():
            head = recipes.plan(everything, plugins, plan.name, recipe)
            if recipes.made(head, everything) is None:
                name, fitted = fit_head(everything, plan.name, recipe, out=out, device=device, progress=show(head.name), plugins=plugins)
                own.add(out / own.FILE, {"heads": {name: fitted}})
                everything = load()
    return everything


def harden(
    defense: Defense,
    backbone: Backbone,
    data: Dataset,
    attack: Attack,
    threat_model: ThreatModel,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    every: float = EVERY,
    log: Callable[[Measures], None] = lambda measures: None,
) -> Backbone:
    """The backbone as the defense hardens it, in eval mode, on the same device; the given one is left as it is.

    Neither where it was stopped nor when checkpoints were kept changes a bit of it.

    Args:
        data: images of one size.
        checkpoint: all state is kept here, in one atomic move, and a later call goes on from it.
        every: seconds between two checkpoints; the last step is always kept.
        log: takes {step, ...} with the measures of each step; what follows a checkpoint comes again after a kill.

    Raises:
        SslrobError: fewer images than a batch, or images of several sizes.
        RunFailed: the loss is not finite.
    """
    if len(data) < defense.batch_size:
        raise SslrobError(
            f"{len(data)} images are fewer than a batch of {defense.batch_size}", hint=f"add --set batch_size={max(1, len(data))}, or less"
        )
    training, device = defense.begin(backbone, attack, threat_model), backbone.mean.device
    done = _resume(checkpoint, training.restore)
    kept = time.monotonic()
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        for step in range(done, defense.steps):
            batch = shown(data, defense.batch_size, step, seed)
            measures = training.step(batch.to(device), Streams(seed, batch.ids, f"{PURPOSE} {step}"), step / defense.steps)
            if not all(map(isfinite, measures.values())):
                raise RunFailed(
                    f"at step {step + 1} of {defense.steps} a measure is not finite: {measures}", hint="lower the learning rate"
                )
            log({"step": step + 1, **measures})
            if checkpoint is not None and (time.monotonic() - kept >= every or step + 1 == defense.steps):
                keep(checkpoint, {"step": step + 1, "training": training.state()})
                kept = time.monotonic()
    return training.backbone.eval()


def shown(data: Dataset, size: int, step: int, seed: int) -> Batch:
    """The batch of a step: each epoch shows whole batches in a new order.

    Raises:
        SslrobError: its images are of several sizes.
    """
    epoch, place = divmod(step, len(data) // size)
    order = Streams(seed, [f"epoch {epoch}"], f"{PURPOSE} order").uniform((len(data),))[0].argsort(stable=True)
    samples = [data[i] for i in order[place * size : (place + 1) * size].tolist()]
    shapes = sorted({tuple(sample.image.shape[1:]) for sample in samples})
    if len(shapes) > 1:
        told = " and ".join(f"{width} × {height}" for height, width in shapes[:2])
        raise SslrobError(
            f"the images to train on are of several sizes, such as {told}", hint="set resize and crop in the data set's zoo entry"
        )
    return collate(samples)


class StepLog:
    """Keeps the measures of each step, one JSON object a line; those of steps that come again are written again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begun = False

    def __call__(self, measures: Measures) -> None:
        if not self._begun:
            self._drop(measures["step"])
            self._begun = True
        told = {name: round(value, 6) if isinstance(value, float) else value for name, value in measures.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")

    def _drop(self, step: float) -> None:
        """Forget this step and later ones, and a line that a kill tore."""
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
        self.path.write_text("".join(kept), encoding="utf-8")


def _resume(checkpoint: Path | None, restore: Callable[[dict[str, Any]], None]) -> int:
    """Steps that are done; their state is restored."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    restore(found["training"])
    return int(found["step"])
