"""What a command reads does not grow with the store, whatever is pending and for however long."""

import gc
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing

import pytest
from conftest import Sales
from msgspec.structs import replace

from orders import OrderCreated, OrderRejected, PlaceOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.log import TAIL
from orders.adapters.files.store import FilesStore
from orders.application.store import Commit, Delivery
from orders.messaging.message import Event, new_id
from orders.tools.doctor import examine

CHUNK = 1000
ITEMS = 4000
READ = re.compile(r"(?:read|pread64)\(\d+<([^>]*)>.*= (\d+)$")
ALLOWED = 300_000  # bytes more than on an empty store: the ends of the files, and their heads


@pytest.fixture
def many(data):
    """Build a store of so many orders, state and policies up to date, as an import leaves it."""

    def build(count):
        with bootstrap(data, notifier=Sales()) as app:
            for start in range(0, count, CHUNK):
                events = (
                    OrderCreated(order_id=new_id(), items=(f"TV {number % ITEMS}",))
                    for number in range(start, min(start + CHUNK, count))
                )
                app.store.commit(Commit(tuple(event.caused_by(None) for event in events)))
            app.store.checkpoint()
            assert not app.react(at_any_cost=True)
            app.bus.send(PlaceOrder(items=("the last one",)))
        return (data / "events.jsonl").stat().st_size + (data / "orders.json").stat().st_size

    return build


