"""An order's rules, and that it is the fold of its events."""

from contextlib import suppress
from datetime import UTC, datetime
from functools import reduce
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders import Order, OrderCancelled, OrderCreated, OrderShipped, PlaceOrder
from orders.domain.events import OrderEvent
from orders.domain.order import apply, evolve, is_change, next_serial, require, statuses
from orders.errors import ForbiddenMove, InvalidOrder, WrongPayload

REFUSED_CHARACTERS = {
    "NUL": "\x00",
    "newline": "\n",
    "carriage return": "\r",
    "tab": "\t",
    "ESC": "\x1b",
    "DEL": "\x7f",
    "C1 control": "\x9b",
    "line separator": "\u2028",
    "bidi override": "\u202e",
    "bidi isolate": "\u2067",
    "lone surrogate": "\ud800",
}

HARMLESS = [
    "100 inch TV",
    "👨‍👩‍👧‍👦 family ticket",
    "שטיח קסמים",
    "سجادة سحرية",
    "魔法の絨毯",
    "cafe\u0301",
    "[/]",
    "[red]x[/red]",
    "-",
    "--help",
    "'; DROP TABLE orders; --",
    '{"items": []}',
    "\\x1b[31m",
]


def an_order(**fields):
    return Order.place(["100 inch TV", "magic carpet"], **fields)


def test_an_order_holds_what_was_ordered():
    order = an_order(customer="Aladdin", key="k1")
    assert order.items == ("100 inch TV", "magic carpet")
    assert (order.customer, order.key) == ("Aladdin", "k1")
    assert (order.status, order.version) == ("placed", 1)
    assert order.placed_at.tzinfo is UTC


def test_an_order_needs_no_customer_and_no_key():
    order = an_order()
    assert (order.customer, order.key) == (None, None)


def test_every_order_has_an_id_of_its_own():
    assert an_order().id != an_order().id


@pytest.mark.parametrize("field", ["id", "items", "customer", "status", "version", "state"])
def test_an_order_changes_by_its_moves_only(field):
    with pytest.raises(AttributeError):
        setattr(an_order(), field, "another")


def test_an_order_takes_no_new_attributes():
    with pytest.raises(AttributeError):
        an_order().note = "fragile"


def test_what_the_caller_does_to_his_list_later_changes_nothing():
    mine = ["100 inch TV"]
    order = Order.place(mine)
    mine.append("magic carpet")
    assert order.items == order.pending[0].items == ("100 inch TV",)


def test_the_items_may_come_from_an_iterator():
    assert Order.place(item for item in ["100 inch TV"]).items == ("100 inch TV",)


def test_texts_are_trimmed():
    order = Order.place(["  100 inch TV\n"], customer="\tAladdin ", key=" k1 ")
    assert (order.items, order.customer, order.key) == (("100 inch TV",), "Aladdin", "k1")


def test_the_same_item_may_be_ordered_twice():
    assert Order.place(["carpet", "carpet"]).items == ("carpet", "carpet")


@pytest.mark.parametrize("count", [1, 1000])
def test_an_order_has_1_to_1000_items(count):
    assert len(Order.place(["carpet"] * count).items) == count


@pytest.mark.parametrize(("count", "reason"), [(0, "at least one"), (1001, "at most 1,000")])
def test_no_items_and_more_than_1000_are_refused(count, reason):
    with pytest.raises(InvalidOrder, match=reason):
        Order.place(["carpet"] * count)


def test_items_without_end_are_refused():
    with pytest.raises(InvalidOrder, match="at most 1,000"):
        Order.place(iter(lambda: "carpet", None))


@pytest.mark.parametrize("length", [1, 500])
def test_a_text_has_1_to_500_characters_after_trimming(length):
    order = Order.place([f"  {'x' * length}  "], customer="y" * length, key="z" * length)
    assert len(order.items[0]) == len(order.customer) == len(order.key) == length


@pytest.mark.parametrize("text", ["x" * 501, f" {'x' * 501} ", "x" * 10_000_000])
def test_a_longer_text_is_refused(text):
    for fields in ({"items": [text]}, {"items": ["a"], "customer": text}):
        with pytest.raises(InvalidOrder, match="500 are allowed"):
            Order.place(**fields)


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000"])
def test_a_blank_text_is_refused(blank):
    for fields in (
        {"items": [blank]},
        {"items": ["a"], "customer": blank},
        {"items": ["a"], "key": blank},
    ):
        with pytest.raises(InvalidOrder, match="blank"):
            Order.place(**fields)


