"""Ctrl-C is obeyed, whoever swallows exceptions."""

import os
import signal
import time
from importlib import import_module

import pytest

from sslrob.cli.stopping import AGAIN, stoppable

SWALLOWING = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    pass
"""


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as Python hears it by default; worker processes of the test suite are deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def swallowed(tmp_path, monkeypatch):
    """Imports a module that is stopped by Ctrl-C and drops that."""
    monkeypatch.syspath_prepend(tmp_path)

    def imported(name, more=""):
        (tmp_path / f"{name}.py").write_text(SWALLOWING + more)
        import_module(name)

    return imported


def test_ctrl_c_that_an_import_swallows_comes_again(swallowed):
    went_on = []

    def command():
        swallowed("swallowing")
        went_on.append(True)
        time.sleep(20 * AGAIN)

    with pytest.raises(KeyboardInterrupt), stoppable():
        command()
    assert went_on


def test_what_fails_since_an_import_was_stopped_is_no_error_of_its_own(swallowed):
    with pytest.raises(KeyboardInterrupt), stoppable():
        swallowed("failing", "raise ImportError('numpy is half imported')")


def test_elsewhere_it_stops_at_once_and_all_is_as_before():
    def command():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stoppable():
        command()
    assert time.monotonic() - began < 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), stoppable():
        raise ZeroDivisionError


def test_whoever_ignores_ctrl_c_goes_on_doing_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
