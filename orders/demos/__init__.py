"""Scripted runs, one file each; every one checks that what it shows has happened."""

from collections.abc import Callable
from importlib import import_module

from ..cli.output import Console
from ..domain.text import count
from ..errors import OrdersError
from .failing import Plan
from .stage import Stage
from .workspace import Workspace, play_in

__all__ = ["SCENARIOS", "Stage", "play", "play_all"]

SCENARIOS = {
    "tour": "the whole idea in a minute: five scenes, read from the store",
    "article": "two orders, two notices, then the list: the article's run",
    "simple": "the same in twenty lines: pubsub and a dict",
    "subscriber": "one feature more, by calls and by events: the lines that change",
    "unit-of-work": "a command returns a value; events follow the commit, or never",
    "session": "override a dependency; add, commit, roll back an order",
    "failure": "a subscriber fails, is shown, is repaired, is delivered to again",
    "poison": "a message that always fails: a dead letter; what follows it flows",
    "system": "followers of the log count items, in one thread and in many",
    "replay": "a projection with a bug, rebuilt; nobody is notified again",
    "crash": "kill -9 between commit and notice: the next command delivers",
    "race": "eight processes at once, on plain TinyDB and on this store",
    "key": "eight processes, one key, one order",
    "plugin": "refunds: command, event, projection and policy in one module",
}


def play(
    scenario: str,
    console: Console,
    *,
    step: bool = False,
    is_paced: bool = True,
    fail: Plan | None = None,
) -> int:
    """Play one of `SCENARIOS` in a directory of its own; return how many claims were checked.

    Raises:
        OrdersError: it did not show what it says.
    """
    run: Callable[[Stage], None] = import_module(f".{scenario.replace('-', '_')}", __name__).run
    workspace = Workspace()
    stage = Stage(console, workspace, step=step, is_paced=is_paced, plan=fail)

    def from_start_to_end() -> None:
        run(stage)
        stage.finish()

    play_in(workspace, from_start_to_end)
    return stage.checks


def play_all(console: Console, *, step: bool = False, fail: Plan | None = None) -> None:
    """Play every scenario; show what came of each in a table.

    Raises:
        OrdersError: some did not show what they say.
    """
    results = []
    for scenario, text in SCENARIOS.items():
        console.say("")
        console.say(text, f"{scenario}:", "magenta")
        try:
            checks = play(scenario, console, step=step, is_paced=False, fail=fail)
            results.append((scenario, "✓ ok", count(checks, "check")))
        except OrdersError as error:
            results.append((scenario, "✗ NOT SO", str(error)))
    console.say("")
    console.table(("Scenario", "Result", "Checked"), results)
    if wrong := [scenario for scenario, result, _ in results if result != "✓ ok"]:
        names = ", ".join(wrong)
        raise OrdersError(f"{count(len(wrong), 'scenario')} did not show what they say: {names}")
