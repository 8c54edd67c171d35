"""The event log: what was appended is read back, and nothing else is taken for it."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from orders import OrderCreated, OrderShipped
from orders.adapters.files.disk import Disk, FileLock
from orders.errors import (
    ForeignFile,
    LogDamaged,
    NotStored,
    StoreBusy,
    StoreError,
    StoreUnavailable,
    WrongPayload,
)
from orders.adapters.files.log import EventLog
from orders.application.store import START, Delivery, Position
from orders.adapters.files.line import FORMAT, Line, checksum, decode, encode
from orders.adapters.files.reader import BIG_BLOCK, BLOCK

OPEN = """
import sys
from pathlib import Path
from orders import OrderShipped
from orders.adapters.files.disk import Disk, FileLock
from orders.adapters.files.log import EventLog

data, name = Path(sys.argv[1]), sys.argv[2]
lock = FileLock(data / "orders.lock", 60)
log = EventLog(data / "events.jsonl", lock, Disk())
print("ready", flush=True)
"""

APPEND_50 = (
    OPEN
    + """
sys.stdin.readline()
for number in range(50):
    with log.writing():
        log.append([OrderShipped(order_id=f"{name}-{number}")])
"""
)

APPEND_1 = OPEN + "with log.writing(): log.append([OrderShipped(order_id=name)])"

HOLD = """
from contextlib import nullcontext
with log.writing() if name == "writer" else lock.held(shared=True):
    print("held", flush=True)
    sys.stdin.read()
"""

FOREIGN = {
    "text": b"Dear diary,\ntoday I ordered a TV.\n",
    "text without a newline": b"Dear diary",
    "one line of text": b"Dear diary\n",
    "json": b'{"foo": 1}',
    "json with a newline": b'{"foo": 1}\n',
    "pretty json": b'{\n  "format": 1,\n  "seq": 1\n}\n',
    "another program's lines": b'{"seq":1,"event":"start"}\n{"seq":2,"event":"stop"}\n',
    "the same line twice": b"a\na\n",
    "an unfinished line": b'{"seq":1,"event":"start"}\n{"seq":2,"ev',
    "binary": bytes(range(256)) * 10,
    "binary without a newline": bytes(range(128, 256)) * 1000,
    "text and zeros": b"Dear diary\n" + bytes(5000),
    "spaces": b"   ",
    "a blank line": b"\n",
    "blank lines": b"\n\n\n",
}


class CountingDisk(Disk):
    """Counts the bytes read and the files opened."""

    def __init__(self):
        self.bytes_read = 0
        self.opened = 0

    def open(self, path, flags):
        self.opened += 1
        return super().open(path, flags)

    def read(self, descriptor, size, offset):
        data = super().read(descriptor, size, offset)
        self.bytes_read += len(data)
        return data


class RefusingDisk(CountingDisk):
    """Refuses the calls named in `refused`, with their error number."""

    def __init__(self, **refused):
        super().__init__()
        self.refused = refused

    def _consider(self, call):
        if call in self.refused:
            raise OSError(self.refused[call], os.strerror(self.refused[call]))

    def open(self, path, flags):
        self._consider("open")
        return super().open(path, flags)

    def read(self, descriptor, size, offset):
        self._consider("read")
        return super().read(descriptor, size, offset)

    def write(self, descriptor, data):
        if "short_write" in self.refused:
            self.refused["write"] = self.refused.pop("short_write")
            return super().write(descriptor, data[: len(data) // 2])
        self._consider("write")
        return super().write(descriptor, data)

    def sync(self, descriptor):
        self._consider("sync")
        super().sync(descriptor)

    def truncate(self, descriptor, size):
        self._consider("truncate")
        super().truncate(descriptor, size)

    def sync_directory(self, directory):
        self._consider("sync_directory")
        super().sync_directory(directory)


@pytest.fixture
def path(data):
    return data / "events.jsonl"


@pytest.fixture
def open_log(data):
    """Open a log object of its own on the store; all are closed in the end."""
    with ExitStack() as stack:

        def open_log(disk=None, timeout=60.0):
            lock = FileLock(data / "orders.lock", timeout)
            log = EventLog(data / "events.jsonl", lock, disk or Disk())
            stack.callback(lock.close)
            stack.callback(log.close)
            return log

        yield open_log


@pytest.fixture
def small(open_log, path):
    """The bytes of a log of five lines, with deliveries and letters of several bytes."""
    log = open_log()
    created = OrderCreated(order_id="1", items=("100 inch TV", "Zoë's 🧞 carpet"))
    append(log, created, deliveries=[Delivery(created.id, "sales")], owner="lease")
    append(log, OrderShipped(order_id="1"))
    append(log, deliveries=[Delivery(created.id, "sales", "done", 1)])
    append(log, OrderShipped(order_id="2"), OrderShipped(order_id="3"))
    append(log, OrderShipped(order_id="4"))
    log.close()
    return path.read_bytes()


def append(log, *messages, **options):
    with log.writing():
        return log.append(messages, **options)


def append_many(log, count):
    with log.writing():
        for number in range(count):
            log.append([OrderShipped(order_id=str(number))], sync=False)


def order_ids(log, *arguments, **options):
    entries = log.read(*arguments, **options)
    return [message.order_id for entry in entries for message in entry.line.messages]


def lines_of(log):
    return [entry.line for entry in log.read()]


def newcomer(log):
    """Let a log object that knows nothing learn where the log ends."""
    with log.writing():
        return log


def snapshot(path):
    """What must not change: the kind, the content and the time of a file or directory."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        content = sorted(entry.name for entry in path.iterdir())
    else:
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
    return status.st_mode, status.st_ino, status.st_mtime_ns, content


