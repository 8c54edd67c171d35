"""What the tests share: a store of their own, and the tool as a real process."""

import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from orders import Notice, bootstrap, cli


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
    """Run the tool as a process of its own; returns the completed process, output as text."""

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


@pytest.fixture
def screen(terminal):
    """Run the tool to its end on a terminal; returns its exit status and all that it showed."""

    def run(*arguments, **options):
        child = terminal(*arguments, **options)
        child.expect(pexpect.EOF)
        child.close()
        return child.exitstatus, child.before.replace("\r\n", "\n")

    return run


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


@pytest.fixture
def tool(fork, data, tmp_path):
    """As `orders`, in a fork: for tests that run the tool hundreds of times."""

    def main(arguments, env, output, errors):
        for stream, number in ((output, 1), (errors, 2)):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.update(env)
        sys.argv = ["orders", *arguments]
        cli.main()

    def run(*arguments, env=(), data=data, stdout=None):
        output, errors = stdout or tmp_path / "stdout", tmp_path / "stderr"
        environment = {"ORDERS_DATA": str(data), **dict(env)}
        returncode = fork(main, arguments, environment, output, errors).wait()
        text = "" if stdout else output.read_text("utf-8")
        return subprocess.CompletedProcess(arguments, returncode, text, errors.read_text("utf-8"))

    return run
