"""Policies: projections that also react, by commands, to what they have folded.

A policy is pure, too: it says which commands an event calls for. Its follower sends them and
records that it has, in one commit with whatever they store.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from .commands import RecordBestseller
from .events import OrderCreated
from .message import Command, Event
from .projections import Projection


class Policy(Projection):
    """A projection that reacts to the events it follows."""

    @abstractmethod
    def react(self, event: Event) -> Iterable[Command]:
        """Return the commands that the event, which `apply` has just folded in, calls for."""


class Bestseller(Policy):
    """Tells sales of an item when it is ordered for the tenth time."""

    name = "bestseller"
    follow = (OrderCreated,)
    columns: ClassVar = {"ordered": ("item", "times")}

    TIMES: ClassVar[int] = 10

    def apply(self, event: Event) -> None:
        """Count the items; that an order is cancelled later does not count them back."""
        if isinstance(event, OrderCreated):
            ordered = self.tables["ordered"]
            for item in event.items:
                ordered[item] = ordered.get(item, 0) + 1

    def react(self, event: Event) -> Iterator[RecordBestseller]:
        """Yield the news of each item for which this order was the tenth."""
        if isinstance(event, OrderCreated):
            for item in dict.fromkeys(event.items):
                times = self.tables["ordered"][item]
                if times - event.items.count(item) < self.TIMES <= times:
                    yield RecordBestseller(event.order_id, item, times)


POLICIES: tuple[type[Policy], ...] = (Bestseller,)
