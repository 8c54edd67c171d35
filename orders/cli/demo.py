"""The command for whoever wants to learn: scripted runs, each in a directory of its own."""

from typing import TYPE_CHECKING, Annotated

import typer

from .mistakes import UnknownName, WrongUse, within
from .output import Console

if TYPE_CHECKING:
    from ..demos.failing import Plan

ALL = "all"

commands = typer.Typer()


def _scenarios() -> list[str]:
    from ..demos import SCENARIOS  # noqa: PLC0415 - only this command needs them

    return [*SCENARIOS, ALL]


@commands.command(epilog="Example: orders demo crash")
def demo(
    context: typer.Context,
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="[SCENARIO]", autocompletion=_scenarios, help="Which, or all; see --list."
        ),
    ] = "tour",
    list_them: Annotated[bool, typer.Option("--list", help="List the scenarios.")] = False,
    step: Annotated[
        bool, typer.Option("--step", help="Show more at each step, and wait for Enter.")
    ] = False,
    fail: Annotated[
        str | None,
        typer.Option(metavar="SUBSCRIBER:N", help="Have the Nth run of a subscriber raise."),
    ] = None,
) -> None:
    """Play a scripted run; without a name, the tour: the whole idea in a minute.

    Each has a directory of its own, checks what it shows, and leaves nothing behind.
    """
    from ..demos import SCENARIOS, playing  # noqa: PLC0415 - as `_scenarios`

    console: Console = context.obj
    if list_them:
        console.table(("Scenario", "Shows"), [*SCENARIOS.items()])
        return
    if scenario not in _scenarios():
        with within(context):
            raise UnknownName("scenario", scenario, _scenarios(), "orders demo --list")
    plan = _plan(context, fail)
    if scenario == ALL:
        playing.play_all(console, step=step, fail=plan)
    else:
        playing.play(scenario, console, step=step, fail=plan)


def _plan(context: typer.Context, fail: str | None) -> "Plan | None":
    from ..demos.failing import Plan  # noqa: PLC0415 - as `_scenarios`

    try:
        return None if fail is None else Plan.parse(fail)
    except ValueError as error:
        with within(context):
            raise WrongUse(f"--fail: {error}", "orders demo --fail order_created:1") from None
