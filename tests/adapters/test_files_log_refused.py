"""The event log on a disk that refuses: nothing is acknowledged that is not on it."""

import errno
import os
from pathlib import Path

import pytest
from store_files import (
    RecordingDisk,
    RefusingDisk,
    append,
    copies_of,
    lines_of,
    newcomer,
    opening_logs,
    order_ids,
)

from orders import OrderShipped
from orders.adapters.files.disk import Disk
from orders.adapters.files.line import Position, decode_frame
from orders.adapters.files.lock import FileLock
from orders.adapters.files.log import EventLog
from orders.application.store import Delivery
from orders.errors import (
    ForeignFile,
    NotStored,
    NotWritten,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)


@pytest.fixture
def path(data):
    return data / "events.jsonl"


@pytest.fixture
def open_log(data):
    with opening_logs(data) as open_log:
        yield open_log


@pytest.fixture
def two_lines(open_log, path):
    """The bytes of a log of two lines."""
    for number in range(2):
        append(open_log(), OrderShipped(order_id=str(number)))
    return path.read_bytes()


# When it is on the disk


def test_an_append_is_on_the_disk_before_it_returns_unless_it_may_wait(open_log):
    disk = RecordingDisk()
    log = newcomer(open_log(disk))
    disk.calls.clear()
    append(log, OrderShipped(order_id="1"))
    written = [("write", "events.jsonl"), ("sync", "events.jsonl")]
    assert disk.calls == written
    entry = append(log, OrderShipped(order_id="2"), sync=False)
    assert disk.calls == [*written, written[0]]
    log.make_durable(entry.end)
    assert disk.calls == written * 2


def test_what_is_to_be_durable_is_synced_unless_it_is_known_to_be(open_log):
    disk = RecordingDisk()
    log = open_log(disk)
    first = append(log, OrderShipped(order_id="1"))
    second = append(log, OrderShipped(order_id="2"), sync=False)
    disk.calls.clear()
    log.make_durable(first.end)
    assert disk.calls == []
    log.make_durable(second.end)
    log.make_durable(second.end)
    assert disk.calls == [("sync", "events.jsonl")]
    another = open_log(disk)
    another.make_durable(second.end)
    assert disk.calls.count(("sync", "events.jsonl")) == 2, "what it does not know it makes sure of"


@pytest.mark.parametrize("pending", [False, True], ids=["nothing pending", "something pending"])
def test_a_line_says_of_no_byte_that_was_not_synced_that_it_was(open_log, pending):
    class Noting(Disk):
        synced = 0

        def sync(self, descriptor):
            super().sync(descriptor)
            self.synced = os.fstat(descriptor).st_size

    log = open_log(disk := Noting())
    event = OrderShipped(order_id="x" * 2000)
    append(log, event, deliveries=[Delivery(event.id, "sales")] * pending)
    for _ in range(80):  # until some must be synced, and what is pending be listed
        entry = append(log, OrderShipped(order_id="x" * 2000), sync=False)
        frame = decode_frame(entry.raw)
        assert frame.synced <= disk.synced
        assert frame.settled <= disk.synced
    assert disk.synced > entry.start.offset // 2
    assert pending is any(line.outstanding for line in lines_of(log))


def test_a_new_log_is_durable_in_its_directory_before_anything_is_acknowledged(open_log, data):
    disk = RecordingDisk()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    expected = [("sync_directory", data.parent.name), ("sync_directory", data.name)]
    assert [call for call in disk.calls if call[0] == "sync_directory"] == expected
    assert disk.calls.index(expected[1]) < disk.calls.index(("sync", "events.jsonl"))
    append(log, OrderShipped(order_id="2"))
    assert [call for call in disk.calls if call[0] == "sync_directory"] == expected


@pytest.mark.parametrize("who", ["the same", "another"])
def test_a_new_log_whose_directory_could_not_be_synced_is_synced_by_the_next_append(
    open_log, data, who
):
    data.mkdir()
    disk = RefusingDisk(sync_directory=errno.EIO)
    log = open_log(disk)
    for _ in range(2):
        with pytest.raises(StoreError, match="input/output error"):
            append(log, OrderShipped(order_id="1"))
        if who == "another":
            log = open_log(disk)
    assert order_ids(open_log()) == []


