"""`orders deliveries` and `orders retry`: what failed is seen, and delivered later."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from orders import OrderRejected, PlaceOrder, bootstrap
from orders.application.deliveries import CLAIMED, RETRIES
from orders.settings import Settings

FULL = "/dev/full"  # where nothing can be printed
DONE, FAILED, DEAD = "done", "failed", "dead"


@pytest.fixture
def failed(tool):
    """Place an order whose notice cannot be printed; returns its event's id."""
    placed = tool("place", "100 inch TV", stdout=FULL)
    assert placed.stderr.startswith("warning: order_created failed on OrderCreated ")
    (row,) = rows(tool("deliveries", "--failed"))
    return row[0]


def rows(run):
    return [line.split("\t") for line in run.stdout.splitlines()]


@pytest.mark.engines
def test_a_notice_that_cannot_be_printed_leaves_the_order_and_a_failed_delivery(failed, tool):
    assert len(rows(tool("list"))) == 1
    ((event, subscriber, status, attempts, _changed, error),) = rows(tool("deliveries"))
    assert (event, subscriber, status, attempts) == (failed, "order_created", FAILED, "3")
    assert "No space left" in error
    assert tool("deliveries", "--pending").stdout == ""
    doctor = tool("doctor")
    assert (doctor.returncode, "orders retry" in doctor.stdout) == (1, True)


@pytest.mark.engines
def test_a_failed_delivery_does_not_change_the_exit_code_of_place(tool):
    placed = tool("place", "100 inch TV", stdout=FULL)
    assert len(rows(tool("list"))) == 1
    assert (placed.returncode, placed.stderr.count("\n")) == (0, 2), placed.stderr


@pytest.mark.engines
def test_a_delivery_that_fails_once_is_tried_again_at_once_and_nobody_is_troubled(orders, tool):
    placed = orders("place", "a", env={"ORDERS_FAULT": "before-delivery=EIO"})
    assert (placed.returncode, placed.stderr) == (0, "")  # the second try succeeded
    assert rows(tool("deliveries"))[0][2:4] == [DONE, "2"]


@pytest.mark.engines
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


@pytest.mark.engines
def test_what_a_dead_process_left_is_shown_as_pending_and_looking_delivers_nothing(tool):
    assert tool("place", "a", env={"ORDERS_FAULT": "before-delivery"}).returncode == -9
    for _ in range(2):
        looked = tool("deliveries", "--pending", "--json")
        assert [delivery["status"] for delivery in json.loads(looked.stdout)] == ["pending"]
        assert "New Order" not in looked.stderr
    assert tool("list").stderr.count("New Order") == 1
    assert tool("deliveries", "--pending", "--json").stdout.split() == ["[", "]"]


@pytest.mark.engines
@pytest.mark.parametrize("how", ["--all", "id", "beginning"])
@pytest.mark.sample(3)
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


@pytest.mark.engines
def test_a_retry_of_an_unknown_event_is_an_error_that_says_where_to_look(failed, tool):
    for unknown in ("", "nonsense", "ffffffff-ffff-4fff-8fff-ffffffffffff"):
        retried = tool("retry", unknown)
        assert (retried.returncode, retried.stdout) == (1, "")
        assert retried.stderr.count("\n") == 2
        assert unknown in retried.stderr
        assert "orders deliveries" in retried.stderr
    assert rows(tool("deliveries"))[0][2:4] == [FAILED, "3"]


@pytest.mark.engines
def test_a_retry_of_nothing_or_of_everything_and_something_is_wrong_usage(failed, tool):
    assert tool("retry").returncode == tool("retry", "--all", failed).returncode == 2


@pytest.mark.engines
def test_a_delivery_retried_five_times_in_vain_is_a_dead_letter_delivered_by_its_id(failed, tool):
    for number in range(1, RETRIES + 1):
        retried = tool("retry", "--all", stdout=FULL)
        assert retried.returncode == 1
        assert "0 of 1 delivered" in retried.stderr
        assert "error: the rest failed again, or have no subscriber here\n" in retried.stderr
        status = DEAD if number == RETRIES else FAILED
        assert rows(tool("deliveries", "--failed"))[0][2:4] == [status, str(3 + number)]
    doctor = tool("doctor")
    assert "dead letter" in doctor.stdout
    assert doctor.stderr.splitlines()[1] == f"try: orders retry {failed[:8]}"
    skipped = tool("retry", "--all")
    assert (skipped.returncode, skipped.stdout) == (0, "")
    assert skipped.stderr.splitlines() == [
        "Only dead letters are left; each is tried by its id.",
        "try: orders doctor",
    ]
    assert rows(tool("deliveries", "--failed"))[0][2] == DEAD
    assert tool("retry", failed, stdout=FULL).returncode == 1
    assert rows(tool("deliveries", "--failed"))[0][2] == DEAD
    delivered = tool("retry", failed)
    assert (delivered.returncode, delivered.stdout.count("New Order:")) == (0, 1)
    assert rows(tool("deliveries"))[0][2] == DONE
    assert tool("doctor").returncode == 0


@pytest.mark.engines
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


@pytest.mark.engines
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


@pytest.mark.engines
def test_a_retry_of_many_that_is_killed_leaves_those_it_was_not_at_to_the_next_command(tool):
    for item in ("rope", "lamp", "rug"):
        tool("place", item, stdout=FULL)
    killed = tool("retry", "--all", env={"ORDERS_FAULT": "before-delivery@2"})
    assert (killed.returncode, killed.stdout.count("New Order:")) == (-9, 1)
    assert [row[2] for row in rows(tool("deliveries"))] == [DONE, "pending", "pending"]
    assert tool("list").stderr.count("New Order:") == 2
    assert [row[2] for row in rows(tool("deliveries"))] == [DONE, DONE, DONE]


@pytest.mark.engines
def test_two_who_retry_everything_at_once_make_each_delivery_once(fork, data, tmp_path):
    class Unreachable:
        def notify(self, _notice):
            raise OSError("down")

    many = 2 * CLAIMED + 50
    with bootstrap(data, notifier=Unreachable(), on_failure=lambda *_: None) as app, app.uow():
        for number in range(many):
            app.bus.send(PlaceOrder((f"item {number}",)))
    notices, start = tmp_path / "notices", tmp_path / "start"

    def retry_all():
        while not start.exists():
            pass
        with bootstrap(data, settings=Settings(notify=f"file:{notices}")) as app:
            app.deliveries.retry()

    both = [fork(retry_all) for _ in range(2)]
    start.touch()
    assert [one.wait() for one in both] == [0, 0]
    told = notices.read_text("utf-8").splitlines()
    assert sorted(line for line in told if line.startswith("Items:")) == sorted(
        f"Items: ['item {number}']" for number in range(many)
    )
    with bootstrap(data) as app:
        made = [account.delivery for account in app.store.deliveries()]
    assert {(one.status, one.attempts) for one in made} == {(DONE, 4)}


def test_two_subscribers_of_one_event_that_failed_are_retried_by_one_id():
    is_down = True

    def fail(event):
        if is_down:
            raise OSError("down")

    with bootstrap(":memory:", notifier=None, on_failure=lambda *_: None) as app:
        for name in ("fail", "also_fail"):
            app.bus.subscribe(OrderRejected, fail, name=name)
        app.unit_of_work.emit(OrderRejected(reason="why"))
        (event, _), *_ = [account.delivery.key for account in app.store.deliveries()]
        assert app.deliveries.retry([event]) == (0, 2)
        is_down = False
        assert app.deliveries.retry([event[:8], event]) == (2, 2)
        assert app.deliveries.retry() == (0, 0)
