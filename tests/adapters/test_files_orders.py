"""Orders looked up: always the fold of the log, whatever has become of the state file."""

import errno
import os
import random
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import msgspec
import pytest
from tinydb import TinyDB, where

from orders import (
    CancelOrder,
    OrderCreated,
    OrderShipped,
    PlaceOrder,
    Settings,
    ShipOrder,
    bootstrap,
)
from orders import repository as repository_module
from orders.adapters.files.disk import Disk
from orders.errors import (
    AmbiguousOrder,
    ForeignFile,
    LogDamaged,
    OrderNotFound,
    StoreError,
)
from orders.application.store import Filter
from orders.adapters.files.line import FORMAT, Line, decode, encode
from orders.adapters.files.orders import TinyDBOrderRepository
from orders.adapters.files.state import StateStorage

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

FOREIGN = {
    "object": b'{"foo":1}',
    "list": b"[1,2]",
    "null": b"null",
    "another TinyDB": b'{"_default": {"1": {"name": "Ann"}}}',
    "fifo": None,
    "directory": None,
}


class CountingDisk(Disk):
    def __init__(self):
        self.bytes_read = 0

    def read(self, descriptor, size, offset):
        data = super().read(descriptor, size, offset)
        self.bytes_read += len(data)
        return data


class StateRefusingDisk(Disk):
    """Refuses one call on the state's temporary file, or the sync of its directory."""

    def __init__(self):
        self.refused = None

    def _consider(self, call, path):
        if self.refused == call and str(path).endswith(".tmp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self, path, flags):
        self._consider("open", path)
        return super().open(path, flags)

    def write(self, descriptor, data):
        self._consider("write", Path(f"/proc/self/fd/{descriptor}").readlink())
        return super().write(descriptor, data)

    def sync(self, descriptor):
        self._consider("sync", Path(f"/proc/self/fd/{descriptor}").readlink())
        super().sync(descriptor)

    def replace(self, source, target):
        self._consider("replace", source)
        super().replace(source, target)

    def sync_directory(self, directory):
        self._consider("sync_directory", ".tmp")
        super().sync_directory(directory)


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
def open_app(data, sales, warnings):
    """Open the system on the store, as a process of its own would."""

    def open_app(data=data, **options):
        return bootstrap(data, notifier=sales, on_warning=warnings.append, **options)

    return open_app


@pytest.fixture
def store(open_app):
    """A store of eight orders, one shipped and one cancelled; returns them, newest first."""
    with open_app() as app:
        for number, item in enumerate(("100 inch TV", "magic carpet", "Zoë's 🧞 lamp", "TV")):
            place(app, item, customer="Ann", key=f"key {number}")
            app.bus.send(PlaceOrder(items=(item, "batteries")))
        *_, second, first = app.orders.list()
        app.bus.send(ShipOrder(order_id=first.id))
        app.bus.send(CancelOrder(order_id=second.id, reason="too large"))
    with open_app() as app:
        return app.orders.list()


@pytest.fixture
def seed(app):
    """Append events of orders with chosen ids and times straight to the log."""

    def seed(*orders):
        with app.log.writing():
            for number, order in enumerate(orders):
                fields = {"items": ("TV",), "time": NOON + timedelta(hours=number)} | order
                app.log.append([OrderCreated(**fields)])

    return seed


def place(app, item="lamp", **fields):
    return app.bus.send(PlaceOrder(items=(item,), **fields))


def as_json(order):
    return msgspec.json.decode(msgspec.json.encode(order))


def listed(open_app):
    with open_app() as app:
        return app.orders.list()


def rebuilt(open_app, state):
    """The bytes of the state as it is made from the log alone."""
    state.unlink(missing_ok=True)
    with open_app() as app:
        app.orders.checkpoint()
    return state.read_bytes()


def snapshot(path):
    status = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
    return status.st_mode, status.st_ino, status.st_mtime_ns, content


def snapshots(data):
    """Everything in the store except the lock files."""
    return {path.name: snapshot(path) for path in data.iterdir() if path.suffix.startswith(".json")}


def kept_aside(state):
    return sorted(path for path in state.parent.iterdir() if path.name.startswith("orders.json."))


def refuses_everything(open_app, error=StoreError, match="orders.json"):
    """Check that neither looking nor placing works."""
    uses = [
        lambda app: app.orders.get("1"),
        lambda app: app.orders.resolve("1"),
        lambda app: app.orders.list(),
        lambda app: app.orders.list(Filter(status="placed")),
        lambda app: app.orders.count(),
        lambda app: app.orders.with_keys(["k"]).get("k"),
        lambda app: app.orders.checkpoint(),
        place,
        lambda app: place(app, key="k"),
        lambda app: app.bus.send(ShipOrder(order_id="1")),
    ]
    for use in uses:
        with open_app() as app:
            for _ in range(2):
                with pytest.raises(error, match=match):
                    use(app)


# The state file and the log


def test_stock_tinydb_sees_the_same_orders_after_close(store, state):
    with TinyDB(state) as stock:
        orders = stock.table("orders")
        assert orders.all() == [as_json(order) for order in reversed(store)]
        assert orders.count(where("status") == "shipped") == 1


def test_a_rebuilt_state_equals_the_kept_one(store, open_app, state):
    kept = state.read_bytes()
    assert rebuilt(open_app, state) == kept


def test_a_checkpoint_with_nothing_new_writes_nothing(store, open_app, state):
    before = snapshot(state)
    with open_app() as app:
        assert not app.orders.checkpoint()
    assert snapshot(state) == before


def test_an_application_that_stored_nothing_writes_no_state(store, open_app, state):
    state.unlink()
    assert listed(open_app) == store
    assert not state.exists()


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_without_a_state_the_log_gives_the_answers(store, open_app, state, warnings, content):
    kept = state.read_bytes()
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    assert listed(open_app) == store
    with open_app() as app:
        assert app.orders.get(store[0].id).state == store[0]
        assert app.orders.checkpoint()
    assert state.read_bytes() == kept
    assert kept_aside(state) == []
    assert warnings == []


def test_a_state_cut_anywhere_is_seen_through_kept_aside_and_made_anew(
    store, open_app, state, warnings
):
    kept = state.read_bytes()
    for number, cut in enumerate(range(1, len(kept), 50), start=1):
        state.write_bytes(kept[:cut])
        before = snapshot(state)
        assert listed(open_app) == store
        assert snapshot(state) == before
        with open_app() as app:
            assert app.orders.checkpoint()
        assert state.read_bytes() == kept
        assert len(kept_aside(state)) == number
        assert ["the log was used instead" in text for text in warnings] == [True, False] * number
        assert kept_aside(state)[-1].read_bytes() == kept[:cut]


def flips(content, count):
    """Yield the content with one byte changed, at random positions of its tables."""
    dice = random.Random(7)
    begin = content.index(b'"orders"')
    for _ in range(count):
        changed = bytearray(content)
        changed[dice.randrange(begin, len(content))] ^= dice.choice([0x01, 0x20, 0xFF])
        yield bytes(changed)


def test_a_changed_byte_in_the_state_changes_no_answer(store, open_app, state):
    for changed in flips(state.read_bytes(), 100):
        state.write_bytes(changed)
        assert listed(open_app) == store
        assert state.read_bytes() == changed


def test_a_changed_byte_in_the_head_of_the_state_changes_no_answer_or_is_refused(
    store, open_app, state
):
    kept = state.read_bytes()
    for position in range(kept.index(b'"orders"')):
        for change in (0x01, 0xFF):
            changed = bytearray(kept)
            changed[position] ^= change
            state.write_bytes(changed)
            try:
                assert listed(open_app) == store
            except ForeignFile:  # it no longer says that it is ours, or of this version
                assert position in {*range(2, 5), kept.index(b":1,") + 1}
            assert state.read_bytes() == changed


def test_orders_can_be_placed_whenever_they_can_be_listed(store, open_app, state):
    kept = state.read_bytes()
    refused = []
    for position in range(kept.index(b'"orders"') + 1):
        changed = bytearray(kept)
        changed[position] ^= 0x01
        state.write_bytes(changed)
        with open_app() as app:
            try:
                app.orders.list()
            except StoreError:
                continue
        app = open_app()
        try:
            place(app)
        except Exception as error:
            refused.append((position, repr(error)))
        else:
            app.orders.checkpoint()
            kept = state.read_bytes()
        app.close()
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
def damaged(request, store, state):
    """A store whose state file was damaged; returns what is in it now."""
    content = DAMAGE[request.param](state.read_bytes())
    state.write_bytes(content)
    return content


def test_reading_a_damaged_state_gives_the_right_answers_and_touches_nothing(
    damaged, store, open_app, data, warnings
):
    before = snapshots(data)
    with open_app() as app:
        assert app.orders.list() == store
        assert app.orders.get(store[2].id).state == store[2]
        assert app.orders.list(Filter(status="shipped")) == [store[-1]]
        assert app.orders.with_keys(["key 1"]).get("key 1") == store[5].id
    assert snapshots(data) == before
    assert ["the log was used instead" in text for text in warnings] == [True]


def test_a_writer_keeps_a_damaged_state_aside_and_makes_it_anew(
    damaged, store, open_app, state, warnings
):
    with open_app() as app:
        place(app)
    [kept] = kept_aside(state)
    assert kept.read_bytes() == damaged
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    [warning] = warnings
    assert warning.startswith(str(state))
    assert kept.name in warning
    assert len(listed(open_app)) == 9
    assert state.read_bytes() == rebuilt(open_app, state)
    assert len(warnings) == 1


def test_looking_at_a_damaged_state_before_writing_loses_nothing(
    damaged, store, open_app, state, warnings
):
    with open_app() as app:
        assert app.orders.list() == store
        order_id = place(app)
        app.bus.send(ShipOrder(order_id=store[0].id))
        app.bus.send(CancelOrder(order_id=order_id))
        assert [order.id for order in app.orders.list()] == [order_id, *(o.id for o in store)]
    assert len(listed(open_app)) == 9
    assert len(warnings) == 1
    assert state.read_bytes() == rebuilt(open_app, state)


def test_a_checkpoint_after_a_look_at_a_damaged_state_makes_a_right_one(
    damaged, store, open_app, state
):
    with open_app() as app:
        assert app.orders.list() == store
        app.orders.checkpoint()
    assert listed(open_app) == store
    assert state.read_bytes() == rebuilt(open_app, state)


def test_an_order_of_a_damaged_state_can_be_shipped(damaged, store, open_app):
    with open_app() as app:
        app.bus.send(ShipOrder(order_id=store[0].id))
        assert app.orders.get(store[0].id).status == "shipped"
    assert len(listed(open_app)) == 8


def test_a_damaged_state_that_cannot_be_kept_aside_is_not_overwritten(
    damaged, store, open_app, state, warnings
):
    disk = StateRefusingDisk()
    with open_app(disk=disk) as app:
        place(app)
        disk.refused = "write"
    assert state.read_bytes() == damaged
    assert "safe in the log" in warnings[0]
    assert len(listed(open_app)) == 9


def test_where_the_log_is_gone_nobody_is_told_that_it_has_the_orders(open_app, log, warnings):
    with open_app() as app:
        place(app)
        log.unlink()
    [warning] = warnings
    assert "events.jsonl was removed or replaced while in use" in warning
    assert "safe" not in warning


def test_a_damaged_state_without_a_log_is_refused_and_untouched(damaged, open_app, log, state):
    log.unlink()
    before = snapshot(state)
    refuses_everything(open_app)
    assert snapshot(state) == before


def test_a_state_changed_by_stock_tinydb_gives_way_to_the_log(store, open_app, state, warnings):
    with TinyDB(state) as stock:
        stock.table("orders").remove(doc_ids=[1, 2, 3])
    assert listed(open_app) == store
    with open_app() as app:
        place(app)
    assert len(kept_aside(state)) == 1
    assert ["the log was used instead" in text for text in warnings] == [True, False]
    assert listed(open_app)[1:] == store


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


def test_a_foreign_state_beside_a_log_is_refused_and_untouched(store, foreign, open_app, data):
    foreign()
    before = snapshots(data)
    refuses_everything(open_app, ForeignFile, r"orders.json is .*; it was left untouched")
    assert snapshots(data) == before


def test_a_foreign_state_without_a_log_is_refused_and_untouched(foreign, open_app, state):
    foreign()
    before = snapshot(state)
    refuses_everything(open_app, ForeignFile, r"orders.json is .*; it was left untouched")
    assert snapshot(state) == before


def test_nothing_is_made_beside_a_foreign_state(foreign, open_app, data):
    foreign()
    refuses_everything(open_app, ForeignFile)
    assert list(snapshots(data)) == ["orders.json"]


@pytest.mark.parametrize("looked", [False, True], ids=["placed", "looked and placed"])
def test_a_foreign_state_put_there_while_in_use_is_not_overwritten(store, open_app, state, looked):
    with open_app() as app:
        if looked:
            app.orders.list()
        place(app)
        state.write_bytes(b'{"foo":1}')
    kept = [path.read_bytes() for path in (state, *kept_aside(state))]
    assert b'{"foo":1}' in kept


def test_the_state_of_another_store_is_refused(store, open_app, data, state, tmp_path):
    with open_app(tmp_path / "other") as other:
        for _ in range(3):
            place(other)
    state.write_bytes((tmp_path / "other" / "orders.json").read_bytes())
    before = snapshots(data)
    refuses_everything(open_app, StoreError, r"was made of 6 lines of a log that .*events.jsonl is")
    assert snapshots(data) == before


def test_a_state_of_a_newer_version_is_refused(store, open_app, data, state):
    state.write_bytes(state.read_bytes().replace(b'"format":1', b'"format":2', 1))
    before = snapshots(data)
    refuses_everything(open_app, ForeignFile, "has format 2, of a newer version of orders")
    assert snapshots(data) == before


@pytest.mark.parametrize("offset", [b'"offset":1', b'"offset":9', b'"offset":99999999'])
def test_a_head_that_points_nowhere_stops_no_order(store, open_app, state, offset):
    head, found, rest = state.read_bytes().partition(b'"offset":')
    state.write_bytes(head + offset + rest.lstrip(b"0123456789"))
    assert found
    assert listed(open_app) == store
    with open_app() as app:
        order_id = place(app)
    assert listed(open_app)[0].id == order_id


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
def test_a_log_shorter_than_the_state_knows_is_refused(store, open_app, log, state, shorten):
    shorten(log)
    before = snapshot(state)
    refuses_everything(open_app, StoreError, "restore that file from a backup")
    assert snapshot(state) == before


@LOSSES
def test_a_log_shorter_than_the_state_knows_is_left_as_it_is(store, open_app, data, log, shorten):
    shorten(log)
    before = snapshots(data)
    refuses_everything(open_app)
    assert snapshots(data) == before


def test_a_restored_log_is_accepted_again(store, open_app, log):
    backup = log.read_bytes()
    log.unlink()
    refuses_everything(open_app)
    log.write_bytes(backup)
    assert listed(open_app) == store


def test_a_log_that_lost_its_last_line_feed_only_is_accepted(store, open_app, log):
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])
    assert listed(open_app) == store
    with open_app() as app:
        place(app)
    assert log.read_bytes().startswith(whole)


