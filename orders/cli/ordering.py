"""The command line: each command parses, sends a message or asks the store, shows the answer."""

import gc
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import chain, islice
from os.path import realpath
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from . import __version__, history, observe, upkeep, views
from .commands import CancelOrder, PlaceOrder, ShipOrder
from .console import Console
from .disk import Disk
from .domain import MAX_ITEMS, Status
from .errors import OrdersError
from .filters import EVERY_ORDER, Filter, matching
from .parameters import JsonOption, OrderArgument, open_store, time_option

PAGE = 20  # orders in a table, unless --limit says otherwise

app = typer.Typer(
    name="orders",
    help="The order system you can kill at any line: place orders, see every message, break it.",
    epilog='Try: orders demo, then orders place "100 inch TV" "magic carpet", then orders list.',
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    gc.freeze()  # what is imported stays: without this, Python looks it all over again at exit
    console = Console()
    app.rich_markup_mode = "rich" if console.draws else None  # Rich takes 50 ms to import
    sys.exit(console.run(lambda: app(standalone_mode=False, prog_name="orders", obj=console)))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"orders {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    data: Annotated[
        Path, typer.Option(envvar="ORDERS_DATA", metavar="DIR", help="Where the store is.")
    ] = Path("data"),
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Open the store at DIR, or show the help where no command is given."""
    if context.invoked_subcommand is None:  # no_args_is_help would exit with 2
        print(context.get_help())
    context.meta["data"] = data


@app.command(epilog='Example: orders place "100 inch TV" "magic carpet" --customer "Aunt Mae"')
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
    json: JsonOption = False,
) -> None:
    """Place an order; sales are notified."""
    lines = (line.rstrip("\n") for line in sys.stdin)
    named = chain.from_iterable(lines if item == "-" else [item] for item in items)
    wanted = tuple(islice(named, MAX_ITEMS + 1))  # enough to be refused; stdin may not end
    key = key and key.strip()
    with open_store(context) as (console, store):
        if json:
            console.notices_to = "stderr"
        first = None if key is None else store.orders.with_keys([key]).get(key)
        order_id = store.bus.send(PlaceOrder(wanted, customer, key))
        if json:
            console.json(store.orders.get(order_id).state)
        if order_id == first:
            console.say(f"Key {key} was used before, for order {order_id}; nobody is notified.")


@app.command("list", epilog="Example: orders list --item TV --since 3d")
def list_orders(
    context: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only orders in this state.")] = None,
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
        raise typer.BadParameter("--json and --csv exclude each other", context)
    with open_store(context) as (console, store):
        draws = console.draws and not (json or csv)
        wanted = Filter(status, item, customer, since, until)
        most = limit or (PAGE if draws else None)
        if at is None:
            total, orders = store.orders.count(wanted), store.orders.list(wanted, most)
        else:
            found = matching(history.orders_at(store.log, at), wanted)
            total, orders = len(found), found[:most]
        if csv:
            with_keys = ((order, store.orders.key_of(order.id)) for order in orders)
            from . import exchange  # noqa: PLC0415 - csv costs a start that few need

            console.lines(exchange.write(with_keys, "csv"))
        elif json:
            console.json_lines(views.json_array(map(views.as_json, orders)))
        else:
            console.orders(orders)
        if not total and wanted == EVERY_ORDER and at is None:
            where = store.settings.data
            console.say(f'No orders in {where} yet. Place one: orders place "100 inch TV"')
        elif not total and wanted == EVERY_ORDER:
            console.say("No orders yet at that time; `orders list` shows those of now.")
        elif not total:
            console.say("No orders match; `orders list` shows them all.")
        elif len(orders) < total:
            console.say(f"{len(orders):,} of {total:,} orders; --limit N shows more.")
        elif draws:
            console.say(f"{views.count(total, 'order')}.")


@app.command(epilog="Example: orders show 3f2a --version 1")
def show(
    context: typer.Context,
    order: OrderArgument,
    at: Annotated[datetime | None, time_option("As it was at T")] = None,
    version: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As its first N events made it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show one order with its history."""
    if at and version:
        raise typer.BadParameter("--at and --version exclude each other", context)
    with open_store(context) as (console, store):
        order_id = store.orders.resolve(order)
        steps = history.of_order(store.log, order_id)
        if at:
            steps = history.until(steps, at)
        elif version:
            if version > len(steps):
                raise OrdersError(f"order {order_id} has versions 1 to {len(steps)} only")
            steps = steps[:version]
        if not steps:
            raise OrdersError(f"order {order_id} was placed later; see orders show {order}")
        state = history.fold(steps)
        if json:
            console.json(views.with_history(state, steps))
        elif console.draws:
            from . import render  # noqa: PLC0415 - Rich takes 50 ms to import

            render.show(render.order_page(state, list(map(views.step_row, steps))))
        else:
            console.records([views.record(state), *map(views.step_row, steps)])


