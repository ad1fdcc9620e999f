"""`python -m sslrob_mini.heads`: the heads that ship with the embedded collection, each by a recipe of the zoo.

Those of the recipes in LONG learn from more images than the wheel holds:
`python -m sslrob_mini.build --fashion DIR --photos DIR --out POOL --train-crops 6000 --train-scenes 4000`.

Those of the recipes in RECORDED do not ship, for want of room: with --recorded they are trained into your own part of the zoo, as
`sslrob train` does, and their clean metrics are recorded.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sslrob import own, zoo_files
from sslrob.errors import SslrobError
from sslrob.plugins import installed
from sslrob.recipes import made, plan
from sslrob.zoo import Backbone, Head, Zoo

OUT = Path(__file__).parent / "weights" / "heads"
TRANSFER = "mini-letters"
FROZEN = ("linear", "knn", "fcn", "fcos")
LONG = {"mini-supervised": ("fcn-long", "fcos-long")}  # only with --pool
SHOWN_OFF = {"mini-supervised": ("upernet",)}  # another kind of head, on one backbone; a Faster R-CNN would take the wheel past 30 MB
RECORDED = ("finetuned", "fcn-finetuned", "fcos-finetuned")
RECORDED_TOO = ("upernet", "upernet-finetuned", "faster-rcnn", "faster-rcnn-finetuned")  # not of hardened backbones
FIRST = (("linear",), ("fcn-long", "fcn"), ("fcos-long", "fcos"))  # of a task, where a backbone has several heads on a data set


class Shipped(NamedTuple):
    """A head of the collection; the data set is the usual one of its task unless it is named."""

    backbone: str
    recipe: str
    dataset: str | None = None


def shipped(zoo: Zoo) -> dict[str, Shipped]:
    """The collection's heads by name, for the backbones of the collection that are in the zoo."""
    return _named(zoo, [head for name, record in _collection(zoo) for head in _of(name, record)])


def recorded(zoo: Zoo) -> dict[str, Shipped]:
    """The heads by name that do not ship and whose clean metrics do."""
    there = shipped(zoo)
    heads = [head for name, record in _collection(zoo) for head in _besides(name, record)]
    return {name: head for name, head in _named(zoo, heads).items() if name not in there}


def _collection(zoo: Zoo) -> list[tuple[str, Backbone]]:
    """The backbones of the collection."""
    home = Path(__file__).parent.resolve()
    return [(name, record) for name, record in zoo.backbones.items() if zoo.origins["backbones", name].is_relative_to(home)]


def _named(zoo: Zoo, heads: list[Shipped]) -> dict[str, Shipped]:
    plugins = installed()
    return {plan(zoo, plugins, *head).name: head for head in heads}


def _besides(name: str, record: Backbone) -> list[Shipped]:
    """The heads of one backbone that do not ship: of methods, and of hardened ones."""
    if record.pretraining is None or (record.family is None and record.hardening is None):
        return []
    recipes = RECORDED if record.hardening is not None else RECORDED + RECORDED_TOO
    return [*(Shipped(name, recipe) for recipe in recipes), Shipped(name, "finetuned", TRANSFER)]


def _of(name: str, record: Backbone) -> list[Shipped]:
    """The heads of one backbone: all of them for a method, few for the variant of a method; a hardened one has come with its own."""
    if record.hardening is not None:
        return []
    if record.pretraining is None:  # random weights
        return [*(Shipped(name, recipe) for recipe in FROZEN), Shipped(name, "linear", TRANSFER)]
    if record.family is None:
        return [Shipped(name, "linear"), Shipped(name, "knn")]
    recipes = (*FROZEN, *LONG.get(name, ()), *SHOWN_OFF.get(name, ()))
    return [*(Shipped(name, recipe) for recipe in recipes), Shipped(name, "linear", TRANSFER)]


def record(out: Path, name: str, head: Head, first: bool) -> Path:
    """Write a head into `OUT/heads.yaml`; several processes may at once."""

    def put(content: dict[str, dict[str, Any]]) -> None:
        heads = content.setdefault("heads", {})
        if first:
            for other in heads.values():
                if (other["backbone"], other["dataset"]) == (head.backbone, head.dataset):
                    other.pop("default", None)
        heads |= own.plain({name: head.model_copy(update={"default": first})}, out)

    return own.change(out / "heads.yaml", put)


