"""The event log: what was appended is read back, at a cost that does not grow with the log."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from store_files import RecordingDisk, append, checksum, newcomer, opening_logs, order_ids

from orders import OrderCreated, OrderShipped
from orders.adapters.files import log as log_module
from orders.adapters.files.ledger import Ledger
from orders.adapters.files.line import BEGINNING, Position, encode_messages
from orders.adapters.files.log import TAIL
from orders.adapters.files.reader import BIG_BLOCK, BLOCK
from orders.application.store import Delivery
from orders.errors import LogDamaged, WrongPayload


@pytest.fixture
def path(data):
    return data / "events.jsonl"


@pytest.fixture
def open_log(data):
    with opening_logs(data) as open_log:
        yield open_log


def append_many(log, count):
    with log.writing():
        for number in range(count):
            log.append(encode_messages([OrderShipped(order_id=str(number))]))


def call_for(log, *subscribers, owner="lease"):
    """Append an event with pending deliveries."""
    event = OrderCreated(order_id="waiting", items=("TV",))
    deliveries = [Delivery(event.id, subscriber) for subscriber in subscribers]
    return append(log, event, deliveries=deliveries, owner=owner)


def pending(log):
    """What is pending, as somebody finds it who has just opened the log."""
    log.position()
    return log.ledger().outstanding()


# Append and read


def test_what_is_appended_is_read_back_in_order(open_log):
    log = open_log()
    first = append(log, OrderShipped(order_id="1"), OrderShipped(order_id="2"))
    second = append(log, OrderShipped(order_id="3"), owner="lease")
    assert list(log.read()) == list(open_log().read()) == [first, second]


def test_who_leaves_deliveries_to_others_does_not_remember_them_for_good(open_log):
    log = open_log()
    call_for(log, "sales", owner=None)
    call_for(log, "sales")
    assert len(log._own) == 1


def test_a_log_that_does_not_exist_is_empty_and_reading_makes_no_file(open_log, data):
    log = open_log()
    assert list(log.read()) == list(log.at([BEGINNING])) == []
    assert (log.end(), log.position()) == (0, BEGINNING)
    assert log.torn() == b""
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
    assert entries[0].start == BEGINNING
    assert [entry.start for entry in entries[1:]] == [entry.end for entry in entries[:-1]]
    assert entries[-1].end == log.position() == open_log().position() == Position(log.end(), 3)
    for entry in entries:
        assert path.read_bytes()[entry.start.offset : entry.end.offset] == entry.raw + b"\n"


def test_what_lies_between_two_positions_is_read(open_log):
    log = open_log()
    entries = [append(log, OrderShipped(order_id=str(number))) for number in range(4)]
    assert list(log.read(entries[0].end)) == entries[1:]
    assert list(log.read(entries[0].end, entries[2].end)) == entries[1:3]
    assert list(log.read(entries[-1].end)) == []


def test_lines_are_found_by_where_they_begin(open_log):
    log = open_log()
    entries = [append(log, OrderShipped(order_id=str(number))) for number in range(4)]
    assert list(log.at([entries[2].start, entries[0].start])) == [entries[2], entries[0]]
    nowhere = [Position(7, 0), entries[-1].end, entries[2].start._replace(seq=0)]
    assert list(log.at(nowhere)) == []


@pytest.mark.parametrize("has_been_written", [False, True])
def test_append_outside_of_writing_is_refused(open_log, path, has_been_written):
    log = open_log()
    if has_been_written:
        append(log, OrderShipped(order_id="1"))
    before = path.read_bytes() if has_been_written else None
    with pytest.raises(RuntimeError, match=r"inside writing\(\)"):
        log.append(encode_messages([OrderShipped(order_id="2")]))
    assert (path.read_bytes() if path.exists() else None) == before


def test_only_the_wanted_lines_are_yielded(open_log):
    log = open_log()
    entries = [append(log, OrderShipped(order_id=name)) for name in ("a-1", "b-1", "a-2")]
    assert list(log.read(wanted=lambda raw: b'"a-' in raw)) == [entries[0], entries[2]]
    assert list(log.read(entries[0].end, wanted=lambda raw: b'"a-' in raw)) == [entries[2]]
    assert list(log.read(wanted=lambda _raw: False)) == []


def test_lines_that_are_not_yielded_are_checked_all_the_same(open_log, path):
    log = open_log()
    for name in ("a", "b", "c"):
        append(log, OrderShipped(order_id=name))
    path.write_bytes(path.read_bytes().replace(b'"order_id":"b"', b'"order_id":"x"'))
    with pytest.raises(LogDamaged) as caught:
        list(log.read(wanted=lambda raw: b'"order_id":"c"' in raw))
    assert caught.value.number == 2


@pytest.mark.parametrize("size", [BLOCK - 200, BLOCK, BLOCK + 1, BIG_BLOCK + 7, 3 * BIG_BLOCK])
def test_lines_of_many_blocks_are_read_forwards_and_from_the_end(open_log, size):
    text = "x" * size
    first = append(open_log(), OrderShipped(order_id="1"))
    long = append(open_log(), OrderShipped(order_id=text))
    assert list(open_log().read()) == [first, long]
    last = append(open_log(), OrderShipped(order_id="3"), OrderShipped(order_id=text))
    assert list(open_log().read()) == [first, long, last]
    assert list(open_log().read(wanted=lambda raw: text.encode() in raw)) == [long, last]
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


def test_whether_a_line_ends_at_a_position_is_told_by_its_checksum(open_log):
    log = open_log()
    first, second = append(log, OrderShipped(order_id="1")), append(log)
    assert log.ends_at(BEGINNING, log.checksum_at(BEGINNING))
    for entry in (first, second):
        assert log.checksum_at(entry.end) == checksum(entry.raw)
        assert log.ends_at(entry.end, checksum(entry.raw))
    assert not log.ends_at(first.end, checksum(second.raw))
    for offset in (1, 5, 11, second.end.offset + 1):
        assert not log.ends_at(Position(offset, 2), checksum(second.raw))


def test_a_message_that_could_not_be_read_back_is_not_written(open_log, path):
    log = open_log()
    append(log, OrderShipped(order_id="1"))
    before = path.read_bytes()
    with pytest.raises(WrongPayload, match="a message cannot be stored"):
        append(log, OrderShipped(order_id="\ud800"))
    assert path.read_bytes() == before
    assert append(log, OrderShipped(order_id="2")).line.seq == 2


# Cost


def opening_cost(open_log):
    """How many bytes somebody who has just opened the log reads of it."""
    disk = RecordingDisk()
    newcomer(open_log(disk))
    return disk.bytes_read


def test_a_newcomer_reads_the_end_of_the_log_only(open_log, path):
    append_many(open_log(), 2000)
    small = opening_cost(open_log)
    append_many(open_log(), 8000)
    assert path.stat().st_size > 1_500_000
    assert opening_cost(open_log) <= 2 * small <= 300_000


def test_an_append_reads_only_what_others_have_appended_since(open_log):
    disk = RecordingDisk()
    log = open_log(disk)
    append_many(log, 1000)
    other = append(open_log(), OrderShipped(order_id="other"))
    before = disk.bytes_read
    append(log, OrderShipped(order_id="mine"))
    assert disk.bytes_read - before <= TAIL + len(other.raw) + 1
    before = disk.bytes_read
    append(log, OrderShipped(order_id="mine again"))
    assert disk.bytes_read - before == TAIL


def test_those_who_share_a_log_keep_what_a_newcomer_reads_short(open_log, path):
    logs = [open_log() for _ in range(4)]
    for number in range(800):
        log, event = logs[number % 4], OrderShipped(order_id="x" * 200)
        delivery = Delivery(event.id, "sales")
        append(log, event, deliveries=[delivery], owner="lease", sync=number % 100 == 0)
        append(log, deliveries=[replace(delivery, status="done")], sync=False)
    assert opening_cost(open_log) < 200_000 < path.stat().st_size
    assert pending(open_log()) == ()


def test_whatever_is_pending_a_newcomer_reads_the_end_only_and_knows_it(open_log, path):
    log = open_log()
    append_many(log, 2000)
    entry = call_for(log, "sales", "stock")
    append_many(log, 6000)
    assert opening_cost(open_log) < 500_000 < path.stat().st_size - entry.start.offset
    found = pending(open_log())
    assert [(one.delivery, one.owner, (one.offset, one.seq)) for one in found] == [
        (delivery, "lease", entry.start) for delivery in entry.line.deliveries
    ]
    append(log, deliveries=[Delivery(*entry.line.deliveries[0].key, "done", 1)])
    (left,) = pending(open_log())
    assert left.delivery == entry.line.deliveries[1]
    append(log, deliveries=[Delivery(*left.delivery.key, "done", 1)])
    append_many(log, 2)
    assert pending(open_log()) == ()


def test_the_oldest_of_several_pending_deliveries_counts(open_log):
    log = open_log()
    entries = [call_for(log, "sales", "mail") for _ in range(3)]
    a, b, c = (entry.line.messages[0].id for entry in entries)
    append(log, deliveries=[Delivery(a, "sales", "done"), Delivery(a, "mail", "failed")])
    append(log, deliveries=[Delivery(b, "mail", "done")])
    waiting = [one.delivery.key for one in pending(open_log())]
    assert waiting == [(b, "sales"), (c, "sales"), (c, "mail")]
    assert append(open_log()).line.settled == entries[1].start.offset


def test_a_reader_learns_what_others_append_and_settle(open_log):
    reader, writer = open_log(), open_log()
    entry = call_for(writer, "sales")
    assert len(pending(reader)) == 1
    append(writer, deliveries=[Delivery(*entry.line.deliveries[0].key, "failed", 3)])
    assert pending(reader) == ()


STEPS = st.lists(
    st.tuples(st.sampled_from(["call", "settle", "take over", "go on"]), st.integers(0, 9)),
    max_size=12,
)


@settings(max_examples=50, deadline=None, database=None)
@given(STEPS, st.integers(0, 3))
def test_a_newcomer_knows_of_pending_deliveries_what_the_whole_log_says(steps, few):
    with (
        TemporaryDirectory() as directory,
        opening_logs(Path(directory)) as open_log,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(log_module, "UNLISTED", 300 * few)  # bytes: as if these lines were many
        patch.setattr(log_module, "LISTED", 1)
        log = open_log()
        for kind, number in steps:
            take_a_step(log, kind, number)
            whole = Ledger()
            for entry in open_log().read():
                whole.apply(entry.line.deliveries, entry.line.owner, entry.start)
            assert pending(open_log()) == pending(log) == whole.outstanding()


def take_a_step(log, kind, number):
    waiting = pending(log)
    if kind == "call":
        call_for(log, *("sales", "stock")[: 1 + number % 2])
    elif kind == "go on" or not waiting:
        append(log, OrderShipped(order_id="x" * 50 * number), sync=number % 2 == 0)
    else:
        delivery = waiting[number % len(waiting)].delivery
        status = "pending" if kind == "take over" else "done"
        append(log, deliveries=[replace(delivery, status=status)], owner="another", sync=False)


def test_of_what_others_have_appended_no_more_is_read_than_is_of_that_time_or_later(open_log):
    log, another = open_log(), open_log()
    append_many(log, 100)
    since = datetime.now(UTC)
    theirs = append(another, OrderShipped(order_id="new"))
    with log.writing():
        assert log.latest(since) == theirs.raw + b"\n"
        assert theirs.raw in log.latest(theirs.line.time)
    append(another, OrderShipped(order_id="newer"))
    with log.writing():
        assert theirs.raw in log.latest(since)


def test_the_end_of_a_log_has_all_lines_of_a_time_or_later(open_log):
    disk = RecordingDisk()
    log = open_log(disk)
    append_many(log, 3000)
    entries = list(log.read())
    for number in (0, 1, 1500, 2990, 2999):
        since, before = entries[number].line.time, disk.bytes_read
        with log.writing():
            latest = log.latest(since)
        assert b"".join(entry.raw + b"\n" for entry in entries[number:]) in latest
        if number > 2000:
            assert TAIL + len(latest) == disk.bytes_read - before < log.end() // 2
    with log.writing():
        assert len(log.latest(datetime.now(UTC) + timedelta(days=1))) <= BLOCK