@contextmanager
def process(code, data, name):
    with subprocess.Popen(
        [sys.executable, "-c", code, str(data), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process


@contextmanager
def held_elsewhere(data, name):
    data.mkdir(exist_ok=True)
    with process(OPEN + HOLD, data, name) as holder:
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.stdin.close()


# Append and read


def test_what_is_appended_is_read_back_in_order(open_log):
    log = open_log()
    first = append(log, OrderShipped(order_id="1"), OrderShipped(order_id="2"))
    second = append(log, OrderShipped(order_id="3"), owner="lease")
    assert list(log.read()) == list(open_log().read()) == [first, second]


def test_a_log_that_does_not_exist_is_empty_and_reading_makes_no_file(open_log, data):
    log = open_log()
    assert list(log.read()) == []
    assert log.end() == 0
    assert log.pending() == []
    assert not data.exists()


def test_an_empty_log_file_is_an_empty_log(open_log, data, path):
    data.mkdir()
    path.touch()
    assert list(open_log().read()) == []
    append(open_log(), OrderShipped(order_id="1"))
    assert order_ids(open_log()) == ["1"]


def test_entries_say_where_they_stand(open_log, path):
    log = open_log()
    entries = [append(log, OrderShipped(order_id=str(number))) for number in range(3)]
    assert entries[0].start == START
    assert [entry.start for entry in entries[1:]] == [entry.end for entry in entries[:-1]]
    assert entries[-1].end == Position(log.end(), 3)
    for entry in entries:
        assert path.read_bytes()[entry.start.offset : entry.end.offset] == entry.raw + b"\n"


def test_reading_begins_after_a_position(open_log):
    log = open_log()
    entries = [append(log, OrderShipped(order_id=str(number))) for number in range(3)]
    assert list(log.read(entries[0].end)) == entries[1:]
    assert list(log.read(entries[-1].end)) == []


def test_numbers_have_no_gap_over_several_log_objects(open_log):
    logs = [open_log(), open_log(), open_log()]
    for number in range(9):
        append(logs[number % 3], OrderShipped(order_id=str(number)))
    assert [line.seq for line in lines_of(logs[0])] == list(range(1, 10))
    assert order_ids(logs[0]) == [str(number) for number in range(9)]


def test_numbers_have_no_gap_over_several_processes(open_log, data):
    append(open_log(), OrderShipped(order_id="here"))
    for name in ("a", "b"):
        with process(APPEND_1, data, name) as other:
            other.stdin.close()
        assert other.returncode == 0
    append(open_log(), OrderShipped(order_id="here again"))
    assert order_ids(open_log()) == ["here", "a", "b", "here again"]
    assert [line.seq for line in lines_of(open_log())] == [1, 2, 3, 4]


def test_two_processes_that_append_50_lines_each_make_100_and_readers_see_whole_ones(
    open_log, data
):
    log = open_log()
    with process(APPEND_50, data, "a") as a, process(APPEND_50, data, "b") as b:
        for writer in (a, b):
            writer.stdin.write(b"go\n")
            writer.stdin.close()
        while a.poll() is None or b.poll() is None:
            seen = [entry.line.seq for entry in log.read()]
            assert seen == list(range(1, len(seen) + 1))
    assert (a.returncode, b.returncode) == (0, 0)
    assert [line.seq for line in lines_of(log)] == list(range(1, 101))
    assert sorted(order_ids(log)) == sorted(f"{name}-{n}" for name in "ab" for n in range(50))


def test_two_threads_of_one_process_append_without_a_gap(open_log):
    log = open_log()

    def work(name):
        for number in range(50):
            append(log, OrderShipped(order_id=f"{name}-{number}"), sync=False)

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, "ab"))
    assert [line.seq for line in lines_of(log)] == list(range(1, 101))
    assert len(set(order_ids(log))) == 100


