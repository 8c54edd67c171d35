"""A store that cannot be trusted, or not be reached, is refused; every byte of it stays."""

import errno
import fcntl
import os
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest
from conftest import Sales

from orders import OrderRejected, PlaceOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.store import FilesStore
from orders.application.store import Commit, Delivery, Snapshot
from orders.errors import ChangedInUse, NotStored, StoreUnavailable

SECTOR = 512
TORN = b'{"format":1,"seq":%d,"time":"2026-11-21T09:30:00Z","messages":[{"type":"Pla'


def contents(data):
    """Return every file and directory, with its mode; of the lock only that it is there."""
    found = {path: path.stat().st_mode for path in data.rglob("*")}
    files = (path for path in found if path.is_file() and path.name != "orders.lock")
    return found, {path: path.read_bytes() for path in files}


def check_refused(tool, data, *commands, because):
    """Check that each command fails with a sentence that has these words, and changes nothing.

    Return what they said.
    """
    before, texts = contents(data), []
    for command in commands:
        done = tool(*command, data=data)
        assert (done.returncode, contents(data) == before) == (1, True), command
        said = " ".join((done.stdout + done.stderr).split())
        assert because in said, command
        assert "Traceback" not in said
        assert "New Order" not in said
        texts.append(said)
    return texts


# A log that was rolled back


OF_THE_STATE = (
    ["place", "rope"],
    ["list"],
    ["list", "--json"],
    ["show", "0"],
    ["ship", "0"],
    ["cancel", "0"],
    ["trace", "0"],
    ["export"],
    ["import", "orders.jsonl"],
    ["retry", "--all"],
    ["replay"],
    ["checkpoint"],
    ["doctor"],
)
OF_THE_LOG = (  # nothing in it is wrong, so they may show it
    ["stats"],
    ["log"],
    ["watch", "--until-idle", "0"],
    ["deliveries"],
    ["replay", "--dry-run"],
)


@pytest.fixture(params=["whole", "torn"])
def rolled_back(request, data, tool):
    """A store whose log is older than its state, and has a delivery left pending."""
    killed = tool("place", "first", env={"ORDERS_FAULT": "before-delivery"})
    assert killed.returncode < 0
    log = data / "events.jsonl"
    old = log.read_bytes()
    assert tool("place", "second").returncode == 0
    log.write_bytes(old + (TORN % (old.count(b"\n") + 1) if request.param == "torn" else b""))
    return data


def test_a_log_rolled_back_behind_its_state_is_refused_and_left_alone(rolled_back, tool):
    Path("orders.jsonl").write_text('{"items": ["rope"]}\n')
    check_refused(tool, rolled_back, *OF_THE_STATE, because="from a backup")
    before = contents(rolled_back)
    for command in OF_THE_LOG:
        done = tool(*command)
        assert contents(rolled_back) == before, command
        assert "New Order" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "changed",
    [lambda old, _: old, lambda _, new: b"", lambda old, new: old.ljust(len(new), b"\0")],
    ids=["rolled back", "emptied", "zeros"],
)
def test_what_was_used_before_the_log_was_changed_does_not_add_to_it(data, changed):
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("first",)))
        old = app.store.log_path.read_bytes()
        app.bus.send(PlaceOrder(items=("second",)))
        assert app.orders.count() == 2
        found = changed(old, app.store.log_path.read_bytes())
        app.store.log_path.write_bytes(found)
        with pytest.raises(ChangedInUse, match="was cut or changed while in use"):
            app.orders.list()
        with pytest.raises(ChangedInUse, match="was cut or changed while in use"):
            app.bus.send(PlaceOrder(items=("third",)))
        assert app.store.log_path.read_bytes() == found


def test_an_order_that_was_taken_back_is_not_taken_for_one_of_the_same_length(data):
    class Failing(Disk):
        def sync(self, descriptor):
            if seen:
                super().sync(descriptor)
            else:
                seen.append((items_of(reader), reader.store.head()))
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    seen = []
    with bootstrap(data, deliver="worker") as app, bootstrap(data) as reader:
        app.bus.send(PlaceOrder(items=("first",)))
        with bootstrap(store=FilesStore(data, disk=Failing()), deliver="worker") as other:
            with pytest.raises(NotStored, match="nothing was stored"):
                other.bus.send(PlaceOrder(items=("lost",)))
            other.bus.send(PlaceOrder(items=("kept",)))
        assert seen == [([("lost",), ("first",)], app.store.head())]
        for use in (reader.orders.list, reader.store.checkpoint):
            with pytest.raises(ChangedInUse, match="was cut or changed while in use") as refused:
                use()
            assert refused.value.hint == "orders doctor"
        assert items_of(app) == [("kept",), ("first",)]


