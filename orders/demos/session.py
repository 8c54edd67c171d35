"""pybondi's example, on orders: a session that adds, commits and rolls back aggregates."""

from .. import Notice, NotifySales, Order, PlaceOrder
from ..domain.events import Added, Committed, RolledBack, UnitEvent
from ..errors import ForbiddenMove
from .stage import Stage


class Megaphone:
    """A notifier of our own, to stand in for the console."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notify(self, notice: Notice) -> None:
        """Shout the notice."""
        self.said.append(f"{', '.join(notice.items)}!".upper())


def run(stage: Stage) -> None:
    """Show dependency injection, and what becomes of an order in a unit of work."""
    stage.step(
        "Override a dependency in one line: bootstrap(notifier=Megaphone())",
        asks="Where is it said that notices are printed?",
        sends=NotifySales,
    )
    megaphone = Megaphone()
    with stage.open(stage.data / "loud", notifier=megaphone) as app:
        app.bus.send(PlaceOrder(("magic carpet",)))
    stage.say(megaphone.said[0])
    stage.check("the notice went there", megaphone.said == ["MAGIC CARPET!"])

    heard: list[str] = []

    def hear(event: UnitEvent) -> None:
        heard.append(type(event).__name__)

    with stage.open() as app:
        app.bus.subscribe(UnitEvent, hear, name="hear")

        stage.step(
            "Add and commit: the order is stored",
            asks="Who may change an order, and when is that known to others?",
        )
        order = Order.place(["100 inch TV"], customer="Ada")
        with app.uow() as uow:
            uow.orders.add(order)
        stage.check("it can be looked up", app.orders.get(order.id).customer == "Ada")
        stage.check("Added, then Committed", heard == [Added.__name__, Committed.__name__])

        stage.step(
            "Ship it, then fail: everything is as it was, the order in memory too",
            asks="What does the object say when its transaction has failed?",
        )
        heard.clear()
        try:
            with app.uow() as uow:
                uow.orders.add(order)
                order.ship()
                stage.say(f"inside the unit the order is {order.status}, version {order.version}")
                order.cancel()
        except ForbiddenMove as error:
            stage.say(f"it raised: {error}")
        stage.say(f"after the unit the order is {order.status}, version {order.version}")
        stage.check(
            "the order in memory is restored", (order.status, order.version) == ("placed", 1)
        )
        stage.check("the stored order is untouched", app.orders.get(order.id).version == 1)
        stage.check("Added, then RolledBack", heard == [Added.__name__, RolledBack.__name__])

        stage.step(
            "Ship it and commit",
            asks="Which version of the order does the commit build on?",
        )
        with app.uow() as uow:
            uow.orders.add(order)
            order.ship()
        stage.check("the order is shipped", app.orders.get(order.id).status == "shipped")
