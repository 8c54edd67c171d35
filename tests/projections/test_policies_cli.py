"""The policies as the command line runs them, after every command that writes."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import Sales
from following import reactions, rows, snapshot

from orders import Order, PlaceOrder, bootstrap
from orders.adapters.files.faults import POINTS
from orders.adapters.files.snapshots import SMALL
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import Bestseller

BESTSELLER = (
    r"============\nBestseller, ordered 10 times:\n============\nID: {}\nItems: \['rope'\]\n"
)


@pytest.mark.engines("long")
def test_the_tenth_order_of_an_item_makes_it_a_bestseller_and_the_eleventh_does_not(tool):
    for number in range(1, 13):
        result = tool("place", "rope")
        notice = re.fullmatch(
            r"============\nNew Order:\n============\nID: (\S+)\nItems: \['rope'\]\n", result.stdout
        )
        assert result.returncode == 0
        expected = BESTSELLER.format(notice[1]) if number == 10 else ""
        assert re.fullmatch(expected, result.stderr), number
    assert len(reactions(tool)) == 1


@pytest.mark.engines
def test_one_order_of_many_makes_one_bestseller(tool):
    result = tool("place", *["rope"] * 25, "lamp")
    assert result.returncode == 0
    assert result.stderr.count("Bestseller, ordered 25 times:") == 1
    assert tool("place", "rope").stderr == ""
    assert len(reactions(tool)) == 1


@pytest.mark.engines
def test_place_json_prints_nothing_else_on_standard_output(tool, send):
    send(*(PlaceOrder(("rope",)) for _ in range(9)))
    result = tool("place", "rope", "--json")
    assert json.loads(result.stdout)["items"] == ["rope"]
    assert result.stdout.count("\n") == 1
    assert re.search(BESTSELLER.format(r"\S+"), result.stderr)


@pytest.mark.engines
def test_what_python_placed_the_next_command_that_writes_reacts_to(tool, send):
    order_ids = send(*(PlaceOrder(("rope",)) for _ in range(12)))
    assert tool("list").stderr == ""
    result = tool("ship", order_ids[0])
    assert result.stdout == ""
    assert re.search(BESTSELLER.format(order_ids[9]), result.stderr)
    assert len(reactions(tool)) == 1


@pytest.mark.engines
def test_what_a_policy_has_yet_to_react_to_is_said_and_made_up_for(tool, send):
    order_ids = send(*(PlaceOrder(("rope",)) for _ in range(12)))
    examined = tool("doctor")
    assert examined.returncode == 0
    assert "bestseller has yet to react to 1 event\torders checkpoint\n" in examined.stdout
    late = [row for row in rows(tool("trace", order_ids[9])) if row[1] == "bestseller"]
    ((_, _, _, _, text),) = late
    assert text.endswith("has not run yet; orders checkpoint has it do so")
    assert "bestseller" not in tool("trace", order_ids[8]).stdout
    assert reactions(tool) == []
    repaired = tool("doctor", "--repair")
    assert "Repaired: had bestseller react to 1 event." in repaired.stderr
    assert re.search(BESTSELLER.format(order_ids[9]), repaired.stderr)
    assert "bestseller" not in tool("doctor").stdout
    assert len(reactions(tool)) == 1


def test_a_checkpoint_that_a_policy_cannot_follow_sends_to_the_doctor_who_says_why(tool, data):
    tool("place", "rope")
    (data / "projections").mkdir()
    (data / "projections" / "bestseller.json").write_text('{"foo": 1}')
    assert tool("checkpoint").stderr.splitlines()[-2:] == [
        "error: 1 policy could not catch up; the others did",
        "try: orders doctor",
    ]
    assert "NOT WELL\tpolicies" in tool("doctor").stdout


# the short form kills at each point once, and where the notice and the reaction are stored
FAULTS = [
    *POINTS,
    "after-append@2",
    "torn-append@3",
    *(
        pytest.param(f"{point}@{nth}", marks=pytest.mark.long)
        for nth in (2, 3)
        for point in POINTS
        if "append" in point or "fsync" in point
        if f"{point}@{nth}" not in {"after-append@2", "torn-append@3"}
    ),
]


@pytest.mark.engines
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.sample(1)
def test_kill_9_anywhere_in_the_tenth_order_leaves_one_reaction_to_it(tool, send, fault):
    send(*(PlaceOrder(("rope",)) for _ in range(9)))
    killed = tool("place", "rope", env={"ORDERS_FAULT": fault})
    assert killed.returncode in {0, -signal.SIGKILL}
    ordered = sum(row[2] == "OrderCreated" for row in rows(tool("log")))
    for _ in range(10 - ordered):
        assert tool("place", "rope").returncode == 0
    assert tool("place", "lamp").returncode == 0
    assert tool("place", "lamp").stderr == ""
    ((_, _, _, _, about),) = reactions(tool)
    assert 'item="rope" times=10' in about


@pytest.mark.engines
def test_those_of_the_order_of_its_notice_and_of_the_reaction_do_kill(tool, send, tmp_path):
    for fault in (
        "torn-append",
        "mid-delivery",
        "after-append@2",
        "before-append@3",
        "torn-append@3",
    ):
        data = tmp_path / fault
        send(*(PlaceOrder(("rope",)) for _ in range(9)), data=data)
        killed = tool("place", "rope", env={"ORDERS_FAULT": fault}, data=data)
        assert killed.returncode == -signal.SIGKILL, fault


@pytest.mark.parametrize("obstacle", ["a directory", "foreign", "newer"])
@pytest.mark.sample(2)
def test_a_policy_that_fails_is_a_warning_and_the_order_is_placed(tool, send, data, obstacle):
    send(*(PlaceOrder(("rope",)) for _ in range(9)))
    path = snapshot(data, Bestseller)
    path.parent.mkdir(mode=0o700)
    if obstacle == "a directory":
        path.mkdir()
    else:
        head = '{"format":9,"seq":1,"offset":9,"line":"1c291ca3","checksum":"1c291ca3"}'
        path.write_text(
            '{"mine": 1}' if obstacle == "foreign" else f'{{"log":{{"1":{head}}},"x":1}}'
        )
    result = tool("place", "rope")
    assert result.returncode == 0
    assert result.stdout.startswith("============\nNew Order:\n")
    assert re.fullmatch(r"warning: .*bestseller\.json.*\ntry: .*\n", result.stderr)
    assert reactions(tool) == []
    path.rmdir() if path.is_dir() else path.unlink()
    assert "Bestseller, ordered 10 times:" in tool("place", "lamp").stderr
    assert len(reactions(tool)) == 1


@pytest.mark.engines
@pytest.mark.parametrize("errors", ["/dev/full", "&-"])
@pytest.mark.sample(1)
def test_a_policy_whose_news_cannot_be_printed_does_not_make_the_order_fail(
    send, data, tool, errors
):
    send(*(PlaceOrder(("rope",)) for _ in range(9)))
    result = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m orders place rope 2>{errors}'],
        capture_output=True,
        text=True,
        env={**os.environ, "ORDERS_DATA": str(data)},
    )
    assert result.stdout.startswith("============\nNew Order:\n")
    assert result.returncode == 0
    tool("place", "lamp")
    assert len(reactions(tool)) == 1


@pytest.mark.engines
def test_a_terminal_that_reacts_while_another_one_does_leaves_one_reaction(send, data, tool):
    order_ids = send(*(PlaceOrder(("rope",)) for _ in range(10)))
    shown = []

    class Slow:
        def notify(self, notice):
            shown.append(notice.title)
            shown.append(tool("ship", order_ids[0]).stderr)  # which reacts, and is quicker

    with bootstrap(data, notifier=Slow()) as app, SingleThreadedRunner(app, [Bestseller]):
        pass
    assert "Bestseller" in shown[0]
    assert "Bestseller" not in shown[1]
    assert len(shown) == 2
    assert len(reactions(tool)) == 1


@pytest.mark.engines("long")
def test_two_terminals_react_once(fork, patched_tool, tool):
    def place():
        return int(any(patched_tool("place", "rope").returncode for _ in range(6)))

    others = [fork(place) for _ in range(2)]
    assert [other.wait() for other in others] == [0, 0]
    tool("place", "lamp")
    assert len(reactions(tool)) == 1


def test_a_policy_that_is_far_behind_catches_up_with_the_next_order(tool, data):
    with bootstrap(data, notifier=Sales()) as app, app.uow() as uow:
        for _ in range(1000):
            uow.orders.add(Order.place(["x" * 450, "y" * 450]))
    assert (data / "events.jsonl").stat().st_size > SMALL
    assert tool("place", "rope").stderr.count("Bestseller") == 2
    assert len(reactions(tool)) == 2
    assert tool("doctor").returncode == 0
