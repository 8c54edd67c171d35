"""One of the writers of `race.py` and `key.py`: ready, steady, go.

python -m orders.demos.racer plain|store|key PATH ORDERS
"""

import sys

from tinydb import TinyDB

from .. import PlaceOrder, bootstrap

KEY = "checkout-4711"


def main(kind: str, path: str, count: int) -> None:
    """Wait for a line of standard input, then place the orders; without one, do nothing."""
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    if kind == "plain":
        for number in range(count):
            TinyDB(path).insert({"items": [f"item {number}"]})
        return
    with bootstrap(path) as app:
        for number in range(count):
            is_keyed = kind == "key"
            item = "100 inch TV" if is_keyed else f"item {number}"
            print(app.bus.send(PlaceOrder((item,), key=KEY if is_keyed else None)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
