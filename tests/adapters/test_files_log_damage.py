"""The event log damaged: what a crash leaves is cut off, with a copy; all else is reported by line.

Whatever is wrong, no byte that was stored is taken away.
"""

import os
import stat
from contextlib import suppress
from itertools import islice
from zlib import crc32

import pytest
from msgspec.structs import replace
from store_files import (
    FOREIGN_LOGS,
    HastyDisk,
    append,
    checksum,
    copies_of,
    lines_of,
    newcomer,
    opening_logs,
    order_ids,
    snapshot,
)

from orders import OrderCreated, OrderShipped
from orders.adapters.files.line import FORMAT, Line, Position, decode, encode, encode_messages
from orders.adapters.files.log import EventLog
from orders.adapters.files.reader import BIG_BLOCK, SECTOR
from orders.application.store import Delivery
from orders.errors import ForeignFile, LogDamaged, StoreError, UnreadableMessage


@pytest.fixture
def path(data):
    return data / "events.jsonl"


@pytest.fixture
def open_log(data):
    with opening_logs(data) as open_log:
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


ALL = pytest.mark.parametrize("use", [lines_of, EventLog.position, newcomer])
anywhere = pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])


def changes(content, *changes):
    """Yield the content with one byte changed, at every position and in every way."""
    for position in range(len(content)):
        for change in changes:
            changed = bytearray(content)
            changed[position] ^= change
            yield position, bytes(changed)


# What a crash leaves


def test_a_torn_last_line_is_ignored_by_readers_and_cut_off_by_the_next_writer(
    open_log, path, small
):
    path.write_bytes(small[:-20])
    torn = small.splitlines()[-1][:-19]
    whole = small[: small[:-1].rindex(b"\n") + 1]
    before = snapshot(path)
    assert open_log().torn() == torn
    assert order_ids(open_log()) == ["1", "1", "2", "3"]
    assert open_log().position() == Position(len(whole), 4)
    assert open_log().ends_at(Position(len(whole), 4), checksum(whole[:-1]))
    assert snapshot(path) == before
    assert copies_of(path) == []

    log = open_log()
    entry = append(log, OrderShipped(order_id="new"))
    assert entry.line.seq == 5
    assert path.read_bytes() == whole + entry.raw + b"\n"
    assert copies_of(path) == [log.kept]
    assert log.kept.read_bytes() == torn
    assert stat.S_IMODE(log.kept.stat().st_mode) == 0o600


def test_a_long_line_that_is_torn_is_ignored_and_then_cut_off(open_log, path):
    append(open_log(), OrderShipped(order_id="1"))
    kept = path.read_bytes()
    append(open_log(), OrderShipped(order_id="x" * 2 * BIG_BLOCK))
    os.truncate(path, path.stat().st_size - 10)
    torn = path.read_bytes()[len(kept) :]
    assert order_ids(open_log()) == ["1"]
    newcomer(open_log())
    assert path.read_bytes() == kept
    assert [copy.read_bytes() for copy in copies_of(path)] == [torn]


def test_a_whole_last_line_that_lacks_its_line_feed_is_kept(open_log, path, small):
    path.write_bytes(small[:-1])
    before = snapshot(path)
    assert order_ids(open_log()) == ["1", "1", "2", "3", "4"]
    assert open_log().position().seq == 5
    assert snapshot(path) == before

    entry = append(open_log(), OrderShipped(order_id="new"))
    assert path.read_bytes() == small + entry.raw + b"\n"
    assert copies_of(path) == []


def test_a_reader_that_saw_a_line_without_its_line_feed_appends_well(open_log, path, small):
    path.write_bytes(small[:-1])
    log = open_log()
    log.position()
    newcomer(open_log())
    entry = append(log, OrderShipped(order_id="new"))
    assert path.read_bytes() == small + entry.raw + b"\n"


