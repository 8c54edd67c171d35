"""A message that fails whatever is done: a dead letter in the end. What comes after it flows."""

from .. import OrderCreated, PlaceOrder
from ..application.deliveries import RETRIES
from .stage import Stage


def run(stage: Stage) -> None:
    """Place an order that a subscriber cannot digest, and another one after it."""
    printed: list[str] = []

    def print_label(event: OrderCreated) -> None:
        (item,) = event.items  # its author has never seen an order of two
        printed.append(item)

    with stage.open() as app:
        app.bus.subscribe(OrderCreated, print_label, name="print_label")

        stage.step(
            "A subscriber has a bug: it fails on every order of two items",
            'orders place "glitter bomb" "magic carpet"',
            asks="What is a queue worth whose first message cannot be delivered?",
            sends=PlaceOrder,
        )
        poison = app.bus.send(PlaceOrder(("glitter bomb", "magic carpet")))
        stage.show_log(app)
        stage.check("the order is stored", app.orders.get(poison).status == "placed")
        stage.check("sales were notified of it", len(stage.notices) == 1)

        stage.step("What comes after it flows", "orders place rope", asks="Does the next one wait?")
        app.bus.send(PlaceOrder(("rope",)))
        stage.show_log(app)
        stage.check("the next order has its label", printed == ["rope"])

        stage.step(
            f"It is tried again {RETRIES} times",
            "orders retry --all",
            asks="When does trying again become a waste?",
            sends=OrderCreated,
        )
        for _ in range(RETRIES):
            app.deliveries.retry()
        (dead,) = app.store.deliveries("dead")
        stage.show_delivery(dead)
        stage.check("it is a dead letter", dead.delivery.retries == RETRIES)
        stage.check("retry --all leaves it alone", app.deliveries.retry() == (0, 0))

        stage.step(
            "The bug is found; the dead letter is delivered by its id",
            f"orders retry {dead.delivery.event[:8]}",
            asks="Why keep what is dead?",
        )
    with stage.open() as app:
        app.bus.subscribe(
            OrderCreated, lambda event: printed.extend(event.items), name="print_label"
        )
        stage.check("it is delivered", app.deliveries.retry([dead.delivery.event]) == (1, 1))
        stage.check("with all its items", printed[1:] == ["glitter bomb", "magic carpet"])
        stage.check("nothing is left to deliver", not [*app.store.deliveries("failed", "dead")])
        stage.check("sales were notified of each order once", len(stage.notices) == 2)
