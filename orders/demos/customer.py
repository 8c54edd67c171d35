"""The customer of `cluster.py`: places one order after the other, until SIGTERM.

python -m orders.demos.customer SECONDS    between two orders, in the store that ORDERS_DATA names

It prints the id of each order that was acknowledged; one that was not, it places again with the
same key, so that it is placed once.
"""

import os
import signal
import sys
from itertools import cycle
from threading import Event as Flag

from .. import App, PlaceOrder, bootstrap
from ..errors import StoreError

ITEMS = ("100 inch TV", "magic carpet", "soft cheese", "rope", "toy dinosaurs")


def main(seconds: float) -> None:
    """Place orders, which workers deliver."""
    is_done = Flag()
    signal.signal(signal.SIGTERM, lambda *_: is_done.set())
    with bootstrap(os.environ["ORDERS_DATA"], deliver="worker") as app:
        for number, item in enumerate(cycle(ITEMS), start=1):
            print(place(app, item, f"order {number}"), flush=True)
            if is_done.wait(seconds):
                break


def place(app: App, item: str, key: str) -> str:
    """Place an order until it is acknowledged; return its id."""
    while True:
        try:
            return str(app.bus.send(PlaceOrder((item,), key=key)))
        except StoreError as error:
            print(error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
