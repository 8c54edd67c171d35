"""Nothing is left of a demo, whatever ends it and whenever: no file, no process."""

import os
import signal
import subprocess
import sys
from itertools import count
from shutil import which

import pytest

from orders.demos import SCENARIOS, remains, workspace
from orders.demos.playing import play
from orders.demos.workspace import ENDING, Workspace, play_in

SIMPLE = [scenario for scenario in SCENARIOS if scenario != "cluster"]  # see test_cluster


def descendants():
    """Return whether this process has children that it has not waited for."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


class SignalAt:
    """Sends this process a signal at the nth line of `workspace.py` that is run."""

    def __init__(self, nth, number):
        self.left = nth
        self.number = number

    def __call__(self, frame, event, _argument):
        if frame.f_code.co_filename != workspace.__file__ or frame.f_code.co_name == "interrupt":
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)
        return self


def interrupted_at(nth, number):
    """Play something with a file and a process, a signal coming at the nth line.

    Returns 0 if nothing is left, 1 if something is, 2 if the play has fewer lines.
    """
    for ending in ENDING:
        signal.signal(ending, signal.default_int_handler)
    place = Workspace()

    def scenario():
        (place.directory / "file").write_text("text")
        place.start()  # it would wait for input for ever
        place.begin("server", which("sleep"), "1000", ending=signal.SIGTERM)

    interruption = SignalAt(nth, number)
    sys.settrace(interruption)
    try:
        play_in(place, scenario)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    if interruption.left > 0:
        return 2
    return int(place.directory.exists() or descendants())


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.long)])
def test_a_signal_at_any_line_leaves_no_file_and_no_process(step, monkeypatch, fork, empty):
    monkeypatch.setattr("sys.executable", which("cat"))  # which starts quickly
    for nth in count(1, step):
        left = fork(interrupted_at, nth, ENDING[nth % len(ENDING)]).wait()
        assert left != 1, f"something is left of a signal at line {nth} that was run"
        if left == 2:
            break
    assert nth > 30
    assert [*empty.iterdir()] == []


def test_signals_while_the_directory_is_removed_wait_until_it_is(monkeypatch, fork, empty):
    def remove(path, *, ignore_errors):
        for number in ENDING:
            os.kill(os.getpid(), number)
        rmtree(path, ignore_errors=ignore_errors)

    def main():
        for number in ENDING:
            signal.signal(number, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            play_in(Workspace(), lambda: None)

    rmtree = remains.rmtree
    monkeypatch.setattr(remains, "rmtree", remove)
    assert fork(main).wait() == 0
    assert [*empty.iterdir()] == []


def test_a_signal_that_is_ignored_stays_ignored(fork, empty):
    def main():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        place = Workspace()
        play_in(place, lambda: os.kill(os.getpid(), signal.SIGHUP))
        return int(signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)

    assert fork(main).wait() == 0


def test_signals_mean_afterwards_what_they_meant_before(fork, empty):
    def main():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        before = [signal.getsignal(number) for number in ENDING]
        play_in(Workspace(), lambda: None)
        return int([signal.getsignal(number) for number in ENDING] != before)

    assert fork(main).wait() == 0


def test_a_directory_that_is_written_to_while_it_is_removed_is_removed(monkeypatch, empty):
    place = Workspace()
    removed = []

    def remove(path, *, ignore_errors):
        removed.append(path)
        if len(removed) == 1:  # somebody makes a file after the others were removed
            return
        rmtree(path, ignore_errors=ignore_errors)

    rmtree = remains.rmtree
    monkeypatch.setattr(remains, "rmtree", remove)
    play_in(place, lambda: None)
    assert removed == [place.directory] * 2
    assert [*empty.iterdir()] == []


def killed_after(lines, number, scenario, directory):
    """Play a scenario as a process of its own; send it a signal when it has said so much.

    Returns its exit status, and whether a process of its session is left.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "orders", "demo", scenario],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(directory)},
        start_new_session=True,
    )
    for _ in range(lines):
        process.stderr.readline()
    process.send_signal(number)
    process.communicate()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return process.returncode, False
    return process.returncode, True


@pytest.mark.parametrize(
    ("scenario", "lines", "number"),
    [
        ("tour", 9, signal.SIGTERM),
        ("crash", 3, signal.SIGHUP),
        ("race", 2, signal.SIGTERM),
        ("key", 3, signal.SIGINT),
        ("system", 4, signal.SIGTERM),
        ("plugin", 10, signal.SIGHUP),
    ],
)
@pytest.mark.sample(2)
def test_a_signal_in_the_midst_of_a_scenario_leaves_nothing(empty, scenario, lines, number):
    status, is_left = killed_after(lines, number, scenario, empty)
    assert (status, is_left) == (130, False)
    assert [*empty.iterdir()] == []


@pytest.mark.long
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("scenario", SIMPLE)
def test_a_signal_after_any_line_of_any_scenario_leaves_nothing(empty, scenario, number):
    for lines in count():
        status, is_left = killed_after(lines, number, scenario, empty)
        assert not is_left
        assert [*empty.iterdir()] == []
        if status == 0:
            break


@pytest.mark.long
@pytest.mark.parametrize("scenario", SIMPLE)
def test_every_scenario_passes_ten_times_in_a_row(fork, empty, scenario):
    from orders.cli.output import Console

    for _ in range(10):
        assert fork(lambda: play(scenario, Console()) and 0).wait() == 0
    assert [*empty.iterdir()] == []
