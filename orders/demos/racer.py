"""One of the writers of `race.py`: ready, steady, go.

python -m orders.demos.racer plain|store PATH ORDERS
"""

import sys

from tinydb import TinyDB

from .. import Notice, PlaceOrder, bootstrap


class Nowhere:
    """A notifier for orders that nobody needs to hear of."""

    def notify(self, notice: Notice) -> None:
        """Keep quiet."""


def main(kind: str, path: str, count: int) -> None:
    """Wait for the end of standard input, then place the orders."""
    print("ready", flush=True)
    sys.stdin.read()
    if kind == "plain":
        for number in range(count):
            TinyDB(path).insert({"items": [f"item {number}"]})
    else:
        with bootstrap(path, notifier=Nowhere()) as app:
            for number in range(count):
                app.bus.send(PlaceOrder((f"item {number}",)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