@pytest.mark.parametrize("character", REFUSED_CHARACTERS.values(), ids=REFUSED_CHARACTERS)
def test_a_character_that_is_no_text_is_refused_and_named(character):
    text = f"magic{character}carpet"
    for fields in (
        {"items": [text]},
        {"items": ["a"], "customer": text},
        {"items": ["a"], "key": text},
    ):
        with pytest.raises(InvalidOrder, match=rf"U\+{ord(character):04X}") as refusal:
            Order.place(**fields)
        assert character not in str(refusal.value)


@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_in_any_language_is_kept_as_it_is(text):
    order = Order.place([text], customer=text, key=text)
    assert order.items == (order.customer,) == (order.key,) == (text,)


def test_one_text_is_no_list_of_items():
    with pytest.raises(InvalidOrder, match="items must be a list of texts"):
        Order.place("100 inch TV")


@pytest.mark.parametrize("item", [None, 5, b"carpet", ["carpet"], object()])
def test_an_item_that_is_no_text_is_refused_with_its_number(item):
    with pytest.raises(InvalidOrder, match=f"item 2 must be text, not {type(item).__name__}"):
        Order.place(["carpet", item])


@pytest.mark.parametrize("items", [None, 5])
def test_items_that_are_no_list_are_refused(items):
    with pytest.raises(InvalidOrder, match="items must be a list of texts"):
        Order.place(items)


@pytest.mark.parametrize("field", ["customer", "key"])
def test_a_customer_or_a_key_that_is_no_text_is_refused(field):
    with pytest.raises(InvalidOrder, match=f"{field} must be text, not int"):
        an_order(**{field: 5})


def test_a_placed_order_ships():
    order = an_order()
    order.ship()
    assert (order.status, order.version) == ("shipped", 2)


def test_a_placed_order_is_cancelled_for_a_reason_or_none():
    first, second = an_order(), an_order()
    first.cancel(" moth holes ")
    second.cancel()
    assert first.status == second.status == "cancelled"
    assert [first.pending[-1].reason, second.pending[-1].reason] == ["moth holes", None]


@pytest.mark.parametrize("reason", ["", "x" * 501, "\x1b", 5])
def test_a_bad_reason_is_refused_and_changes_nothing(reason):
    order = an_order()
    with pytest.raises(InvalidOrder, match="reason"):
        order.cancel(reason)
    assert (order.status, order.version, len(order.pending)) == ("placed", 1, 1)


MOVES = {"ship": "shipped", "cancel": "cancelled"}


@pytest.mark.parametrize(("first", "status"), MOVES.items())
@pytest.mark.parametrize(("move", "wanted"), MOVES.items())
def test_a_forbidden_move_names_the_status_and_changes_nothing(first, status, move, wanted):
    order = an_order()
    getattr(order, first)()
    before = order.state
    with pytest.raises(ForbiddenMove) as refusal:
        getattr(order, move)()
    assert str(refusal.value) == f"order {order.id} cannot be {wanted}: it is {status}, not placed"
    assert (refusal.value.order_id, refusal.value.status) == (order.id, status)
    assert order.state is before
    assert len(order.pending) == 2


def test_pending_are_the_events_not_stored_yet_oldest_first():
    order = an_order(customer="Aladdin", key="k1")
    order.ship()
    created, shipped = order.pending
    assert isinstance(created, OrderCreated)
    assert (created.order_id, created.items) == (order.id, order.items)
    assert (created.customer, created.key, created.time) == ("Aladdin", "k1", order.placed_at)
    assert isinstance(shipped, OrderShipped)
    assert shipped.order_id == order.id


def test_nothing_is_pending_once_stored():
    order = an_order()
    order.mark_stored()
    assert order.pending == ()
    assert (order.stored_version, order.version) == (1, 1)


def test_the_stored_version_is_the_one_that_the_changes_build_on():
    order = an_order()
    assert order.stored_version == 0
    order.mark_stored()
    order.ship()
    assert (order.stored_version, order.version) == (1, 2)


def test_changes_since_a_serial_number_are_undone():
    order = an_order()
    order.mark_stored()
    before = order.state
    since = next_serial()
    order.cancel()
    order.undo_since(since)
    assert order.state is before
    assert order.pending == ()


def test_changes_before_it_stay():
    order = an_order()
    order.ship()
    order.undo_since(next_serial())
    assert (order.status, len(order.pending)) == ("shipped", 2)


