"""The article's advanced version; see `article.py`.

Durability: TinyDB writes the whole file anew for every order, in place, and calls fsync; a
crash in the middle of that leaves half a file. Events live in memory: a crash before a
follower has run loses the notice.
"""

from collections import Counter
from pathlib import Path

from article import (
    ORDER_CREATED,
    PLACE_ORDER,
    OrderCreated,
    OrderRepository,
    OrderService,
    PlaceOrder,
)
from pubsub import pub  # noqa: TID251 - as the article has it
from tinydb import TinyDB
from workload import check_sold, nowhere, placements, print_notice

FILE = "orders.json"


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    done = 0
    sold: Counter[str] = Counter()
    repository = OrderRepository(directory / FILE)

    def count_items(event: OrderCreated) -> None:
        sold.update(event.items)

    with nowhere() as stream, repository.database:
        service = OrderService(
            repository, lambda command: print_notice(command.order_id, command.items, stream)
        )
        pub.subscribe(count_items, ORDER_CREATED)
        for items in placements(orders, deadline):
            pub.sendMessage(PLACE_ORDER, command=PlaceOrder(items))
            done += 1
        del service  # pypubsub has kept it weakly
    check_sold(sold, done)
    return done


def stored(directory: Path) -> int:
    """Return how many orders the store holds."""
    with TinyDB(directory / FILE) as database:
        return len(database)
