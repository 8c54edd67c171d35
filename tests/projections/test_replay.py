"""`replay`: what is kept is made anew, what differs is said, and nobody is notified again."""

import json

import pytest
from conftest import Sales
from following import reactions, rows

from orders import CancelOrder, PlaceOrder, ShipOrder, bootstrap
from orders.errors import FollowerError
from orders.projections.replay import replay
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import SHIPPED, Bestseller, ItemSales, OrdersADay

NAMES = ["item-sales", "orders-a-day", "bestseller"]


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def snapshot(data):
    """Return all that is in the directory, but who held the lock: bytes, times, permissions."""
    found = {}
    for path in {*data.rglob("*")} - {data / "orders.lock"}:
        status = path.stat()
        content = path.read_bytes() if path.is_file() else None
        found[path] = (content, status.st_mtime_ns, status.st_mode, status.st_ino)
    return found


def kept(data, name="item-sales"):
    return data / "projections" / f"{name}.json"


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.fixture
def store(data):
    """A store of three orders whose followers were stopped, and so kept what they had."""
    with (
        bootstrap(data, notifier=Sales()) as app,
        SingleThreadedRunner(app, [ItemSales, OrdersADay, Bestseller]),
    ):
        first, second, _ = (
            app.bus.send(PlaceOrder(items))
            for items in (("rope", "lamp"), ("rope",), ("rope", "tv"))
        )
        app.bus.send(ShipOrder(first))
        app.bus.send(CancelOrder(second))
    return data


# What is well


def test_what_is_kept_and_equal_is_said_to_be_so_and_stays(store, tool):
    before = snapshot(store / "projections")
    result = tool("replay")
    assert [row[:2] for row in rows(result)] == [[name, "equal"] for name in NAMES]
    assert "None of 3 projections differed" in result.stderr
    assert snapshot(store / "projections") == before


def test_nothing_kept_is_made(tool, send, data):
    send(PlaceOrder(("rope",)))
    result = tool("replay")
    assert [row[:2] for row in rows(result)] == [[name, "not kept"] for name in NAMES]
    assert "None of 3 projections differed" in result.stderr
    assert kept(data).exists()
    assert kept(data, "orders-a-day").exists()
    assert [row[1] for row in rows(tool("replay"))[:2]] == ["equal", "equal"]


def test_of_an_empty_store_nothing_is_made(tool, data):
    for arguments in (["replay", "--dry-run"], ["replay"]):
        result = tool(*arguments)
        assert [row[:2] for row in rows(result)] == [[name, "not kept"] for name in NAMES]
    assert not data.exists()


def test_a_projection_that_lags_behind_is_no_difference(store, tool, send):
    send(PlaceOrder(("carpet",)))
    before = kept(store).read_bytes()
    for arguments in (["replay", "--dry-run"], ["replay"]):
        result = tool(*arguments)
        assert [row[:2] for row in rows(result)] == [[name, "equal"] for name in NAMES]
    assert kept(store).read_bytes() == before  # or it was made as new as the log: same answers
    sold = json.loads(done(tool("stats", "--json")))["items"]
    assert {"item": "carpet", "times": 1} in sold


# What differs


class Miscounted(ItemSales):
    """As if the projection's code had had an error when its snapshot was kept."""

    def apply(self, event):
        super().apply(event)
        self.tables["sold"] |= {"rope": 1000, "gold": 1}
        self.tables["sold"].pop("lamp", None)


@pytest.fixture
def miscounted(store):
    """The store, with wrong numbers under a right checksum."""
    kept(store).unlink()
    with bootstrap(store) as app, SingleThreadedRunner(app, [Miscounted]):
        pass
    return store


class Broken(ItemSales):
    """A projection of a plugin that does not cope with what was stored."""

    name = "broken"

    def apply(self, event):
        raise LookupError("on purpose")


DIFFERENCES = [
    ["item-sales", 'sold "gold"', "kept 1, the log says nothing"],
    ["item-sales", 'sold "lamp"', "kept nothing, the log says 1"],
    ["item-sales", 'sold "rope"', "kept 1000, the log says 2"],
]


def test_a_projection_that_fails_keeps_no_other_one_from_being_rebuilt(miscounted):
    with bootstrap(miscounted) as app:
        with pytest.raises(FollowerError, match="on purpose"):
            list(replay(app.store, [Broken, *SHIPPED], keep=True))
        found = {one.name: one.found for one in replay(app.store, SHIPPED, keep=False)}
    assert found == dict.fromkeys(NAMES, "equal")


def test_what_differs_from_the_log_is_named_with_both_values_and_repaired(miscounted, tool):
    assert json.loads(done(tool("stats", "--json")))["items"][0] == {"item": "rope", "times": 1000}
    for arguments, said in (
        (["replay", "--dry-run"], "1 of 3 projections differed from the log; nothing was changed"),
        (["replay"], "1 of 3 projections differed from the log; they were rebuilt"),
    ):
        result = tool(*arguments)
        found = rows(result)
        assert found[0][:2] == ["item-sales", "different"]
        assert found[1:4] == DIFFERENCES
        assert [row[:2] for row in found[4:]] == [[name, "equal"] for name in NAMES[1:]]
        assert said in result.stderr
    again = tool("replay")
    assert [row[1] for row in rows(again)] == ["equal"] * 3
    assert again.stderr == "None of 3 projections differed from the log.\n"
    assert json.loads(done(tool("stats", "--json")))["items"][0] == {"item": "rope", "times": 2}


