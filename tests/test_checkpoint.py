"""Files of weights that are as they should be, and those that are not."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import stat
import struct
import sys
import types
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslrob import archive, checkpoint
from sslrob.errors import RunFailed, SslrobError

STATE = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
SYSTEM = f"{os.system.__module__}.system"


class Touch:
    """Pickled, it creates a file when something unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


# ---- what loads


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s, "optimizer": {"lr": 1.0}}])
def test_torch_checkpoints_are_unwrapped(tmp_path: Path, zipped: bool, wrap: Any) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
    assert same(checkpoint.load(path), STATE)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(checkpoint.load(tmp_path / "w.safetensors"), STATE)
    (tmp_path / "w.safetensors").rename(tmp_path / "w.bin")
    assert same(checkpoint.load(tmp_path / "w.bin", "safetensors"), STATE)


# ---- what would execute code


def write_evil(path: Path, kind: str, evil: Any) -> None:
    """A checkpoint with an object that executes code when it is unpickled; in front of it, in some kinds, what does no harm."""
    if kind in ("zip", "legacy"):
        torch.save({"w": torch.ones(2), "evil": evil}, path, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "zip of protocol 4":
        torch.save({"w": torch.ones(2), "evil": evil}, path, pickle_protocol=4)
    elif kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"a": "posix", "rate": np.float64(0.1), "evil": evil}, protocol=int(kind[-1])))
    else:
        array = np.array([evil, 1], dtype=object)
        with warnings.catch_warnings(action="ignore"):
            np.savez(path, w=np.ones(2), evil=array)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *[(kind, "pth") for kind in ("zip", "legacy", "zip of protocol 4", *(f"pickle {p}" for p in range(6)))],
        ("numpy", "npz"),
    ],
)
def test_a_pickle_that_would_execute_code_is_refused_and_does_not_execute_it(tmp_path: Path, kind: str, suffix: str) -> None:
    path, trace = tmp_path / f"evil.{suffix}", tmp_path / "trace"
    write_evil(path, kind, Touch(trace))
    with pytest.raises(SslrobError, match=re.escape(f"'{path}' is refused: loading it would call '{SYSTEM}'")) as caught:
        checkpoint.load(path)
    assert "safetensors" in caught.value.hint
    assert not trace.exists()


