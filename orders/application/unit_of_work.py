"""The unit of work: orders and events that are stored together, or not at all.

    with app.uow() as uow:
        order = uow.orders.get(order_id)
        order.ship()
        uow.emit(...)

On the way out the outermost block makes one commit; only then does anybody hear of its events.
If the block raises, or the commit cannot be stored, nothing is stored and the orders in memory
are as they were before the block. Blocks nest: an inner one that fails takes back its own
changes and events only. Threads and asyncio tasks have units of their own.
"""

import os
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Self

from ..domain.events import Committed, OrderEvent, RolledBack, UnitEvent
from ..domain.order import is_change
from ..errors import AlreadySettled, OrdersError, StoreError, WiringError, WrongPayload
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event
from .orders import UnitOrders
from .store import Commit, Delivery, DeliveryKey, Store
from .unit import Unit

SMALL_UNIT = 10  # events; what the subscribers of more have only recorded is stored together
MAX_GROUP = 500  # deliveries that are recorded together


class UnitOfWork:
    """Stores orders and events atomically; `with` opens a block, `emit` and `orders` use it.

    Args:
        store: where units are stored.
        bus: publishes events, after they are stored.
        warn: called with a sentence when something could not be recorded.
        is_deferring: whether what is stored is left to workers to deliver.

    Attributes:
        orders: the orders as the open unit sees them.
        expected: event id and subscriber of the pending deliveries that this process makes.
        watchers: called after a unit was stored and its events have been published.
    """

    def __init__(
        self,
        store: Store,
        bus: MessageBus,
        warn: Callable[[str], None],
        *,
        is_deferring: bool = False,
    ) -> None:
        self.is_deferring = is_deferring
        self._store = store
        self._bus = bus
        self._warn = warn
        self._open: ContextVar[Unit | None] = ContextVar("open", default=None)
        self._group: ContextVar[list[Commit] | None] = ContextVar("group", default=None)
        self._stored: set[str] = set()  # ids of commands that are handled still
        self.expected: set[DeliveryKey] = set()
        self.watchers: list[Callable[[], None]] = []
        self.orders = UnitOrders(self, store)

    def begin(self) -> Self:
        """Return this unit of work for one `with` statement, which tells its end from others'."""
        block = object.__new__(type(self))
        block.__dict__ = self.__dict__  # all but its identity is shared
        return block

    def __enter__(self) -> Self:
        if (unit := self._current()) is None:
            unit = Unit()
            self._open.set(unit)
        cause = self._bus.handling
        unit.begin(self, cause)
        if isinstance(cause, Command):
            self._note(cause, unit)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        unit = self._current()
        if unit is None or unit.blocks[-1].opened_by() is not self or unit.process != os.getpid():
            self._refuse_to_end(unit, error)
            return
        try:
            if error is not None:
                self._roll_back(unit)
            elif len(unit.blocks) > 1:
                unit.end()
            else:
                self._complete(unit)
        finally:
            if not unit.blocks:
                self._open.set(None)

    @property
    def unit(self) -> Unit:
        """What the open unit has collected.

        Raises:
            OrdersError: none is open.
        """
        if (unit := self._current()) is None:
            raise OrdersError("no unit of work is open", "use `with uow:`")
        return unit

    @property
    def is_open(self) -> bool:
        """Whether we are inside a unit."""
        return self._current() is not None

    def emit(self, event: Event) -> None:
        """Have `event` published once the unit is stored; outside a unit, store it at once.

        Raises:
            WrongPayload: it is no event with a topic, or changes an order and cannot follow.
        """
        if not isinstance(event, Event) or event.topic is None:
            raise WrongPayload(
                f"{type(event).__name__} is no event with a topic", "emit events only"
            )
        if (unit := self._current()) is None:
            with self.begin():
                self.emit(event)
            return
        caused = event.caused_by(self._bus.handling)
        if isinstance(caused, OrderEvent) and is_change(type(caused)):
            unit.emit_change(caused, self._store.order(caused.order_id))
        else:
            unit.emit(caused)

    def on_handled(self, command: Command) -> None:
        """Store a command that was handled inside an open unit along with it.

        Raises:
            WiringError: its handler has left a unit of work open.
        """
        if (unit := self._current()) is not None:
            if unit.blocks[-1].cause is command:
                self._abandon(unit)
                raise WiringError(
                    f"the handler of {type(command).__name__} has left a unit of work open, so"
                    " nothing was stored",
                    "use `with uow:`",
                )
            self._note(command, unit)
        self._stored.discard(command.id)

    def on_refused(self, command: Command) -> None:
        """Undo a unit that the handler of a command has left open as it raised."""
        self._stored.discard(command.id)
        unit = self._current()
        if unit is not None and unit.blocks[-1].cause is command:
            self._abandon(unit)

    def on_published(self) -> None:
        """Let those who follow the log know that it may have grown, unless a unit is open."""
        if self.watchers and not self.is_open:
            for watcher in tuple(self.watchers):
                watcher()

    def _current(self) -> Unit | None:
        """Return the open unit; undo one that was left, or nothing would be stored any more."""
        unit = self._open.get()
        if unit is None or not unit.blocks:  # a task may inherit one that is over
            return None
        if unit.blocks[0].opened_by() is None:  # Ctrl-C kept its `with` from ending it
            self._abandon(unit)
            return None
        return unit

    def _note(self, command: Command, unit: Unit) -> None:
        if command.id not in self._stored:
            unit.emit(command)

    def _refuse_to_end(self, unit: Unit | None, error: BaseException | None) -> None:
        """Undo a unit whose innermost block is not the one that ends."""
        if unit is not None:
            self._abandon(unit)
        if error is None:
            raise WiringError(
                "a unit of work has to end before those around it, and where it began: in the same"
                " task, thread and process; nothing was stored"
            )

    def _abandon(self, unit: Unit) -> None:
        """Undo a unit whose blocks do not nest, so that none of them is stored."""
        while unit.blocks:
            self.announce(RolledBack, unit.undo())

    def _complete(self, unit: Unit) -> None:
        """Store a unit whose last block is over; publish its events."""
        commit = Commit()
        try:
            commit, events = self._gather(unit)
            self._commit(commit)
        except BaseException as error:
            if isinstance(error, OrdersError) or not self._store.holds(commit):
                self._roll_back(unit)
            else:  # interrupted, and stored all the same: others publish
                self._mark_stored(unit)
                self._store.release()
            raise
        self._mark_stored(unit)
        self._publish([*self._announcements(Committed, unit.orders), *events])

    def _mark_stored(self, unit: Unit) -> None:
        unit.end()
        for order in unit.orders.values():
            order.mark_stored()

    def _gather(self, unit: Unit) -> tuple[Commit, list[Event]]:
        """Return what a unit stores, and what is published after that."""
        messages = unit.messages()
        events = [message for message in messages if isinstance(message, Event)]
        pending = [
            Delivery(event.id, subscriber.name)
            for event in events
            if event.stored
            for subscriber in self._bus.subscribers(type(event))
        ]
        return unit.commit(messages, pending, is_deferred=self.is_deferring), events

    def _commit(self, commit: Commit) -> None:
        """Store a commit, now or with others of its group; one of commands alone never."""
        group = self._group.get()
        if commit.is_durable:
            self._store.commit(commit)
            if not commit.is_deferred:
                self.expected.update([delivery.key for delivery in commit.pending])
        elif not (commit.outcomes or commit.reactions):
            return
        elif group is None or commit.reactions:
            self._store.commit(commit)
        else:
            group.append(commit)
            if len(group) >= MAX_GROUP:
                self._record(group)
        command = self._bus.handling
        if isinstance(command, Command) and command in commit.messages:
            self._stored.add(command.id)

    def _roll_back(self, unit: Unit) -> None:
        """Undo the innermost block; what was emitted to survive this goes on without it."""
        self.announce(RolledBack, unit.undo())
        if unit.blocks:
            return
        try:
            commit, events = self._gather(unit)
            self._commit(commit)
        except OrdersError as error:  # the error that caused the rollback matters more
            self._warn(f"what was to survive a rollback was not recorded: {error}")
        else:
            self._publish(events)

    def _publish(self, events: list[Event]) -> None:
        """Publish; what the subscribers of many events only record is stored together."""
        if not events:
            return
        if self.is_deferring:
            events = [event for event in events if not event.stored]
        try:
            if len(events) <= SMALL_UNIT or self._group.get() is not None:
                self._bus.publish(*events)
                return
            group: list[Commit] = []
            token = self._group.set(group)
            try:
                self._bus.publish(*events)
            finally:
                self._group.reset(token)
                self._record(group)
        except BaseException:
            self._store.release()  # so that what was not delivered is not left to this process
            raise

    def _record(self, group: list[Commit]) -> None:
        """Store what came of deliveries, except what somebody else has stored meanwhile."""
        messages = tuple(message for commit in group for message in commit.messages)
        outcomes = tuple(outcome for commit in group for outcome in commit.outcomes)
        commits = [Commit(messages, outcomes=outcomes, is_durable=False), *group]
        group.clear()
        try:
            for commit in commits:
                try:
                    self._store.commit(commit)
                except AlreadySettled:
                    continue
                if commit is commits[0]:
                    return
        except StoreError as error:
            self._store.release()
            self._warn(f"what came of {len(outcomes):,} deliveries was not recorded: {error}")

    def announce(self, kind: type[UnitEvent], order_ids: Iterable[str]) -> None:
        """Say that this has happened to these orders."""
        if announcements := self._announcements(kind, order_ids):
            self._bus.publish(*announcements)

    def _announcements(self, kind: type[UnitEvent], order_ids: Iterable[str]) -> list[UnitEvent]:
        """Return what is to be said of these orders, if anybody listens."""
        return [kind(order_id=id_) for id_ in order_ids] if self._bus.subscribers(kind) else []