def test_an_older_state_gives_right_answers_and_is_brought_up_to_date(open_app, state):
    with open_app() as app:
        first = place(app, key="k")
        second = place(app)
    older = state.read_bytes()
    with open_app() as app:
        app.bus.send(ShipOrder(order_id=first))
        third = place(app)
    newer, orders = state.read_bytes(), listed(open_app)
    assert [order.id for order in orders] == [third, second, first]

    state.write_bytes(older)
    assert listed(open_app) == orders
    assert state.read_bytes() == older
    with open_app() as app:
        assert app.orders.list(Filter(status="shipped")) == [orders[-1]]
        assert app.orders.with_keys(["k"]).get("k") == first
        assert app.orders.checkpoint()
    assert state.read_bytes() == newer == rebuilt(open_app, state)


def test_a_history_that_no_order_can_have_is_reported_by_line(app, seed):
    seed({"order_id": "1"})
    with app.log.writing():
        app.log.append([OrderShipped(order_id="2")])
    with pytest.raises(LogDamaged, match=r"events.jsonl:2: OrderShipped cannot follow None"):
        app.orders.list()


def test_a_damaged_log_is_reported_by_line_and_nothing_is_written(store, open_app, data, log):
    lines = log.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"TV", b"tv")
    log.write_bytes(b"".join(lines))
    (data / "orders.json").unlink()
    before = snapshots(data)
    with open_app() as app:
        for use in (app.orders.list, app.orders.checkpoint):
            with pytest.raises(LogDamaged, match=r"events.jsonl:3: the checksum does not match"):
                use()
    assert snapshots(data) == before


