"""The order and its rules. Nothing here knows of files, topics or terminals.

An order is the fold of its events: every change is an event, and `apply` says, for each class
of event, when it may happen and what it makes of the order. `Order` lets events happen and
keeps them until a unit of work has stored them; until then they can be undone.

A plugin adds a change beside the class of its event, and `Order.record` lets it happen:

    @apply.register
    def _(event: OrderRefunded, order: OrderState | None) -> OrderState:
        return require(order, event, "shipped")
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import singledispatch
from itertools import count
from typing import Self

import msgspec

from ..errors import ForbiddenMove, InvalidOrder, WrongPayload
from ..messaging.message import Message, new_id
from .events import OrderCancelled, OrderCreated, OrderEvent, OrderShipped
from .text import unsafe_character

MAX_ITEMS = 1000
MAX_TEXT = 500  # characters of an item, a customer or a key, after trimming

next_serial = count().__next__
"""Return a number greater than that of every change made before; see `Order.undo_since`."""


class OrderState(msgspec.Struct, frozen=True, gc=False):
    """An order as everybody sees it; its JSON is the order's JSON."""

    id: str
    items: tuple[str, ...]
    customer: str | None
    status: str
    placed_at: datetime  # UTC
    version: int  # how many events made it


@singledispatch
def apply(event: OrderEvent, order: OrderState | None) -> OrderState:  # noqa: ARG001 - for those registered
    """Return what `event` makes of `order`; status and version are seen to by `evolve`.

    Raises:
        ForbiddenMove: the event cannot happen to the order as it is.
        WrongPayload: nobody has registered what such an event changes.
    """
    raise WrongPayload(
        f"{type(event).__name__} changes no order", "register how with apply.register"
    )


@apply.register
def _(event: OrderCreated, order: OrderState | None) -> OrderState:
    if order is not None:
        raise ForbiddenMove(event.order_id, order.status, event.status, "new")
    return OrderState(event.order_id, event.items, event.customer, event.status, event.time, 0)


@apply.register(OrderShipped)
@apply.register(OrderCancelled)
def _(event: OrderEvent, order: OrderState | None) -> OrderState:
    return require(order, event, "placed")


_no_rule = apply.dispatch(object)
_rules: dict[type[Message], Callable[..., OrderState]] = {}  # that were found before


def require(order: OrderState | None, event: OrderEvent, status: str) -> OrderState:
    """Return the order, which has this status.

    Raises:
        ForbiddenMove: it has another one, or there is no such order.
    """
    if order is None or order.status != status:
        actual = "unknown" if order is None else order.status
        raise ForbiddenMove(event.order_id, actual, event.status or event.topic or "", status)
    return order


def is_change(event: type[Message]) -> bool:
    """Return whether messages of this class change an order."""
    return event in _rules or (issubclass(event, OrderEvent) and _rule(event) is not _no_rule)


def _rule(event: type[OrderEvent]) -> Callable[..., OrderState]:
    """Return what `apply` calls for events of this class; quicker than `apply` finds it."""
    rule = _rules.get(event) or apply.dispatch(event)
    if rule is not _no_rule:
        _rules[event] = rule
    return rule


def evolve(order: OrderState | None, event: OrderEvent) -> OrderState:
    """Return the order that `event` makes of `order`; only OrderCreated starts from None.

    Raises:
        ForbiddenMove: the event cannot follow.
    """
    changed = _rule(type(event))(event, order)
    version = 1 if order is None else order.version + 1
    return msgspec.structs.replace(changed, status=event.status or changed.status, version=version)


def statuses() -> list[str]:
    """Return the statuses that an order can have, in the order in which they were defined."""
    kinds: list[type[OrderEvent]] = [OrderEvent]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return list(dict.fromkeys(kind.status for kind in kinds if kind.status))


