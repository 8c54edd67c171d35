"""The cluster: real servers are killed while orders flow, nothing is lost, nothing is left."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from orders.cli.output import Console
from orders.demos import SCENARIOS, playing, servers
from orders.demos.machinery import Cluster, Compared
from orders.demos.playing import play, play_all
from orders.demos.servers import NatsServer
from orders.demos.workspace import Workspace, play_in
from orders.errors import OrdersError

OUTCOME = r"(\d+) orders: nothing lost, nothing twice, nothing out of order \((\d+) checks ok\)"


def processes_of(directory):
    """Return the processes that have this directory for temporary files, or are at work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            environment = (process / "environ").read_bytes()  # PostgreSQL writes over its own
            where = (process / "cwd").readlink()
            if f"TMPDIR={directory}".encode() in environment or where.is_relative_to(directory):
                found.append(int(process.name))
    return found


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start(directory):
    return subprocess.Popen(
        [sys.executable, "-m", "orders", "demo", "cluster"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    )


def check_nothing_is_left(directory, said):
    wait_until(lambda: not processes_of(directory))
    assert [*directory.iterdir()] == []
    for port in re.findall(r"nats://127\.0\.0\.1:(\d+)", said):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_nothing_is_lost_twice_or_out_of_order_and_nothing_is_left(empty):
    demo = start(empty)
    shown, said = demo.communicate()
    assert demo.returncode == 0, said
    assert re.findall(r"^> (\d)/6", said, re.MULTILINE) == list("123456")
    killed = [int(one) for one in re.findall(r"process (\d+) was killed", said)]
    assert len(set(killed)) == 4
    orders, checks = map(int, re.search(OUTCOME, said).groups())
    assert checks == 8
    *_, placed, relayed, heard = (line.split("\t") for line in shown.splitlines())
    assert placed == ["customer to PostgreSQL", str(orders), str(orders), "0", "0", "0"]
    events = relayed[1]
    assert int(events) >= orders
    assert relayed == ["PostgreSQL to stream", events, events, "0", "0", "0"]
    assert heard == ["PostgreSQL to listener", events, events, "0", "0", "0"]
    assert re.search(r"order_created .*taken over$", shown, re.MULTILINE)
    check_nothing_is_left(empty, said)


def read_until(demo, text):
    """Read what the demo says up to a line that has this text; return it."""
    said = ""
    for line in demo.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(said)


def test_a_demo_that_was_killed_leaves_nothing_either(empty):
    demo = start(empty)
    said = read_until(demo, "orders worker")  # the servers are at work, the others are begun
    assert len(processes_of(empty)) > 5 or not Path("/proc").exists()
    demo.kill()
    demo.communicate()
    check_nothing_is_left(empty, said)


@pytest.mark.long
def test_on_a_terminal_there_is_time_to_read_for_less_than_a_minute(monkeypatch, screen, empty):
    pauses = empty / "pauses"

    def note(seconds):
        with pauses.open("a") as file:
            file.write(f"{seconds}\n")

    monkeypatch.setattr("orders.demos.stage.sleep", note)
    status, shown = screen("demo", "cluster", columns=100)
    assert (status, bool(re.search(OUTCOME, shown))) == (0, True)
    assert 45 <= sum(map(float, pauses.read_text().splitlines())) <= 60


@pytest.mark.long
@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL],
    ids=lambda one: one.name,
)
def test_a_demo_that_is_ended_at_any_moment_leaves_nothing(empty, number):
    chance = random.Random(number)
    for _ in range(5):
        demo = start(empty)
        time.sleep(chance.uniform(0, 15))  # is the moment, not a wait for something
        demo.send_signal(number)
        _, said = demo.communicate()
        assert "Traceback" not in said
        assert demo.returncode in {0, 130, -number}  # it may not have heard of signals yet
        check_nothing_is_left(empty, said)


@pytest.mark.long
def test_ctrl_c_on_a_terminal_which_all_processes_hear_leaves_nothing(terminal, empty):
    child = terminal("demo", "cluster", env={"TMPDIR": str(empty)})
    child.expect_exact("has shown it, too")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, "Traceback" in child.before) == (130, False)
    check_nothing_is_left(empty, child.before)


def keep_busy():
    while True:
        pass


