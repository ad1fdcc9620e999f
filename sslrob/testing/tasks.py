"""The contract of tasks: data sets, rows and metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from sslrob.data import Dataset, Sample
from sslrob.evaluate import at_rest
from sslrob.task import Row, Task, Victim


def check_task(task: Task, dataset: Dataset, victim: Victim, *, classes: Sequence[str] = (), images: int = 4) -> None:
    """Check that a data set repeats, rows survive JSON, and metrics count each row as often as its weight says.

    Args:
        classes: names of the labels, to draw predictions with.
        images: how many of the data set's to look at, from its start.

    Raises:
        AssertionError: says what broke, where, and what to do.
    """
    name = type(task).__name__
    samples = _check_dataset(dataset, images)
    with at_rest(victim), torch.no_grad():
        predictions = [victim.predict(victim(sample.image[None]))[0] for sample in samples]
    rows = [task.measure(prediction, sample.target) for prediction, sample in zip(predictions, samples, strict=True)]
    again = [task.measure(prediction, sample.target) for prediction, sample in zip(predictions, samples, strict=True)]
    for row, second, sample in zip(rows, again, samples, strict=True):
        where = f"{name}.measure of {sample.id!r}"
        try:
            stored = json.loads(json.dumps(row, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise AssertionError(f"{where} is not JSON: {error}; use plain numbers, strings, lists and dicts") from error
        assert stored == row, f"{where} changes when stored as JSON; use lists instead of tuples and strings as keys"
        assert second == row, f"{where} differs from call to call"
    _check_metrics(task, rows, name)
    for sample, prediction in zip(samples, predictions, strict=True):
        height, width = sample.image.shape[1:]
        task.draw(ImageDraw.Draw(Image.new("RGB", (3 * width, 3 * height))), prediction, classes=classes, scale=3)


def _check_dataset(dataset: Dataset, images: int) -> list[Sample]:
    name = type(dataset).__name__
    n = len(dataset)
    assert n > 0, f"{name} is empty"
    assert len(dataset.ids) == n, f"{name} has {n} samples and {len(dataset.ids)} ids; give one id a sample"
    assert len({*dataset.ids}) == n, f"{name} has an id twice; ids name images"
    assert isinstance(dataset.fingerprint, str), f"{name}.fingerprint is {dataset.fingerprint!r}; give a string"
    assert dataset.fingerprint, f"{name}.fingerprint is {dataset.fingerprint!r}; hash the data"
    samples = [dataset[i] for i in range(min(images, n))]
    for i, sample in enumerate(samples):
        image, where = sample.image, f"{name}[{i}]"
        assert sample.id == dataset.ids[i], f"{where}.id is {sample.id!r}, ids[{i}] is {dataset.ids[i]!r}; they must agree"
        form = image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] == 3
        assert form, f"{where}.image is {image.dtype} {tuple(image.shape)}; return float32 (3, h, w)"
        inside = bool(((image >= 0) & (image <= 1)).all())
        assert inside, (
            f"{where}.image goes from {float(image.min()):.3g} to {float(image.max()):.3g}; stay in [0, 1], normalise in the victim"
        )
        assert torch.equal(dataset[i].image, image), f"{where}.image differs from call to call; evaluation data is not augmented"
    return samples


def _check_metrics(task: Task, rows: Sequence[Row], name: str) -> None:
    aggregate, n = task.aggregator(rows), len(rows)
    once = aggregate(np.ones(n))
    assert task.headline in once, f"{name}.headline is {task.headline!r}, but the metrics are {', '.join(once)}"
    for metric, value in once.items():
        assert not np.isfinite(value) or 0 <= value <= 100, f"{name}: {metric} is {value}; metrics are in percent"
    weights = (np.arange(n) % 3 + 1).astype(np.float64)
    repeated = [row for row, weight in zip(rows, weights, strict=True) for _ in range(int(weight))]
    for what, found, wanted in (
        ("with every row given three times over", aggregate(np.full(n, 3.0)), once),
        ("of the rows in reverse", task.aggregate(list(reversed(rows))), once),
        ("with weights, against rows repeated", aggregate(weights), task.aggregate(repeated)),
    ):
        assert found.keys() == wanted.keys(), f"{name}: the metrics {what} are {sorted(found)}, not {sorted(wanted)}"
        off = [m for m in wanted if not np.isclose(found[m], wanted[m], atol=1e-6, equal_nan=True)]
        assert not off, f"{name}: {off[0]} {what} is {found[off[0]]}, not {wanted[off[0]]}; a row counts as often as its weight says"
    for metric, (low, high) in task.intervals(rows).items():
        assert metric in once, f"{name} has an interval of {metric!r}, but the metrics are {', '.join(once)}"
        assert low <= high, f"{name}: the interval of {metric} is {low} to {high}; low comes first"