@app.command(epilog="Example: orders ship 3f2a")
def ship(context: typer.Context, order: OrderArgument) -> None:
    """Ship a placed order."""
    _move(context, order, ShipOrder, "Shipped")


@app.command(epilog='Example: orders cancel 3f2a --reason "out of stock"')
def cancel(
    context: typer.Context,
    order: OrderArgument,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
) -> None:
    """Cancel a placed order."""
    _move(context, order, lambda order_id: CancelOrder(order_id, reason), "Cancelled")


def _move(context: typer.Context, order: str, command: Callable[[str], Any], done: str) -> None:
    with open_store(context) as (console, store):
        order_id = store.orders.resolve(order)
        store.bus.send(command(order_id))
        console.say(f"{done} order {order_id}.")


@app.command("import", epilog="Example: orders import data/sample-orders.csv")
def import_orders(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .csv, .jsonl or .json file.")],
    json: JsonOption = False,
) -> None:
    """Place every order of a file, each key once.

    The whole file is checked first: a bad line anywhere, and nothing is imported.
    """
    from . import exchange  # noqa: PLC0415 - see `list`

    total = exchange.check(file)
    with open_store(context, in_bulk=True) as (console, store):
        console.notices_to = "nowhere"
        with console.progress("Importing", total) as advance:
            counts = exchange.import_file(store, file, advance)
    skipped = f"; {counts.skipped:,} skipped, their keys were known" if counts.skipped else ""
    console.say(f"{views.count(counts.imported, 'order')} imported{skipped}.")
    if json:
        console.json(counts._asdict())


@app.command(epilog="Example: orders export orders.csv")
def export(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Where to; standard output if left out.")
    ] = None,
    to: Annotated[
        views.Format | None, typer.Option("--format", help="Else the file's ending; else json.")
    ] = None,
) -> None:
    """Write every order, oldest first, so that import can read it."""
    from . import exchange  # noqa: PLC0415 - see `list`

    with open_store(context, recover=False) as (console, store):
        orders = [*reversed(store.orders.list())]
        with_keys = ((order, store.orders.key_of(order.id)) for order in orders)
        form = to or (exchange.format_of(file) if file else "json")
        lines = exchange.write(with_keys, form)
        if file is None:
            (console.lines if form == "csv" else console.json_lines)(lines)
        elif realpath(file) in map(realpath, store.files):
            raise OrdersError(f"{file} is a file of the store itself; export to another one")
        else:
            Disk().write_file(file, "".join(f"{line}\n" for line in lines).encode())
            console.say(f"{views.count(len(orders), 'order')} exported to {file}.")


@app.command(epilog="Example: orders demo unit-of-work --step")
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
    from .demos import SCENARIOS, play  # noqa: PLC0415 - only this command needs them

    console: Console = context.obj
    if list_them:
        console.rows(("Scenario", "Shows"), [(name, text) for name, text in SCENARIOS.items()])
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(
            f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}", context
        )
    play(scenario, console, step=step)


app.add_typer(observe.commands)
app.add_typer(upkeep.commands)