def test_the_copy_of_a_torn_line_is_durable_before_the_line_is_cut_off(open_log, path, two_lines):
    path.write_bytes(two_lines[:-20])
    disk = RecordingDisk()
    newcomer(open_log(disk))
    (copy,) = copies_of(path)
    calls = [call[0] for call in disk.calls if call[0] in {"replace", "truncate", "sync_directory"}]
    assert calls == ["replace", "sync_directory", "truncate"]
    assert ("replace", copy.name) in disk.calls


def test_what_the_log_makes_is_for_its_owner_only(open_log, data):
    append(open_log(), OrderShipped(order_id="1"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (data, *data.iterdir())}
    assert modes == {"store": 0o700, "events.jsonl": 0o600, "orders.lock": 0o600}


# What is refused


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ({"write": errno.ENOSPC}, "no space left on device"),
        ({"write": errno.EIO}, "input/output error"),
        ({"short_write": errno.ENOSPC}, "no space left on device"),
        ({"sync": errno.EIO}, "input/output error"),
        ({"sync": errno.ENOSPC}, "no space left on device"),
    ],
    ids=str,
)
def test_what_the_disk_refuses_is_not_stored_and_the_next_append_works(
    open_log, path, refused, words
):
    class Counting(RefusingDisk):
        opened = 0

        def open(self, path, flags):
            self.opened += 1
            return super().open(path, flags)

    disk = Counting()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    before = path.read_bytes()
    disk.refused = dict(refused)
    with pytest.raises(NotStored, match=rf"could not write .*events.jsonl: {words}; nothing was"):
        append(log, OrderShipped(order_id="2"))
    assert path.read_bytes() == before
    assert copies_of(path) == [], "of its own failed append nobody needs a copy"

    disk.refused = {}
    opened = disk.opened
    entry = append(log, OrderShipped(order_id="3"))
    assert disk.opened == opened + 1, "a descriptor whose sync has failed is never used again"
    assert entry.line.seq == 2
    assert order_ids(open_log()) == ["1", "3"]


def test_an_append_that_is_interrupted_leaves_nothing(open_log, path):
    class Interrupted(Disk):
        is_due = False

        def write(self, descriptor, data):
            written = super().write(descriptor, data)
            if self.is_due:
                raise KeyboardInterrupt
            return written

    log = open_log(disk := Interrupted())
    append(log, OrderShipped(order_id="1"))
    before = path.read_bytes()
    disk.is_due = True
    with pytest.raises(KeyboardInterrupt):
        append(log, OrderShipped(order_id="2"))
    assert path.read_bytes() == before
    disk.is_due = False
    assert append(log, OrderShipped(order_id="3")).line.seq == 2


# While a line is synced


class Between(Disk):
    """Does something between an append and its sync, once."""

    def __init__(self, act):
        self.act, self.is_due = act, False

    def sync(self, descriptor):
        if self.is_due:
            self.is_due = False
            self.act()
        super().sync(descriptor)


def test_others_append_and_sync_while_a_line_is_synced(open_log):
    log = open_log(disk := Between(lambda: append(open_log(), OrderShipped(order_id="2"))))
    append(log, OrderShipped(order_id="0"))
    disk.is_due = True
    assert append(log, OrderShipped(order_id="1")).line.seq == 2
    assert append(log, OrderShipped(order_id="3")).line.seq == 4
    assert order_ids(open_log()) == ["0", "1", "2", "3"]


def test_an_interrupted_sync_leaves_the_whole_line_to_be_found(open_log):
    def interrupt():
        raise KeyboardInterrupt

    log = open_log(disk := Between(interrupt))
    append(log, OrderShipped(order_id="0"))
    disk.is_due = True
    with pytest.raises(KeyboardInterrupt):
        append(log, OrderShipped(order_id="1"))
    assert order_ids(log) == order_ids(open_log()) == ["0", "1"]


