"""Ctrl-C at any moment of a commit: it is stored or it is not, and the caller can find out."""

import signal
import sys
from itertools import count
from pathlib import Path

import pytest
from conftest import Sales

import orders
from orders import Order, OrderCreated, PlaceOrder, bootstrap
from orders.adapters import files
from orders.adapters.files import disk, log, log_file, store
from orders.adapters.files.disk import Disk
from orders.adapters.files.lock import FileLock
from orders.adapters.files.store import FilesStore
from orders.application import unit, unit_of_work
from orders.errors import Conflict

ENGINE = str(Path(files.__file__).parent)
UNIT = (unit.__file__, unit_of_work.__file__)
WRITING = tuple(module.__file__ for module in (store, log, log_file, disk))


class Alarm(Exception):
    """What the handler of a signal may raise, which is no KeyboardInterrupt."""


def interrupted_at(moment, error, where, work):
    """Do the work; raise the error at the n-th moment at which Python handles signals there.

    These are the beginnings of functions, and the ends of those that are written in C.
    """
    moments = count(1)

    def profile(frame, event, _):
        code = frame.f_code
        is_there = code.co_filename.startswith(where) and code.co_name != "<genexpr>"
        if event in {"call", "c_return"} and is_there and next(moments) == moment:
            sys.setprofile(None)
            raise error

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    except error:
        return True
    finally:
        sys.setprofile(before)
    return False


def add(app, order):
    with app.uow() as uow:
        uow.orders.add(order)


def add_again(app, order, may_conflict=False):
    """Repeat what was interrupted; a conflict says that it was stored."""
    try:
        add(app, order)
    except Conflict:
        assert may_conflict
        assert order.id in app.orders


def check(data, *expected):
    """Check that each of these orders was created once, and that nothing is left to deliver."""
    with bootstrap(data, notifier=Sales()) as app:
        records = list(app.store.read())
        assert [record.number for record in records] == [*range(1, len(records) + 1)]
        messages = [message for record in records for message in record.messages]
        created = [m.order_id for m in messages if isinstance(m, OrderCreated)]
        assert sorted(created) == sorted(expected)
        assert {order.id for order in app.orders.list()} == {*expected}
        app.deliveries.recover()
        assert [*app.store.pending()] == []


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("where", [ENGINE, UNIT], ids=["engine", "unit"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, Alarm])
@pytest.mark.sample(2)
def test_an_order_whose_commit_was_interrupted_anywhere_is_created_once(
    error, where, step, tmp_path
):
    for moment in count(1, step):
        data = tmp_path / str(moment)
        with bootstrap(data, notifier=Sales()) as app:
            first = app.bus.send(PlaceOrder(items=("lamp",)))
            order = Order.place(["TV"])
            was_interrupted = interrupted_at(moment, error, where, lambda: add(app, order))  # noqa: B023 - in this turn
            with FileLock(data / "orders.lock", timeout=1).held():
                pass  # it is not left locked
            # The engine is asked whether it is stored; the answer may be interrupted, too.
            add_again(app, order, may_conflict=where is UNIT)
            last = app.bus.send(PlaceOrder(items=("rope",)))
        check(data, first, order.id, last)
        if not was_interrupted:
            break
    assert moment > 40


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.long)])
def test_a_command_that_was_interrupted_anywhere_can_be_sent_again(step, tmp_path):
    for moment in count(1, step):
        data = tmp_path / str(moment)
        with bootstrap(data, notifier=Sales()) as app:
            first = app.bus.send(PlaceOrder(items=("lamp",)))
            place = PlaceOrder(items=("TV",), key="key")
            was_interrupted = interrupted_at(
                moment,
                KeyboardInterrupt,
                str(Path(orders.__file__).parent),
                lambda: app.bus.send(place),  # noqa: B023 - in this turn
            )
            placed = app.bus.send(PlaceOrder(items=("TV",), key="key"))
            last = app.bus.send(PlaceOrder(items=("rope",)))
        check(data, first, placed, last)
        if not was_interrupted:
            break
    assert moment > 100


@pytest.mark.parametrize("error", [KeyboardInterrupt, Alarm])
@pytest.mark.parametrize("call", ["open", "write", "sync"])
@pytest.mark.sample(2)
def test_a_signal_around_any_call_of_a_commit_leaves_one_order(call, error, tmp_path):
    class Signalling(Disk):
        """Sends its process a signal before or after the n-th call."""

        calls = count(1)
        due = 0

    def around(self, *arguments):
        if next(self.calls) == self.due:
            signal.raise_signal(signal.SIGUSR1)
        result = getattr(Disk, call)(self, *arguments)
        if next(self.calls) == self.due:
            signal.raise_signal(signal.SIGUSR1)
        return result

    def handle(_number, _frame):
        raise error

    setattr(Signalling, call, around)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        for number in range(1, 9):
            data, disk = tmp_path / str(number), Signalling()
            with bootstrap(store=FilesStore(data, disk=disk), notifier=Sales()) as app:
                first = app.bus.send(PlaceOrder(items=("lamp",)))
                order, disk.calls, disk.due = Order.place(["TV"]), count(1), number
                try:
                    add(app, order)
                except error:
                    disk.due = 0
                    add_again(app, order)
                disk.due = 0
                last = app.bus.send(PlaceOrder(items=("rope",)))
            check(data, first, order.id, last)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
def test_what_a_retry_that_was_interrupted_anywhere_has_claimed_is_left_to_others(step, tmp_path):
    def broken(_event):
        raise LookupError("no such shelf")

    for moment in count(1, step):
        with bootstrap(tmp_path / str(moment)) as app, bootstrap(tmp_path / str(moment)) as other:
            app.bus.unsubscribe("order_created")
            app.bus.subscribe(OrderCreated, broken, name="broken")
            for item in ("TV", "lamp"):
                app.bus.send(PlaceOrder(items=(item,)))
            was_interrupted = interrupted_at(
                moment, KeyboardInterrupt, WRITING, app.deliveries.retry
            )
            assert all(found.is_abandoned for found in other.store.pending())
        if not was_interrupted:
            break
    assert moment > 40
