"""The article's simple version: pypubsub and a dict. No file, no retry, no order survives."""

from uuid import UUID, uuid4

from pubsub import pub  # noqa: TID251 - the point of this scenario

orders: dict[UUID, list[str]] = {}


def place_order(items: list[str]) -> None:
    """Handle the command: keep the order, announce it."""
    order_id = uuid4()
    orders[order_id] = items.copy()
    pub.sendMessage("order-created", order_id=order_id)


def notify_sales(order_id: UUID) -> None:
    """Handle the event: print the notice."""
    print(f"============\nNew Order:\n============\nID: {order_id}\nItems: {orders[order_id]}")


pub.subscribe(place_order, "place-order")
pub.subscribe(notify_sales, "order-created")
pub.sendMessage("place-order", items=["100 inch TV", "magic carpet"])
pub.sendMessage("place-order", items=["soft cheese", "dutch mashrooms"])
