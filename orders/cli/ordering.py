"""The commands for whoever sells: place orders, find them, move them on, in bulk as well."""

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain, islice
from os.path import realpath
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..application.store import EVERY_ORDER, Filter
from ..domain.commands import CancelOrder, PlaceOrder, ShipOrder
from ..domain.order import MAX_ITEMS, MAX_TEXT
from ..domain.text import count
from ..errors import InvalidOrder, OrdersError
from ..tools.json_lines import json_array
from . import rows
from .mistakes import WrongUse
from .options import (
    DeferOption,
    JsonOption,
    OrderArgument,
    StatusOption,
    open_store,
    say_none_yet,
    time_option,
)

PAGE = 20  # orders in a table, unless --limit says otherwise
MAX_LINE = 10 * MAX_TEXT  # characters of a line of standard input, what surrounds the item included

commands = typer.Typer()


@commands.command(epilog='Example: orders place "100 inch TV" "magic carpet" --customer "Aunt Mae"')
def place(
    context: typer.Context,
    items: Annotated[
        list[str],
        typer.Argument(metavar="ITEM...", help="What is ordered; - reads one a line from stdin."),
    ],
    customer: Annotated[str | None, typer.Option(metavar="NAME", help="Who orders.")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The same key again gives the first order.")
    ] = None,
    defer: DeferOption = False,
    json: JsonOption = False,
) -> None:
    """Place an order; sales are notified.

    It is on disk before anybody is notified; a notice that cannot be sent can be sent again.
    """
    named = chain.from_iterable(_read_items() if item == "-" else [item] for item in items)
    wanted = tuple(islice(named, MAX_ITEMS + 1))  # enough to be refused; stdin may not end
    key = key and key.strip()
    with open_store(context, defer=defer) as (console, app):
        if json:
            console.notices_to = "stderr"
        first = None if key is None else app.store.ids(keys=[key]).get(key)
        order_id = app.bus.send(PlaceOrder(wanted, customer, key))
        if json:
            console.json(app.orders.get(order_id).state)
        if order_id == first:
            console.say(f"Key {key} was used before, for order {order_id}; nobody is notified.")
        elif app.unit_of_work.is_deferring:
            console.say(f"Placed order {order_id}; workers deliver what it calls for.")
        elif app.bus.dependencies["notifier"] is not console:  # whose notice shows the id
            console.say(f"Placed order {order_id}.")


def _read_items() -> Iterator[str]:
    """Yield the lines of standard input; of one without end, no more is read than can be valid."""
    while line := sys.stdin.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise InvalidOrder(
                f"a line has {MAX_LINE:,} characters and more; {MAX_TEXT} are allowed"
            )
        yield line.rstrip("\n")


@commands.command("list", epilog="Example: orders list --item TV --since 3d")
def list_orders(
    context: typer.Context,
    status: StatusOption = None,
    item: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only with an item named like this.")
    ] = None,
    customer: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only of customers named like this.")
    ] = None,
    since: Annotated[datetime | None, time_option("Placed at T or later")] = None,
    until: Annotated[datetime | None, time_option("Placed before T")] = None,
    at: Annotated[datetime | None, time_option("As it was at T")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one item a row.")] = False,
) -> None:
    """List orders, newest first.

    A table shows 20; piped, and as JSON or CSV, it is all of them.
    """
    if json and csv:
        raise WrongUse("--json and --csv exclude each other")
    with open_store(context) as (console, app):
        draws = console.draws and not (json or csv)
        wanted = Filter(status, item, customer, since, until)
        most = limit or (PAGE if draws else None)
        if at is None:
            total, orders = app.orders.count(wanted), app.orders.list(wanted, most)
        else:
            from ..queries import history  # noqa: PLC0415 - seldom needed

            found = list(filter(wanted.matches, history.orders_at(app.store, at)))
            total, orders = len(found), found[:most]
        if csv:
            from ..tools import import_export  # noqa: PLC0415 - costs a start that few need

            keys = app.store.keys([order.id for order in orders])
            console.lines(import_export.write(orders, keys, "csv"))
        elif json:
            console.json_lines(json_array(orders))
        else:
            console.orders(orders)
        if not total and wanted == EVERY_ORDER and at is None:
            say_none_yet(console, app, "orders")
        elif not total and wanted == EVERY_ORDER:
            console.say("No orders yet at that time.", hint="orders list")
        elif not total:
            console.say("No orders match.", hint="orders list")
        elif len(orders) < total:
            console.say(f"{len(orders):,} of {total:,} orders; --limit N shows more.")
        elif draws:
            console.say(f"{count(total, 'order')}.")


