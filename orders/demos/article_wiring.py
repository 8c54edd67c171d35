"""The article's advanced wiring: a TinyDB file, pypubsub, and nothing in between.

python article_wiring.py FILE ITEM [--die]
"""

import os
import signal
import sys
from uuid import uuid4

from pubsub import pub  # noqa: TID251 - as the article has it
from tinydb import TinyDB

_, path, item, *options = sys.argv
orders = TinyDB(path)


def place_order(items: list[str]) -> None:
    """Handle the command: store the order, announce it."""
    order = {"id": str(uuid4()), "items": items}
    orders.insert(order)
    if "--die" in options:
        os.kill(os.getpid(), signal.SIGKILL)  # the power fails, the pod is evicted, ...
    pub.sendMessage("order-created", order=order)


def order_created(order: dict[str, object]) -> None:
    """Handle the event: print the notice."""
    rule = "============"
    print(f"{rule}\nNew Order:\n{rule}\nID: {order['id']}\nItems: {order['items']}")


pub.subscribe(place_order, "place-order")
pub.subscribe(order_created, "order-created")
pub.sendMessage("place-order", items=[item])