def test_append_outside_of_writing_is_refused(open_log):
    with pytest.raises(RuntimeError, match=r"inside writing\(\)"):
        open_log().append()


def test_append_after_writing_is_refused_too(open_log, path):
    log = open_log()
    append(log, OrderShipped(order_id="1"))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"inside writing\(\)"):
        log.append([OrderShipped(order_id="2")])
    assert path.read_bytes() == before


def test_only_the_lines_that_contain_some_bytes_are_yielded_and_the_last_one(open_log):
    log = open_log()
    entries = [append(log, OrderShipped(order_id=name)) for name in ("a-1", "b-1", "a-2")]
    assert list(log.read(containing=[b'"a-'])) == [entries[0], entries[2]]
    assert list(log.read(entries[0].end, containing=[b'"a-'])) == [entries[2]]
    assert list(log.read(containing=[b"nowhere"])) == [entries[-1]], "how far it got"


def test_lines_that_are_not_yielded_are_checked_all_the_same(open_log, path):
    log = open_log()
    for name in ("a", "b", "c"):
        append(log, OrderShipped(order_id=name))
    path.write_bytes(path.read_bytes().replace(b'"order_id":"b"', b'"order_id":"x"'))
    with pytest.raises(LogDamaged) as caught:
        list(log.read(containing=[b'"order_id":"c"']))
    assert (caught.value.path, caught.value.line) == (path, 2)


@pytest.mark.parametrize("size", [BLOCK - 200, BLOCK, BLOCK + 1, BIG_BLOCK + 7, 3 * BIG_BLOCK])
def test_lines_of_many_blocks_are_read_forwards_and_from_the_end(open_log, size):
    text = "x" * size
    first = append(open_log(), OrderShipped(order_id="1"))
    long = append(open_log(), OrderShipped(order_id=text))
    assert list(open_log().read()) == [first, long]
    last = append(open_log(), OrderShipped(order_id="3"), OrderShipped(order_id=text))
    assert list(open_log().read()) == [first, long, last]
    assert list(open_log().read(containing=[text.encode()])) == [long, last]
    assert append(open_log()).line.seq == 4


@pytest.mark.parametrize("block", [BLOCK, BIG_BLOCK])
@pytest.mark.parametrize("beyond", range(-2, 3))
def test_a_line_may_end_at_or_beside_the_end_of_a_block(open_log, block, beyond):
    entries = [append(open_log(), OrderShipped(order_id=name)) for name in ("first", "")]
    text = "x" * (block + beyond - len(entries[-1].raw))
    for order_id in (text, "last"):
        entries.append(append(open_log(), OrderShipped(order_id=order_id)))
        assert list(open_log().read()) == entries
        assert list(open_log().read(entries[1].end)) == entries[2:]
    assert [entry.line.seq for entry in entries] == [1, 2, 3, 4]


def test_a_long_line_that_is_torn_is_ignored_and_then_dropped(open_log, path):
    append(open_log(), OrderShipped(order_id="1"))
    kept = path.read_bytes()
    append(open_log(), OrderShipped(order_id="x" * 2 * BIG_BLOCK))
    os.truncate(path, path.stat().st_size - 10)
    assert order_ids(open_log()) == ["1"]
    newcomer(open_log())
    assert path.read_bytes() == kept


def test_whether_a_line_ends_at_a_position_is_told_by_its_checksum(open_log):
    log = open_log()
    first, second = append(log, OrderShipped(order_id="1")), append(log)
    assert log.ends_at(START, "")
    assert log.ends_at(first.end, checksum(first.raw))
    assert log.ends_at(second.end, checksum(second.raw))
    assert not log.ends_at(first.end, checksum(second.raw))
    assert not log.ends_at(Position(second.end.offset + 1, 2), checksum(second.raw))


