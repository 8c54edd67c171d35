"""A process is killed between commit and notice: here, and as the article wires it."""

from pathlib import Path

from tinydb import TinyDB

from .. import OrderCreated, PlaceOrder
from .stage import Stage
from .workspace import Finished

ARTICLE = Path(__file__).with_name("article_wiring.py")
SYSTEMS = ("", "pypubsub and TinyDB", "orders")


def run(stage: Stage) -> None:
    """Kill both; run the next command of both; see which one remembers the notice."""
    stage.data.mkdir()
    plain, store = stage.data / "plain.json", stage.data / "store"

    stage.step(
        "Two processes are killed after they have stored an order, before the notice",
        'ORDERS_FAULT=after-fsync orders place "magic carpet"',
        asks="What does the sales department know of these orders?",
        sends=PlaceOrder,
    )
    theirs = stage.python(str(ARTICLE), str(plain), "magic carpet", "--die")
    ours = stage.orders("place", "magic carpet", data=store, ORDERS_FAULT="after-fsync")
    with stage.open(store) as app:
        pending = [found.delivery.subscriber for found in app.store.pending()]
        stored = app.orders.count()
    stage.beside(
        SYSTEMS,
        ("command", f"{ARTICLE.name} --die", "orders place"),
        ("process", theirs.process, ours.process),
        ("ended by", _end(theirs.status), _end(ours.status)),
        ("file", plain.name, "events.jsonl"),
        ("orders in it", len(TinyDB(plain)), stored),
        ("pending in it", "it knows nothing of notices", ", ".join(pending)),
    )
    stage.check("both processes were really killed", theirs.was_killed and ours.was_killed)
    stage.check("nobody was notified", "New Order" not in theirs.output + ours.output)
    stage.check("the order's delivery is pending", pending == ["order_created"])

    stage.step(
        "The next command about orders, of both",
        "orders place rope",
        asks="Who delivers what a dead process had yet to deliver?",
        sends=OrderCreated,
    )
    theirs = stage.python(str(ARTICLE), str(plain), "rope")
    ours = stage.orders("place", "rope", data=store)
    stage.show(ours.talk)
    stage.show(ours.output)
    again = stage.orders("list", data=store)
    stage.beside(
        SYSTEMS,
        ("process", theirs.process, ours.process),
        ("orders", len(TinyDB(plain)), again.output.count("\n")),
        ("notices", theirs.output.count("New Order"), (ours.talk + ours.output).count("New Order")),
        ("magic carpet", *(_notified("magic carpet", one) for one in (theirs, ours))),
        ("rope", *(_notified("rope", one) for one in (theirs, ours))),
    )
    stage.check("the article's order is in its file", len(TinyDB(plain)) == 2)
    stage.check("its notice is lost for good", "magic carpet" not in theirs.output + theirs.talk)
    stage.check("the notice of orders came late, but came", "magic carpet" in ours.talk)
    stage.check("and only once", "New Order" not in again.output + again.talk)
    stage.check("both orders are stored", again.output.count("\n") == 2)


def _end(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit {status}"


def _notified(item: str, finished: Finished) -> str:
    return "notified" if f"['{item}']" in finished.output + finished.talk else "lost"
