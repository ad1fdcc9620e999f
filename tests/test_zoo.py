from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent, indent

import pytest
import yaml

from sslrob import hookimpl, yaml_file, zoo, zoo_files
from sslrob.errors import SslrobError
from sslrob.plugins import Plugins
from sslrob.records import unset
from sslrob.zoo import Zoo

COLLECTION = """
schema: 1
backbones:
  mini-swav:
    use: mini-resnet
    family: swav
    weights: {file: weights/swav.safetensors, format: safetensors}
    license: MIT
datasets:
  scenes:
    task: detection
    format: coco
    path: data/scenes
    threat_model: linf:0.5/255
    license: CC0-1.0
heads:
  mini-swav-scenes:
    backbone: mini-swav
    dataset: scenes
    kind: fcos
"""


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSLROB_ZOO", raising=False)
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / "configuration")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    return path


def bringing(*files: Path) -> Plugins:
    """Plugins of which one brings these zoo files."""

    class Plugin:
        @hookimpl
        def zoo_files(self) -> list[Path]:
            return list(files)

    plugins = Plugins()
    plugins.add(Plugin(), "sslrob-theirs 1.0")
    return plugins


def made_elsewhere(found: Zoo) -> set[str]:
    """The heads that are not sslrob's own."""
    return {name for name in found.heads if found.collection("head", name) != zoo.FIRST_PARTY}


def refused(path: Path, text: str) -> SslrobError:
    with pytest.raises(SslrobError) as caught:
        zoo_files.read(write(path, text))
    return caught.value


def test_a_file_becomes_records_with_paths_of_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "zoo.yaml", COLLECTION)
    found = zoo_files.load([path], Plugins())
    weights = found.backbones["mini-swav"].weights
    assert weights is not None
    assert weights.file == tmp_path / "weights" / "swav.safetensors"
    assert found.datasets["scenes"].path == tmp_path / "data" / "scenes"
    assert found.datasets["scenes"].threat_model == "linf:0.5/255"
    assert found.origins["heads", "mini-swav-scenes"] == path
    assert found.get("head", "mini-swav-scenes").kind == "fcos"


def test_home_and_absolute_paths_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    text = COLLECTION.replace("data/scenes", "~/scenes").replace("weights/swav.safetensors", str(tmp_path / "w.safetensors"))
    records = zoo_files.read(write(tmp_path / "zoo.yaml", text)).records
    assert records.datasets["scenes"].path == tmp_path / "home" / "scenes"
    assert records.backbones["mini-swav"].weights is not None
    assert records.backbones["mini-swav"].weights.file == tmp_path / "w.safetensors"


