"""The commands for whoever keeps the store: deliver again, check, repair, measure."""

from pathlib import Path
from typing import Annotated

import typer

from ..application.store import START, Status
from ..domain.text import count
from ..errors import OrdersError
from ..settings import without_password
from ..tools.json_lines import json_array
from . import rows
from .mistakes import WrongUse
from .options import JsonOption, end_on_signals, open_app, open_store, react, say_none_yet
from .output import Console

commands = typer.Typer()


@commands.command(epilog="Example: orders deliveries --failed")
def deliveries(
    context: typer.Context,
    failed: Annotated[bool, typer.Option("--failed", help="Failed ones and dead letters.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Only those still to make.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what each subscriber got, and what it has yet to get."""
    wanted: list[Status] = []
    wanted += ["failed", "dead"] if failed else []
    wanted += ["pending"] if pending else []
    with open_store(context, recover=False) as (console, app):
        accounts = list(app.store.deliveries(*wanted))
        if json:
            console.json_lines(json_array(map(rows.account_object, accounts)))
        else:
            console.deliveries(accounts)
        if not accounts and wanted:
            console.say(f"No delivery is {' or '.join(wanted)}.")
        elif not accounts:
            say_none_yet(console, app, "deliveries")
        elif console.draws and not json:
            found = {account.delivery.status for account in accounts}
            hints = {"failed": "orders retry --all", "dead": "orders doctor"}
            hint = next((hints[status] for status in hints if status in found), None)
            console.say(f"{count(len(accounts), 'delivery')}.", hint=hint)


@commands.command(epilog="Example: orders retry --all")
def retry(
    context: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID...]", help="Ids of events, or how they begin."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All that failed, no dead letters.")] = False,
) -> None:
    """Deliver again what has failed: some events by id, or all."""
    if bool(ids) == every:
        raise WrongUse("orders retry needs ids of events, or --all", "orders retry --all")
    with open_store(context) as (console, app):
        done, tried = app.deliveries.retry(ids)
        if tried:
            console.say(f"{done} of {tried} delivered.")
        elif next(app.store.deliveries("dead"), None):
            said = "Only dead letters are left; each is tried by its id."
            console.say(said, hint="orders doctor")
        else:
            console.say("Nothing has failed.")
        if done < tried:
            raise OrdersError(
                "the rest failed again, or have no subscriber here", "orders deliveries --failed"
            )


@commands.command("doctor", epilog="Example: orders doctor")
def check_store(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,
) -> None:
    """Check the store, and repair it with --repair.

    Log, state, projections, policies, deliveries, relays, lock, permissions, leftovers: exit 1 if
    one is not well.
    """
    from ..tools import doctor  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, app):
        console.notices_to = "stderr"
        for repaired in doctor.repair(app) if repair else ():
            console.say(f"Repaired: {repaired}.")
        findings = doctor.examine(app)
        if console.draws:
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(tables.finding_lines(findings))
        else:
            console.records(map(rows.finding_row, findings))
        if bad := [finding for finding in findings if not finding.is_well]:
            cures = [finding.cure for finding in bad if finding.cure]
            hint = doctor.REPAIR if doctor.REPAIR in cures else next(iter(cures), None)
            raise OrdersError("the store is not well", hint)


@commands.command(epilog="Example: orders checkpoint")
def checkpoint(context: typer.Context) -> None:
    """Bring orders.json and the policies up to date with the log, at once."""
    with open_store(context) as (console, app):
        if app.store.checkpoint():
            console.say("Brought up to date.")
        elif app.store.head() == START:
            say_none_yet(console, app, "orders")
        else:
            console.say("It was up to date.")
        if failed := react(console, app, at_any_cost=True):
            said = f"{count(failed, 'policy')} could not catch up; the others did"
            raise OrdersError(said, "orders doctor")


@commands.command("replay", epilog="Example: orders replay --dry-run")
def replay_log(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say; keep what is kept.")
    ] = False,
) -> None:
    """Rebuild the projections from the log and say what differs; nobody is notified again."""
    from ..projections.replay import replay  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, app):
        console.notices_to = "stderr"
        replayed = list(replay(app.store, app.projections.values(), keep=not dry_run))
        found = [row for one in replayed for row in rows.replay_rows(one)]
        console.table(("Projection", "Kept", "Log"), found)
        wrong = sum(not one.is_right for one in replayed)
        said = f"{wrong or 'None'} of {len(replayed)} projections differed from the log"
        done = "; nothing was changed" if dry_run else "; they were rebuilt" if wrong else ""
        console.say(f"{said}{done}.")


@commands.command("copy", epilog="Example: orders copy data elsewhere")
def copy_store(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="A store; it is only read.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty one, or part of a copy.")],
) -> None:
    """Carry a whole store into another one: log, orders, keys, deliveries.

    Interrupted, it is run again, and goes on. In the end the two are compared.
    """
    from ..tools import copy  # noqa: PLC0415 - a start pays for what it uses

    console: Console = context.obj
    with open_app(context, source, defer=True) as old, open_app(context, target, defer=True) as new:
        copied = copy.copy(old, new, console.progress)
        there = copied.total - copied.carried
        known = f"; {there:,} were there" if there else ""
        console.say(f"{count(copied.carried, 'record')} copied{known}.")
        if not copied.is_complete:
            raise OrdersError(
                f"{without_password(source)} was written to meanwhile",
                "end what writes there, then run it again",
            )


@commands.command("bench", epilog="Example: orders bench --orders 10000")
def run_bench(
    context: typer.Context,
    orders: Annotated[
        int,
        typer.Option(
            min=0, max=10_000_000, metavar="N", help="How many orders the large store holds."
        ),
    ] = 100_000,
    json: JsonOption = False,
) -> None:
    """Measure how many a second: places, imports, events, lists, folds; plain TinyDB beside them.

    Places by one process and by eight at once; beside them what the disk allows. On an empty
    store and on a large one, both on the disk of the data directory, then removed.
    """
    from ..tools import bench  # noqa: PLC0415 - a start pays for what it uses

    console: Console = context.obj
    if "://" in context.meta["data"]:
        raise OrdersError("only a disk of this machine is measured", "orders --data data bench")
    data = Path(context.meta["data"]).absolute()
    parent = next(path for path in (data, *data.parents) if path.is_dir())
    sizes = dict.fromkeys((0, orders))
    end_on_signals()
    with console.progress("Measuring", bench.STEPS * len(sizes)) as advance:
        rates = [bench.measure(parent, size, advance) for size in sizes]
    if json:
        console.json(list(map(bench.as_object, rates)))
    else:
        console.table(("A second", *(count(size, "order") for size in sizes)), bench.rows(rates))
