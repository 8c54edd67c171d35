"""Which orders to list, and how to ask TinyDB for them."""

from collections.abc import Sequence
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Any, NamedTuple

import msgspec
from tinydb import where

from .domain import OrderState


class Filter(NamedTuple):
    """Which orders to list; None lets every order through."""

    status: str | None = None
    item: str | None = None  # part of an item's name, in any case
    customer: str | None = None  # part of the customer's name, in any case
    since: datetime | None = None  # placed at or after
    until: datetime | None = None  # placed before


EVERY_ORDER = Filter()


def query(wanted: Filter) -> Any:
    """Return the filter as a TinyDB query."""
    status, item, customer, since, until = wanted
    queries: list[Any] = []
    if status is not None:
        queries.append(where("status") == status)
    if item is not None:
        queries.append(where("items").test(lambda names: any(_within(item, n) for n in names)))
    if customer is not None:
        queries.append(where("customer").test(lambda name: _within(customer, name or "")))
    if since is not None:
        queries.append(where("placed_at").test(lambda time: _time(time) >= since))
    if until is not None:
        queries.append(where("placed_at").test(lambda time: _time(time) < until))
    return reduce(and_, queries)


def matching(orders: Sequence[OrderState], wanted: Filter) -> Sequence[OrderState]:
    """Return the wanted ones of these orders."""
    if wanted == EVERY_ORDER:
        return orders
    matches = query(wanted)
    return [order for order in orders if matches(msgspec.to_builtins(order))]


def _within(part: str, text: Any) -> bool:
    return part.casefold() in text.casefold()


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(text)
