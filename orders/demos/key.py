"""Eight processes place an order with one key, at once: there is one order, and one notice."""

from .. import PlaceOrder
from .racer import KEY
from .stage import Stage

WRITERS = 8


def run(stage: Stage) -> None:
    """Press the button eight times."""
    stage.step(
        f"The customer presses the button {WRITERS} times; each press is a process",
        f'orders place "100 inch TV" --key {KEY}',
        asks="How can a sender that got no answer ask again, and not order twice?",
        sends=PlaceOrder,
    )
    pressed = stage.race("key", stage.data, WRITERS, 1)
    answers = [one.output.splitlines()[-1:] for one in pressed]
    stage.beside(
        ("Process", "Answered with"),
        *(
            (one.process, *(id_[:8] for id_ in ids))
            for one, ids in zip(pressed, answers, strict=True)
        ),
    )
    with stage.open() as app:
        orders = app.orders.list()
        stage.console.orders(orders)
        owner = app.store.ids(keys=[KEY]).get(KEY)
    notices = sum(one.output.count("New Order") for one in pressed)
    stage.check("no process has failed", not any(one.status for one in pressed))
    stage.check("there is one order", [order.id for order in orders] == [owner])
    stage.check("every process was answered with its id", answers == [[owner]] * WRITERS)
    stage.check("sales were notified once", notices == 1)

    stage.step(
        "The key is remembered: days later it is still the same order",
        f'orders place "100 inch TV" --key {KEY}',
        asks="What if a key is forgotten sooner than somebody asks again?",
    )
    again = stage.orders("place", "100 inch TV", "--key", KEY)
    stage.show(again.talk)
    stage.check("the first order is the answer", str(owner) in again.talk)
    stage.check("nobody is notified", "New Order" not in again.output + again.talk)
