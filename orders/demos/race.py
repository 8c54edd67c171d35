"""Eight terminals at once: on plain TinyDB, and on this store."""

from pathlib import Path

from tinydb import TinyDB

from .. import PlaceOrder
from .stage import Stage
from .workspace import Finished

WRITERS = 8
EACH = 25  # orders
RACES = 5  # at most: a machine may be so busy that the processes run one after the other


def run(stage: Stage) -> None:
    """Let eight processes place orders at once, twice; count what is left."""
    stage.data.mkdir()
    plain, store = stage.data / "plain.json", stage.data / "store"
    total = WRITERS * EACH

    stage.step(
        f"{WRITERS} processes insert {EACH} orders each into plain TinyDB, then into this store",
        asks="What happens between reading a file and writing it back?",
        sends=PlaceOrder,
    )
    theirs, kept = _lose(stage, plain, total)
    ours = stage.race("store", store, WRITERS, EACH)
    with stage.open(store) as app:
        orders = app.orders.list()
        numbers = [record.number for record in app.store.read()]
    stage.beside(
        ("", "plain TinyDB", "orders"),
        ("written by", f"{WRITERS} processes", f"{WRITERS} processes"),
        ("orders placed", total, total),
        ("orders left", kept, len(orders)),
        ("failed", *(f"{sum(one.status != 0 for one in ran)} processes" for ran in (theirs, ours))),
    )
    stage.check("plain TinyDB has lost orders", kept < total)
    stage.check("every order is there, once", len({order.id for order in orders}) == total)
    stage.check("no process has failed", not any(one.status for one in ours))
    stage.check("the log has no gap", numbers == list(range(1, len(numbers) + 1)))


def _lose(stage: Stage, plain: Path, total: int) -> tuple[list[Finished], int]:
    """Race on plain TinyDB until orders are lost; return who ran, and how many are left."""
    for _ in range(RACES):
        plain.unlink(missing_ok=True)
        ran = stage.race("plain", plain, WRITERS, EACH)
        if (kept := _count(plain)) < total:
            break
    return ran, kept


def _count(plain: Path) -> int:
    """Return how many orders stock TinyDB reads; none if it cannot."""
    try:
        return len(TinyDB(plain))
    except ValueError:
        return 0
