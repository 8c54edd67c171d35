"""The state file damaged, foreign or ahead of the log: no wrong answer, and nothing thrown away."""

import errno
import os
import random
from contextlib import closing

import msgspec
import pytest
from store_files import (
    HastyDisk,
    RefusingDisk,
    commit_of,
    copies_of,
    move,
    place,
    place_eight,
    snapshot,
)
from tinydb import TinyDB

from orders.adapters.files.line import FORMAT, Line, decode, encode
from orders.adapters.files.store import FilesStore
from orders.application.store import Filter, Snapshot
from orders.domain.order import Order
from orders.errors import ForeignFile, LogDamaged, StoreError, UnreadableMessage

FOREIGN = {
    "object": b'{"foo":1}',
    "list": b"[1,2]",
    "null": b"null",
    "another TinyDB": b'{"_default": {"1": {"name": "Ann"}}}',
    "fifo": None,
    "directory": None,
}


@pytest.fixture
def log(data):
    return data / "events.jsonl"


@pytest.fixture
def state(data):
    return data / "orders.json"


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def open_store(data, warnings):
    """Open the store for a `with` block, as a process of its own would."""

    def open_store(directory=data, **options):
        return closing(FilesStore(directory, warn=warnings.append, **options))

    return open_store


@pytest.fixture
def eight(open_store):
    """A store of eight orders, one shipped and one cancelled; returns them, newest first."""
    with open_store() as store:
        return place_eight(store)


def listed(open_store):
    with open_store() as store:
        return store.orders()


def rebuilt(open_store, state):
    """The bytes of the state as it is made from the log alone."""
    state.unlink(missing_ok=True)
    with open_store() as store:
        store.checkpoint()
    return state.read_bytes()


def snapshots(data):
    """Everything in the store except the lock files."""
    return {path.name: snapshot(path) for path in data.iterdir() if path.suffix.startswith(".json")}


def ship_unseen(store):
    """Commit a change of an order without having looked it up."""
    order = Order(Order.place(["lamp"]).state)
    order.ship()
    store.commit(commit_of(order))


def refuses_everything(open_store, error=StoreError, match="orders.json"):
    """Check that neither looking nor storing works."""
    uses = [
        lambda store: store.order("1"),
        lambda store: store.ids(prefix="1"),
        lambda store: store.ids(keys=["k"]),
        lambda store: store.orders(),
        lambda store: store.orders(Filter(status="placed")),
        lambda store: store.count(),
        lambda store: store.checkpoint(),
        place,
        lambda store: place(store, key="k"),
        ship_unseen,
    ]
    for use in uses:
        with open_store() as store:
            for _ in range(2):
                with pytest.raises(error, match=match):
                    use(store)


# Damage


def test_a_state_cut_anywhere_is_seen_through_kept_aside_and_made_anew(
    eight, open_store, state, warnings
):
    kept = state.read_bytes()
    for number, cut in enumerate(range(1, len(kept), 50), start=1):
        state.write_bytes(kept[:cut])
        before = snapshot(state)
        assert listed(open_store) == eight
        assert snapshot(state) == before
        with open_store() as store:
            assert store.checkpoint()
        assert state.read_bytes() == kept
        assert len(copies_of(state)) == number
        assert ["the log was used instead" in text for text in warnings] == [True, False] * number
        assert copies_of(state)[-1].read_bytes() == kept[:cut]


def flips(content, count):
    """Yield the content with one byte changed, at random positions of its tables."""
    dice = random.Random(7)
    begin = content.index(b'"orders"')
    for _ in range(count):
        changed = bytearray(content)
        changed[dice.randrange(begin, len(content))] ^= dice.choice([0x01, 0x20, 0xFF])
        yield bytes(changed)


def test_a_changed_byte_in_the_state_changes_no_answer(eight, open_store, state):
    for changed in flips(state.read_bytes(), 100):
        state.write_bytes(changed)
        assert listed(open_store) == eight
        assert state.read_bytes() == changed


def test_a_changed_byte_in_the_head_of_the_state_changes_no_answer_or_is_refused(
    eight, open_store, state
):
    kept = state.read_bytes()
    for position in range(kept.index(b'"orders"')):
        for change in (0x01, 0xFF):
            changed = bytearray(kept)
            changed[position] ^= change
            state.write_bytes(changed)
            try:
                assert listed(open_store) == eight
            except ForeignFile:  # it no longer says that it is ours, or of this version
                assert position in {*range(2, 5), kept.index(b":1,") + 1}
            assert state.read_bytes() == changed


def test_orders_can_be_placed_whenever_they_can_be_listed(eight, open_store, state):
    kept = state.read_bytes()
    refused = []
    for position in range(kept.index(b'"orders"') + 1):
        changed = bytearray(kept)
        changed[position] ^= 0x01
        state.write_bytes(changed)
        with open_store() as store:
            try:
                store.orders()
            except StoreError:
                continue
        with open_store(disk=HastyDisk()) as store:
            try:
                place(store)
            except Exception as error:
                refused.append((position, repr(error)))
            else:
                store.checkpoint()
                kept = state.read_bytes()
    assert refused == []


