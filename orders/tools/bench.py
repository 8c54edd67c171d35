"""How fast it is here, beside what one would otherwise pick and beside what the disk allows.

Absolute numbers say little about a noisy machine; what is measured in one run, minutes apart
at most and on one disk, can be compared.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path
from shutil import rmtree
from statistics import median
from subprocess import PIPE
from time import perf_counter
from typing import IO, NamedTuple, cast

import msgspec
from tinydb import TinyDB

from ..application.notifications import NullNotifier
from ..bootstrap import App, bootstrap
from ..domain.commands import PlaceOrder
from ..domain.events import OrderShipped
from ..errors import OrdersError
from ..messaging.message import new_id
from . import import_export

PLACES = 20  # one by one, in each round
ROUNDS = 15
BULK = 5_000
EVENTS = 10_000
LISTS = 20
LIMIT = 3.0  # seconds for what a slow competitor does
WRITERS = 8  # processes that place at once
EACH = 250  # orders, each of them
STEPS = 11  # for each size

MEASURES = {
    "placed": "orders placed one by one, each durable",
    "at_once": f"orders placed by {WRITERS} processes at once, each durable",
    "imported": "orders imported, their notices recorded",
    "one_subscriber": "events published to one subscriber",
    "three_subscribers": "events published to three subscribers",
    "listed": "stores opened and the newest 20 orders listed",
    "folded": "orders folded where a store is opened without its orders.json",
    "tinydb": "orders inserted into plain TinyDB one by one",
    "tinydb_bulk": "orders inserted into plain TinyDB together",
    "disk": "the bytes of an order appended and synced: the limit",
    "disk_bulk": "the bytes of imported orders appended and synced: the limit",
    "times_alone": f"= times as many placed by {WRITERS} processes as by one",
    "times_tinydb": "= times faster placed than inserted into plain TinyDB",
    "times_disk": "= times slower placed than appended and synced",
    "times_disk_bulk": "= times slower imported than appended and synced",
}

_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has none

_ITEMS = [f"item {number}" for number in range(1_000)]


class Rates(NamedTuple):
    """How many a second, on a store that holds `orders` already."""

    orders: int
    placed: float
    disk: float  # the bytes of an order, appended and synced
    at_once: float  # orders that several processes place
    imported: float
    disk_bulk: float  # the bytes of imported orders, appended and synced
    one_subscriber: float  # events published
    three_subscribers: float
    listed: float  # lists of the newest 20, the store opened anew for each
    folded: float  # orders, from the log, the state file being gone
    tinydb: float  # orders inserted into plain TinyDB, its file as large
    tinydb_bulk: float  # same, as many as are imported, together

    @property
    def times_alone(self) -> float:
        """How many times as many orders several processes place at once as one does."""
        return self.at_once / self.placed

    @property
    def times_tinydb(self) -> float:
        """How many times faster an order is placed than inserted into plain TinyDB."""
        return self.placed / self.tinydb

    @property
    def times_disk(self) -> float:
        """How many times longer an order takes than appending and syncing its bytes."""
        return self.disk / self.placed

    @property
    def times_disk_bulk(self) -> float:
        """How many times longer an import takes than appending and syncing its bytes."""
        return self.disk_bulk / self.imported


def rows(rates: Sequence[Rates]) -> list[tuple[str, ...]]:
    """Return the measures, each with its value for every size of store."""
    return [
        (text, *(_number(getattr(rate, name)) for rate in rates)) for name, text in MEASURES.items()
    ]


def as_object(rates: Rates) -> dict[str, float]:
    """Return the measures for JSON."""
    return {name: round(getattr(rates, name), 2) for name in ("orders", *MEASURES)}


def measure(parent: Path, orders: int, advance: Callable[[], None]) -> Rates:
    """Measure on a store of `orders` orders, in a directory of its own under `parent`.

    Args:
        parent: on the disk that is measured.
        orders: how many to have before.
        advance: called `STEPS` times.
    """
    directory = parent / f".orders-bench-{new_id()}"
    try:  # from before it is there: whoever ends us may do so at any moment
        directory.mkdir(mode=0o700)
        rates = []
        for rate in _rates(directory, orders):
            rates.append(rate)
            advance()
        return Rates(orders, *rates)
    finally:
        rmtree(directory, ignore_errors=True)


def _rates(directory: Path, orders: int) -> Iterator[float]:
    data = directory / "store"
    if orders:
        _import(data, directory, orders)
    with bootstrap(data, deliver="here", notifier=NullNotifier()) as app:
        yield from _place(app, data / "events.jsonl", directory / "limit")
    yield _place_at_once(data)
    begin = (data / "events.jsonl").stat().st_size
    yield BULK / _import(data, directory, BULK)
    yield _append_import(data / "events.jsonl", begin, directory / "limit")
    with bootstrap(data) as app:
        for name in ("first", "second", "third"):
            app.bus.subscribe(OrderShipped, _hear, name=name)
            if name != "second":
                yield _rate(EVENTS, lambda: app.bus.publish(OrderShipped(order_id="1")))
    yield _rate(LISTS, lambda: _list(data))
    yield _fold(data)
    with _plain_tinydb(directory / "tinydb.json", orders) as database:
        yield _rate(ROUNDS * PLACES, lambda: database.insert(_document()))
        documents = [_document() for _ in range(BULK)]
        yield BULK * _rate(1, lambda: database.insert_multiple(documents))


def _place(app: App, log: Path, limit: Path) -> Iterator[float]:
    """Place orders, and append the same bytes to a plain file, in turns: disks vary with time."""
    placed, appended = [], []
    with limit.open("ab", buffering=0) as file:
        for _ in range(ROUNDS):
            before = log.stat().st_size if log.exists() else 0
            placed.append(_rate(PLACES, lambda: app.bus.send(PlaceOrder(_some_items()))))
            lines = _written(log, before).splitlines(keepends=True)
            commits = [b"".join(pair) for pair in zip(lines[::2], lines[1::2], strict=True)]
            appended.append(_append(file.fileno(), commits))
    yield median(placed)
    yield median(appended)


def _written(log: Path, begin: int) -> bytes:
    """Return what stands in the log from a byte on."""
    with log.open("rb") as file:
        file.seek(begin)
        return file.read()


def _place_at_once(data: Path) -> float:
    """Have several processes place orders at once; return how many a second."""
    command = [sys.executable, "-m", "orders.tools.writer", str(data), str(EACH)]
    with ExitStack() as stack:
        writers = [stack.enter_context(_running(command)) for _ in range(WRITERS)]
        _await(writers)
        start = perf_counter()
        for _, typed in writers:
            typed.write(b"go\n")
        _await(writers)
        return WRITERS * EACH / (perf_counter() - start)


@contextmanager
def _running(command: list[str]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Run a process; yield what it says and where it is told. It is gone afterwards."""
    with subprocess.Popen(  # noqa: S603 - our own, which Ctrl-C is not meant for
        command, stdin=PIPE, stdout=PIPE, bufsize=0, start_new_session=True
    ) as process:
        try:
            yield cast("IO[bytes]", process.stdout), cast("IO[bytes]", process.stdin)
        except BaseException:
            process.kill()
            raise


