"""What the tests share: a store of their own, and the tool as a real process."""

import fcntl
import gc
import os
import pkgutil
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pexpect
import pytest

import orders as orders_package
from orders import Notice, bootstrap, cli


def pytest_collection_finish():
    """Load what commands load late, or each fork would; leave it alone in garbage collection.

    The demos stay out: among them is a plugin, which is there only once it is loaded.
    """
    for module in pkgutil.walk_packages(orders_package.__path__, "orders."):
        if not module.name.startswith(("orders.demos", "orders.__main__")):
            import_module(module.name)
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave of a test marked `sample(n)` only n cases, spread evenly, to the short form."""
    cases = {}
    for item in items:
        if (mark := item.get_closest_marker("sample")) and not item.get_closest_marker("long"):
            cases.setdefault((item.path, item.originalname), (mark.args[0], []))[1].append(item)
    for wanted, same in cases.values():
        kept = {round(place * (len(same) - 1) / max(wanted - 1, 1)) for place in range(wanted)}
        for place, item in enumerate(same):
            if place not in kept:
                item.add_marker(pytest.mark.long)


class Sales:
    """A notifier that keeps what it is told."""

    def __init__(self):
        self.notices: list[Notice] = []

    def notify(self, notice):
        self.notices.append(notice)

    @property
    def order_ids(self):
        return [notice.order_id for notice in self.notices]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    """Keep the tests away from the developer's store, terminal and colours."""
    for name in [name for name in os.environ if name.startswith("ORDERS_")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    # Or every interpreter that a test starts would compile the package anew.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path) -> Path:
    """The directory of a store that does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def sales() -> Sales:
    return Sales()


@pytest.fixture
def failures() -> list:
    """What subscribers raised: (subscriber's name, event, error)."""
    return []


@pytest.fixture
def app(data, sales, failures):
    """The order system on a fresh store, its notices kept by `sales`."""

    def note(subscriber, event, error):
        failures.append((subscriber.name, event, error))

    with bootstrap(data, notifier=sales, on_failure=note) as app:
        yield app


@pytest.fixture
def orders(data):
    """Run the tool in an interpreter of its own; returns the completed process, output as text.

    Only where the start of a process is the point: `tool` is the same and three times as fast.
    """

    def run(*arguments, input=None, env=(), data=data):  # noqa: A002 - as subprocess.run calls it
        return subprocess.run(
            [sys.executable, "-m", "orders", *arguments],
            input=input,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "ORDERS_DATA": str(data), **dict(env)},
            timeout=120,
        )

    return run


@pytest.fixture
def send(data):
    """Send commands in this process, sales hearing nothing of it; returns what they return."""

    def send(*commands, data=data):
        with bootstrap(data, notifier=Sales()) as app:
            return [app.bus.send(command) for command in commands]

    return send


@pytest.fixture
def terminal(data):
    """Start the tool on a pseudo-terminal of its own; returns the `pexpect.spawn`."""
    children = []

    def start(*arguments, columns=80, env=(), data=data):
        child = pexpect.spawn(
            sys.executable,
            ["-m", "orders", *arguments],
            dimensions=(24, columns),
            env={**os.environ, "ORDERS_DATA": str(data), **dict(env)},
            encoding="utf-8",
            timeout=60,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


class Child:
    """A process forked from this one: as real as any, without the cost of a new interpreter."""

    def __init__(self, pid):
        self.pid = pid
        self.returncode = None  # negative: killed by that signal

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        if self.returncode is None:
            _, status = os.waitpid(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


@pytest.fixture
def fork():
    """Run a function in a process of its own; returns the `Child`. None outlives the test."""
    children = []

    def start(function, *arguments):
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():  # pytest-xdist has a thread, which is idle meanwhile
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            children.append(Child(pid))
            return children[-1]
        status = 70
        try:
            signal.alarm(1800)  # nothing that hangs hangs for ever
            status = function(*arguments) or 0
        except SystemExit as exit_:
            status = exit_.code
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
            child.wait()


def be_the_tool(arguments, env, streams):
    """Make this forked process the tool, its standard streams these open files."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")  # as Python opens it
    os.environ.update(env)
    time.tzset()
    tempfile.tempdir = None  # which is looked up once
    sys.argv = ["orders", *arguments]
    cli.main()


@pytest.fixture
def tool(fork, data):
    """As `orders`, in a fork of this process, which has imported everything."""

    def main(arguments, env, streams):
        be_the_tool(arguments, env, [stream.fileno() for stream in streams])

    def read(file):
        file.seek(0)
        text = file.read().decode("utf-8", "surrogateescape")
        return text.replace("\r\n", "\n").replace("\r", "\n")  # as subprocess.run does

    def run(*arguments, input="", env=(), data=data, stdout=None):  # noqa: A002 - as `orders` does
        environment = {"ORDERS_DATA": str(data), **dict(env)}
        with (
            tempfile.TemporaryFile() as typed,
            Path(stdout).open("wb") if stdout else tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            typed.write(input.encode("utf-8", "surrogateescape"))
            typed.seek(0)
            returncode = fork(main, arguments, environment, (typed, output, errors)).wait()
            text = "" if stdout else read(output)
            return subprocess.CompletedProcess(arguments, returncode, text, read(errors))

    return run


@pytest.fixture
def screen(fork, data):
    """Run the tool to its end on a terminal, in a fork; returns its exit status and what it shows.

    `terminal` starts an interpreter, which can be talked to.
    """

    def main(arguments, env, ours, theirs):
        os.close(ours)
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        be_the_tool(arguments, env, [theirs] * 3)

    def read(descriptor):
        try:
            return os.read(descriptor, 1 << 16)
        except OSError:  # how Linux says that nobody has the terminal open any more
            return b""

    def run(*arguments, columns=80, env=(), data=data):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        child = fork(main, arguments, {"ORDERS_DATA": str(data), **dict(env)}, ours, theirs)
        os.close(theirs)
        shown = b"".join(iter(lambda: read(ours), b""))
        os.close(ours)
        return child.wait(), shown.decode("utf-8").replace("\r\n", "\n")

    return run
