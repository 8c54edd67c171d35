"""A process that forks shares nothing with its children: neither place in the log nor locks."""

import os
import signal
from threading import Event, Thread

import pytest
from conftest import Sales

from orders import OrderCreated, PlaceOrder, WiringError, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.store import FilesStore


def open_app(data, disk=None):
    store = FilesStore(data, disk=disk, lock_timeout=20)
    return bootstrap(store=store, notifier=Sales())


def place(app, item):
    return app.bus.send(PlaceOrder(items=(item,)))


def items(data):
    """What is in the store, which every number from 1 on is in."""
    with bootstrap(data, notifier=Sales()) as app:
        numbers = [record.number for record in app.store.read()]
        assert numbers == [*range(1, len(numbers) + 1)]
        assert [finding for finding in app.store.check() if not finding.is_well] == []
        return sorted(order.items[0] for order in app.orders.list())


@pytest.fixture
def sleeper():
    """Fork a child that does nothing; it is gone after the test. Call it in any process."""
    reading, writing = os.pipe()

    def fork_it():
        is_asleep, sleeps = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, b"%d\n" % os.getpid())
            os.write(sleeps, b"z")
            signal.pause()
            os._exit(0)
        os.read(is_asleep, 1)  # by then it has let go of what it inherited

    yield fork_it
    os.close(writing)
    os.set_blocking(reading, False)
    with os.fdopen(reading) as pids:
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)


def test_parent_and_children_that_use_one_application_lose_and_repeat_nothing(data, fork):
    with open_app(data) as app:
        place(app, "before")

        def work(name):
            for number in range(20):
                place(app, f"{name} {number}")
            app.close()

        children = [fork(work, name) for name in "abc"]
        for number in range(20):
            place(app, f"parent {number}")
        assert [child.wait() for child in children] == [0] * 3
        place(app, "after")
        assert len(app.orders.list()) == 82
    expected = [f"{name} {number}" for name in ("a", "b", "c", "parent") for number in range(20)]
    assert items(data) == sorted(["before", "after", *expected])


def test_a_child_of_a_child_uses_the_application_too(data, fork):
    with open_app(data) as app:
        place(app, "parent")

        def grandchild():
            place(app, "grandchild")
            app.close()

        def child():
            place(app, "child")
            forked = fork(grandchild)
            place(app, "child again")
            app.close()
            return forked.wait()

        assert fork(child).wait() == 0
    assert items(data) == ["child", "child again", "grandchild", "parent"]


def test_a_sleeping_child_does_not_keep_the_lease_of_a_killed_parent_alive(data, fork, sleeper):
    """Whoever sets out to make a delivery dies of it; its child knows nothing of that."""

    def die():
        def fork_and_die(_event):
            sleeper()
            os.kill(os.getpid(), signal.SIGKILL)

        with open_app(data) as app:
            place(app, "before")
            app.bus.subscribe(OrderCreated, fork_and_die, name="late", priority=-1)
            place(app, "last")

    assert fork(die).wait() == -signal.SIGKILL
    heard = []
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.subscribe(OrderCreated, lambda event: heard.append(event.items), name="late")
        assert {pending.is_abandoned for pending in app.store.pending()} == {True}
        assert app.deliveries.recover() == 2
    assert heard == [("last",)]


def test_a_sleeping_child_does_not_keep_the_lock_of_a_killed_parent(data, fork, sleeper):
    class Deadly(Disk):
        def sync(self, descriptor):
            super().sync(descriptor)
            sleeper()  # which inherits the lock that is held here
            os.kill(os.getpid(), signal.SIGKILL)

    assert fork(lambda: place(open_app(data, Deadly()), "first")).wait() == -signal.SIGKILL
    with open_app(data) as app:
        app.deliveries.recover()
        place(app, "second")
    assert items(data) == ["first", "second"]


def test_a_child_that_closes_the_application_takes_nothing_from_its_parent(data, fork):
    """What the parent is about to deliver stays with the parent, its lease alive."""

    def close_elsewhere(_event):
        assert fork(app.close).wait() == 0
        with open_app(data) as another:
            assert [pending.is_abandoned for pending in another.store.pending()] == [False] * 2
            assert another.deliveries.recover() == 0

    with open_app(data) as app:
        app.bus.subscribe(OrderCreated, close_elsewhere, name="forking", priority=-1)
        place(app, "first")
        place(app, "second")
        assert {account.delivery.status for account in app.store.deliveries()} == {"done"}


def test_a_child_may_use_what_another_thread_was_at_when_it_was_forked(data, fork):
    class Slow(Disk):
        def sync(self, descriptor):
            reached.set()
            go_on.wait()
            super().sync(descriptor)

    def child():
        os.write(forked, b".")
        place(app, "child")
        app.close()

    reached, go_on = Event(), Event()
    with open_app(data, slow := Slow()) as app:
        thread = Thread(target=place, args=(app, "parent"))
        thread.start()
        reached.wait()  # the lock is held, and the lock between threads is too
        slow.sync = lambda descriptor: Disk.sync(slow, descriptor)
        arrived, forked = os.pipe()
        process = fork(child)
        os.read(arrived, 1)
        go_on.set()
        assert process.wait() == 0
        thread.join()
    assert items(data) == ["child", "parent"]


def test_a_unit_of_work_ends_in_the_process_that_opened_it(data, fork):
    def child():
        with pytest.raises(WiringError, match="nothing was stored"):
            unit.__exit__(None, None, None)
        place(app, "child")
        app.close()

    with open_app(data) as app:
        with app.uow() as unit:
            place(app, "parent")
            assert fork(child).wait() == 0
        assert len(app.orders.list()) == 2
    assert items(data) == ["child", "parent"]