class Order:
    """One order: placed, then shipped or cancelled. Its id never changes."""

    __slots__ = ("_changes", "_key", "_state")

    def __init__(self, state: OrderState) -> None:
        self._state = state
        self._key: str | None = None
        # Each with the `next_serial` of its making, and the state before it.
        self._changes: list[tuple[int, OrderEvent, OrderState | None]] = []

    @classmethod
    def place(
        cls, items: Iterable[str], customer: str | None = None, key: str | None = None
    ) -> Self:
        """Place a new order of 1 to 1,000 items, each of 1 to 500 characters once trimmed.

        Raises:
            InvalidOrder: an item, the customer or the key breaks these rules.
        """
        event = OrderCreated(
            order_id=new_id(),
            items=valid_items(items),
            customer=None if customer is None else valid_text("customer", customer),
            key=None if key is None else valid_text("key", key),
        )
        order = cls(evolve(None, event))
        order._key = event.key
        order._changes.append((next_serial(), event, None))
        return order

    def ship(self) -> None:
        """Ship the order.

        Raises:
            ForbiddenMove: it is shipped or cancelled already.
        """
        self.record(OrderShipped(order_id=self.id))

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the order.

        Raises:
            ForbiddenMove: it is shipped or cancelled already.
            InvalidOrder: the reason is no text of 1 to 500 characters.
        """
        reason = None if reason is None else valid_text("reason", reason)
        self.record(OrderCancelled(order_id=self.id, reason=reason))

    def record(self, event: OrderEvent) -> None:
        """Let an event happen to the order.

        Raises:
            ForbiddenMove: it cannot happen to the order as it is.
            InvalidOrder: it is no event of this order.
            WrongPayload: nobody has registered what such an event changes.
        """
        if not isinstance(event, OrderEvent) or event.order_id != self.id:
            raise InvalidOrder(f"{type(event).__name__} is no event of order {self.id}")
        before, self._state = self._state, evolve(self._state, event)
        self._changes.append((next_serial(), event, before))

    @property
    def state(self) -> OrderState:
        """The order as an immutable value."""
        return self._state

    @property
    def id(self) -> str:
        """The order's UUID."""
        return self._state.id

    @property
    def items(self) -> tuple[str, ...]:
        """What was ordered."""
        return self._state.items

    @property
    def customer(self) -> str | None:
        """Who ordered, if that was said."""
        return self._state.customer

    @property
    def status(self) -> str:
        """Where the order stands."""
        return self._state.status

    @property
    def placed_at(self) -> datetime:
        """When it was placed, in UTC."""
        return self._state.placed_at

    @property
    def version(self) -> int:
        """How many events made it what it is."""
        return self._state.version

    @property
    def key(self) -> str | None:
        """The idempotency key it was placed with; None for an order read from the store."""
        return self._key

    @property
    def is_changed(self) -> bool:
        """Whether events of it are pending."""
        return bool(self._changes)

    @property
    def pending(self) -> tuple[OrderEvent, ...]:
        """The events that no unit of work has stored yet, oldest first."""
        return tuple(event for _, event, _ in self._changes)

    @property
    def recorded(self) -> list[tuple[int, OrderEvent]]:
        """The pending events, each with the serial number of its change."""
        return [(serial, event) for serial, event, _ in self._changes]

    @property
    def stored_version(self) -> int:
        """The version that the changes in memory build on; 0 for an order never stored."""
        return self.version - len(self._changes)

    def mark_stored(self) -> None:
        """Forget the pending events: they are in the log now."""
        self._changes.clear()

    def undo_since(self, serial: int) -> bool:
        """Take back every change made after `next_serial` returned `serial`, except the placing.

        Returns whether there was one.
        """
        has_changed = False
        while self._changes and self._changes[-1][0] > serial:
            has_changed = True
            before = self._changes[-1][2]
            if before is None:
                break
            self._state = before
            self._changes.pop()
        return has_changed

    def __repr__(self) -> str:
        return f"Order({self._state})"


def check_created(event: OrderCreated) -> None:
    """Hold an event that no order has raised to the rules of `Order.place`.

    Raises:
        InvalidOrder: it breaks one of them.
    """
    valid_text("order id", event.order_id)
    if event.items != valid_items(event.items):
        raise InvalidOrder("the items of an OrderCreated must be trimmed")
    for what, text in (("customer", event.customer), ("key", event.key)):
        if text is not None and text != valid_text(what, text):
            raise InvalidOrder(f"the {what} of an OrderCreated must be trimmed")


def valid_items(items: Iterable[str]) -> tuple[str, ...]:
    """Return the items trimmed, as a tuple.

    Raises:
        InvalidOrder: there are none or more than 1,000, or one is no valid text.
    """
    if isinstance(items, str):
        raise InvalidOrder("items must be a list of texts, not one text")
    if not isinstance(items, Iterable):
        raise InvalidOrder(f"items must be a list of texts, not {type(items).__name__}")
    trimmed = []
    for number, item in enumerate(items, start=1):
        if number > MAX_ITEMS:
            raise InvalidOrder(f"an order has at most {MAX_ITEMS:,} items", "split it")
        trimmed.append(valid_text(f"item {number}", item))
    if not trimmed:
        raise InvalidOrder("an order needs at least one item", "name what is ordered")
    return tuple(trimmed)


def valid_text(what: str, text: str) -> str:
    """Return `text` trimmed.

    Raises:
        InvalidOrder: it is not a str of 1 to 500 characters, or has one that is no text.
    """
    if not isinstance(text, str):
        raise InvalidOrder(f"{what} must be text, not {type(text).__name__}")
    trimmed = text.strip()
    if not trimmed:
        raise InvalidOrder(f"{what} is blank", "give it a name")
    if len(trimmed) > MAX_TEXT:
        raise InvalidOrder(
            f"{what} has {len(trimmed):,} characters; {MAX_TEXT} are allowed", "shorten it"
        )
    if bad := unsafe_character(trimmed):
        raise InvalidOrder(f"{what} contains the control character {bad}", "remove it")
    return trimmed
