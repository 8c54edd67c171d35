"""Nothing is left of a demo that was killed: somebody clears up, and takes nobody else's."""

import os
import signal
import subprocess
import time
from pathlib import Path
from shutil import which

import psutil

from orders.demos import remains
from orders.demos.workspace import Workspace, play_in
from orders.messaging.message import new_id

SLEEP = which("sleep")


def is_alive(process):
    """Return whether a process of anybody's is at work, and not only waiting to be buried."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Demo:
    """A demo in a process of its own, with a server and somebody whom it talks to.

    `watcher` is whom it has look after them.
    """

    def __init__(self, fork, command=(SLEEP, "1000"), ending=signal.SIGKILL):
        reading, writing = os.pipe()
        self._child = fork(self._play, command, ending, writing)
        os.close(writing)
        with os.fdopen(reading) as lines:
            told = lines.readline().split()
        self.watcher, self.server, self.partner = map(int, told)

    def _play(self, command, ending, writing):
        place = Workspace()

        def scenario():
            place.begin("server", *command, ending=ending)
            place.start("-c", "import time; time.sleep(1000)")
            os.write(writing, " ".join(str(one.pid) for one in place._processes).encode() + b"\n")
            time.sleep(1000)

        play_in(place, scenario)

    def kill(self):
        self._child.kill()
        self._child.wait()

    def kill_all(self):
        """Kill it and whoever looks after it; only then can that one do nothing."""
        os.kill(self.watcher, signal.SIGSTOP)
        self.kill()
        os.kill(self.watcher, signal.SIGKILL)
        wait_until(lambda: not is_alive(self.watcher))


def test_a_killed_demo_is_cleared_up_after_at_once(fork, empty):
    demo = Demo(fork)
    assert [*empty.iterdir()] != []
    demo.kill()
    wait_until(lambda: not any(map(is_alive, (demo.server, demo.partner, demo.watcher))))
    assert [*empty.iterdir()] == []


def test_a_directory_is_known_for_a_demos_until_nothing_else_is_in_there(empty, monkeypatch):
    left, unlink = [], os.unlink

    def look(name, **options):
        if Path(name).name == remains.LOCK:
            left.extend(path.name for path in directory.iterdir())
        unlink(name, **options)

    directory = empty / "demo"
    directory.mkdir()
    os.close(remains.mark(directory))
    for number in range(50):
        (directory / f"{number}").mkdir()
        (directory / f"{number}" / "file").touch()
        (directory / f"{number}.txt").touch()
    monkeypatch.setattr(os, "unlink", look)
    remains.remove(directory)
    assert left == [remains.LOCK]
    assert not directory.exists()


def test_the_next_demo_clears_up_after_one_that_was_killed_with_its_watcher(fork, empty):
    demo = Demo(fork)
    demo.kill_all()
    assert is_alive(demo.server)
    assert len([*empty.iterdir()]) == 1
    play_in(Workspace(), lambda: None)
    assert not is_alive(demo.server)
    assert [*empty.iterdir()] == []


def test_a_demo_at_work_is_left_alone(fork, empty):
    demo = Demo(fork)
    play_in(Workspace(), lambda: None)
    assert is_alive(demo.server)
    assert len([*empty.iterdir()]) == 1
    demo.kill()
    wait_until(lambda: not is_alive(demo.watcher))


def test_a_server_that_does_not_end_by_itself_is_killed(fork, empty, monkeypatch):
    monkeypatch.setattr(remains, "PATIENCE", 0.1)
    demo = Demo(fork, ("/bin/sh", "-c", f"trap '' QUIT; exec {SLEEP} 1000"), signal.SIGQUIT)
    wait_until(lambda: "sleep" in name_of(demo.server))
    demo.kill_all()
    remains.clear_all()
    assert not is_alive(demo.server)
    assert [*empty.iterdir()] == []


def test_a_server_may_tidy_up(fork, empty, tmp_path):
    begun, tidy = tmp_path / "begun", tmp_path / "tidy"
    script = f"trap 'touch {tidy}; exit' QUIT; touch {begun}; while :; do {SLEEP} 0.01; done"
    demo = Demo(fork, ("/bin/sh", "-c", script), signal.SIGQUIT)
    wait_until(begun.exists)
    demo.kill_all()
    remains.clear_all()
    assert tidy.exists()


def test_a_client_that_waits_for_its_server_is_not_waited_for(fork, empty, monkeypatch):
    monkeypatch.setattr(remains, "PATIENCE", 1000)
    demo = Demo(fork, ("/bin/sh", "-c", f"trap '' INT TERM QUIT; exec {SLEEP} 1000"))
    wait_until(lambda: "sleep" in name_of(demo.server))
    demo.kill_all()
    remains.clear_all()
    assert not is_alive(demo.server)


def name_of(process):
    return psutil.Process(process).name()


def test_who_only_looks_into_the_directory_of_a_demo_goes_on(fork, empty):
    demo = Demo(fork)
    (directory,) = empty.iterdir()
    with (directory / remains.LOCK).open() as file:
        reader = subprocess.Popen([SLEEP, "1000"], cwd=directory, pass_fds=[file.fileno()])
    demo.kill()
    wait_until(lambda: not is_alive(demo.watcher))
    assert [*empty.iterdir()] == []
    assert reader.poll() is None
    reader.kill()
    reader.wait()


def test_what_is_no_demo_but_is_called_like_one_is_left_alone(empty):
    (empty / f"{remains.PREFIX}{new_id()}").touch()
    (empty / f"{remains.PREFIX}{new_id()}" / "photographs").mkdir(parents=True)
    for name in (f"{remains.PREFIX}mine", f"{remains.PREFIX}{new_id()}.copy"):
        (empty / name).mkdir()
        (empty / name / remains.LOCK).touch()
    linked = empty / f"{remains.PREFIX}{new_id()}"
    linked.mkdir()
    (linked / remains.LOCK).symlink_to(empty / f"{remains.PREFIX}mine" / remains.LOCK)
    remains.clear_all()
    assert len([*empty.iterdir()]) == 5


def test_a_link_to_something_else_that_is_locked_is_not_followed(fork, empty, tmp_path):
    with (tmp_path / remains.LOCK).open("w+") as file:
        stranger = fork(belong_and_sleep, file.fileno())
        wait_until(lambda: remains.holder(file.fileno(), signal.SIGKILL) == stranger.pid)
        (empty / f"{remains.PREFIX}{new_id()}").symlink_to(tmp_path)
        remains.clear_all()
        assert is_alive(stranger.pid)
        assert len([*empty.iterdir()]) == 1


def belong_and_sleep(descriptor):
    remains.belong(descriptor, signal.SIGKILL)
    time.sleep(1000)


def test_the_directory_of_somebody_else_is_left_alone(empty, monkeypatch):
    directory = empty / f"{remains.PREFIX}{new_id()}"
    directory.mkdir()
    (directory / remains.LOCK).touch()
    monkeypatch.setattr("os.getuid", lambda: directory.stat().st_uid + 1)
    remains.clear_all()
    assert [*empty.iterdir()] == [directory]
    monkeypatch.undo()
