"""`watch`: what any terminal stores is seen in every other, in order, once, until Ctrl-C."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import ExitStack

import pexpect
import pytest
from conftest import Sales
from screens import plain, width

from orders import Event, PlaceOrder, Settings, ShipOrder, bootstrap
from orders.application.store import START
from orders.queries.feed import feed

TIMEOUT = 30  # seconds for what takes milliseconds
TORN = b'{"format":1,"seq":3,"time":"2026-11-21T09:3'
PLACED = ["PlaceOrder", "OrderCreated", "Delivery", "NotifySales", "Delivery"]
MESSAGES = [name for name in PLACED if name != "Delivery"]
SHIPPED = ["ShipOrder", "OrderShipped"]


class MeterRead(Event, frozen=True, kw_only=True):
    """An event that the command line does not define, with a number of its own."""

    topic = "meter-read"

    seq: int


@pytest.fixture(autouse=True)
def _hears_ctrl_c():
    """Let children hear Ctrl-C even where the tests run in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Watch:
    """A `watch` as a process of its own, and its output, line by line."""

    def __init__(self, *arguments, data):
        self._rest = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orders", "watch", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "ORDERS_DATA": str(data), "PYTHONUNBUFFERED": ""},
        )

    def line(self):
        """Return the next line, as soon as there is one."""
        while b"\n" not in self._rest:
            assert self.has_news(TIMEOUT), "nothing was shown"
            block = os.read(self.process.stdout.fileno(), 1 << 16)
            assert block, f"it has ended: {self.process.communicate()}"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def shown(self, count=1):
        """Return the next messages and deliveries of `watch --json`."""
        return [json.loads(self.line()) for _ in range(count)]

    def has_news(self, seconds=0):
        """Return whether there is something to read."""
        return bool(self._rest or select.select([self.process.stdout], [], [], seconds)[0])

    def end(self, number=signal.SIGINT):
        """Press Ctrl-C; return exit status, what was not read yet, and standard error."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, (self._rest + out).decode(), err.decode()


@pytest.fixture
def watch(data):
    """Start a `watch` of the store."""
    started = []

    def start(*arguments):
        started.append(Watch(*arguments, data=data))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def logged(tool):
    """Return every message and delivery in the log, in order, as `watch --json` shows them."""
    found = []
    for line in json.loads(tool("log", "--json").stdout):
        seq, time = line["seq"], line["time"]
        found += [{"seq": seq, **message} for message in line["messages"]]
        found += [{"seq": seq, "time": time, "delivery": one} for one in line["deliveries"]]
    return found


def names(shown):
    return [one.get("type", "Delivery") for one in shown]


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


# What is seen, and when


@pytest.mark.engines("long")
def test_eighty_orders_of_four_terminals_are_seen_in_order_each_once(
    watch, fork, tool, data, tmp_path
):
    def place():
        with bootstrap(data, notifier=Sales()) as app:
            for number in range(20):
                app.bus.send(PlaceOrder((f"item {number}",)))

    watching = watch("--json", "--from", "start")
    others = [fork(place) for _ in range(3)]
    statuses = [tool("place", f"item {number}").returncode for number in range(20)]
    seen = watching.shown(400)
    assert [other.wait() for other in others] == [0, 0, 0]
    assert statuses == [0] * 20
    assert watching.end() == (130, "", "")
    assert seen == logged(tool)
    assert names(seen).count("OrderCreated") == names(seen).count("NotifySales") == 80


@pytest.mark.engines
def test_a_message_is_shown_at_once_while_the_watch_goes_on(watch, send):
    watching = watch("--json", "--from", "start")
    for number in range(5):  # each is read before the next one is placed
        (order_id,) = send(PlaceOrder((f"item {number}",)))
        seen = watching.shown(5)
        assert names(seen) == PLACED
        assert seen[1]["order_id"] == seen[3]["order_id"] == order_id
        assert seen[1]["items"] == [f"item {number}"]
        assert [seen[n]["delivery"]["status"] for n in (2, 4)] == ["pending", "done"]
        assert {seen[n]["delivery"]["event"] for n in (2, 4)} == {seen[1]["id"]}
        assert not watching.has_news()
    assert watching.end() == (130, "", "")


@pytest.mark.engines
def test_an_import_of_another_terminal_is_seen(watch, tool, tmp_path):
    file = tmp_path / "orders.jsonl"
    file.write_text("".join(f'{{"items": ["item {number}"]}}\n' for number in range(250)))
    watching = watch("--json", "--from", "start")
    assert tool("import", str(file)).returncode == 0
    seen = watching.shown(1250)
    assert seen == logged(tool)
    assert watching.end() == (130, "", "")


@pytest.mark.engines
def test_from_now_shows_nothing_that_was_before(watch, send, tool):
    send(*(PlaceOrder((f"item {number}",)) for number in range(3)))
    before = logged(tool)
    watching = watch("--json")  # --from now
    while not watching.has_news(0.05):  # until it is up
        send(PlaceOrder(("rope",)))
    (first,) = watching.shown()
    assert first["seq"] > before[-1]["seq"]
    send(ShipOrder(tool("list").stdout.split("\t")[0]))
    since = logged(tool)
    since = since[since.index(first) + 1 :]
    seen = watching.shown(len(since))
    assert seen == since
    assert watching.end() == (130, "", "")


@pytest.mark.engines
def test_a_piped_message_is_number_time_name_id_and_detail(tool, send):
    (order_id,) = send(PlaceOrder(("100 inch TV",), "Ada"))
    send(ShipOrder(order_id))
    shown = done(tool("watch", "--from", "start", "--until-idle", "0.1"))
    assert shown == done(tool("log"))
    assert [row.split("\t")[2] for row in shown.splitlines()] == PLACED + SHIPPED


@pytest.mark.engines
def test_json_is_one_object_a_line_with_the_number_of_its_line(tool, send):
    (order_id,) = send(PlaceOrder(("100 inch TV",), "Ada"))
    lines = done(tool("watch", "--json", "--from", "start", "--until-idle", "0.1")).splitlines()
    shown = [json.loads(line) for line in lines]
    assert shown == logged(tool)
    assert shown[1]["order_id"] == order_id


@pytest.mark.engines
def test_a_message_of_an_unknown_class_is_shown_by_its_name(tool, data):
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.send(PlaceOrder(("rope",)))
        app.uow().emit(MeterRead(seq=7))
    idle = ("--from", "start", "--until-idle", "0.1")
    row = done(tool("watch", *idle)).splitlines()[-1].split("\t")
    assert row[0] == "3"
    assert row[2] == "MeterRead"
    assert row[4] == "seq=7"
    shown = json.loads(done(tool("watch", "--json", *idle)).splitlines()[-1])
    assert shown["type"] == "MeterRead"


@pytest.mark.engines
def test_no_field_of_a_message_hides_the_number_of_its_line(tool, data):
    with bootstrap(data, notifier=Sales()) as app:
        app.uow().emit(MeterRead(seq=7))
    shown = done(tool("watch", "--json", "--from", "start", "--until-idle", "0.1"))
    assert json.loads(shown)["seq"] == 1


# How it ends


@pytest.mark.engines
def test_ctrl_c_ends_it_quietly(watch, send):
    send(PlaceOrder(("rope",)))
    watching = watch("--from", "start")
    assert [watching.line().split("\t")[2] for _ in PLACED] == PLACED
    assert watching.end() == (130, "", "")


@pytest.mark.engines
def test_ctrl_c_on_a_terminal_ends_it_quietly(terminal, send):
    send(PlaceOrder(("rope",)))
    child = terminal("watch", "--from", "start", env={"NO_COLOR": "1"})
    child.expect("NotifySales")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in child.before
    assert "rror" not in child.before


@pytest.mark.engines
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["records", "json"])
@pytest.mark.sample(1)
def test_head_ends_it_quietly(send, data, form):
    send(*(PlaceOrder(("x" * 490,) * 20) for _ in range(5)))  # more than a pipe holds
    # Its own time limit, for one that hangs must not outlive the test.
    tool = f'timeout {TIMEOUT} "{sys.executable}" -m orders watch --from start {" ".join(form)}'
    result = subprocess.run(
        ["bash", "-c", f"{tool} | head -1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env={**os.environ, "ORDERS_DATA": str(data)},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    assert "PlaceOrder" in result.stdout


@pytest.mark.engines
def test_it_ends_when_nobody_reads_it_any_more_though_there_is_no_news(watch, send):
    send(PlaceOrder(("rope",)))
    watching = watch("--from", "start")
    for _ in PLACED:  # as `head -5` would
        watching.line()
    watching.process.stdout.close()
    assert watching.process.wait(TIMEOUT) == 0
    assert watching.process.stderr.read() == b""


@pytest.mark.engines
def test_until_idle_ends_it_when_there_is_no_more_news(tool, send):
    send(*(PlaceOrder((f"item {number}",)) for number in range(20)))
    for form in ([], ["--json"]):
        result = tool("watch", "--from", "start", "--until-idle", "0.1", *form)
        assert len(done(result).splitlines()) == 20 * len(PLACED)


@pytest.mark.engines
def test_until_idle_zero_shows_what_there_is_and_ends(tool, send):
    send(PlaceOrder(("rope",)))
    assert len(done(tool("watch", "--from", "start", "--until-idle", "0")).splitlines()) == len(
        PLACED
    )
    assert done(tool("watch", "--until-idle", "0")) == ""


@pytest.mark.parametrize(
    "arguments",
    [["--from", "middle"], ["--until-idle", "-1"], ["--until-idle", "soon"], ["--until-idle=nan"]],
    ids=" ".join,
)
def test_wrong_use_is_refused_in_one_line(tool, data, arguments):
    result = tool("watch", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert arguments[0].partition("=")[0] in result.stderr
    assert result.stderr.count("\n") == 2
    assert not data.exists()


@pytest.mark.engines
def test_a_watch_that_is_idle_is_not_busy(watch, send):
    send(PlaceOrder(("rope",)))

    def seconds_of_work(idle):
        watching = watch("--from", "start", "--until-idle", idle)
        assert watching.process.stdout.read().count(b"\n") == len(PLACED)
        _, status, usage = os.wait4(watching.process.pid, 0)
        watching.process.returncode = os.waitstatus_to_exitcode(status)
        assert watching.process.returncode == 0
        return usage.ru_utime + usage.ru_stime

    short, long = seconds_of_work("0.05"), seconds_of_work("0.6")
    assert long - short < 0.2  # a busy loop would have worked for three times as long


# What happens to the store meanwhile


def test_a_log_that_does_not_exist_yet_is_waited_for(terminal, tool, data):
    child = terminal("watch", env={"NO_COLOR": "1"})
    child.expect(r"Ctrl-C ends it\.")
    assert not data.exists()
    assert tool("place", "rope").returncode == 0
    child.expect("PlaceOrder")
    child.expect("OrderCreated")
    child.expect("NotifySales")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["records", "json"])
def test_where_nothing_is_stored_nothing_is_shown_and_nothing_created(tool, data, form):
    for begin in ("start", "now"):
        assert done(tool("watch", "--from", begin, "--until-idle", "0.05", *form)) == ""
    assert not data.exists()


def test_a_checkpoint_under_it_changes_nothing(watch, send, tool, data):
    watching = watch("--json", "--from", "start")
    send(PlaceOrder(("rope",)))
    watching.shown(5)
    (data / "orders.json").unlink()
    assert tool("checkpoint").returncode == 0
    assert (data / "orders.json").exists()
    send(PlaceOrder(("lamp",)))
    assert names(watching.shown(5)) == PLACED
    assert watching.end() == (130, "", "")


@pytest.mark.parametrize("repairs", [True, False], ids=["doctor", "next writer"])
def test_a_torn_line_is_never_shown_and_what_comes_after_its_repair_is(
    watch, send, tool, data, repairs
):
    watching = watch("--json", "--from", "start")
    send(PlaceOrder(("rope",)))
    watching.shown(5)
    with (data / "events.jsonl").open("ab") as log:
        log.write(TORN)
    assert not watching.has_news(0.2)
    if repairs:
        result = tool("doctor", "--repair")
        assert result.returncode == 0
        assert f"cut {len(TORN)} bytes" in result.stderr
    assert tool("place", "lamp").returncode == 0
    seen = watching.shown(5)
    assert names(seen) == PLACED
    assert seen == logged(tool)[5:]
    assert watching.end() == (130, "", "")


def test_a_process_that_dies_in_the_middle_is_watched_too(watch, tool):
    watching = watch("--json", "--from", "start")
    for fault in ("torn-append", "before-append", "after-fsync", "before-delivery"):
        assert tool("place", fault, env={"ORDERS_FAULT": fault}).returncode == -signal.SIGKILL
    assert tool("place", "rope").returncode == 0
    written = logged(tool)
    seen = watching.shown(len(written))
    assert seen == written
    assert names(seen).count("NotifySales") == names(seen).count("OrderCreated") == 2
    assert watching.end() == (130, "", "")


def test_a_line_that_lacks_its_line_feed_is_shown_once(watch, send, tool, data):
    send(PlaceOrder(("rope",)))
    log = data / "events.jsonl"
    log.write_bytes(log.read_bytes()[:-1])
    watching = watch("--json", "--from", "start")
    assert names(watching.shown(5)) == PLACED
    assert tool("place", "lamp").returncode == 0
    assert [one["seq"] for one in watching.shown(5)] == [3, 3, 3, 4, 4]
    assert watching.end() == (130, "", "")


def test_a_log_that_is_taken_away_ends_it_with_an_error_that_names_it(watch, send, data, tmp_path):
    send(PlaceOrder(("rope",)))
    watching = watch("--from", "start")
    for _ in PLACED:
        watching.line()
    data.rename(tmp_path / "taken")
    send(*(PlaceOrder((f"another {number}",)) for number in range(9)))
    out, err = watching.process.communicate(timeout=TIMEOUT)
    assert (watching.process.returncode, out) == (1, b"")
    assert re.fullmatch(
        rb"error: .*events\.jsonl was removed or replaced while in use.*\ntry: .*\n", err
    )


def test_a_damaged_line_ends_it_with_an_error_that_names_it(watch, send, data):
    send(PlaceOrder(("rope",)))
    watching = watch("--from", "start")
    for _ in PLACED:
        watching.line()
    with (data / "events.jsonl").open("ab") as log:
        log.write(b"my notes\n")
    out, err = watching.process.communicate(timeout=TIMEOUT)
    assert (watching.process.returncode, out) == (1, b"")
    assert re.fullmatch(rb"error: .*events\.jsonl:3: .*\ntry: .*\n", err)


def test_a_store_that_is_busy_for_long_is_looked_at_again(data, send):
    send(PlaceOrder(("rope",)))
    looks, held = [], ExitStack()

    def look():
        looks.append(1)
        if len(looks) == 3:
            held.close()
        return True

    patient = bootstrap(settings=Settings(data, lock_timeout=0.0))
    with patient, bootstrap(data) as writer:
        held.enter_context(writer.store.lock.held())
        assert next(feed(patient.store, START, None, look)).number == 1
    assert len(looks) == 3


def test_a_watch_leaves_nothing_behind(watch, send, data):
    send(PlaceOrder(("rope",)))
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    watching = watch("--from", "start")
    watching.line()
    watching.end()
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


# On a terminal


@pytest.mark.engines
@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.sample(1)
def test_a_watch_on_a_terminal_fits_it(screen, send, columns):
    send(PlaceOrder(("w" * 400, "漢字" * 60), "n" * 200), PlaceOrder(("[red]x[/red]",)))
    status, shown = screen("watch", "--from", "start", "--until-idle", "0.1", columns=columns)
    lines = plain(shown).splitlines()
    assert status == 0
    assert "wwww" in shown
    assert "[red]x[/red]" in shown
    assert max(map(width, lines)) <= columns
    rows = [line for line in lines if re.match(r" +\d+ ", line)]
    assert len(rows) == 10
    assert [word for line in rows for word in line.split() if word in MESSAGES] == MESSAGES * 2


@pytest.mark.engines
def test_json_is_the_same_on_a_terminal_as_piped(screen, send, tool):
    send(PlaceOrder(("rope",)))
    command = ("watch", "--json", "--from", "start", "--until-idle", "0.1")
    assert screen(*command, columns=2000)[1] == done(tool(*command))


@pytest.mark.engines
def test_what_is_only_announced_in_a_process_is_not_shown(watch, data):
    watching = watch("--json", "--from", "start")
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.subscribe("unit-*", lambda event: None, name="unit")
        app.bus.send(PlaceOrder(("rope",)))
    assert names(watching.shown(5)) == PLACED
    assert watching.end() == (130, "", "")
