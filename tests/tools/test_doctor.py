"""The doctor names what is wrong with a store, mends what can be mended, throws nothing away."""

import re
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest
from conftest import Sales
from tinydb import TinyDB

from orders import OrderCreated, PlaceOrder, ShipOrder, bootstrap
from orders.tools.doctor import examine, repair
from orders.errors import OrdersError
from orders.application.store import Delivery
from orders.adapters.files.line import FORMAT, Line, decode, encode
from orders.projections.policy import Bestseller
from orders.projections.shipped import ItemSales, OrdersADay
from orders.projections.runners import SingleThreadedRunner

SUBJECTS = ["lock", "log", "state", "projections", "deliveries", "permissions", "leftovers"]
TORN = b'{"format":1,"seq":6,"time":"2026-11-21T09:3'

HOLD = """
import sys
from pathlib import Path
from orders.adapters.files.disk import FileLock
with FileLock(Path(sys.argv[1]), 5).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(data):
    """A store of two orders, one shipped, all well."""
    with bootstrap(data, notifier=Sales()) as app:
        order_id = app.bus.send(PlaceOrder(items=("rope",)))
        app.bus.send(PlaceOrder(items=("lamp",)))
        app.bus.send(ShipOrder(order_id=order_id))
    return data


def look(data):
    """Return what the doctor finds ill, by subject."""
    with bootstrap(data, notifier=Sales(), on_warning=lambda _: None) as app:
        return {f.subject: f.text for f in examine(app) if not f.is_well}


def mend(data, sales=None):
    with bootstrap(data, notifier=sales or Sales(), on_warning=lambda _: None) as app:
        return list(repair(app))


def files(data):
    """Return every file that is the store's, with its bytes and its times."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in data.iterdir()
        if path.is_file()
    }


def copies(data, name):
    return [path.read_bytes() for path in data.glob(f"{name}.*")]


def append(data, *deliveries, owner=None, messages=()):
    """Append a line as a process would that is dead by now."""
    log = data / "events.jsonl"
    seq = log.read_bytes().count(b"\n") + 1
    line = Line(FORMAT, seq, datetime.now(UTC), messages, deliveries, owner)
    with log.open("ab") as file:
        file.write(encode(line) + b"\n")


# Illnesses, each done to a store that is well; what the doctor says of it; whether it is mended


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
    from orders.storage import Head, _checksum, _split

    state = data / "orders.json"
    head, body = _split(state.read_bytes())
    body = body.replace(b"rope", b"ropa")
    head = msgspec.structs.replace(head, checksum=_checksum(head, body))
    assert isinstance(head, Head)
    state.write_bytes(msgspec.json.encode({"log": {"1": head}})[:-1] + b"," + body)


def open_to_everybody(data):
    (data / "events.jsonl").chmod(0o644)


def litter(data):
    (data / ".orders.json.4711.tmp").write_bytes(b"half a sta")


def dead_lease(data):
    (data / ".running" / "dead").write_bytes(b"")


def owed_by_the_dead(data):
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
        SingleThreadedRunner(app, [ItemSales, OrdersADay, Bestseller]),
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


MENDED = {
    torn: ("log", "43 bytes"),
    damaged_state: ("state", "is not valid JSON"),
    edited_state: ("state", "changed by another program"),
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
    owed_by_the_dead: ("deliveries", "1 owed by processes that died"),
}
NOT_MENDED = {
    damaged_log: ("log", "events.jsonl:1: the checksum does not match"),
    lost_line: ("log", "events.jsonl:2: number 3 stands at line 2"),
    foreign_state: ("state", "is not the state of an order store"),
    state_of_another_log: ("state", "restore that file from a backup"),
    failed_delivery: ("deliveries", "1 failed; try orders retry --all"),
    dead_letter: ("deliveries", "1 dead letters"),
}


def named(function):
    return function.__name__.replace("_", " ")