def test_records_do_not_change(tmp_path: Path) -> None:
    record = zoo.Victim(task="detection", reference="mmdet:fcos.py", settings={})
    with pytest.raises(ValueError, match="frozen"):
        record.task = "segmentation"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "line", "message", "hint"),
    [
        ("attacks:\n  a: {use: pgd}\n  b: {use: pgd}\n  a: {use: fgsm}", 5, "'a' is given twice, first in line 3", "remove one"),
        ("attacks:\n  a:\n    use: pgd\n    use: fgsm", 5, "'use' is given twice, first in line 4", "remove one"),
        ("attacks:\n  a: {use: pgd, settings: {steps: 1, steps: 2}}", 3, "'steps' is given twice", "remove one"),
        ("attacks:\n  a: [unclosed\n  b: 1", 4, "not valid YAML", "mend"),
        ("attacks:\n\ta: 1", 3, "not valid YAML", "mend"),
        ("attacks:\n  a: !!python/object/apply:os.system [true]", 3, "not valid YAML", "mend"),
        ("attacks:\n  a: &again\n    use: *again", 3, "contains itself", "remove the alias"),
        ("attacks:\n  [a, b]: 1", 3, "this key is not a word", "plain words"),
        ("atacks:\n  a: {use: pgd}", 2, "atacks: unknown key 'atacks'", "did you mean 'attacks'?"),
        ("attacks:\n  a:\n    use: pgd\n    objektive: task", 5, "attacks.a.objektive: unknown key", "did you mean 'objective'?"),
        ("attacks:\n  settings:\n    use: pgd\n    restart: 2", 5, "attacks.settings.restart: unknown key", "did you mean 'restarts'?"),
        ("attacks:\n  a:\n    restarts: 2", 3, "attacks.a has no 'use'", "add use: ..."),
        ("attacks:\n  a:\n    use: pgd\n    restarts: none", 5, "attacks.a.restarts: input should be a valid integer", "zoo schema"),
        (
            "attacks:\n  a:\n    use: pgd\n    restarts: 0",
            5,
            "attacks.a.restarts: input should be greater than or equal to 1, got 0",
            "schema",
        ),
        ("attacks:\n  a: pgd", 3, "attacks.a is not a mapping of keys to values, got 'pgd'", "zoo schema"),
        ("attacks: [pgd]", 2, "attacks is not a mapping", "zoo schema"),
        ("attacks:\n  Big Name: {use: pgd}", 3, "attacks: 'Big Name' is not a valid name", "lower case"),
        ("attacks:\n  a: {use: pgd, settings: {since: 2024-01-01}}", 3, "attacks.a.settings.since", "zoo schema"),
        ("attacks:\n  a: {use: pgd, settings: {size: .nan}}", 3, "attacks.a.settings.size", "zoo schema"),
        ("schema: 2", 2, "'schema' is given twice", "remove"),
        ("backbones:\n  b:\n    use: r\n    weights: {sha256: 12}\n    license: MIT", 5, "backbones.b.weights", "zoo schema"),
        (
            "backbones:\n  b:\n    use: r\n    license: MIT\n    weights:\n      url: https://x.org/w.pth",
            6,
            "has a source elsewhere but no sha256",
            "add the sha256",
        ),
        (
            "backbones:\n  b:\n    use: r\n    license: MIT\n    weights:\n      prefix: x",
            7,
            "unknown key 'prefix'",
            "did you mean 'drop_prefix'?",
        ),
        ("backbones:\n  b:\n    use: r\n    license: MIT\n    weights: {format: torch}", 6, "needs either file, url or hf", "give one"),
        (
            "backbones:\n  b:\n    use: r\n    license: MIT\n    weights: {file: w.bin, layout: swav, format: torch}",
            6,
            "has both layout and format",
            "leave format out",
        ),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, wrong: str, line: int, message: str, hint: str) -> None:
    error = refused(tmp_path / "zoo.yaml", "schema: 1\n" + wrong)
    assert str(error).startswith(f"{tmp_path / 'zoo.yaml'}:{line}: ")
    assert message in str(error)
    assert hint in error.hint


def test_a_threat_model_off_the_scale_is_told_with_its_line(tmp_path: Path) -> None:
    error = refused(tmp_path / "zoo.yaml", COLLECTION.replace("linf:0.5/255", "linf:4"))
    assert str(error).startswith(
        f"{tmp_path / 'zoo.yaml'}:13: datasets.scenes.threat_model: epsilon 4 of 'linf:4' is not on the [0, 1] scale"
    )
    assert error.hint == "did you mean linf:4/255?"