DAMAGE = {
    "cut": lambda kept: kept[:-40],
    "flipped": lambda kept: next(flips(kept, 1)),
    "pretty": lambda kept: msgspec.json.format(kept, indent=2),
    "edited": lambda kept: kept.replace(b'"status":"placed"', b'"status":"shipped"', 1),
    "emptied": lambda kept: kept[: kept.index(b'"orders"')] + b'"orders":{},"keys":{}}',
    "text": lambda kept: b"not even JSON",
}


@pytest.fixture(params=DAMAGE)
def damaged(request, eight, state):
    """A store whose state file was damaged; returns what is in it now."""
    content = DAMAGE[request.param](state.read_bytes())
    state.write_bytes(content)
    return content


def test_reading_a_damaged_state_gives_the_right_answers_and_touches_nothing(
    damaged, eight, open_store, data, warnings
):
    before = snapshots(data)
    with open_store() as store:
        assert store.orders() == eight
        assert store.order(eight[2].id) == eight[2]
        assert store.orders(Filter(status="shipped")) == [eight[-1]]
        assert store.ids(keys=["key 1"]) == {"key 1": eight[5].id}
    assert snapshots(data) == before
    assert ["the log was used instead" in text for text in warnings] == [True]


def test_a_writer_keeps_a_damaged_state_aside_and_makes_it_anew(
    damaged, eight, open_store, state, warnings
):
    with open_store() as store:
        place(store)
    [kept] = copies_of(state)
    assert kept.read_bytes() == damaged
    assert kept.stat().st_mode & 0o777 == 0o600
    [warning] = warnings
    assert warning.startswith(str(state))
    assert kept.name in warning
    assert len(listed(open_store)) == 9
    assert state.read_bytes() == rebuilt(open_store, state)
    assert len(warnings) == 1


def test_looking_at_a_damaged_state_before_writing_loses_nothing(
    damaged, eight, open_store, state, warnings
):
    with open_store() as store:
        assert store.orders() == eight
        order_id = place(store)
        move(store, eight[0].id)
        move(store, order_id, "cancel")
        assert [order.id for order in store.orders()] == [order_id, *(o.id for o in eight)]
    assert len(listed(open_store)) == 9
    assert len(warnings) == 1
    assert state.read_bytes() == rebuilt(open_store, state)


def test_a_checkpoint_after_a_look_at_a_damaged_state_makes_a_right_one(
    damaged, eight, open_store, state
):
    with open_store() as store:
        assert store.orders() == eight
        assert store.checkpoint()
    assert listed(open_store) == eight
    assert state.read_bytes() == rebuilt(open_store, state)


def test_a_damaged_state_that_cannot_be_kept_aside_is_not_overwritten(
    damaged, eight, open_store, state, warnings
):
    disk = RefusingDisk("*.tmp")
    with open_store(disk=disk) as store:
        place(store)
        disk.refused = {"write": errno.ENOSPC}
    assert state.read_bytes() == damaged
    assert "safe in the log" in warnings[0]
    assert len(listed(open_store)) == 9


def test_a_damaged_state_without_a_log_is_refused_and_untouched(damaged, open_store, data, log):
    log.unlink()
    before = snapshots(data)
    refuses_everything(open_store)
    assert snapshots(data) == before


def test_where_the_log_is_gone_nobody_is_told_that_it_has_the_orders(open_store, log, warnings):
    with open_store() as store:
        place(store)
        log.unlink()
    [warning] = warnings
    assert "events.jsonl was removed or replaced while in use" in warning
    assert "safe" not in warning


def test_a_state_changed_by_stock_tinydb_gives_way_to_the_log(eight, open_store, state, warnings):
    with TinyDB(state) as stock:
        stock.table("orders").remove(doc_ids=[1, 2, 3])
    assert listed(open_store) == eight
    with open_store() as store:
        place(store)
    assert len(copies_of(state)) == 1
    assert ["the log was used instead" in text for text in warnings] == [True, False]
    assert listed(open_store)[1:] == eight


# What is no state of this store


@pytest.fixture(params=FOREIGN)
def foreign(request, data, state):
    """Put something of another program in the place of the state file."""

    def put():
        data.mkdir(exist_ok=True)
        state.unlink(missing_ok=True)
        if request.param == "fifo":
            os.mkfifo(state)
        elif request.param == "directory":
            state.mkdir()
        else:
            state.write_bytes(FOREIGN[request.param])

    return put


def test_a_foreign_state_beside_a_log_is_refused_and_untouched(eight, foreign, open_store, data):
    foreign()
    before = snapshots(data)
    refuses_everything(open_store, ForeignFile, r"orders.json is .*; it was left untouched")
    assert snapshots(data) == before


def test_a_foreign_state_without_a_log_is_refused_and_nothing_is_made_beside_it(
    foreign, open_store, data, state
):
    foreign()
    before = snapshot(state)
    refuses_everything(open_store, ForeignFile, r"orders.json is .*; it was left untouched")
    assert snapshot(state) == before
    assert list(snapshots(data)) == ["orders.json"]