@anywhere
def test_a_log_cut_at_any_byte_reads_as_a_prefix_and_can_be_gone_on_with(
    step, open_log, path, small
):
    complete = [decode(raw) for raw in small.splitlines()]
    for cut in range(0, len(small) + 1, step):
        path.write_bytes(small[:cut])
        before = snapshot(path)
        kept = small[: cut + 1].count(b"\n")  # a last line that lacks its line feed is whole
        torn = small[:cut].rpartition(b"\n")[2] if small[cut : cut + 1] != b"\n" else b""
        log = open_log(HastyDisk())
        assert lines_of(log) == complete[:kept], cut
        assert snapshot(path) == before

        new = append(log, OrderShipped(order_id="new"))
        assert lines_of(log) == [*complete[:kept], new.line], cut
        log.close()
        assert [copy.read_bytes() for copy in copies_of(path)] == [torn] * bool(torn), cut
        for copy in copies_of(path):
            copy.unlink()


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
def test_zeros_that_a_power_cut_leaves_at_the_end_are_ignored_and_cut_off(
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
    rest = open_log().torn()

    append(open_log(), OrderShipped(order_id="new"))
    assert path.read_bytes().startswith(small)
    assert [copy.read_bytes() for copy in copies_of(path)] == [rest]
    assert [line.seq for line in lines_of(open_log())] == list(range(1, len(kept) + 2))
    assert order_ids(open_log())[-1] == "new"


def test_zeros_alone_are_an_empty_log(open_log, data, path):
    data.mkdir()
    path.write_bytes(bytes(4096))
    assert lines_of(open_log()) == []
    append(open_log(), OrderShipped(order_id="1"))
    assert order_ids(open_log()) == ["1"]
    assert [copy.read_bytes() for copy in copies_of(path)] == [bytes(4096)]


# Damage


def test_zeros_that_a_later_line_proves_to_have_been_on_the_disk_are_damage(open_log, path, small):
    lines = small.splitlines(keepends=True)
    for number in range(len(lines) - 1):
        zeros = bytes(len(lines[number]))
        path.write_bytes(b"".join([*lines[:number], zeros, *lines[number + 1 :]]))
        before = snapshot(path)
        for use in (lines_of, EventLog.torn):
            with pytest.raises(LogDamaged, match=rf"events.jsonl:{number + 1}: "):
                use(open_log())
        assert snapshot(path) == before


@pytest.mark.parametrize("pending", [False, True], ids=["nothing pending", "something pending"])
def test_a_line_says_up_to_where_all_before_it_was_on_the_disk(open_log, path, pending):
    """Zeros over lines that were synced are damage, over others a power cut's work."""
    log = open_log()
    created = OrderCreated(order_id="1", items=("TV",))
    deliveries = [Delivery(created.id, "sales")] * pending
    entries = [append(log, created, deliveries=deliveries)]
    entries += [append(log, OrderShipped(order_id="x" * 1500)) for _ in range(2)]
    entries += [append(log, OrderShipped(order_id="x" * 1500), sync=False) for _ in range(2)]
    content = path.read_bytes()
    for number, entry in enumerate(entries[1:], start=2):
        begin = -(-entry.start.offset // SECTOR) * SECTOR
        zeroed = content[:begin] + bytes(SECTOR) + content[begin + SECTOR :]
        path.write_bytes(zeroed)
        if number <= 3:
            with pytest.raises(LogDamaged, match=rf"events.jsonl:{number}: "):
                lines_of(open_log())
        else:
            assert lines_of(open_log()) == [entry.line for entry in entries[: number - 1]]
        assert path.read_bytes() == zeroed


def test_what_other_files_prove_to_have_been_on_the_disk_is_not_cut_off(open_log, path, small):
    path.write_bytes(small[:-20])
    begin = small[:-1].rindex(b"\n") + 1
    before = snapshot(path)
    assert len(lines_of(open_log(proven=begin))) == 4
    for use in (lines_of, EventLog.position, newcomer):
        with pytest.raises(LogDamaged, match=r"events.jsonl:5: "):
            use(open_log(proven=begin + 1))
    assert snapshot(path) == before


@anywhere
def test_a_changed_byte_anywhere_is_reported_by_file_and_line(step, open_log, path, small):
    log = open_log()
    for position, changed in islice(changes(small, 0x01, 0xFF), None, None, step):
        path.write_bytes(changed)
        before = snapshot(path)
        number = small[:position].count(b"\n") + 1
        with pytest.raises(LogDamaged, match=rf"events.jsonl:{number}: .*nothing was changed"):
            list(log.read())
        assert snapshot(path) == before


@anywhere
def test_a_zero_in_place_of_any_one_byte_is_damage(step, open_log, path, small):
    log, silent = open_log(), []
    for position in range(0, len(small), step):
        path.write_bytes(small[:position] + b"\0" + small[position + 1 :])
        with suppress(LogDamaged):
            list(log.read())
            silent.append(position)
    assert silent == []


@anywhere
def test_a_writer_takes_nothing_away_from_a_log_with_a_changed_byte(step, open_log, path, small):
    for _, changed in islice(changes(small, 0x01, 0xFF), None, None, step):
        path.write_bytes(changed)
        log = open_log(HastyDisk())
        with suppress(LogDamaged):
            append(log, OrderShipped(order_id="new"))
        log.close()
        assert path.read_bytes().startswith(changed)


@ALL
def test_a_damaged_last_line_is_refused(open_log, path, small, use):
    path.write_bytes(small.replace(b'"order_id":"4"', b'"order_id":"5"'))
    before = snapshot(path)
    with pytest.raises(LogDamaged, match=r"events.jsonl:5: the checksum does not match"):
        use(open_log())
    assert snapshot(path) == before


@ALL
@pytest.mark.parametrize("filler", [b"\n", b"x", b"}"])
def test_a_damaged_line_that_a_newcomer_begins_with_is_reported(open_log, path, filler, use):
    event = OrderCreated(order_id="waiting", items=("TV",))
    append(open_log(), OrderShipped(order_id="1"))
    waiting = append(open_log(), event, deliveries=[Delivery(event.id, "sales")])
    append(open_log(), OrderShipped(order_id="2"))
    path.write_bytes(path.read_bytes().replace(waiting.raw, filler * len(waiting.raw)))
    before = snapshot(path)
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


@ALL
@pytest.mark.parametrize("extra", [b"\n", b"}\n", b'"\n', b"garbage\n", b"garbage"])
def test_what_somebody_else_appended_is_reported_by_line(open_log, path, small, extra, use):
    path.write_bytes(small + extra)
    before = snapshot(path)
    with pytest.raises(LogDamaged, match=r"events.jsonl:6: this is no line of a log"):
        use(open_log())
    assert snapshot(path) == before


@ALL
def test_a_line_of_a_newer_version_is_reported_as_such_and_left_alone(open_log, path, small, use):
    line = decode(small.splitlines()[-1])
    path.write_bytes(small + encode(Line(FORMAT + 1, 6, line.time)) + b"\n")
    before = snapshot(path)
    with pytest.raises(UnreadableMessage, match=r"events.jsonl:6: it has format 2, of a newer"):
        use(open_log())
    assert snapshot(path) == before


def test_a_message_of_a_newer_revision_is_reported_as_such(open_log, path, small):
    raw = encode(replace(decode(small.splitlines()[-1]), seq=6))[:-18]
    content = raw.replace(b'"type":"OrderShipped"', b'"type":"OrderShipped@9"')
    path.write_bytes(small + content + b',"crc":"%08x"}\n' % crc32(content))
    with pytest.raises(UnreadableMessage, match=r"events.jsonl:6: .*newer version.*update it"):
        lines_of(open_log())


# What is no log


@pytest.fixture(params=FOREIGN_LOGS)
def foreign(request, data, path):
    """A file of another program in place of the log."""
    data.mkdir()
    path.write_bytes(FOREIGN_LOGS[request.param])
    return path


def test_a_foreign_file_is_refused_to_all_and_untouched(open_log, foreign):
    before = snapshot(foreign)
    for use in (lines_of, EventLog.position, newcomer, append, append):
        with pytest.raises(StoreError, match=r"events.jsonl"):
            use(open_log())
    assert snapshot(foreign) == before
    assert copies_of(foreign) == []


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
    for use in (lines_of, EventLog.end, EventLog.position, EventLog.torn, newcomer, append):
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
    for use in (append, lines_of):
        with pytest.raises(ForeignFile, match="was removed or replaced while in use"):
            use(log)
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


def test_a_block_that_was_never_written_is_not_skipped_when_the_log_is_looked_at_again(
    open_log, path
):
    log = open_log()
    append(log, OrderShipped(order_id="1"))
    with log.writing():  # a power cut leaves these two as it likes
        lost = log.append(encode_messages([OrderShipped(order_id="x" * 2000)]))
        log.append(encode_messages([OrderShipped(order_id="3")]))
    log.close()
    with path.open("r+b") as file:
        file.seek(lost.start.offset)
        file.write(bytes(-lost.start.offset % 512 + 512))
    again = open_log()
    assert again.position() == lost.start
    assert again.position() == lost.start
    assert again.ledger().outstanding() == ()
