"""Any number of terminals: nothing lost, nothing twice, nothing torn, nobody kept waiting."""

import fcntl
import json
import os
import select
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from threading import Barrier, Event, Thread

import pytest
from tinydb import TinyDB

from orders import OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.leases import Leases
from orders.errors import Conflict, ForbiddenMove

WON, CONFLICT, FORBIDDEN = 0, 3, 4


class Quiet:
    def notify(self, notice):
        pass


def open_app(data, **options):
    return bootstrap(data, notifier=Quiet(), **options)


def lines(text):
    return text.splitlines()


def numbers(app):
    return [record.number for record in app.store.read()]


# Writers and readers


def write(data, acknowledgements, name, orders):
    with open_app(data) as app:
        for number in range(orders):
            order_id = app.bus.send(PlaceOrder(items=(f"{name} {number}",)))
            os.write(acknowledgements, f"{order_id}\n".encode())


def read(data, stop, reads, reopens):
    """List until `stop` is there: never less than before, never anything torn."""
    state = data / "orders.json"
    known, seen, last = set(), 0, 0
    with ExitStack() as stack:
        app = stack.enter_context(open_app(data))
        while not (is_last := stop.exists()) or not last:
            last += is_last
            if reopens:
                app.close()
                app = stack.enter_context(open_app(data))
            ids = [order.id for order in app.orders.list()]
            assert len({*ids}) == len(ids)
            assert known <= {*ids}
            known = {*ids}
            if state.exists():
                in_file = json.loads(state.read_bytes())["orders"]
                assert len(in_file) >= seen
                seen = len(in_file)
                assert {order["id"] for order in in_file.values()} <= {
                    order.id for order in app.orders.list()
                }
            os.write(reads, b".")


@pytest.mark.parametrize("orders", [25, pytest.param(1000, marks=pytest.mark.long)])
def test_eight_writers_and_four_readers_lose_repeat_and_tear_nothing(orders, data, fork, tmp_path):
    stop = tmp_path / "stop"
    tally, reads = os.pipe()
    fcntl.fcntl(reads, fcntl.F_SETPIPE_SZ, 1 << 20)  # nobody reads it before the end
    readers = [fork(read, data, stop, reads, number % 2) for number in range(4)]
    acks, acknowledgements = os.pipe()  # which ends with the last writer
    writers = [fork(write, data, acknowledgements, f"writer {n}", orders) for n in range(8)]
    os.close(acknowledgements)
    os.close(reads)
    with os.fdopen(acks) as file:
        acknowledged = [line.strip() for line in file]
    assert [writer.wait() for writer in writers] == [0] * 8
    stop.touch()
    assert [reader.wait() for reader in readers] == [0] * 4
    with os.fdopen(tally) as file:
        print(f"{len(acknowledged)} orders acknowledged, {len(file.read())} reads")
    assert len({*acknowledged}) == len(acknowledged) == 8 * orders
    with open_app(data) as app:
        listed = app.orders.list()
        assert {order.id for order in listed} == {*acknowledged}
        assert sorted(order.items for order in listed) == sorted(
            (f"writer {n} {number}",) for n in range(8) for number in range(orders)
        )
        assert numbers(app) == [*range(1, 16 * orders + 1)]  # a commit and an outcome each
        assert [*app.store.pending()] == []
        app.store.checkpoint()
    with TinyDB(data / "orders.json") as stock:
        assert {d["id"] for d in stock.table("orders").all()} == {*acknowledged}


def test_many_threads_with_several_applications_lose_and_repeat_nothing(data):
    with ExitStack() as stack:
        apps = [stack.enter_context(open_app(data)) for _ in range(4)]
        start = Barrier(16)

        def place(number):
            app = apps[number % 4]
            start.wait()
            found = []
            for n in range(10):
                found.append(app.bus.send(PlaceOrder(items=(f"{number} {n}",))))
                assert {*found} <= {order.id for order in app.orders.list()}
            return found

        with ThreadPoolExecutor(16) as pool:
            ids = [order_id for found in pool.map(place, range(16)) for order_id in found]
        assert len({*ids}) == 160
        for app in apps:
            assert {order.id for order in app.orders.list()} == {*ids}
            assert numbers(app) == [*range(1, 321)]
            assert [*app.store.pending()] == []