def test_lines_of_a_newer_version_stop_readers_and_writers(store, open_app, data, log):
    last = decode(log.read_bytes().splitlines()[-1])
    with log.open("ab") as file:
        file.write(encode(Line(FORMAT + 1, last.seq + 1, last.time)) + b"\n")
    before = snapshots(data)
    refuses_everything(open_app, LogDamaged, "it has format 2, of a newer version of orders")
    assert snapshots(data) == before


def test_a_log_removed_under_a_reader_is_not_begun_anew_by_it(store, open_app, data, log, state):
    state.unlink()
    with open_app() as app:
        app.orders.list()
        log.unlink()
        with pytest.raises(StoreError, match=r"events.jsonl"):
            place(app)
    assert snapshots(data) == {}


def test_a_log_exchanged_under_a_reader_is_an_error(store, open_app, log, tmp_path):
    with open_app(tmp_path / "other") as other:
        place(other)
    with open_app() as app:
        app.orders.list()
        (tmp_path / "other" / "events.jsonl").replace(log)
        with pytest.raises(StoreError, match=r"events.jsonl"):
            app.orders.list()


# Writing the state


@pytest.mark.parametrize("call", ["open", "write", "sync", "replace", "sync_directory"])
def test_a_state_that_cannot_be_written_is_a_warning_and_costs_no_order(
    store, open_app, state, warnings, call
):
    before, disk = state.read_bytes(), StateRefusingDisk()
    with open_app(disk=disk) as app:
        order_id = place(app)
        disk.refused = call
    [warning] = warnings
    assert "orders.json: no space left on device" in warning
    assert "the orders themselves are safe in the log" in warning
    has_its_name = call == "sync_directory"
    assert (state.read_bytes() == before) is not has_its_name
    assert list(state.parent.glob(".*.tmp")) == []
    assert [order.id for order in listed(open_app)] == [order_id, *(o.id for o in store)]


