"""A subscriber fails, is shown, is repaired, and is delivered to again."""

from .. import OrderCreated, PlaceOrder, bootstrap
from . import Stage


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

    with bootstrap(stage.data, notifier=stage, on_failure=stage.failed) as app:
        app.bus.subscribe(OrderCreated, mail_customer, name="mail_customer")

        stage.step("Place an order while the mail server is down")
        order_id = app.bus.send(PlaceOrder(("100 inch TV",)))
        stage.check("the order is stored", app.orders.get(order_id).status == "placed")
        stage.check("sales were notified all the same", len(stage.notices) == 1)

        stage.step("orders deliveries --failed")
        (failed,) = app.store.deliveries("failed")
        stage.show_delivery(failed)
        stage.check("three attempts, and why they failed", failed.delivery.attempts == 3)

        stage.step("orders retry --all, the server still down")
        stage.check("it fails again", app.deliveries.retry() == (0, 1))

        stage.step("Repair the server; orders retry --all")
        server.is_up = True
        stage.check("it is delivered", app.deliveries.retry() == (1, 1))
        stage.check("the mail went out, once", server.sent == [order_id])
        stage.check("sales were not notified again", len(stage.notices) == 1)
        (done,) = (a for a in app.store.deliveries("done") if a.delivery.retries)
        stage.show_delivery(done)
        stage.check("nothing is left to deliver", not [*app.store.deliveries("failed", "pending")])
