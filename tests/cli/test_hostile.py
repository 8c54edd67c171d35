"""Hostile text is data: whatever is typed, imported or stored, nothing crashes or is obeyed."""

import json
import re
import sys
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper

import pytest
from conftest import Sales

from orders import Event, OrderCreated, PlaceOrder, ShipOrder, WiringError, bootstrap
from orders.adapters.files.line import FORMAT, Line, encode
from orders.application.store import Delivery
from orders.cli import app
from orders.cli.output import Console
from orders.domain.text import safe

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
LINK = re.compile(r"\x1b\]8;(id=\d+;file://[^\x07\x1b]*|;)\x1b\\")  # to a line of the source
ISOLATED = re.compile(
    "\u2068([^\u2068\u2069]*)\u2069"
)  # a cell of a table, so that no other one turns
PROGRESS = re.compile(r"\x1b\[(\?25[lh]|\d*[AGK])|\r")  # how Rich redraws a bar

HOSTILE = [
    "[bold red]boo[/bold red]", "[/]", "[/bold]", "[link=file:///etc/passwd]x[/link]", "[",
    "[[]]", "[@click=app.bell]x", ":smile: :bomb:", "\\[bold]", "[red", "`code` **bold** <b>",
    "\x1b[5;41mred", "\x1b[2J\x1b[H", "\x1b[1A\x1b[2K", "\x1b]0;title\x07", "\x1b]2;title\x1b\\",
    "\x1b]8;;http://evil.example\x1b\\x\x1b]8;;\x1b\\", "\x1b]52;c;ZXZpbA==\x07", "\x1bc", "\x1b",
    "\x1b[", "\x1bP+q544e\x1b\\", "\x9b5;41mred", "\x9d0;title\x9c", "\x90q\x9c", "\x85next",
    "\x07bell", "\x08\x08\x08back", "\x7fdel", "\x0e\x0f", "\x0b\x0c", "\x01\x02\x03",
    "\u202egnp.exe", "\u2066x\u2069", "\u202a\u202b\u202c", "\u200e\u200fx", "\u2028\u2029x",
    "\u200b\u200c\u200d\ufeff", "\u00ad\u2060x", "a\u0301" * 50, "\udcff\udcfe", "ok\udc9bx",
    "x" * 501, "x" * 100_000, "ü" * 500, "a\nb", "a\r\nb", "\rerased", "a\tb\tc", "\n", " ", "",
    "%s%s%n%d", "{0.__class__}{x!r}", "$(reboot)`id`", "👩‍👩‍👧‍👦🏳️‍🌈", "--help", "-", "--json",
    '{"items": ["x"]}', '"],"crc":"', "'; DROP TABLE orders; --", "../../../etc/passwd",
]  # fmt: skip

# What a text can be given to; {} stands for it.
COMMANDS = [
    ["place", "{}"],
    ["place", "--", "{}"],
    ["place", "rope", "--customer", "{}"],
    ["place", "rope", "--key", "{}"],
    ["list", "--item", "{}"],
    ["list", "--customer", "{}"],
    ["list", "--status", "{}"],
    ["list", "--since", "{}"],
    ["list", "--until={}"],
    ["list", "--limit", "{}"],
    ["show", "{}"],
    ["ship", "{}"],
    ["cancel", "{}"],
    ["cancel", "ORDER", "--reason", "{}"],
    ["import", "{}"],
    ["import", "{}.csv"],
    ["export", "--format", "{}"],
    ["log", "--after", "{}"],
    ["retry", "{}"],
    ["demo", "{}"],
    ["{}"],
    ["--{}"],
    ["list", "--{}"],
    ["-{}", "list"],
    ["list", "{}"],
    ["list", "--at", "{}"],
    ["show", "ORDER", "--at", "{}"],
    ["show", "ORDER", "--version={}"],
    ["trace", "{}"],
    ["watch", "--from", "{}"],
    ["watch", "--until-idle", "{}"],
    ["stats", "{}"],
    ["replay", "{}"],
]
WITH_JSON = {"place", "list", "show", "import", "log", "stats", "watch"}

# Everything with everything takes minutes. The short form takes one of so many, another one each
# time: every command gets some of the texts, and what a log holds of them all is listed.
one_in = partial(pytest.mark.parametrize, "one_in")
whole = pytest.param(1, marks=pytest.mark.long, id="whole")


