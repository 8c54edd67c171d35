"""A subscriber fails, is shown, is repaired, and is delivered to again; with pubsub it is not."""

from pubsub.core import Publisher  # noqa: TID251 - to be compared with

from .. import OrderCreated, PlaceOrder
from .stage import Stage


class MailServer:
    """Something that is down now and then."""

    def __init__(self) -> None:
        self.is_up = False
        self.sent: list[str] = []

    def send(self, order_id: str) -> None:
        """Send a confirmation, if the server is up."""
        if not self.is_up:
            raise ConnectionError("the mail server is down")
        self.sent.append(order_id)


def run(stage: Stage) -> None:
    """Show what becomes of a delivery that fails."""
    server = MailServer()

    def mail_customer(event: OrderCreated) -> None:
        server.send(event.order_id)

    with stage.open() as app:
        app.bus.subscribe(OrderCreated, mail_customer, name="mail_customer", priority=-1)

        stage.step(
            "Place an order while the mail server is down; the mail comes before the notice",
            asks="Does the sender get an error? Do those who come after the mail hear of it?",
            sends=PlaceOrder,
        )
        said, notified = _with_pubsub(server)
        order_id = app.bus.send(PlaceOrder(("100 inch TV",)))
        stage.beside(
            ("", "pypubsub", "orders"),
            ("the sender", said, f"has order {order_id[:8]}"),
            ("sales", f"notified of {len(notified)}", f"notified of {len(stage.notices)}"),
            ("the mail", "lost", "a failed delivery"),
        )
        stage.check("with pypubsub, whoever comes after it hears nothing", not notified)
        stage.check("the order is stored", app.orders.get(order_id).status == "placed")
        stage.check("sales were notified all the same", len(stage.notices) == 1)

        stage.step(
            "The failure is recorded", "orders deliveries --failed", asks="How often was it tried?"
        )
        (failed,) = app.store.deliveries("failed")
        stage.show_delivery(failed)
        stage.check("three attempts, and why they failed", failed.delivery.attempts == 3)

        stage.step(
            "Deliver again, the server still down",
            "orders retry --all",
            asks="Is anybody notified twice?",
        )
        stage.check("it fails again", app.deliveries.retry() == (0, 1))

        stage.step(
            "Repair the server; deliver again",
            "orders retry --all",
            asks="Who hears of the order now, and who does not?",
            sends=OrderCreated,
        )
        server.is_up = True
        stage.check("it is delivered", app.deliveries.retry() == (1, 1))
        stage.check("the mail went out, once", server.sent == [order_id])
        stage.check("sales were not notified again", len(stage.notices) == 1)
        (done,) = (a for a in app.store.deliveries("done") if a.delivery.retries)
        stage.show_delivery(done)
        stage.check("nothing is left to deliver", not [*app.store.deliveries("failed", "pending")])


def _with_pubsub(server: MailServer) -> tuple[str, list[str]]:
    """Announce an order by pypubsub alone; return what the sender gets, and who is notified."""
    notified: list[str] = []

    def mail_customer(order_id: str) -> None:
        server.send(order_id)

    def notify_sales(order_id: str) -> None:
        notified.append(order_id)

    bus = Publisher()
    for listener in (mail_customer, notify_sales):
        bus.subscribe(listener, "order-created")
    try:
        bus.sendMessage("order-created", order_id="1")
    except ConnectionError as error:
        return f"{type(error).__name__}", notified
    return "returns", notified
