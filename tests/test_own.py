"""The user's own entries: whole or not there, found by every command, and never in anybody's way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from sslrob import own, zoo_files
from sslrob.errors import RunFailed, SslrobError
from sslrob.plugins import Plugins
from sslrob.zoo import Backbone, Dataset, Head, Weights, Zoo

DATA = Dataset(task="classification", format="imagefolder", path=Path("data"), threat_model="linf:1/255", license="MIT")


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSLROB_ZOO", raising=False)
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / "configuration")
    return tmp_path / "home" / "zoo"


def load(*files: Path) -> Zoo:
    return zoo_files.load(files, Plugins())


def backbone(name: str = "mine", folder: Path | None = None) -> dict[str, Backbone]:
    weights = None if folder is None else Weights(file=folder / f"{name}.safetensors")
    return {name: Backbone(use="toy", license="MIT", weights=weights)}


def head(of: str = "mine", data: str = "shades", **more) -> dict[str, Head]:
    return {f"{of}-linear": Head(backbone=of, dataset=data, kind="linear", **more)}


def test_the_home_is_the_platforms_unless_it_is_chosen(monkeypatch, tmp_path):
    assert own.folder("mine") == tmp_path / "home" / "zoo" / "mine"
    monkeypatch.delenv("SSLROB_HOME")
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "data" / name)
    assert own.folder("mine") == tmp_path / "data" / "sslrob" / "zoo" / "mine"


def test_what_is_written_is_in_the_zoo_as_it_was():
    written = own.write(
        "mine", {"backbones": backbone(folder=own.folder("mine")), "datasets": {"shades": DATA}, "heads": head(clean={"top1": 90})}
    )
    assert written == own.folder("mine") / "zoo.yaml"
    zoo = load()
    assert zoo.backbones["mine"].weights.file == own.folder("mine") / "mine.safetensors"
    assert zoo.heads["mine-linear"] == head(clean={"top1": 90.0})["mine-linear"]
    assert zoo.origins["heads", "mine-linear"] == written
    assert not zoo.complaints()


def test_an_entry_can_be_moved_with_its_weights(home):
    own.write("mine", {"backbones": backbone(folder=own.folder("mine"))})
    stored = yaml.safe_load((own.folder("mine") / "zoo.yaml").read_text())
    assert stored["backbones"]["mine"]["weights"]["file"] == "mine.safetensors"
    own.folder("mine").rename(home / "yours")
    assert load().backbones["mine"].weights.file == home / "yours" / "mine.safetensors"


def test_paths_elsewhere_stay_as_they_are(tmp_path):
    own.write("mine", {"backbones": backbone(folder=tmp_path)})
    assert load().backbones["mine"].weights.file == tmp_path / "mine.safetensors"


def test_writing_again_replaces(home):
    own.write("mine", {"backbones": backbone("old")})
    own.write("mine", {"backbones": backbone("new")})
    assert [name for name in load().backbones if name in ("old", "new")] == ["new"]


def test_what_a_killed_command_leaves_behind_counts_for_nothing(home):
    (home / "half").mkdir(parents=True)
    (home / "half" / "half-linear.safetensors").write_bytes(b"\0")
    (home / "half" / "zoo.yaml.part").write_text("schema: 1\nheads:")
    (home / "stray").parent.joinpath("stray.txt").write_text("no folder")
    assert not load().complaints()


def test_a_kill_between_the_two_leaves_the_old_file(monkeypatch):
    own.write("mine", {"backbones": backbone()})

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        own.write("mine", {"backbones": backbone("other")})
    assert "mine" in load().backbones
    assert "other" not in load().backbones


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("schema: 1\nbackbones: {mine: {use: toy", "not valid YAML"),
        ("schema: 1\nbackbones: {mine: {use: toy}}", "has no 'license'"),
        ("schema: 1\nheads: {mine-linear: {backbone: gone, dataset: shades, kind: linear}}", "no backbone is named 'gone'"),
    ],
)
def test_a_broken_entry_is_named_and_harms_no_other(text, reason, home):
    (home / "broken").mkdir(parents=True)
    (home / "broken" / "zoo.yaml").write_text(text)
    own.write("mine", {"backbones": backbone("whole"), "datasets": {"shades": DATA}})
    zoo = load()
    assert "whole" in zoo.backbones
    (complaint,) = zoo.complaints()
    assert str(home / "broken" / "zoo.yaml") in complaint
    assert reason in complaint


def test_a_file_that_the_user_wrote_comes_first(tmp_path):
    own.write("mine", {"backbones": backbone()})
    named = tmp_path / "named.yaml"
    named.write_text("schema: 1\nbackbones: {mine: {use: other, license: MIT}}")
    zoo = load(named)
    assert zoo.backbones["mine"].use == "other"
    assert "backbone 'mine' is already in" in zoo.complaints()[0]


def test_an_own_file_may_be_named_too():
    file = own.write("mine", {"backbones": backbone()})
    assert load(file).origins["backbones", "mine"] == file


def test_records_are_added_beside_others(tmp_path):
    file = own.add(tmp_path / "out" / "zoo.yaml", {"backbones": backbone(), "datasets": {"shades": DATA}})
    own.add(file, {"heads": head()})
    own.add(file, {"heads": head(clean={"top1": 50.0})})
    records = zoo_files.read(file).records
    assert (list(records.backbones), list(records.heads)) == (["mine"], ["mine-linear"])
    assert records.heads["mine-linear"].clean == {"top1": 50.0}


def test_several_may_add_at_once(tmp_path):
    file = tmp_path / "zoo.yaml"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: own.add(file, {"backbones": backbone(f"mine-{n}")}), range(24)))
    assert list(zoo_files.read(file).records.backbones) == sorted(f"mine-{n}" for n in range(24))


def test_a_damaged_file_is_not_overwritten(tmp_path):
    file = tmp_path / "zoo.yaml"
    file.write_text("backbones: [")
    with pytest.raises(SslrobError, match=r"zoo\.yaml"):
        own.add(file, {"backbones": backbone()})
    assert file.read_text() == "backbones: ["


def test_a_home_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLROB_HOME", str(tmp_path / "file"))
    assert own.files() == []
    with pytest.raises(RunFailed, match="cannot write to"):
        own.write("mine", {"backbones": backbone()})