def thinned(things, one_in, first=0):
    """Return every so-manieth of the things, beginning with the first-th, turning round."""
    return [*things][first % one_in :: one_in]


@pytest.fixture
def call(data, tmp_path, monkeypatch):
    """Run the tool in this process; returns exit status, output and talk."""
    number = 0

    def call(*arguments, form="pipe", stdin=b"", data=data, env=()):
        nonlocal number
        number += 1
        names = [tmp_path / f"{kind}" for kind in ("in", "out", "err")]
        names[0].write_bytes(stdin)
        with (
            monkeypatch.context() as patch,
            TextIOWrapper(names[0].open("rb"), "utf-8") as typed,
            TextIOWrapper(names[1].open("wb"), "utf-8") as out,
            TextIOWrapper(names[2].open("wb"), "utf-8") as err,
        ):
            patch.setenv("ORDERS_DATA", str(data))
            if form == "terminal":
                patch.setenv("FORCE_COLOR", "1")
            for name, value in dict(env).items():
                patch.setenv(name, value)
            for name, stream in (("stdin", typed), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, stream)
            console = Console()
            patch.setattr(app, "rich_markup_mode", "rich" if console.draws else None)
            status = console.run(
                lambda: app(list(arguments), standalone_mode=False, prog_name="orders", obj=console)
            )
        return status, *(name.read_bytes().decode("utf-8") for name in names[1:])

    return call


def harmless(result, form="pipe", *, progress=False):
    """Check that the tool came to an end and sent the terminal nothing but its own styles."""
    status, out, err = result
    assert status in {0, 1, 2}
    for text in (out, err):
        assert "Traceback" not in text
        if form == "terminal":
            assert "\x1b[5;41m" not in text
            plain = ISOLATED.sub(r"\1", LINK.sub("", STYLE.sub("", text)))
            plain = PROGRESS.sub("", plain) if progress else plain
        else:
            plain = text
        assert not (bad := RAW.search(plain)), (repr(bad.group()), repr(plain[:500]))
    if form == "json" and status == 0 and not out.startswith(("Usage", "\n", " ")):
        json.loads(out)
    return status


def forms(command):
    return ("pipe", "terminal", "json") if command in WITH_JSON else ("pipe", "terminal")


@one_in([pytest.param(24, id="some"), whole])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.sample(4)
def test_a_hostile_argument_is_refused_or_shown_harmlessly(call, send, data, command, one_in):
    (order_id,) = send(PlaceOrder(items=("rope",)))
    for text in thinned(HOSTILE, one_in, COMMANDS.index(command)):
        for form in forms(command[0]):
            arguments = [part.replace("{}", text) for part in command]
            arguments = [order_id if part == "ORDER" else part for part in arguments]
            extra = ["--json"] if form == "json" else []
            arguments[1:1] = extra
            try:
                harmless(call(*arguments, form=form), form)
            except Exception as error:
                error.add_note(f"{form}: {arguments!r:.300}")
                raise
    for form in forms("list"):
        assert harmless(call("list", *["--json"] * (form == "json"), form=form), form) == 0


