"""The unit of work: orders and events that are stored together, or not at all.

    with app.uow() as uow:
        order = uow.orders.get(order_id)
        order.ship()
        uow.emit(...)

On the way out the outermost unit writes one line to the event log; only then does anybody
hear of its events. If the block raises, or the line cannot be written, nothing is stored and
the orders in memory are as they were before the block. Units nest: an inner one that fails
takes back its own changes and events only. One object serves all threads of an application;
each thread has its own stack of open units.
"""

from collections.abc import Callable
from contextlib import suppress
from threading import local
from types import TracebackType
from typing import Self

from .bus import STRANGE, MessageBus
from .domain import CHANGES, Order, OrderState, check_created, evolve
from .errors import Conflict, KeyTaken, OrdersError, StoreError, WrongPayload
from .event_log import EventLog
from .events import Added, Committed, OrderCreated, RolledBack, UnitEvent
from .ledger import Delivery
from .message import Command, Event
from .repository import OrderRepository
from .unit import Unit

MANY = 10  # events of one unit; the deliveries of more are recorded in one commit


class _Stack(local):
    """The open units of one thread, and the commands in the middle of which some were stored."""

    def __init__(self) -> None:
        self.top: Unit | None = None
        self.stored: set[str] = set()


class UnitOfWork:
    """Stores orders and events atomically; `with` opens a unit, `emit` and `orders` use it.

    Args:
        log: where units are stored.
        repository: where orders are looked up.
        bus: told of events, after they are stored.
        owner: names the process as the one to deliver what a unit's events owe.
        warn: told in a sentence when an event that survives rollback cannot be stored.

    Attributes:
        orders: the orders as this thread's unit sees them.
        prompts: called after a unit was stored and the bus has told everybody of its events.
    """

    def __init__(
        self,
        log: EventLog,
        repository: OrderRepository,
        bus: MessageBus,
        owner: Callable[[], str],
        warn: Callable[[str], None],
    ) -> None:
        self._log = log
        self._repository = repository
        self._bus = bus
        self._owner = owner
        self._warn = warn
        self._stack = _Stack()
        self.prompts: list[Callable[[], None]] = []
        self.orders = UnitOrders(self._unit, repository, self._announce)

    def __enter__(self) -> Self:
        cause = self._bus.handling
        self._stack.top = Unit(self._stack.top, cause)
        if isinstance(cause, Command):
            self.note_handled(cause)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        unit = self._unit()
        self._stack.top = unit.outer
        if kind is not None:
            self._roll_back(unit)
            return
        try:
            unit.gather()
            if unit.outer is not None:
                unit.join(unit.outer)
                return
            events = self._store(unit)
        except BaseException:
            self._roll_back(unit)
            raise
        for order in unit.orders.values():
            order.mark_stored()
        self._announce(Committed, unit.orders)
        self._publish(events)

    @property
    def is_open(self) -> bool:
        """Whether this thread is inside a unit."""
        return self._stack.top is not None

    def emit(self, event: Event) -> None:
        """Have `event` published once the unit is stored; outside a unit, store it at once.

        Raises:
            WrongPayload: it is no event with a topic.
        """
        if not isinstance(event, Event) or event.topic is None:
            raise WrongPayload(f"{type(event).__name__} is no event with a topic; emit events only")
        if self._stack.top is None:
            with self:
                self.emit(event)
        else:
            self._stack.top.gather()  # what the unit's orders have raised came before
            self._stack.top.note(event.caused_by(self._bus.handling))

    def settle(self, delivery: Delivery, check: Callable[[], None]) -> None:
        """Record the outcome of a delivery with this unit, unless `check` raises then."""
        unit = self._unit()
        unit.deliveries.append(delivery)
        unit.checks.append(check)

    def note_handled(self, command: Command) -> None:
        """Store a command that was handled inside this thread's unit along with it, once."""
        if self._stack.top is not None and command.id not in self._stack.stored:
            self._stack.top.note(command)

    def _unit(self) -> Unit:
        if self._stack.top is None:
            raise OrdersError("no unit of work is open: use `with uow:`")
        return self._stack.top

    def _store(self, unit: Unit) -> list[Event]:
        """Write the unit as one line of the log; return the events to publish."""
        stored = [m for m in unit.messages.values() if not isinstance(m, Event) or m.stored]
        events = [message for message in unit.messages.values() if isinstance(message, Event)]
        lasting = [event for event in events if event.stored]
        if not lasting and not unit.deliveries:
            return events
        self._repository.verify()
        owed = [
            Delivery(event.id, subscriber.name)
            for event in lasting
            for subscriber in self._bus.subscribers(type(event))
        ]
        owner = self._owner() if owed else None
        with self._log.writing():
            keys = self._check_versions(unit)
            self._check_emitted(unit, keys)
            for check in unit.checks:
                check()
            entry = self._log.append(
                stored, [*unit.deliveries, *owed], owner=owner, sync=bool(lasting)
            )
        self._repository.note(entry)
        self._stack.stored = (self._stack.stored | unit.messages.keys()) & self._bus.under_way
        return events

    def _check_versions(self, unit: Unit) -> dict[str, str]:
        """Refuse changes of an order that somebody else changed first, and keys used before."""
        for order in unit.orders.values():
            if order.stored_version and order.pending:
                actual = self._repository.version(order.id)
                if actual != order.stored_version:
                    raise Conflict(order.id, order.stored_version, actual)
        new = {order.id: order.key for order in unit.orders.values() if order.key is not None}
        keys = self._repository.with_keys(new.values()) if new else {}
        for order_id, key in new.items():  # a new order's id is random; its key is not
            self._take_key(keys, key, order_id)
        return keys

    def _take_key(self, keys: dict[str, str], key: str, order_id: str) -> None:
        first = keys.setdefault(key, order_id)
        if first != order_id:
            raise KeyTaken(key, first)

    def _check_emitted(self, unit: Unit, keys: dict[str, str]) -> None:
        """Refuse an order's event that was emitted by hand and does not follow its history."""
        own = {event.id for order in unit.orders.values() for event in order.pending}
        states: dict[str, OrderState | None] = {}
        for event in unit.messages.values():
            if not isinstance(event, CHANGES) or event.id in own:
                continue
            order_id = event.order_id
            if order_id in unit.orders:
                raise WrongPayload(f"order {order_id} is in this unit: change it, do not emit")
            state = states.get(order_id) or self._repository.find(order_id)
            if isinstance(event, OrderCreated):
                check_created(event)
                if event.key is not None:
                    keys |= self._repository.with_keys([event.key])
                    self._take_key(keys, event.key, order_id)
            try:
                states[order_id] = evolve(state, event)
            except ValueError as error:
                raise WrongPayload(f"order {order_id}: {error}") from error

    def _roll_back(self, unit: Unit) -> None:
        """Undo the unit; what it emitted to survive this goes on without it."""
        unit.undo()
        survivors = [
            message
            for message in unit.messages.values()
            if isinstance(message, Event) and message.survives_rollback
        ]
        self._announce(RolledBack, unit.orders)
        if unit.outer is not None:
            for event in survivors:
                unit.outer.note(event)
        elif survivors:
            alone = Unit(None, None)
            for event in survivors:
                alone.note(event)
            try:
                events = self._store(alone)
            except OrdersError as error:  # the error that caused the rollback matters more
                self._warn(f"{type(survivors[0]).__name__} was not recorded: {error}")
            else:
                self._publish(events)

    def _publish(self, events: list[Event]) -> None:
        """Tell the bus; what comes of many events is stored together, for the disk's sake."""
        if self._bus.is_publishing or len(events) <= MANY:
            self._bus.publish(*events)
            return
        try:
            with self:
                self._bus.publish(*events)
        except STRANGE:  # one of them spoils the commit for all: then each for itself
            with suppress(StoreError):
                owed = {pending.delivery.event for pending in self._log.pending()}
                for event in events:
                    if event.id in owed:
                        self._bus.publish(event)

    def prompt(self) -> None:
        """Tell whoever follows the log that it may have grown, unless a unit is still open."""
        if not self.is_open:
            for prompt in tuple(self.prompts):
                prompt()

    def _announce(self, kind: type[UnitEvent], orders: dict[str, Order]) -> None:
        if self._bus.subscribers(kind):
            self._bus.publish(*(kind(order_id=order_id) for order_id in orders))


