"""Eight terminals at once: on plain TinyDB, and on this store."""

import subprocess
import sys
from pathlib import Path

from tinydb import TinyDB

from .. import bootstrap
from . import Stage

WRITERS = 8
EACH = 25  # orders


def run(stage: Stage) -> None:
    """Let eight processes place orders at once, twice; count what is left."""
    stage.data.mkdir()
    total = WRITERS * EACH

    stage.step(f"{WRITERS} processes insert {EACH} orders each into plain TinyDB")
    plain = stage.data / "plain.json"
    failed = _race("plain", plain)
    kept = _count(plain)
    stage.show(f"plain TinyDB\t{kept} of {total} orders left\t{failed} processes failed\n")
    stage.check("plain TinyDB has lost orders", kept < total)

    stage.step(f"{WRITERS} processes place {EACH} orders each in this store")
    store = stage.data / "store"
    failed = _race("store", store)
    with bootstrap(store) as app:
        orders = app.orders.list()
        numbers = [record.number for record in app.store.read()]
    stage.show(f"this store\t{len(orders)} of {total} orders left\t{failed} processes failed\n")
    stage.check("every order is there, once", len({order.id for order in orders}) == total)
    stage.check("the log has no gap", numbers == list(range(1, len(numbers) + 1)))


def _race(kind: str, path: Path) -> int:
    """Start the writers together; return how many failed."""
    command = [sys.executable, "-m", "orders.demos.racer", kind, str(path), str(EACH)]
    nowhere = subprocess.DEVNULL
    racers: list[subprocess.Popen[str]] = []
    try:
        for _ in range(WRITERS):
            racer = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=nowhere, text=True
            )
            racers.append(racer)
        for racer in racers:
            if racer.stdout is not None:
                racer.stdout.readline()  # it is ready
        for racer in racers:
            if racer.stdin is not None:
                racer.stdin.write("go\n")
                racer.stdin.close()
        return sum(racer.wait() != 0 for racer in racers)
    finally:  # whoever still ran would make the directory anew
        for racer in racers:
            racer.kill()
            racer.wait()


def _count(plain: Path) -> int:
    """Return how many orders stock TinyDB reads; none if it cannot."""
    try:
        return len(TinyDB(plain))
    except ValueError:
        return 0