def test_an_event_is_found_by_its_id(open_log):
    log, event = open_log(), OrderShipped(order_id="1")
    append(log, OrderShipped(order_id="0"))
    entry = append(log, OrderShipped(order_id="2"), event)
    assert log.find_event(event.id) == event
    assert log.find_event(event.id, entry.start) == event
    assert log.find_event(event.id, START) == event
    assert log.find_event(event.id, entry.end) == event
    assert log.find_event("nobody's") is None


def test_a_message_that_could_not_be_read_back_is_not_written(open_log, path):
    log = open_log()
    append(log, OrderShipped(order_id="1"))
    before = path.read_bytes()
    for unreadable in ("\ud800", 7, object()):
        with pytest.raises(WrongPayload, match="a message cannot be stored"):
            append(log, OrderShipped(order_id=unreadable))
    assert path.read_bytes() == before
    assert append(log, OrderShipped(order_id="2")).line.seq == 2


@pytest.mark.parametrize("offset", [1, 5, 11])
def test_no_line_ends_where_none_could(open_log, offset):
    log = open_log()
    entry = append(log, OrderShipped(order_id="1"))
    assert not log.ends_at(Position(offset, 1), checksum(entry.raw))


# Cost


def opening_cost(open_log):
    disk = CountingDisk()
    newcomer(open_log(disk))
    return disk.bytes_read


def test_a_newcomer_reads_the_end_of_the_log_only(open_log, path):
    append_many(open_log(), 2000)
    small = opening_cost(open_log)
    append_many(open_log(), 8000)
    assert path.stat().st_size > 1_500_000
    assert opening_cost(open_log) <= 2 * small <= 300_000


def test_an_append_reads_only_what_others_have_appended_since(open_log):
    disk = CountingDisk()
    log = open_log(disk)
    append_many(log, 1000)
    other = append(open_log(), OrderShipped(order_id="other"))
    before = disk.bytes_read
    append(log, OrderShipped(order_id="mine"))
    assert disk.bytes_read - before == len(other.raw) + 1
    append(log, OrderShipped(order_id="mine again"))
    assert disk.bytes_read - before == len(other.raw) + 1


def test_a_newcomer_reads_from_the_oldest_pending_delivery_and_knows_it(open_log, path):
    log = open_log()
    append_many(log, 4000)
    event = OrderCreated(order_id="owed", items=("TV",))
    entry = append(log, event, deliveries=[Delivery(event.id, "sales")], owner="lease")
    append_many(log, 1500)

    disk = CountingDisk()
    reader = newcomer(open_log(disk))
    assert disk.bytes_read < 2 * (path.stat().st_size - entry.start.offset) + 4 * BLOCK
    [owed] = reader.ledger.pending()
    assert owed == (Delivery(event.id, "sales"), "lease", entry.start)
    assert owed.position.seq == 4000
    assert open_log().pending() == [owed]


def test_once_the_old_delivery_is_done_a_newcomer_reads_the_end_only(open_log):
    log = open_log()
    event = OrderCreated(order_id="owed", items=("TV",))
    append(log, event, deliveries=[Delivery(event.id, "sales")], owner="lease")
    append_many(log, 4000)
    assert opening_cost(open_log) > 600_000
    append(log, deliveries=[Delivery(event.id, "sales", "done", 1)])
    append(log)
    assert opening_cost(open_log) < 300_000
    assert newcomer(open_log()).ledger.pending() == []


def test_the_oldest_of_several_pending_deliveries_counts(open_log):
    log = open_log()
    entries = []
    for name in ("a", "b", "c"):
        event = OrderCreated(order_id=name, items=("TV",))
        deliveries = [Delivery(event.id, "sales"), Delivery(event.id, "mail")]
        entries.append(append(log, event, deliveries=deliveries, owner="lease"))
    a, b, c = (entry.line.messages[0].id for entry in entries)
    append(log, deliveries=[Delivery(a, "sales", "done"), Delivery(a, "mail", "failed")])
    append(log, deliveries=[Delivery(b, "mail", "done")])
    owed = [(o.delivery.event, o.delivery.subscriber) for o in open_log().pending()]
    assert owed == [(b, "sales"), (c, "sales"), (c, "mail")]
    assert append(open_log()).line.settled == entries[1].start.offset


def test_a_reader_learns_what_others_append_and_settle(open_log):
    reader, writer = open_log(), open_log()
    event = OrderCreated(order_id="1", items=("TV",))
    append(writer, event, deliveries=[Delivery(event.id, "sales")])
    assert len(reader.pending()) == 1
    append(writer, deliveries=[Delivery(event.id, "sales", "failed", 3)])
    assert reader.pending() == []


