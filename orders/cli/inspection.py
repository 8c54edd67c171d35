"""The commands for whoever wants to see what happens and has happened: they change no order."""

import math
from typing import Annotated, Literal

import typer

from . import views
from .console import Console
from .ledger import START
from .message import Message, name_of
from .parameters import JsonOption, OrderArgument, open_store

TOP = 10  # items in a chart
DAYS = 14  # in a chart

commands = typer.Typer()


@commands.command(epilog="Example: orders log --after 100 --json")
def log(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Only later lines.")] = 0,
    json: JsonOption = False,
) -> None:
    """Show the event log: messages, and what came of them."""
    with open_store(context, recover=False) as (console, store):
        entries = (entry for entry in store.log.read() if entry.line.seq > after)
        if json:
            console.json_lines(views.json_array(entry.raw.decode() for entry in entries))
        else:
            console.records(row for entry in entries for row in views.log_rows(entry.line))


@commands.command(epilog="Example: orders watch --from start --until-idle 1")
def watch(
    context: typer.Context,
    begin: Annotated[
        Literal["start", "now"], typer.Option("--from", help="Begin with the first, or the next.")
    ] = "now",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    until_idle: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="End after S seconds without news.")
    ] = None,
) -> None:
    """Show messages of every terminal as they are stored, until Ctrl-C."""
    if until_idle is not None and math.isnan(until_idle):
        raise typer.BadParameter("--until-idle wants a number of seconds", context)
    from .feed import feed  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, store):
        after = START if begin == "start" else store.log.position()
        if console.draws and not json:
            console.say(f"Watching {store.log.path}; Ctrl-C ends it.")
        for seq, message in feed(store.log, after, until_idle, console.is_read):
            if json:
                console.json(views.message_object(seq, message))
            else:
                _show(console, seq, message)


def _show(console: Console, seq: int, message: Message) -> None:
    if console.draws:
        from . import render  # noqa: PLC0415 - Rich takes 50 ms to import

        about = views.detail(message, ("time", "order_id"))
        order_id = getattr(message, "order_id", "")
        render.show(render.told(seq, message.time, name_of(message), order_id, about))
    else:
        console.records([views.message_row(seq, message)])


@commands.command("trace", epilog="Example: orders trace 3f2a")
def trace_order(context: typer.Context, order: OrderArgument) -> None:
    """Show what came of an order: from each command to every effect, who ran and who did not."""
    from .trace import rows, trace  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, store):
        state = store.orders.get(store.orders.resolve(order)).state
        nodes = trace(store, state.id)
        if console.draws:
            from . import render  # noqa: PLC0415 - Rich takes 50 ms to import

            title = f"Order {state.id}, {state.status}, version {state.version}"
            render.show(render.tree(title, nodes))
        else:
            console.records(rows(nodes))


@commands.command(epilog="Example: orders stats --json")
def stats(context: typer.Context, json: JsonOption = False) -> None:
    """Show the most ordered items and the orders a day.

    A cancelled order's items do not count. Days are of UTC.
    """
    from .projections import ItemSales, OrdersADay  # noqa: PLC0415 - a start pays for what it uses
    from .replay import current  # noqa: PLC0415 - same

    with open_store(context, recover=False) as (console, store):
        items = current(store, ItemSales).ranking()
        days = current(store, OrdersADay).days()
        if json:
            console.json(
                {
                    "items": [{"item": item, "times": times} for item, times in items],
                    "days": [{"day": day, "orders": orders} for day, orders in days],
                }
            )
        elif not console.draws:
            console.records(("item", item, str(times)) for item, times in items)
            console.records(("day", str(day), str(orders)) for day, orders in days)
        elif days:
            from . import render  # noqa: PLC0415 - Rich takes 50 ms to import

            recent = views.last_days(days, DAYS)
            if items:
                render.show(render.bar_chart("Most ordered items", items[:TOP]))
            render.show(render.bar_chart("Orders a day (UTC)", recent))
            if len(items) > TOP or sum(orders for _, orders in recent) < sum(dict(days).values()):
                counts = f"{views.count(len(items), 'item')} and {views.count(len(days), 'day')}"
                console.say(f"{counts} in all; --json shows them.")
        if not days:
            console.say(f"No orders in {store.settings.data} yet.")


@commands.command(epilog="Example: orders topics")
def topics(context: typer.Context) -> None:
    """Show the wiring: topic, message, and who handles it."""
    from .policies import POLICIES  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, store):
        wiring = list(views.wiring(store.bus, {p.react: p.follow for p in POLICIES}))
        console.rows(("Topic", "Message", "Kind", "Handled by"), wiring)