def test_the_state_is_written_after_a_failure_by_the_same_application(store, open_app, state):
    disk = StateRefusingDisk()
    with open_app(disk=disk) as app:
        place(app)
        disk.refused = "write"
        with pytest.raises(StoreError, match="no space left"):
            app.orders.checkpoint()
        disk.refused = None
        assert app.orders.checkpoint()
    assert state.read_bytes() == rebuilt(open_app, state)


def test_the_log_is_on_the_disk_before_the_state_that_knows_it(open_app):
    calls = []

    class Recording(Disk):
        def sync(self, descriptor):
            calls.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            super().sync(descriptor)

    with open_app(disk=Recording()) as app:
        place(app)
        calls.clear()
    assert calls[0] == "events.jsonl"
    assert calls[1].startswith(".orders.json")


def test_a_state_that_is_a_symbolic_link_stays_one(store, open_app, state, tmp_path):
    real = tmp_path / "real.json"
    state.replace(real)
    state.symlink_to(real)
    with open_app() as app:
        place(app)
    assert state.is_symlink()
    assert real.read_bytes() == rebuilt(open_app, state)


def test_a_state_keeps_its_mode_and_a_new_one_is_for_its_owner_only(store, open_app, state):
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    state.chmod(0o640)
    with open_app() as app:
        place(app)
    assert stat.S_IMODE(state.stat().st_mode) == 0o640


