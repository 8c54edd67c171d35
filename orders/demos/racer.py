"""One of the writers of `race.py`: ready, steady, go.

python -m orders.demos.racer plain|store PATH ORDERS
"""

import sys

from tinydb import TinyDB

from .. import PlaceOrder, bootstrap
from ..application.notifications import NullNotifier


def main(kind: str, path: str, count: int) -> None:
    """Wait for a line of standard input, then place the orders; without one, do nothing."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    if kind == "plain":
        for number in range(count):
            TinyDB(path).insert({"items": [f"item {number}"]})
    else:
        with bootstrap(path, notifier=NullNotifier()) as app:
            for number in range(count):
                app.bus.send(PlaceOrder((f"item {number}",)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