# What a crash leaves


def test_a_torn_last_line_is_ignored_by_readers_and_dropped_by_the_next_writer(
    open_log, path, small
):
    path.write_bytes(small[:-20])
    assert open_log().torn() == small.splitlines()[-1][:-19]
    whole = small[: small[:-1].rindex(b"\n") + 1]
    before = snapshot(path)
    assert order_ids(open_log()) == ["1", "1", "2", "3"]
    assert open_log().pending() == []
    assert open_log().ends_at(Position(len(whole), 4), checksum(whole[:-1]))
    assert snapshot(path) == before

    entry = append(open_log(), OrderShipped(order_id="new"))
    assert entry.line.seq == 5
    assert path.read_bytes() == whole + entry.raw + b"\n"


def test_a_whole_last_line_that_lacks_its_line_feed_is_kept(open_log, path, small):
    path.write_bytes(small[:-1])
    before = snapshot(path)
    assert order_ids(open_log()) == ["1", "1", "2", "3", "4"]
    assert open_log().pending() == []
    assert snapshot(path) == before

    entry = append(open_log(), OrderShipped(order_id="new"))
    assert path.read_bytes() == small + entry.raw + b"\n"


def test_a_reader_that_saw_a_line_without_its_line_feed_appends_well(open_log, path, small):
    path.write_bytes(small[:-1])
    log, other = open_log(), open_log()
    log.pending()
    newcomer(other)
    entry = append(log, OrderShipped(order_id="new"))
    assert path.read_bytes() == small + entry.raw + b"\n"


def test_a_log_cut_at_any_byte_reads_as_a_prefix_and_can_be_gone_on_with(open_log, path, small):
    complete = [decode(raw) for raw in small.splitlines()]
    for cut in range(len(small) + 1):
        path.write_bytes(small[:cut])
        before = snapshot(path)
        kept = small[: cut + 1].count(b"\n")  # a last line that lacks its line feed is whole
        log = open_log()
        assert lines_of(log) == complete[:kept], cut
        assert snapshot(path) == before

        new = append(log, OrderShipped(order_id="new"), sync=False)
        log.close()
        assert lines_of(log) == [*complete[:kept], new.line], cut


SECTOR = 512  # bytes, the least that a disk writes


@pytest.mark.parametrize(
    "zeroed",
    [
        lambda begin, end: (end, end + 4096),
        lambda begin, end: (begin, end),
        lambda begin, end: (begin // SECTOR * SECTOR + SECTOR, end),
        lambda begin, end: (begin // SECTOR * SECTOR + SECTOR, begin // SECTOR * SECTOR + 1024),
    ],
    ids=["after the last line", "all of it", "from a sector on", "one sector of it"],
)
def test_zeros_that_a_power_cut_leaves_at_the_end_are_ignored_and_dropped(
    open_log, path, small, zeroed
):
    append(open_log(), OrderShipped(order_id="x" * 2000))
    content = path.read_bytes()
    begin, end = zeroed(len(small), len(content))
    path.write_bytes(content[:begin] + bytes(end - begin) + content[end:])
    before = snapshot(path)
    kept = [decode(raw) for raw in content[:begin].split(b"\n")[:-1]]
    assert lines_of(open_log()) == kept
    assert snapshot(path) == before

    append(open_log(), OrderShipped(order_id="new"))
    assert path.read_bytes().startswith(small)
    assert [line.seq for line in lines_of(open_log())] == list(range(1, len(kept) + 2))
    assert order_ids(open_log())[-1] == "new"


def test_zeros_alone_are_an_empty_log(open_log, data, path):
    data.mkdir()
    path.write_bytes(bytes(4096))
    assert lines_of(open_log()) == []
    append(open_log(), OrderShipped(order_id="1"))
    assert order_ids(open_log()) == ["1"]


def test_zeros_with_synced_lines_after_them_are_damage(open_log, path, small):
    lines = small.splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], bytes(len(lines[1])), *lines[2:]]))
    before = snapshot(path)
    with pytest.raises(LogDamaged, match=r"events.jsonl:2: "):
        list(open_log().read())
    assert snapshot(path) == before


def test_a_zero_in_place_of_any_one_byte_is_damage(open_log, path, small):
    silent = []
    for position in range(len(small)):
        changed = bytearray(small)
        changed[position] = 0
        path.write_bytes(changed)
        with suppress(LogDamaged):
            list(open_log().read())
            silent.append(position)
    assert silent == []


