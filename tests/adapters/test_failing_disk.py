"""A disk that fails at any one call, in any of six ways, costs no acknowledged order."""

import errno
import os
from contextlib import ExitStack, suppress
from itertools import product

import pytest
from conftest import Sales
from tinydb import TinyDB

from orders import OrderCreated, OrdersError, PlaceOrder, ShipOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.lock import FileLock
from orders.adapters.files.store import FilesStore
from orders.errors import StoreError
from orders.tools.doctor import examine, repair

BEHAVIOURS = ("crash before", "crash after", "torn", "short", "ENOSPC", "EIO")
ONLY_WRITES = ("torn", "short")
TORN = b'{"format":1,"seq":3,"time":"2026-11-21T09:30:00Z","messages":[{"type":"Pla'


class Killed(BaseException):
    """What ends a process whose disk call was its last."""


class FailingDisk(Disk):
    """Numbers its calls; at the one numbered `failing` it misbehaves."""

    def __init__(self, failing=0, behaviour="", *, for_good=False):
        self.failing, self.behaviour = failing, behaviour
        self.for_good = for_good  # or at that one call only
        self.calls = []
        self.is_dead = False
        self.distrusted = set()  # descriptors whose sync has failed
        self.misused = []

    def open(self, path, flags):
        descriptor = self._do("open", lambda: Disk.open(self, path, flags))
        self.distrusted.discard(descriptor)
        return descriptor

    def write(self, descriptor, data):
        self._check(descriptor, "written")
        half = lambda: Disk.write(self, descriptor, data[: len(data) // 2])
        return self._do("write", lambda: Disk.write(self, descriptor, data), half)

    def sync(self, descriptor):
        self._check(descriptor, "synced")
        try:
            self._do("sync", lambda: Disk.sync(self, descriptor))
        except OSError:
            self.distrusted.add(descriptor)
            raise

    def truncate(self, descriptor, size):
        self._do("truncate", lambda: Disk.truncate(self, descriptor, size))

    def replace(self, source, target):
        self._do("replace", lambda: Disk.replace(self, source, target))

    def unlink(self, path):
        self._do("unlink", lambda: Disk.unlink(self, path))

    def sync_directory(self, directory):
        self._do("sync_directory", lambda: Disk.sync_directory(self, directory))

    def _check(self, descriptor, how):
        if descriptor in self.distrusted:
            self.misused.append(how)

    def _do(self, name, act, half=None):
        if self.is_dead:
            raise Killed
        self.calls.append(name)
        is_due = len(self.calls) == self.failing
        if not is_due and not (self.for_good and len(self.calls) > self.failing):
            return act()
        if self.behaviour == "short":
            return half()
        if self.behaviour in {"ENOSPC", "EIO"}:
            number = getattr(errno, self.behaviour)
            raise OSError(number, os.strerror(number))
        if self.behaviour == "torn":
            half()
        elif self.behaviour == "crash after":
            with suppress(OSError):
                act()
        self.is_dead = True
        raise Killed


class Story:
    """What its teller asked of a store, and what came of it."""

    def __init__(self, data, disk, *, can_cut=True):
        self.data, self.disk, self.sales = data, disk, Sales()
        self.can_cut = can_cut  # whether what a refused commit wrote can be cut off again
        self.log = data / "events.jsonl"
        self.placed = {}  # order id -> item, of those that were acknowledged
        self.may = {}  # item -> the statuses it may have after all; None is absence
        self.refusals = []  # what OrdersErrors the caller got
        self.survived = []  # what was reported of subscribers
        self.store = FilesStore(data, disk=disk)
        self.app = bootstrap(
            store=self.store,
            notifier=self.sales,
            on_failure=lambda _subscriber, _event, error: self.survived.append(error),
            on_warning=lambda _warning: None,
        )

    def place(self, item):
        self.may[item] = {"placed", None}
        order_id = self._attempt(lambda: self.app.bus.send(PlaceOrder(items=(item, "batteries"))))
        if order_id is not None:
            self.placed[order_id] = item
        if order_id is not None:
            self.may[item] = {"placed"}
        elif self.can_cut:
            self.may[item] = {None}
        return order_id

    def ship(self, order_id):
        item = self.placed[order_id]
        self.may[item] = {"placed", "shipped"}
        shipped = self._attempt(lambda: self.app.bus.send(ShipOrder(order_id)) or True)
        if shipped:
            self.may[item] = {"shipped"}
        elif self.can_cut:
            self.may[item] = {"placed"}

    def checkpoint(self):
        self._attempt(self.app.store.checkpoint)

    def _attempt(self, act):
        before = self._whole_lines()
        try:
            return act()
        except OrdersError as error:
            self.refusals.append(error)
            if self.can_cut:
                assert self._whole_lines() == before, "a refusal changed the log"
            return None

    def _whole_lines(self):
        return self.log.read_bytes().rpartition(b"\n")[0] if self.log.exists() else b""


def play(story):
    """Place two orders, ship one, checkpoint, place another, close."""
    first = story.place("rope")
    story.place("lamp")
    if first is not None:
        story.ship(first)
    story.checkpoint()
    story.place("carpet")
    story.app.close()


def run(data, failing=0, behaviour="", *, torn=False):
    """Play the story on a disk that fails; return it."""
    if torn:
        with bootstrap(data, notifier=Sales()) as app:
            app.bus.send(PlaceOrder(items=("old",)))
        with (data / "events.jsonl").open("ab") as log:
            log.write(TORN)
    story = Story(data, FailingDisk(failing, behaviour))
    if torn:
        story.may["old"] = {"placed"}
    try:
        play(story)
    except Killed:
        story.store.abandon()  # which closes what it had open, as the kernel does
    return story


def check(story):
    """Use the store as the next process does: nothing acknowledged is lost, all of it works."""
    assert not story.disk.misused
    assert all(isinstance(error, StoreError) for error in [*story.refusals, *story.survived])
    later = Sales()
    with bootstrap(story.data, notifier=later) as app:
        found = {order.items[0]: order.status for order in app.orders.list()}
        for item, statuses in story.may.items():
            assert found.get(item) in statuses, item
        assert set(found) <= set(story.may)
        assert all(order.items[1:] in {(), ("batteries",)} for order in app.orders.list())
        app.deliveries.recover()
        done, tried = app.deliveries.retry()  # of those whose outcome could not be recorded
        assert done == tried
        noticed = {*story.sales.order_ids, *later.order_ids}
        there = {order.id for order in app.orders.list() if order.items != ("old",)}
        assert noticed == there
        app.bus.send(PlaceOrder(items=("afterwards",)))
        seqs = [record.number for record in app.store.read()]
        assert seqs == list(range(1, len(seqs) + 1))
        app.store.checkpoint()
        list(repair(app))  # what a crash may leave: a temporary file, the lease
        assert [finding for finding in examine(app) if not finding.is_well] == []
        expected = {order.id: order.status for order in app.orders.list()}
    assert "afterwards" in {item for order in stock(story.data) for item in order["items"]}
    assert {order["id"]: order["status"] for order in stock(story.data)} == expected


def stock(data):
    """Return the orders as stock TinyDB reads them."""
    with TinyDB(data / "orders.json") as db:
        return [dict(document) for document in db.table("orders")]


# with a torn log the short form plays two: an error, and a death
SHORT_IF_TORN = {"EIO", "crash before"}


@pytest.mark.parametrize(
    ("behaviour", "torn"),
    [
        pytest.param(
            behaviour,
            torn,
            marks=() if not torn or behaviour in SHORT_IF_TORN else pytest.mark.long,
            id=f"{behaviour}-{'torn' if torn else 'fresh'}",
        )
        for behaviour, torn in product(BEHAVIOURS, [False, True])
    ],
)
@pytest.mark.sample(2)
def test_whatever_call_fails_no_acknowledged_order_is_lost(tmp_path, behaviour, torn):
    calls = run(tmp_path / "whole", torn=torn).disk.calls
    assert {"open", "write", "sync", "replace", "unlink", "sync_directory"} <= set(calls)
    assert not torn or "truncate" in calls
    for number, name in enumerate(calls, start=1):
        if name == "write" or behaviour not in ONLY_WRITES:
            story = run(tmp_path / f"{number}", number, behaviour, torn=torn)
            assert story.disk.calls[:number] == calls[:number]
            try:
                check(story)
            except Exception as error:
                error.add_note(f"{behaviour} at call {number}, {name}")
                raise


@pytest.mark.parametrize("behaviour", ["ENOSPC", "EIO"])
@pytest.mark.sample(1)
def test_a_disk_that_fails_from_some_call_on_costs_nothing_acknowledged(tmp_path, behaviour):
    calls = run(tmp_path / "whole").disk.calls
    for number in range(1, len(calls) + 1):
        disk = FailingDisk(number, behaviour, for_good=True)
        story = Story(tmp_path / f"{number}", disk, can_cut=False)
        play(story)
        check(story)


@pytest.mark.parametrize("behaviour", ["ENOSPC", "EIO"])
def test_after_a_failed_sync_the_log_is_as_it_was_and_is_opened_anew(data, behaviour):
    disk = FailingDisk(0, behaviour)
    story = Story(data, disk)
    story.place("rope")
    before = story.log.read_bytes()
    disk.failing = len(disk.calls) + 2  # after the write
    story.place("lamp")
    assert disk.calls[disk.failing - 1] == "sync"
    assert (len(story.refusals), story.log.read_bytes()) == (1, before)
    calls = len(disk.calls)
    story.place("carpet")
    assert "open" in disk.calls[calls : calls + disk.calls[calls:].index("write")]
    story.app.close()
    check(story)


# What came of a delivery cannot be recorded


class Full(Disk):
    """Refuses to write while it is full."""

    is_full = False

    def write(self, descriptor, data):
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data)


class Obstacle:
    """What keeps a store from writing: a disk that is full, or somebody who holds the lock."""

    def __init__(self, kind, data):
        self.kind, self.disk = kind, Full()
        self.store = FilesStore(data, disk=self.disk, lock_timeout=0.05)
        self._lock = FileLock(self.store.lock.path, timeout=0.05)
        self._held = ExitStack()

    def begin(self):
        if self.kind == "full":
            self.disk.is_full = True
        else:
            self._held.enter_context(self._lock.held())

    def end(self):
        self.disk.is_full = False
        self._held.close()


@pytest.fixture(params=["full", "busy"])
def obstacle(request, data):
    return Obstacle(request.param, data)


@pytest.mark.parametrize("how", ["recover", "retry", "by another", "by the tool"])
def test_a_delivery_whose_outcome_was_not_recorded_can_be_made_again_at_once(
    how, obstacle, data, tool
):
    """Although the process that could not record it lives."""
    heard, errors = [], []

    def hear(event):
        heard.append(event.id)
        if len(heard) == 1:
            obstacle.begin()

    def note(_subscriber, _event, error):
        errors.append(error)

    def subscribed(**options):
        app = bootstrap(notifier=Sales(), on_failure=note, **options)
        app.bus.subscribe(OrderCreated, hear, name="hear", priority=9)  # the last to hear
        return app

    with subscribed(store=obstacle.store) as app:
        app.bus.send(PlaceOrder(items=("rope",)))
        obstacle.end()
        assert [isinstance(error, StoreError) for error in errors] == [True]
        (found,) = app.store.pending()
        assert (found.is_abandoned, found.delivery.subscriber) == (True, "hear")
        if how == "recover":
            assert app.deliveries.recover() == 1
        elif how == "retry":
            assert app.deliveries.retry([found.delivery.event]) == (1, 1)
        elif how == "by another":
            with subscribed(data=data) as another:
                assert another.deliveries.recover() == 1
        else:  # which lacks the subscriber, and says so instead of that somebody is at it
            assert "is not known to this process" in tool("retry", found.delivery.event).stderr
            return
        assert [*app.store.pending()] == []
        assert {account.delivery.status for account in app.store.deliveries()} == {"done"}
    assert heard == [found.delivery.event] * 2


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("point", ["before-append@2", "torn-append@2", "after-append@2"])
@pytest.mark.sample(3)
def test_an_outcome_that_could_not_be_recorded_is_made_good_by_the_next_command(
    point, error, data, tool
):
    placed = tool("place", "rope", env={"ORDERS_FAULT": f"{point}={error}"})
    assert (placed.returncode, "could not write" in placed.stderr) == (0, True)
    assert tool("deliveries", "--pending").stdout.count("order_created") == 1
    assert tool("deliveries", "--failed").stdout == ""
    listed = tool("list")
    assert (listed.returncode, listed.stderr.count("New Order")) == (0, 1)
    assert tool("deliveries", "--pending").stdout == ""
    assert tool("doctor").returncode == 0
