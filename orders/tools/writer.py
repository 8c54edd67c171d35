"""One of the writers that `bench` has place orders at once.

python -m orders.tools.writer DATA ORDERS
"""

import sys

from ..application.notifications import NullNotifier
from ..bootstrap import bootstrap
from ..domain.commands import PlaceOrder


def main(data: str, orders: int) -> None:
    """Say that we are ready, wait for a line of standard input, place the orders, say so."""
    with bootstrap(data, deliver="here", notifier=NullNotifier()) as app:
        app.store.head()
        print("ready", flush=True)
        if sys.stdin.readline():
            for number in range(orders):
                app.bus.send(PlaceOrder((f"item {number}",)))
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
