"""`orders copy`: a whole store arrives as it was, wherever it is interrupted; no other is hurt."""

import json
from contextlib import closing, contextmanager

import pytest
from command_line import done, refused, rows
from conftest import Sales

from orders import PlaceOrder, ShipOrder, bootstrap
from orders.application.deliveries import RETRIES
from orders.errors import StoreError
from orders.tools import copy as copying

SAID = "records copied"


@contextmanager
def silently(_what, _total):
    """Show no progress."""
    yield lambda: None


def essence(store):
    """Return all that has to arrive."""
    orders = list(store.orders())
    return (
        [copying._essence(record) for record in store.read()],
        orders,
        store.keys([order.id for order in orders]),
        [(one.delivery, one.since, one.changed) for one in store.deliveries()],
        [found.delivery for found in store.pending()],
    )


def same(first, second):
    with bootstrap(first) as one, bootstrap(second) as other:
        assert essence(one.store) == essence(other.store)
        return essence(other.store)


class Broken:
    def notify(self, _notice):
        raise ConnectionError("down")


@pytest.fixture
def filled(data, tool):
    """A store with orders, keys, a history, and deliveries in every state."""

    def place(app, item):
        return app.bus.send(PlaceOrder((item,), "Zoë", f"key of {item}"))

    with bootstrap(data, notifier=Broken(), on_failure=lambda *_: None) as app:
        place(app, "dead")
        for _ in range(RETRIES):
            app.deliveries.retry()
        place(app, "failed")
    with bootstrap(data, notifier=Sales()) as app:
        app.bus.send(ShipOrder(place(app, "rope")))
    assert tool("place", "lamp", env={"ORDERS_FAULT": "after-fsync"}).returncode == -9
    assert tool("place", "tv", "--defer").returncode == 0
    return data


def test_everything_arrives_and_what_is_pending_is_delivered_there(filled, tool, tmp_path):
    copied = tool("copy", str(filled), "moved")
    assert (copied.returncode, copied.stdout) == (0, "")
    assert SAID in copied.stderr
    *_, accounts, pending = same(filled, "moved")
    assert {delivery.status for delivery, *_ in accounts} == {"done", "failed", "dead", "pending"}
    assert len(pending) == 2
    for command in ("list", "log", "stats", "deliveries"):
        arguments = [command, "--json"]
        ours = tool(*arguments, env={"ORDERS_DELIVER": "worker"})
        assert (
            tool(*arguments, data="moved", env={"ORDERS_DELIVER": "worker"}).stdout == ours.stdout
        )
    found = [row.split("\t") for row in tool("doctor", data="moved").stdout.splitlines()]
    assert {row[1] for row in found if row[0] == "NOT WELL"} == {"deliveries"}  # failed and dead
    assert "Delivered late: 2, left to workers" in tool("list", data="moved").stderr
    assert tool("list", "--item", "rope", data="moved").stdout.count("shipped") == 1
    again = tool("place", "other", "--key", "key of rope", data="moved")
    assert "was used before" in again.stderr


@pytest.mark.parametrize("fault", ["after-append@5", "torn-append@5", "before-append"])
@pytest.mark.sample(2)
def test_a_copy_that_was_killed_goes_on(filled, tool, fault):
    killed = tool("copy", str(filled), "moved", env={"ORDERS_FAULT": fault})
    assert killed.returncode == -9
    again = tool("copy", str(filled), "moved")
    assert again.returncode == 0
    assert ("were there" in again.stderr) == ("@5" in fault)
    same(filled, "moved")
    with bootstrap(filled, notifier=Sales()) as app:
        app.bus.send(PlaceOrder(("more",)))
    assert "2 records copied" in tool("copy", str(filled), "moved").stderr
    same(filled, "moved")


def test_the_events_of_a_plugin_that_is_not_loaded_arrive_as_they_were(tool, data):
    plugin = ("--plugin", "orders.demos.refund")
    for item in ("rope", "lamp"):
        assert tool(*plugin, "place", item).returncode == 0
    order_id = rows(tool("list"))[0][0]
    assert tool("ship", order_id).returncode == 0
    refunded = tool(*plugin, "refund", order_id)
    assert refunded.returncode == 0, refunded.stderr
    assert tool("copy", str(data), "moved").returncode == 0
    for arguments in (["log", "--json"], ["list", "--json"], ["trace", order_id], ["topics"]):
        ours = done(tool(*plugin, *arguments))
        assert done(tool(*plugin, *arguments, data="moved")) == ours
    shown = json.loads(done(tool("show", order_id, "--json", data="moved")))
    assert shown["status"] == "refunded"
    assert not [row for row in rows(tool("doctor", data="moved")) if row[0] == "NOT WELL"]


