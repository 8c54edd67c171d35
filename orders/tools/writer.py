"""One of the writers that `bench` has place orders at once.

python -m orders.tools.writer DATA ORDERS
"""

import sys

from ..application.notifications import NullNotifier
from ..bootstrap import bootstrap
from ..domain.commands import PlaceOrder

WARM = 20  # orders that are not measured: Python takes longer for what it has seldom done


def main(data: str, orders: int) -> None:
    """Say that we are ready, wait for a line of standard input, place the orders, say so."""
    with bootstrap(data, deliver="here", notifier=NullNotifier()) as app:

        def place(orders: int) -> None:
            for number in range(orders):
                app.bus.send(PlaceOrder((f"item {number}",)))

        place(WARM)
        print("ready", flush=True)
        if sys.stdin.readline():
            place(orders)
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