@pytest.mark.parametrize("looked", [False, True], ids=["placed", "looked and placed"])
def test_a_foreign_state_put_there_while_in_use_is_not_overwritten(
    eight, open_store, state, looked
):
    with open_store() as store:
        if looked:
            store.orders()
        place(store)
        state.write_bytes(b'{"foo":1}')
    kept = [path.read_bytes() for path in (state, *copies_of(state))]
    assert b'{"foo":1}' in kept


def test_the_state_of_another_store_is_refused(eight, open_store, data, state, tmp_path):
    with open_store(tmp_path / "other") as other:
        for _ in range(3):
            place(other)
    state.write_bytes((tmp_path / "other" / "orders.json").read_bytes())
    before = snapshots(data)
    refuses_everything(open_store, match=r"was made of 3 lines of a log that .*events.jsonl is")
    assert snapshots(data) == before


def test_a_state_of_a_newer_version_is_refused(eight, open_store, data, state):
    state.write_bytes(state.read_bytes().replace(b'"format":1', b'"format":2', 1))
    before = snapshots(data)
    refuses_everything(open_store, ForeignFile, "has format 2, of a newer version of orders")
    assert snapshots(data) == before


@pytest.mark.parametrize("offset", [b'"offset":1', b'"offset":9', b'"offset":99999999'])
def test_a_head_that_points_nowhere_stops_no_order(eight, open_store, state, offset):
    head, found, rest = state.read_bytes().partition(b'"offset":')
    state.write_bytes(head + offset + rest.lstrip(b"0123456789"))
    assert found
    assert listed(open_store) == eight
    with open_store() as store:
        order_id = place(store)
    assert listed(open_store)[0].id == order_id


# A log that is not what the state was made of


def lose(log):
    log.unlink()


def empty(log):
    log.write_bytes(b"")


def cut_a_line(log):
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))


def cut_half_a_line(log):
    log.write_bytes(log.read_bytes()[:-100])


LOSSES = pytest.mark.parametrize("shorten", [lose, empty, cut_a_line, cut_half_a_line])


@LOSSES
def test_a_log_shorter_than_the_state_knows_is_refused_and_nothing_is_touched(
    eight, open_store, data, log, shorten
):
    shorten(log)
    before = snapshots(data)
    refuses_everything(open_store, StoreError, "orders.json|events.jsonl")
    assert snapshots(data) == before
    assert not list((data / ".running").glob("*"))


def test_a_log_cut_behind_a_snapshot_of_a_projection_is_damaged(eight, open_store, data, log):
    """Its last line was on the disk, as the snapshot proves: no crash has torn it."""
    with open_store() as store:
        store.save("item-sales", Snapshot(store.head(), {"items": {"1": {"item": "lamp"}}}))
    (data / "orders.json").unlink()
    cut_half_a_line(log)
    before = snapshots(data)
    refuses_everything(open_store, LogDamaged, r"events.jsonl:10: ")
    assert snapshots(data) == before


def test_a_restored_log_is_accepted_again(eight, open_store, log):
    backup = log.read_bytes()
    log.unlink()
    refuses_everything(open_store)
    log.write_bytes(backup)
    assert listed(open_store) == eight


def test_a_log_that_lost_its_last_line_feed_only_is_accepted(eight, open_store, log):
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])
    assert listed(open_store) == eight
    with open_store() as store:
        place(store)
    assert log.read_bytes().startswith(whole)


def test_a_damaged_log_is_reported_by_line_and_nothing_is_written(eight, open_store, data, log):
    lines = log.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"carpet", b"CARPET")
    log.write_bytes(b"".join(lines))
    (data / "orders.json").unlink()
    before = snapshots(data)
    with open_store() as store:
        for use in (store.orders, store.checkpoint):
            with pytest.raises(LogDamaged, match=r"events.jsonl:3: the checksum does not match"):
                use()
    assert snapshots(data) == before


def test_lines_of_a_newer_version_stop_readers_and_writers(eight, open_store, data, log):
    last = decode(log.read_bytes().splitlines()[-1])
    with log.open("ab") as file:
        file.write(encode(Line(FORMAT + 1, last.seq + 1, last.time)) + b"\n")
    before = snapshots(data)
    refuses_everything(
        open_store, UnreadableMessage, "it has format 2, of a newer version of orders"
    )
    assert snapshots(data) == before


def test_a_log_removed_under_a_reader_is_not_begun_anew_by_it(eight, open_store, data, log, state):
    state.unlink()
    with open_store() as store:
        store.orders()
        log.unlink()
        with pytest.raises(StoreError, match=r"events.jsonl"):
            place(store)
    assert snapshots(data) == {}


def test_a_log_exchanged_under_a_reader_is_an_error(eight, open_store, log, tmp_path):
    with open_store(tmp_path / "other") as other:
        place(other)
    with open_store() as store:
        store.orders()
        (tmp_path / "other" / "events.jsonl").replace(log)
        with pytest.raises(StoreError, match=r"events.jsonl"):
            store.orders()
