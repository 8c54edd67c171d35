"""The commands for whoever keeps the store: deliver again, check it, mend it."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from . import views
from .console import Console
from .errors import OrdersError
from .parameters import JsonOption, open_store

commands = typer.Typer()


@commands.command(epilog="Example: orders deliveries --failed")
def deliveries(
    context: typer.Context,
    failed: Annotated[bool, typer.Option("--failed", help="Failed ones and dead letters.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Only those still owed.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what each subscriber got, and what it is owed."""
    with open_store(context, recover=False) as (console, store):
        wanted = (*(("failed", "dead") if failed else ()), *(("pending",) if pending else ()))
        accounts = store.deliveries.accounts().having(*wanted)
        if json:
            objects = map(views.delivery_object, accounts)
            console.json_lines(views.json_array(map(views.as_json, objects)))
        else:
            console.deliveries(accounts)


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
        raise typer.BadParameter("give the ids of events, or --all", context)
    with open_store(context) as (console, store):
        done, tried = store.deliveries.retry_all(ids)
        console.say(f"{done} of {tried} delivered." if tried else "Nothing has failed.")
        if done < tried:
            raise OrdersError(
                "the rest failed again, or has no subscriber here; see orders deliveries --failed"
            )


@commands.command(epilog="Example: orders doctor --repair")
def doctor(
    context: typer.Context,
    mend: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
) -> None:
    """Check the store, and mend it if told to.

    The log, the state, the lock, permissions, deliveries, leftovers: exit 1 if one is not well.
    """
    from .doctor import examine, repair  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, store):
        console.notices_to = "stderr"
        for deed in repair(store) if mend else ():
            console.say(f"Repaired: {deed}.")
        findings = examine(store)
        found = [("ok" if f.is_well else "NOT WELL", f.subject, f.text) for f in findings]
        console.rows(("State", "Of", "Finding"), found)
        if not all(finding.is_well for finding in findings):
            raise OrdersError("the store is not well; orders doctor --repair mends what it can")


@commands.command(epilog="Example: orders checkpoint")
def checkpoint(context: typer.Context) -> None:
    """Bring orders.json and the policies up to date with the log, at once."""
    with open_store(context, in_bulk=True) as (console, store):
        has_changed = store.orders.checkpoint()
        console.say("Brought up to date." if has_changed else "It was up to date.")


@commands.command(epilog="Example: orders replay --dry-run")
def replay(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say; keep what is kept.")
    ] = False,
) -> None:
    """Rebuild the projections from the log and say what differs; nobody is notified again."""
    from . import replay as room  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, store):
        console.notices_to = "stderr"
        replayed = list(room.replay(store, keep=not dry_run))
        found = [row for one in replayed for row in room.rows(one)]
        console.rows(("Projection", "Kept", "Log"), found)
        wrong = sum(one.found not in {"equal", "nothing"} for one in replayed)
        said = f"{wrong or 'None'} of {len(replayed)} projections differed from the log"
        console.say(f"{said}; {'nothing was changed' if dry_run else 'they were rebuilt'}.")


@commands.command(epilog="Example: orders bench --orders 10000")
def bench(
    context: typer.Context,
    orders: Annotated[
        int,
        typer.Option(
            min=0, max=10_000_000, metavar="N", help="How many orders the large store holds."
        ),
    ] = 100_000,
    json: JsonOption = False,
) -> None:
    """Measure how many a second: places, imports, events, lists; plain TinyDB beside them.

    On an empty store and on a large one, both on the disk of the data directory, then removed.
    """
    from . import bench as room  # noqa: PLC0415 - a start pays for what it uses

    console: Console = context.obj
    data: Path = context.meta["data"].absolute()
    parent = next(path for path in (data, *data.parents) if path.is_dir())
    sizes = dict.fromkeys((0, orders))
    for ending in (signal.SIGTERM, signal.SIGHUP):  # are as Ctrl-C, so that nothing is left behind
        signal.signal(ending, signal.default_int_handler)
    with console.progress("Measuring", room.STEPS * len(sizes)) as advance:
        rates = [room.measure(parent, size, advance) for size in sizes]
    if json:
        console.json(list(map(room.as_object, rates)))
    else:
        console.rows(
            ("A second", *(views.count(size, "order") for size in sizes)), room.rows(rates)
        )