def test_a_well_store_is_told_in_one_line_a_subject(store, tool):
    result = tool("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows] == [["ok", subject] for subject in SUBJECTS]
    assert rows[2][2].startswith("2 orders")


@pytest.mark.parametrize("illness", [*MENDED, *NOT_MENDED], ids=named)
def test_the_doctor_names_an_illness_and_changes_nothing(store, tool, illness):
    illness(store)
    before = files(store)
    subject, text = (MENDED | NOT_MENDED)[illness]
    assert text in look(store)[subject]
    assert files(store) == before
    result = tool("doctor")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"NOT WELL\t{subject}\t" in result.stdout
    assert text in result.stdout
    assert result.stderr.startswith("error: the store is not well")
    assert files(store) == before | {"orders.lock": files(store)["orders.lock"]}


@pytest.mark.parametrize("illness", [missing_line_feed, emptied_state], ids=named)
def test_what_a_crash_may_leave_is_no_illness_or_is_mended(store, illness):
    illness(store)
    mend(store)
    assert look(store) == {}


@pytest.mark.parametrize("illness", MENDED, ids=named)
def test_repair_says_what_it_mends_and_the_store_is_well(store, tool, illness):
    illness(store)
    result = tool("doctor", "--repair")
    assert result.returncode == 0
    assert "Repaired: " in result.stderr
    assert re.findall(r"^NOT WELL", result.stdout, re.MULTILINE) == []
    assert look(store) == {}
    again = tool("doctor", "--repair")
    assert (again.returncode, again.stderr) == (0, "")
    with TinyDB(store / "orders.json") as db, bootstrap(store) as app:
        assert {o["id"] for o in db.table("orders")} == {o.id for o in app.orders.list()}


def test_repair_keeps_what_it_cuts_from_the_log(store):
    whole = (store / "events.jsonl").read_bytes()
    torn(store)
    (deed,) = mend(store)
    assert (store / "events.jsonl").read_bytes() == whole
    assert copies(store, "events.jsonl") == [TORN]
    assert next(store.glob("events.jsonl.*")).name in deed
    assert "43 bytes" in deed


@pytest.mark.parametrize("illness", [damaged_state, edited_state, forged_state], ids=named)
def test_repair_keeps_the_state_that_it_replaces(store, illness):
    illness(store)
    ill = (store / "orders.json").read_bytes()
    mend(store)
    assert copies(store, "orders.json") == [ill]


def test_a_missing_state_is_made_anew_byte_for_byte(store):
    state = (store / "orders.json").read_bytes()
    (store / "orders.json").unlink()
    mend(store)
    with bootstrap(store, notifier=Sales()) as app:
        app.orders.checkpoint()
    assert (store / "orders.json").read_bytes() == state
    assert look(store) == {}


def test_an_older_state_is_well_for_the_log_has_the_rest(store, tool):
    state = (store / "orders.json").read_bytes()
    assert tool("place", "carpet").returncode == 0
    newer = (store / "orders.json").read_bytes()
    (store / "orders.json").write_bytes(state)
    assert look(store) == {}
    assert tool("checkpoint").stderr == "Brought up to date.\n"
    assert (store / "orders.json").read_bytes() == newer
    assert tool("checkpoint").stderr == "It was up to date.\n"


@pytest.mark.parametrize("illness", [damaged_log, lost_line], ids=named)
def test_damage_in_the_middle_of_the_log_is_never_repaired(store, tool, illness):
    illness(store)
    before = files(store)
    with pytest.raises(OrdersError, match="backup"):
        mend(store)
    result = tool("doctor", "--repair")
    assert result.returncode == 1
    assert "events.jsonl" in result.stderr
    assert "Traceback" not in result.stderr
    assert files(store) == before | {"orders.lock": files(store)["orders.lock"]}


@pytest.mark.parametrize("illness", [foreign_state, state_of_another_log], ids=named)
def test_a_state_that_is_not_ours_is_not_thrown_away(store, tool, illness):
    illness(store)
    theirs = (store / "orders.json").read_bytes()
    result = tool("doctor", "--repair")
    assert "Traceback" not in result.stderr
    assert theirs in [(store / "orders.json").read_bytes(), *copies(store, "orders.json")]


def test_repair_delivers_what_a_dead_process_owed(store):
    owed_by_the_dead(store)
    sales = Sales()
    assert mend(store, sales) == ["delivered 1 that processes owed when they died"]
    assert sales.order_ids == ["late"]


def test_a_lock_that_is_held_is_named_with_its_holder(store, tool):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store / "orders.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        result = tool("doctor", env={"ORDERS_LOCK_TIMEOUT": "0.1"})
        repaired = tool("doctor", "--repair", env={"ORDERS_LOCK_TIMEOUT": "0.1"})
    assert (result.returncode, repaired.returncode) == (1, 1)
    assert f"NOT WELL\tlock\tthe store was busy for 0.1 s: {store}/orders.lock" in result.stdout
    assert f"process {holder.pid} since" in result.stdout
    assert f"process {holder.pid} since" in repaired.stderr
    assert tool("doctor").returncode == 0


def test_the_doctor_creates_nothing_where_nothing_is(data, tmp_path, tool):
    assert look(data) == {}
    for arguments in (["doctor"], ["doctor", "--repair"]):
        result = tool(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert "nothing is stored yet" in result.stdout
    data.mkdir()
    assert tool("doctor").returncode == 0
    assert list(data.iterdir()) == []


def test_a_living_process_owes_nothing_yet(store):
    with bootstrap(store, notifier=Sales()) as alive:
        event = OrderCreated(order_id="soon", items=("carpet",))
        append(
            store, Delivery(event.id, "order_created"), owner=alive.leases.mine(), messages=(event,)
        )
        assert "deliveries" not in look(store)
        assert mend(store) == []
    assert "deliveries" in look(store)


def test_every_repair_keeps_a_private_copy_of_its_own(store):
    for _ in range(3):
        torn(store)
        assert len(mend(store)) == 1
    assert copies(store, "events.jsonl") == [TORN] * 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in store.glob("events.jsonl.*"))


def test_projections_that_are_kept_and_equal_are_counted(store, tool):
    assert "ok\tprojections\t0 kept, " in tool("doctor").stdout
    keep_projections(store)
    assert "ok\tprojections\t3 kept, equal to the fold of the log" in tool("doctor").stdout


def test_a_projection_that_lags_behind_the_log_is_well(store, send):
    keep_projections(store)
    send(PlaceOrder(items=("carpet",)))
    assert look(store) == {}


def test_what_the_doctor_says_of_a_projection_names_the_command_that_mends_it(store, tool):
    edited_projection(store)
    assert "orders replay" in look(store)["projections"]
    assert tool("replay").returncode == 0
    assert look(store) == {}


def test_the_repair_of_a_projection_makes_it_as_it_was(store):
    well = (keep_projections(store) / "item-sales.json").read_bytes()
    edited_projection(store)
    deeds = mend(store)
    assert any("item-sales" in deed for deed in deeds)
    assert (store / "projections" / "item-sales.json").read_bytes() == well


@pytest.mark.parametrize("name", ["item-sales", "bestseller"])
def test_a_foreign_file_in_the_place_of_a_projection_is_named_and_left_alone(store, tool, name):
    kept = keep_projections(store) / f"{name}.json"
    kept.write_text('{"mine": 1}')
    log = store / "events.jsonl"
    log.chmod(0o644)
    for arguments in (["doctor"], ["doctor", "--repair"]):
        result = tool(*arguments)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert str(kept) in result.stdout + result.stderr
    assert kept.read_text() == '{"mine": 1}'
    assert f"made {log} private" in result.stdout + result.stderr, "the rest is mended"
