"""Reading OpenMMLab checkpoints: what they hold beside the weights, what must be refused, and what is not a checkpoint."""

import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from sslrob_mmcv.checkpoint import INERT_GLOBALS, CheckpointError, CheckpointRefused, load, load_state_dict
from torch import nn

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def openmmlab_checkpoint() -> dict[str, Any]:
    """What mmengine's runner saves, after one step of a wrapped two-layer model."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    losses = HistoryBuffer()
    losses.update(1.5)
    return {
        "meta": {
            "cfg": "model = dict(type='FCOS')\n",
            "dataset_meta": {"classes": ("shirt", "bag"), "palette": np.array([[220, 20, 60]])},
            "seed": np.int64(7),
            "best": np.float64(0.375),
            "settings": ConfigDict(model={"type": "FCOS"}),
        },
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in model.state_dict().items()),
        "message_hub": {"log_scalars": OrderedDict({"train/loss": losses}), "runtime_info": {"iter": 1}, "resumed_keys": {}},
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [{"last_step": 1, "_global_step": 1, "verbose": False}],
    }


def save(content: object, path: Path, *, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


class Executes:
    """Unpickled without restrictions, it writes a file."""

    def __init__(self, path: Path, function: object) -> None:
        self.path, self.function = path, function

    def __reduce__(self) -> Any:
        command = f"open({str(self.path)!r}, 'w').close()" if self.function is exec else f"touch {self.path}"
        return self.function, (command,)


@FORMATS
def test_weights_come_back_without_the_wrappers_prefix(tmp_path: Path, zipped: bool) -> None:
    content = openmmlab_checkpoint()
    weights = load_state_dict(save(content, tmp_path / "epoch_1.pth", zipped=zipped))
    assert [f"module.{name}" for name in weights] == list(content["state_dict"])
    for name, tensor in weights.items():
        assert torch.equal(tensor, content["state_dict"][f"module.{name}"])


def test_bare_weights(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    weights = load_state_dict(str(save(model.state_dict(), tmp_path / "weights.pth")))
    nn.Linear(2, 3).load_state_dict(weights)
    assert torch.equal(weights["weight"], model.weight)


def test_records_of_the_training_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(openmmlab_checkpoint(), tmp_path / "epoch_1.pth")

    def made(*args: object) -> None:
        raise AssertionError("a record of the training was made")

    monkeypatch.setattr(HistoryBuffer, "__setstate__", made)
    monkeypatch.setattr(ConfigDict, "__init__", made)
    assert load_state_dict(path)
    with pytest.raises(AssertionError, match="was made"):
        torch.load(path, weights_only=False)


def test_the_allowance_ends_with_the_call(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = save(openmmlab_checkpoint(), tmp_path / "epoch_1.pth")
    load_state_dict(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@FORMATS
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, f"{os.system.__module__}.system"), (exec, "exec"), (shutil.rmtree, "shutil.rmtree")],
    ids=["system", "exec", "rmtree"],
)
@pytest.mark.parametrize("place", ["meta", "state_dict"])
def test_code_is_refused_by_name_and_not_executed(tmp_path: Path, zipped: bool, function: object, name: str, place: str) -> None:
    marker = tmp_path / "executed"
    content = {"state_dict": {"weight": torch.ones(1)}}
    content[place] = {"weight": Executes(marker, function)}
    path = save(content, tmp_path / "evil.pth", zipped=zipped)
    with pytest.raises(CheckpointRefused, match=f"'{name}'") as refused:
        load_state_dict(path)
    assert refused.value.name == name
    assert str(path) in str(refused.value)
    assert not marker.exists()


def test_the_refused_file_would_have_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    torch.load(save(Executes(marker, exec), tmp_path / "evil.pth"), weights_only=False)
    assert marker.exists()


def test_an_inert_name_cannot_be_used_to_reach_others(tmp_path: Path) -> None:
    """``getattr(numpy.ndarray, "tofile")(...)``: both names are inert, and calling what getattr gave is refused."""
    stream = b"\x80\x02cbuiltins\ngetattr\ncnumpy\nndarray\nX\x06\x00\x00\x00tofile\x86R)R."
    assert {"builtins.getattr", "numpy.ndarray"} <= set(INERT_GLOBALS)
    path = save({}, tmp_path / "chain.pth", zipped=False)
    original = path.read_bytes()
    header = len(pickle.dumps(0x1950A86A20F9469CFC6C, 2)) + len(pickle.dumps(1001, 2))
    path.write_bytes(original[:header] + pickle.dumps({}, 2) + stream)
    with pytest.raises(CheckpointRefused) as refused:
        load_state_dict(path)
    assert refused.value.name is None


@FORMATS
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_truncated_files(tmp_path: Path, zipped: bool, share: float) -> None:
    path = save({"state_dict": {"weight": torch.ones(4096)}}, tmp_path / "epoch_1.pth", zipped=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="incomplete, damaged or another kind of file") as broken:
        load_state_dict(path)
    assert not isinstance(broken.value, CheckpointRefused)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        bytes(512),
    ],
    ids=["empty", "html", "lfs-pointer", "png", "zeros"],
)
def test_other_kinds_of_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="another kind of file"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "of type 'list'"),
        ({}, "an empty mapping"),
        ({"meta": {}, "state_dict": {}}, "an empty mapping"),
        ({"state_dict": None}, "of type 'NoneType'"),
        ({"model": {"weight": torch.ones(1)}}, "entry 'model' .* is a mapping with 'weight'"),
        ({"state_dict": {"weight": np.ones(3)}}, "entry 'weight' .* a numpy array"),
        ({"state_dict": {1: torch.ones(1)}}, "entry 1 "),
    ],
    ids=["list", "empty", "empty-weights", "none", "other-key", "numpy-weights", "number-as-name"],
)
def test_unexpected_structure(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(save(content, tmp_path / "weights.pth"))


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_state_dict(tmp_path / "nothing.pth")
    with pytest.raises(IsADirectoryError):
        load_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("meta", "classes"),
    [
        ({"dataset_meta": {"classes": ("shirt", "bag"), "palette": np.array([[1, 2, 3]])}}, ("shirt", "bag")),
        ({"dataset_meta": {"CLASSES": ["shirt", "bag"]}}, ("shirt", "bag")),
        ({"CLASSES": ("shirt", "bag")}, ("shirt", "bag")),
        ({"CLASSES": None, "dataset_meta": {"classes": np.array([1, 2])}}, ()),
        ({"epoch": 3}, ()),
        (None, ()),
    ],
)
def test_the_classes_that_a_file_names(meta: object, classes: tuple[str, ...], tmp_path: Path) -> None:
    file = save({"state_dict": {"weight": torch.ones(1)}, "meta": meta}, tmp_path / "named.pth")
    assert load(file).classes == classes