def test_what_cannot_be_copied_is_refused_and_nothing_is_touched(filled, tool, tmp_path):
    def files(directory):
        paths = (path for path in directory.rglob("*") if path.is_file())
        return {path.name: path.read_bytes() for path in paths if path.name != "orders.lock"}

    (tmp_path / "link").symlink_to(filled)
    for other in (str(filled), "link"):
        assert refused(tool("copy", str(filled), other), "itself")
    assert refused(tool("copy", "nothing", "moved"), "nothing to copy")
    assert not (tmp_path / "moved").exists()
    assert tool("copy", str(filled), "moved").returncode == 0
    assert tool("place", "more", data="moved").returncode == 0
    assert tool("place", "else", data="another").returncode == 0
    for target in ("moved", "another"):
        before = files(tmp_path / target)
        assert refused(tool("copy", str(filled), target), "is no copy of", "nothing was changed")
        assert files(tmp_path / target) == before


def test_a_damaged_store_is_refused_before_anything_is_written(filled, tool, tmp_path):
    log = filled / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"failed", b"damned", 1)
    assert lines[3] != log.read_bytes().splitlines(keepends=True)[3]
    log.write_bytes(b"".join(lines))
    assert refused(tool("copy", str(filled), "moved"), "events.jsonl:4")
    assert not (tmp_path / "moved").exists()


def test_what_is_written_meanwhile_is_carried_too_and_who_never_ends_is_told():
    with bootstrap(":memory:", deliver="worker") as source, bootstrap(":memory:") as target:
        source.bus.send(PlaceOrder(("rope",)))
        left = 3

        @contextmanager
        def placing(_what, _total):
            def advance():
                nonlocal left
                left -= 1
                if left >= 0:
                    source.bus.send(PlaceOrder(("more",)))

            yield advance

        copied = copying.copy(source, target, placing)
        assert copied == copying.Copied(4, 4, is_complete=True)
        assert essence(source.store) == essence(target.store)
        source.bus.send(PlaceOrder(("one more",)))
        left = 10**6
        assert not copying.copy(source, target, placing).is_complete
        left = 0
        assert copying.copy(source, target, silently).is_complete
        assert essence(source.store) == essence(target.store)


def test_from_memory_to_files_and_back(data):
    with bootstrap(":memory:", notifier=Sales(), deliver="worker") as first:
        for number in range(30):
            first.bus.send(PlaceOrder((f"item {number}",), key=f"key {number}"))
        with bootstrap(data) as second, bootstrap(":memory:") as third:
            copying.copy(first, second, silently)
            second.store.close()
            copying.copy(second, third, silently)
            assert essence(first.store) == essence(second.store) == essence(third.store)
            with closing(second.store):
                assert second.orders.count() == 30


def test_orders_of_a_database_that_were_placed_at_the_same_time_arrive(new_schema, tmp_path):
    url = new_schema()
    with bootstrap(url, deliver="worker") as first, bootstrap(url, deliver="worker") as second:
        run = first.store.connection.run
        run(lambda session: session.link.execute("begin; select pg_current_xact_id()"))
        second.bus.send(PlaceOrder(("rope",)))
        first.bus.send(PlaceOrder(("lamp",)))
        run(lambda session: session.link.execute("commit"))
        with bootstrap(tmp_path / "moved") as target, bootstrap(new_schema()) as back:
            for source, copy in ((second, target), (target, back)):
                assert copying.copy(source, copy, silently).total == 2
                assert [order.items for order in copy.orders.list()] == [("rope",), ("lamp",)]


def test_a_copy_that_is_not_what_it_should_be_is_refused(monkeypatch):
    with bootstrap(":memory:", notifier=Sales()) as source, bootstrap(":memory:") as target:
        for _ in range(3):
            source.bus.send(PlaceOrder(("rope",)))
        restore = target.store.restore
        monkeypatch.setattr(target.store, "restore", lambda records: restore(records[:-1]))
        with pytest.raises(StoreError, match="has 5 of 6 records"):
            copying.copy(source, target, silently)
