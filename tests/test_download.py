"""Downloads, with a server on this machine that plays the internet: nothing corrupt is ever used, nothing is downloaded twice."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from sslrob import cli, converted, download, fetching, file_kind, locks, pins, zoo_files
from sslrob.errors import RunFailed, SslrobError
from sslrob.fetching import fetch
from sslrob.layout import Layout
from sslrob.plugins import installed
from sslrob.resolve import Words, resolve, summed, without_downloads
from sslrob.zoo import Weights

BYTES = random.Random(0).randbytes(400_000)
OTHER = random.Random(1).randbytes(400_000)
HALF = 200_000


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Page:
    """What a server answers at a path.

    Attributes:
        statuses: of the first answers, instead of the content.
        cuts: after how many bytes the first answers end.
        wait: until this is set an answer stops in the middle.
        delay: seconds before an answer.
    """

    content: bytes = BYTES
    tag: str = '"v1"'
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    says_length: bool = True
    delay: float = 0.0
    wait: threading.Event | None = None


class Asked(NamedTuple):
    method: str
    path: str
    range: str | None


class Internet:
    """Pages by path, and what was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Asked] = []
        internet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                internet.asked.append(Asked(self.command, self.path, self.headers["Range"]))
                page = internet.pages.get(self.path.partition("?")[0])
                if page is None or page.statuses:
                    self._answer(page.statuses.pop(0) if page else 404, b"sorry", page.headers if page else {})
                    return
                time.sleep(page.delay)
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
                start = int(wanted[1]) if wanted and page.ranges and self.headers["If-Range"] in (None, page.tag) else 0
                if start >= len(page.content):
                    self._answer(416, b"", {"Content-Range": f"bytes */{len(page.content)}"})
                    return
                headers = {**({"ETag": page.tag} if page.tag else {}), **page.headers}
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(page.content) - 1}/{len(page.content)}"
                self._answer(206 if start else 200, page.content[start:], headers, page)

            do_HEAD = do_GET

            def _answer(self, status: int, body: bytes, headers: dict[str, str], page: Page | None = None) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if page is None or page.says_length:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if page is not None and page.cuts:
                    body = body[: page.cuts.pop(0)]
                half = len(body) // 2 if page is not None and page.wait is not None else 0
                try:
                    self.wfile.write(body[:half])
                    if page is not None and page.wait is not None:
                        page.wait.wait(20)
                    self.wfile.write(body[half:])
                except OSError:  # whoever asked has gone
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def url(self, path: str = "/w.pth") -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def starts(self) -> list[int]:
        """From which byte on each request wanted the file."""
        return [int(asked.range[6:-1]) if asked.range else 0 for asked in self.asked]


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Internet]:
    for variable, folder in (("SSLROB_CACHE", "cache"), ("SSLROB_HOME", "home"), ("TORCH_HOME", "torch")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.delenv("SSLROB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "PAUSE", 0.0)
    internet = Internet()
    internet.pages["/w.pth"] = Page()
    thread = threading.Thread(target=lambda: internet.server.serve_forever(poll_interval=0.01))
    thread.start()
    yield internet
    internet.server.shutdown()
    internet.server.server_close()
    thread.join()


def meant(internet: Internet, path: str = "/w.pth", **more: Any) -> Weights:
    return Weights(**{"url": internet.url(path), "sha256": digest(BYTES), **more})


def kept() -> list[str]:
    """Names of the files in the cache."""
    folder = fetching.cache()
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)


def part(internet: Internet, content: bytes, **note: Any) -> None:
    """Put into the cache what an earlier call left of /w.pth."""
    path = fetching.part_of(meant(internet))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    download.note_of(path).write_text(json.dumps({"url": internet.url(), "validator": '"v1"', "total": len(BYTES), **note}))


# ---- what comes is whole, and the one that is meant


def test_a_cut_connection_is_gone_on_with(internet: Internet) -> None:
    internet.pages["/w.pth"].cuts = [150_000, 100_000]
    path = fetch(meant(internet))
    assert path.read_bytes() == BYTES
    first, second, third = internet.starts()
    assert first == 0
    assert 150_000 - download.CHUNK < second <= 150_000
    assert second + 100_000 - download.CHUNK < third <= second + 100_000
    assert kept() == [path.name] == [f"{digest(BYTES)[:16]}-w.pth"]


def test_what_a_later_call_finds_of_an_earlier_one(internet: Internet) -> None:
    internet.pages["/w.pth"].cuts = [150_000, *[0] * 9]
    with pytest.raises(RunFailed, match="the connection ended too early") as caught:
        fetch(meant(internet))
    assert "goes on where it stopped" in caught.value.hint
    assert kept() == [fetching.part_of(meant(internet)).name, f"{fetching.part_of(meant(internet)).name}.json"]
    assert len(internet.asked) == 1 + download.ATTEMPTS
    internet.pages["/w.pth"].cuts.clear()
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert 150_000 - download.CHUNK < internet.starts()[-1] <= 150_000


@pytest.mark.parametrize("known", [True, False], ids=["known sum", "unknown sum"])
def test_a_file_that_changed_between_two_parts_is_begun_anew(internet: Internet, known: bool) -> None:
    part(internet, OTHER[:HALF], validator='"v0"')
    weights = meant(internet) if known else meant(internet, sha256="unknown")
    assert fetch(weights).read_bytes() == BYTES
    assert internet.starts() == [HALF]  # If-Range: the server sent all of the new one


def test_a_file_that_changed_in_length(internet: Internet) -> None:
    part(internet, OTHER[:HALF], total=999_999)
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert internet.starts() == [HALF, 0]


def test_a_server_that_ignores_ranges(internet: Internet) -> None:
    internet.pages["/w.pth"].ranges = False
    internet.pages["/w.pth"].cuts = [150_000]
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert [start > 0 for start in internet.starts()] == [False, True]


@pytest.mark.parametrize("left", [OTHER[:HALF], OTHER, BYTES + b"more"], ids=["part", "as long", "too long"])
def test_a_part_that_is_damaged_is_fetched_anew(internet: Internet, left: bytes) -> None:
    part(internet, left)
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert kept() == [f"{digest(BYTES)[:16]}-w.pth"]


def test_a_part_that_was_all_there_is_only_checked(internet: Internet) -> None:
    part(internet, BYTES)
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert internet.asked == []


def test_a_part_of_which_nobody_could_tell_that_it_changed_is_not_gone_on_with(internet: Internet) -> None:
    part(internet, OTHER[:HALF], validator="")
    internet.pages["/w.pth"].tag = ""
    assert fetch(meant(internet, sha256="unknown")).read_bytes() == BYTES
    assert internet.starts() == [0]


def test_wrong_bytes_are_never_kept(internet: Internet) -> None:
    internet.pages["/w.pth"].content = OTHER
    with pytest.raises(SslrobError, match=f"has sha256 {digest(OTHER)}, not {digest(BYTES)}: it is not the file that the zoo means"):
        fetch(meant(internet))
    assert kept() == []
    assert len(internet.asked) == 1


def test_wrong_sizes_are_not_even_downloaded(internet: Internet) -> None:
    with pytest.raises(SslrobError, match=r"has 400,000 bytes, not 400,001"):
        fetch(meant(internet, size=400_001))
    assert kept() == []
    assert fetch(meant(internet, size=400_000)).read_bytes() == BYTES


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_published_checksums(internet: Internet, algorithm: str) -> None:
    start = hashlib.new(algorithm, BYTES).hexdigest()[:8]
    with pytest.raises(SslrobError, match=f"has {algorithm} {start}.*, not 00000000… as its publisher says"):
        fetch(meant(internet, sha256="unknown", published_hash=f"{algorithm}:00000000"))
    assert kept() == []
    assert not pins.path().exists()
    assert fetch(meant(internet, sha256="unknown", published_hash=f"{algorithm}:{start}")).read_bytes() == BYTES


def test_a_web_page_is_no_checkpoint(internet: Internet) -> None:
    internet.pages["/login"] = Page(b"<html>log in</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    internet.pages["/w.pth"] = Page(statuses=[302], headers={"Location": "/login"})
    with pytest.raises(SslrobError, match="answers with a web page, not with a file") as caught:
        fetch(meant(internet, sha256="unknown"))
    assert "login" in caught.value.hint
    assert kept() == []


def test_a_file_without_an_end_is_not_pinned(internet: Internet) -> None:
    internet.pages["/w.pth"] = Page(says_length=False, cuts=[HALF])
    with pytest.raises(SslrobError, match="does not say where the file ends"):
        fetch(meant(internet, sha256="unknown"))
    internet.pages["/w.pth"] = Page(says_length=False)
    assert fetch(meant(internet)).read_bytes() == BYTES


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("archive/data.pkl", BYTES[:5000])
    return made.getvalue()


WHOLE = {
    "archive": archive(),
    "pickle": pickle.dumps({"a": BYTES[:5000]}),
    "safetensors": (head := b'{"a":{"dtype":"U8","shape":[5000],"data_offsets":[0,5000]}}')
    and len(head).to_bytes(8, "little") + head + bytes(5000),
}


def old_torch() -> bytes:
    import torch

    made, values = io.BytesIO(), torch.arange(5000.0)
    state = {"a": values[:9], "b": values[5:], "c": values[:700].half(), "epoch": 3}
    torch.save({"state_dict": state}, made, _use_new_zipfile_serialization=False)
    return made.getvalue()


def test_old_files_of_torch_tell_where_they_end(tmp_path: Path) -> None:
    whole = old_torch()
    for content in (whole[:-1], whole[:-15_000], whole[:300], whole[:20]):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(SslrobError, match="is not a whole checkpoint: "):
            file_kind.require_whole(tmp_path / "w.pth", "x")
    (tmp_path / "w.pth").write_bytes(whole)
    file_kind.require_whole(tmp_path / "w.pth", "x")


BROKEN = {
    "page": b"<!doctype html><title>Log in</title>",
    "words": b"no such thing here\n",
    "json": b'{"error": "no"}',
    "pointer": b"version https://git-lfs.github.com/spec/v1\nsize 5\n",
    **{f"cut {kind}": content[:3000] for kind, content in WHOLE.items()},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_whole_checkpoint_is_not_pinned(internet: Internet, kind: str) -> None:
    internet.pages["/w.pth"] = Page(BROKEN[kind])
    with pytest.raises(SslrobError, match=f"{internet.url()}' is not a whole checkpoint: "):
        fetch(meant(internet, sha256="unknown"))
    assert kept() == []
    assert not pins.path().exists()
    internet.pages["/mirror.pth"] = Page()
    assert fetch(meant(internet, sha256="unknown", mirrors=(internet.url("/mirror.pth"),))).read_bytes() == BYTES


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_checkpoints_are_pinned(internet: Internet, kind: str) -> None:
    internet.pages["/w.pth"] = Page(WHOLE[kind])
    assert fetch(meant(internet, sha256="unknown")).read_bytes() == WHOLE[kind]


def test_an_empty_file_is_not_pinned(internet: Internet, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(SslrobError, match="it is empty"):
        file_kind.require_whole(tmp_path / "empty", "x")


# ---- servers


def test_failures_that_pass(internet: Internet) -> None:
    internet.pages["/w.pth"].statuses = [500, 503, 429]
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert len(internet.asked) == 4


@pytest.mark.parametrize(("status", "times"), [(404, 1), (403, 1), (401, 1), (410, 1), (503, download.ATTEMPTS)])
def test_failures_that_stay(internet: Internet, status: int, times: int) -> None:
    internet.pages["/w.pth"].statuses = [status] * 9
    with pytest.raises(RunFailed, match=f"answers {status} ") as caught:
        fetch(meant(internet))
    assert "check the url" in caught.value.hint
    assert len(internet.asked) == times
    assert kept() == []


def test_a_server_may_ask_for_patience(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    monkeypatch.setattr(download, "PAUSE", 0.5)
    internet.pages["/w.pth"].statuses = [503, 503, 503]
    internet.pages["/w.pth"].delay = 0
    internet.pages["/w.pth"].headers = {"Retry-After": "7"}
    fetch(meant(internet))
    assert [seconds for seconds in waited if seconds] == [7.0, 7.0, 7.0]
    waited.clear()
    internet.pages["/v.pth"] = Page(statuses=[503, 503, 503])
    fetch(meant(internet, "/v.pth"))
    assert [seconds for seconds in waited if seconds] == [0.5, 1.0, 2.0]


def test_a_server_that_is_silent(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    internet.pages["/w.pth"].delay = 0.6
    with pytest.raises(RunFailed, match=r"nothing came for 0\.2 seconds"):
        fetch(meant(internet))
    go_on = threading.Event()
    internet.pages["/w.pth"] = Page(wait=go_on)  # silent in the middle
    with pytest.raises(RunFailed, match=r"nothing came for 0\.2 seconds"):
        fetch(meant(internet))
    go_on.set()
    monkeypatch.setattr(download, "TIMEOUT", 20.0)
    assert fetch(meant(internet)).read_bytes() == BYTES


def test_redirects(internet: Internet) -> None:
    internet.pages["/a"] = Page(statuses=[302], headers={"Location": "/b"})
    internet.pages["/b"] = Page(statuses=[307], headers={"Location": internet.url("/w.pth")})
    assert fetch(meant(internet, "/a")).read_bytes() == BYTES
    internet.pages["/round"] = Page(statuses=[302] * 99, headers={"Location": "/round"})
    with pytest.raises(RunFailed, match="answers 302 "):
        fetch(meant(internet, "/round", sha256="1" * 64))


def test_mirrors_in_order(internet: Internet) -> None:
    internet.pages["/wrong"] = Page(OTHER)
    mirrors = (internet.url("/gone"), internet.url("/wrong"), internet.url("/w.pth"))
    path = fetch(meant(internet, "/first.pth", mirrors=mirrors))
    assert path.read_bytes() == BYTES
    assert path.name.endswith("-first.pth")
    assert [asked.path for asked in internet.asked] == ["/first.pth", "/gone", "/wrong", "/w.pth"]
    with pytest.raises(RunFailed, match=r"first\.pth' answers 404") as caught:
        fetch(meant(internet, "/first.pth", sha256="1" * 64, mirrors=mirrors[:2]))
    assert "gone' answers 404 Not Found; mirror: " in caught.value.note
    assert "wrong' has sha256" in caught.value.note
    assert kept() == [path.name]


def test_a_proxy_is_asked(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    for variable in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, internet.url(""))
    internet.pages["http://nobody.invalid/w.pth"] = Page()
    assert fetch(Weights(url="http://nobody.invalid/w.pth", sha256=digest(BYTES))).read_bytes() == BYTES
    assert [asked.path for asked in internet.asked] == ["http://nobody.invalid/w.pth"]


def test_a_certificate_that_is_not_trusted_is_not_asked_again(internet: Internet) -> None:
    with pytest.raises(RunFailed, match="cannot download 'https://127"):
        fetch(Weights(url=internet.url().replace("http:", "https:"), sha256="1" * 64))


# ---- the disk


def test_room_is_looked_for_first(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 300_000, 300_000))
    with pytest.raises(RunFailed, match=r"no room for 'w.pth' in .*: 0.4 MB are to come, 0.3 MB are free") as caught:
        fetch(meant(internet, mirrors=(internet.url("/w.pth?2"),)))
    assert "free some space" in caught.value.hint
    assert kept() == []
    assert len(internet.asked) == 1  # a mirror's file is as large
    part(internet, BYTES[:HALF])
    assert fetch(meant(internet)).read_bytes() == BYTES  # the rest fits


class Full:
    """A file on a disk that takes only so much."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, chunk: bytes) -> None:
        self.room -= self.file.write(chunk[: self.room])
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_meanwhile(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Path.open
    with monkeypatch.context() as patched:
        patched.setattr(
            Path,
            "open",
            lambda path, mode="r", *more, **named: Full(usual(path, mode), HALF) if mode == "ab" else usual(path, mode, *more, **named),
        )
        with pytest.raises(RunFailed, match="no room for ") as caught:
            fetch(meant(internet))
    assert "free some space" in caught.value.hint
    assert kept() == []
    assert fetch(meant(internet)).read_bytes() == BYTES


# ---- processes

FETCH = """
import sys
from sslrob.fetching import fetch
from sslrob.zoo import Weights
assert "torch" not in sys.modules
print("ready", flush=True)
print(fetch(Weights(url=sys.argv[1], sha256=sys.argv[2])), flush=True)
"""


def process(internet: Internet, sum: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, internet.url(), sum]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_download_once(internet: Internet) -> None:
    internet.pages["/w.pth"].wait = threading.Event()
    both = [process(internet, "unknown"), process(internet, digest(BYTES))]
    until(lambda: len(internet.asked) == 1)
    time.sleep(0.2)
    internet.pages["/w.pth"].wait.set()
    said = [one.communicate(timeout=20) for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert {out for out, _ in said} == {f"{fetching.path_of(meant(internet), digest(BYTES))}\n"}
    assert len(internet.asked) == 1
    assert fetch(meant(internet), offline=True).read_bytes() == BYTES


def test_a_killed_process_is_gone_on_from(internet: Internet) -> None:
    internet.pages["/w.pth"].wait = threading.Event()
    killed = process(internet, digest(BYTES))
    left = fetching.part_of(meant(internet))
    until(lambda: left.exists() and left.stat().st_size > 190_000)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    have = left.stat().st_size
    internet.pages["/w.pth"].wait.set()
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert internet.starts() == [0, have]
    assert kept() == [f"{digest(BYTES)[:16]}-w.pth"]


def test_ctrl_c_keeps_what_came(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*anything: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(download.os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(meant(internet))
    assert fetching.part_of(meant(internet)).stat().st_size == len(BYTES)
    assert fetch(meant(internet)).read_bytes() == BYTES
    assert len(internet.asked) == 1


def test_waiting_for_another_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(locks, "SILENT", 0.05)
    free = threading.Event()

    def other() -> None:
        with locks.held(tmp_path / "a.lock", "a"):
            free.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    until((tmp_path / "a.lock").exists)
    threading.Timer(0.2, free.set).start()
    with locks.held(tmp_path / "a.lock", "a.pth"):
        assert free.is_set()
    thread.join()
    assert capsys.readouterr().err == "note:  waiting for another process that works on a.pth\n"


# ---- what is here already


def test_a_file_of_torch_is_used_if_it_is_the_one(internet: Internet, tmp_path: Path) -> None:
    file = tmp_path / "torch" / "hub" / "checkpoints" / "w.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(BYTES)
    assert fetch(meant(internet)) == file
    assert fetch(meant(internet, sha256="unknown", published_hash=f"sha256:{digest(BYTES)[:8]}"), offline=True) == file
    assert internet.asked == []
    file.write_bytes(OTHER)
    assert fetch(meant(internet)) != file
    assert file.read_bytes() == OTHER


def test_offline_only_the_cache_counts(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    for weights, hint in (
        (meant(internet), f"put the file at .*{digest(BYTES)[:16]}-w.pth"),
        (meant(internet, sha256="unknown"), "unset SSLROB_OFFLINE, or fetch it before: sslrob zoo fetch NAME"),
    ):
        with pytest.raises(RunFailed, match="is not in the cache, and downloads are off") as caught:
            fetch(weights, offline=True)
        assert re.search(hint, caught.value.hint)
    path = fetch(meant(internet))
    monkeypatch.setenv("SSLROB_OFFLINE", "1")
    assert fetch(meant(internet)) == path
    assert len(internet.asked) == 1


# ---- checksums that nobody publishes


def test_an_unknown_sum_is_pinned_at_the_first_download(internet: Internet, capsys: pytest.CaptureFixture[str]) -> None:
    weights = meant(internet, sha256="unknown")
    with without_downloads():
        assert summed(weights) == weights
    assert internet.asked == []
    assert summed(weights) == meant(internet)
    told = capsys.readouterr().err
    assert told == f"warning: nobody publishes the sha256 of {internet.url()}; {digest(BYTES)} is pinned in {pins.path()}\n"
    path = fetch(weights)
    assert path == fetch(meant(internet))
    assert summed(weights) == meant(internet)
    assert len(internet.asked) == 1
    assert capsys.readouterr().err == ""
    pin = json.loads(pins.path().read_text())[internet.url()]
    assert (pin["sha256"], pin["size"]) == (digest(BYTES), len(BYTES))
    path.unlink()
    assert fetch(weights).read_bytes() == BYTES


@pytest.mark.parametrize("settled", [True, False])
def test_a_file_that_is_not_the_pinned_one(internet: Internet, settled: bool) -> None:
    weights = meant(internet, sha256="unknown")
    fetch(weights).unlink()
    internet.pages["/w.pth"].content = OTHER
    with pytest.raises(SslrobError, match=f"has sha256 {digest(OTHER)}, not {digest(BYTES)}: it is not the file that was downl") as caught:
        fetch(summed(weights) or weights if settled else weights)
    assert caught.value.hint == f"the file behind it has changed; if you trust the new one, remove its lines from {str(pins.path())!r}"
    assert kept() == []
    pins.path().unlink()
    assert fetch(weights).read_bytes() == OTHER


@pytest.mark.parametrize("content", [BYTES, OTHER])
def test_of_two_processes_that_pin_at_once_the_first_is_right(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    weights, late = meant(internet, sha256="unknown"), tmp_path / "late.pth"
    fetch(weights)
    late.write_bytes(content)
    before, real, looks = pins.path().read_text(), pins.pinned, iter([None])  # the first look is before the other process has written
    monkeypatch.setattr(pins, "pinned", lambda weights: next(looks, real(weights)))
    if content == BYTES:
        pins.pin(weights, late)
    else:
        with pytest.raises(SslrobError, match="was downloaded here before"):
            pins.pin(weights, late)
    assert pins.path().read_text() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"http://x": {"sha256": "12"}}', '{"http://x": 3}'])
def test_pins_that_are_damaged_are_not_overwritten(internet: Internet, content: str) -> None:
    pins.path().parent.mkdir(parents=True, exist_ok=True)
    pins.path().write_text(content)
    with pytest.raises(SslrobError, match="is no file of pinned checksums"):
        fetch(meant(internet, sha256="unknown"))
    assert pins.path().read_text() == content


# ---- the Hugging Face hub


@pytest.fixture
def hf(internet: Internet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Page:
    """`org/net`, one file."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", internet.url(""))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    page = Page(tag=f'"{digest(BYTES)}"', headers={"X-Repo-Commit": "c" * 40})
    internet.pages["/org/net/resolve/main/model.safetensors"] = page
    return page


def test_a_file_of_the_hub(internet: Internet, hf: Page, tmp_path: Path) -> None:
    weights = Weights(hf="org/net", sha256="unknown")
    with pytest.raises(RunFailed, match="'hf:org/net' is not in the cache, and downloads are off"):
        fetch(weights, offline=True)
    path = fetch(weights)
    assert path.read_bytes() == BYTES
    assert path.name == "model.safetensors"
    assert path.is_relative_to(tmp_path / "hf")
    asked = len(internet.asked)
    assert fetch(Weights(hf="org/net", sha256=digest(BYTES)), offline=True) == path
    assert summed(weights) == Weights(hf="org/net", sha256=digest(BYTES))
    assert len(internet.asked) == asked
    path.resolve().write_bytes(OTHER)  # somebody damages it
    assert fetch(weights).read_bytes() == BYTES
    assert kept() == []


def test_two_at_once_download_a_file_of_the_hub_once(internet: Internet, hf: Page) -> None:
    hf.delay = 0.1
    with ThreadPoolExecutor(2) as both:
        paths = list(both.map(fetch, [Weights(hf="org/net", sha256="unknown")] * 2))
    assert paths[0] == paths[1]
    assert [asked.method for asked in internet.asked] == ["HEAD", "HEAD", "GET"]


def test_another_file_of_the_hub_than_is_meant(internet: Internet, hf: Page) -> None:
    with pytest.raises(SslrobError, match=f"'hf:org/net' has sha256 {digest(BYTES)}, not {'1' * 64}"):
        fetch(Weights(hf="org/net", sha256="1" * 64))
    mirrored = Weights(hf="org/other@v2", sha256=digest(BYTES), mirrors=(internet.url(),))
    assert fetch(mirrored).read_bytes() == BYTES
    assert kept() == [f"{digest(BYTES)[:16]}-model.safetensors"]


@pytest.mark.parametrize(
    ("code", "said", "hint"),
    [
        ("GatedRepo", "'hf:org/net/model.safetensors' is only for those who accepted its terms", "hf auth login"),
        ("RepoNotFound", "no repository 'org/net' is on the hub, or it is private", "hf auth login"),
        ("EntryNotFound", "'org/net' has no file 'model.safetensors'", "/tree/main"),
        ("RevisionNotFound", "'org/net' has no revision", "/commits/main"),
    ],
)
def test_what_the_hub_refuses(internet: Internet, hf: Page, code: str, said: str, hint: str) -> None:
    hf.statuses, hf.headers = [{"GatedRepo": 403}.get(code, 404)] * 9, {"X-Error-Code": code}
    with pytest.raises(SslrobError, match=said) as caught:
        fetch(Weights(hf="org/net", sha256="unknown"))
    assert hint in caught.value.hint


def test_a_page_in_the_cache_of_the_hub_is_not_kept(internet: Internet, hf: Page) -> None:
    hf.content = BROKEN["page"]
    with pytest.raises(SslrobError, match="'hf:org/net' is not a whole checkpoint: it is a web page"):
        fetch(Weights(hf="org/net", sha256="unknown"))
    assert not pins.path().exists()
    hf.content, hf.tag = BYTES, '"another"'
    assert fetch(Weights(hf="org/net", sha256="unknown")).read_bytes() == BYTES


def test_without_a_network_the_hub_is_asked_once(hf: Page, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    logger = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, caplog.handler])
    begun = time.monotonic()
    with pytest.raises(RunFailed, match=r"cannot download 'hf:org/net/model\.safetensors'"):
        fetch(Weights(hf="org/net", sha256="unknown"))
    assert time.monotonic() - begun < 3  # the library itself would wait for 23 seconds between its attempts
    assert caplog.messages == []


# ---- what layouts make of a file


class Halves(Layout):
    version = 3
    reads: ClassVar[list[Path]] = []

    def read(self, path: Path) -> dict[str, Any]:
        import torch

        self.reads.append(path)
        return {"body": torch.arange(4.0).reshape(2, 2).T, "head": torch.full((3,), float("nan"))}

    def backbone(self, found: Any) -> dict[str, Any]:
        return {"conv.weight": found["body"]}

    def head(self, found: Any) -> dict[str, Any]:
        return {"head.weight": found["head"]}


@pytest.fixture
def halves(internet: Internet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    class Plugins:
        def get(self, kind: str, name: str) -> type[Layout]:
            assert (kind, name) == ("layout", "halves")
            return Halves

    monkeypatch.setattr(converted, "installed", Plugins)
    monkeypatch.setattr(Halves, "reads", [])
    (tmp_path / "w.bin").write_bytes(BYTES)
    return tmp_path / "w.bin"


def test_conversions_are_kept(halves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sslrob import weights

    meant = Weights(file=halves, layout="halves")
    first, again = weights.read(meant), weights.read(meant)
    assert first.keys() == again.keys() == {"conv.weight"}
    assert again["conv.weight"].tolist() == first["conv.weight"].tolist() == [[0, 2], [1, 3]]
    assert len(Halves.reads) == 1
    name = f"{digest(BYTES)[:16]}-halves-v3-backbone.safetensors"
    assert kept() == [name, f"{name}.sha256"]
    path = converted.folder() / name
    whole = path.read_bytes()
    for damage in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damage)
        assert weights.read(meant)["conv.weight"].tolist() == [[0, 2], [1, 3]]
        assert path.read_bytes() == whole
    monkeypatch.setattr(Halves, "version", 4)
    weights.read(meant)
    assert len(Halves.reads) == 5
    with pytest.raises(SslrobError, match=r"tensor 'head\.weight' of .* holds NaN"):
        weights.read(meant, "head")
    assert not [name for name in kept() if "head" in name]


def test_conversions_that_cannot_be_kept(halves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sslrob import weights

    fetching.cache().parent.mkdir(exist_ok=True)
    fetching.cache().write_text("a file where the folder should be")
    assert weights.read(Weights(file=halves, layout="halves")).keys() == {"conv.weight"}
    assert "cannot be kept for the next time" in capsys.readouterr().err


# ---- the commands


@pytest.fixture
def zoo(internet: Internet, tmp_path: Path) -> Path:
    """A zoo file: a family of two, one of them with a head in the same file, and one with weights of its own."""
    shipped = tmp_path / "own.bin"
    shipped.write_bytes(b"12345")
    internet.pages["/v.pth"] = Page(OTHER)
    net = {"use": "mini-resnet", "license": "MIT", "family": "fetched"}
    data = {"task": "classification", "format": "f", "path": ".", "threat_model": "linf:1/255", "license": "MIT"}
    entries = {
        "schema": 1,
        "backbones": {
            "net-a": {
                **net,
                "license": "CC-BY-NC-4.0",
                "default": True,
                "weights": {"url": internet.url(), "sha256": "unknown", "size": len(BYTES)},
            },
            "net-b": {**net, "weights": {"url": internet.url("/v.pth"), "sha256": digest(OTHER)}},
            "net-c": {"use": "mini-resnet", "license": "MIT", "weights": {"file": "own.bin"}},
            "net-d": {"use": "mini-resnet", "license": "MIT"},
        },
        "datasets": {"things": data},
        "heads": {
            "net-a-linear": {
                "backbone": "net-a",
                "dataset": "things",
                "kind": "linear",
                "protocol": "linear",
                "weights": {"url": internet.url(), "sha256": "unknown"},
            }
        },
    }
    path = tmp_path / "zoo.yaml"
    path.write_text(json.dumps(entries))
    return path


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert cli.run([str(word) for word in words]) == code
    return capsys.readouterr().out


def test_zoo_fetch(internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry = said(capsys, "zoo", "fetch", "fetched", "net-c", "net-d", "--all", "--zoo", zoo, "--dry-run")
    assert "✓ backbone  net-a  to be downloaded, 0.4 MB, CC-BY-NC-4.0 (nc)\n" in dry
    assert "✓ backbone  net-d  has no weights to fetch\n" in dry
    assert dry.endswith("1 file here, 0.0 MB; 2 files to download, 0.4 MB and 1 of a size that is not published\n")
    assert internet.asked == []
    out = said(capsys, "zoo", "fetch", "fetched", "--all", "--heads", "--zoo", zoo)
    assert "✓ backbone  net-a         downloaded, 0.4 MB, CC-BY-NC-4.0 (nc)\n" in out
    assert "✓ head      net-a-linear  already here, 0.4 MB\n" in out
    assert out.endswith("2 files here, 0.8 MB; 2 files downloaded now, 0.8 MB\n")
    assert len(internet.asked) == 2
    rows = [json.loads(line) for line in said(capsys, "zoo", "fetch", "net-a", "net-c", "--offline", "--json", "--zoo", zoo).splitlines()]
    os.environ.pop("SSLROB_OFFLINE")
    assert [(row["name"], row["state"], row["size"]) for row in rows] == [("net-a", "cached", len(BYTES)), ("net-c", "shipped", 5)]
    assert len(internet.asked) == 2


def test_a_family_is_its_first_choice_alone(internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "net-b" not in said(capsys, "zoo", "fetch", "fetched", "--zoo", zoo)
    assert [asked.path for asked in internet.asked] == ["/w.pth"]


def test_a_dry_run_downloads_nothing_and_the_run_knows_its_id(internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--backbone", "net-a", "--dataset", "things", "--attack", "pgd", "--dry-run", "--zoo", zoo]
    assert "its folder is known when its weights are: sslrob zoo fetch net-a net-a-linear" in said(capsys, *words)
    assert json.loads(said(capsys, *words, "--json"))["folder"] is None
    assert internet.asked == []
    spec = resolve(Words(backbone="net-a", dataset="things", attack="pgd"), zoo_files.load([zoo]), installed())
    assert spec.unpinned == []
    assert spec.backbone is not None
    assert spec.backbone.weights == Weights(url=internet.url(), size=len(BYTES), sha256=digest(BYTES))
    assert len(internet.asked) == 1
    assert json.loads(said(capsys, *words, "--json"))["folder"] == f"runs/{spec.name}"
    elsewhere = Weights(url=internet.url("/elsewhere"), sha256=digest(BYTES), published_hash="md5:123456", mirrors=("http://x/y",))
    assert spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"weights": elsewhere})}).id == spec.id


def test_zoo_fetch_goes_on_after_a_failure(internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    internet.pages.pop("/w.pth")
    out = said(capsys, "zoo", "fetch", "fetched", "--all", "--zoo", zoo, code=1)
    assert re.search(
        r"✗ backbone  net-a  failed, 0.4 MB, CC-BY-NC-4\.0 \(nc\)\n  problem: .* answers 404 Not Found\n  hint:    check the url", out
    )
    assert "✓ backbone  net-b  downloaded" in out
    assert cli.run(["zoo", "fetch", "net-x", "--zoo", str(zoo)]) == 2
    assert "no entry with weights is named 'net-x'" in capsys.readouterr().err


def test_a_page_that_was_pinned_is_not_here(internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Weights(url=internet.url(), size=len(BYTES), sha256="unknown")
    page = BROKEN["page"].ljust(len(BYTES))
    path = fetching.path_of(weights, digest(page))
    path.parent.mkdir(parents=True)
    path.write_bytes(page)
    pins.pin(weights, path)
    out = said(capsys, "zoo", "fetch", "net-a", "--zoo", zoo, code=1)
    assert "is not a whole checkpoint: it is a web page (Log in)" in out
    assert f"hint:    remove '{path}', and the lines of '{internet.url()}' in '{pins.path()}'; then fetch it again" in out
    assert out.endswith("nothing was fetched\n")
    assert f"remove '{path}', and the lines of" in said(capsys, "zoo", "verify", "net-a", "--zoo", zoo, code=1)
    with pytest.raises(SslrobError, match="is not a whole checkpoint: it is a web page"):  # as a run does, whose spec has the sum
        fetch(Weights(url=internet.url(), sha256=digest(page)))


def test_who_waited_did_not_download_and_damage_is_told(
    internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(url=internet.url("/v.pth"), sha256=digest(OTHER))
    assert fetching.obtain(weights) == (fetching.path_of(weights, digest(OTHER)), True)
    real, looks = fetching.there, iter([None])  # the first look is before the other process has it
    with monkeypatch.context() as patched:
        patched.setattr(fetching, "there", lambda weights: next(looks, real(weights)))
        patched.setattr(fetching, "_tell_of_damage", lambda weights: None)
        assert "already here" in said(capsys, "zoo", "fetch", "net-b", "--zoo", zoo)
    fetching.path_of(weights, digest(OTHER)).write_bytes(BYTES)
    assert cli.run(["zoo", "fetch", "net-b", "--zoo", str(zoo)]) == 0
    assert "is not used: its checksum is wrong" in capsys.readouterr().err


def test_hints_are_about_the_command(
    internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLROB_OFFLINE", "0")
    monkeypatch.delenv("SSLROB_DATA", raising=False)
    assert "leave --offline out, or fetch it before: sslrob zoo fetch net-a\n" in said(
        capsys, "zoo", "fetch", "net-a", "--offline", "--zoo", zoo, code=1
    )
    out = said(capsys, "zoo", "fetch", "simclr-v2-r50", code=1)
    assert "SSLROB_DATA is not set" in out
    assert "export SSLROB_DATA=FOLDER, the folder that holds simclr-v2/r50_1x_sk0.zip" in out
    assert "gsutil cp -r" in out
    assert cli.run(["zoo", "fetch", "imagenet"]) == 2
    assert "data sets are not fetched" in capsys.readouterr().err


def test_an_added_file_that_moved(internet: Internet, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.bin").unlink()
    out = said(capsys, "zoo", "verify", "net-c", "--zoo", zoo, code=1)
    assert f"put the file there again, or correct its path in {zoo}" in out


def test_zoo_prune(internet: Internet, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "zoo", "prune", "--zoo", zoo) == "nothing to remove\n"
    said(capsys, "zoo", "fetch", "fetched", "--all", "--zoo", zoo)
    stray = fetch(Weights(url=internet.url("/w.pth?old"), sha256=digest(BYTES)))
    internet.pages["/x.pth"] = Page(b"old", tag="")
    old = fetch(Weights(url=internet.url("/x.pth"), sha256=digest(b"old")))
    part(internet, BYTES[:HALF])
    before = kept()
    dry = said(capsys, "zoo", "prune", "--dry-run", "--zoo", zoo)
    assert f"{old}  (no entry names it)" in dry
    assert f"0.2 MB  {fetching.part_of(meant(internet))}  (a download or a conversion that was cut)" in dry
    assert dry.endswith("2 files, 0.2 MB\n")
    assert cli.run(["zoo", "prune", "--zoo", str(zoo)]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert kept() == before
    with locks.held(fetching.lock_of(fetching.part_of(meant(internet))), "it"):
        assert "that was cut" not in said(capsys, "zoo", "prune", "--dry-run", "--zoo", zoo)
    assert said(capsys, "zoo", "prune", "--yes", "--zoo", zoo).endswith("0.2 MB are free again\n")
    assert kept() == sorted([stray.name, f"{digest(OTHER)[:16]}-v.pth"])
