"""Damage that is done to a store that is well, and what the doctor says of it."""

from datetime import UTC, datetime

import msgspec
from conftest import Sales

from orders import OrderCreated, PlaceOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.line import FORMAT, Line, decode, encode
from orders.adapters.files.state import StateStorage
from orders.application.store import Delivery
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import SHIPPED, ItemSales

TORN = b'{"format":1,"seq":6,"time":"2026-11-21T09:3'


def append(data, *deliveries, owner=None, messages=()):
    """Append a line as a process would that is dead by now."""
    log = data / "events.jsonl"
    seq = log.read_bytes().count(b"\n") + 1
    line = Line(FORMAT, seq, datetime.now(UTC), messages, deliveries, owner)
    with log.open("ab") as file:
        file.write(encode(line) + b"\n")


# Damage, each done to a store that is well; what the doctor says of it; whether it is repaired


def torn(data):
    with (data / "events.jsonl").open("ab") as log:
        log.write(TORN)


def missing_line_feed(data):
    log = data / "events.jsonl"
    log.write_bytes(log.read_bytes()[:-1])


def damaged_log(data):
    log = data / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b"rope", b"ropa"))


def lost_line(data):
    log = data / "events.jsonl"
    first, _second, *rest = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + b"".join(rest))


def damaged_state(data):
    state = data / "orders.json"
    state.write_bytes(state.read_bytes()[:-40])


def edited_state(data):
    state = data / "orders.json"
    state.write_bytes(state.read_bytes().replace(b"rope", b"ropa"))


def emptied_state(data):
    (data / "orders.json").write_bytes(b"")


def foreign_state(data):
    (data / "orders.json").write_bytes(b'{"foo": 1}')


def state_of_another_log(data):
    with bootstrap(data / "other", notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("theirs",)))
    (data / "orders.json").write_bytes((data / "other" / "orders.json").read_bytes())


def forged_state(data):
    """Change an order and the checksum with it, as only a program could."""
    storage = StateStorage(data / "orders.json", Disk())
    tables = storage.load().tables
    tables["orders"]["1"]["items"] = ["ropa"]
    storage.write(tables)


def open_to_everybody(data):
    (data / "events.jsonl").chmod(0o644)


def litter(data):
    (data / ".orders.json.4711.tmp").write_bytes(b"half a sta")


def dead_lease(data):
    (data / ".running" / "dead").write_bytes(b"")


def left_by_the_dead(data):
    event = OrderCreated(order_id="late", items=("carpet",))
    append(data, Delivery(event.id, "order_created"), owner="dead", messages=(event,))


def failed_delivery(data):
    first = decode((data / "events.jsonl").read_bytes().splitlines()[0])
    append(data, msgspec.structs.replace(first.deliveries[0], status="failed", error="no"))


def dead_letter(data):
    first = decode((data / "events.jsonl").read_bytes().splitlines()[0])
    append(data, msgspec.structs.replace(first.deliveries[0], status="dead", error="no"))


def keep_projections(data):
    """Have the projections kept, the policy's too."""
    with (
        bootstrap(data, notifier=Sales()) as app,
        SingleThreadedRunner(app, SHIPPED),
    ):
        pass
    return data / "projections"


def edited_projection(data):
    kept = keep_projections(data) / "item-sales.json"
    kept.write_bytes(kept.read_bytes().replace(b'"times":1', b'"times":5'))


def damaged_projection(data):
    kept = keep_projections(data) / "orders-a-day.json"
    kept.write_bytes(kept.read_bytes()[:-9])


def forged_projection(data):
    """Keep what no log says, with the right checksum."""

    class Forged(ItemSales):
        def apply(self, event):
            super().apply(event)
            self.tables["sold"]["gold"] = 1

    with (
        bootstrap(data, notifier=Sales()) as app,
        SingleThreadedRunner(app, [Forged]),
    ):
        pass


def damaged_policy(data):
    kept = keep_projections(data) / "bestseller.json"
    kept.write_bytes(kept.read_bytes()[:-9])


def edited_policy(data):
    kept = keep_projections(data) / "bestseller.json"
    kept.write_bytes(kept.read_bytes().replace(b'"times":1', b'"times":5'))


def projection_of_another_log(data):
    keep_projections(data)
    with bootstrap(data / "other", notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("theirs",)))
    theirs = keep_projections(data / "other") / "item-sales.json"
    (data / "projections" / "item-sales.json").write_bytes(theirs.read_bytes())


def litter_of_projections(data):
    (keep_projections(data) / ".item-sales.json.4711.tmp").write_bytes(b"half a pro")


REPAIRED = {
    torn: ("log", "43 bytes"),
    damaged_state: ("state", "is not valid JSON"),
    edited_state: ("state", "changed by another program"),
    foreign_state: ("state", "is not the state of an order store"),
    state_of_another_log: ("state", "was made of 2 lines of a log"),
    forged_state: ("state", "is not the fold of the log"),
    open_to_everybody: ("permissions", "events.jsonl"),
    litter: ("leftovers", ".orders.json.4711.tmp"),
    dead_lease: ("leftovers", "dead"),
    edited_projection: ("projections", "item-sales was changed by another program"),
    damaged_projection: ("projections", "orders-a-day is not valid JSON"),
    forged_projection: ("projections", "item-sales different"),
    projection_of_another_log: ("projections", "item-sales was made of another log"),
    damaged_policy: ("projections", "bestseller is not valid JSON"),
    edited_policy: ("projections", "bestseller was changed by another program"),
    litter_of_projections: ("leftovers", ".item-sales.json.4711.tmp"),
    left_by_the_dead: ("deliveries", "1 to order_created left by processes that died"),
}
NOT_REPAIRED = {
    damaged_log: ("log", "events.jsonl:1: the checksum does not match"),
    lost_line: ("log", "events.jsonl:2: number 3 stands at line 2"),
    failed_delivery: ("deliveries", "1 to order_created failed"),
    dead_letter: ("deliveries", "1 to order_created given up: dead letters"),
}