def test_a_line_whose_sync_has_failed_stays_if_others_have_appended_behind_it(open_log):
    def fail():
        append(open_log(), OrderShipped(order_id="2"))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = open_log(disk := Between(fail))
    append(log, OrderShipped(order_id="0"))
    disk.is_due = True
    with pytest.raises(NotStored, match="input/output error; it may be stored all the same"):
        append(log, OrderShipped(order_id="1"))
    append(log, OrderShipped(order_id="3"))
    assert order_ids(open_log()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "in_its_place",
    [(), ["another"] * 2, ["of the size"] * 2, ["short"] * 2],
    ids=["nothing", "longer", "as long", "shorter"],
)
def test_who_has_seen_a_line_that_was_taken_back_notices_it(open_log, in_its_place):
    def fail():
        other.position()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log, other = open_log(disk := Between(fail)), open_log()
    append(log, OrderShipped(order_id="before"))
    append(other, OrderShipped(order_id="before"))
    disk.is_due = True
    with pytest.raises(NotStored, match="nothing was stored"):
        append(log, OrderShipped(order_id="taken back!"))
    for text in in_its_place:
        append(log, OrderShipped(order_id=text))
    with pytest.raises(ForeignFile, match="was cut or changed while in use"):
        other.position()
    with pytest.raises(ForeignFile, match="was cut or changed while in use"):
        append(other, OrderShipped(order_id="after"))


def test_a_part_that_cannot_be_cut_off_again_is_ignored_and_cut_off_later(open_log, path):
    disk = RefusingDisk()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    disk.refused = {"short_write": errno.ENOSPC, "truncate": errno.EIO}
    with pytest.raises(NotStored, match="it may be stored all the same"):
        append(log, OrderShipped(order_id="2"))
    assert order_ids(log) == ["1"]
    disk.refused = {}
    append(log, OrderShipped(order_id="3"))
    assert order_ids(open_log()) == ["1", "3"]
    assert len(copies_of(path)) == 1


def test_a_sync_that_fails_is_an_error_and_takes_nothing_back(open_log):
    disk = RefusingDisk()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    append(log, OrderShipped(order_id="2"), sync=False)
    disk.refused = {"sync": errno.EIO}
    with pytest.raises(NotStored):
        log.make_durable(log.position())
    disk.refused = {}
    append(log, OrderShipped(order_id="3"))
    assert order_ids(open_log()) == ["1", "2", "3"]


@pytest.mark.parametrize("use", [lines_of, EventLog.position, append])
def test_a_log_that_cannot_be_opened_is_unavailable(open_log, two_lines, use):
    with pytest.raises(StoreUnavailable, match=r"events.jsonl: permission denied\ntry: choose"):
        use(open_log(RefusingDisk(open=errno.EACCES)))


@pytest.mark.parametrize("use", [lines_of, EventLog.position, append])
def test_a_log_that_cannot_be_read_is_an_error_of_the_store(open_log, path, two_lines, use):
    with pytest.raises(StoreError, match=r"events.jsonl: input/output error"):
        use(open_log(RefusingDisk(read=errno.EIO)))
    assert path.read_bytes() == two_lines


@pytest.mark.parametrize(
    ("cut", "call"), [(1, "write"), (20, "truncate")], ids=["a line feed", "a torn line"]
)
def test_a_crash_that_cannot_be_repaired_is_an_error_of_the_store(
    open_log, path, two_lines, cut, call
):
    path.write_bytes(two_lines[:-cut])
    with pytest.raises(StoreError, match=r"events.jsonl: no space left on device"):
        append(
            open_log(RefusingDisk("events.jsonl", **{call: errno.ENOSPC})),
            OrderShipped(order_id="new"),
        )
    assert path.read_bytes() == two_lines[:-cut]


def test_a_torn_line_of_which_no_copy_can_be_kept_is_not_cut_off(open_log, path, two_lines):
    path.write_bytes(two_lines[:-20])
    with pytest.raises(NotWritten, match=r"events.jsonl\.\S+: no space left on device"):
        newcomer(open_log(RefusingDisk(".*.tmp", write=errno.ENOSPC)))
    assert path.read_bytes() == two_lines[:-20]
    assert copies_of(path) == []


def test_a_place_where_no_directory_can_be_made_is_unavailable():
    data = Path("/proc/orders")
    log = EventLog(data / "events.jsonl", FileLock(data / "orders.lock", 0), Disk())
    assert list(log.read()) == []
    with pytest.raises(StoreUnavailable, match=r"cannot use /proc/orders"):
        append(log)


# The lock


def test_whoever_holds_the_log_keeps_writers_and_readers_waiting(open_log, two_lines):
    with open_log().writing() as end:
        assert end == Position(len(two_lines), 2)
        for use in (append, lines_of, EventLog.end, EventLog.torn):
            with pytest.raises(StoreBusy, match=r"busy for 0.05 s: .*orders.lock is held by"):
                use(open_log(timeout=0.05))
    assert lines_of(open_log(timeout=0.05))
