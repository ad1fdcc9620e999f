from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslrob import download, weights
from sslrob.backbone import Backbone, Features
from sslrob.errors import RunFailed, SslrobError
from sslrob.task import Victim
from sslrob.zoo import Weights

STATE = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


class Touch:
    """Pickled, it creates a file when something unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- reading


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s, "optimizer": {"lr": 1.0}}])
def test_torch_checkpoints_are_unwrapped(tmp_path: Path, zipped: bool, wrap: Any) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
    assert same(weights.load(path), STATE)


def test_safetensors(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(weights.load(tmp_path / "w.safetensors"), STATE)
    (tmp_path / "w.safetensors").rename(tmp_path / "w.bin")
    assert same(weights.load(tmp_path / "w.bin", "safetensors"), STATE)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "old pickle"])
def test_a_pickle_that_would_execute_code_is_refused_and_does_not_execute_it(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    content = {"w": torch.ones(2), "evil": Touch(trace)}
    if kind in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps({"evil": Touch(trace)}, protocol=2 if kind == "old pickle" else 4))
    system = f"{os.system.__module__}.system"
    with pytest.raises(SslrobError, match=re.escape(f"'{path}' is refused: loading it would call '{system}'")) as caught:
        weights.load(path)
    assert "safetensors" in caught.value.hint
    assert not trace.exists()


def test_a_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(SslrobError, match=r"would call 'torch.nn.modules.linear.Linear'"):
        weights.load(tmp_path / "m.pth")


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
        weights.load(path)
    assert "get the file again" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"<!doctype html><html>not found</html>", b"hello world\n" * 9, bytes(range(256)), b"\x80\x02]q\x00."]
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(SslrobError, match=re.escape(str(path))):
        weights.load(path)


def test_a_format_that_is_said_wrongly_is_suspected(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.bin")
    with pytest.raises(SslrobError) as caught:
        weights.load(tmp_path / "w.bin")
    assert "`format: safetensors`" in caught.value.hint
    torch.save(STATE, tmp_path / "w.safetensors")
    with pytest.raises(SslrobError) as caught:
        weights.load(tmp_path / "w.safetensors")
    assert "`format: torch`" in caught.value.hint


def test_checkpoints_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, "lr": 0.1}, path)
    with pytest.raises(SslrobError, match="holds no tensors, only epoch, lr"):
        weights.load(path)
    torch.save([torch.ones(1)], path)
    with pytest.raises(SslrobError, match="holds a list, not tensors by name"):
        weights.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, tmp_path / "w.safetensors")
    with pytest.raises(SslrobError, match=r"tensor 'bad' of .* holds NaN or infinity"):
        weights.load(tmp_path / "w.safetensors")


def test_reading_drops_prefixes_and_ignores(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"module.w": torch.ones(2), "module.prototypes.weight": torch.ones(3), "other": torch.ones(1)}, path)
    assert set(weights.read(Weights(file=path, drop_prefix="module.", ignore=("prototypes",)))) == {"w"}
    assert set(weights.read(Weights(file=path))) == {"module.w", "module.prototypes.weight", "other"}
    with pytest.raises(SslrobError, match=r"no tensor of .* has a name that starts with 'model.'") as caught:
        weights.read(Weights(file=path, drop_prefix="model."))
    assert "module.w" in caught.value.hint


# ---- files of this machine


def test_a_local_file_is_checked_before_use_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(STATE, path)
    assert weights.fetch(Weights(file=path, sha256=digest(path))) == path
    with pytest.raises(SslrobError, match=f"has sha256 {digest(path)}, not {'0' * 64}"):
        weights.fetch(Weights(file=path, sha256="0" * 64))
    assert path.exists()
    with pytest.raises(SslrobError, match=r"no weights at .*absent"):
        weights.fetch(Weights(file=tmp_path / "absent"))


def test_a_checksum_is_taken_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert weights.sha256(path) == digest(path)
    path.write_bytes(b"another")
    assert weights.sha256(path) == digest(path)
    with pytest.raises(SslrobError, match="cannot read"):
        weights.sha256(tmp_path / "absent")


# ---- files of the network


class Internet:
    """A server on this machine.

    Attributes:
        answers: status and body, by path; the Content-Length may be longer than the body.
        asked: the paths asked for.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes, int]] = {}
        self.asked: list[str] = []
        internet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                internet.asked.append(self.path)
                status, body, length = internet.answers.get(self.path, (404, b"not here", 8))
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Internet]:
    monkeypatch.setenv("SSLROB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSLROB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    internet = Internet()
    thread = threading.Thread(target=lambda: internet.server.serve_forever(poll_interval=0.01))
    thread.start()
    yield internet
    internet.server.shutdown()
    internet.server.server_close()
    thread.join()


@pytest.fixture
def checkpoint(internet: Internet, tmp_path: Path) -> Weights:
    save_file(STATE, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    internet.answers["/a/swav%20r50.safetensors"] = (200, content, len(content))
    return Weights(url=internet.url("/a/swav%20r50.safetensors?download=true"), sha256=hashlib.sha256(content).hexdigest())


def cached(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_a_download_is_checked_cached_and_not_repeated(internet: Internet, checkpoint: Weights, tmp_path: Path) -> None:
    internet.answers["/a/swav%20r50.safetensors?download=true"] = internet.answers["/a/swav%20r50.safetensors"]
    path = weights.fetch(checkpoint)
    assert path.name.endswith("-swav r50.safetensors")
    assert same(weights.read(checkpoint), STATE)
    assert weights.fetch(checkpoint, offline=True) == path
    assert len(internet.asked) == 1
    path.write_bytes(b"somebody wrote over it")
    assert same(weights.read(checkpoint), STATE)
    assert len(internet.asked) == 2
    assert cached(tmp_path) == [path.name]


def test_another_file_than_the_zoo_means_is_never_kept(internet: Internet, tmp_path: Path) -> None:
    internet.answers["/w.pth"] = (200, b"other bytes", 11)
    with pytest.raises(SslrobError) as caught:
        weights.fetch(Weights(url=internet.url("/w.pth"), sha256="1" * 64))
    assert hashlib.sha256(b"other bytes").hexdigest() in str(caught.value)
    assert "1" * 64 in str(caught.value)
    assert "nothing of it was kept" in caught.value.hint
    assert cached(tmp_path) == []


def test_a_download_that_breaks_off_is_never_kept(internet: Internet, tmp_path: Path) -> None:
    internet.answers["/w.pth"] = (200, b"the first half", 28)
    with pytest.raises(RunFailed, match=r"cannot download .*: the connection ended too early"):
        weights.fetch(Weights(url=internet.url("/w.pth"), sha256=hashlib.sha256(b"the first half" * 2).hexdigest()))
    assert cached(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_server_that_refuses(internet: Internet, status: int, tmp_path: Path) -> None:
    internet.answers["/gone.pth"] = (status, b"sorry", 5)
    with pytest.raises(RunFailed, match=rf"'{re.escape(internet.url('/gone.pth'))}' answers {status} ") as caught:
        weights.fetch(Weights(url=internet.url("/gone.pth"), sha256="1" * 64))
    assert "check the url" in caught.value.hint
    assert cached(tmp_path) == []


def test_no_network(internet: Internet) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/w.pth"
    with pytest.raises(RunFailed, match=r"cannot download .*refused") as caught:
        weights.fetch(Weights(url=url, sha256="1" * 64))
    assert "check the network" in caught.value.hint
    assert caught.value.exit_code == 1


def test_offline_nothing_is_asked(internet: Internet, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFailed, match="downloads are off") as caught:
        weights.fetch(checkpoint, offline=True)
    assert "put the file at" in caught.value.hint
    monkeypatch.setenv("SSLROB_OFFLINE", "1")
    with pytest.raises(RunFailed, match="downloads are off"):
        weights.fetch(checkpoint)
    assert internet.asked == []


def test_a_full_disk(internet: Internet, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(url: str, path: Path) -> None:
        path.write_bytes(b"as much as there was room for")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(RunFailed, match="no room for ") as caught:
        weights.fetch(checkpoint)
    assert "free some space" in caught.value.hint
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_written(internet: Internet, checkpoint: Weights, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(RunFailed, match="cannot write to") as caught:
        weights.fetch(checkpoint)
    assert "SSLROB_CACHE" in caught.value.hint


def test_a_server_without_a_name(tmp_path: Path) -> None:
    url = "http://nobody.invalid/w.pth"
    with pytest.raises(RunFailed, match=re.escape(f"cannot download {url!r}: ")):
        download.download(url, "1" * 64, tmp_path / "w.pth")


# ---- into modules


class Body(Backbone):
    width, channels, strides = 4, (4,), (1,)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Features:
        x = self.conv(images - self.mean)
        return Features(x.mean((2, 3)), (x,))


class Toy(Victim):
    losses = ("ce",)

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.head = nn.Linear(4, 2)

    @property
    def backbone(self) -> Backbone:
        return self.body

    def forward(self, images: Tensor) -> Any:
        return self.head(self.body(images).pooled)

    def loss(self, outputs: Any, targets: Any, name: str, progress: float) -> Tensor:
        raise NotImplementedError

    fooled = quality = predict = loss  # type: ignore[assignment]


class Wrapped(Toy):
    """Its backbone lies deeper, and stands at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"backbone": nn.ModuleDict({"net": self.body})})


def test_weights_are_applied_strictly_and_in_the_modules_dtype() -> None:
    module = nn.Linear(3, 2)
    weights.apply(module, {"weight": torch.full((2, 3), 0.5, dtype=torch.float16), "bias": torch.ones(2, dtype=torch.float64)}, what="toy")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, torch.full((2, 3), 0.5))


def test_weights_that_do_not_fit_are_listed_and_nothing_is_copied() -> None:
    module = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {**{f"x{i}": torch.ones(1) for i in range(5)}, "0.weight": torch.zeros(2, 2), "1.weight": torch.zeros(3, 2)}
    with pytest.raises(SslrobError) as caught:
        weights.apply(module, state, what="backbone 'toy'")
    assert str(caught.value) == (
        "the weights of backbone 'toy' do not fit: 6 missing: 0.bias, 1.bias, 2.weight and 3 more; "
        "5 unexpected: x0, x1, x2 and 2 more; 1 of another shape: 1.weight (3, 2) for (2, 2)"
    )
    assert same(module.state_dict(), before)


def test_some_weights_may_be_missing() -> None:
    module = nn.Linear(3, 2)
    bias = module.bias.clone()
    weights.apply(module, {"weight": torch.zeros(2, 3)}, what="toy", allow_missing={"bias"})
    assert torch.equal(module.bias, bias)
    assert torch.equal(module.weight, torch.zeros(2, 3))


@pytest.mark.parametrize("kind", [Toy, Wrapped])
def test_a_frozen_heads_file_holds_the_head_only(kind: type[Toy]) -> None:
    trained, fresh = kind(), kind()
    state = weights.head_state(trained)
    assert set(state) == {"head.weight", "head.bias"}
    body = {k: v.clone() for k, v in fresh.body.state_dict().items()}
    assert weights.load_head(fresh, state, what="head 'toy'") == "frozen"
    assert torch.equal(fresh.head.weight, trained.head.weight)
    assert same(fresh.body.state_dict(), body)


@pytest.mark.parametrize("kind", [Toy, Wrapped])
def test_a_finetuned_heads_file_replaces_the_backbone_too(kind: type[Toy]) -> None:
    trained, fresh = kind(), kind()
    assert weights.load_head(fresh, trained.state_dict(), what="head 'toy'") == "finetuned"
    assert same(fresh.state_dict(), trained.state_dict())


def test_heads_that_do_not_fit() -> None:
    state = weights.head_state(Toy())
    with pytest.raises(SslrobError, match=r"the weights of head 'toy' do not fit: 1 missing: head.bias"):
        weights.load_head(Toy(), {"head.weight": state["head.weight"]}, what="head 'toy'")
    with pytest.raises(SslrobError, match=r"2 missing: body.mean, body.conv.weight"):
        weights.load_head(Toy(), {**state, "body.conv.bias": torch.zeros(4)}, what="head 'toy'")
