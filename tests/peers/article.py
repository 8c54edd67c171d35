"""The article's advanced version, its repository on a JSON file instead of in memory.

    python article.py FILE ITEM...

After Ivan Georgiev, "Event-Driven Python with pubsub": pypubsub's topics, commands and
events as dataclasses, a TinyDB repository. One thing is changed, in its favour: the event
carries the items, so that nobody reads the order back from the file (in the article
`order_created` does, which here would parse the whole file once more for each order).
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from pubsub import pub  # noqa: TID251 - as the article has it
from tinydb import TinyDB

PLACE_ORDER = "place-order"
ORDER_CREATED = "order-created"
NOTIFY_SALES = "notify-sales"


@dataclass(frozen=True)
class Message:
    """What every command and event has."""

    id: UUID = field(default_factory=uuid4, init=False)


@dataclass(frozen=True)
class PlaceOrder(Message):
    """Place an order."""

    items: list[str]


@dataclass(frozen=True)
class OrderCreated(Message):
    """An order was placed."""

    command_id: UUID
    order_id: UUID
    items: list[str]


@dataclass(frozen=True)
class NotifySales(Message):
    """Tell the sales department about a new order."""

    order_id: UUID
    items: list[str]


@dataclass(frozen=True)
class Order:
    """What a customer has ordered."""

    items: list[str]
    id: UUID = field(default_factory=uuid4)


class OrderRepository:
    """Keeps orders in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.database = TinyDB(path)

    def insert(self, order: Order) -> None:
        """Store a new order."""
        self.database.insert({**asdict(order), "id": str(order.id)})


class OrderService:
    """The handlers: subscribed to their topics for as long as the service lives.

    Args:
        repository: where orders are stored.
        tell: prints a notice.
    """

    def __init__(self, repository: OrderRepository, tell: Callable[[NotifySales], object]) -> None:
        self.repository = repository
        self.tell = tell
        pub.subscribe(self.place_order, PLACE_ORDER)
        pub.subscribe(self.order_created, ORDER_CREATED)
        pub.subscribe(self.notify_sales, NOTIFY_SALES)

    def place_order(self, command: PlaceOrder) -> None:
        """Store the order."""
        order = Order(command.items)
        self.repository.insert(order)
        pub.sendMessage(ORDER_CREATED, event=OrderCreated(command.id, order.id, order.items))

    def order_created(self, event: OrderCreated) -> None:
        """Have sales notified."""
        pub.sendMessage(NOTIFY_SALES, command=NotifySales(event.order_id, event.items))

    def notify_sales(self, command: NotifySales) -> None:
        """Tell sales."""
        self.tell(command)


def print_notice(command: NotifySales) -> None:
    """Print the article's notice."""
    rule = "============"
    print(f"{rule}\nNew Order:\n{rule}\nID: {command.order_id}\nItems: {command.items}")


if __name__ == "__main__":
    service = OrderService(OrderRepository(Path(sys.argv[1])), print_notice)
    pub.sendMessage(PLACE_ORDER, command=PlaceOrder(sys.argv[2:]))