@pytest.mark.parametrize("change", [0x01, 0xFF])
def test_a_changed_byte_anywhere_is_reported_by_file_and_line(open_log, path, small, change):
    log = open_log()
    for position in range(len(small)):
        changed = bytearray(small)
        changed[position] ^= change
        path.write_bytes(changed)
        before = snapshot(path)
        number = small[:position].count(b"\n") + 1
        with pytest.raises(LogDamaged, match=rf"events.jsonl:{number}: .*nothing was changed"):
            list(log.read())
        assert snapshot(path) == before


@pytest.mark.parametrize("change", [0x01, 0xFF])
def test_a_writer_takes_nothing_away_from_a_log_with_a_changed_byte(open_log, path, small, change):
    for position in range(len(small)):
        changed = bytearray(small)
        changed[position] ^= change
        path.write_bytes(changed)
        log = open_log()
        with suppress(LogDamaged):
            append(log, OrderShipped(order_id="new"), sync=False)
        log.close()
        assert path.read_bytes().startswith(changed)


def test_a_writer_refuses_a_log_whose_last_line_is_damaged(open_log, path, small):
    path.write_bytes(small.replace(b'"order_id":"4"', b'"order_id":"5"'))
    before = snapshot(path)
    for use in (newcomer, EventLog.pending):
        with pytest.raises(LogDamaged, match=r"events.jsonl:5: the checksum does not match"):
            use(open_log())
    assert snapshot(path) == before


@pytest.mark.parametrize("filler", [b"\n", b"x", b"}"])
def test_a_damaged_line_that_a_newcomer_begins_with_is_reported(open_log, path, filler):
    event = OrderCreated(order_id="owed", items=("TV",))
    append(open_log(), OrderShipped(order_id="1"))
    owed = append(open_log(), event, deliveries=[Delivery(event.id, "sales")])
    append(open_log(), OrderShipped(order_id="2"))
    path.write_bytes(path.read_bytes().replace(owed.raw, filler * len(owed.raw)))
    before = snapshot(path)
    for use in (newcomer, EventLog.pending, lines_of):
        with pytest.raises(LogDamaged, match=r"events.jsonl:2: this is no line of a log"):
            use(open_log())
    assert snapshot(path) == before


def test_a_line_that_was_taken_out_is_missed_where_it_stood(open_log, path, small):
    lines = small.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(LogDamaged, match=r"events.jsonl:3: number 4 stands at line 3"):
        list(open_log().read())


def test_a_line_that_stands_there_twice_is_found(open_log, path, small):
    lines = small.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[-1]]))
    with pytest.raises(LogDamaged, match=r"events.jsonl:6: number 5 stands at line 6"):
        list(open_log().read())


@pytest.mark.parametrize("extra", [b"\n", b"}\n", b'"\n', b"garbage\n", b"garbage"])
def test_what_somebody_else_appended_is_reported_by_line(open_log, path, small, extra):
    path.write_bytes(small + extra)
    before = snapshot(path)
    for use in (lines_of, newcomer, EventLog.pending):
        with pytest.raises(LogDamaged, match=r"events.jsonl:6: this is no line of a log"):
            use(open_log())
    assert snapshot(path) == before


def test_a_line_of_a_newer_version_is_reported_as_such_and_left_alone(open_log, path, small):
    line = decode(small.splitlines()[-1])
    path.write_bytes(small + encode(Line(FORMAT + 1, 6, line.time)) + b"\n")
    before = snapshot(path)
    for use in (lines_of, newcomer):
        with pytest.raises(LogDamaged, match=r"events.jsonl:6: it has format 2, of a newer"):
            use(open_log())
    assert snapshot(path) == before


# What is no log


@pytest.fixture(params=FOREIGN)
def foreign(request, data, path):
    """A file of another program in place of the log."""
    data.mkdir()
    path.write_bytes(FOREIGN[request.param])
    return path


def test_a_foreign_file_is_refused_to_readers_and_untouched(open_log, foreign):
    before = snapshot(foreign)
    with pytest.raises(StoreError, match=r"events.jsonl"):
        list(open_log().read())
    with pytest.raises(StoreError, match=r"events.jsonl"):
        open_log().pending()
    assert snapshot(foreign) == before


def test_a_foreign_file_is_refused_to_writers_and_untouched(open_log, foreign):
    before = snapshot(foreign)
    log = open_log()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"events.jsonl"):
            append(log, OrderShipped(order_id="1"))
    assert snapshot(foreign) == before


