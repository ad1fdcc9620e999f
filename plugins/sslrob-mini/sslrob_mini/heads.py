"""`python -m sslrob_mini.heads`: the heads of the embedded collection, trained again, one recipe each.

The data are scenes and crops of the train split, more of them than the wheel holds:
`python -m sslrob_mini.build --fashion DIR --photos DIR --out POOL --train-crops 6000 --train-scenes 4000`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from sslrob import assemble, zoo_files
from sslrob.builtin.classification import LinearClassifier
from sslrob.data import Batch, Sample, collate
from sslrob.training import Schedule, train
from sslrob.verify import clean_rows
from sslrob.weights import head_state, load, sha256
from sslrob.zoo import Head
from sslrob_mini.probe import embeddings, logistic_regression

SEED = 0
DATA = Path(__file__).parent / "data"
DATASETS = {"classification": "mini-crops", "segmentation": "mini-scenes-masks", "detection": "mini-scenes"}


@dataclass(frozen=True)
class Recipe:
    """How one head is trained.

    Attributes:
        protocol: frozen: the head alone; finetuned: the backbone too; linear: logistic regression on frozen embeddings.
        schedule: None for logistic regression, which is solved, not scheduled.
    """

    backbone: str
    task: str
    kind: str
    protocol: Literal["frozen", "finetuned", "linear"]
    schedule: Schedule | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 16


FROZEN = {
    # A linear detector on a linear pyramid, trained briefly: what it finds, the backbone knows.  With layers of its own, and time, a head
    # learns to see on random weights too: the better detector, and the worse probe.
    "fcos": ("fcos", {"width": 48, "convs": 0}, Schedule(epochs=2, learning_rate=2e-3)),
    "fcos-deep": ("fcos", {"width": 48}, Schedule(epochs=4, learning_rate=2e-3)),
    "fcn": ("fcn", {"width": 48}, Schedule(epochs=4, learning_rate=2e-3)),
}
FINETUNED = Schedule(epochs=8, learning_rate=2e-3, train="all", backbone_rate=0.5)
TASKS = {"fcn": "segmentation", "fcos": "detection"}


def _frozen(backbone: str, name: str) -> Recipe:
    kind, settings, schedule = FROZEN[name]
    return Recipe(f"mini-{backbone}", TASKS[kind], kind, "frozen", schedule, settings)


def _finetuned(backbone: str, kind: str) -> Recipe:
    return Recipe(f"mini-{backbone}", TASKS[kind], kind, "finetuned", FINETUNED, {"width": 48})


RECIPES = {
    **{f"{name}-linear": Recipe(f"mini-{name}", "classification", "linear", "linear") for name in ("swav", "supervised", "random")},
    **{f"{name}-{kind}": _frozen(name, kind) for name in ("swav", "supervised", "random") for kind in FROZEN},
    **{f"supervised-{kind}-finetuned": _finetuned("supervised", kind) for kind in ("fcn", "fcos")},
}
# The first choice where a backbone has several heads on a data set.
DEFAULTS = {"supervised-fcn-finetuned", "supervised-fcos-finetuned", "swav-fcos-deep", "random-fcos-deep"}


def run(name: str, recipe: Recipe, pool: Path, out: Path, weights: Path | None = None, epochs: int | None = None) -> dict[str, Any]:
    """Train a head, keep it as `OUT/NAME.safetensors` (fp16), and return what is worth recording.

    Args:
        weights: of the backbone, instead of the zoo's.
        epochs: instead of the recipe's.
    """
    began, part = time.process_time(), out / f"{name}.part.pt"
    torch.manual_seed(SEED)
    zoo, task = zoo_files.load(), assemble.task(recipe.task)
    shipped = zoo.get("dataset", DATASETS[recipe.task])
    fit = shipped.fit.model_copy(update={"path": pool / shipped.fit.path.relative_to(DATA)})
    data = assemble.dataset(shipped.model_copy(update={"fit": fit}), task, fit=True)
    record = zoo.get("backbone", recipe.backbone)
    body = assemble.backbone(record, name=recipe.backbone, state=load(weights) if weights else None)
    victim = task.victim(body, kind=recipe.kind, classes=shipped.classes, settings=recipe.settings)
    if recipe.schedule is None:
        solve(victim, [data[i] for i in range(len(data))])
    else:
        schedule = recipe.schedule if epochs is None else replace(recipe.schedule, epochs=epochs)
        samples = [data[i] for i in range(len(data))]
        steps = len(samples) // recipe.batch_size
        train(victim, shuffled(samples, recipe.batch_size), steps, schedule, checkpoint=part, log=lambda row: print(name, row, flush=True))
    path = out / f"{name}.safetensors"
    state = victim.state_dict() if recipe.protocol == "finetuned" else head_state(victim)
    save_file({name: halved(tensor) for name, tensor in state.items()}, path)
    part.unlink(missing_ok=True)
    return {"name": name, "cpu_seconds": round(time.process_time() - began)}


def recorded(name: str, recipe: Recipe, path: Path) -> dict[str, Any]:
    """The zoo's record of a head that was trained, its clean metrics measured on the shipped test split."""
    zoo, task, dataset = zoo_files.load(), assemble.task(recipe.task), DATASETS[recipe.task]
    head: dict[str, Any] = {
        "backbone": recipe.backbone,
        "dataset": dataset,
        "kind": recipe.kind,
        "settings": recipe.settings,
        "protocol": recipe.protocol,
        "weights": {"file": str(path), "sha256": sha256(path)},
    }
    record = zoo.get("dataset", dataset)
    body = assemble.backbone(zoo.get("backbone", recipe.backbone), name=recipe.backbone)
    victim = assemble.victim(Head(**head), body, task, classes=record.classes, name=name, state=load(path))
    metrics = task.aggregate(clean_rows(task, victim, assemble.dataset(record, task)))
    more: dict[str, Any] = {"default": True} if name in DEFAULTS else {}
    head["weights"]["file"] = path.name  # relative to the file that the record stands in
    return {
        **head,
        "clean": {key: round(value, 2) for key, value in metrics.items()},
        **more,
        "recipe": f"python -m sslrob_mini.heads {name}",
    }


