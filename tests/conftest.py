"""What the tests share: a store of their own, and the tool as a real process."""

import fcntl
import os
import pickle
import pty
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import warnings
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import forked
import nats_server
import pexpect
import postgresql
import psycopg
import pytest
from psycopg import sql

from orders import Notice, bootstrap

STARTED = time.monotonic()
NOT_RUN = "the time of --long-for was over"

ON_POSTGRES = 1  # test of each file that is run on both engines, in the short form
POSTGRES = os.environ.get("ORDERS_TEST_POSTGRES")  # the URL of a server to use instead of ours
NATS = os.environ.get("ORDERS_TEST_NATS")  # the same


def pytest_configure():
    """Have processes that are started hear Ctrl-C, even where `&` or nohup keeps it from us.

    And keep what is compiled, tests and tool: else each of these processes does that anew, which
    takes a process of pytest-xdist 7 seconds.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_finish():
    forked.prepare()


def pytest_addoption(parser):
    parser.addoption(
        "--long-for",
        type=float,
        metavar="SECONDS",
        help="start long tests, in an order that is another one each time, for so many seconds",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items, config):
    """Leave of a test marked `sample(n)` only n cases, spread evenly, to the short form.

    So it is with what the tests of each file do on a store in a database.
    """
    cases = {}
    for item in items:
        if item.get_closest_marker("long"):
            continue
        if mark := item.get_closest_marker("sample"):
            cases.setdefault((item.path, item.originalname), (mark.args[0], []))[1].append(item)
        if item.get_closest_marker("engines") and item.callspec.params["data"] == "postgres":
            cases.setdefault((item.path, "postgres"), (ON_POSTGRES, []))[1].append(item)
    for wanted, same in cases.values():
        kept = {round(place * (len(same) - 1) / max(wanted - 1, 1)) for place in range(wanted)}
        for place, item in enumerate(same):
            if place not in kept:
                item.add_marker(pytest.mark.long)
    if config.option.long_for:  # each process needs the same order, so that they can share them
        random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).shuffle(items)


def pytest_runtest_setup(item):
    if (seconds := item.config.option.long_for) and time.monotonic() - STARTED > seconds:
        pytest.skip(NOT_RUN)


def pytest_terminal_summary(terminalreporter, config):
    skipped = terminalreporter.stats.get("skipped", ())
    if left := sum(NOT_RUN in str(report.longrepr) for report in skipped):
        terminalreporter.write_line(f"{left} long tests were not run: {NOT_RUN}")


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of this process's own: transactions of others would hold its horizon back."""
    server = postgresql.Server()
    yield server
    server.close()


@pytest.fixture
def server():
    """A PostgreSQL for one test, which may kill it."""
    server = postgresql.Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def nats_url():
    """The URL of a nats-server that no test stops, perhaps one that others use, too."""
    if NATS:
        yield NATS
        return
    server = nats_server.Server()
    yield server.url()
    server.close()


@pytest.fixture
def start_nats():
    """Start servers for one test, which may kill them; as `nats_server.Server` is made."""
    servers = []

    def start(*arguments, **options):
        servers.append(nats_server.Server(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def stream(nats_url):
    """The name of a stream that does not exist yet on the server of `nats_url`."""
    name = f"test_{uuid4().hex}"
    yield name
    nats_server.run(nats_url, lambda jetstream: jetstream.delete_stream(name), missing=None)


@pytest.fixture(scope="session")
def new_schema(request):
    """Return the URL of a schema that does not exist yet, at each call."""
    url = POSTGRES or request.getfixturevalue("postgres").url()
    made = []

    def name_one():
        made.append(f"test_{os.getpid()}_{len(made)}")
        return f"{url}{'&' if '?' in url else '?'}schema={made[-1]}"

    yield name_one
    if POSTGRES:
        with psycopg.connect(url, autocommit=True) as connection:
            for name in made:
                statement = sql.SQL("drop schema if exists {} cascade")
                connection.execute(statement.format(sql.Identifier(name)))


@pytest.fixture
def url(postgres, new_schema):
    """The URL of a schema that does not exist yet, always on a server of ours."""
    return postgres.url(schema=new_schema().partition("schema=")[2])


@pytest.fixture
def store(url):
    """A store on such a server; files of tests for other engines have their own."""
    from orders.adapters.postgres.store import PostgresStore

    with closing(PostgresStore(url)) as store:
        yield store


@pytest.fixture
def empty(monkeypatch):
    """The directory for temporary files, with nothing in it.

    It is not one of pytest's, which are the user's alone: as root, PostgreSQL is run by another.
    """
    directory = Path(tempfile.mkdtemp(prefix="orders-tests-"))
    directory.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


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


def pytest_generate_tests(metafunc):
    """Run what is marked so on a store in a directory, and on one in a database."""
    if mark := metafunc.definition.get_closest_marker("engines"):
        marks = [getattr(pytest.mark, name) for name in mark.args]
        engines = ["files", pytest.param("postgres", marks=marks)]
        metafunc.parametrize("data", engines, indirect=True)


@pytest.fixture
def data(request, tmp_path) -> Path | str:
    """A store that does not exist yet: a directory, or a URL if the test is asked to use one."""
    if getattr(request, "param", "files") == "postgres":
        return request.getfixturevalue("new_schema")()
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
        if not pid:
            forked.live(function, *arguments)
        children.append(Child(pid))
        return children[-1]

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
            child.wait()


@pytest.fixture(scope="session")
def forking_server():
    """A process that runs the tool when it is asked to: see `forked`."""
    command = [sys.executable, forked.__file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        yield server


def tool_that(forks, data):
    """Return a function that runs the tool as `forks` does, and reads what it printed."""

    def read(path):
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        return text.replace("\r\n", "\n").replace("\r", "\n")  # as subprocess.run does

    def run(*arguments, input="", env=(), data=data, stdout=None):  # noqa: A002 - as `orders` does
        environment = {**os.environ, "ORDERS_DATA": str(data), **dict(env)}
        with tempfile.TemporaryDirectory() as directory:
            typed, output, errors = (Path(directory, name) for name in ("in", "out", "err"))
            typed.write_bytes(input.encode("utf-8", "surrogateescape"))
            names = [str(name) for name in (typed, stdout or output, errors)]
            returncode = forks(Path.cwd(), environment, arguments, names)
            return subprocess.CompletedProcess(
                arguments, returncode, "" if stdout else read(output), read(errors)
            )

    return run


@pytest.fixture
def tool(forking_server, data):
    """As `orders`, in a fork of a process that has imported everything."""

    def ask(*call):
        pickle.dump(call, forking_server.stdin)
        forking_server.stdin.flush()
        return pickle.load(forking_server.stdout)

    return tool_that(ask, data)


@pytest.fixture
def patched_tool(fork, data):
    """As `tool`, in a fork of this process: with what tests have replaced and defined in it."""
    return tool_that(lambda *call: fork(forked.called, *call).wait(), data)


@pytest.fixture
def screen(fork, data):
    """Run the tool to its end on a terminal, in a fork; returns its exit status and what it shows.

    `terminal` starts an interpreter, which can be talked to.
    """

    def main(arguments, env, ours, theirs):
        os.close(ours)
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        forked.be_the_tool(arguments, env, [theirs] * 3)

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


@pytest.fixture
def hasty_threads():
    """Have threads take turns so often that they meet wherever they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
