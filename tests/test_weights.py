from __future__ import annotations

import errno
import hashlib
import os
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
from sslrob.checksums import Expected
from sslrob.errors import RunFailed, SslrobError
from sslrob.task import Victim
from sslrob.zoo import Weights

STATE = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- reading


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
    monkeypatch.setattr(download, "PAUSE", 0.0)
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
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and ".locks" not in p.parts)


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


def test_a_download_that_breaks_off_is_never_used(internet: Internet, tmp_path: Path) -> None:
    internet.answers["/w.pth"] = (200, b"the first half", 28)
    with pytest.raises(RunFailed, match=r"cannot download .*: the connection ended too early"):
        weights.fetch(Weights(url=internet.url("/w.pth"), sha256=hashlib.sha256(b"the first half" * 2).hexdigest()))
    assert [name for name in cached(tmp_path) if not name.endswith((".part", ".part.json"))] == []


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
    def full(session: Any, url: str, part: Path, expected: Any) -> bool:
        part.write_bytes(b"as much as there was room for")
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


def test_a_server_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    url = "http://nobody.invalid/w.pth"
    with pytest.raises(RunFailed, match=re.escape(f"cannot download {url!r}: ")):
        download.download([url], tmp_path / "w.pth.part", Expected("1" * 64))


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
