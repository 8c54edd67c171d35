"""Whatever is done to them, all engines have the same."""

from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from storing import ENGINES, again, commit_of, contents, opener, outcome

from orders.application.store import Change, Commit, Delivery
from orders.domain.events import OrderRejected
from orders.domain.order import Order
from orders.errors import OrdersError

# All engines alike

STEPS = st.lists(  # what to do, with which order or delivery, and how
    st.tuples(
        st.sampled_from(["place", "move", "stale", "settle", "react", "release", "claim"]),
        st.integers(0, 7),
        st.integers(0, 3),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, database=None)
@given(steps=STEPS)
def test_the_same_steps_make_the_same_store_of_every_engine(new_schema, steps):
    with TemporaryDirectory() as directory, ExitStack() as stack:
        stores = [
            stack.enter_context(closing(opener(engine, Path(directory), new_schema)()))
            for engine in ENGINES
        ]
        for step in steps:
            act = action(stores[0], *step)
            first, *others = [outcome_of(act, store) for store in stores]
            assert others == [first] * len(others), step
        first, *others = [untimed(store) for store in stores]
        assert others == [first] * len(others)


def action(model, kind, which, how):
    """Return what a step does, to be done to each engine; `model` says what there is."""
    orders, accounts = model.orders()[::-1], list(model.deliveries())
    order = Order(orders[which % len(orders)]) if orders else Order.place(["tv"])
    known = accounts[which % len(accounts)].delivery if accounts else Delivery("event", "sales")
    if kind == "place":
        order = Order.place(["lamp"] * (which + 1), key=[None, "a", "b", order.id][how])
        pending = (Delivery(order.pending[0].id, s) for s in ("sales", "stock")[: which % 3])
        commit = commit_of(order, pending=tuple(pending), is_deferred=which > 5)
    elif kind == "move":
        with suppress(OrdersError):
            order.ship() if how % 2 else order.cancel("because")
        commit = commit_of(*[order] * bool(order.pending))
    elif kind == "stale":
        rejected = OrderRejected(reason="?").caused_by(None)
        commit = Commit((rejected,), (Change(order.state, order.version + 1 + how),))
    elif kind == "settle":
        statuses = ("done", "failed", "dead", "failed")
        commit = Commit(outcomes=(outcome(known, statuses[how]),), is_durable=False)
    elif kind == "react":
        commit = Commit(reactions=(Delivery(f"event {which}", "policy", "done"),))
    elif kind == "claim" and known.status != "done":
        found = replace(known, retries=how % 2)  # as it stands, or not
        return lambda store: store.claim([(found, again(known))])
    else:
        return lambda store: store.release()
    return lambda store: store.commit(commit) and None  # each engine has cursors of its own


def outcome_of(act, store):
    """Return what came of an action: its result, or its error with all that it carries."""
    try:
        return act(store)
    except OrdersError as error:
        return type(error), vars(error)


def untimed(store):
    """Return all that can be seen of a store but its own cursors and times."""
    records, orders, pending, accounts, keys = contents(store)
    return (
        [(number, messages, deliveries) for number, _, messages, deliveries, *_ in records],
        orders,
        pending,
        [(account.delivery, account.is_abandoned, account.is_deferred) for account in accounts],
        keys,
    )
