"""What the tests of deliveries share: a subscriber that fails, and what came of deliveries."""

from typing import ClassVar

from orders import Event, ShipOrder


class ShelfEmptied(Event, frozen=True):
    topic: ClassVar[str] = "shelf-emptied"

    shelf: str = ""


class Bad(Exception):
    pass


OUT_OF_PAPER = Bad("out of paper")


class Failing:
    """A subscriber that ships the order and fails a number of times."""

    def __init__(self, times, error=OUT_OF_PAPER):
        self.times = times
        self.error = error
        self.runs = 0

    def __call__(self, event, *, uow, bus):
        self.runs += 1
        bus.send(ShipOrder(order_id=event.order_id))
        uow.emit(ShelfEmptied(str(self.runs)))
        if self.runs <= self.times:
            raise self.error


def outcomes(app, subscriber):
    """What the log says came of a subscriber's deliveries: (status, attempts, error)."""
    deliveries = (delivery for record in app.store.read() for delivery in record.deliveries)
    return [
        (delivery.status, delivery.attempts, delivery.error)
        for delivery in deliveries
        if delivery.subscriber == subscriber and delivery.status != "pending"
    ]


def pending(app):
    """The names of the subscribers that a delivery is pending for."""
    return [found.delivery.subscriber for found in app.store.pending()]


def state(app, subscriber):
    """The delivery to a subscriber as it stands."""
    found = (account.delivery for account in app.store.deliveries())
    return next(delivery for delivery in found if delivery.subscriber == subscriber)