def test_one_key_in_eight_processes_is_one_order_with_one_notice(data, fork):
    class Printing:
        def notify(self, notice):
            os.write(notices, b".")

    def place(number):
        with bootstrap(data, notifier=Printing()) as app:
            os.read(go, 1)
            for n in range(10):
                order_id = app.bus.send(PlaceOrder(items=(str(number),), key=f"key {n}"))
                os.write(answers, f"{n} {order_id}\n".encode())

    (go, started), (got, answers), (heard, notices) = os.pipe(), os.pipe(), os.pipe()
    children = [fork(place, number) for number in range(8)]
    os.write(started, b"x" * 8)
    assert [child.wait() for child in children] == [0] * 8
    for end in (go, started, answers, notices):
        os.close(end)
    with os.fdopen(got) as file, os.fdopen(heard) as bell:
        assert len({*file.read().splitlines()}) == 10
        assert len(bell.read()) == 10


# A subscriber that hangs


@pytest.fixture
def hanging(data):
    """Start `orders ...` on an output that nobody reads and that is full; it hangs printing."""
    processes = []

    def start(*arguments):
        unread, full = os.pipe()
        os.set_blocking(full, False)
        while select.select([], [full], [], 0)[1]:
            os.write(full, b"x" * 4096)
        os.set_blocking(full, True)
        command = [sys.executable, "-m", "orders", "--data", str(data), *arguments]
        process = subprocess.Popen(command, stdout=full, stderr=subprocess.PIPE, text=True)
        os.close(full)
        processes.append((process, unread))
        return process

    yield start
    for process, unread in processes:
        process.kill()
        process.communicate()
        os.close(unread)


def wait_for_line(data, seq):
    """Wait until the log has this many lines."""
    log = data / "events.jsonl"
    for _ in count():
        if log.exists() and log.read_bytes().count(b"\n") >= seq:
            return


def test_a_hanging_subscriber_in_one_terminal_does_not_keep_another_from_working(
    hanging, data, tool
):
    process = hanging("place", "slow one")
    wait_for_line(data, 1)
    for number in range(3):
        placed = tool("place", f"quick {number}")
        assert (placed.returncode, placed.stderr) == (0, "")
        assert placed.stdout.count("New Order:") == 1  # its own, not what the living one is at
        assert f"quick {number}" in placed.stdout
    assert process.poll() is None
    assert [line.split("\t")[2] for line in lines(tool("deliveries", "--pending").stdout)] == [
        "pending"
    ]
    assert "deliveries" not in {
        line.split("\t")[1] for line in lines(tool("doctor").stdout) if line.startswith("NOT WELL")
    }


def test_what_a_hanging_process_was_at_is_delivered_by_the_next_command_once_it_is_killed(
    hanging, data, tool
):
    process = hanging("place", "slow one")
    wait_for_line(data, 1)
    assert tool("list").stderr == ""
    process.kill()
    process.wait()
    late = tool("list")
    assert late.stderr.count("New Order:") == 1
    assert "slow one" in late.stderr
    assert tool("list").stderr == ""
    assert tool("deliveries", "--pending").stdout == ""
    assert tool("doctor").returncode == 0


def test_a_retry_of_what_a_living_process_is_at_says_so(hanging, data, tool):
    process = hanging("place", "slow one")
    wait_for_line(data, 1)
    with open_app(data) as app:
        assert app.deliveries.recover() == 0
        (pending,) = app.store.pending()
    retried = tool("retry", pending.delivery.event)
    assert (retried.returncode, retried.stdout) == (1, "")
    assert "another process" in retried.stderr
    assert process.poll() is None


