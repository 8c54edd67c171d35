"""A follower's state and position are one; what is kept of them changes speed, never results."""

import errno
import json
import os
import shutil
from collections import Counter
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from orders import CancelOrder, Event, OrderCreated, PlaceOrder, Settings, ShipOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.state import StateStorage
from orders.adapters.files.store import FilesStore
from orders.application.store import START
from orders.errors import FollowerError, ForeignFile, LogDamaged, NotWritten, StoreBusy
from orders.projections.follower import Follower
from orders.projections.policy import Policy
from orders.projections.shipped import Bestseller, ItemSales, OrdersADay


class Quiet:
    def notify(self, notice):
        pass


def file_of(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


class Counting(ItemSales):
    """Knows how many events it was given, which is not kept."""

    def __init__(self):
        super().__init__()
        self.applied = 0

    def apply(self, event):
        self.applied += 1
        super().apply(event)


class StockTaken(Event, frozen=True):
    topic: ClassVar[str] = "stock-taken"


class Choking(Counting):
    """Fails in the midst of an order with a bone, until it is switched off."""

    def __init__(self):
        super().__init__()
        self.chokes = True

    def apply(self, event):
        if isinstance(event, OrderCreated) and "bone" in event.items and self.chokes:
            self.tables["sold"]["rope"] = 1 + self.tables["sold"].get("rope", 0)
            raise KeyError("bone")
        super().apply(event)


def open_app(data, disk=None):
    return bootstrap(store=FilesStore(data, disk=disk), notifier=Quiet())


def place(app, *items):
    return app.bus.send(PlaceOrder(items or ("rope",)))


def followed(app, make=Counting):
    """A follower that has caught up."""
    follower = Follower(app.store, make)
    follower.load()
    follower.catch_up()
    return follower


def kept(app, make=Counting):
    """A follower that has caught up and saved."""
    follower = followed(app, make)
    follower.save()
    return follower


def snapshot(data, kind=ItemSales):
    return data / "projections" / f"{kind.name}.json"


def sold(app):
    """What the orders say was sold."""
    orders = (order for order in app.orders.list() if order.status != "cancelled")
    return Counter(item for order in orders for item in order.items)


def times(follower):
    return dict(follower.projection.ranking())


@pytest.fixture
def app(request, sales):
    """The order system in memory; on files where the test looks at those."""
    where = request.getfixturevalue("data") if "data" in request.fixturenames else ":memory:"
    with bootstrap(where, notifier=sales) as app:
        yield app


@pytest.fixture
def busy(app):
    """A store with seven events of four orders."""
    ids = [place(app, "rope", f"item {number}") for number in range(4)]
    app.bus.send(ShipOrder(ids[0]))
    app.bus.send(CancelOrder(ids[1]))
    app.bus.send(ShipOrder(ids[3]))
    return app


# Catching up


def test_a_follower_of_an_empty_store_is_at_the_start(app, data):
    follower = kept(app)
    assert (follower.cursor, follower.name) == (START, "item-sales")
    assert follower.projection.tables == {"sold": {}, "open": {}}
    assert not data.exists()


def test_a_follower_folds_in_what_it_has_not_and_nothing_twice(busy):
    follower = followed(busy)
    assert follower.projection.applied == 7
    assert follower.cursor == busy.store.head()
    for _ in range(3):
        follower.catch_up()
    assert follower.projection.applied == 7
    place(busy)
    follower.catch_up()
    assert follower.projection.applied == 8
    assert times(follower) == sold(busy)


def test_its_position_passes_what_it_does_not_follow(busy):
    follower = kept(busy, OrdersADay)
    assert follower.cursor == busy.store.head()
    busy.bus.send(ShipOrder(place(busy)))
    follower.catch_up()
    assert follower.cursor == busy.store.head()


def test_a_follower_may_stop_anywhere_in_the_log_and_go_on(busy):
    follower = Follower(busy.store, Counting)
    for record in busy.store.read():
        follower.catch_up(record.cursor)
        assert follower.cursor == record.cursor
    assert follower.projection.applied == 7
    assert times(follower) == sold(busy)


def test_a_follower_that_is_to_stop_at_the_start_folds_in_nothing(busy):
    follower = Follower(busy.store, Counting)
    follower.catch_up(until=START)
    assert (follower.cursor, follower.projection.applied) == (START, 0)


def test_a_line_that_is_cut_short_is_not_folded_in_until_it_is_whole(busy, data):
    place(busy, "lamp")
    whole = busy.store.log_path.read_bytes()
    busy.close()
    lines = whole.splitlines(keepends=True)
    placing = next(n for n, line in enumerate(lines) if b'"lamp"' in line and b"Created" in line)
    before = b"".join(lines[:placing])
    (data / "orders.json").unlink()  # which proves that the log was longer
    with open_app(data) as app:
        for size in range(len(before), len(before) + len(lines[placing]) - 1, 40):
            app.store.log_path.write_bytes(whole[:size])
            assert "lamp" not in times(followed(app))
        app.store.log_path.write_bytes(whole)
        assert times(followed(app))["lamp"] == 1


def test_a_last_line_that_lacks_its_line_feed_is_folded_in_once(busy, data):
    log = busy.store.log_path
    busy.close()
    log.write_bytes(log.read_bytes()[:-1])
    with open_app(data) as app:
        follower = kept(app)
        expected = sold(app)
        follower.catch_up()
        assert times(follower) == times(kept(app)) == expected
        place(app, "lamp")
        follower.catch_up()
        assert times(follower) == times(followed(app)) == expected + Counter(["lamp"])


# Errors


def test_the_error_of_a_follower_names_it_its_stage_and_its_event(app):
    place(app)
    place(app, "bone", "rope")
    follower = Follower(app.store, Choking)
    with pytest.raises(FollowerError) as caught:
        follower.catch_up()
    error = caught.value
    created = app.store.messages([error.event.id])[error.event.id]
    assert (error.follower, error.stage, error.event) == ("item-sales", "processing", created)
    assert created.items == ("bone", "rope")
    assert isinstance(error.error, KeyError)
    assert error.__cause__ is error.error
    assert "item-sales failed processing OrderCreated" in str(error)
    assert created.id in str(error)
    assert "remove the cause" in str(error)


def test_a_damaged_line_fails_pulling_at_no_event_and_is_resumed_at(busy, data):
    busy.close()
    log = data / "events.jsonl"
    whole = log.read_bytes()
    with open_app(data) as app:
        lines = len([*app.store.read()])
        follower = Follower(app.store, Counting)
        for number in range(1, lines + 1):
            line = whole.splitlines(keepends=True)[number - 1]
            log.write_bytes(whole.replace(line, line.replace(b'"time"', b'"tine"'), 1))
            with pytest.raises(FollowerError) as caught:
                follower.catch_up()
            error = caught.value
            assert (error.stage, error.event) == ("pulling", None)
            assert isinstance(error.error, LogDamaged)
            assert error.error.number == number
        log.write_bytes(whole)
        follower.catch_up()
        assert times(follower) == sold(app)
        assert follower.projection.applied >= 7


@pytest.mark.parametrize("saved", [False, True])
def test_what_was_folded_in_half_is_not_folded_in_twice(saved, busy):
    follower = kept(busy, Choking) if saved else followed(busy, Choking)
    place(busy, "rope", "bone", "rope")
    for _ in range(3):
        with pytest.raises(FollowerError):
            follower.catch_up()
    place(busy, "lamp")
    follower.projection.chokes = False
    follower.catch_up()
    assert times(follower) == sold(busy)
    assert follower.projection.tables == followed(busy).projection.tables


def test_a_line_of_which_only_the_first_events_were_folded_in_is_begun_again(app):
    with app.uow():
        for items in (["rope"], ["lamp"], ["bone"], ["rope"]):
            place(app, *items)
    follower = Follower(app.store, Choking)
    with pytest.raises(FollowerError):
        follower.catch_up()
    assert follower.cursor == START
    follower.projection.chokes = False
    follower.catch_up()
    assert times(follower) == {"rope": 2, "lamp": 1, "bone": 1}


def test_what_was_folded_in_half_is_not_kept(busy, data):
    kept(busy, Choking)
    before = snapshot(data).read_bytes()
    follower = followed(busy, Choking)
    place(busy, "lamp")
    place(busy, "bone")
    with pytest.raises(FollowerError):
        follower.catch_up()
    follower.save()
    assert snapshot(data).read_bytes() == before


def test_an_error_that_cannot_say_what_it_is_is_a_followers_error_all_the_same(app):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("not a word")

    class Silent(ItemSales):
        def apply(self, event):
            raise Mute

    place(app)
    with pytest.raises(FollowerError, match="item-sales failed processing OrderCreated"):
        Follower(app.store, Silent).catch_up()


def test_a_subscribers_exit_is_an_error_of_the_follower(app):
    class Leaving(ItemSales):
        def apply(self, event):
            raise SystemExit(3)

    place(app)
    with pytest.raises(FollowerError, match="SystemExit"):
        Follower(app.store, Leaving).catch_up()


# Kept


def test_who_comes_later_begins_where_the_snapshot_ends(busy):
    first = kept(busy)
    place(busy, "lamp")
    second = followed(busy)
    assert second.projection.applied == 1
    first.catch_up()
    assert second.projection.tables == first.projection.tables
    assert times(second) == sold(busy)


def test_nothing_new_leaves_the_file_alone(busy, data):
    follower = kept(busy)
    before = snapshot(data).stat().st_ino  # each time it is written it is another file
    follower.catch_up()
    follower.save()
    kept(busy).save()
    assert snapshot(data).stat().st_ino == before


def test_only_its_owner_may_read_what_is_kept(busy, data):
    kept(busy)
    assert snapshot(data).stat().st_mode & 0o777 == 0o600
    assert snapshot(data).parent.stat().st_mode & 0o777 == 0o700


def test_a_snapshot_that_is_gone_costs_time_only(busy, data):
    before = kept(busy).projection
    shutil.rmtree(snapshot(data).parent)
    after = kept(busy).projection
    assert after.tables == before.tables
    assert after.applied == 7
    assert snapshot(data).exists()


def cut(whole):
    return (whole[:size] for size in range(len(whole)))


def flip(whole):
    return (whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(len(whole)))


def blank(whole):
    return (whole[:n].ljust(len(whole), b"\0") for n in range(0, len(whole), 16))


@pytest.mark.parametrize("damages", [cut, flip, blank])
def test_a_damaged_snapshot_changes_no_result_wherever_it_is_damaged(damages, busy, data):
    kept(busy)
    place(busy, "lamp")
    expected = sold(busy)
    whole = snapshot(data).read_bytes()
    body = whole.index(b'"sold"')
    for number, damaged in enumerate(damages(whole)):
        snapshot(data).write_bytes(damaged)
        try:
            follower = followed(busy)
        except ForeignFile:  # it looks like a file of another program, or of a newer version
            assert damages is flip
            assert number < body
            assert isinstance(json.loads(damaged), dict)
            continue
        assert times(follower) == expected
        assert follower.projection.applied in {1, 8}
        follower.save()
        assert followed(busy).projection.applied == 0


def test_a_number_that_was_changed_by_another_program_is_not_believed(busy, data):
    kept(busy)
    snapshot(data).write_bytes(snapshot(data).read_bytes().replace(b'"times":3', b'"times":9'))
    follower = Follower(busy.store, Counting)
    assert "another program" in follower.load()
    follower.catch_up()
    assert times(follower) == sold(busy)


def test_a_snapshot_of_another_log_is_not_believed(busy, data, tmp_path):
    kept(busy)
    busy.close()
    other = tmp_path / "other"
    with open_app(other) as app:
        for _ in range(12):  # more of it than of the first
            place(app, "carpet")
    for name in ("events.jsonl", "orders.json"):
        shutil.copy(other / name, data / name)
    with open_app(data) as app:
        follower = kept(app)
        assert times(follower) == sold(app) == {"carpet": 12}
        assert followed(app).projection.applied == 0


def test_a_snapshot_that_knows_more_than_the_log_is_not_believed(busy, data):
    """A power cut has taken the end of the log; what came instead is as long."""
    lines = busy.store.log_path.read_bytes().splitlines(keepends=True)
    kept(busy)
    known = busy.store.log_path.stat().st_size
    busy.close()
    for remaining in (len(lines) - 1, len(lines) - 4, 1, 0):
        (data / "orders.json").unlink(missing_ok=True)
        (data / "events.jsonl").write_bytes(b"".join(lines[:remaining]))
        with open_app(data) as app:
            assert times(followed(app)) == sold(app)
            for number in count():
                place(app, f"other {number}")
                assert times(followed(app)) == sold(app)
                if app.store.log_path.stat().st_size > known:
                    break


def test_a_snapshot_of_an_older_version_of_the_projection_is_begun_anew(busy, data):
    class Older(OrdersADay):
        name = "item-sales"

    class OtherColumns(ItemSales):
        columns: ClassVar = {"sold": ("thing", "times"), "open": ("order_id", "items")}

    for older in (Older, OtherColumns):
        kept(busy, older)
        follower = kept(busy)
        assert times(follower) == sold(busy)
        assert follower.projection.applied == 7
        snapshot(data).unlink()


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", '{"log": {"1": {"format": 2}}}', "5"])
def test_a_foreign_file_in_place_of_the_snapshot_is_refused_and_left_alone(text, busy, data):
    kept(busy)
    if "format" in text:
        whole = snapshot(data).read_text()
        text = whole.replace('"format":1', '"format":2')
    snapshot(data).write_text(text)
    with pytest.raises(ForeignFile, match=r"item-sales\.json"):
        Follower(busy.store, ItemSales).load()
    assert snapshot(data).read_text() == text


def test_a_directory_in_place_of_the_snapshot_is_refused(busy, data):
    snapshot(data).mkdir(parents=True)
    with pytest.raises(ForeignFile, match="is a directory"):
        Follower(busy.store, ItemSales).load()


def test_a_full_disk_keeps_the_snapshot_of_before_and_the_follower_goes_on(busy, data):
    class Full(Disk):
        is_full = True

        def write(self, descriptor, content):
            if self.is_full and file_of(descriptor).suffix == ".tmp":
                raise OSError(errno.ENOSPC, "no space left on device")
            return super().write(descriptor, content)

    kept(busy)
    before = snapshot(data).read_bytes()
    with open_app(data, disk=(disk := Full())) as app:
        place(app, "lamp")
        follower = followed(app)
        with pytest.raises(NotWritten, match="no space left"):
            follower.save()
        assert snapshot(data).read_bytes() == before
        assert [file.name for file in snapshot(data).parent.iterdir()] == ["item-sales.json"]
        disk.is_full = False
        place(app, "lamp")
        follower.catch_up()
        follower.save()
        assert followed(app).projection.applied == 0
        assert times(followed(app)) == sold(app)


def test_a_snapshot_never_knows_what_a_power_cut_could_take_from_the_log(busy, data):
    class Recording(Disk):
        synced = 0
        known: ClassVar = []

        def sync(self, descriptor):
            super().sync(descriptor)
            if file_of(descriptor).name == "events.jsonl":
                Recording.synced = os.fstat(descriptor).st_size

        def replace(self, source, target):
            if target.name == "item-sales.json":
                head = StateStorage(source, self).head()
                self.known.append((head.offset, self.synced))
            super().replace(source, target)

    with open_app(data, disk=Recording()) as app:
        for _ in range(5):
            kept(app)  # of what this process has not synced, and others perhaps not
            place(busy)
            place(app)  # whose delivery is recorded, and not synced
    assert len(Recording.known) == 5
    assert all(offset <= synced for offset, synced in Recording.known)


# Keeping up


@pytest.mark.parametrize("at_any_cost", [False, True])
def test_a_policy_that_keeps_up_after_every_command_is_as_one_that_never_stops(
    at_any_cost, app, sales
):
    for number in range(40):
        place(app, f"item {number % 4}", "x" * 400)
        Follower(app.store, Bestseller, app.deliveries).keep_up(at_any_cost=at_any_cost)
    said = [notice.items[0] for notice in sales.notices if notice.title.startswith("Bestseller")]
    assert said == ["x" * 400, *(f"item {number}" for number in range(4))]


def test_a_policy_that_keeps_up_seldom_misses_nothing(app, sales):
    for number in range(30):
        place(app, f"item {number % 2}")
        if number % 7 == 6:
            Follower(app.store, Bestseller, app.deliveries).keep_up(at_any_cost=number % 2 == 0)
    Follower(app.store, Bestseller, app.deliveries).keep_up(at_any_cost=True)
    said = [notice.items for notice in sales.notices if notice.title.startswith("Bestseller")]
    assert sorted(said) == [("item 0",), ("item 1",)]


class Stocktaker(Policy):
    """Waits for what hardly ever happens."""

    name = "stocktaker"
    follow = (StockTaken,)
    columns: ClassVar = {"taken": ("id", "times")}

    def apply(self, event):
        self.tables["taken"][event.id] = 1

    def react(self, event):
        yield PlaceOrder(("paper",))


def test_a_policy_of_rare_events_that_keeps_up_does_not_read_the_whole_log_each_time(data):
    class Counter(Disk):
        read_bytes = 0

        def read(self, descriptor, size, offset):
            found = super().read(descriptor, size, offset)
            self.read_bytes += len(found)
            return found

    with open_app(data) as app:
        for _ in range(300):
            place(app, "x" * 400, "y" * 400)
    with open_app(data, disk := Counter()) as app:
        Follower(app.store, Stocktaker, app.deliveries).keep_up(at_any_cost=False)
        assert disk.read_bytes > 300_000
    with open_app(data, disk := Counter()) as app:
        app.uow().emit(StockTaken())
        Follower(app.store, Stocktaker, app.deliveries).keep_up(at_any_cost=False)
        assert app.orders.count() == 301
    assert disk.read_bytes < 300_000


# Others at the same time


def write(data, name, orders):
    with open_app(data) as app:
        for number in range(orders):
            order_id = place(app, name, "rope")
            if number % 3 == 0:
                app.bus.send(CancelOrder(order_id))


def save_again_and_again(data, stop):
    """Follow, each time anew or as before, and keep, until it is to stop."""
    with open_app(data) as app:
        follower = Follower(app.store, Counting)
        for number in count():
            is_last = stop.exists()
            if number % 3 == 0:
                follower = Follower(app.store, Counting)
                follower.load()
            follower.catch_up()
            follower.save()
            assert len({*times(follower)}) <= 4
            if is_last:
                break


def test_saving_disturbs_no_writer_and_savers_do_not_disturb_each_other(data, fork, tmp_path):
    stop = tmp_path / "stop"
    with open_app(data) as app:
        place(app)
    savers = [fork(save_again_and_again, data, stop) for _ in range(2)]
    writers = [fork(write, data, f"item {number}", 30) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    stop.touch()
    assert [saver.wait() for saver in savers] == [0] * 2
    with open_app(data) as app:
        follower = followed(app)
        assert follower.projection.applied == 0
        assert times(follower) == sold(app)
        assert times(follower)["rope"] == 1 + 3 * 20


def test_two_of_one_process_that_save_at_the_same_time_wait_for_each_other(busy, data):
    class Slow(Disk):
        def replace(self, source, target):
            if target.name == "item-sales.json" and other.ident is None:
                other.start()
                other.join(0.2)  # or until it waits
            super().replace(source, target)

    second = followed(busy)
    other = Thread(target=lambda: (second.save(), saved.append("second")))
    saved = []
    with open_app(data, disk=Slow()) as app:
        kept(app)
        other.join()
    assert saved == ["second"]
    assert followed(busy).projection.applied == 0


def test_a_writer_is_not_kept_waiting_by_who_folds(app, data):
    """An order is placed, by another application, in the midst of a fold."""

    class Ordering(Counting):
        def apply(self, event):
            super().apply(event)
            if self.applied <= 3:
                place(other, "carpet")

    place(app)
    with open_app(data) as other:
        follower = followed(app, Ordering)
        follower.catch_up()
        follower.catch_up()
        follower.catch_up()
        assert times(follower) == {"rope": 1, "carpet": 3} == sold(app)


def test_a_store_that_stays_locked_is_an_error_and_changes_nothing(busy, data):
    follower = followed(busy)
    settings = Settings(data, lock_timeout=0.05)
    with bootstrap(settings=settings, notifier=Quiet()) as impatient:
        waiting = followed(impatient)
        with busy.store.log.writing(), pytest.raises(StoreBusy):
            waiting.save()
        assert not snapshot(data).exists()
        waiting.save()
    follower.save()
    assert times(followed(busy)) == sold(busy)


# Whatever happens


class Life:
    """What can happen to a store and its follower, each by its name."""

    def __init__(self, app):
        self.app = app
        self.file = snapshot(app.store.directory)
        self.follower = Follower(app.store, Choking)

    def place(self, items):
        place(self.app, *items)

    def ship(self, number):
        self._move(ShipOrder, number)

    def cancel(self, number):
        self._move(CancelOrder, number)

    def choke(self, items):
        place(self.app, *items, "bone", *items)
        self.follower.projection.chokes = True
        with pytest.raises(FollowerError):
            self.follower.catch_up()
        self.follower.projection.chokes = False

    def catch_up(self, _):
        self.follower.projection.chokes = False
        self.follower.catch_up()
        assert times(self.follower) == sold(self.app)

    def save(self, _):
        self.follower.save()

    def begin_anew(self, _):
        self.follower = Follower(self.app.store, Choking)
        self.follower.load()

    def delete(self, _):
        self.file.unlink(missing_ok=True)

    def cut(self, at):
        self._damage(at, lambda whole: whole[:at])

    def flip(self, at):
        self._damage(at, lambda whole: whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

    def _move(self, command, number):
        placed = [order.id for order in self.app.orders.list() if order.status == "placed"]
        if placed:
            self.app.bus.send(command(placed[number % len(placed)]))

    def _damage(self, at, how):
        if self.file.exists() and at < len(whole := self.file.read_bytes()):
            self.file.write_bytes(how(whole))


SOME_ITEMS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3)
STEPS = st.lists(
    st.tuples(st.sampled_from(["place", "choke"]), SOME_ITEMS)
    | st.tuples(st.sampled_from(["ship", "cancel"]), st.integers(0, 9))
    | st.tuples(st.sampled_from(["catch_up", "save", "begin_anew", "delete"]), st.none())
    | st.tuples(st.sampled_from(["cut", "flip"]), st.integers(150, 500)),
    max_size=20,
)


@limits(max_examples=60, deadline=None, database=None)
@given(STEPS)
def test_whatever_happens_to_it_a_follower_is_the_fold_of_the_log(steps):
    with TemporaryDirectory() as directory, open_app(f"{directory}/store") as app:
        life = Life(app)
        for what, how in steps:
            getattr(life, what)(how)
        life.catch_up(None)
        life.save(None)
        assert times(followed(app)) == sold(app)