# Looking orders up


def test_changing_what_was_returned_changes_nothing(store, open_app):
    with open_app() as app:
        order = app.orders.get(store[0].id)
        order.ship()
        assert order.status == "shipped"
        app.orders.list().clear()
        app.orders.list(Filter(status="placed")).clear()
        with pytest.raises(AttributeError):
            app.orders.list()[0].status = "shipped"
        assert app.orders.get(store[0].id).state == store[0]
        assert app.orders.list() == store


def test_changing_a_document_of_tinydb_changes_nothing(store, open_app):
    with open_app() as app:
        app.orders.refresh()
        table = app.orders._orders
        for document in (
            table.all()[0],
            table.get(doc_id=1),
            table.search(where("id").exists())[0],
        ):
            document["status"] = "lost"
            with suppress(AttributeError):  # a tuple has no append
                document["items"].append("a second one")
        assert app.orders.list() == store


def test_an_order_of_one_application_is_seen_by_another_at_once(open_app):
    with open_app() as one, open_app() as other:
        order_id = place(one)
        assert other.orders.get(order_id).status == "placed"
        other.bus.send(ShipOrder(order_id=order_id))
        assert one.orders.get(order_id).status == "shipped"
        assert (one.orders.version(order_id), one.orders.count()) == (2, 1)