def test_a_lagging_projection_differs_in_what_is_wrong_only(miscounted, tool, send):
    send(PlaceOrder(("carpet",)))  # which the kept one does not know, and need not
    differences = [row for row in rows(tool("replay", "--dry-run")) if "kept" in row[2]]
    assert differences == DIFFERENCES


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def scribbled(path):
    path.write_bytes(b"\xff my notes")


def emptied(path):
    path.write_bytes(b"")


def edited(path):
    edit(path, '"lamp"', '"lump"')


HARMS = {cut: "is not valid JSON", scribbled: "is not valid JSON", emptied: "not kept"}


@pytest.mark.parametrize("name", ["item-sales", "bestseller"])
@pytest.mark.parametrize("harm", [*HARMS, edited], ids=lambda harm: harm.__name__)
@pytest.mark.sample(4)
def test_what_is_harmed_is_said_to_be_and_repaired(store, tool, name, harm):
    well = kept(store, name).read_bytes()
    harm(kept(store, name))
    said = HARMS.get(harm, "was changed by another program")
    for arguments in (["replay", "--dry-run"], ["replay"]):
        verdicts = {row[0]: row[1] for row in reversed(rows(tool(*arguments)))}
        assert verdicts[name] == said
    verdicts = {row[0]: row[1] for row in rows(tool("replay"))}
    if name == "bestseller":  # which may as well begin anew: it does not react twice
        assert verdicts.pop(name) in {"equal", "not kept"}
    else:
        assert kept(store, name).read_bytes() == well
    assert set(verdicts.values()) == {"equal"}


@pytest.mark.parametrize("value", ["7", "null", '["x"]', '{"a":1}', '"[/]\\u001b[31m"'])
@pytest.mark.parametrize("command", [["replay", "--dry-run"], ["doctor"], ["stats"]], ids=" ".join)
@pytest.mark.sample(7)
def test_whatever_was_written_into_it_by_hand_is_no_crash(store, tool, value, command):
    edit(kept(store), '"lamp"', value)
    result = tool(*command)
    assert result.returncode in {0, 1}
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stdout
    assert "lamp" in result.stdout or command[0] != "stats"


# What it does not do


@pytest.mark.parametrize("harm", [None, cut, edited, emptied])
def test_a_dry_run_changes_not_a_byte(store, tool, send, harm):
    send(PlaceOrder(("carpet",)))
    if harm is not None:
        harm(kept(store))
    before = snapshot(store)
    assert tool("replay", "--dry-run").returncode == 0
    assert snapshot(store) == before


def test_a_replay_sends_no_notice_again(data, tool, send):
    send(*(PlaceOrder(("rope",)) for _ in range(9)))
    assert tool("place", "rope").returncode == 0
    log = (data / "events.jsonl").read_bytes()
    result = tool("replay")
    assert "============" not in result.stdout + result.stderr
    assert (data / "events.jsonl").read_bytes() == log
    with bootstrap(data, notifier=(sales := Sales())) as app:
        for one in replay(app.store, SHIPPED, keep=True):
            assert one.differences == []
    assert sales.notices == []
    assert (data / "events.jsonl").read_bytes() == log


@pytest.mark.engines
def test_after_a_replay_a_policy_still_reacts_to_what_it_had_yet_to_see(data, tool, send):
    send(*(PlaceOrder(("rope",)) for _ in range(10)))  # the policy has seen none of them
    assert tool("replay").returncode == 0
    assert reactions(tool) == []
    assert "Bestseller" in tool("place", "lamp").stderr
    assert len(reactions(tool)) == 1


@pytest.mark.engines
def test_after_a_replay_the_tenth_order_still_makes_a_bestseller_once(data, tool, send):
    with bootstrap(data, notifier=Sales()) as app, SingleThreadedRunner(app, [Bestseller]):
        for _ in range(5):
            app.bus.send(PlaceOrder(("rope",)))
    for _ in range(4):
        assert "Bestseller" not in tool("place", "rope").stderr
        assert tool("replay").returncode == 0
    assert "Bestseller" in tool("place", "rope").stderr
    assert tool("replay").returncode == 0
    assert tool("place", "rope").stderr == ""
    assert len(reactions(tool)) == 1


def test_a_policy_that_is_harmed_neither_repeats_nor_forgets_after_a_replay(store, tool, send):
    send(*(PlaceOrder(("rope",)) for _ in range(7)))  # with the three there are, ten
    for harm in (cut, scribbled, emptied):
        harm(kept(store, "bestseller"))
        assert tool("replay").returncode == 0
        tool("place", "lamp")
        assert len(reactions(tool)) == 1
