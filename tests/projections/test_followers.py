"""A follower is the fold of the log, whatever fails and however seldom it is brought up to date."""

from collections import Counter
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
from following import Choking, Counting, followed, kept, open_app, place, snapshot, sold, times
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from orders import CancelOrder, Event, PlaceOrder, ShipOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.application.store import START
from orders.errors import FollowerError, LogDamaged
from orders.projections.follower import Follower
from orders.projections.policy import Policy
from orders.projections.shipped import Bestseller, ItemSales, OrdersADay


class StockTaken(Event, frozen=True):
    topic: ClassVar[str] = "stock-taken"


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
    assert "remove the cause" in error.hint


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


@limits(max_examples=30, deadline=None, database=None)
@given(STEPS)
def test_whatever_happens_to_it_a_follower_is_the_fold_of_the_log(steps):
    with TemporaryDirectory() as directory, open_app(f"{directory}/store") as app:
        life = Life(app)
        for what, how in steps:
            getattr(life, what)(how)
        life.catch_up(None)
        life.save(None)
        assert times(followed(app)) == sold(app)
