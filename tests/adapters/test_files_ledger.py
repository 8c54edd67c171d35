"""Who is owed what: the fold of deliveries, and its proof by kill -9."""

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import ClassVar
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders import Event, OrderCreated, bootstrap
from orders.tools.doctor import examine, repair
from orders.application.store import RETRIES, START, Accounts, Delivery, Ledger, Position

TIME = datetime(2026, 11, 21, tzinfo=UTC)
FULL = "/dev/full"  # where nothing can be printed
DONE, FAILED, DEAD = "done", "failed", "dead"

deliveries = st.builds(
    Delivery,
    event=st.sampled_from("abcd"),
    subscriber=st.sampled_from(["sales", "stock"]),
    status=st.sampled_from(["pending", DONE, FAILED, DEAD]),
    attempts=st.integers(0, 9),
)
logs = st.lists(st.tuples(st.lists(deliveries, max_size=4), st.sampled_from([None, "x", "y"])))


def positions():
    """Where lines of ten bytes stand."""
    return (Position(10 * number, number) for number in count())


def fold(log, ledger=None):
    ledger = ledger or Ledger()
    for (line, owner), position in zip(log, positions(), strict=False):
        ledger.apply(line, owner, position)
    return ledger


# The fold


def test_an_empty_ledger_owes_nothing_and_all_is_settled():
    ledger = Ledger()
    assert ledger.pending() == []
    assert ledger.owed(("a", "sales")) is None
    assert ledger.settled_before(70) == 70


@pytest.mark.parametrize("status", [DONE, FAILED, DEAD])
def test_a_delivery_is_owed_until_it_has_an_outcome(status):
    ledger, pending = Ledger(), Delivery("a", "sales")
    ledger.apply([pending], "x", START)
    assert ledger.owed(("a", "sales")) == (pending, "x", START)
    assert ledger.settled_before(70) == 0
    ledger.apply([Delivery("a", "sales", status)], None, Position(10, 1))
    assert ledger.owed(("a", "sales")) is None
    assert ledger.settled_before(70) == 70


def test_a_delivery_that_is_taken_over_is_owed_by_the_last_owner_and_comes_last():
    first, second, again = Delivery("a", "s"), Delivery("b", "s"), Delivery("a", "s", attempts=1)
    ledger = fold([([first, second], "x"), ([again], "y")])
    assert ledger.pending() == [(second, "x", START), (again, "y", Position(10, 1))]


def test_an_outcome_of_what_was_never_owed_harms_nobody():
    ledger = fold([([Delivery("a", "s", DONE)], None)])
    assert ledger.pending() == []


@given(logs)
def test_what_is_owed_is_what_was_heard_of_last_as_pending(log):
    last = {}
    for (line, owner), position in zip(log, positions(), strict=False):
        for delivery in line:
            last.pop(delivery.key, None)
            last[delivery.key] = (delivery, owner, position)
    expected = [owed for owed in last.values() if owed[0].status == "pending"]
    ledger = fold(log)
    assert ledger.pending() == expected
    assert [ledger.owed(delivery.key) for delivery, *_ in expected] == expected
    end = 10 * len(log)
    assert ledger.settled_before(end) == min([end, *(at.offset for _, _, at in expected)])


@given(logs, st.data())
def test_who_begins_at_the_settled_position_owes_what_everybody_else_does(log, data):
    seen = data.draw(st.integers(0, len(log)))
    first = fold(log[:seen]).settled_before(10 * seen) // 10
    late = Ledger()
    for number in range(first, len(log)):
        late.apply(*log[number], Position(10 * number, number))
    assert late.pending() == fold(log).pending()


@given(logs)
def test_accounts_have_every_delivery_as_it_was_heard_of_last_and_since_when(log):
    accounts, since, changed = Accounts(), {}, {}
    for number, (line, owner) in enumerate(log):
        time = TIME + timedelta(seconds=number)
        accounts.apply(line, owner, time)
        for delivery in line:
            since.setdefault(delivery.key, time)
            changed[delivery.key] = (delivery, owner, time)
    assert {
        account.delivery.key: (account.delivery, account.owner, account.changed)
        for account in accounts.having()
    } == changed
    assert [(a.delivery.key, a.since) for a in accounts.having()] == [*since.items()]
    for status in ("pending", DONE, FAILED, DEAD):
        expected = [key for key in since if changed[key][0].status == status]
        assert [account.delivery.key for account in accounts.having(status)] == expected
    pending = {account.delivery.key for account in accounts.having("pending")}
    assert pending == {owed.delivery.key for owed in fold(log).pending()}