def test_a_lease_that_is_being_taken_is_not_swept_away_as_a_dead_one(data, monkeypatch):
    """The file of a lease is there for a moment before it is locked."""
    found, taken = Event(), Event()

    class Slow(Disk):
        def unlink(self, path):
            found.set()
            taken.wait(0.5)  # or until nobody can take it any more
            super().unlink(path)

    data.mkdir()
    mine, sweeper, flock = Leases(data, Disk()), Leases(data, Slow()), fcntl.flock
    thread = Thread(target=sweeper.sweep)

    def look_first(descriptor, operation):
        if operation == fcntl.LOCK_EX and thread.ident is None:
            thread.start()
            found.wait(0.5)  # another process is about to remove what it has found unlocked
        flock(descriptor, operation)

    monkeypatch.setattr("orders.adapters.files.leases.fcntl.flock", look_first)
    name = mine.mine()
    taken.set()
    thread.join()
    assert Leases(data, Disk()).is_alive(name)
    mine.close()


def test_two_who_look_at_a_dead_lease_at_the_same_time_both_see_that_it_is_dead(data, monkeypatch):
    data.mkdir()
    (data / "lease").touch()
    flock, answers = fcntl.flock, []

    def look_too(descriptor, operation):
        flock(descriptor, operation)
        if not answers:
            answers.append(None)
            answers.append(Leases(data, Disk()).is_alive("lease"))

    monkeypatch.setattr("orders.adapters.files.leases.fcntl.flock", look_too)
    assert not Leases(data, Disk()).is_alive("lease")
    assert answers == [None, False]


# Two that want the same


def ship_together(data, order_id, ready, go, by_command):
    with open_app(data) as app:
        try:
            if by_command:
                app.orders.get(order_id)
                os.write(ready, b".")
                os.read(go, 1)
                app.bus.send(ShipOrder(order_id=order_id))
            else:
                with app.uow() as uow:
                    order = uow.orders.get(order_id)
                    order.ship()
                    os.write(ready, b".")
                    os.read(go, 1)
        except Conflict:
            return CONFLICT
        except ForbiddenMove:
            return FORBIDDEN
        return WON


@pytest.mark.parametrize("by_command", [True, False], ids=["command", "unit of work"])
@pytest.mark.sample(1)
def test_two_processes_that_ship_one_order_at_the_same_time_are_told_apart(by_command, data, fork):
    for number in range(10):
        with open_app(data) as app:
            order_id = app.bus.send(PlaceOrder(items=(str(number),)))
        (arrived, ready), (go, started) = os.pipe(), os.pipe()
        both = [fork(ship_together, data, order_id, ready, go, by_command) for _ in range(2)]
        for _ in both:
            assert os.read(arrived, 1) == b"."
        os.write(started, b"..")
        codes = sorted(child.wait() for child in both)
        assert codes[0] == WON
        assert codes[1] in ({CONFLICT, FORBIDDEN} if by_command else {CONFLICT})
        for end in (arrived, ready, go, started):
            os.close(end)
        with open_app(data) as app:
            order = app.store.order(order_id)
            assert (order.status, order.version) == ("shipped", 2)


def test_every_event_reaches_a_subscriber_once_however_many_processes_recover(data, fork):
    """What one process left pending, many take over at once; the effect is stored once."""

    def subscribe(app):
        app.bus.subscribe(OrderCreated, stamp, name="stamp")

    def stamp(event, *, bus):
        bus.send(ShipOrder(order_id=event.order_id))

    def die():
        with open_app(data) as app:
            subscribe(app)
            app.bus.deliver = lambda _subscriber, _event: None
            with app.uow():
                for number in range(40):
                    app.bus.send(PlaceOrder(items=(str(number),)))
            os._exit(0)

    def recover():
        with open_app(data) as app:
            subscribe(app)
            os.read(go, 1)
            app.deliveries.recover()

    assert fork(die).wait() == 0
    go, started = os.pipe()
    children = [fork(recover) for _ in range(4)]
    os.write(started, b"....")
    assert [child.wait() for child in children] == [0] * 4
    os.close(go)
    os.close(started)
    with open_app(data) as app:
        assert {(order.status, order.version) for order in app.orders.list()} == {("shipped", 2)}
        assert [a.delivery.status for a in app.store.deliveries()] == ["done"] * 80