@commands.command(epilog="Example: orders show 3f2a --version 1")
def show(
    context: typer.Context,
    order: OrderArgument,
    at: Annotated[datetime | None, time_option("As it was at T")] = None,
    version: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As its first N events made it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show one order with its history.

    As it is now, as it was at a time, or as its first events made it.
    """
    if at and version:
        raise WrongUse("--at and --version exclude each other")
    with open_store(context) as (console, app):
        from ..queries import history  # noqa: PLC0415 - same

        order_id = app.orders.resolve(order)
        steps = history.of_order(app.store, order_id)
        if at:
            steps = history.until(steps, at)
        elif version:
            if version > len(steps):
                raise OrdersError(
                    f"order {order_id} has versions 1 to {len(steps)} only",
                    f"orders show {order} --version {len(steps)}",
                )
            steps = steps[:version]
        if not steps:
            raise OrdersError(f"order {order_id} was placed later", f"orders show {order}")
        state = steps[-1].state
        if json:
            console.json(rows.with_history(state, steps))
        elif console.draws:
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(tables.order_page(state, list(map(rows.step_row, steps))))
        else:
            console.records([rows.order_row(state), *map(rows.step_row, steps)])


@commands.command(epilog="Example: orders ship 3f2a")
def ship(context: typer.Context, order: OrderArgument, defer: DeferOption = False) -> None:
    """Ship a placed order.

    One that is shipped or cancelled is refused, and stays as it is.
    """
    _move(context, order, ShipOrder, "Shipped", defer=defer)


@commands.command(epilog='Example: orders cancel 3f2a --reason "out of stock"')
def cancel(
    context: typer.Context,
    order: OrderArgument,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    defer: DeferOption = False,
) -> None:
    """Cancel a placed order.

    One that is shipped or cancelled is refused, and stays as it is.
    """
    _move(context, order, lambda order_id: CancelOrder(order_id, reason), "Cancelled", defer=defer)


def _move(
    context: typer.Context, order: str, command: Callable[[str], Any], done: str, *, defer: bool
) -> None:
    with open_store(context, defer=defer) as (console, app):
        order_id = app.orders.resolve(order)
        app.bus.send(command(order_id))
        console.say(f"{done} order {order_id}.")


@commands.command("import", epilog="Example: orders import data/sample-orders.csv")
def import_orders(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .jsonl or .json file.")],
    defer: DeferOption = False,
    json: JsonOption = False,
) -> None:
    """Place every order of a file, each key once.

    The whole file is checked first: a bad line anywhere, and nothing is imported.
    """
    from ..tools import import_export  # noqa: PLC0415 - see `list`

    orders = import_export.read(file)
    with open_store(context, in_bulk=True, defer=defer) as (console, app):
        console.notices_to = "nowhere"
        with console.progress("Importing", len(orders)) as advance:
            counts = import_export.import_orders(app, orders, advance)
    skipped = f"; {counts.skipped:,} skipped, their keys were known" if counts.skipped else ""
    console.say(f"{count(counts.imported, 'order')} imported{skipped}.")
    if json:
        console.json(counts._asdict())


@commands.command(epilog="Example: orders export orders.csv")
def export(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; standard output if left out.")
    ] = None,
    to: Annotated[
        Literal["json", "jsonl", "csv"] | None,
        typer.Option("--format", help="Else the file's ending; else json."),
    ] = None,
) -> None:
    """Write every order, oldest first, so that import can read it.

    A file is replaced whole or not at all; the store is not changed.
    """
    from ..tools import import_export  # noqa: PLC0415 - see `list`

    with open_store(context, recover=False) as (console, app):
        orders = [*reversed(app.orders.list())]
        keys = app.store.keys([order.id for order in orders])
        form = to or (import_export.format_of(file) if file else "json")
        lines = import_export.write(orders, keys, form)
        if file is None:
            (console.lines if form == "csv" else console.json_lines)(lines)
        elif Path(realpath(file)).is_relative_to(realpath(app.store.location)):
            raise OrdersError(
                f"{file} is a file of the store itself", "export to another directory"
            )
        else:
            import_export.write_file(file, lines)
            console.say(f"{count(len(orders), 'order')} exported to {file}.")
