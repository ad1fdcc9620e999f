"""How an evaluation runs: what is still to do of it, in this process or in shards, and the record that comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sslrob import assemble, engine, learning, pictures, trust
from sslrob.data import Dataset, batches, order
from sslrob.errors import RunFailed, SslrobError
from sslrob.evaluate import Question, evaluate
from sslrob.objective import require_known
from sslrob.provenance import provenance
from sslrob.runs import Run
from sslrob.shards import Done, Part, Progress, divided, in_processes, stopping
from sslrob.spec import BackboneSpec, HeadSpec, Spec
from sslrob.summary import summarise
from sslrob.task import Task, Victim
from sslrob.threat_model import parse, require_room
from sslrob.whole import require_classes


def run(
    spec: Spec,
    *,
    runs: Path,
    limit: int | None = None,
    batch_size: int = 32,
    shards: int = 1,
    device: str = "auto",
    pictures: int = 8,
    progress: Progress = lambda done, total: None,
    lessons: Progress = lambda done, length: None,
) -> dict[str, Any]:
    """Answer a question, going on where an earlier call stopped; returns the finished record, with its folder under `folder`.

    Args:
        runs: the folder of all runs.
        limit: how many images; any number takes from the same fixed random order, so that a larger one extends a smaller one.
        device: "auto": CUDA where there is any, else the CPU; with shards, all CUDA devices in turn.
        pictures: how many images are also kept as pictures.
        lessons: takes how far the learning of a universal attack is.

    Raises:
        BudgetExceeded: the attack left its threat model.
        SslrobError: something is missing or does not fit.
        RunFailed: the disk or the device gave up; what was done stays.
    """
    task = assemble.task(spec.task.name)
    data = assemble.dataset(spec.dataset, task)
    chosen = order(data)[:limit]
    if not chosen:
        raise SslrobError("there is no image to evaluate", hint="check the data set and --limit")
    learning.require_unseen(spec, data)
    require_room(parse(spec.threat_model), data[chosen[0]].image)
    store, devices = Run(runs / spec.name), chosen_devices(device)
    if spec.victim is not None and not store.record_path.exists():
        load_victim(spec, task, data)  # a whole victim that does not fit leaves no run behind
    with store.alone():
        started = time.monotonic()
        prints = fingerprints(spec, task, data)
        facts = {**provenance(_plugins(spec), devices[0]), **prints}
        _require_same_data(store, prints)
        before = store.open(spec.id, spec.model_dump(mode="json"), facts)
        learned: dict[str, Any] = {}
        try:
            done = {row["id"] for row in store.rows()}
            left = [i for i in sorted(chosen) if data.ids[i] not in done]
            flags = {flag["name"]: flag for flag in before.get("flags", []) if flag["name"] in trust.OF_VICTIM}
            pictured = frozenset(data.ids[i] for i in chosen[:pictures])
            parts = divided(spec, store.folder, left, pictured, batch_size, max(1, min(shards, len(left))), devices)
            unseen = _without_picture(store.folder / "pictures", pictured & done, data)
            if left or unseen:
                fit, victim = partial(fit_split, spec, task, data), partial(load_victim, spec, task, data, devices[0])
                if (move := learning.prepare(spec, store, fit, victim, lessons)) is not None:
                    learned["universal"] = move
            worked = in_processes(work, parts, len(chosen) - len(left), len(chosen), store, progress)
            flags |= {flag.name: flag._asdict() for flag in worked.flags}
            if unseen:  # the same attack again, for the same images
                work(Part(spec, store.folder, unseen, pictured, batch_size, devices[0], again=True))
            asked = {data.ids[i] for i in chosen}
            rows = [row for row in store.rows() if row["id"] in asked]
            results = summarise(task, rows)
            taught = [one for one in (learned.get("universal", before.get("universal")),) if one is not None]
            for flag in [*trust.of_rows(rows), *trust.dead_gradients(taught), *_off(spec, data, results)]:
                flags[flag.name] = flag._asdict()
        except Exception as error:
            store.fail(error)
            raise
        answer = {"headline": task.headline, "sentence": spec.sentence(), "results": results, "flags": list(flags.values()), **learned}
        if task.judged_by:
            answer["judged_by"] = task.judged_by
        if left or not done:
            facts["engine"] = worked.engine
            record = store.finish(**answer, provenance=facts, seconds=round(time.monotonic() - started + before.get("seconds", 0.0), 1))
        else:  # nothing was done: the record stays of who did the work, and of all that they did
            kept = before if before.get("results", {}).get("images", 0) > results["images"] else {**before, **answer}
            kept = {**kept, "status": "finished", "provenance": before["earlier"][-1], "earlier": before["earlier"][:-1]}
            record = {**store.finish(**kept), **answer}
    return {**record, "folder": str(store.folder)}


def _without_picture(folder: Path, ids: Collection[str], data: Dataset) -> tuple[int, ...]:
    """Which of these images have no picture yet."""
    return tuple(i for i, id in enumerate(data.ids) if id in ids and not (folder / pictures.file_name(id)).exists())


def chosen_devices(device: str) -> list[str]:
    """The devices that shards take in turn.

    Raises:
        SslrobError: there is no such device.
    """
    if device == "auto":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SslrobError(f"device {device!r} cannot be used: {reason}", hint="see what there is: sslrob doctor") from None
    return [device]


def require_data(spec: Spec) -> None:
    """Raise the SslrobError that a run would meet where its images are not there, before anything is downloaded for it."""
    task = assemble.task(spec.task.name)
    assemble.require_there(spec.dataset, task)
    if needs_fit_split(spec):
        assemble.require_there(spec.dataset, task, fit=True)


def needs_fit_split(spec: Spec) -> bool:
    """Whether a head remembers the images of the fit split, or the attack learns from them or aims at them."""
    heads = [spec.head, *(one.head for one in spec.surrogates)]
    return learning.needs_fit_split(spec) or any(head is not None and head.protocol == "knn" for head in heads)


def fingerprints(spec: Spec, task: Task, data: Dataset) -> dict[str, str]:
    """Of the images that are evaluated and, where it is needed, of the fit split."""
    if not needs_fit_split(spec):
        return {"dataset": data.fingerprint}
    return {"dataset": data.fingerprint, "fit": fit_split(spec, task, data).fingerprint}


def fit_split(spec: Spec, task: Task, data: Dataset) -> Dataset:
    """The images that whatever learns may see, labelled as those that are evaluated."""
    return assemble.fit_split(spec.dataset, task, classes_of(spec, data))


def load_victim(spec: Spec, task: Task, data: Dataset, device: str | torch.device = "cpu") -> Victim:
    """The victim of a spec, in eval mode, on `device`."""
    if spec.victim is not None:
        asked, classes = spec.victim, classes_of(spec, data)
        require_classes(asked.id, asked.classes, classes)
        return task.whole(asked.reference, weights=asked.weights, settings=asked.settings, classes=classes).eval().to(device)
    if spec.backbone is None or spec.head is None:
        raise ValueError("a spec needs a backbone and a head, or a whole victim")
    return _composed(spec.backbone, spec.head, spec, task, data, device)


def load_surrogates(spec: Spec, task: Task, data: Dataset, device: str | torch.device = "cpu") -> tuple[Victim, ...]:
    """Whom the attack of a spec sees instead of the victim, in eval mode, on `device`; none: the victim."""
    return tuple(_composed(one.backbone, one.head, spec, task, data, device) for one in spec.surrogates)


def _composed(backbone: BackboneSpec, head: HeadSpec, spec: Spec, task: Task, data: Dataset, device: str | torch.device) -> Victim:
    body = assemble.backbone(backbone, name=backbone.id)
    return assemble.victim(head, body, task, classes=classes_of(spec, data), name=head.id, dataset=spec.dataset, device=device)


def work(part: Part, tell: Callable[[int], None] | None = None) -> Done:
    """Evaluate a part's images and append their rows.

    Args:
        tell: takes how many images are done after every batch.
    """
    if part.threads is not None:
        torch.set_num_threads(part.threads)
    spec, device = part.spec, torch.device(part.device)
    task = assemble.task(spec.task.name)
    data = assemble.dataset(spec.dataset, task)
    store, watch, count, threat_model = Run(part.folder), trust.Watch(), 0, parse(spec.threat_model)
    todo = (batch.to(device) for batch in batches(data, part.batch_size, indices=part.indices))
    with telling_of_the_device(part.batch_size), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        victim = load_victim(spec, task, data, device)
        objective = spec.attack.objective if spec.perturbation is None else "task"  # a move that was learned before raises nothing here
        surrogates = load_surrogates(spec, task, data, device)
        for seen in surrogates or (victim,):
            require_known(objective, seen)
        searched = [engine.prepared(seen, data[part.indices[0]].image.to(device), spec.precision) for seen in surrogates or (victim,)]
        everyone = torch.nn.ModuleList(dict.fromkeys([victim, *surrogates, *(one.victim for one in searched)]))
        before = trust.state_digest(everyone.state_dict())
        fit = partial(fit_split, spec, task, data)
        attack, guide = learning.ready(spec, part.folder, fit, victim), learning.guide(spec, fit)
        question = Question(task, victim, attack, threat_model, objective, spec.seed, guide)
        if surrogates:
            question = replace(question, surrogates=tuple(one.victim for one in searched))
        elif searched[0].victim is not victim:
            question = replace(question, searched=searched[0].victim)
        for judged in evaluate(question, todo, watch=watch):
            pictures.save(judged, task, classes=classes_of(spec, data), folder=part.folder / "pictures", ids=part.pictured)
            if not part.again:
                store.append(judged.rows)  # last: an image with a row is never looked at again
            count += len(judged.rows)
            if tell is not None:
                tell(count)
            if stopping():
                break
    flags = [*watch.flags(), *trust.changed_victim(before, trust.state_digest(everyone.state_dict()))]
    return Done(flags, [one.told for one in searched])


@contextmanager
def telling_of_the_device(batch_size: int) -> Iterator[None]:
    """Turn a device that ran out of memory into an error that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunFailed(
            f"the device's memory does not hold a batch of {batch_size}", hint=f"try --batch-size {max(1, batch_size // 2)}"
        ) from error


