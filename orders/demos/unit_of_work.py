"""The message-bus library's example, on orders: commands, events, and the commit between them."""

from .. import Event, OrderCreated, OrdersError, PlaceOrder
from ..errors import InvalidOrder
from .stage import Stage


class OutOfStock(OrdersError):
    """What goes wrong in this scenario."""


def run(stage: Stage) -> None:
    """Show what a unit of work promises."""
    heard: list[str] = []

    def audit(event: Event) -> None:
        heard.append(f"audit heard {type(event).__name__}")

    def mail_customer(event: OrderCreated) -> None:
        raise ConnectionError(f"no mail server for {event.items[0]}")

    def count_items(event: OrderCreated) -> None:
        heard.append(f"stock counts {len(event.items)} items")

    with stage.open() as app:
        stage.step(
            "A command returns a value: the order's id",
            asks="Commands are sent, events are published: which of them can answer?",
            sends=PlaceOrder,
        )
        order_id = app.bus.send(PlaceOrder(("100 inch TV",)))
        stage.check(f"PlaceOrder returned {order_id}", app.orders.get(order_id).id == order_id)

        stage.step(
            "Events follow the commit: inside the unit nobody has heard of the order",
            asks="What if the sales department heard of it, and then the commit failed?",
            sends=PlaceOrder,
        )
        app.bus.subscribe("order-*", audit, name="audit")
        with app.uow():
            app.bus.send(PlaceOrder(("magic carpet",)))
            silent = not heard and len(stage.notices) == 1
        stage.check("inside the unit: no notice, no event", silent)
        stage.check(
            "after the unit: the notice and the event", len(stage.notices) == 2 and len(heard) == 1
        )

        stage.step(
            "A unit that fails leaves nothing: no order, no event, no notice",
            asks="What is in the log of an order that was taken back?",
        )
        try:
            with app.uow():
                app.bus.send(PlaceOrder(("soft cheese",)))
                raise OutOfStock("no soft cheese today")
        except OutOfStock as error:
            stage.say(f"it raised: {error}")
        stage.check("still two orders, two notices", app.orders.count() == len(stage.notices) == 2)
        stage.check("still one event heard", len(heard) == 1)

        stage.step(
            "Unless an event is meant to survive: a refused order is announced",
            asks="Who would want to hear of an order that is none?",
        )
        try:
            app.bus.send(PlaceOrder(("   ",)))
        except InvalidOrder as error:
            stage.say(f"it raised: {error}")
        stage.check("audit heard OrderRejected", heard[1:] == ["audit heard OrderRejected"])

        stage.step(
            "A failing subscriber stops nobody: audit, then mail (fails), then stock",
            asks="Whose problem is a mail server that is down?",
            sends=OrderCreated,
        )
        heard.clear()
        app.bus.subscribe(OrderCreated, mail_customer, name="mail_customer")
        app.bus.subscribe(OrderCreated, count_items, name="count_items")
        order_id = app.bus.send(PlaceOrder(("dutch mashrooms", "rope")))
        for line in heard:
            stage.say(line)
        stage.check(
            "those before and after it ran",
            heard == ["audit heard OrderCreated", "stock counts 2 items"],
        )
        stage.check("its failure was reported", len(stage.failures) == 1)
        stage.check("the order is stored", app.orders.get(order_id).status == "placed")
