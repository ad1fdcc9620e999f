"""The published checkpoints' settings are those of their architectures, and timm's own; a file of one's own is recognised."""

from __future__ import annotations

import inspect
import json

import pytest
import torch

from sslrob import cli, zoo_files
from sslrob.plugins import Plugins, installed
from sslrob.zoo import Zoo


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    """sslrob's own."""
    return zoo_files.load([], Plugins())


def test_every_setting_is_one_of_its_architecture(zoo):
    import timm

    kinds = {use: installed().get("backbone", use) for use in {record.use for record in zoo.backbones.values()}}
    for name, record in zoo.backbones.items():
        assert record.settings.keys() <= inspect.signature(kinds[record.use]).parameters.keys(), name
        if record.use == "timm":
            assert timm.is_model(str(record.settings["model"]).partition(".")[0]), name
    for name, head in zoo.heads.items():
        assert head.body.keys() <= inspect.signature(kinds[zoo.backbones[head.backbone].use]).parameters.keys(), name


def test_timms_tags_are_known_and_colours_are_those_that_timm_gives(zoo):
    from timm.models import get_pretrained_cfg

    for name, record in zoo.backbones.items():
        model = str(record.settings.get("model", ""))
        if "." not in model:
            continue
        own = get_pretrained_cfg(model)
        assert own is not None, name
        for key in ("mean", "std"):
            given = record.settings[key]
            assert tuple(given if isinstance(given, list) else [given] * 3) == getattr(own, key), name
        if record.weights is not None and record.weights.hf is not None:
            assert record.weights.hf == f"{own.hf_hub_id}", name


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Run `sslrob WORDS` in an empty folder, with an empty zoo of one's own."""
    for name in ("XDG_CONFIG_HOME", "SSLROB_HOME", "SSLROB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("SSLROB_ZOO", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(words))
        return code, *capsys.readouterr()

    return run


def test_a_file_of_ones_own_is_recognised_and_the_guess_told(said, tmp_path):
    from sslrob_backbones.resnet import ResNet

    state = {f"module.{name}": tensor for name, tensor in ResNet(depth=14, width=0.25).state_dict().items() if name not in ("mean", "std")}
    torch.save(
        {**state, "module.prototypes.weight": torch.zeros(3, 2), "module.projection_head.0.weight": torch.zeros(2, 2)}, "mine.pth.tar"
    )
    code, out, err = said("zoo", "add", "mine.pth.tar", "--method", "SwAV", "--name", "my-swav")
    assert (code, err) == (0, "")
    assert "layout swav" in out
    assert "SwAV's own std of red, 0.228" in out
    assert "?mean" not in out
    assert "if they were others: --mean R,G,B --std R,G,B" in out
    (entry,) = json.loads(said("zoo", "show", "my-swav", "--json")[1])
    assert (entry["settings"]["depth"], entry["weights"]["layout"]) == (14, "swav")
    code, out, err = said("zoo", "add", "mine.pth.tar", "--method", "SwAV", "--name", "other", "--mean", "0.5", "--std", "0.5,0.4,0.3")
    assert code == 0
    assert "pixels:" not in out
    (entry,) = json.loads(said("zoo", "show", "other", "--json")[1])
    assert (entry["settings"]["mean"], entry["settings"]["std"]) == ([0.5, 0.5, 0.5], [0.5, 0.4, 0.3])
    code, _, err = said("zoo", "add", "mine.pth.tar", "--method", "SwAV", "--name", "third", "--arch", "resnet50")
    assert code == 2
    assert "do not fit" in err


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (torch.nn.Linear(2, 2), "is refused: it is a whole pickled model", "torch.save(model.state_dict(), FILE)"),
        ([torch.ones(1)], "holds a list, not tensors by name", "torch.save(model.state_dict(), FILE)"),
        (b"\x80\x02ee", "is not a whole torch checkpoint: its bytes are damaged, or of another kind", "get the file again\n"),
        (b"PK\x03\x04cut", "is not a whole torch checkpoint or zip archive", "get the file again"),
    ],
)
def test_why_a_file_cannot_be_read_is_the_error(said, tmp_path, content, message, hint):
    if isinstance(content, bytes):
        (tmp_path / "net.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "net.pth")
    code, _, err = said("zoo", "add", "net.pth", "--method", "m")
    assert code == 2
    assert err.startswith(f"error: '{tmp_path / 'net.pth'}' {message}")
    assert hint in err
    assert "--layout" not in err
    assert "Error:" not in err