def test_the_same_pickle_does_execute_where_nobody_looks(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touch(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_what_a_layout_allows_does_not_open_the_door_for_anything_else(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    write_evil(path, kind, Touch(trace))
    for allowed in (("argparse.Namespace",), (SYSTEM,)):
        with pytest.raises(SslrobError, match=f"would call '{SYSTEM}'"):
            checkpoint.load_torch(path, allowed=allowed)
    assert not trace.exists()


def test_a_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(SslrobError, match=r"would call 'torch.nn.modules.linear.Linear'"):
        checkpoint.load(tmp_path / "m.pth")


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w.{suffix}"
    state = {"w": torch.ones(4000)}
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == "pth")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(SslrobError, match=r"is not a whole (torch checkpoint|safetensors file)") as caught:
        checkpoint.load(path)
    assert "get the file again" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"<!doctype html><html>not found</html>", b"hello world\n" * 9, bytes(range(256)), b"\x80\x02]q\x00."]
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(SslrobError, match=re.escape(str(path))):
        checkpoint.load(path)


def test_a_format_that_is_said_wrongly_is_suspected(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.bin")
    with pytest.raises(SslrobError) as caught:
        checkpoint.load(tmp_path / "w.bin")
    assert "`format: safetensors`" in caught.value.hint
    torch.save(STATE, tmp_path / "w.safetensors")
    with pytest.raises(SslrobError) as caught:
        checkpoint.load(tmp_path / "w.safetensors")
    assert "`format: torch`" in caught.value.hint


def test_checkpoints_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(SslrobError, match="holds no tensors, only epoch, lr"):
        checkpoint.load(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(SslrobError, match="holds a list, not tensors by name"):
        checkpoint.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, tmp_path / "w.safetensors")
    with pytest.raises(SslrobError, match=r"tensor 'bad' of .* holds NaN or infinity"):
        checkpoint.load(tmp_path / "w.safetensors")


# ---- classes that a layout allows


def test_allowed_classes_are_read_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "trace"
    module = types.ModuleType("not_here.settings")
    code = f"""
class Settings:
    def __init__(self): self.rate = 0.1
    def __setstate__(self, state): open({str(trace)!r}, 'w').close()
"""
    exec(code, module.__dict__)
    settings = module.__dict__["Settings"]
    settings.__module__ = "not_here.settings"
    monkeypatch.setitem(sys.modules, "not_here", types.ModuleType("not_here"))
    monkeypatch.setitem(sys.modules, "not_here.settings", module)
    path = tmp_path / "w.pth"
    content = {
        "state_dict": STATE,
        "args": argparse.Namespace(arch="resnet50", out=PurePosixPath("/a/b")),
        "settings": settings(),
        "best": np.float32(0.5),
    }
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, "not_here.settings")
    monkeypatch.delitem(sys.modules, "not_here")
    with pytest.raises(SslrobError, match="is refused: loading it would call"):
        checkpoint.load_torch(path)
    names = ("argparse.Namespace", "pathlib.PurePosixPath", "not_here.settings.Settings", "numpy.dtype", "numpy._core.multiarray.scalar")
    found = checkpoint.load_torch(path, allowed=(*names, "numpy.core.multiarray.scalar"))
    assert same(found["state_dict"], STATE)
    assert found["args"].arch == "resnet50"
    assert not isinstance(found["args"], argparse.Namespace)
    assert found["args"].out.arguments == ("/", "a", "b")
    assert found["settings"].rate == 0.1
    assert "not_here.settings" not in sys.modules
    assert not trace.exists()
    with pytest.raises(SslrobError, match=r"would call 'pathlib.PurePosixPath'"):
        checkpoint.load_torch(path, allowed=("argparse.Namespace", "not_here.settings.Settings"))


def test_nothing_stays_allowed(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    checkpoint.load_torch(tmp_path / "w.pth", allowed=("argparse.Namespace",))
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(SslrobError, match=r"would call 'argparse.Namespace'"):
        checkpoint.load_torch(tmp_path / "w.pth")


# ---- archives


def member(name: str, *, link: bool = False, encrypted: bool = False) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    if link:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    info.flag_bits |= encrypted
    return info


@pytest.mark.parametrize("suffix", ["pth", "npz"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\windows\\x", "archive/../../x", "..\\x"])
def test_members_that_lie_outside_of_the_archive(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(member("archive/data.pkl"), b"")
        made.writestr(member(name), b"x")
    with pytest.raises(SslrobError, match="would be written outside of the folder"):
        checkpoint.load(path)


def test_links_and_encrypted_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.pth", "w") as made:
        made.writestr(member("archive/data.pkl", link=True), b"/etc/passwd")
    with pytest.raises(SslrobError, match=r"'archive/data.pkl' is a symbolic link"):
        checkpoint.load(tmp_path / "link.pth")
    torch.save(STATE, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(SslrobError, match="is encrypted"):
        checkpoint.load(tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["pth", "npz"])
def test_zip_bombs_are_not_unpacked(tmp_path: Path, suffix: str) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "small.pth")
    path = tmp_path / f"w.{suffix}"
    with zipfile.ZipFile(tmp_path / "small.pth") as small, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in small.namelist():
            made.writestr(name, bytes(2**25) if name.endswith("data/0") else small.read(name))
    assert path.stat().st_size < 2**17
    with pytest.raises(SslrobError, match=r"'small/data/0' would unpack \d+ bytes to 33554432, as in a zip bomb"):
        checkpoint.load(path)


def test_members_that_overlap_are_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as made:
        for number in range(3):
            made.writestr(f"archive/data/{number}", bytes(1000))
    content = path.read_bytes()
    first, directory = content[: content.index(b"PK\3\4", 4)], content[content.index(b"PK\1\2") :]
    entries = [bytearray(b"PK\1\2" + entry) for entry in directory[: directory.index(b"PK\5\6")].split(b"PK\1\2")[1:]]
    for entry in entries:
        entry[42:46] = bytes(4)  # all of them lie at the beginning
    end = bytearray(directory[directory.index(b"PK\5\6") :])
    end[16:20] = struct.pack("<I", len(first))
    path.write_bytes(first + b"".join(entries) + end)
    with pytest.raises(SslrobError, match="its members overlap"):
        checkpoint.load(path)


def test_more_tensors_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    monkeypatch.setattr(archive, "_room", lambda: 100)
    with pytest.raises(RunFailed, match=r"holds 0.0 GiB of tensors, and 0.0 GiB of memory are free"):
        checkpoint.load(tmp_path / "w.pth")


def test_a_small_file_that_claims_a_tensor_larger_than_memory(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(1).expand(10**15)}, path)
    with pytest.raises(RunFailed, match="GiB of tensors"):
        checkpoint.load(path)


def test_many_names_of_the_same_values_are_more_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = torch.ones(1000)
    torch.save({f"w{i}": one for i in range(100)}, tmp_path / "w.pth")
    monkeypatch.setattr(archive, "_room", lambda: 100_000)
    with pytest.raises(RunFailed, match="GiB of tensors"):
        checkpoint.load(tmp_path / "w.pth")
    torch.save({f"w{i}": part for i, part in enumerate(one.split(10))}, tmp_path / "parts.pth")
    assert len(checkpoint.load(tmp_path / "parts.pth")) == 100


def test_the_memory_of_this_machine_is_known() -> None:
    assert 2**20 < archive._room() < 2**50


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.empty(3, device="meta"), "has no values"),
        (torch.eye(3).to_sparse(), "is stored as torch.sparse_coo"),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_that_are_not_dense(tmp_path: Path, tensor: Tensor, said: str) -> None:
    torch.save({"good": torch.ones(2), "odd": tensor}, tmp_path / "w.pth")
    with pytest.raises(SslrobError, match=f"tensor 'odd' of .* {said}"):
        checkpoint.load(tmp_path / "w.pth")


# ---- what is no checkpoint

PAGE = b"<!DOCTYPE html>\n<html><head><title>403 Forbidden</title></head></html>"
DENIED = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 97800000\n"


def numpy_file(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz"])
@pytest.mark.parametrize(
    ("content", "said", "hint"),
    [
        (b"", "it is empty", "get the file again"),
        (PAGE, "it is a web page (403 Forbidden): the download was refused", "open the address in a browser"),
        (b"  \n<html>", "it is a web page: the download was refused", "browser"),
        (DENIED, "it is a web page (AccessDenied): the download was refused", "browser"),
        (POINTER, "it is a Git-LFS pointer to the file of 97800000 bytes, not the file", "git lfs pull"),
        (b'{"message": "Not Found"}', "it is a text of JSON", "address"),
        (b"\x1f\x8b\x08" + bytes(30), "it is a gzip archive", "unpack it"),
        (bytes(257) + b"ustar" + bytes(500), "it is a tar archive", "unpack it"),
        (numpy_file(np.ones(2)), "it is a single array of NumPy", ".npz"),
    ],
)
def test_what_the_file_really_is_is_said(tmp_path: Path, content: bytes, said: str, hint: str, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(SslrobError, match=re.escape(f"'{path}' is not a whole ")) as caught:
        checkpoint.load(path)
    assert str(caught.value).endswith(f": {said}")
    assert hint in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"cannot read .*: No such file"):
        checkpoint.load(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (struct.pack("<Q", 2**62) + b"{}", f"its header would have {2**62} bytes, and the file has 10"),
        (struct.pack("<Q", 4) + b"{]  " + bytes(8), "SafetensorError"),
        (struct.pack("<Q", 62) + b'{"w":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4]}}  ' + bytes(4), "SafetensorError"),
    ],
    ids=["huge", "no JSON", "another size"],
)
def test_headers_of_safetensors_that_cannot_be(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(SslrobError, match=f"is not a whole safetensors file: {said}"):
        checkpoint.load(tmp_path / "w.safetensors")


# ---- NumPy's archives


def test_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{name: tensor.numpy() for name, tensor in STATE.items()})
    assert same(checkpoint.load(tmp_path / "w.npz"), STATE)
    whole = (tmp_path / "w.npz").read_bytes()
    (tmp_path / "w.npz").write_bytes(whole[:-30])
    with pytest.raises(SslrobError, match="is not a whole "):
        checkpoint.load(tmp_path / "w.npz")
    torch.save(STATE, tmp_path / "w.npz")
    with pytest.raises(SslrobError, match="is not a whole NumPy archive") as caught:
        checkpoint.load(tmp_path / "w.npz")
    assert "`format: torch`" in caught.value.hint
