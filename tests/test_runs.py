"""A run survives kills, full disks and other writers, and never mixes questions."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sslrob.errors import RunFailed, SslrobError
from sslrob.runs import Run

QUESTION = "question-1", {"attack": "pgd"}, {"torch": "2"}


def row(i, **more):
    return {"id": f"{i:05}", "value": i, **more}


def ids(run):
    return [r["id"] for r in run.rows()]


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "runs" / "one")
    run.open(*QUESTION)
    return run


def in_another_process(code, *arguments, **keywords):
    """A Python process that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **keywords,
    )


def test_rows_come_back_in_the_order_of_their_ids(run):
    run.append([row(3), row(1)])
    run.append([row(2, text="naïve ✓\nline")])
    assert run.rows() == [row(1), row(2, text="naïve ✓\nline"), row(3)]
    assert run.count() == 3
    assert Run(run.folder).rows() == run.rows()


def test_a_new_run_has_no_rows(run):
    assert run.rows() == []
    assert run.count() == 0


def test_the_record_says_started_before_any_work_and_finished_after(run):
    assert run.record() == {"format": 1, "status": "started", "id": "question-1", "spec": {"attack": "pgd"}, "provenance": {"torch": "2"}}
    run.fail(ValueError("broke"))
    assert (run.record()["status"], run.record()["error"]) == ("failed", "ValueError: broke")
    finished = run.finish(results={"top1": 50.0})
    assert finished == run.record()
    assert (finished["status"], finished["results"]) == ("finished", {"top1": 50.0})
    assert "error" not in finished


def test_the_same_question_goes_on(run):
    run.append([row(1)])
    before = Run(run.folder).open(*QUESTION)
    assert before["status"] == "started"
    assert ids(run) == ["00001"]


def test_another_question_is_refused_and_harms_nothing(run):
    run.append([row(1)])
    run.finish()
    files = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(SslrobError, match="another question") as caught:
        Run(run.folder).open("question-2", {"attack": "fgsm"}, {})
    assert caught.value.hint
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == files


@pytest.mark.parametrize("tear", [1, 5, 20])
def test_a_torn_last_line_is_dropped_and_written_again(run, tear):
    run.append([row(i) for i in range(3)])
    with run.rows_path.open("rb+") as file:
        file.truncate(run.rows_path.stat().st_size - tear)
    assert ids(run) == ["00000", "00001"]
    run.append([row(2), row(3)])
    assert run.rows() == [row(i) for i in range(4)]


def test_a_file_that_is_one_torn_line(run):
    run.rows_path.write_bytes(b'{"id": "x' * 20_000)  # longer than a block
    assert run.rows() == []
    run.append([row(1)])
    assert run.rows() == [row(1)]


def test_a_row_longer_than_a_block(run):
    rows = [row(1, text="x" * 200_000), row(2, text="y" * 70_000)]
    run.append(rows)
    run.append([row(3)])
    assert run.rows() == [*rows, row(3)]


@pytest.mark.parametrize("line", ["garbage", '{"no": "id"}', "3", ""])
def test_a_damaged_line_is_named(run, line):
    run.append([row(1)])
    with run.rows_path.open("a") as file:
        file.write(f"{line}\n")
    run.append([row(2)])
    with pytest.raises(SslrobError, match=r"images\.jsonl:2: not a row"):
        run.rows()


@pytest.mark.parametrize(("text", "says"), [("{", "is damaged"), ("[]", "not of run format"), ('{"format": 99}', "not of run format")])
def test_a_damaged_record_is_named(run, text, says):
    run.record_path.write_text(text)
    with pytest.raises(SslrobError, match=says):
        run.record()
    with pytest.raises(SslrobError, match=says):
        run.open(*QUESTION)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(SslrobError, match="is not a run"):
        Run(tmp_path).record()


WRITER = """
import sys
from pathlib import Path
from sslrob.runs import Run

folder, name, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
run = Run(Path(folder))
for i in range(count):
    run.append([{"id": f"{name}-{i:04}-{j}", "pad": "x" * size} for j in range(3)])
"""


def test_two_writers_at_once_lose_nothing(run):
    writers = [in_another_process(WRITER, run.folder, name, 60, 500) for name in "ab"]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    assert len(run.rows()) == run.count() == 2 * 60 * 3
    assert len(run.rows_path.read_bytes().splitlines()) == 360