@pytest.mark.parametrize("kind", ["directory", "fifo", "link to a device"])
def test_what_is_no_file_is_refused_at_once_and_untouched(open_log, data, path, kind):
    data.mkdir()
    make = {
        "directory": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "link to a device": lambda: path.symlink_to("/dev/null"),
    }
    make[kind]()
    before = snapshot(path)
    for use in (lines_of, EventLog.end, EventLog.pending, newcomer, append):
        with pytest.raises(ForeignFile, match=r"events.jsonl is (a directory|no regular file)"):
            use(open_log())
    assert snapshot(path) == before


def test_a_log_that_was_removed_while_open_is_not_made_anew(open_log, path):
    log = open_log()
    append(log, OrderShipped(order_id="1"))
    path.unlink()
    for _ in range(2):
        with pytest.raises(ForeignFile, match="was removed or replaced while in use"):
            append(log, OrderShipped(order_id="2"))
    assert not path.exists()


def test_a_log_that_was_replaced_while_open_is_left_alone(open_log, path, small):
    log = open_log()
    append(log, OrderShipped(order_id="1"))
    other = path.with_name("other")
    other.write_bytes(small)
    other.replace(path)
    with pytest.raises(ForeignFile, match="was removed or replaced while in use"):
        append(log, OrderShipped(order_id="2"))
    assert path.read_bytes() == small


@pytest.mark.parametrize("kept", [0, 1, 100, "a line"])
def test_a_log_that_was_cut_while_open_is_an_error_and_left_alone(open_log, path, kept):
    log = open_log()
    first = append(log, OrderShipped(order_id="1"))
    append(log, OrderShipped(order_id="2"))
    os.truncate(path, first.end.offset if kept == "a line" else kept)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"events.jsonl"):
        append(log, OrderShipped(order_id="3"))
    assert path.read_bytes() == before


def test_a_log_that_is_a_symbolic_link_stays_one(open_log, data, path, tmp_path):
    data.mkdir()
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.jsonl"
    path.symlink_to(real)
    append(open_log(), OrderShipped(order_id="1"))  # the target does not exist yet
    append(open_log(), OrderShipped(order_id="2"))
    assert path.is_symlink()
    assert not real.is_symlink()
    assert order_ids(open_log()) == ["1", "2"]


def test_what_the_log_makes_is_for_its_owner_only(open_log, data, path):
    append(open_log(), OrderShipped(order_id="1"))
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (data, *data.iterdir())}
    assert modes == {"store": 0o700, "events.jsonl": 0o600, "orders.lock": 0o600}


# What the disk refuses


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
    disk = RefusingDisk()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    before = path.read_bytes()
    disk.refused = refused
    with pytest.raises(NotStored, match=rf"could not write .*events.jsonl: {words}; nothing was"):
        append(log, OrderShipped(order_id="2"))
    assert path.read_bytes() == before

    disk.refused = {}
    opened = disk.opened
    entry = append(log, OrderShipped(order_id="3"))
    assert disk.opened == opened + 1, "a descriptor whose sync has failed is never used again"
    assert entry.line.seq == 2
    assert order_ids(open_log()) == ["1", "3"]


def test_a_part_that_cannot_be_cut_off_again_is_ignored_and_dropped_later(open_log, path):
    disk = RefusingDisk()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    disk.refused = {"short_write": errno.ENOSPC, "truncate": errno.EIO}
    with pytest.raises(NotStored):
        append(log, OrderShipped(order_id="2"))
    assert order_ids(log) == ["1"]
    disk.refused = {}
    append(log, OrderShipped(order_id="3"))
    assert order_ids(open_log()) == ["1", "3"]


def test_an_append_is_on_the_disk_before_it_returns_unless_it_may_wait(open_log):
    calls = []

    class Recording(Disk):
        def write(self, descriptor, data):
            calls.append("write")
            return super().write(descriptor, data)

        def sync(self, descriptor):
            calls.append("sync")
            super().sync(descriptor)

    log = open_log(Recording())
    newcomer(log)
    calls.clear()
    append(log, OrderShipped(order_id="1"))
    assert calls == ["write", "sync"]
    append(log, OrderShipped(order_id="2"), sync=False)
    assert calls == ["write", "sync", "write"]
    assert log.sync() == Position(log.end(), 2)
    assert calls == ["write", "sync", "write", "sync"]