# The proof: events x subscribers, some failing, some poison, all killed again and again


class Asked(Event, frozen=True):
    topic: ClassVar[str] = "asked"

    number: int = 0


class Effect(Event, frozen=True):
    topic: ClassVar[str] = "effect"

    number: int = 0
    subscriber: str = ""


SUBSCRIBERS = ("first", "second", "third")


def luck(number, name):
    return crc32(f"{number} {name}".encode()) % 100


def is_poison(number, name):
    return luck(number, name) == 0


def is_transient(number, name):
    return 1 <= luck(number, name) <= 5


class Stamping:
    """A subscriber whose effect is an event; it fails after it, by the rules above."""

    def __init__(self, name, failures):
        self.name, self.failures = name, failures

    def __call__(self, event, *, uow):
        uow.emit(Effect(number=event.number, subscriber=self.name))
        if is_poison(event.number, self.name):
            raise ValueError("poison")
        if is_transient(event.number, self.name):
            with (self.failures / f"{event.number} {self.name}").open("ab", buffering=0) as file:
                if file.tell() < 1 + event.number % 5:  # once to five times, across all processes
                    file.write(b".")
                    raise OSError("not now")


def open_app(data, failures, progress=None):
    def run(subscriber, event):
        subscriber.run(event)
        if progress is not None:
            os.write(progress, b".")  # about to be recorded

    app = bootstrap(data, on_failure=lambda *_: progress and os.write(progress, b"!"))
    app.deliveries._run = run
    for name in SUBSCRIBERS:
        app.bus.subscribe(Asked, Stamping(name, failures), name=name)
    return app


def asked(app):
    """The numbers of the events in the log, by id; one unreadable line would raise."""
    found = (m for e in app.log.read(containing=[b'"Asked"']) for m in e.line.messages)
    return {message.id: message.number for message in found if isinstance(message, Asked)}


def work(data, failures, progress, me, events):
    """Deliver what the dead owed, then ask what of this worker's share is not asked yet."""
    with open_app(data, failures, progress) as app:
        app.deliveries.recover()
        known = {*asked(app).values()}
        for number in range(me, events, 2):
            if number not in known:
                app.uow().emit(Asked(number=number))


