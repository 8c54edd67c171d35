"""The commands for whoever wants to see what happens and has happened: they change no order."""

from typing import Annotated, Literal

import typer

from ..application.store import START, Record
from ..bootstrap import App
from ..domain.text import count
from ..tools.json_lines import as_json, json_array
from . import rows
from .options import (
    JsonLinesOption,
    JsonOption,
    OrderArgument,
    UntilIdleOption,
    check_until_idle,
    open_store,
    say_none_yet,
)
from .output import Console

TOP = 10  # items in a chart
DAYS = 14  # in a chart

commands = typer.Typer()


@commands.command(epilog="Example: orders log --after 100 --json")
def log(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Only later records.")] = 0,
    json: JsonOption = False,
) -> None:
    """Show the event log: messages, and what came of them."""
    with open_store(context, recover=False) as (console, app):
        records = (record for record in app.store.read() if record.number > after)
        if json:
            console.json_lines(json_array(map(rows.record_object, records)))
        elif console.draws:
            for record in records:
                show_record(console, app, record)
        else:
            console.records(row for record in records for row in rows.record_rows(record))
        if app.store.head() == START:
            say_none_yet(console, app, "records")


@commands.command(epilog="Example: orders watch --from start --until-idle 1")
def watch(
    context: typer.Context,
    begin: Annotated[
        Literal["start", "now"], typer.Option("--from", help="Begin with the first, or the next.")
    ] = "now",
    json: JsonLinesOption = False,
    until_idle: UntilIdleOption = None,
) -> None:
    """Show what every terminal stores, messages and deliveries, until Ctrl-C."""
    check_until_idle(until_idle)
    from ..queries.feed import feed  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, app):
        after = START if begin == "start" else app.store.head()
        if console.draws and not json:
            console.say(f"Watching {app.store.location}; Ctrl-C ends it.")
        for record in feed(app.store, after, until_idle, console.is_read):
            show_record(console, app, record, json=json)


def show_record(console: Console, app: App, record: Record, *, json: bool = False) -> None:
    """Show a record of the log: a line for each of its messages and deliveries."""
    if json:
        console.json_lines(map(as_json, rows.feed_objects(record)))
    elif console.draws:
        from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import
        from .lines import lines_of  # noqa: PLC0415 - a start pays for what it uses

        console.reading.silence_ends()
        rendering.show(*map(rendering.draw_line, lines_of(record, app)))
    else:
        console.records(rows.record_rows(record))


@commands.command("trace", epilog="Example: orders trace 3f2a")
def trace_order(context: typer.Context, order: OrderArgument) -> None:
    """Show what came of an order: from each command to every effect, who ran and who did not."""
    from ..queries.trace import trace  # noqa: PLC0415 - a start pays for what it uses

    with open_store(context, recover=False) as (console, app):
        state = app.orders.get(app.orders.resolve(order)).state
        nodes = trace(app, state.id)
        if console.draws:
            from . import rendering, trees  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(trees.tree(state, nodes))
        else:
            console.records(rows.trace_rows(nodes))


@commands.command(epilog="Example: orders stats --json")
def stats(context: typer.Context, json: JsonOption = False) -> None:
    """Show the most ordered items and the orders a day.

    A cancelled order's items do not count. Days are of UTC.
    """
    from ..projections.follower import current  # noqa: PLC0415 - a start pays for what it uses
    from ..projections.shipped import ItemSales, OrdersADay  # noqa: PLC0415 - same

    with open_store(context, recover=False) as (console, app):
        items = current(app.store, ItemSales, app.warn).ranking()
        days = current(app.store, OrdersADay, app.warn).days()
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
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            recent = rows.last_days(days, DAYS)
            if items:
                rendering.show(tables.bar_chart("Most ordered items", items[:TOP]))
            rendering.show(tables.bar_chart("Orders a day (UTC)", recent))
            if len(items) > TOP or sum(orders for _, orders in recent) < sum(dict(days).values()):
                counts = f"{count(len(items), 'item')} and {count(len(days), 'day')}"
                console.say(f"{counts} in all; --json shows them.")
        if not days:
            say_none_yet(console, app, "orders")


@commands.command(epilog="Example: orders topics")
def topics(context: typer.Context) -> None:
    """Show the wiring: topic, message, and who handles it."""
    with open_store(context, recover=False) as (console, app):
        policies = [make() for make in app.policies.values()]
        reactions = {policy.react: policy.follow for policy in policies}
        wiring = list(rows.wiring(app.bus, reactions))
        if console.draws:
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(tables.topic_table(wiring))
        else:
            console.records(wiring)