class UnitOrders:
    """The orders as a unit of work sees them: what is stored, with the unit's own changes."""

    def __init__(
        self,
        unit: Callable[[], Unit],
        repository: OrderRepository,
        announce: Callable[[type[UnitEvent], dict[str, Order]], None],
    ) -> None:
        self._unit = unit
        self._repository = repository
        self._announce = announce

    def add(self, order: Order) -> None:
        """Put `order`, new or changed, under the unit: its events are stored with it."""
        unit = self._unit()
        known = unit.find(order.id)
        if known is not None and known is not order:
            raise OrdersError(f"another copy of order {order.id} is in this unit; change that one")
        if order.id not in unit.orders:
            unit.orders[order.id] = order
            if order.key is not None:
                unit.keys[order.key] = order.id
            self._announce(Added, {order.id: order})

    def get(self, order_id: str) -> Order:
        """Return the order, to be changed: its events are stored with the unit.

        Raises:
            OrderNotFound: there is none.
        """
        order = self._unit().find(order_id) or self._repository.get(order_id)
        self.add(order)
        return order

    def __contains__(self, order_id: str) -> bool:
        return self._unit().find(order_id) is not None

    def with_key(self, key: str) -> str | None:
        """Return the id of the order placed with this key, in this unit or before, or None."""
        unit: Unit | None = self._unit()
        while unit is not None:
            if (order_id := unit.keys.get(key, key)) in unit.orders:
                return order_id
            unit = unit.outer
        return self._repository.with_keys([key]).get(key)