def _await(writers: Iterable[tuple[IO[bytes], IO[bytes]]]) -> None:
    """Wait until each has said something.

    Raises:
        OrdersError: one has ended instead.
    """
    if not all(said.readline() for said, _ in writers):
        raise OrdersError("one of the processes that were to place orders has failed")


def _append_import(log: Path, begin: int, limit: Path) -> float:
    """Append the bytes of an import to a plain file; return how many orders a second.

    They are synced as often as the import's own: once a unit of work.
    """
    written, units = _written(log, begin), ceil(BULK / import_export.CHUNK)
    size = ceil(len(written) / units)
    commits = [written[start : start + size] for start in range(0, len(written), size)]
    with limit.open("ab", buffering=0) as file:
        return BULK / len(commits) * _append(file.fileno(), commits)


def _append(descriptor: int, commits: Sequence[bytes]) -> float:
    same = iter(commits)

    def append() -> None:
        os.write(descriptor, next(same))
        _fdatasync(descriptor)

    return _rate(len(commits), append)


def _rate(times: int, action: Callable[[], object]) -> float:
    """Return how often a second the action can be done; do it `times` times, if it is not slow."""
    done, start = 0, perf_counter()
    while done < times and perf_counter() - start < LIMIT:
        action()
        done += 1
    return done / (perf_counter() - start)


def _import(data: Path, directory: Path, orders: int) -> float:
    """Import so many orders; return the seconds."""
    file = directory / "orders.jsonl"
    with file.open("wb") as lines:
        for _ in range(orders):
            order = {"items": _some_items(), "customer": "Ada", "key": new_id()}
            lines.write(msgspec.json.encode(order) + b"\n")
    start = perf_counter()
    found = import_export.read(file)
    with bootstrap(data, deliver="here", notifier=NullNotifier()) as app:
        import_export.import_orders(app, found, lambda: None)
    return perf_counter() - start


def _list(data: Path) -> None:
    with bootstrap(data) as app:
        app.orders.list(limit=20)
        app.orders.count()


def _fold(data: Path) -> float:
    (data / "orders.json").unlink()
    start = perf_counter()
    with bootstrap(data) as app:
        return app.orders.count() / (perf_counter() - start)


def _plain_tinydb(path: Path, orders: int) -> TinyDB:
    documents = {str(number): _document() for number in range(1, orders + 1)}
    path.write_text(json.dumps({"_default": documents}), "utf-8")
    return TinyDB(path)


def _document() -> dict[str, object]:
    return {"id": new_id(), "items": _some_items(), "customer": "Ada", "status": "placed"}


def _some_items() -> tuple[str, ...]:
    return tuple(random.choices(_ITEMS, k=random.randint(1, 3)))  # noqa: S311 - no secret


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"  # noqa: PLR2004 - three digits


def _hear(event: OrderShipped) -> str:
    return event.order_id