def prune(out: Path, names: set[str]) -> list[str]:
    """Remove from `OUT` heads of other names, unfinished ones and locks; returns what was removed.  Nothing else may be at work there."""
    gone: list[str] = []

    def keep(content: dict[str, dict[str, Any]]) -> None:
        heads = content.get("heads", {})
        gone.extend(name for name in heads if name not in names)
        content["heads"] = {name: head for name, head in heads.items() if name in names}

    own.change(out / "heads.yaml", keep)
    kept = {f"{name}.safetensors" for name in names} | {"heads.yaml"}
    for file in sorted(file for file in out.iterdir() if file.name not in kept):
        file.unlink()
        gone.append(file.name)
    return gone


def enlarged(zoo: Zoo, pool: Path) -> Zoo:
    """The zoo with the fit splits of the collection's data sets replaced by those of a pool."""
    data = OUT.parents[1] / "data"
    datasets = {
        name: record.model_copy(update={"fit": record.fit.model_copy(update={"path": pool / record.fit.path.relative_to(data)})})
        for name, record in zoo.datasets.items()
        if record.fit is not None and record.fit.path.is_relative_to(data)
    }
    return replace(zoo, datasets={**zoo.datasets, **datasets})


def is_made(out: Path, name: str, planned: Head) -> bool:
    """Whether `OUT/heads.yaml` has the head, made from the same weights, recipe and data."""
    path = out / "heads.yaml"
    there = zoo_files.read(path).records.heads.get(name) if path.exists() else None
    return there is not None and there.made_from == planned.made_from


def measured(zoo: Zoo, wanted: Shipped) -> Head:
    """The record of a head that does not ship, which is trained into the user's own part of the zoo if it is not there."""
    planned = plan(zoo, installed(), *wanted)
    head = made(planned, zoo)
    if head is None:
        from sslrob.fitting import fit_head

        folder = own.folder(planned.name)
        _, head = fit_head(zoo, *wanted, out=folder)
        own.write(planned.name, {"heads": {planned.name: head}})
    return head.model_copy(update={"weights": None})


def is_first(name: str, heads: dict[str, Shipped]) -> bool:
    """Whether a head is the first choice of its backbone on its data set."""
    mine = heads[name]
    rivals = [head.recipe for head in heads.values() if (head.backbone, head.dataset) == (mine.backbone, mine.dataset)]
    return any(mine.recipe == next((recipe for recipe in of_task if recipe in rivals), None) for of_task in FIRST)


def main(arguments: list[str] | None = None) -> int:
    """Exit status of the command: 0, or 2 with the error told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sslrob_mini.heads", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="heads, or backbones, which mean all of theirs; default: all")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="where weights and heads.yaml are written; default: the package"
    )
    parser.add_argument(
        "--pool", type=Path, metavar="DIR", help="what sslrob_mini.build wrote; makes the heads of long recipes, and no others"
    )
    parser.add_argument(
        "--recorded", action="store_true", help="the heads that do not ship: train those that your own zoo lacks, and record them all"
    )
    parser.add_argument("--list", action="store_true", help="print the names, and which are there, and make nothing")
    parser.add_argument("--again", action="store_true", help="also those that are there, made from the same weights, recipe and data")
    parser.add_argument("--prune", action="store_true", help="remove what is in DIR and is not, or no longer, one of these heads")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except SslrobError as error:
        print(f"error: {error}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    zoo, plugins, out = zoo_files.load(), installed(), options.out.resolve()
    if options.prune:
        print("\n".join(prune(out, {*shipped(zoo), *recorded(zoo)})))
        return 0
    heads = recorded(zoo) if options.recorded else shipped(zoo)
    long = {name for name, head in heads.items() if head.recipe in LONG.get(head.backbone, ())}
    if options.pool is not None:
        zoo = enlarged(zoo, options.pool.resolve())
    asked = [name for name, head in heads.items() if not options.names or {name, head.backbone} & set(options.names)]
    chosen = asked if options.list else [name for name in asked if (name in long) == (options.pool is not None)]
    strangers = set(options.names) - set(heads) - {head.backbone for head in heads.values()}
    if strangers:
        raise SslrobError(f"no head or backbone of the collection is named {min(strangers)!r}", hint="python -m sslrob_mini.heads --list")
    for name in chosen:
        done = is_made(out, name, plan(zoo, plugins, *heads[name]).head)
        if options.list:
            print(f"{name}{'  there' if done else ''}")
        elif options.again or not done:
            from sslrob.fitting import fit_head

            began = time.process_time()
            head = measured(zoo, heads[name]) if options.recorded else fit_head(zoo, *heads[name], out=out)[1]
            if name in long:
                head = head.model_copy(update={"recipe": f"python -m sslrob_mini.heads --pool POOL {name}"})
            record(out, name, head, not options.recorded and is_first(name, heads))
            told = {"name": name, "clean": head.clean, "cpu_seconds": round(time.process_time() - began)}
            print(json.dumps(told), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
