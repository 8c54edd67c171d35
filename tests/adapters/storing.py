"""What the tests of stores share: engines to open, commits to store, what a store holds."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from msgspec.structs import astuple, replace

from orders.adapters.memory import MemoryStore
from orders.application.store import Change, Commit, Delivery, Match
from orders.domain.order import Order

ENGINES = ("memory", "files", "postgres")


def opener(engine, directory, new_schema):
    """Return what opens one store of this engine again and again."""
    if engine == "memory":
        store = MemoryStore()
        return lambda: store
    if engine == "postgres":
        from orders.adapters.postgres.store import PostgresStore

        url = new_schema()
        return lambda: PostgresStore(url)
    from orders.adapters.files.store import FilesStore

    return lambda: FilesStore(directory / "store")


def commit_of(*orders, messages=(), **rest):
    """Return a commit of what these orders have pending, and of other messages."""
    raised = [event for order in orders for event in order.pending]
    changes = [Change(order.state, order.stored_version, order.key) for order in orders]
    stamped = [message.caused_by(None) for message in [*raised, *messages]]
    return Commit(tuple(stamped), tuple(changes), **rest)


def place(store, *items, customer=None, key=None, subscribers=()):
    """Store a new order whose event calls for deliveries."""
    order = Order.place(items or ("magic carpet",), customer, key)
    (created,) = order.pending
    store.commit(commit_of(order, pending=tuple(Delivery(created.id, s) for s in subscribers)))
    order.mark_stored()
    return order


def notified(store, subscriber="sales"):
    """Store a new order, and return the pending delivery of its event."""
    place(store, subscribers=[subscriber])
    *_, pending = store.pending()
    return pending.delivery


def outcome(delivery, status="done"):
    return replace(delivery, status=status, attempts=delivery.attempts + 1, seconds=0.25)


def again(delivery):
    return replace(delivery, status="pending", attempts=delivery.attempts + 1)


def moved(store, order_id, move="ship"):
    """Return a stored order, shipped or cancelled in memory only."""
    order = Order(store.order(order_id))
    getattr(order, move)()
    return order


def numbers(store, **wanted):
    return [record.number for record in store.read(match=Match(**wanted))]


def contents(store):
    """Return all that can be seen of a store."""
    return (
        [astuple(record)[1:] for record in store.read()],
        store.orders(),
        list(store.pending()),
        list(store.deliveries()),
        store.keys([order.id for order in store.orders()]),
    )


def at_once(count, work):
    """Run `work(0)`, `work(1)`, ... in as many threads at the same moment; return the results."""
    barrier = Barrier(count)

    def run(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
