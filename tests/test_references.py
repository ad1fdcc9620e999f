"""Backbones that no zoo file names: references, random weights, a file in the place of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sslrob import builtin, hookimpl, zoo
from sslrob.errors import SslrobError
from sslrob.layout import Layout
from sslrob.plugins import Plugins
from sslrob.references import chosen, file_of, file_safe, split
from sslrob.resolve import Words, resolve
from sslrob.spec import Spec
from sslrob.testing.toy_victims import ToyBackbone
from sslrob.zoo import Weights, Zoo

SUM = "0" * 64


class Own(Layout):
    pass


class Toy:
    @hookimpl
    def register_backbones(self, register):
        register("toy", ToyBackbone)

    @hookimpl
    def register_layouts(self, register):
        register("own", Own)

    @hookimpl
    def resolve_reference(self, kind, text):
        bare, given = split(text)
        scheme, _, rest = bare.partition(":")
        if kind != "backbone" or scheme not in ("toys", "file", "hub"):
            return None
        path = file_of(bare) if scheme == "file" else Path(rest)
        weights = None if rest == "bare" else Weights(file=path, sha256=SUM, layout="own")
        return zoo.Backbone(use="toy", settings={"levels": 2, **given}, weights=weights, license="MIT", notes=f"{bare} is a toy")


@pytest.fixture
def plugins():
    found = Plugins()
    found.add(builtin, "sslrob 1")
    found.add(Toy(), "sslrob-toy 1")
    return found


def record(**more):
    return zoo.Backbone(**{"use": "toy", "license": "MIT", "weights": Weights(file=Path("w.safetensors"), sha256=SUM), **more})


def head(backbone, **more):
    own = Weights(file=Path("h.safetensors"), sha256=SUM)
    return zoo.Head(backbone=backbone, dataset="shades", kind="linear", protocol="linear", weights=own, **more)


SHADES = zoo.Dataset(task="classification", format="imagefolder", path=Path("x"), threat_model="linf:1/255", license="MIT", default=True)
HERE = Zoo(
    backbones={
        "swav-200": record(family="swav", settings={"levels": 3}, seed=3, reported={"top1": 70}),
        "swav-800": record(family="swav", default=True, settings={"levels": 4}),
    },
    datasets={"shades": SHADES},
    heads={
        "one": head("toys:x"),
        "two": head("swav-800+random"),
        "three": head("swav-200"),
        "four": head("toys:x?levels=3"),
        "five": head("toys:bare+random", body={"levels": 1}),
    },
)


def asked(plugins: Plugins, word: str, **more: object) -> Spec:
    return resolve(Words(backbone=word, dataset="shades", **more), HERE, plugins)


def test_a_reference_is_a_backbone_for_its_heads(plugins):
    spec = asked(plugins, "toys:x")
    assert (spec.backbone.id, spec.head.id, spec.backbone.settings) == ("toys:x", "one", {"levels": 2})
    assert spec.sentence().startswith("toys:x · shades")
    assert spec.notes == ["toys:x is a toy"]
    assert spec.name.startswith("x-shades-pgd-")


def test_settings_of_a_reference(plugins):
    spec = asked(plugins, "toys:x?levels=3")
    assert (spec.head.id, spec.backbone.settings) == ("four", {"levels": 3})


def test_what_is_told_changes_no_id(plugins):
    spec = asked(plugins, "toys:x")
    silent = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"notes": ""})})
    assert silent.id == spec.id
    assert Spec.model_validate_json(silent.model_dump_json()).id == spec.id


@pytest.mark.parametrize(
    "words", [{"word": "swav-800+random"}, {"word": "swav-800", "weights": "random"}, {"word": "swav", "weights": "random"}]
)
def test_random_weights_instead_of_its_own(plugins, words):
    spec = asked(plugins, **words)
    assert (spec.backbone.id, spec.backbone.weights, spec.backbone.seed) == ("swav-800+random", None, 0)
    assert (spec.backbone.settings, spec.head.id) == ({"levels": 4}, "two")


def test_random_weights_tell_nothing_of_the_trained_ones(plugins):
    name, found = chosen(HERE, plugins, "swav-200", "shades", "random")
    bare = found.backbones[name]
    assert (name, bare.seed, bare.reported, bare.family) == ("swav-200+random", 3, {}, None)
    assert found.families() == {"swav": ["swav-800", "swav-200"]}


def test_the_head_says_how_it_reads_its_backbone(plugins):
    assert asked(plugins, "toys:bare", weights="random").backbone.settings == {"levels": 1}


def test_a_setting_of_the_head_that_the_backbone_does_not_have(plugins):
    wrong = {**HERE.heads, "one": head("toys:x", body={"level": 1})}
    with pytest.raises(SslrobError, match=r"no setting 'level', which heads\.one gives it") as caught:
        resolve(Words(backbone="toys:x", dataset="shades"), zoo.Zoo(HERE.backbones, HERE.datasets, wrong), plugins)
    assert caught.value.hint == "did you mean 'levels'?"


def test_a_file_instead_of_its_own_weights(plugins, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save({}, path)
    name, found = chosen(HERE, plugins, "swav", "shades", path)
    mine = found.backbones[name]
    assert name == f"file:{path}?as=swav-800"
    assert (mine.settings, mine.weights.file, mine.weights.layout) == ({"levels": 4}, path, "own")
    assert chosen(HERE, plugins, name, "shades") == (name, found)
    assert "the architecture of swav-800" in mine.notes


def test_a_path_with_marks_of_its_own(plugins, tmp_path):
    path = tmp_path / "a?b%3F&c=1%.pth"
    torch.save({}, path)
    name, found = chosen(HERE, plugins, "swav", "shades", path)
    assert found.backbones[name].weights.file == path
    assert chosen(HERE, plugins, name, "shades") == (name, found)
    assert chosen(HERE, plugins, f"{name}+random", "shades")[0] == f"{name}+random"


def test_a_file_is_known_by_its_whole_path(plugins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {chosen(HERE, plugins, word, "shades")[0] for word in ("file:w.pth?levels=1", f"file:{tmp_path}/w.pth?levels=1")}
    assert names == {f"file:{tmp_path}/w.pth?levels=1"}
    (tmp_path / "code").mkdir()
    assert chosen(HERE, plugins, "hub:code:net?levels=1", "shades")[0] == f"hub:{tmp_path}/code:net?levels=1"
    assert chosen(HERE, plugins, "hub:owner/name:net", "shades")[0] == "hub:owner/name:net"


def test_a_file_that_is_not_there(plugins, tmp_path):
    with pytest.raises(SslrobError, match="no weights at"):
        chosen(HERE, plugins, "swav", "shades", tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("word", "says", "hint"),
    [
        ("toyz:x", "no plugin understands 'toyz:'", "install the plugin"),
        ("toys:bare", "there are no weights of 'toys:bare'", "--weights random"),
        ("toys:x?levels", "setting 'levels' of 'toys:x.levels' has no value", "KEY=VALUE"),
        ("toys:x?levels=[1", "cannot be read", "write a number"),
        ("swaw+random", "no backbone is named 'swaw'", "did you mean 'swav'"),
    ],
)
def test_what_no_reference_means(plugins, word, says, hint):
    with pytest.raises(SslrobError, match=says) as caught:
        chosen(HERE, plugins, word, "shades")
    assert hint in caught.value.hint


def test_values_of_settings():
    text = "toys:a/b.pth?mean=0.5,0.4,0.3&std=[1, 1, 1]&readout=cls4&arguments={num_heads: 12}&levels=3"
    assert split(text) == (
        "toys:a/b.pth",
        {"mean": [0.5, 0.4, 0.3], "std": [1, 1, 1], "readout": "cls4", "arguments": {"num_heads": 12}, "levels": 3},
    )


def test_names_for_files():
    assert file_safe("swav-800+random") == "swav-800+random"
    assert file_safe("timm:resnet50.a1_in1k") == "timm-resnet50.a1_in1k"
    assert file_safe("timm:resnet50.a1_in1k+random") == "timm-resnet50.a1_in1k+random"
    words = [
        "hf:timm/resnet50",
        "hf:other/resnet50",
        "file:/a/My net.pth",
        "file:/b/My net.pth",
        "timm:x?readout=cls",
        "timm:x?readout=mean",
        "Tim/m:x",
        "../tim-m:x",
        "tim-m:x",
    ]
    names = [file_safe(word) for word in words]
    assert len({*names}) == len(words)
    for name in names:
        zoo.ZooFile.model_validate({"schema": 1, "backbones": {name: {"use": "toy", "license": "MIT"}}})
