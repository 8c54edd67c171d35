"""What only the memory engine promises; the rest is in `contract`."""

import sys
from itertools import count

from orders.adapters import memory
from orders.application.store import Change, Commit, Delivery
from orders.domain.order import Order


def interrupted_at(line, work):
    """Do the work, interrupted at the n-th line that it runs of the engine; return whether."""
    lines = count(1)

    def trace(frame, event, _):
        if frame.f_code.co_filename != memory.__file__:
            return None
        if event == "line" and next(lines) == line:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_commit_that_is_interrupted_anywhere_is_stored_or_not():
    for line in count(1):
        store = memory.MemoryStore()
        first, order = Order.place(["lamp"]), Order.place(["tv"], key="key")
        for placed in (first, order):
            events = tuple(event.caused_by(None) for event in placed.pending)
            deliveries = (Delivery(events[0].id, "sales"),)
            commit = Commit(events, (Change(placed.state, 0, placed.key),), deliveries)
            if placed is first:
                store.commit(commit)
        if not interrupted_at(line, lambda: store.commit(commit)):  # noqa: B023 - in this turn
            break
        if not store.holds(commit):
            assert (store.count(), len(list(store.read()))) == (1, 1)
            store.commit(commit)  # and nothing stands in its way
        assert store.orders() == [order.state, first.state]
        assert store.ids(keys=["key"]) == {"key": order.id}
        assert [p.delivery for p in store.pending()][1:] == list(deliveries)
        assert [record.number for record in store.read()] == [1, 2]
    assert line > 20


def test_it_says_that_it_is_in_memory():
    store = memory.MemoryStore()
    assert store.location == ":memory:"
    assert [finding.is_well for finding in store.check()] == [True]
    assert not store.checkpoint()
