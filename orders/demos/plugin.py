"""A plugin adds to the system: refunds, from `refund.py`, that the package knows nothing of."""

from .. import PlaceOrder, ShipOrder
from ..errors import ForbiddenMove
from ..projections.follower import current
from .stage import Stage

PLUGIN = "orders.demos.refund"


def run(stage: Stage) -> None:
    """Refund orders, in Python and from the command line; see who hears of it."""
    from .refund import RefundOrder, RefundReasons  # noqa: PLC0415 - it defines new messages

    with stage.open(plugins=[PLUGIN]) as app:
        stage.step(
            f'bootstrap(plugins=["{PLUGIN}"]): place, ship, refund',
            asks="Which line of the package has to change for refunds?",
            sends=ShipOrder,
        )
        first, second = (app.bus.send(PlaceOrder((item,), "Ada")) for item in ("rope", "lamp"))
        for order_id in (first, second):
            app.bus.send(ShipOrder(order_id))
        app.bus.send(RefundOrder(first, "too short"))
        stage.check("the order is refunded", app.orders.get(first).status == "refunded")
        stage.check("its subscriber has notified", stage.notices[-1].title == "Refund")

        stage.step(
            "Its rule is a rule of the order: a second refund is refused",
            asks="Where does it say that only a shipped order can be refunded?",
        )
        try:
            app.bus.send(RefundOrder(first, "again"))
        except ForbiddenMove as error:
            stage.say(f"it raised: {error}")
        stage.check("the order is as it was", app.orders.get(first).version == 3)

    stage.step(
        "It adds a command to the command line",
        f'orders --plugin {PLUGIN} refund {second[:8]} --reason "too short"',
        asks="What does `orders list` show of a refund where the plugin is not loaded?",
    )
    refund = stage.orders("refund", second, "--reason", "too short", plugins=[PLUGIN])
    stage.show(refund.talk)
    with stage.open(plugins=[PLUGIN]) as app:
        orders = app.orders.list()
        stage.console.orders(orders)
        sweet = [order.customer for order in orders if order.items == ("box of chocolates",)]
        stage.check("its policy has placed an order for each refund", sweet == ["Ada", "Ada"])
        counted = current(app.store, RefundReasons, app.warn).tables["reasons"]
        stage.check("its projection has counted both refunds", counted == {"too short": 2})
