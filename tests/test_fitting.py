"""Heads by a recipe: each protocol makes what it says, the same every time, also after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sslrob import hookimpl, zoo
from sslrob.data import Sample
from sslrob.errors import SslrobError
from sslrob.fitting import Kept, fit_head, shuffled
from sslrob.plugins import Plugins, installed
from sslrob.recipes import made, plan, usual_recipe
from sslrob.testing.toy_victims import ToyBackbone
from sslrob.zoo import Backbone, Dataset, FitSplit, Recipe, Zoo

SCHEDULE = {"epochs": 3, "learning_rate": 0.05, "warmup": 0}


class Toy:
    @hookimpl
    def register_backbones(self, register):
        register("toy", ToyBackbone)


def draw(folder: Path, count: int) -> None:
    """Images of two classes, reddish and bluish, that no single pixel tells apart."""
    generator = np.random.default_rng(count)
    for shift, name in enumerate(("bluish", "reddish")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(60, 180, (8, 8, 3))
            pixels[..., 0] += 20 * shift
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    found = Plugins().load()
    found.add(Toy(), "sslrob-toy 1.0")
    return found


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Zoo:
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("test", 10)):
        draw(root / split, count)
    shades = Dataset(
        task="classification",
        format="imagefolder",
        path=root / "test",
        classes=("bluish", "reddish"),
        threat_model="linf:1/255",
        default=True,
        fit=FitSplit(path=root / "train"),
        license="MIT",
    )
    recipes = {
        "linear": Recipe(task="classification", kind="linear", protocol="linear", default=True),
        "by-steps": Recipe(task="classification", kind="linear", protocol="frozen", schedule=SCHEDULE, batch_size=5),
        "finetuned": Recipe(task="classification", kind="linear", protocol="finetuned", schedule=SCHEDULE, batch_size=5),
        "knn": Recipe(task="classification", kind="knn", protocol="knn"),
        "boxes": Recipe(task="detection", kind="fcos", protocol="frozen", schedule=SCHEDULE),
    }
    other = shades.model_copy(update={"default": False})
    return Zoo(backbones={"toy-1": Backbone(use="toy", license="MIT")}, datasets={"shades": shades, "others": other}, recipes=recipes)


def visible(folder: Path) -> list[Path]:
    """What is in a folder but for locks."""
    return [file for file in folder.iterdir() if not file.name.startswith(".")]


@pytest.mark.parametrize("recipe", ["linear", "by-steps", "finetuned", "knn"])
def test_a_protocol_trains_what_it_says_and_measures_it(recipe, everything, plugins, tmp_path):
    name, head = fit_head(everything, "toy-1", recipe, out=tmp_path, device="cpu", plugins=plugins)
    assert name == f"toy-1-{recipe}"
    assert (head.backbone, head.dataset, head.protocol) == ("toy-1", "shades", everything.recipes[recipe].protocol)
    assert head.recipe == f"sslrob train --backbone toy-1 --recipe {recipe}"
    assert head.clean["top1"] >= 90
    if recipe == "knn":
        assert head.weights is None
        assert not visible(tmp_path)
        return
    assert [file.name for file in visible(tmp_path)] == [f"{name}.safetensors"], "nothing is left of the way there"
    assert head.weights.file == tmp_path / f"{name}.safetensors"
    names = {key.removesuffix("::scale") for key in load_file(head.weights.file)}
    trained = {"head.weight", "head.bias"} | ({"body.mean", "body.mix.weight"} if recipe == "finetuned" else set())
    assert names == trained


def test_the_same_call_makes_the_same_head_and_leaves_the_generator_alone(everything, plugins, tmp_path):
    state = torch.random.get_rng_state()
    first, second = (fit_head(everything, "toy-1", "finetuned", out=tmp_path / n, device="cpu", plugins=plugins)[1] for n in "ab")
    assert first.weights.sha256 == second.weights.sha256
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_killed_fit_goes_on_and_ends_the_same(everything, plugins, tmp_path):
    def killed(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    _, whole = fit_head(everything, "toy-1", "finetuned", out=tmp_path / "whole", device="cpu", plugins=plugins)
    out, seen = tmp_path / "killed", []
    with pytest.raises(KeyboardInterrupt):
        fit_head(everything, "toy-1", "finetuned", out=out, device="cpu", plugins=plugins, log=killed)
    assert [file.suffix for file in visible(out)] == [".pt"], "the head is not there before it is whole"
    _, resumed = fit_head(everything, "toy-1", "finetuned", out=out, device="cpu", plugins=plugins, log=seen.append)
    assert [row["epoch"] for row in seen] == [2, 3]
    assert resumed.weights.sha256 == whole.weights.sha256


def test_progress_counts_every_step(everything, plugins, tmp_path):
    seen = []
    fit_head(everything, "toy-1", "by-steps", out=tmp_path, device="cpu", plugins=plugins, progress=lambda *step: seen.append(step))
    assert seen == [(step, 12) for step in range(1, 13)]  # 24 images: four batches of five, three times


def test_what_it_is_made_from_says_whether_a_head_is_still_right(everything, plugins):
    planned = plan(everything, plugins, "toy-1", "finetuned")
    kept = planned.head.model_copy(update={"clean": {"top1": 90.0}})
    assert made(planned, everything) is None
    assert made(planned, replace(everything, heads={planned.name: kept})) == kept
    reseeded = replace(everything, backbones={"toy-1": Backbone(use="toy", license="MIT", seed=1)}, heads={planned.name: kept})
    assert made(plan(reseeded, plugins, "toy-1", "finetuned"), reseeded) is None
    relicensed = replace(everything, backbones={"toy-1": Backbone(use="toy", license="BSD")}, heads={planned.name: kept})
    assert made(plan(relicensed, plugins, "toy-1", "finetuned"), relicensed) == kept


def test_another_data_set_is_in_the_name_and_the_command(everything, plugins):
    planned = plan(everything, plugins, "toy-1", "linear", "others")
    assert planned.name == "toy-1-linear-others"
    assert planned.head.recipe == "sslrob train --backbone toy-1 --recipe linear --dataset others"


def test_a_protocol_alone_means_the_usual_recipe(everything, plugins):
    task = plugins.find("task", "classification")
    assert usual_recipe(task, "linear", everything) == "linear"
    assert usual_recipe(task, "finetuned", everything) == "finetuned"
    twice = replace(everything, recipes={**everything.recipes, "quick": everything.recipes["finetuned"]})
    with pytest.raises(SslrobError, match="2 recipes for 'classification' are finetuned, and none is the default") as refused:
        usual_recipe(task, "finetuned", twice)
    assert refused.value.hint == "add --recipe finetuned or quick"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": {"shades": {"fit": None}}}, "dataset 'shades' has no fit split"),
        ({"datasets": {"shades": {"task": "counting"}, "others": {"task": "counting"}}}, "no dataset in the zoo is for task"),
        ({"recipes": {"linear": {"kind": "quadratic"}}}, "no classification head is named 'quadratic'"),
        ({"recipes": {"linear": {"protocol": "frozen"}}}, "a recipe without a schedule can only solve linear classifiers"),
        (
            {"recipes": {"linear": {"schedule": {**SCHEDULE, "epoch": 3}}}},
            "the schedule of the recipe for head 'toy-1-linear' has no setting 'epoch'",
        ),
        ({"recipes": {"linear": {"schedule": {**SCHEDULE, "train": "all"}}}}, "protocol 'linear' does not train 'all'"),
    ],
)
def test_what_does_not_fit_is_told(change, message, everything, plugins, tmp_path):
    changed = {
        section: {
            **everything.of(section[:-1]),
            **{n: everything.of(section[:-1])[n].model_copy(update=more) for n, more in entries.items()},
        }
        for section, entries in change.items()
    }
    with pytest.raises(SslrobError, match=message):
        fit_head(replace(everything, **changed), "toy-1", "linear", out=tmp_path, device="cpu", plugins=plugins)


def test_a_recipe_is_for_data_of_its_task(everything):
    mini = installed()
    if "detection" not in {component.name for component in mini.of("task")}:
        pytest.skip("no plugin with another task is installed")
    with pytest.raises(SslrobError, match="recipe 'boxes' is for task 'detection', but dataset 'shades' is for 'classification'"):
        plan(everything, mini, "toy-1", "boxes", "shades")


class Memory:
    """Samples in memory that count how often they are read."""

    fingerprint = ""

    def __init__(self, sides: list[int]) -> None:
        self.ids = tuple(map(str, range(len(sides))))
        self.samples = [
            Sample(id, torch.full((3, side, side), n / 100), n) for n, (id, side) in enumerate(zip(self.ids, sides, strict=True))
        ]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        return self.samples[index]


def mirror(sample: Sample) -> Sample:
    return sample._replace(id=f"mirrored {sample.id}")


def test_every_epoch_shuffles_in_its_own_way_and_always_the_same():
    batches = shuffled(Memory([4] * 10), 3, mirror, seed=0)
    first, again, second = ([batch.ids for batch in batches(epoch)] for epoch in (0, 0, 1))
    assert first == again != second
    assert [len(ids) for ids in first] == [3, 3, 3]
    every = [id for epoch in range(40) for batch in batches(epoch) for id in batch.ids]
    assert 0.4 < sum(id.startswith("mirrored") for id in every) / len(every) < 0.6
    assert len({id for ids in first for id in ids}) == 9


def test_images_of_several_shapes_are_batched_with_their_own():
    batches = list(shuffled(Memory([4, 8] * 5), 2, mirror, seed=0)(0))
    assert len(batches) == 4
    assert {tuple(batch.images.shape) for batch in batches} == {(2, 3, 4, 4), (2, 3, 8, 8)}
    with pytest.raises(SslrobError, match="no 2 images of the fit split have the same shape"):
        list(shuffled(Memory([4, 5, 6]), 2, mirror, seed=0)(0))


def test_images_are_read_once_as_long_as_there_is_room():
    memory = Memory([4] * 5)
    kept = Kept(memory, room=3 * memory[0].image.nbytes)
    memory.reads = 0
    for _ in range(2):
        assert [kept[i].target for i in range(len(kept))] == [0, 1, 2, 3, 4]
    assert memory.reads == 5 + 2


def test_the_zoo_of_sslrob_has_recipes_for_classification(plugins):
    from sslrob import zoo_files

    ours: Zoo = zoo_files.merge([zoo_files.read(zoo_files.first_party())])
    task = plugins.find("task", "classification")
    protocols: tuple[zoo.Protocol, ...] = ("linear", "knn", "finetuned")
    assert [usual_recipe(task, protocol, ours) for protocol in protocols] == ["linear", "knn", "finetuned"]