def kill_and_restart(work_as, kills, total, progress, reading):
    """Kill one of two workers after random progress, again and again; then let them finish."""
    chance, killed = random.Random(20261121), 0
    workers = [work_as(me) for me in range(2)]
    while killed < kills:
        for _ in range(chance.randint(1, total // kills)):
            assert os.read(reading, 1)
        me = chance.randrange(2)
        workers[me].kill()
        killed += workers[me].wait() == -9
        workers[me] = work_as(me)
    os.close(progress)
    while os.read(reading, 1 << 16):
        pass
    os.close(reading)
    assert [worker.wait() for worker in workers] == [0, 0]


def keys_in(accounts, *statuses):
    return {account.delivery.key for account in accounts.having(*statuses)}


@pytest.mark.parametrize(
    ("events", "kills"), [(250, 6), pytest.param(10_000, 200, marks=pytest.mark.long)]
)
def test_every_delivery_happens_once_and_ends_in_one_state_whatever_is_killed(
    events, kills, data, fork, tmp_path
):
    failures = tmp_path / "failures"
    failures.mkdir()
    reading, progress = os.pipe()
    kill_and_restart(
        lambda me: fork(work, data, failures, progress, me, events),
        kills,
        len(SUBSCRIBERS) * events,
        progress,
        reading,
    )
    with open_app(data, failures) as app:
        app.deliveries.recover()  # what was owed by a worker killed late
        assert app.log.pending() == []
        by_id = asked(app)
        assert sorted(by_id.values()) == [*range(events)]
        keys = {(event, name) for event in by_id for name in SUBSCRIBERS}
        poison = {(event, name) for event, name in keys if is_poison(by_id[event], name)}
        accounts = app.deliveries.accounts()
        assert keys_in(accounts) == keys
        failed = keys_in(accounts, FAILED)
        assert failed > poison > set()
        assert keys_in(accounts, DONE) == keys - failed

        for _ in range(RETRIES):
            _, tried = app.deliveries.retry()
            assert tried == len(failed)
            failed = keys_in(app.deliveries.accounts(), FAILED)
        assert app.deliveries.retry() == (0, 0)
        accounts = app.deliveries.accounts()
        assert keys_in(accounts, DONE) == keys - poison
        assert keys_in(accounts, DEAD) == poison
        assert {account.delivery.retries for account in accounts.having(DEAD)} == {RETRIES}
        event, _ = min(poison)  # still to be retried by its id
        assert app.deliveries.retry([event]) == (0, sum(key[0] == event for key in poison))
        assert keys_in(app.deliveries.accounts(), DEAD) == poison

        found = (m for e in app.log.read(containing=[b'"Effect"']) for m in e.line.messages)
        effects = [(m.number, m.subscriber) for m in found if isinstance(m, Effect)]
        assert len(effects) == len({*effects})
        assert {*effects} == {(by_id[event], name) for event, name in keys - poison}
        seqs = [entry.line.seq for entry in app.log.read()]
        assert seqs == [*range(1, len(seqs) + 1)]
        list(repair(app))
        assert [f.subject for f in examine(app) if not f.is_well] == ["deliveries"]  # the dead
    print(f"{len(keys)} deliveries, {kills} kills: {len(effects)} effects, {len(poison)} dead")


# Through the tool


@pytest.fixture
def failed(tool):
    """Place an order whose notice cannot be printed; returns its event's id."""
    placed = tool("place", "100 inch TV", stdout=FULL)
    assert placed.stderr.startswith("warning: order_created failed on OrderCreated ")
    (row,) = rows(tool("deliveries", "--failed"))
    return row[0]


def rows(run):
    return [line.split("\t") for line in run.stdout.splitlines()]


def test_a_notice_that_cannot_be_printed_leaves_the_order_and_a_failed_delivery(failed, tool):
    assert len(rows(tool("list"))) == 1
    ((event, subscriber, status, attempts, _changed, error),) = rows(tool("deliveries"))
    assert (event, subscriber, status, attempts) == (failed, "order_created", FAILED, "3")
    assert "No space left" in error
    assert tool("deliveries", "--pending").stdout == ""
    doctor = tool("doctor")
    assert (doctor.returncode, "orders retry" in doctor.stdout) == (1, True)


def test_a_failed_delivery_does_not_change_the_exit_code_of_place(tool):
    placed = tool("place", "100 inch TV", stdout=FULL)
    assert len(rows(tool("list"))) == 1
    assert (placed.returncode, placed.stderr.count("\n")) == (0, 1), placed.stderr


def test_a_delivery_that_fails_once_is_tried_again_at_once_and_nobody_is_troubled(orders, tool):
    placed = orders("place", "a", env={"ORDERS_FAULT": "before-delivery=EIO"})
    assert (placed.returncode, placed.stderr) == (0, "")  # the second try succeeded
    assert rows(tool("deliveries"))[0][2:4] == [DONE, "2"]


def test_deliveries_as_json_have_event_subscriber_status_attempts_error_and_times(failed, tool):
    tool("place", "another")
    found = json.loads(tool("deliveries", "--json").stdout)
    assert [delivery["status"] for delivery in found] == [FAILED, DONE]
    (delivery,) = json.loads(tool("deliveries", "--failed", "--json").stdout)
    assert delivery == found[0]
    assert delivery["event"] == failed
    assert (delivery["subscriber"], delivery["attempts"]) == ("order_created", 3)
    assert "No space left" in delivery["error"]
    since, changed = (datetime.fromisoformat(delivery[name]) for name in ("since", "changed"))
    assert since <= changed
    assert json.loads(tool("deliveries", "--pending", "--json").stdout) == []


def test_what_is_owed_is_shown_as_pending_and_looking_delivers_nothing(tool):
    assert tool("place", "a", env={"ORDERS_FAULT": "before-delivery"}).returncode == -9
    for _ in range(2):
        looked = tool("deliveries", "--pending", "--json")
        assert [delivery["status"] for delivery in json.loads(looked.stdout)] == ["pending"]
        assert "New Order" not in looked.stderr
    assert tool("list").stderr.count("New Order") == 1
    assert tool("deliveries", "--pending", "--json").stdout.split() == ["[", "]"]


@pytest.mark.parametrize("how", ["--all", "id", "beginning"])
def test_a_retry_delivers_what_failed_and_says_so_once(failed, how, tool):
    what = {"--all": "--all", "id": failed, "beginning": failed[:6]}[how]
    retried = tool("retry", what)
    assert retried.returncode == 0
    assert retried.stdout.count("New Order:") == 1
    assert "1 of 1 delivered" in retried.stderr
    assert rows(tool("deliveries"))[0][2:4] == [DONE, "4"]
    assert tool("deliveries", "--failed").stdout == ""
    assert tool("doctor").returncode == 0
    again = tool("retry", "--all")
    assert (again.returncode, again.stdout) == (0, "")
    by_id = tool("retry", failed)
    assert (by_id.returncode, by_id.stdout) == (1, "")


def test_a_retry_of_an_unknown_event_is_an_error_that_says_where_to_look(failed, tool):
    for unknown in ("", "nonsense", "ffffffff-ffff-4fff-8fff-ffffffffffff"):
        retried = tool("retry", unknown)
        assert (retried.returncode, retried.stdout) == (1, "")
        assert retried.stderr.count("\n") == 1
        assert unknown in retried.stderr
        assert "orders deliveries" in retried.stderr
    assert rows(tool("deliveries"))[0][2:4] == [FAILED, "3"]


def test_a_retry_of_nothing_or_of_everything_and_something_is_wrong_usage(failed, tool):
    assert tool("retry").returncode == tool("retry", "--all", failed).returncode == 2


def test_a_delivery_retried_five_times_in_vain_is_a_dead_letter_delivered_by_its_id(failed, tool):
    for number in range(1, RETRIES + 1):
        retried = tool("retry", "--all", stdout=FULL)
        assert retried.returncode == 1
        assert "0 of 1 delivered" in retried.stderr
        status = DEAD if number == RETRIES else FAILED
        assert rows(tool("deliveries", "--failed"))[0][2:4] == [status, str(3 + number)]
    assert "dead letter" in tool("doctor").stdout
    skipped = tool("retry", "--all")
    assert (skipped.returncode, skipped.stdout) == (0, "")
    assert rows(tool("deliveries", "--failed"))[0][2] == DEAD
    assert tool("retry", failed, stdout=FULL).returncode == 1
    assert rows(tool("deliveries", "--failed"))[0][2] == DEAD
    delivered = tool("retry", failed)
    assert (delivered.returncode, delivered.stdout.count("New Order:")) == (0, 1)
    assert rows(tool("deliveries"))[0][2] == DONE
    assert tool("doctor").returncode == 0


def test_a_retry_that_cannot_print_is_exit_1_with_nothing_of_pythons_own(failed, data):
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "orders", "--data", str(data), "retry", failed]
    with Path(FULL).open("w") as full:
        retried = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert retried.returncode == 1, retried.stderr
    assert "0 of 1 delivered" in retried.stderr
    assert "Exception" not in retried.stderr


def test_what_comes_after_a_poison_event_flows(failed, tool):
    after = tool("place", "another")
    assert (after.returncode, after.stderr) == (0, "")
    assert after.stdout.count("New Order:") == 1
    assert [row[2] for row in rows(tool("deliveries"))] == [FAILED, DONE]


@pytest.mark.parametrize("point", ["before-delivery", "mid-delivery", "torn-append@2"])
def test_a_retry_that_is_killed_is_completed_by_the_next_command(failed, point, tool):
    assert tool("retry", "--all", env={"ORDERS_FAULT": point}).returncode == -9
    assert rows(tool("deliveries"))[0][2] == "pending"
    assert tool("list").stderr.count("New Order:") == 1
    assert rows(tool("deliveries"))[0][2] == DONE


def test_two_subscribers_of_one_event_that_failed_are_retried_by_one_id(data, tmp_path):
    down = tmp_path / "down"
    down.touch()

    def fail(event):
        if down.exists():
            raise OSError("down")

    def also_fail(event):
        fail(event)

    with bootstrap(data, on_failure=lambda *_: None) as app:
        app.bus.subscribe(Asked, fail, name="fail")
        app.bus.subscribe(Asked, also_fail, name="also_fail")
        app.bus.subscribe(OrderCreated, fail, name="fail")
        app.uow().emit(Asked(number=1))
        ((event, _), _) = app.deliveries.accounts().by_key
        assert app.deliveries.retry([event]) == (0, 2)
        down.unlink()
        assert app.deliveries.retry([event[:8], event]) == (2, 2)
        assert app.deliveries.retry() == (0, 0)