def test_kill_at_any_moment_loses_no_row_that_was_written(run):
    """Killed in the middle of its writing, three times; whatever was whole stays, and what follows is whole too."""
    for attempt in range(3):
        writer = in_another_process(WRITER, run.folder, f"w{attempt}", 100_000, 20_000)
        before = run.count()
        deadline = time.monotonic() + 30
        while run.count() < before + 6 * (attempt + 1) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        kept = ids(run)
        assert len(kept) >= before + 6 * (attempt + 1)
        run.append([row(attempt)])
        assert set(ids(run)) == {*kept, f"{attempt:05}"}


def evaluate_toy(folder, die_after):
    """Attack a toy in batches of two; killed before the rows of batch `die_after` are written."""
    from sslrob.builtin.gradient import PGD
    from sslrob.data import batches
    from sslrob.evaluate import Question, evaluate
    from sslrob.testing import toys
    from sslrob.threat_model import Linf

    toy, run = toys()["classification"], Run(folder)
    run.open("toy", {}, {})
    done = {row["id"] for row in run.rows()}
    question = Question(toy.task, toy.victim, PGD(steps=5), Linf(4 / 255))
    for number, part in enumerate(evaluate(question, batches(toy.dataset, 2, done=done)), 1):
        if number == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        run.append(part.rows)
    run.finish()
    return run


KILLED = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("this", sys.argv[1])
this = importlib.util.module_from_spec(spec)
spec.loader.exec_module(this)
this.evaluate_toy(Path(sys.argv[2]), die_after=2)
"""


def test_an_evaluation_that_was_killed_and_resumed_is_the_uninterrupted_one(tmp_path):
    killed = in_another_process(KILLED, __file__, tmp_path / "resumed")
    whole = evaluate_toy(tmp_path / "whole", die_after=0)
    _, errors = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, errors
    half = Run(tmp_path / "resumed")
    assert (half.record()["status"], ids(half)) == ("started", ["toy-000", "toy-001"])
    resumed = evaluate_toy(tmp_path / "resumed", die_after=0)
    assert len(whole.rows()) == 6
    assert resumed.rows_path.read_bytes() == whole.rows_path.read_bytes()
    record = resumed.record()
    assert len(record.pop("earlier")) == 1  # who wrote the first rows
    assert record == whole.record()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from sslrob.errors import RunFailed
from sslrob.runs import Run

run, limit, rows = Run(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    run.append([{"id": f"new-{i}", "pad": "x" * 300} for i in range(rows)])
except RunFailed as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("rows", [1, 5, 100], ids=["part-of-a-row", "some-rows", "more-than-a-buffer"])
def test_a_full_disk_leaves_the_rows_that_were_there(run, rows):
    """A limit on the size of files stands in for the disk: both break a write off in the middle."""
    run.append([row(1), row(2)])
    before = run.rows_path.read_bytes()
    process = in_another_process(FULL_DISK, run.folder, len(before) + (100 if rows == 1 else 700), rows)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "")
    assert "cannot write to" in out
    assert run.rows_path.read_bytes() == before
    run.append([row(3)])
    assert ids(run) == ["00001", "00002", "00003"]


def test_a_full_disk_is_told_with_what_to_do(run, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    run_before = run.rows()
    with pytest.raises(RunFailed, match="No space left on device") as caught:
        run.append([row(1)])
    assert "free some space" in caught.value.hint
    assert run.rows() == run_before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write to"):
        Run(tmp_path / "file" / "run").open(*QUESTION)


def test_a_record_that_could_not_be_written_leaves_the_old_one(run, monkeypatch):
    from pathlib import Path

    before = run.record()

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunFailed):
        run.finish(results={})
    assert run.record() == before


ALONE = """
import sys
from pathlib import Path
from sslrob.runs import Run

with Run(Path(sys.argv[1])).alone():
    print("holding", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_where_it_asks_to_be_alone(run):
    holder = in_another_process(ALONE, run.folder, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "holding\n"
    with pytest.raises(SslrobError, match="another process is working on"), run.alone():
        pass
    holder.communicate("", timeout=60)
    with run.alone():
        pass


def test_a_killed_process_holds_nothing(run):
    holder = in_another_process(ALONE, run.folder, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "holding\n"
    holder.kill()
    holder.communicate()
    with run.alone():
        pass


def test_rows_are_plain_json_lines(run):
    run.append([row(1)])
    assert [json.loads(line) for line in run.rows_path.read_text().splitlines()] == [row(1)]
