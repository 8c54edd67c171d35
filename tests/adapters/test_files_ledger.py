"""The ledger and the accounts: deliveries as the fold of the log's lines."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.adapters.files.ledger import Accounts, Ledger
from orders.adapters.files.line import BEGINNING, FORMAT, Line, Outstanding, Position
from orders.application.store import Delivery

TIME = datetime(2026, 11, 21, tzinfo=UTC)

deliveries = st.builds(
    Delivery,
    event=st.sampled_from("abcd"),
    subscriber=st.sampled_from(["sales", "stock"]),
    status=st.sampled_from(["pending", "done", "failed", "dead"]),
    attempts=st.integers(0, 9),
)
logs = st.lists(st.tuples(st.lists(deliveries, max_size=4), st.sampled_from([None, "x", "y"])))


def positions():
    """Where lines of ten bytes stand."""
    return (Position(10 * number, number) for number in count())


def fold(log, ledger=None):
    ledger = ledger or Ledger()
    for (line, owner), position in zip(log, positions(), strict=False):
        ledger.apply(line, owner, position)
    return ledger


def test_an_empty_ledger_has_nothing_pending_and_all_is_settled():
    ledger = Ledger()
    assert ledger.outstanding() == ()
    assert len(ledger) == 0
    assert ledger.find(("a", "sales")) is None
    assert ledger.settled_before(70) == 70


@pytest.mark.parametrize("status", ["done", "failed", "dead"])
def test_a_delivery_is_pending_until_it_has_an_outcome(status):
    ledger, pending = Ledger(), Delivery("a", "sales")
    ledger.apply([pending], "x", BEGINNING)
    assert ledger.find(pending.key) == Outstanding(pending, "x", *BEGINNING)
    assert ledger.settled_before(70) == 0
    ledger.apply([Delivery("a", "sales", status)], None, Position(10, 1))
    assert ledger.find(pending.key) is None
    assert ledger.settled_before(70) == 70


def test_a_delivery_that_is_taken_over_has_the_last_owner_and_comes_last():
    first, second, again = Delivery("a", "s"), Delivery("b", "s"), Delivery("a", "s", attempts=1)
    ledger = fold([([first, second], "x"), ([again], "y")])
    assert ledger.outstanding() == (
        Outstanding(second, "x", *BEGINNING),
        Outstanding(again, "y", 10, 1),
    )


def test_an_outcome_of_what_was_never_pending_harms_nobody():
    assert fold([([Delivery("a", "s", "done")], None)]).outstanding() == ()


@given(logs)
def test_what_is_pending_is_what_was_heard_of_last_as_pending(log):
    last = {}
    for (line, owner), position in zip(log, positions(), strict=False):
        for delivery in line:
            last.pop(delivery.key, None)
            last[delivery.key] = Outstanding(delivery, owner, *position)
    expected = tuple(one for one in last.values() if one.delivery.status == "pending")
    ledger = fold(log)
    assert ledger.outstanding() == expected
    assert len(ledger) == len(expected)
    assert tuple(ledger.find(one.delivery.key) for one in expected) == expected
    end = 10 * len(log)
    assert ledger.settled_before(end) == min([end, *(one.offset for one in expected)])


@given(logs, st.data())
def test_who_begins_at_the_settled_position_knows_what_everybody_else_does(log, data):
    seen = data.draw(st.integers(0, len(log)))
    first = fold(log[:seen]).settled_before(10 * seen) // 10
    late = Ledger()
    for number in range(first, len(log)):
        late.apply(*log[number], Position(10 * number, number))
    assert late.outstanding() == fold(log).outstanding()


@given(logs, st.data())
def test_who_begins_with_a_list_of_what_was_pending_knows_what_everybody_else_does(log, data):
    listed = data.draw(st.integers(0, len(log)))
    late = Ledger(fold(log[:listed]).outstanding())
    for number in range(listed, len(log)):
        late.apply(*log[number], Position(10 * number, number))
    assert late.outstanding() == fold(log).outstanding()


@given(logs)
def test_accounts_have_every_delivery_as_it_was_heard_of_last_and_since_when(log):
    accounts, first, last = Accounts(), {}, {}
    for number, ((line, owner), position) in enumerate(zip(log, positions(), strict=False)):
        time = TIME + timedelta(seconds=number)
        accounts.apply(Line(FORMAT, number + 1, time, (), tuple(line), owner), position)
        for delivery in line:
            first.setdefault(delivery.key, (time, position))
            last[delivery.key] = (delivery, owner, time)
    assert [*accounts.by_key] == [*first]
    for key, entered in accounts.by_key.items():
        assert (entered.delivery, entered.owner, entered.changed) == last[key]
        assert (entered.since, entered.first) == first[key]
    pending = {key for key, one in accounts.by_key.items() if one.delivery.status == "pending"}
    assert pending == {one.delivery.key for one in fold(log).outstanding()}
