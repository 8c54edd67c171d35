"""What one `with` block of a unit of work has gathered, until it is stored or undone."""

from collections.abc import Callable

from .domain import Order, moment
from .ledger import Delivery
from .message import Message


class Unit:
    """One `with` block: what it has gathered so far."""

    def __init__(self, outer: "Unit | None", cause: Message | None) -> None:
        self.outer = outer
        self.cause = cause
        self.since = moment()
        self.orders: dict[str, Order] = {}
        self.keys: dict[str, str] = {}  # key of a new order -> its id
        self.messages: dict[str, Message] = {}
        self.deliveries: list[Delivery] = []
        self.checks: list[Callable[[], None]] = []

    def knows(self, message: Message) -> bool:
        """Return whether this unit or an outer one has gathered the message."""
        return message.id in self.messages or (self.outer is not None and self.outer.knows(message))

    def find(self, order_id: str) -> Order | None:
        """Return the order if it is under this unit or an outer one."""
        if (order := self.orders.get(order_id)) is None:
            return None if self.outer is None else self.outer.find(order_id)
        for event in order.pending:  # what an inner unit adds has another cause
            self.note(event)
        return order

    def note(self, message: Message) -> None:
        """Gather a message once, as part of the conversation of its cause."""
        if not self.knows(message):
            self.messages[message.id] = message.caused_by(self.cause)

    def gather(self) -> None:
        """Gather the events that the unit's orders have raised."""
        for order in self.orders.values():
            for event in order.pending:
                self.note(event)

    def join(self, outer: "Unit") -> None:
        """Become part of the outer unit."""
        outer.orders.update(self.orders)
        outer.keys.update(self.keys)
        outer.messages.update(self.messages)
        outer.deliveries += self.deliveries
        outer.checks += self.checks

    def undo(self) -> None:
        """Take back what happened to orders since the block began, the outer units' too."""
        unit: Unit | None = self
        while unit is not None:
            for order in unit.orders.values():
                order.undo_since(self.since)
            unit = unit.outer
