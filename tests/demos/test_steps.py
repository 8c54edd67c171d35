"""What a presenter shows: `--step` with what is behind each step, `--fail`, all scenarios."""

import ast
import inspect
import re
from itertools import chain
from pathlib import Path

import pytest

from orders import OrderCreated, PlaceOrder, ShipOrder, demos
from orders.application.handlers import (
    COMMAND_HANDLERS,
    EVENT_SUBSCRIBERS,
    order_created,
    place_order,
)
from orders.cli.output import Console
from orders.demos import SCENARIOS, playing
from orders.demos.failing import Plan
from orders.demos.lesson import Files, essence, introduce
from orders.demos.playing import play, play_all

HANDLERS = [*COMMAND_HANDLERS.values(), *chain.from_iterable(EVENT_SUBSCRIBERS.values())]


def test_each_step_shows_question_command_message_source_log_state_and_pending(tool):
    result = tool("demo", "article", "--step", input="\n\n\n")
    first, second, third = result.stderr.split("\n> ")[1:]
    _, line = inspect.getsourcelines(place_order)
    shown = [text.strip() for text in first.splitlines()]
    assert shown[1:6] == [
        "? Who calls the sales department?",
        '$ orders place "100 inch TV" "magic carpet"',
        "◆ PlaceOrder on the topic place-order",
        f"→ place_order  handlers.py:{line}",
        f"{line}  def place_order(command: PlaceOrder, *, uow: UnitOfWork) -> str:",
    ]
    assert re.search(r"  \d+ +order = Order\.place\(", first)
    assert re.search(
        r"\[Enter\]\n  events\.jsonl, new lines:\n"
        r'    \+ \{"format": 1, "seq": 1, "time": "…", "messages": \[\{"type": "PlaceOrder",'
        r'.* "id": "[0-9a-f]{8}…", .*\n'
        r'    \+ \{"format": 1, "seq": 2, .*"subscriber": "order_created", "status": "done".*\n'
        r"  orders\.json, changed:\n"
        r"    \+ [0-9a-f]{8}  placed  100 inch TV, magic carpet\n"
        r"  pending: nothing\n",
        first,
    )
    assert '"seq": 3' in second
    assert '"seq": 1' not in second
    assert second.index("pending: nothing") < second.index("ok: two orders")
    assert "new lines" not in third


def test_every_step_of_every_scenario_has_a_question_for_the_audience():
    for source in Path(demos.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"step", "_begin"}:
                asks = [keyword for keyword in node.keywords if keyword.arg == "asks"]
                assert asks, f"{source.name}:{node.lineno}"


def test_a_step_shows_what_waits_and_what_has_changed(app, data):
    files = Files(data.parent)
    assert [*files.changes()] == []
    app.bus.subscribe(OrderCreated, lambda event: 1 / 0, name="broken", priority=-1)
    order_id = app.bus.send(PlaceOrder(("rope",)))
    app.store.checkpoint()
    *_, changed, order, pending = files.changes()
    assert (changed, order) == ("orders.json, changed:", f"  + {order_id[:8]}  placed  rope")
    assert pending == "pending: nothing"
    app.bus.send(ShipOrder(order_id))
    app.store.checkpoint()
    shown = [*files.changes()]
    assert shown[0] == "events.jsonl, new lines:"
    assert f"  ~ {order_id[:8]}  status placed → shipped, version 1 → 2" in shown


def test_a_step_shows_what_a_killed_process_had_yet_to_deliver(tool, data):
    tool("place", "rope", env={"ORDERS_FAULT": "after-fsync"})
    assert re.search(r"^pending: order_created of event [0-9a-f]{8}$", [*Files(data).changes()][-1])


def test_the_lines_of_a_handler_are_its_signature_its_purpose_and_what_it_does():
    _, first = inspect.getsourcelines(order_created)
    assert [*essence(order_created)] == [
        f"{first:>4}  def order_created(event: OrderCreated, *, bus: MessageBus) -> None:",
        f'{first + 1:>4}      """Have sales notified of a new order."""',
        f"{first + 2:>4}      bus.send(NotifySales(order_id=event.order_id, items=event.items))",
    ]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
def test_every_handler_is_shown_in_three_lines(handler):
    signature, purpose, work = (line[6:] for line in essence(handler))
    assert re.fullmatch(rf"def {handler.__name__}\(.*\) -> .*:", signature)
    assert re.fullmatch(r' +""".*\."""', purpose)
    assert re.fullmatch(r" +[^ ].*[^:]", work)


