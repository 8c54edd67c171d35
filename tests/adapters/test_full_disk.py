"""A file system that is really full refuses orders, loses none, and works again with space."""

import os
import resource
import subprocess
import sys
from contextlib import suppress

import pytest
from conftest import Sales
from tinydb import TinyDB

from orders import OrdersError, PlaceOrder, bootstrap

REFUSING = """
import sys
from orders import OrdersError, PlaceOrder, bootstrap
app = bootstrap(sys.argv[1])
for number in range(int(sys.argv[2])):
    try:
        app.bus.send(PlaceOrder(items=(f"refused {number}",)))
    except OrdersError as error:
        print(error)
app.close()
"""

FORMS = pytest.mark.parametrize(
    "count", [10, pytest.param(1000, marks=pytest.mark.long)], ids="{:,} refused".format
)


@pytest.fixture
def tmpfs(tmp_path):
    """Mount a file system of 256 KB; returns its directory."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "orders-test", str(directory)]
    with suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            yield directory
            subprocess.run(["umount", str(directory)], check=True)
            return
    pytest.skip("mounting is not allowed here")


@pytest.fixture
def limited(data):
    """Run the tool, or another program, in a process whose files may not grow past a size."""

    def run(size, *arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
            capture_output=True,
            text=True,
            env={**os.environ, "ORDERS_DATA": str(data)},
            timeout=300,
        )

    return run


def fill(directory):
    """Leave no byte of space; return the file that takes it."""
    filler = directory / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    for size in (4096, 1):
        with suppress(OSError):
            while True:
                os.write(descriptor, b"x" * size)
    os.close(descriptor)
    return filler


def fill_the_last_page(data):
    """Place orders until one is refused, so that the log's own last page is full as well."""
    placed = []
    with bootstrap(data, notifier=Sales()) as app, suppress(OrdersError):
        while True:
            placed.append(app.bus.send(PlaceOrder(items=("filling", "x" * 100))))
    return placed


def refused(result):
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("error: could not write") == 1
    assert "try: make room" in result.stderr
    assert "Traceback" not in result.stderr
    return True


def ids(result):
    assert result.returncode == 0
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


def stock(data):
    with TinyDB(data / "orders.json") as db:
        return [order["id"] for order in db.table("orders")]


@FORMS
def test_a_full_file_system_refuses_orders_loses_none_and_works_again(tmpfs, tool, count):
    data = tmpfs / "store"
    for number in range(3):
        assert tool("place", f"item {number}", data=data).returncode == 0
    filler = fill(tmpfs)
    fill_the_last_page(data)
    log, state = (data / "events.jsonl").read_bytes(), (data / "orders.json").read_bytes()
    before = ids(tool("list", data=data))
    for number in range(count):
        assert refused(tool("place", f"refused {number}", "y" * 100, data=data))
    assert (data / "events.jsonl").read_bytes() == log
    assert (data / "orders.json").read_bytes() == state
    assert stock(data)
    assert ids(tool("list", data=data)) == before
    filler.unlink()
    assert tool("place", "again", data=data).returncode == 0
    after = ids(tool("list", data=data))
    assert after[1:] == before
    assert sorted(stock(data)) == sorted(after)
    assert tool("doctor", "--repair", data=data).returncode == 0


@FORMS
def test_a_file_that_must_not_grow_refuses_orders_loses_none_and_works_again(
    data, tool, limited, count
):
    for number in range(3):
        assert tool("place", f"item {number}").returncode == 0
    log, state = (data / "events.jsonl").read_bytes(), (data / "orders.json").read_bytes()
    before = ids(tool("list"))
    for spare in (0, 1, 100):
        assert refused(limited(len(log) + spare, "-m", "orders", "place", "refused"))
        assert (data / "events.jsonl").read_bytes() == log
    result = limited(len(log) + 50, "-c", REFUSING, str(data), str(count))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("nothing was stored") == result.stdout.count("\n") == count
    assert (data / "events.jsonl").read_bytes() == log
    assert (data / "orders.json").read_bytes() == state
    assert ids(limited(0, "-m", "orders", "list")) == before
    assert tool("place", "again").returncode == 0
    after = ids(tool("list"))
    assert after[1:] == before
    assert sorted(stock(data)) == sorted(after)
    assert tool("doctor").returncode == 0
