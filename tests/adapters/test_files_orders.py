"""The orders of the files engine: always the fold of the log, written now and then."""

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Event as Flag
from typing import ClassVar

import msgspec
import pytest
from store_files import (
    RecordingDisk,
    RefusingDisk,
    commit_of,
    copies_of,
    move,
    place,
    place_eight,
    snapshot,
)
from tinydb import TinyDB, where

from orders import OrderCreated, OrderShipped, PlaceOrder, bootstrap
from orders.adapters.files import orders as orders_module
from orders.adapters.files.line import decode, encode, encode_messages
from orders.adapters.files.state import StateStorage
from orders.adapters.files.store import FilesStore
from orders.application.store import Commit, Filter, Snapshot
from orders.domain.order import Order, OrderState
from orders.errors import LogDamaged, StoreError
from orders.messaging.message import Event


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


def as_json(order):
    return msgspec.json.decode(msgspec.json.encode(order))


def listed(open_store):
    with open_store() as store:
        return store.orders()


def rebuilt(open_store, state):
    """The bytes of the state as it is made from the log alone."""
    state.unlink(missing_ok=True)
    with open_store() as store:
        store.checkpoint()
    return state.read_bytes()


# The state file and the log


def test_stock_tinydb_sees_the_same_orders_after_close(eight, state):
    with TinyDB(state) as stock:
        orders = stock.table("orders")
        assert orders.all() == [as_json(order) for order in reversed(eight)]
        assert orders.count(where("status") == "shipped") == 1


def test_a_rebuilt_state_equals_the_kept_one(eight, open_store, state):
    kept = state.read_bytes()
    assert rebuilt(open_store, state) == kept


def test_a_checkpoint_with_nothing_new_writes_nothing(eight, open_store, state):
    before = snapshot(state)
    with open_store() as store:
        assert not store.checkpoint()
    assert snapshot(state) == before


def test_a_store_in_which_nothing_was_stored_writes_no_state(eight, open_store, state):
    state.unlink()
    assert listed(open_store) == eight
    assert not state.exists()


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_without_a_state_the_log_gives_the_answers(eight, open_store, state, warnings, content):
    kept = state.read_bytes()
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    assert listed(open_store) == eight
    with open_store() as store:
        assert store.order(eight[0].id) == eight[0]
        assert store.checkpoint()
    assert state.read_bytes() == kept
    assert copies_of(state) == []
    assert warnings == []


def test_an_older_state_gives_right_answers_and_is_brought_up_to_date(open_store, state):
    with open_store() as store:
        first = place(store, key="k")
        second = place(store)
    older = state.read_bytes()
    with open_store() as store:
        move(store, first)
        third = place(store)
    newer, orders = state.read_bytes(), listed(open_store)
    assert [order.id for order in orders] == [third, second, first]

    state.write_bytes(older)
    assert listed(open_store) == orders
    assert state.read_bytes() == older
    with open_store() as store:
        assert store.orders(Filter(status="shipped")) == [orders[-1]]
        assert store.ids(keys=["k"]) == {"k": first}
        assert store.checkpoint()
    assert state.read_bytes() == newer == rebuilt(open_store, state)


def test_a_history_that_no_order_can_have_is_reported_by_line(open_store):
    with open_store() as store:
        place(store)
        with store.log.writing():
            store.log.append(encode_messages([OrderShipped(order_id="2")]))
        with pytest.raises(LogDamaged, match=r"events.jsonl:2: order 2 cannot be shipped"):
            store.orders()


def test_orders_that_a_plugin_changed_are_known_without_the_plugin(open_store, log, state):
    with open_store() as store:
        order_id = place(store, key="k")
        store.commit(Commit((OrderShelved(order_id=order_id).caused_by(None),)))
    *before, line = [decode(raw) for raw in log.read_bytes().splitlines()]
    changed = OrderState(order_id, ("lamp",), None, "shelved", line.time, 2)
    lines = [*before, msgspec.structs.replace(line, states=(changed,))]
    for at in (0, 1):  # folded into the state file before, or from the log
        log.write_bytes(b"".join(encode(line) + b"\n" for line in lines))
        state.unlink(missing_ok=True)
        with open_store() as store:
            assert at == 0 or store.checkpoint()
            assert store.order(order_id) == changed
            assert store.ids(keys=["k"]) == {"k": order_id}
    assert listed(open_store) == [changed]


class OrderShelved(Event, frozen=True, kw_only=True):
    """An event that changes no order here; the plugin that says how is not loaded."""

    topic: ClassVar[str] = "order-shelved"

    order_id: str


# Writing the state


