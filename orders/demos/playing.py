"""Plays a scenario, or all of them."""

from collections.abc import Callable
from importlib import import_module

from ..cli.output import Console
from ..domain.text import count
from ..errors import OrdersError
from . import SCENARIOS
from .failing import Plan
from .servers import NotInstalled
from .stage import Stage
from .workspace import Workspace, play_in

OK, SKIPPED = "✓ ok", "skipped"


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
    run: Callable[[Stage], None] = import_module(f".{scenario.replace('-', '_')}", __package__).run
    workspace = Workspace()
    stage = Stage(console, workspace, step=step, is_paced=is_paced, plan=fail)

    def from_start_to_end() -> None:
        run(stage)
        stage.finish()

    play_in(workspace, from_start_to_end)
    return stage.checks


def play_all(console: Console, *, step: bool = False, fail: Plan | None = None) -> None:
    """Play every scenario whose servers are installed; show what came of each in a table.

    Raises:
        OrdersError: some did not show what they say.
    """
    results = []
    for scenario, text in SCENARIOS.items():
        console.say("")
        console.say(text, f"{scenario}:", "magenta")
        try:
            checks = play(scenario, console, step=step, is_paced=False, fail=fail)
            results.append((scenario, OK, count(checks, "check")))
        except NotInstalled as error:
            results.append((scenario, SKIPPED, str(error)))
        except OrdersError as error:
            results.append((scenario, "✗ NOT SO", str(error)))
    console.say("")
    console.table(("Scenario", "Result", "Checked"), results)
    if wrong := [scenario for scenario, result, _ in results if result not in {OK, SKIPPED}]:
        names = ", ".join(wrong)
        raise OrdersError(f"{count(len(wrong), 'scenario')} did not show what they say: {names}")