def test_a_sync_that_fails_is_an_error_and_takes_nothing_back(open_log):
    disk = RefusingDisk()
    log = open_log(disk)
    append(log, OrderShipped(order_id="1"))
    append(log, OrderShipped(order_id="2"), sync=False)
    disk.refused = {"sync": errno.EIO}
    with pytest.raises(NotStored):
        log.sync()
    disk.refused = {}
    append(log, OrderShipped(order_id="3"))
    assert order_ids(open_log()) == ["1", "2", "3"]


def test_a_new_log_is_durable_in_its_directory_before_anything_is_acknowledged(open_log, data):
    synced = []

    class Recording(Disk):
        def sync_directory(self, directory):
            synced.append(directory)
            super().sync_directory(directory)

    log = open_log(Recording())
    append(log, OrderShipped(order_id="1"))
    assert synced == [data.parent, data]
    append(log, OrderShipped(order_id="2"))
    assert synced == [data.parent, data]


@pytest.mark.parametrize("who", ["the same", "another"])
def test_a_new_log_whose_directory_could_not_be_synced_is_synced_by_the_next_append(
    open_log, data, who
):
    data.mkdir()
    disk = RefusingDisk(sync_directory=errno.EIO)
    log = open_log(disk)
    with pytest.raises(StoreError, match="input/output error"):
        append(log, OrderShipped(order_id="1"))
    if who == "another":
        log = open_log(disk)
    with pytest.raises(StoreError, match="input/output error"):
        append(log, OrderShipped(order_id="2"))
    assert order_ids(open_log()) == []


def test_a_log_that_cannot_be_opened_is_unavailable(open_log, small):
    log = open_log(RefusingDisk(open=errno.EACCES))
    for use in (lines_of, append):
        with pytest.raises(StoreUnavailable, match=r"events.jsonl: permission denied; choose"):
            use(log)


@pytest.mark.parametrize("use", [lines_of, EventLog.pending, append])
def test_a_log_that_cannot_be_read_is_an_error_of_the_store(open_log, path, small, use):
    with pytest.raises(StoreError, match=r"events.jsonl: input/output error"):
        use(open_log(RefusingDisk(read=errno.EIO)))
    assert path.read_bytes() == small


@pytest.mark.parametrize(
    ("cut", "call"), [(1, "write"), (20, "truncate")], ids=["a line feed", "a torn line"]
)
def test_a_crash_that_cannot_be_mended_is_an_error_of_the_store(open_log, path, small, cut, call):
    path.write_bytes(small[:-cut])
    with pytest.raises(StoreError, match=r"events.jsonl: no space left on device"):
        append(open_log(RefusingDisk(**{call: errno.ENOSPC})), OrderShipped(order_id="new"))
    assert path.read_bytes() == small[:-cut]


def test_a_place_where_no_directory_can_be_made_is_unavailable():
    data = Path("/proc/orders")
    log = EventLog(data / "events.jsonl", FileLock(data / "orders.lock", 0), Disk())
    assert list(log.read()) == []
    with pytest.raises(StoreUnavailable, match=r"cannot use /proc/orders"):
        append(log)


# Locks


def test_a_waiter_is_told_which_process_holds_the_log_and_since_when(open_log, data):
    with (
        held_elsewhere(data, "writer") as other,
        pytest.raises(StoreBusy, match=rf"busy for 0.2 s: .* process {other.pid} since 2\d+-\d+-"),
    ):
        append(open_log(timeout=0.2))


def test_a_reader_waits_for_a_writer_too(open_log, data, small):
    with held_elsewhere(data, "writer"), pytest.raises(StoreBusy):
        list(open_log(timeout=0.2).read())


def test_a_killed_writer_frees_the_log(open_log, data):
    with held_elsewhere(data, "writer") as other:
        other.kill()
        other.wait()
        append(open_log(timeout=0.2), OrderShipped(order_id="1"))
    assert order_ids(open_log()) == ["1"]


def test_a_thread_that_waits_for_another_in_vain_is_told(open_log):
    log = open_log(timeout=0.2)
    with (
        ThreadPoolExecutor() as pool,
        log.writing(),
        pytest.raises(StoreBusy, match="another thread of this process"),
    ):
        pool.submit(append, log).result()


def test_readers_do_not_exclude_each_other_but_writers(open_log, data, small):
    with held_elsewhere(data, "reader"):
        assert len(lines_of(open_log(timeout=0.2))) == 5
        with pytest.raises(StoreBusy):
            append(open_log(timeout=0.2))