def test_a_search_sees_what_another_application_has_just_shipped(open_app):
    placed = Filter(status="placed")
    with open_app() as one, open_app() as other:
        order_id = place(one)
        assert [order.id for order in one.orders.list(placed)] == [order_id]
        assert one.orders.count(placed) == 1
        other.bus.send(ShipOrder(order_id=order_id))
        assert one.orders.list(placed) == []
        assert one.orders.count(placed) == 0


def test_an_unknown_order_is_not_found(app):
    with pytest.raises(OrderNotFound, match="no order 'nobody'"):
        app.orders.get("nobody")
    assert app.orders.version("nobody") == 0


def test_orders_are_listed_newest_first_and_at_most_as_many_as_wanted(app, seed):
    seed(*({"order_id": str(number)} for number in range(5)))

    def ids(*arguments, **options):
        return [order.id for order in app.orders.list(*arguments, **options)]

    for wanted in (Filter(), Filter(status="placed"), Filter(item="tv")):
        assert ids(wanted) == ["4", "3", "2", "1", "0"]
        assert ids(wanted, limit=2) == ["4", "3"]
        assert ids(wanted, limit=5) == ids(wanted, limit=99) == ids(wanted)
        assert app.orders.count(wanted) == 5


def test_at_most_no_order_is_no_order(app, seed):
    seed({"order_id": "1"})
    assert app.orders.list(Filter(item="tv"), limit=0) == []
    assert app.orders.list(limit=0) == []


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), "dcba"),
        (Filter(status="placed"), "dba"),
        (Filter(status="shipped"), "c"),
        (Filter(status="cancelled"), ""),
        (Filter(item="CARPET"), "cb"),
        (Filter(item="strasse"), "d"),
        (Filter(item="100 INCH tv"), "a"),
        (Filter(item="[a-z]"), ""),
        (Filter(customer="ann"), "cb"),
        (Filter(customer="ZOË"), "d"),
        (Filter(since=NOON + timedelta(hours=1)), "dcb"),
        (Filter(until=NOON + timedelta(hours=1)), "a"),
        (Filter(since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=3)), "cb"),
        (Filter(since=NOON + timedelta(hours=9)), ""),
        (Filter(status="placed", item="carpet", customer="ANN"), "b"),
        (Filter(status="shipped", until=NOON), ""),
    ],
    ids=str,
)
def test_only_wanted_orders_are_listed_and_counted(app, seed, wanted, ids):
    seed(
        {"order_id": "a", "items": ("100 inch TV", "cable")},
        {"order_id": "b", "items": ("lamp", "Magic Carpet"), "customer": "Anna"},
        {"order_id": "c", "items": ("carpet",), "customer": "Joanne"},
        {"order_id": "d", "items": ("map of Straße",), "customer": "Zoë"},
    )
    with app.log.writing():
        app.log.append([OrderShipped(order_id="c")])
    assert "".join(order.id for order in app.orders.list(wanted)) == ids
    assert app.orders.count(wanted) == len(ids)


def test_an_id_is_found_by_any_unambiguous_beginning(app, seed):
    seed({"order_id": "aa11"}, {"order_id": "aa22"}, {"order_id": "bb33"}, {"order_id": "bb33-4"})
    assert app.orders.resolve("aa1") == "aa11"
    assert app.orders.resolve("aa22") == "aa22"
    assert app.orders.resolve("bb33") == "bb33", "a whole id is not ambiguous"
    with pytest.raises(
        AmbiguousOrder, match=r"'aa' fits several orders: aa11, aa22; type"
    ) as caught:
        app.orders.resolve("aa")
    assert caught.value.candidates == ("aa11", "aa22")
    for nothing in ("", "aa3", "aa111", "11"):
        with pytest.raises(OrderNotFound):
            app.orders.resolve(nothing)


def test_an_order_is_found_by_its_key_and_by_its_own_id(app, seed):
    seed({"order_id": "1", "key": "k"}, {"order_id": "2"}, {"order_id": "3", "key": "2"})
    assert app.orders.with_keys(["k"]).get("k") == "1"
    assert app.orders.with_keys(["1"]).get("1") == "1"
    assert app.orders.with_keys(["2"]).get("2") == "3", "a key goes before an id"
    assert app.orders.with_keys(["x"]).get("x") is None
    assert [app.orders.key_of(order_id) for order_id in "123"] == ["k", "2", "2"]