def test_what_may_be_stored_is_shown_as_it_was_typed(call, send):
    texts = [text for text in HOSTILE if not RAW.search(text) and "\t" not in text]
    texts = [text.strip() for text in texts if 0 < len(text.strip()) <= 500 and "\n" not in text]
    send(*(PlaceOrder(items=(text,), customer=text, key=text) for text in texts))
    status, out, _ = call("list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert [json.loads(row[4])[0] for row in rows] == texts[::-1]
    assert [row[3] for row in rows] == texts[::-1]
    _, out, _ = call("list", "--json")
    assert [order["items"][0] for order in json.loads(out)] == texts[::-1]
    _, out, _ = call("list", "--limit", "100", form="terminal", env={"COLUMNS": "2000"})
    for text in texts:
        assert safe(text) in STYLE.sub("", out)  # no markup honoured, no emoji replaced


@one_in([pytest.param(4, id="every other"), whole])
@pytest.mark.parametrize("name", ["ORDERS_FAULT", "ORDERS_LOCK_TIMEOUT", "COLUMNS"])
def test_a_hostile_environment_is_refused_or_ignored(call, name, one_in):
    for number, text in enumerate(HOSTILE):
        for form in thinned(("pipe", "terminal"), one_in, number):
            harmless(call("list", form=form, env={name: text}), form)


@one_in([pytest.param(12, id="some"), whole])
def test_a_hostile_directory_is_used_or_refused(call, tmp_path, one_in):
    (tmp_path / "here").mkdir()
    for number, text in enumerate(HOSTILE):
        for form in thinned(forms("place"), one_in, number):
            for name in (text, f"{tmp_path}/here/{text.replace('/', '')}"):
                arguments = ["--data", name, "place", "rope", *["--json"] * (form == "json")]
                harmless(call(*arguments, form=form), form)
            harmless(call("--data", name, "doctor"))


CONTENTS = {
    "jsonl": [
        lambda text: json.dumps({"items": [text], "customer": text, "key": text}).encode(),
        lambda text: text.encode("utf-8", "surrogateescape"),
        lambda text: b'{"items": ["' + text.encode("utf-8", "surrogateescape") + b'"]}',
        lambda text: json.dumps({text: ["x"], "items": ["x"], "status": text}).encode(),
    ],
    "json": [
        lambda text: json.dumps([{"items": [text], "customer": text, "id": text}]).encode(),
        lambda text: b"[" + text.encode("utf-8", "surrogateescape") + b"]",
        lambda text: json.dumps({text: text}).encode(),
    ],
    "csv": [
        lambda text: b"key,item\n1," + text.encode("utf-8", "surrogateescape") + b"\n",
        lambda text: text.encode("utf-8", "surrogateescape") + b",item\n1,2\n",
        lambda text: b'key,item,status\n1,"' + text.encode("utf-8", "surrogateescape") + b'",x\n',
    ],
}


@one_in([pytest.param(6, id="every other"), whole])
@pytest.mark.parametrize("ending", CONTENTS)
@pytest.mark.sample(2)
def test_a_hostile_file_is_imported_or_refused(call, tmp_path, ending, one_in):
    for turn, text in enumerate([*HOSTILE, "\0", "a\0b", "\ud800"]):
        for number, content in thinned(enumerate(CONTENTS[ending]), one_in, turn):
            file = tmp_path / f"file.{ending}"
            try:
                file.write_bytes(content(text))
            except UnicodeEncodeError:
                continue
            form = ("pipe", "terminal", "json")[number % 3]
            arguments = ["import", str(file), *["--json"] * (form == "json")]
            harmless(call(*arguments, form=form), form, progress=True)
    for form in forms("list"):
        harmless(call("list", *["--json"] * (form == "json"), form=form), form)


@one_in([pytest.param(6, id="some"), whole])
def test_a_hostile_file_name_is_imported_or_refused(call, tmp_path, one_in):
    for number, text in enumerate(HOSTILE):
        file = tmp_path / f"{text.replace('/', '')[:50]}.jsonl"
        for turn, content in enumerate((b'{"items": ["x"]}', b"bad"), start=number):
            file.write_bytes(content)
            for form in thinned(("terminal", "pipe"), one_in, turn):
                harmless(call("import", str(file), form=form), form, progress=form == "terminal")
        harmless(call("export", str(file), form="terminal"), "terminal")


@one_in([pytest.param(6, id="every other"), whole])
def test_hostile_standard_input_is_stored_or_refused(call, one_in):
    for number, text in enumerate([*HOSTILE, "\0", "a\0b"]):
        for form in thinned(forms("place"), one_in, number):
            typed = text.encode("utf-8", "surrogateescape")
            arguments = ["place", "-", *["--json"] * (form == "json")]
            harmless(call(*arguments, form=form, stdin=typed), form)


# A log that a hostile program wrote: every checksum fits


@pytest.fixture
def hostile_log(data):
    """Write a log whose every text is hostile; returns the ids of its orders."""
    data.mkdir(mode=0o700)
    lines, seq = [], 0
    names = [text for text in HOSTILE if not re.search("[\ud800-\udfff]", text)]
    for number, text in enumerate([*names, "\0", "y" * 100_000]):
        event = OrderCreated(
            order_id=f"{number}" if number % 2 else f"{number}{text[:99]}",
            items=(text, text),
            customer=text,
            key=f"{number}{text}",
            correlation_id=f"{number}{text[:99]}",
            causation_id=text[:99],
        )
        pending = Delivery(event.id if number % 3 else text, text or "nobody")
        failed = Delivery(pending.event, pending.subscriber, "failed", 3, 1, 0, 0.1, text)
        for messages, deliveries in (((event,), (pending,)), ((), (failed,))):
            seq += 1
            lines.append(
                encode(Line(FORMAT, seq, datetime.now(UTC), messages, deliveries, text or None))
            )
    log = data / "events.jsonl"
    log.write_bytes(b"".join(line + b"\n" for line in lines))
    log.chmod(0o600)
    with bootstrap(data, notifier=Sales()) as store:
        return [order.id for order in store.orders.list()]


@one_in([pytest.param(28, id="some of the orders"), whole])
def test_a_hostile_log_is_shown_harmlessly(call, hostile_log, one_in):
    calls = (
        ["list"], ["list", "--csv"], ["list", "--json"], ["list", "--limit", "99"], ["log"],
        ["log", "--json"], ["deliveries"], ["deliveries", "--json"], ["deliveries", "--failed"],
        ["doctor"], ["export"], ["export", "--format", "csv"], ["export", "--format", "jsonl"],
        ["list", "--at", "now"], ["list", "--at", "1d"], ["list", "--at", "now", "--json"],
        ["watch", "--from", "start", "--until-idle", "0.01"], ["stats"], ["stats", "--json"],
        ["replay", "--dry-run"], ["replay"], ["stats"],
        ["topics"], ["retry", "--all"], ["checkpoint"], ["doctor", "--repair"],
    )  # fmt: skip
    for number, arguments in enumerate(calls):
        both = thinned(("pipe", "terminal"), min(one_in, 2), number)
        for form in ("json",) if "--json" in arguments else both:
            try:
                harmless(call(*arguments, form=form), form)
            except Exception as error:
                error.add_note(f"{form}: {arguments!r}")
                raise
    views = (
        ("pipe", "show"), ("terminal", "show"), ("pipe", "trace"), ("terminal", "trace"),
        ("pipe", "show", "--version", "1"), ("pipe", "show", "--at", "now"),
        ("json", "show", "--json"),
    )  # fmt: skip
    for number, order_id in enumerate(hostile_log):
        for form, *arguments in thinned(views, one_in, number):
            harmless(call(*arguments, "--", order_id, form=form), form)


def test_each_line_of_a_hostile_feed_is_json(call, hostile_log):
    arguments = ["watch", "--json", "--from", "start", "--until-idle", "0.01"]
    for form in ("pipe", "terminal"):
        status, out, err = call(*arguments, form=form)
        harmless((status, out, err), "pipe")
        found = [json.loads(line) for line in out.splitlines()]
        assert len(found) == 3 * len(hostile_log)  # an event and two records of its delivery
        assert {entry["order_id"] for entry in found if "delivery" not in entry} == set(hostile_log)


def write(data, *messages):
    """Write a log of these messages, a line each."""
    data.mkdir(mode=0o700)
    lines = [
        encode(Line(FORMAT, seq, datetime.now(UTC), (message,)))
        for seq, message in enumerate(messages, start=1)
    ]
    log = data / "events.jsonl"
    log.write_bytes(b"".join(line + b"\n" for line in lines))
    log.chmod(0o600)


@pytest.mark.parametrize(
    ("year", "zone"), [(1, "UTC"), (1, "America/New_York"), (9999, "Asia/Tokyo")]
)
@pytest.mark.sample(1)
def test_times_at_the_end_of_time_are_shown(tool, data, year, zone):
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    time = first if year == 1 else last
    write(data, OrderCreated(order_id="o", items=("x",), time=time, correlation_id="c"))
    environment = {"TZ": zone, "FORCE_COLOR": "1"}
    for arguments in (
        ["list"], ["show", "o"], ["trace", "o"], ["stats"], ["replay"], ["list", "--at", "now"],
        ["watch", "--from", "start", "--until-idle", "0.01"],
    ):  # fmt: skip
        result = tool(*arguments, env=environment)
        assert "Traceback" not in result.stderr, arguments
        assert result.returncode == 0, arguments
        harmless((result.returncode, result.stdout, result.stderr), "terminal")


@pytest.mark.parametrize("form", ["pipe", "terminal"])
def test_messages_that_are_their_own_cause_are_traced_to_an_end(tool, data, form):
    first = OrderCreated(order_id="o", items=("x",), id="A", correlation_id="c")
    write(
        data,
        first,
        ShipOrder("o", id="B", correlation_id="c", causation_id="C"),
        ShipOrder("o", id="C", correlation_id="c", causation_id="B"),
        ShipOrder("o", id="D", correlation_id="c", causation_id="D"),
        ShipOrder("o", id="A", correlation_id="c", causation_id="A"),
    )
    environment = {"FORCE_COLOR": "1"} if form == "terminal" else {}
    for run in ({}, environment):  # piped first, where a circle is found sooner
        result = tool("trace", "o", env=run)
        harmless((result.returncode, result.stdout, result.stderr), form)
        assert result.returncode == 0
        assert "OrderCreated" in result.stdout


def test_a_notifier_that_fails_with_hostile_words_is_traced_harmlessly(call, data):
    class Stranger:
        def __init__(self):
            self.texts = iter(HOSTILE)

        def notify(self, notice):
            raise ValueError(next(self.texts))

    with bootstrap(data, notifier=Stranger(), on_failure=lambda *_: None) as store:
        order_ids = [store.bus.send(PlaceOrder(("x",))) for _ in range(len(HOSTILE) // 3)]
    for order_id in order_ids:
        for form in ("pipe", "terminal"):
            assert harmless(call("trace", order_id, form=form), form) == 0


class HostileHappened(Event, frozen=True):
    """An event whose subscriber fails with hostile words."""

    topic = "hostile-happened"

    text: str


def test_a_subscriber_that_fails_with_hostile_words_is_shown_harmlessly(call, data):
    def stranger(event):
        raise ValueError(HOSTILE[int(event.text)])

    with bootstrap(data, notifier=Sales(), on_failure=lambda *_: None) as system:
        system.bus.subscribe(HostileHappened, stranger, name="[/] [red]x[/red] :smile: $(reboot)")
        with system.uow() as uow:
            for number in range(len(HOSTILE)):
                uow.emit(HostileHappened(text=f"{number}"))
        assert len([*system.store.deliveries("failed")]) == len(HOSTILE)
    for form in ("pipe", "terminal"):
        for arguments in (["deliveries"], ["log"], ["doctor"], ["retry", "--all"]):
            harmless(call(*arguments, form=form), form)
    harmless(call("deliveries", "--json", form="json"), "json")


@pytest.mark.parametrize("name", ["\x1b]0;title\x07", "\u202egnp.exe", "a\nb", " ", ""], ids=ascii)
def test_a_hostile_name_of_a_subscriber_is_refused(name):
    with bootstrap(":memory:", notifier=Sales()) as system, pytest.raises(WiringError) as refused:
        system.bus.subscribe(HostileHappened, lambda event: None, name=name)
    assert not RAW.search(str(refused.value))
    assert system.bus.subscriber(name) is None


# As real processes, and on a real terminal


@one_in([pytest.param(12, id="some"), whole])
def test_a_hostile_argument_does_no_harm_in_a_process_of_its_own(orders, tool, one_in):
    sample = [text for text in HOSTILE if len(text) < 1000][::4]
    commands = COMMANDS * 3
    assert len(sample) >= 15
    for number, (text, command) in enumerate(zip(sample, commands, strict=False)):
        run = tool if number % one_in else orders  # the short form forks most of them
        result = run(*[part.replace("{}", text) for part in command])
        harmless((result.returncode, result.stdout, result.stderr))
        assert result.returncode or "error:" not in result.stderr


@pytest.mark.parametrize(
    "text",
    ["\x1b]0;title\x07", "\x1b[5;41mred", "\x9b2J", "[link=file:///x]x[/link]", "\u202egnp.exe"],
    ids=range(5),
)
@pytest.mark.sample(3)
def test_a_hostile_argument_does_no_harm_on_a_real_terminal(screen, text):
    for arguments in (["place", text], ["place", "rope", "--customer", text], ["list"], [text]):
        status, out = screen(*arguments)
        harmless((status, out, ""), "terminal")


def test_a_hostile_name_in_the_environment_of_a_process_does_no_harm(orders, tool):
    for name in ("ORDERS_FAULT", "ORDERS_LOCK_TIMEOUT", "LANG", "TERM", "COLUMNS"):
        run = orders if name == "LANG" else tool  # which is looked at when an interpreter starts
        result = run("list", env={name: "\x1b]0;x\x07", "FORCE_COLOR": "1"})
        harmless((result.returncode, result.stdout, result.stderr), "terminal")
