"""The work that every peer does, so that all of them do the same.

Orders are placed one after the other. Each is stored before the next one is placed; one
follower counts the items that were sold, another one prints the article's notice to nowhere.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TextIO

ORDERS = (
    ["100 inch TV", "magic carpet"],
    ["soft cheese", "dutch mashrooms"],
    ["magic carpet"],
    ["soft cheese", "rope", "100 inch TV"],
)


def placements(orders: int, deadline: float) -> Iterator[list[str]]:
    """Yield the items of each order to be placed, until all are or the time is up.

    Args:
        orders: how many.
        deadline: as `time.monotonic()` tells it.
    """
    for number in range(orders):
        if time.monotonic() >= deadline:
            return
        yield ORDERS[number % len(ORDERS)]


def nowhere() -> AbstractContextManager[TextIO]:
    """Open the stream that notices are printed to."""
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it is no file


def print_notice(order_id: object, items: list[str], stream: TextIO) -> None:
    """Print the article's notice, past the buffer: a notice is told when it is printed."""
    rule = "============"
    notice = f"{rule}\nNew Order:\n{rule}\nID: {order_id}\nItems: {items}"
    print(notice, file=stream, flush=True)


def check_sold(sold: Mapping[str, int], orders: int) -> None:
    """Refuse a run whose follower has not counted every item of every order.

    Raises:
        RuntimeError: it has not.
    """
    expected: Counter[str] = Counter()
    for items in placements(orders, float("inf")):
        expected.update(items)
    if expected != sold:
        raise RuntimeError(f"{orders} orders hold {dict(expected)}, but {dict(sold)} was counted")