@pytest.mark.long
def test_it_passes_ten_times_in_a_row_on_a_busy_machine(empty):
    load = [multiprocessing.Process(target=keep_busy, daemon=True) for _ in range(4)]
    for one in load:
        one.start()
    for _ in range(10):
        demo = start(empty)
        _, said = demo.communicate()
        assert (demo.returncode, bool(re.search(OUTCOME, said))) == (0, True), said
        check_nothing_is_left(empty, said)
    for one in load:
        one.kill()
        one.join()


@pytest.mark.long
@pytest.mark.parametrize(
    ("end", "change", "claim"),
    [
        ("relayed", lambda ids: ids[:-1], "PostgreSQL to stream"),
        ("heard", lambda ids: [*ids, ids[0]], "PostgreSQL to listener"),
        ("placed", lambda ids: [ids[1], ids[0], *ids[2:]], "customer to PostgreSQL"),
    ],
    ids=["lost", "twice", "out of order"],
)
def test_it_exits_1_if_something_is_wrong_at_an_end(monkeypatch, capsys, empty, end, change, claim):
    dismiss, read = Cluster.dismiss_customer, getattr(Cluster, end)

    def dismiss_and_change(self):
        dismiss(self)
        monkeypatch.setattr(Cluster, end, lambda self: change(read(self)))

    monkeypatch.setattr(Cluster, "dismiss_customer", dismiss_and_change)
    console = Console()
    assert console.run(lambda: play("cluster", console)) == 1
    shown = capsys.readouterr()
    assert f"NOT SO: {claim}: nothing lost, twice, out of order" in shown.err
    assert not re.search(OUTCOME, shown.err)


@pytest.mark.parametrize(
    ("arrived", "lost", "twice", "disordered"),
    [
        ("abc", 0, 0, 0),
        ("ab", 1, 0, 0),
        ("abcx", 1, 0, 0),
        ("abcb", 0, 1, 0),
        ("bac", 0, 0, 1),
        ("", 3, 0, 0),
    ],
)
def test_what_is_lost_twice_and_out_of_order_is_counted(arrived, lost, twice, disordered):
    compared = Compared.of("abc", arrived)
    assert compared == (3, len(arrived), lost, twice, disordered)


@pytest.fixture
def without_nats(monkeypatch):
    """Have no nats-server here."""
    monkeypatch.setattr(servers, "nats_program", lambda: None)


@pytest.mark.usefixtures("without_nats")
def test_without_its_servers_it_says_what_to_install(patched_tool, empty):
    result = patched_tool("demo", "cluster")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        'error: nats-server cannot be found here\ntry: pip install "orders[cluster]"\n'
    )
    assert [*empty.iterdir()] == []


@pytest.mark.usefixtures("without_nats")
def test_demo_all_passes_over_it_without_its_servers(monkeypatch, capsys):
    scenarios = {one: SCENARIOS[one] for one in ("article", "cluster")}
    monkeypatch.setattr(playing, "SCENARIOS", scenarios)
    play_all(Console())
    *_, article, cluster = capsys.readouterr().out.splitlines()
    assert article == "article\t✓ ok\t2 checks"
    assert cluster == "cluster\tskipped\tnats-server cannot be found here"


def test_a_server_that_cannot_start_is_reported(empty, monkeypatch):
    monkeypatch.setattr(servers, "nats_program", lambda: "false")
    monkeypatch.setattr(servers, "PATIENCE", 0.1)
    place = Workspace()
    with pytest.raises(OrdersError, match="nats does not start: it said nothing"):
        play_in(place, lambda: NatsServer(place).start())


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs PostgreSQL as another user")
def test_a_directory_that_the_other_user_may_not_enter_is_reported(tool, empty):
    empty.chmod(0o700)
    result = tool("demo", "cluster", env={"TMPDIR": str(empty)})
    assert result.returncode == 1
    assert re.search("error: PostgreSQL cannot be set up: .*Permission denied\n", result.stderr)
    assert result.stderr.endswith("try: set TMPDIR to a directory that everybody may enter\n")
    assert [*empty.iterdir()] == []


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="only root runs PostgreSQL as another user")
def test_programs_in_a_home_that_nobody_else_may_enter_are_run_from_a_copy(tmp_path, empty):
    programs = servers.postgres_programs()
    package = programs.parents[1]
    for part in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(part), tmp_path / part, symlinks=True)
    as_user = servers.hand_over(empty)
    found = servers.readable(tmp_path / programs.relative_to(package.parent), empty, as_user)
    assert found.is_relative_to(empty)
    for program in ("postgres", "initdb"):  # which need more libraries than the other
        subprocess.run([found / program, "--version"], check=True, **as_user)