def _plugins(spec: Spec) -> set[str]:
    backbones = [spec.backbone, *(one.backbone for one in spec.surrogates)]
    return {spec.task.plugin, spec.attack.plugin, *(backbone.plugin for backbone in backbones if backbone is not None)}


def _require_same_data(store: Run, prints: Mapping[str, str]) -> None:
    """Before anything of the run is written, or the next call would find this data set's fingerprint beside the other's rows.

    Raises:
        SslrobError: the run was begun on other images or annotations, or with other ones to learn from.
    """
    before = store.record().get("provenance", {}) if store.record_path.exists() and store.count() else {}
    for kind, now in prints.items():
        if (earlier := before.get(kind, now)) != now:
            told = "the data set" if kind == "dataset" else "the data set's fit split"
            raise SslrobError(
                f"{told} is not what it was when {str(store.folder)!r} was begun (fingerprint {earlier}, now {now})",
                hint="restore the data, or choose another --runs folder",
            )


def _off(spec: Spec, data: Dataset, results: dict[str, Any]) -> list[trust.Flag]:
    """A clean metric other than the zoo's can be told on the whole split only."""
    if results["images"] < len(data):
        return []
    return trust.clean_metric_off(spec.clean, {name: metric["value"] for name, metric in results["clean"].items()}, spec.published)


def classes_of(spec: Spec, data: Dataset) -> tuple[str, ...]:
    """The class names: the zoo's, else the data's own."""
    return spec.dataset.classes or tuple(getattr(data, "classes", ()))
