"""What a unit of work has collected, until it is stored or undone.

A unit belongs to the outermost `with` block; each block inside it is a savepoint, to which the
unit goes back when that block fails. Events of orders are not copied while blocks are open:
each change of an order has a serial number, and so has the beginning and the end of each
block, which tells in the end what caused the change.
"""

import os
from operator import itemgetter
from weakref import ReferenceType, ref

import msgspec

from ..domain.events import OrderCreated, OrderEvent
from ..domain.order import Order, OrderState, check_created, evolve, next_serial
from ..errors import ForbiddenMove, WrongPayload
from ..messaging.message import Event, Message
from .store import START, Change, Commit, Cursor, Delivery


class Block(msgspec.Struct, frozen=True):
    """A `with` block: what opened it and why, and what the unit had collected by then."""

    opened_by: ReferenceType[object]
    serial: int  # see `next_serial`
    cause: Message | None
    orders: int  # how many there were, and so on
    emitted: int
    changes: dict[str, Change]
    outcomes: int


class Unit:
    """One unit of work.

    Attributes:
        orders: the orders under the unit, by id.
        keys: the ids of new orders, by idempotency key.
        unused: idempotency keys that no stored order has.
        blocks: those that are open, the innermost last; none once the unit is over.
        process: the id of the process that began it.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.orders: dict[str, Order] = {}
        self.keys: dict[str, str] = {}
        self.unused: set[str] = set()
        self.blocks: list[Block] = []
        self._causes: list[tuple[int, Message | None]] = []  # each from its serial on
        self._emitted: dict[str, tuple[int, Message]] = {}  # by message id
        self._changes: dict[str, Change] = {}  # by events that were emitted by hand
        self._outcomes: list[Delivery] = []
        self._reactions: tuple[Delivery, ...] = ()
        self._seen: Cursor = START

    def begin(self, opened_by: object, cause: Message | None) -> None:
        """Open a block."""
        serial = next_serial()
        sizes = len(self.orders), len(self._emitted), self._changes, len(self._outcomes)
        self.blocks.append(Block(ref(opened_by), serial, cause, *sizes))
        self._causes.append((serial, cause))

    def end(self) -> None:
        """Close the innermost block, which has succeeded."""
        self.blocks.pop()
        if self.blocks:
            self._causes.append((next_serial(), self.blocks[-1].cause))

    def undo(self) -> list[str]:
        """Close the innermost block as if nothing had happened in it; return the orders concerned.

        Events that survive a rollback stay.
        """
        savepoint = self.blocks[-1]
        changed = [id_ for id_, order in self.orders.items() if order.undo_since(savepoint.serial)]
        added = list(self.orders)[savepoint.orders :]
        for order_id in added:
            del self.orders[order_id]
        self.keys = {key: id_ for key, id_ in self.keys.items() if id_ in self.orders}
        for _, message in list(self._emitted.values())[savepoint.emitted :]:
            if not getattr(message, "survives_rollback", False):
                del self._emitted[message.id]
        self._changes = savepoint.changes
        del self._outcomes[savepoint.outcomes :]
        self._reactions = ()
        self.end()
        return list(dict.fromkeys([*changed, *added]))

    def add(self, order: Order) -> bool:
        """Take an order in; return whether it is new here.

        Raises:
            WrongPayload: another copy of the order, or an event of its own, is in the unit.
        """
        order_id = order.id
        known = self.orders.get(order_id)
        if known is order:
            return False
        if known is not None or order_id in self._changes:
            raise WrongPayload(f"order {order_id} is in this unit already", "change that one")
        self.orders[order_id] = order
        if order.key is not None:
            self.keys[order.key] = order_id
        return True

    def emit(self, message: Message) -> None:
        """Take a message in, once."""
        self._emitted.setdefault(message.id, (next_serial(), message))

    def emit_change(self, event: OrderEvent, stored: OrderState | None) -> None:
        """Take in an event that changes an order and was not recorded by it.

        Raises:
            WrongPayload: it cannot follow, or the order itself is in the unit.
            InvalidOrder: it places an order that breaks a rule.
        """
        if event.id in self._emitted:
            return
        if event.order_id in self.orders:
            raise WrongPayload(f"order {event.order_id} is in this unit: change it, do not emit")
        known = self._changes.get(event.order_id)
        before = known.state if known else stored
        expected = known.expected if known else stored.version if stored else 0
        key = known.key if known else None
        if isinstance(event, OrderCreated):
            check_created(event)
            key = event.key
        try:
            change = Change(evolve(before, event), expected, key)
        except ForbiddenMove as error:
            raise WrongPayload(f"{type(event).__name__} cannot be emitted: {error}") from error
        self._changes = {**self._changes, event.order_id: change}
        self.emit(event)

    def settle(self, outcome: Delivery, seen: Cursor | None) -> None:
        """Have what came of a delivery stored; see `Commit` for reactions, which have `seen`."""
        if seen is None:
            self._outcomes.append(outcome)
        else:
            self._reactions, self._seen = (outcome,), seen

    def messages(self) -> list[Message]:
        """Return commands and events in the order in which they happened, causes filled in.

        Raises:
            EndlessLoop: they cause each other in a circle.
        """
        happened = [*self._emitted.values()]
        for order in self.orders.values():
            happened += order.recorded
        happened.sort(key=_serial)
        (_, cause), *later = self._causes  # what orders have recorded has no cause yet
        later.reverse()
        messages = []
        for serial, message in happened:
            while later and later[-1][0] <= serial:
                _, cause = later.pop()
            messages.append(message if message.correlation_id else message.caused_by(cause))
        return messages

    def commit(
        self, messages: list[Message], pending: list[Delivery], *, is_deferred: bool
    ) -> Commit:
        """Return what is to be stored; the pending deliveries are left to others if deferred."""
        changed = [
            Change(order.state, order.stored_version, order.key)
            for order in self.orders.values()
            if order.is_changed
        ]
        stored = [message for message in messages if message.stored]
        return Commit(
            tuple(stored),
            (*changed, *self._changes.values()),
            tuple(pending),
            tuple(self._outcomes),
            self._reactions,
            self._seen,
            is_durable=any([isinstance(message, Event) for message in stored]),  # noqa: C419 - hot
            is_deferred=is_deferred,
        )


_serial = itemgetter(0)