def test_keys_are_known_from_the_state_and_from_the_log(store, open_app, state):
    for _ in range(2):
        with open_app() as app:
            assert app.orders.with_keys(["key 1"]).get("key 1") == store[5].id
            assert place(app, key="key 1") == store[5].id
            assert app.orders.key_of(store[5].id) == "key 1"
            assert app.orders.key_of(store[0].id) == store[0].id
        state.unlink(missing_ok=True)
    assert listed(open_app) == store


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


def test_a_small_store_is_up_to_date_after_every_command(open_app, state, monkeypatch):
    with counted(monkeypatch, "write") as writes:
        for number in range(1, 6):
            with open_app() as app:
                place(app)
            assert len(writes) == number
            assert len(msgspec.json.decode(state.read_bytes())["orders"]) == number


def test_a_large_store_is_written_in_batches_and_reads_are_current(open_app, state, monkeypatch):
    monkeypatch.setattr(repository_module, "SMALL", 2048)
    with counted(monkeypatch, "write") as writes:
        for number in range(1, 201):
            with open_app() as app:
                order_id = place(app)
            if number % 20 == 0:
                assert listed(open_app)[0].id == order_id
                assert len(listed(open_app)) == number
        assert state.stat().st_size > 6 * 2048
        assert len(writes) < 200 / 4
        with open_app() as app:
            place(app)
            assert app.orders.checkpoint()
            assert not app.orders.checkpoint()
    assert state.read_bytes() == rebuilt(open_app, state)


def test_placing_an_order_in_a_large_store_reads_neither_the_log_nor_the_state(
    open_app, log, state, monkeypatch
):
    monkeypatch.setattr(repository_module, "SMALL", 4096)
    with open_app() as app:
        with app.log.writing():
            for number in range(4000):
                event = OrderCreated(order_id=str(number), items=("100 inch TV",))
                app.log.append([event], sync=False)
        app.orders.checkpoint()
    before = state.read_bytes()
    assert min(log.stat().st_size, len(before)) > 500_000

    disk = CountingDisk()
    with counted(monkeypatch, "load") as loads, open_app(disk=disk) as app:
        order_id = place(app)
    assert loads == []
    assert disk.bytes_read < 200_000
    assert state.read_bytes() == before
    assert listed(open_app)[0].id == order_id


# Threads


def test_a_thread_that_reads_and_one_that_writes_do_not_wait_for_each_other(data, sales):
    settings = Settings(data, lock_timeout=2)
    with bootstrap(settings=settings, notifier=sales) as app, ThreadPoolExecutor() as pool:
        order_id = place(app)
        app.orders.list()
        reading, read = Flag(), app.log.read

        def announced(*arguments, **options):
            reading.set()
            return read(*arguments, **options)

        with app.log.writing():
            app.log.read = announced
            listing = pool.submit(app.orders.list)
            reading.wait(0.1)  # in vain, if the reader waits for us before it locks anything
            app.log.read = read
            assert app.orders.version(order_id) == 1  # as the check of a commit does
        assert [order.id for order in listing.result()] == [order_id]


def test_threads_that_place_ship_and_list_see_no_errors(open_app, data):
    def work(number):
        order_id = place(app, f"item {number}", key=f"key {number}")
        app.bus.send(ShipOrder(order_id=order_id))
        return app.orders.get(order_id).status

    settings = Settings(data, lock_timeout=5)
    with open_app(settings=settings) as app, ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(6))) == ["shipped"] * 6
        assert app.orders.count(Filter(status="shipped")) == 6
    assert len(listed(open_app)) == 6


def test_two_threads_can_be_the_first_to_see_through_a_damaged_state_file(data, sales, monkeypatch):
    with bootstrap(data, notifier=sales) as app:
        order_id = app.bus.send(PlaceOrder(("rope",)))
    (data / "orders.json").write_text("[")
    load, readers = TinyDBOrderRepository._load, []

    def load_slowly(repository):
        position = load(repository)
        if not readers:
            readers.append(Thread(target=repository.count))
            readers[0].start()
            readers[0].join(0.2)
        return position

    monkeypatch.setattr(TinyDBOrderRepository, "_load", load_slowly)
    with bootstrap(data, notifier=sales, on_warning=lambda warning: None) as app:
        app.bus.send(PlaceOrder(("tv",)))
        readers[0].join()
        assert app.orders.count() == 2
        assert app.orders.get(order_id).status == "placed"