def items_of(app):
    return [order.items for order in app.orders.list()]


# A hole in the log


def fill(data):
    """Fill a store with orders, something pending from the beginning on; return the log."""
    with bootstrap(data, notifier=Sales()) as app:
        event = OrderRejected(reason="why").caused_by(None)
        app.store.commit(Commit((event,), pending=(Delivery(event.id, "of a plugin"),)))
        for number in range(30):
            app.bus.send(PlaceOrder(items=(f"item {number}", "x" * 300)))
    return data / "events.jsonl"


def punch(log, offset):
    """Make zeros of the sector at an offset; return the number of the line it begins in."""
    content = log.read_bytes()
    start = offset // SECTOR * SECTOR
    log.write_bytes(content[:start] + bytes(SECTOR) + content[start + SECTOR :])
    return content[:start].count(b"\n") + 1


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("forgotten", [(), ("orders.json",)], ids=["kept state", "no state"])
@pytest.mark.sample(2)
def test_a_hole_in_what_was_acknowledged_is_damage_though_something_is_pending(
    part, forgotten, data, tool
):
    log = fill(data)
    for name in forgotten:
        (data / name).unlink()
    line = punch(log, int(part * log.stat().st_size))
    commands = (["place", "rope"], ["list"], ["doctor"], ["checkpoint"], ["doctor", "--repair"])
    check_refused(tool, data, *commands, because=f"events.jsonl:{line}: ")


@pytest.mark.parametrize("witness", ["orders.json", "projections/kept.json"])
def test_a_hole_in_the_last_line_is_damage_if_only_another_file_proves_that_it_was_synced(
    witness, data, tool
):
    log = fill(data)
    start = log.stat().st_size
    with closing(FilesStore(data)) as store:
        event = OrderRejected(reason="x" * 5000).caused_by(None)
        store.commit(Commit((event,), is_durable=False))
        if witness == "orders.json":
            store.checkpoint()
        else:
            store.save("kept", Snapshot(store.head(), {"table": {}}))
    if witness != "orders.json":
        (data / "orders.json").unlink()
    line = punch(log, start + 2000)
    check_refused(
        tool, data, ["place", "rope"], ["list"], ["doctor"], because=f"events.jsonl:{line}: "
    )


@pytest.mark.parametrize("tail", [TORN, bytes(3 * SECTOR)], ids=["torn", "zeros"])
def test_nothing_is_cut_off_without_a_copy(tail, data, send):
    log = fill(data)
    before = log.read_bytes()
    tail = tail % (before.count(b"\n") + 1) if tail is TORN else tail
    log.write_bytes(before + tail)
    send(PlaceOrder(items=("rope",)))
    assert log.read_bytes().startswith(before + b'{"format":1,')
    assert [path.read_bytes() for path in data.glob("events.jsonl.*")] == [tail]


def test_a_hole_in_what_nobody_vouches_for_is_cut_off_with_all_after_it_and_kept(data, send):
    """A power cut's work: none of this was acknowledged."""
    send(PlaceOrder(items=("lamp",)))
    log = data / "events.jsonl"
    acknowledged = log.read_bytes()
    store = FilesStore(data)
    for _ in range(3):
        event = OrderRejected(reason="x" * 2000).caused_by(None)
        store.commit(Commit((event,), is_durable=False))
    store.abandon()  # as a process that is killed
    punch(log, len(acknowledged) + 1000)
    holed = log.read_bytes()
    send(PlaceOrder(items=("rope",)))
    assert log.read_bytes().startswith(acknowledged)
    assert [path.read_bytes() for path in data.glob("events.jsonl.*")] == [
        holed[len(acknowledged) :]
    ]


def test_what_a_process_failed_to_append_needs_no_copy(data):
    class Full(Disk):
        is_full = False

        def write(self, descriptor, content):
            if self.is_full:
                super().write(descriptor, content[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, content)

    with bootstrap(store=FilesStore(data, disk=(disk := Full())), notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("rope",)))
        before, disk.is_full = (data / "events.jsonl").read_bytes(), True
        with pytest.raises(NotStored):
            app.bus.send(PlaceOrder(items=("lamp",)))
        disk.is_full = False
    assert (data / "events.jsonl").read_bytes() == before
    assert not list(data.glob("events.jsonl.*"))


# Files that are not ours


