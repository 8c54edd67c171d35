"""The article's run: a customer places an order, it is persisted, sales are notified. Twice."""

from .. import PlaceOrder
from .stage import Stage


def run(stage: Stage) -> None:
    """Place two orders, hear of both, list them."""
    with stage.open() as app:
        stage.step(
            "A customer places an order; it is stored; sales are notified",
            'orders place "100 inch TV" "magic carpet"',
            asks="Who calls the sales department?",
            sends=PlaceOrder,
        )
        first = app.bus.send(PlaceOrder(("100 inch TV", "magic carpet")))

        stage.step(
            "Another one",
            'orders place "soft cheese" "dutch mashrooms"',
            asks="How many lines of the log will that be, and which?",
            sends=PlaceOrder,
        )
        second = app.bus.send(PlaceOrder(("soft cheese", "dutch mashrooms")))

        stage.check(
            "two orders, two notices, in order",
            [notice.order_id for notice in stage.notices] == [first, second],
        )

        stage.step("Both are there", "orders list", asks="Where is the list read from?")
        orders = app.orders.list()
        stage.console.orders(orders)
        stage.check("the list has both", [order.id for order in orders] == [second, first])