def test_further_mistakes_are_in_the_note(tmp_path: Path) -> None:
    error = refused(tmp_path / "zoo.yaml", "schema: 1\nattacks:\n  a: {use: pgd, x: 1}\n  b: {}\n")
    assert ":3: attacks.a.x" in str(error)
    assert error.note.startswith("1 more: ")
    assert ":4: attacks.b has no 'use'" in error.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file has no 'schema'"),
        ("# nothing\n", "the file has no 'schema'"),
        ("schema: 2\n", ":1: schema: input should be 1, got 2"),
        ("- a\n- b\n", "the file is not a mapping of keys to values, got ['a', 'b']"),
        ("just words\n", "the file is not a mapping"),
    ],
)
def test_files_that_are_no_zoo(tmp_path: Path, text: str, message: str) -> None:
    assert message in str(refused(tmp_path / "zoo.yaml", text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SslrobError, match=r"cannot read .*absent.yaml': no such file or directory"):
        zoo_files.read(tmp_path / "absent.yaml")
    with pytest.raises(SslrobError, match=r"cannot read .*is a directory"):
        zoo_files.read(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00schema")
    with pytest.raises(SslrobError, match=r"cannot read .*binary.yaml"):
        zoo_files.read(tmp_path / "binary.yaml")


def test_aliases_are_welcome_and_cheap(tmp_path: Path) -> None:
    levels = "\n".join(f"    l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 2) if i else 1}]" for i in range(60))
    path = write(tmp_path / "zoo.yaml", "x: &settings {steps: 5}\nschema: 1\n")
    with pytest.raises(SslrobError, match="unknown key 'x'"):
        zoo_files.read(path)
    started = time.perf_counter()
    with pytest.raises(SslrobError):
        zoo_files.read(write(path, f"schema: 1\nmore:\n{levels}\n"))
    assert time.perf_counter() - started < 5


def test_all_that_yaml_can_say_is_read(tmp_path: Path) -> None:
    text = """
    base: &base {a: 1, b: [x, 2.5, true, null, "3"]}
    more: {<<: *base, b: later}
    again: *base
    1: one
    long: >-
      two
      words
    """
    found = yaml_file.read(write(tmp_path / "a.yaml", text)).data
    assert found == yaml.safe_load(dedent(text))
    assert found["more"] == {"a": 1, "b": "later"}
    assert found["again"] is found["base"]


def test_the_same_name_in_two_files_names_both(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "schema: 1\nattacks:\n  mine: {use: pgd}\n")
    second = write(tmp_path / "b.yaml", "schema: 1\n\nattacks:\n  mine: {use: fgsm}\n")
    with pytest.raises(
        SslrobError, match=rf"^{re.escape(str(second))}:4: attack 'mine' is already in {re.escape(str(first))}:3$"
    ) as caught:
        zoo_files.load([first, second], Plugins())
    assert caught.value.hint == "rename one of them"


def test_a_name_of_sslrobs_own_cannot_be_taken(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.yaml", "schema: 1\nattacks:\n  pgd: {use: pgd}\n")
    with pytest.raises(SslrobError, match=r"attack 'pgd' is already in .*zoo.yaml:"):
        zoo_files.load([mine], Plugins())


def test_the_users_files_come_from_everywhere_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["listed", "second", "given", "configured"]
    paths = {name: write(tmp_path / f"{name}.yaml", f"schema: 1\nattacks:\n  {name}: {{use: pgd}}\n") for name in names}
    write(tmp_path / "configuration" / "zoo.yaml", paths["configured"].read_text())
    monkeypatch.setenv("SSLROB_ZOO", zoo_files.os.pathsep.join(["", str(paths["listed"]), str(paths["second"])]))
    found = zoo_files.load([paths["given"], paths["listed"]], Plugins())
    assert set(names) <= set(found.attacks)
    monkeypatch.setenv("SSLROB_ZOO", str(tmp_path / "absent.yaml"))
    with pytest.raises(SslrobError, match=r"absent.yaml"):
        zoo_files.load([], Plugins())


@pytest.mark.parametrize(
    ("change", "line", "message", "hint"),
    [
        (
            ("dataset: scenes", "dataset: scene"),
            18,
            "heads.mini-swav-scenes.dataset: no dataset is named 'scene'",
            "did you mean 'scenes'?",
        ),
        (
            ("backbone: mini-swav", "backbone: other"),
            17,
            "heads.mini-swav-scenes.backbone: no backbone is named 'other'",
            "add 'other' to backbones",
        ),
        (
            (
                "backbones:\n  mini-swav:\n    use: mini-resnet\n    family: swav",
                "backbones:\n  twins: {use: r, license: MIT}\n  mini-swav:\n    use: mini-resnet\n    family: twins",
            ),
            6,
            "backbones.mini-swav.family: 'twins' is also a backbone outside this family",
            "rename",
        ),
        (
            ("datasets:", "  dino: {use: r, license: MIT}\ndatasets:"),
            8,
            "backbones.dino: 'dino' is also a family, that of 'dino-r50' in ",
            "join the family",
        ),
    ],
)
def test_entries_that_do_not_go_together(tmp_path: Path, change: tuple[str, str], line: int, message: str, hint: str) -> None:
    path = write(tmp_path / "zoo.yaml", COLLECTION.replace(*change))
    with pytest.raises(SslrobError) as caught:
        zoo_files.load([path], Plugins())
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_second_defaults(tmp_path: Path) -> None:
    members = COLLECTION.replace("family: swav", "family: swav\n    default: true")
    second = "  swav-2: {use: r, license: MIT, family: swav, default: true}\ndatasets:"
    with pytest.raises(
        SslrobError, match=r"zoo.yaml:9: backbones.swav-2.default: a second default of the family 'swav', after 'mini-swav' in "
    ):
        zoo_files.load([write(tmp_path / "zoo.yaml", members.replace("datasets:", second))], Plugins())
    scenes = COLLECTION.replace("format: coco", "format: coco\n    default: true")
    more = """
    schema: 1
    datasets:
      more: {task: detection, format: coco, path: ., threat_model: "l2:1", license: MIT, default: true}
    """
    a, b = write(tmp_path / "a.yaml", scenes), write(tmp_path / "b.yaml", more)
    with pytest.raises(
        SslrobError, match=r"b.yaml:3: datasets.more.default: a second default of the task 'detection', after 'scenes' in .*a.yaml"
    ):
        zoo_files.load([a, b], Plugins())
    text = COLLECTION.replace("kind: fcos", "kind: fcos\n    default: true")
    heads = "  other: {backbone: mini-swav, dataset: scenes, kind: rcnn, default: true}\n"
    with pytest.raises(SslrobError, match=r"heads.other.default: a second default of the backbone and dataset 'mini-swav' and 'scenes'"):
        zoo_files.load([write(a, text + heads)], Plugins())


def test_a_head_may_be_of_another_files_backbone(tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.yaml", COLLECTION)
    mine = write(tmp_path / "mine.yaml", "schema: 1\nheads:\n  mine: {backbone: mini-swav, dataset: scenes, kind: rcnn}\n")
    found = zoo_files.load([mine], bringing(theirs))
    assert made_elsewhere(found) == {"mini-swav-scenes", "mine"}
    assert not found.broken


def test_a_broken_file_of_a_plugin_is_left_out_and_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.yaml", COLLECTION)
    broken = write(tmp_path / "broken.yaml", "schema: 1\nattacks:\n  a: {}\n")
    clash = write(tmp_path / "clash.yaml", "schema: 1\nattacks:\n  pgd: {use: other}\n")
    dangling = write(tmp_path / "dangling.yaml", "schema: 1\nheads:\n  h: {backbone: nobody, dataset: scenes, kind: fcos}\n")
    dependent = write(tmp_path / "dependent.yaml", "schema: 1\nheads:\n  mine: {backbone: mini-swav, dataset: scenes, kind: x}\n")
    files = [broken, clash, dangling, dependent, tmp_path / "absent.yaml", good]
    found = zoo_files.load([], bringing(*files))
    assert set(found.broken) == {str(broken), str(clash), str(dangling), str(tmp_path / "absent.yaml")}
    assert "attacks.a has no 'use'" in found.broken[str(broken)]
    assert "attack 'pgd' is already in" in found.broken[str(clash)]
    assert made_elsewhere(found) == {"mini-swav-scenes", "mine"}
    assert found.attacks["pgd"].use == "pgd"
    with pytest.raises(SslrobError) as caught:
        found.get("attack", "a")
    assert "broken.yaml" in caught.value.note


def test_a_plugin_that_cannot_say_which_files_it_brings_harms_no_other(tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def zoo_files(self) -> list[Path]:
            raise FileNotFoundError("no data here")

    plugins = bringing(write(tmp_path / "good.yaml", COLLECTION))
    plugins.add(Broken(), "sslrob-broken 0.1")
    assert made_elsewhere(zoo_files.load([], plugins)) == {"mini-swav-scenes"}
    assert plugins.broken == {"sslrob-broken 0.1": "FileNotFoundError: no data here"}
    with pytest.raises(SslrobError, match="no dataset is named 'theirs'") as caught:
        zoo_files.load([], plugins).get("dataset", "theirs")
    assert "sslrob-broken 0.1 (FileNotFoundError: no data here)" in caught.value.note


def test_the_users_broken_file_is_an_error_and_so_is_a_clash_with_a_plugin(tmp_path: Path) -> None:
    theirs = write(tmp_path / "theirs.yaml", COLLECTION)
    with pytest.raises(SslrobError, match=r"mine.yaml:2: "):
        zoo_files.load([write(tmp_path / "mine.yaml", "schema: 1\nattack: {}\n")], bringing(theirs))
    with pytest.raises(SslrobError, match=r"same.yaml:3: backbone 'mini-swav' is already in .*theirs.yaml:3"):
        zoo_files.load([write(tmp_path / "same.yaml", COLLECTION)], bringing(theirs))


def test_families() -> None:
    def backbone(family: str | None, *, default: bool = False) -> zoo.Backbone:
        return zoo.Backbone(use="r", license="MIT", family=family, default=default)

    found = Zoo(backbones={"a": backbone("swav"), "b": backbone("swav", default=True), "dino": backbone("dino"), "alone": backbone(None)})
    assert found.families() == {"swav": ["b", "a"], "dino": ["dino"]}
    assert found.members("swav") == ["b", "a"]
    assert found.members("a") == ["a"]
    assert found.members("dino") == ["dino"]
    with pytest.raises(SslrobError, match="no backbone is named 'swaw'") as caught:
        found.members("swaw")
    assert caught.value.hint == "did you mean 'swav'?"


def collections(*backbones: tuple[str, str, bool], **data: str) -> Zoo:
    """Members of family swav, each with its collection and whether it is a default there, and data sets of collections."""
    files = {home: Path(f"/{home}.yaml") for home in (*(home for _, home, _ in backbones), *data.values())}
    return Zoo(
        backbones={name: zoo.Backbone(use="r", license="MIT", family="swav", default=default) for name, _, default in backbones},
        datasets={
            name: zoo.Dataset(task="classification", format="f", path=Path("/d"), threat_model="linf:1/255", license="MIT") for name in data
        },
        origins={
            **{("backbones", name): files[home] for name, home, _ in backbones},
            **{("datasets", n): files[h] for n, h in data.items()},
        },
        collections={path: home for home, path in files.items()},
    )


PUBLISHED = (("long", zoo.FIRST_PARTY, True), ("short", zoo.FIRST_PARTY, False))


def test_on_a_data_set_a_family_means_the_members_of_its_collection() -> None:
    found = collections(*PUBLISHED, ("tiny", "sslrob-mini", False), imagenet=zoo.FIRST_PARTY, crops="sslrob-mini", photos=zoo.OWN)
    assert found.members("swav") == ["long", "short", "tiny"]
    assert found.members("swav", "imagenet") == ["long", "short"]
    assert found.members("swav", "crops") == ["tiny"]
    assert found.members("swav", "photos") == ["long", "short", "tiny"]  # nobody's in particular, so the published default
    assert found.members("short", "crops") == ["short"]


def test_each_collection_may_have_a_default_of_a_family_and_yours_comes_first() -> None:
    found = collections(*PUBLISHED, ("tiny", "sslrob-mini", True), ("mine", zoo.OWN, True), crops="sslrob-mini")
    assert found.members("swav") == ["mine", "long", "tiny", "short"]
    assert found.members("swav", "crops") == ["tiny"]


def test_a_head_counts_before_the_default_and_the_collection_before_other_heads() -> None:
    from dataclasses import replace

    from sslrob.choice import choose, member

    def heads(*backbones: str) -> dict[str, zoo.Head]:
        return {f"{b}-{data}": zoo.Head(backbone=b, dataset=data, kind="linear") for b in backbones for data in ("crops", "photos")}

    found = collections(*PUBLISHED, ("tiny", "sslrob-mini", False), crops="sslrob-mini", photos=zoo.OWN)
    assert choose("swav", "crops", None, replace(found, heads=heads("tiny", "long"))).backbone == "tiny"
    assert choose("swav", "crops", None, replace(found, heads=heads("short"))).backbone == "short"
    assert choose("swav", "photos", None, replace(found, heads=heads("tiny", "long", "short"))).backbone == "long"
    assert choose("swav", "photos", None, replace(found, heads=heads("tiny"))).backbone == "tiny"
    assert [member("swav", data, found) for data in ("crops", "photos")] == ["tiny", "long"]


def test_an_error_offers_few_of_many_heads_those_of_the_family_first() -> None:
    from sslrob.choice import choose

    with pytest.raises(SslrobError, match="no head of backbone 'barlow-twins-r50-ep1000' on dataset 'imagenet'") as caught:
        choose("barlow-twins-r50-ep1000", "imagenet", None, zoo_files.load([], Plugins()))
    assert caught.value.hint == "train one: sslrob train --backbone barlow-twins-r50-ep1000 --recipe linear --dataset imagenet"
    assert caught.value.note.startswith("or choose --backbone barlow-twins-r50-lightly-ep100 or barlow-twins-r50-mm-ep300 or ")
    assert caught.value.note.endswith(" others (sslrob zoo list heads)")
    assert len(caught.value.note) < 300


def test_a_second_default_is_one_too_many_in_a_collection_only(tmp_path: Path) -> None:
    text = "schema: 1\nbackbones:\n  {}: {{use: r, license: MIT, family: swav, default: true}}\n"
    mine, theirs = write(tmp_path / "mine.yaml", text.format("mine")), write(tmp_path / "theirs.yaml", text.format("theirs"))
    assert zoo_files.load([mine], bringing(theirs)).members("swav")[:3] == ["mine", "swav-r50-ep800", "theirs"]
    with pytest.raises(SslrobError, match="a second default of the family 'swav', after 'mine'"):
        zoo_files.load([mine, theirs], Plugins())


def test_addresses_can_be_mirrored_as_a_whole(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine.yaml", 'schema: 1\nmirrors: {"https://dl.fbaipublicfiles.com/": "http://here/"}\n')
    found = zoo_files.load([mine], Plugins())
    weights, head = found.backbones["dino-r50"].weights, found.heads["dino-r50-imagenet"].weights
    assert weights is not None
    assert head is not None
    assert weights.url is not None
    assert weights.url.startswith("https://dl.fbaipublicfiles.com/")
    assert weights.mirrors == ("http://here/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",)
    assert head.mirrors == ("http://here/dino/dino_resnet50_pretrain/dino_resnet50_linearweights.pth",)
    byol = found.backbones["byol-r50-ep1000"].weights
    assert byol is not None
    assert byol.mirrors == ()


def test_heads_of_references_are_welcome(tmp_path: Path) -> None:
    text = COLLECTION.replace("backbone: mini-swav", "backbone: timm:resnet50.a1_in1k\n    body: {readout: mean}")
    head = zoo_files.load([write(tmp_path / "zoo.yaml", text)], Plugins()).heads["mini-swav-scenes"]
    assert head.backbone == "timm:resnet50.a1_in1k"
    body = head.reads(zoo.Backbone(use="timm", settings={"model": "x", "readout": ""}, license="MIT"))
    assert body.settings == {"model": "x", "readout": "mean"}


def test_paths_may_begin_with_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "zoo.yaml", COLLECTION.replace("data/scenes", "$DATA_HERE/scenes"))
    monkeypatch.delenv("DATA_HERE", raising=False)
    found = zoo_files.load([path], Plugins()).datasets["scenes"]
    assert (str(found.path), unset(found.path)) == ("$DATA_HERE/scenes", "DATA_HERE")
    monkeypatch.setenv("DATA_HERE", "/data")
    assert zoo_files.load([path], Plugins()).datasets["scenes"].path == Path("/data/scenes")
    monkeypatch.setenv("DATA_HERE", "data")
    assert zoo_files.load([path], Plugins()).datasets["scenes"].path == tmp_path / "data" / "scenes"


def test_the_first_party_zoo_is_whole() -> None:
    found = zoo_files.load([], Plugins())
    assert {"pgd", "fgsm", "embedding-pgd", "noise"} <= set(found.attacks)
    assert found.attacks["embedding-pgd"].objective == "embedding"


def test_the_schema_knows_every_section() -> None:
    schema = zoo.schema()
    assert set(schema["properties"]) == {"schema", "mirrors", *map(zoo.section, zoo.KINDS)}
    assert "studies" in schema["properties"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Weights"]["properties"]["sha256"]


def test_reading_is_quick(tmp_path: Path) -> None:
    entry = indent(dedent(COLLECTION.split("backbones:\n")[1].split("datasets:")[0]), "  ")
    text = "schema: 1\nbackbones:\n" + "".join(entry.replace("mini-swav:", f"b{i}:") for i in range(60))
    path = write(tmp_path / "zoo.yaml", text)
    assert len(text.splitlines()) > 300
    zoo_files.read(path)  # the first time builds the models
    seconds = []
    for _ in range(5):
        zoo_files._parsed.cache_clear()
        started = time.process_time()
        zoo_files.read(path)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.05


def test_reading_imports_no_torch() -> None:
    code = "import sys, sslrob.zoo_files, sslrob.resolve, sslrob.weights; sslrob.zoo_files.load(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