def test_an_order_can_move_again_after_an_undo():
    order = an_order()
    since = next_serial()
    order.ship()
    order.undo_since(since)
    order.cancel()
    assert [type(event) for event in order.pending] == [OrderCreated, OrderCancelled]
    assert (order.status, order.version) == ("cancelled", 2)


def test_the_placing_itself_is_never_undone():
    since = next_serial()
    order = an_order()
    order.ship()
    order.undo_since(since)
    assert (order.status, len(order.pending)) == ("placed", 1)


def test_the_undo_says_whether_it_has_taken_back_anything():
    order = an_order()
    since = next_serial()
    assert not order.undo_since(since)
    order.ship()
    assert order.undo_since(since)


def test_an_event_that_cannot_follow_is_an_error():
    order = an_order()
    with pytest.raises(ForbiddenMove, match="cannot be placed: it is placed, not new"):
        evolve(order.state, order.pending[0])
    with pytest.raises(ForbiddenMove, match="cannot be shipped: it is unknown"):
        evolve(None, OrderShipped(order_id=order.id))


def test_an_event_of_another_order_cannot_happen_to_this_one():
    order = an_order()
    with pytest.raises(InvalidOrder, match=f"OrderShipped is no event of order {order.id}"):
        order.record(OrderShipped(order_id="1"))
    assert (order.status, len(order.pending)) == ("placed", 1)


def test_what_is_no_event_of_an_order_cannot_happen_to_it():
    order = an_order()
    with pytest.raises(InvalidOrder, match="PlaceOrder is no event of order"):
        order.record(PlaceOrder(items=("rope",)))
    assert len(order.pending) == 1


class OrderWrapped(OrderEvent, frozen=True, kw_only=True):
    """A plugin's change: a status of its own, and a rule."""

    topic: ClassVar[str] = "order-wrapped"
    status: ClassVar[str] = "wrapped"


class OrderWeighed(OrderEvent, frozen=True, kw_only=True):
    """A plugin's change that leaves the status."""

    topic: ClassVar[str] = "order-weighed"


class OrderPraised(OrderEvent, frozen=True, kw_only=True):
    """About an order, but no change of it."""

    topic: ClassVar[str] = "order-praised"


@apply.register(OrderWrapped)
@apply.register(OrderWeighed)
def _(event, order):
    return require(order, event, "placed")


def test_a_change_registered_beside_its_class_happens_by_its_rule():
    order = an_order()
    order.record(OrderWeighed(order_id=order.id))
    assert (order.status, order.version) == ("placed", 2)
    order.record(OrderWrapped(order_id=order.id))
    assert (order.status, order.version) == ("wrapped", 3)
    with pytest.raises(ForbiddenMove, match="cannot be order-weighed: it is wrapped"):
        order.record(OrderWeighed(order_id=order.id))
    with pytest.raises(ForbiddenMove, match="cannot be shipped: it is wrapped"):
        order.ship()
    assert order.state == reduce(evolve, order.pending, None)


def test_an_event_without_a_rule_is_about_an_order_and_no_change_of_it():
    assert [is_change(kind) for kind in (OrderWrapped, OrderShipped, OrderCreated)] == [True] * 3
    assert not is_change(OrderPraised)
    assert not is_change(PlaceOrder)
    order = an_order()
    with pytest.raises(WrongPayload, match="OrderPraised changes no order\ntry: register how"):
        order.record(OrderPraised(order_id=order.id))
    assert (order.version, len(order.pending)) == (1, 1)


def test_the_statuses_are_those_of_all_events_in_the_order_of_definition():
    known = ["placed", "shipped", "cancelled", "wrapped"]
    assert [status for status in statuses() if status in known] == known


def test_the_order_was_placed_when_its_event_says():
    time = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    created = OrderCreated(order_id="1", items=("carpet",), time=time)
    assert evolve(None, created).placed_at == time


@given(st.lists(st.sampled_from(["ship", "cancel"]), max_size=6), st.booleans())
def test_any_attempts_leave_the_fold_of_the_events(moves, undone):
    order = an_order()
    since = next_serial()
    for move in moves:
        with suppress(ForbiddenMove):
            getattr(order, move)()
    if undone:
        order.undo_since(since)
    assert order.state == reduce(evolve, order.pending, None)
    assert order.version == len(order.pending)
    assert order.stored_version == 0