@pytest.mark.parametrize(
    "foreign",
    [
        bytes(SECTOR) + b"a disk image, perhaps\n",
        bytes(8 * SECTOR) + os.urandom(4 * SECTOR),
        bytes(100) + b'{"format":1}\n',
        bytes(SECTOR) + b"\n" + bytes(SECTOR) + b"data" + bytes(SECTOR),
    ],
    ids=["text", "noise", "a line", "islands"],
)
def test_a_file_that_begins_with_zeros_is_not_taken_for_a_log(foreign, data, tool):
    data.mkdir(mode=0o700)
    (data / "events.jsonl").write_bytes(foreign)
    (data / "orders.lock").touch(mode=0o600)
    commands = (["place", "rope"], ["list"], ["doctor"], ["doctor", "--repair"])
    check_refused(tool, data, *commands, because="events.jsonl:1: this is no line of a log")


def test_a_file_of_nothing_but_zeros_is_what_a_crash_leaves_of_a_new_log(data, tool):
    data.mkdir(mode=0o700)
    (data / "events.jsonl").write_bytes(bytes(3 * SECTOR))
    assert tool("place", "rope").returncode == 0
    assert [path.read_bytes() for path in data.glob("events.jsonl.*")] == [bytes(3 * SECTOR)]


# Of another version


def append_line(log, change):
    """Append the last line once more, as something else wrote it: numbered on, and changed."""
    lines = log.read_bytes().splitlines()
    last = lines[-1].partition(b',"crc":')[0]
    seq = len(lines)
    content = change(last.replace(b'"seq":%d,' % seq, b'"seq":%d,' % (seq + 1)))
    assert content != last
    with log.open("ab") as file:
        file.write(content + b',"crc":"%08x"}\n' % crc32(content))
    return seq + 1


NEWER = "of a newer version of orders; update it"
COMMANDS = (["place", "rope"], ["list"], ["log"], ["doctor"], ["doctor", "--repair"])


@pytest.mark.parametrize(
    ("was", "is_", "advice", "commands"),
    [
        (b'"format":1', b'"format":2', NEWER, COMMANDS),
        # Who has no need to read a message does not mind that it cannot be read.
        (b'"type":"OrderRejected"', b'"type":"OrderRejected@7"', "; update it", COMMANDS[2:]),
        (b'"reason":"why"', b'"reason":{"code":5}', "a revision and an upcast()", COMMANDS[2:]),
    ],
    ids=["newer format", "newer revision", "changed class"],
)
def test_what_another_version_wrote_is_refused_with_the_right_advice(
    was, is_, advice, commands, data, tool
):
    with closing(FilesStore(data)) as store:
        store.commit(Commit((OrderRejected(reason="why").caused_by(None),)))
    line = append_line(data / "events.jsonl", lambda text: text.replace(was, is_))
    for said in check_refused(tool, data, *commands, because=f"events.jsonl:{line}: "):
        assert advice in said
        assert "backup" not in said


# What the system refuses


def refuse(monkeypatch, call, number):
    """Let the system refuse a call to the store's files."""

    def refused(*_):
        raise OSError(number, os.strerror(number))

    if call == "lock":
        monkeypatch.setattr(fcntl, "flock", refused)
    elif call == "stat":
        stat = os.stat

        def look(path, **options):
            return refused() if Path(path).name == "events.jsonl" else stat(path, **options)

        monkeypatch.setattr(os, "stat", look)
    else:
        monkeypatch.setattr(Disk, call, refused)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["lock", "stat", "open", "read"])
@pytest.mark.sample(4)
def test_what_the_system_refuses_is_said_with_the_path(
    call, number, data, patched_tool, monkeypatch
):
    assert patched_tool("place", "rope").returncode == 0
    before = contents(data)
    commands = (["place", "lamp"], ["list"], ["doctor"], ["checkpoint"])
    with monkeypatch.context() as patch:
        refuse(patch, call, number)
        ended = [patched_tool(*command) for command in commands]
    assert contents(data) == before
    for command, done in zip(commands, ended, strict=True):
        said = done.stdout + done.stderr
        assert (done.returncode, "Traceback" in said) == (1, False), command
        assert f"cannot use {data}" in said, command
        assert os.strerror(number).lower() in said, command


def test_leases_that_cannot_be_looked_at_are_a_finding_beside_the_others(
    data, patched_tool, monkeypatch
):
    def look(path):
        if path.name == ".running":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return iterdir(path)

    assert patched_tool("place", "rope").returncode == 0
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", look)
    examined = patched_tool("doctor")
    assert (examined.returncode, "Traceback" in examined.stderr) == (1, False)
    lines = [line.split("\t") for line in examined.stdout.splitlines()]
    assert [line[1] for line in lines if line[0] != "ok"] == ["leftovers"]
    assert {"log", "state", "projections", "deliveries"} <= {line[1] for line in lines}
    assert ".running: permission denied" in examined.stdout
    with bootstrap(data, notifier=Sales()) as app, pytest.raises(StoreUnavailable, match="running"):
        app.bus.send(PlaceOrder(items=("lamp",)))