@pytest.mark.parametrize("call", ["open", "write", "sync", "replace", "sync_directory"])
def test_a_state_that_cannot_be_written_is_a_warning_and_costs_no_order(
    eight, open_store, state, warnings, call
):
    before, disk = state.read_bytes(), RefusingDisk("*.tmp")
    with open_store(disk=disk) as store:
        order_id = place(store)
        disk.refused = {call: errno.ENOSPC}
    [warning] = warnings
    assert "orders.json: no space left on device" in warning
    assert "the orders themselves are safe in the log" in warning
    has_its_name = call == "sync_directory"
    assert (state.read_bytes() == before) is not has_its_name
    assert list(state.parent.glob(".*.tmp")) == []
    assert [order.id for order in listed(open_store)] == [order_id, *(o.id for o in eight)]


def test_the_state_is_written_after_a_failure_by_the_same_store(eight, open_store, state):
    disk = RefusingDisk("*.tmp")
    with open_store(disk=disk) as store:
        place(store)
        disk.refused = {"write": errno.ENOSPC}
        with pytest.raises(StoreError, match="no space left"):
            store.checkpoint()
        disk.refused = {}
        assert store.checkpoint()
    assert state.read_bytes() == rebuilt(open_store, state)


@pytest.mark.parametrize(
    ("use", "file"),
    [
        (FilesStore.checkpoint, ".orders.json"),
        (lambda store: store.save("stats", Snapshot(store.head(), {})), ".stats.json"),
    ],
    ids=["state", "snapshot"],
)
def test_the_log_is_on_the_disk_before_the_file_that_is_made_of_it(open_store, use, file):
    disk = RecordingDisk()
    with open_store(disk=disk) as store:
        store.commit(commit_of(Order.place(["lamp"]), is_durable=False))
        disk.calls.clear()
        use(store)
    synced = [name for call, name in disk.calls if call == "sync"]
    assert synced[0] == "events.jsonl"
    assert synced[1].startswith(file)


def test_an_order_is_on_the_disk_before_its_key_is_answered(open_store):
    disk = RecordingDisk()
    with open_store() as writer, open_store(disk=disk) as reader:
        writer.commit(commit_of(Order.place(["lamp"], key="k"), is_durable=False))
        assert reader.ids(keys=["unknown"]) == {}
        assert ("sync", "events.jsonl") not in disk.calls
        assert reader.ids(keys=["k"])
        assert disk.calls[-1] == ("sync", "events.jsonl")


def test_a_state_is_replaced_and_never_written_in_place(eight, open_store, state):
    before = state.read_bytes()
    with state.open("rb") as reader, open_store() as store:
        place(store)
        store.checkpoint()
        assert reader.read() == before
    assert state.read_bytes() != before


def test_a_state_that_is_a_symbolic_link_stays_one(eight, open_store, state, tmp_path):
    real = tmp_path / "real.json"
    state.replace(real)
    state.symlink_to(real)
    with open_store() as store:
        place(store)
    assert state.is_symlink()
    assert real.read_bytes() == rebuilt(open_store, state)


def test_a_state_keeps_its_mode_and_a_new_one_is_for_its_owner_only(eight, open_store, state):
    assert state.stat().st_mode & 0o777 == 0o600
    state.chmod(0o640)
    with open_store() as store:
        place(store)
    assert state.stat().st_mode & 0o777 == 0o640


# Looking orders up


def test_nothing_that_is_returned_can_be_used_to_change_an_order(eight, open_store):
    def answers(store):
        yield from store.orders()
        yield from store.orders(Filter(status="placed"))
        yield store.order(eight[0].id)

    with open_store() as store:
        for order in answers(store):
            for field in ("status", "items", "version"):
                with pytest.raises(AttributeError):
                    setattr(order, field, "lost")
            assert isinstance(order.items, tuple)
        store.orders().clear()
        store.orders(Filter(status="placed")).clear()
        assert store.orders() == eight


def test_a_search_sees_what_another_store_object_has_just_stored(open_store):
    placed = Filter(status="placed")
    with open_store() as one, open_store() as other:
        order_id = place(one)
        assert [order.id for order in other.orders(placed)] == [order_id]
        assert other.count(placed) == 1
        move(one, order_id)
        assert other.orders(placed) == []
        assert other.count(placed) == 0
        assert other.order(order_id).version == 2


def test_a_search_takes_every_text_for_what_it_is(open_store):
    with open_store() as store:
        place(store, "map of Straße", customer="Zoë")
        for wanted, count in [("[a-z]", 0), ("(", 0), ("STRASSE", 1), ("strasse", 1)]:
            assert store.count(Filter(item=wanted)) == count
        assert store.count(Filter(customer="ZOË")) == 1


def test_a_key_goes_before_an_id(open_store):
    """Which only a log of before could have: new keys that are ids are refused."""
    created = [OrderCreated(order_id=i, items=("TV",), key=k) for i, k in [("2", None), ("3", "2")]]
    with open_store() as store:
        store.commit(Commit(tuple(event.caused_by(None) for event in created)))
        assert store.ids(keys=["2", "3"]) == {"2": "3", "3": "3"}
        assert store.keys(["2", "3"]) == {"3": "2"}