def test_an_event_is_introduced_with_whoever_hears_it():
    shown = [*introduce(OrderCreated)]
    assert shown[0] == "● OrderCreated on the topic order-created"
    assert shown[1].startswith("  → order_created  handlers.py:")


@pytest.mark.parametrize(
    ("scenario", "fail"),
    [("article", "order_created:2"), ("plugin", "pay_back:2"), ("crash", "order_created:1")],
)
@pytest.mark.sample(2)
def test_a_run_that_is_made_to_fail_is_tried_again(tool, scenario, fail):
    result = tool("demo", scenario, "--fail", fail)
    subscriber, nth = fail.split(":")
    assert result.returncode == 0, result.stderr
    assert re.search(
        rf"^--fail {fail}: {subscriber} ran \d+ times; the {nth}(st|nd) run was made to fail\.$",
        result.stderr,
        re.MULTILINE,
    )


def test_the_run_that_is_made_to_fail_is_seen_in_the_log(tool):
    result = tool("demo", "poison", "--fail", "order_created:1")
    delivered = [line for line in result.stdout.splitlines() if "delivered" in line]
    assert delivered[0].endswith("2nd attempt")


def test_a_run_that_never_comes_is_said(tool):
    result = tool("demo", "article", "--fail", "mail_customer:7")
    assert result.returncode == 0
    warning = "warning: --fail mail_customer:7: mail_customer ran 0 times"
    assert f"{warning}, so nothing was made to fail" in result.stderr


@pytest.mark.parametrize("fail", ["order_created", "order_created:0", ":1", "order_created:x", ""])
def test_what_is_no_run_of_a_subscriber_is_wrong_use(tool, fail):
    result = tool("demo", "--fail", fail)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{fail!r} is not SUBSCRIBER:N, like order_created:1" in result.stderr


def test_a_plan_counts_the_runs_of_every_process(fork, app, tmp_path):
    plan = Plan("order_created", 3, tmp_path / "runs")

    def run_twice():
        plan._count()
        plan._count()

    assert fork(run_twice).wait() == 0
    plan.install(app)
    app.bus.send(PlaceOrder(("rope",)))
    (done,) = app.store.deliveries("done")
    assert (done.delivery.attempts, plan.counted) == (2, 4)


def leave_only(monkeypatch, *scenarios):
    monkeypatch.setattr(playing, "SCENARIOS", {one: SCENARIOS[one] for one in scenarios})


def test_demo_all_ends_in_a_table(monkeypatch, capsys):
    leave_only(monkeypatch, "article", "session")
    play_all(Console())
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-2:] == ["article\t✓ ok\t2 checks", "session\t✓ ok\t7 checks"]


def test_demo_all_goes_on_after_a_scenario_that_fails_and_exits_1(monkeypatch, capsys):
    leave_only(monkeypatch, "article", "simple")
    monkeypatch.setattr("orders.demos.stage.Stage.notify", lambda *_: None)
    console = Console()
    monkeypatch.setattr("orders.demos.simple.run", lambda stage: stage.check("it is so", True))
    assert console.run(lambda: play_all(console)) == 1
    shown = capsys.readouterr()
    *_, article, simple = shown.out.splitlines()
    assert article.startswith("article\t✗ NOT SO\tthe demo did not show what it says: two orders")
    assert simple == "simple\t✓ ok\t1 check"
    assert "error: 1 scenario did not show what they say: article" in shown.err


def test_a_scenario_that_is_mistyped_is_guessed(tool):
    result = tool("demo", "poisen")
    assert result.returncode == 2
    assert result.stderr == "error: no scenario 'poisen'\ntry: orders demo poison\n"


def test_the_environment_of_the_demos_is_their_own(tool, tmp_path):
    hostile = {
        "ORDERS_FAULT": "before-fsync",
        "ORDERS_NOTIFY": f"file:{tmp_path / 'notices'}",
        "ORDERS_LOCK_TIMEOUT": "0",
    }
    assert tool("demo", "crash", env=hostile).returncode == 0
    assert not (tmp_path / "notices").exists()


def test_play_returns_how_many_claims_were_checked(capsys):
    assert play("article", Console()) == 2
