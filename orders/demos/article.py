"""The article's run: a customer places an order, it is persisted, sales are notified. Twice."""

from .. import PlaceOrder, bootstrap
from . import Stage


def run(stage: Stage) -> None:
    """Place two orders, hear of both, list them."""
    with bootstrap(stage.data, notifier=stage) as app:
        stage.step('orders place "100 inch TV" "magic carpet"')
        first = app.bus.send(PlaceOrder(("100 inch TV", "magic carpet")))

        stage.step('orders place "soft cheese" "dutch mashrooms"')
        second = app.bus.send(PlaceOrder(("soft cheese", "dutch mashrooms")))

        stage.check(
            "two orders, two notices, in order",
            [notice.order_id for notice in stage.notices] == [first, second],
        )

        stage.step("orders list")
        orders = app.orders.list()
        stage.console.orders(orders)
        stage.check("the list has both", [order.id for order in orders] == [second, first])
