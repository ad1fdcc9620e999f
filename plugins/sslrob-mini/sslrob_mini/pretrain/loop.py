"""The pretraining loop: checkpoints from which a killed run goes on as if it had not been, and the log kept beside the weights."""

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.optim import AdamW

from sslrob.errors import SslrobError
from sslrob.packed import pack
from sslrob_mini.pretrain.cast import start
from sslrob_mini.pretrain.methods import Method
from sslrob_mini.pretrain.pool import Pool
from sslrob_mini.pretrain.settings import Schedule, Settings
from sslrob_mini.probe import embeddings, nearest_neighbours

WATCH = 2 / 3  # share of the pool's crops that are the memory of the k-NN classifier; it is asked about the others


def pretrain(name: str, settings: Settings, pool: Pool, out: Path, stop: int | None = None) -> Method:
    """The trained method; `out` holds NAME.safetensors (the backbone, in 8 bits) and NAME.log.jsonl.

    Goes on from `out`/NAME.checkpoint.pt where there is one of the same settings. `stop` ends the run early, before that step.
    """
    schedule = settings.schedule
    method = start(settings)
    optimizer = _optimizer(method, schedule)
    generator = torch.Generator().manual_seed(schedule.seed)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / f"{name}.checkpoint.pt"
    log: list[dict[str, Any]] = [{"method": name, "settings": asdict(settings), "torch": str(torch.__version__)}]
    done, seconds = 0, 0.0
    if checkpoint.exists():
        done, seconds, log = _resume(checkpoint, method, optimizer, generator, log[0])
    losses: list[float] = []
    started = time.process_time() - seconds
    end = schedule.steps if stop is None else min(stop, schedule.steps)
    for step in range(done, end):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        method.train()
        method.before(step)
        loss = method.loss(pool, generator, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % schedule.every == 0 or step + 1 == schedule.steps:
            seconds = time.process_time() - started
            mean = sum(losses) / len(losses)
            log.append({"step": step + 1, "loss": round(mean, 4), "knn": watch(method, pool), "cpu_seconds": round(seconds)})
            losses = []
            state = {"done": step + 1, "seconds": seconds, "log": log, "model": method.state_dict()}
            _write(checkpoint, {**state, "optimizer": optimizer.state_dict(), "generator": generator.get_state()})
            _write_log(out / f"{name}.log.jsonl", log)
            print(json.dumps(log[-1]), flush=True)
    if end == schedule.steps:
        _write_log(out / f"{name}.log.jsonl", log)  # a kill may have come between the last checkpoint and its line
        save_file(pack(method.backbone.state_dict()), out / f"{name}.safetensors")
    return method


def learning_rate(schedule: Schedule, step: int) -> float:
    """Learning rate of a step: up in a line, down in half a cosine."""
    rising = min(1.0, (step + 1) / schedule.warm_up)
    falling = max(0, step - schedule.warm_up) / max(1, schedule.steps - schedule.warm_up)
    return schedule.learning_rate * rising * 0.5 * (1 + math.cos(math.pi * falling))


def watch(method: Method, pool: Pool) -> float:
    """Share of the pool's last crops that the 20 nearest of its first ones classify rightly: the labels are used to look only."""
    images = pool.crops.float() / 255
    known = round(len(images) * WATCH)
    features = embeddings(method.backbone, images)
    guesses = nearest_neighbours(features[:known], pool.crop_labels[:known], features[known:])
    return round((guesses == pool.crop_labels[known:]).float().mean().item(), 4)


def _optimizer(method: Method, schedule: Schedule) -> AdamW:
    """AdamW that decays weights, not biases nor normalisations."""
    parameters = method.parts()
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=schedule.learning_rate)


def _resume(
    checkpoint: Path, method: Method, optimizer: AdamW, generator: torch.Generator, header: dict[str, Any]
) -> tuple[int, float, list[dict[str, Any]]]:
    """Steps done, processor seconds spent and the log up to there, with all state put back."""
    state = torch.load(checkpoint, weights_only=True)
    if state["log"][0] != header:
        raise SslrobError(f'"{checkpoint}" is of a run with other settings', hint="remove it, or give another folder as --out")
    method.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return state["done"], state["seconds"], state["log"]


def _write(path: Path, state: dict[str, Any]) -> None:
    """Put a checkpoint in the place of the last one, so that a kill leaves one of the two whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _write_log(path: Path, log: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in log), encoding="utf-8")
