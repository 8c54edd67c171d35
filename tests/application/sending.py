"""What tests of units of work and deliveries share: messages to send, what the log has of them."""

from typing import ClassVar

from orders import Command, Event, Order, PlaceOrder
from orders.queries.wording import name_of


class CrateFilled(Event, frozen=True):
    topic: ClassVar[str] = "crate-filled"

    crate: str = ""


class FillCrates(Command, frozen=True):
    topic: ClassVar[str] = "fill-crates"


class Refusal(Exception):
    pass


def place(*items, **fields):
    return PlaceOrder(items=items or ("100 inch TV",), **fields)


def an_order(*items, **fields):
    return Order.place(items or ["100 inch TV"], **fields)


def messages(app, kind=object):
    """What the log holds of one class."""
    found = (message for record in app.store.read() for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


def names(app):
    return [name_of(message) for message in messages(app)]


def reporting_to(failures):
    """Return what notes (subscriber's name, event, error) for every failed delivery."""

    def note(subscriber, event, error):
        failures.append((subscriber.name, event, error))

    return note
