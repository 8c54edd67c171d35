"""The command for whoever wants to learn: scripted runs, each in a directory of its own."""

from typing import Annotated

import typer

from .options import end_on_signals
from .output import Console

commands = typer.Typer()


@commands.command(epilog="Example: orders demo unit-of-work --step")
def demo(
    context: typer.Context,
    scenario: Annotated[
        str, typer.Argument(metavar="[SCENARIO]", help="Which; see --list.")
    ] = "article",
    list_them: Annotated[bool, typer.Option("--list", help="List the scenarios.")] = False,
    step: Annotated[bool, typer.Option("--step", help="Wait for Enter between steps.")] = False,
) -> None:
    """Play a scripted run, in a directory of its own.

    Each run checks what it shows, and fails if that has not happened.
    """
    from ..demos import SCENARIOS, play  # noqa: PLC0415 - only this command needs them

    console: Console = context.obj
    if list_them:
        console.table(("Scenario", "Shows"), [(name, text) for name, text in SCENARIOS.items()])
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(
            f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}", context
        )
    end_on_signals()
    play(scenario, console, step=step)
