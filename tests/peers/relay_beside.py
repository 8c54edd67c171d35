"""What a relay costs a process that places orders: orders a second with one and without, in turns.

    PYTHONPATH=tests:tests/adapters python tests/peers/relay_beside.py [ORDERS [ROUNDS]]

The server syncs as it does by default: on a disk of its own, its syncs would disturb nobody.
"""

import os
import signal
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nats_server
from relaying import relay

from orders import PlaceOrder, bootstrap


class Nobody:
    """Takes notices."""

    def notify(self, notice):
        """Do nothing."""


def place(data, orders):
    """Return how many orders a second are placed."""
    with bootstrap(data, notifier=Nobody()) as app:
        began = time.perf_counter()
        for _ in range(orders):
            app.bus.send(PlaceOrder(items=("rope",)))
        return orders / (time.perf_counter() - began)


def relaying(data, url, stream):
    """Start a process that relays; return its id."""
    if pid := os.fork():
        return pid
    try:
        relay(data, url, until_idle=None, stream=stream, prefix=f"{stream}.")
    finally:
        os._exit(0)


def compare(orders, rounds):
    """Print what each round took, and the ratio."""
    rates = {"with": [], "without": []}
    server = nats_server.Server(jetstream="")
    try:
        with TemporaryDirectory() as directory:
            for number in range(2 * rounds):
                name = "with" if number % 4 in {1, 2} else "without"
                data, stream = Path(directory) / f"data{number}", f"s{number}"
                place(data, 1)
                pid = relaying(data, server.url(), stream) if name == "with" else None
                rates[name].append(place(data, orders))
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                print(f"{name:8} {rates[name][-1]:8,.0f} a second")
    finally:
        server.close()
    ratio = median(rates["with"]) / median(rates["without"])
    print(f"with / without: {ratio:.2f} ({os.cpu_count()} cores)")


if __name__ == "__main__":
    compare(*map(int, sys.argv[1:3]), *(1000, 5)[len(sys.argv) - 1 :])