def bytes_read(data, tmp_path):
    """Place an order in a process of its own; return the bytes it read, in all and of the store."""
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-e", "trace=read,pread64", "-o", str(trace)]
    subprocess.run(
        [*strace, sys.executable, "-m", "orders", "place", "rope"],
        env={**os.environ, "ORDERS_DATA": str(data)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    reads = [match for line in trace.read_text().splitlines() if (match := READ.search(line))]
    total = sum(int(match[2]) for match in reads)
    return total, sum(int(match[2]) for match in reads if match[1].startswith(str(data)))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "count", [20_000, pytest.param(100_000, marks=pytest.mark.long)], ids="{:,}".format
)
def test_placing_on_a_large_store_reads_neither_the_log_nor_the_state(many, data, tmp_path, count):
    bytes_read(tmp_path / "warm", tmp_path)  # which compiles what is imported
    nothing, _ = bytes_read(tmp_path / "empty", tmp_path)
    size = many(count)
    total, of_store = bytes_read(data, tmp_path)
    print(f"{count:,} orders: {of_store:,} of {size:,} bytes read; {total - nothing:,} more")
    assert 0 < of_store < ALLOWED < size // 10
    assert total - nothing < ALLOWED


class CountingDisk(Disk):
    """Counts the bytes that are read of the log."""

    def __init__(self):
        self.bytes_read = 0

    def read(self, descriptor, size, offset):
        data = super().read(descriptor, size, offset)
        self.bytes_read += len(data)
        return data


@pytest.fixture
def counted(many, data):
    """A store of a few thousand orders, to one of which a policy has reacted; counts its reads."""
    with bootstrap(data, notifier=Sales()) as app:
        for _ in range(10):
            app.bus.send(PlaceOrder(items=("rope",)))
        assert not app.react(at_any_cost=True)
    many(5000)
    return FilesStore(data, disk=CountingDisk())


def test_the_doctor_reads_the_log_twice_however_much_is_folded_of_it(counted):
    with bootstrap(store=counted) as app:
        assert [finding for finding in examine(app) if not finding.is_well] == []
    size = counted.log.end()
    assert size < counted.disk.bytes_read < 2.5 * size


def test_what_the_doctor_folds_is_not_searched_for_cycles_as_it_grows(counted):
    collections = []

    def note(phase, _info):
        collections.append(phase)

    with bootstrap(store=counted) as app:
        gc.callbacks.append(note)
        try:
            examine(app)
        finally:
            gc.callbacks.remove(note)
    assert collections == []
    assert gc.isenabled()


def cost_of_a_command(data):
    """Return how many bytes of the log a newcomer reads to recover, place an order and look."""
    disk = CountingDisk()
    with bootstrap(store=FilesStore(data, disk=disk), notifier=Sales()) as app:
        app.bus.subscribe("*", lambda _event: None, name="everything")
        app.deliveries.recover()
        order_id = app.bus.send(PlaceOrder(items=("rope",)))
        assert order_id in {order.id for order in app.orders.list(limit=20)}
    return disk.bytes_read


def lengthen(store, size):
    """Let the log grow by so many bytes, the state with it."""
    goal = store.log.end() + size
    while store.log.end() < goal:
        events = (OrderRejected(reason="x" * 5000).caused_by(None) for _ in range(20))
        store.commit(Commit(tuple(events)))
    store.checkpoint()


def call_for(store, subscriber, event=None):
    """Commit an event, and that this process sets out to deliver it; return the delivery."""
    event = (event or OrderRejected(reason="why")).caused_by(None)
    delivery = Delivery(event.id, subscriber)
    store.commit(Commit((event,), pending=(delivery,)))
    return delivery


def hang(store, _fork):
    """Let a process that lives be at it."""
    call_for(store, "everything")


def lack_the_subscriber(store, _fork):
    call_for(store, "of a plugin that is not loaded")
    store.release()


def lack_the_subscriber_that_a_process_died_of(store, _fork):
    found = call_for(store, "of a plugin that is not loaded")
    store.release()
    assert store.claim([(found, replace(found, deaths=1, attempts=2))])
    store.release()


def lack_the_class(store, fork):
    def commit_one():
        class Vanished(Event, frozen=True, kw_only=True):
            topic = "vanished"

        call_for(store, "everything", Vanished())
        store.close()

    assert fork(commit_one).wait() == 0


def lack_the_class_that_a_process_died_of(store, fork):
    """Far from its event, which the claim of the process that died has to say the place of."""
    lack_the_class(store, fork)
    lengthen(store, 1_000_000)
    (found,) = store.pending()
    again = replace(found.delivery, deaths=1, attempts=2)
    assert store.claim([(found.delivery, again)])
    store.release()


@pytest.mark.parametrize(
    "leave_pending",
    [
        hang,
        lack_the_subscriber,
        lack_the_subscriber_that_a_process_died_of,
        lack_the_class,
        lack_the_class_that_a_process_died_of,
    ],
)
@pytest.mark.sample(3)
def test_a_pending_delivery_does_not_make_commands_dearer_as_the_log_grows(
    leave_pending, data, fork
):
    with closing(FilesStore(data)) as store:
        leave_pending(store, fork)
        lengthen(store, 2_000_000)
        earlier = cost_of_a_command(data)
        lengthen(store, 3_000_000)
        assert cost_of_a_command(data) < earlier + ALLOWED
        assert [pending.delivery.status for pending in store.pending()] == ["pending"]


def test_what_waited_while_the_log_grew_is_delivered_to_its_subscriber(data):
    with closing(FilesStore(data)) as store:
        deliveries = [call_for(store, "of a plugin") for _ in range(300)]
        lengthen(store, 1_000_000)
    heard = []
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.subscribe(OrderRejected, lambda event: heard.append(event.id), name="of a plugin")
        assert app.deliveries.recover() == 300
        assert [*app.store.pending()] == []
    assert heard == [delivery.event for delivery in deliveries]


@pytest.mark.parametrize("how", ["retry", "recover"])
def test_many_deliveries_are_made_again_at_the_cost_of_one(how, data):
    with closing(FilesStore(data)) as store:
        deliveries = [call_for(store, "shaky") for _ in range(300)]
        if how == "retry":
            outcomes = (replace(one, status="failed", error="why") for one in deliveries)
            store.commit(Commit(outcomes=tuple(outcomes)))
        lengthen(store, 1_000_000)
        size = store.log.end()
    disk = CountingDisk()
    with bootstrap(store=FilesStore(data, disk=disk), notifier=Sales()) as app:
        app.bus.subscribe(OrderRejected, lambda _event: None, name="shaky")
        if how == "retry":
            assert app.deliveries.retry() == (300, 300)
        else:
            assert app.deliveries.recover() == 300
        grown = app.store.log.end() - size
    print(f"{disk.bytes_read:,} bytes read of {size:,}, and {grown:,} appended")
    assert disk.bytes_read < 3 * size + grown


def test_a_list_reads_nothing_of_a_log_that_is_as_long_as_the_state_says(data):
    with bootstrap(data, notifier=Sales()) as app:
        for number in range(100):
            app.bus.send(PlaceOrder(items=(f"item {number}",)))
    with closing(FilesStore(data, disk=CountingDisk())) as store:
        for _ in range(2):
            assert len(store.orders(limit=20)) == 20
        assert store.disk.bytes_read == TAIL
