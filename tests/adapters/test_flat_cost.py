"""Placing an order costs the same however many there are: neither file is read as a whole."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import Sales

from orders import Order, OrderCreated, PlaceOrder, bootstrap
from orders.projections.follower import Follower
from orders.projections.policy import POLICIES

CHUNK = 1000
ITEMS = 4000
READ = re.compile(r"(?:read|pread64)\(\d+<([^>]*)>.*= (\d+)$")
ALLOWED = 300_000  # bytes more than on an empty store: the ends of the files, and their heads


@pytest.fixture
def many(data):
    """Build a store of so many orders, state and policies up to date, as an import leaves it."""

    def build(count):
        with bootstrap(data, notifier=Sales()) as app:
            for start in range(0, count, CHUNK):
                with app.log.writing():
                    app.log.append(
                        [
                            OrderCreated(
                                order_id=Order.place(["TV"]).id, items=(f"TV {number % ITEMS}",)
                            )
                            for number in range(start, min(start + CHUNK, count))
                        ]
                    )
            app.orders.checkpoint()
            for policy in POLICIES:
                Follower(app, policy).keep_up(at_any_cost=True)
            app.bus.send(PlaceOrder(items=("the last one",)))
        return (data / "events.jsonl").stat().st_size + (data / "orders.json").stat().st_size

    return build


def bytes_read(data, tmp_path):
    """Place an order in a process of its own; return the bytes it read, in all and of the store."""
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-e", "trace=read,pread64", "-o", str(trace)]
    subprocess.run(
        [*strace, sys.executable, "-m", "orders", "place", "rope"],
        env={**os.environ, "ORDERS_DATA": str(data)},
        check=True,
        capture_output=True,
        timeout=120,
    )
    reads = [match for line in trace.read_text().splitlines() if (match := READ.search(line))]
    total = sum(int(match[2]) for match in reads)
    return total, sum(int(match[2]) for match in reads if match[1].startswith(str(data)))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "count", [20_000, pytest.param(100_000, marks=pytest.mark.long)], ids="{:,}".format
)
def test_placing_on_a_large_store_reads_neither_the_log_nor_the_state(many, data, tmp_path, count):
    bytes_read(tmp_path / "warm", tmp_path)  # which compiles what is imported
    nothing, _ = bytes_read(tmp_path / "empty", tmp_path)
    size = many(count)
    total, of_store = bytes_read(data, tmp_path)
    print(f"{count:,} orders: {of_store:,} of {size:,} bytes read; {total - nothing:,} more")
    assert 0 < of_store < ALLOWED < size // 10
    assert total - nothing < ALLOWED