def record_all(out: Path) -> Path:
    """Write `OUT/heads.yaml`, the zoo's records of every head in `OUT`."""
    records = {
        f"mini-{name}": recorded(name, recipe, path) for name, recipe in RECIPES.items() if (path := out / f"{name}.safetensors").exists()
    }
    path = out / "heads.yaml"
    text = yaml.safe_dump({"schema": 1, "heads": records}, sort_keys=False, width=140)
    path.write_text(f"# Written by `python -m sslrob_mini.heads`.\n{text}", encoding="utf-8")
    return path


def halved(tensor: Tensor) -> Tensor:
    """Matrices in half precision; vectors (biases, running statistics), which weigh little, as they are."""
    return tensor.half().contiguous() if tensor.is_floating_point() and tensor.ndim > 1 else tensor.contiguous()


def shuffled(samples: Sequence[Sample], size: int) -> Callable[[int], Iterator[Batch]]:
    """Whole batches in a new order every epoch, half of the images mirrored; the same epoch always gives the same batches."""

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 * SEED + epoch)
        order = torch.randperm(len(samples), generator=generator).tolist()
        mirror = (torch.rand(len(samples), generator=generator) < 0.5).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield collate([mirrored(samples[i]) if mirror[i] else samples[i] for i in order[start : start + size]])

    return batches


def mirrored(sample: Sample) -> Sample:
    """The sample seen in a mirror: left is right."""
    target: Any = sample.target
    if isinstance(target, Tensor):  # a mask (h, w)
        target = target.flip(-1)
    elif hasattr(target, "crowd"):  # objects
        width = sample.image.shape[-1]
        target = target._replace(boxes=_mirrored_boxes(target.boxes, width), crowd=_mirrored_boxes(target.crowd, width))
    return Sample(sample.id, sample.image.flip(-1), target)


def _mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)


def solve(victim: LinearClassifier, samples: Sequence[Sample]) -> None:
    """Set the linear head to the logistic regression on standardised embeddings (L-BFGS), written as one linear layer."""
    images, labels = torch.stack([s.image for s in samples]), torch.tensor([s.target for s in samples])
    weight, bias = logistic_regression(embeddings(victim.body, images), labels)
    with torch.no_grad():
        victim.head.weight.copy_(weight)
        victim.head.bias.copy_(bias)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.heads", description="Train the heads of the embedded collection.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to train; all by default: {', '.join(RECIPES)}")
    parser.add_argument("--pool", type=Path, required=True, metavar="DIR", help="what sslrob_mini.build wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the heads are written")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's, instead of the zoo's")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(RECIPES))
    if unknown:
        parser.error(f"no head is named {unknown[0]!r}; known: {', '.join(RECIPES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or RECIPES:
        print(json.dumps(run(name, RECIPES[name], options.pool, options.out, options.weights, options.epochs)), flush=True)
    print(f"recorded in {record_all(options.out)}")


if __name__ == "__main__":
    main()