def test_keys_are_known_from_the_state_and_from_the_log(eight, open_store, state):
    for _ in range(2):
        with open_store() as store:
            assert store.ids(keys=["key 1"]) == {"key 1": eight[5].id}
            assert store.keys([eight[5].id, eight[4].id]) == {eight[5].id: "key 1"}
        state.unlink(missing_ok=True)
    assert listed(open_store) == eight


# Large stores


@contextmanager
def counted(monkeypatch, name):
    """Count the calls of a method of the state's storage."""
    calls, method = [], getattr(StateStorage, name)

    def count(self, *arguments):
        calls.append(name)
        return method(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StateStorage, name, count)
        yield calls


def test_a_small_store_is_up_to_date_after_every_command(open_store, state, monkeypatch):
    with counted(monkeypatch, "write") as writes:
        for number in range(1, 6):
            with open_store() as store:
                place(store)
            assert len(writes) == number
            assert len(msgspec.json.decode(state.read_bytes())["orders"]) == number


def test_a_large_store_is_written_in_batches_and_reads_are_current(open_store, state, monkeypatch):
    monkeypatch.setattr(orders_module, "SMALL", 2048)
    with counted(monkeypatch, "write") as writes:
        for number in range(1, 201):
            with open_store() as store:
                order_id = place(store)
            if number % 20 == 0:
                assert listed(open_store)[0].id == order_id
                assert len(listed(open_store)) == number
        assert state.stat().st_size > 6 * 2048
        assert len(writes) < 200 / 4
        with open_store() as store:
            place(store)
            assert store.checkpoint()
            assert not store.checkpoint()
    assert state.read_bytes() == rebuilt(open_store, state)


def test_placing_an_order_in_a_large_store_reads_neither_the_log_nor_the_state(
    open_store, log, state, monkeypatch
):
    monkeypatch.setattr(orders_module, "SMALL", 4096)
    with open_store() as store:
        for _ in range(40):
            store.commit(commit_of(*(Order.place(["100 inch TV"]) for _ in range(100))))
        store.checkpoint()
    before = state.read_bytes()
    assert min(log.stat().st_size, len(before)) > 500_000

    disk = RecordingDisk()
    with counted(monkeypatch, "load") as loads, open_store(disk=disk) as store:
        order_id = place(store)
    assert loads == []
    assert disk.bytes_read < 200_000
    assert state.read_bytes() == before
    assert listed(open_store)[0].id == order_id


def test_the_newest_orders_are_listed_and_counted_without_a_look_at_the_others(
    eight, open_store, state, monkeypatch
):
    with open_store() as store, monkeypatch.context() as patch:
        patch.setattr(orders_module, "Documents", lambda *_: pytest.fail("all were looked at"))
        assert store.count() == 8
        for limit in (1, 3, 8, 9):
            assert store.orders(limit=limit) == eight[:limit]


def test_the_newest_orders_are_current_whatever_was_asked_for_before(eight, open_store):
    with open_store() as store:
        assert store.orders(limit=1) == eight[:1]
        order_id = place(store)
        assert [order.id for order in store.orders(limit=2)] == [order_id, eight[0].id]
        assert store.count() == 9
        assert store.orders(Filter(status="shipped")) == [o for o in eight if o.status == "shipped"]
    with open_store() as store, open_store() as other:
        assert (store.count(), store.orders(limit=1)[0].id) == (9, order_id)
        order_id = place(other)
        assert (store.count(), store.orders(limit=1)[0].id) == (10, order_id)


# Threads


def test_a_thread_that_reads_and_one_that_writes_do_not_wait_for_each_other(open_store):
    with open_store(lock_timeout=2) as store, ThreadPoolExecutor() as pool:
        order_id = place(store)
        store.orders()
        reading, read = Flag(), store.log.read

        def announced(*arguments, **options):
            reading.set()
            return read(*arguments, **options)

        with store.log.writing():
            store.log.read = announced
            listing = pool.submit(store.orders)
            reading.wait(0.1)  # in vain, if the reader waits for us before it locks anything
            store.log.read = read
            assert store.order(order_id).version == 1  # as the check of a commit does
        assert [order.id for order in listing.result()] == [order_id]


def test_two_threads_can_be_the_first_to_see_through_a_damaged_state_file(
    eight, open_store, state, monkeypatch
):
    state.write_text("[")
    load, counts = StateStorage.load, []

    with open_store() as store, ThreadPoolExecutor() as pool:

        def load_slowly(storage):
            loaded = load(storage)
            if not counts:
                counts.append(pool.submit(store.count))
            return loaded

        monkeypatch.setattr(StateStorage, "load", load_slowly)
        order_id = place(store)
        assert counts[0].result() in {8, 9}
        assert [order.id for order in store.orders()] == [order_id, *(o.id for o in eight)]


def test_a_state_that_begins_anew_forgets_its_keys(tmp_path):
    with bootstrap(tmp_path / "store") as app:
        app.bus.send(PlaceOrder(("rope",), key="k"))
        state = app.store.state
        assert state.with_keys(["k"])
        state.begin()
        assert state.tables() == {"orders": {}, "keys": {}}
