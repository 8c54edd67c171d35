"""What a terminal shows: data in, Rich renderables out. The only module that imports Rich.

Every text from outside goes through `_text`, which escapes control characters and never
reads markup.
"""

# ruff: noqa: TID251 - this is rendering.py

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text
from rich.theme import Theme
from rich.tree import Tree

from ..application.notifications import Notice
from ..application.store import Account, Record
from ..domain.order import OrderState
from ..domain.text import safe, shorten
from ..messaging.message import detail, name_of
from ..queries.trace import Node
from .rows import outcome

STATUS_STYLES = {"placed": "yellow", "shipped": "green", "cancelled": "red"}
DELIVERY_STYLES = {"done": "green", "pending": "yellow", "failed": "red", "dead": "red"}
DEEPEST = 12  # levels of a tree that are indented
SHORT_ID = 8  # characters of an id that a table shows; any unambiguous beginning will do


def show(*renderables: RenderableType, stderr: bool = False) -> None:
    """Draw on standard output, or standard error."""
    theme = Theme({"markdown.code": "cyan"})  # else it is on black, whatever the terminal's ground
    console = Console(highlight=False, markup=False, emoji=False, stderr=stderr, theme=theme)
    for renderable in renderables:
        console.print(renderable)


def notice_panel(notice: Notice) -> RenderableType:
    """Draw a notice: the same content as its plain text."""
    content = Text.assemble(
        ("ID: ", "dim"), _text(notice.order_id), "\n", ("Items: ", "dim"), _text(notice.item_list)
    )
    return Panel(
        content, title=_text(notice.title), title_align="left", border_style="green", expand=False
    )


def page(text: str) -> RenderableType:
    """Draw Markdown of our own."""
    from rich.markdown import Markdown  # noqa: PLC0415 - 50 ms that only `explain` has to pay

    return Markdown(text, code_theme="ansi_dark")  # in the terminal's own colours


def order_table(orders: Sequence[OrderState]) -> RenderableType:
    """Draw orders, one a row."""
    table = _table("Order", "Placed", "Status", "Customer", "Items")
    for order in orders:
        table.add_row(
            _text(order.id[:SHORT_ID], "cyan"),
            _text(_local(order.placed_at)),
            _text(order.status, STATUS_STYLES.get(order.status, "")),
            _text(order.customer or ""),
            _text(", ".join(order.items)),
        )
    return table


def order_page(order: OrderState, history: Sequence[Sequence[str]]) -> RenderableType:
    """Draw one order with its history: rows of ISO time, event, detail."""
    facts = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2))
    facts.add_row(Text("ID", "dim"), _text(order.id, "cyan"))
    facts.add_row(Text("Status", "dim"), _text(order.status, STATUS_STYLES.get(order.status, "")))
    facts.add_row(Text("Customer", "dim"), _text(order.customer or "-"))
    facts.add_row(Text("Placed", "dim"), _text(_local(order.placed_at)))
    for number, item in enumerate(order.items):
        facts.add_row(Text("" if number else "Items", "dim"), _text(item))
    steps = [
        (str(version), _local(datetime.fromisoformat(time), "seconds"), *rest)
        for version, (time, *rest) in enumerate(history, start=1)
    ]
    events = rows_table(("Version", "Time", "Event", "Detail"), steps)
    return Group(Panel(facts, title="Order", title_align="left", expand=False), events)


def rows_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Draw rows of text under a header."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*map(_text, row))
    return table


def delivery_table(accounts: Iterable[Account]) -> RenderableType:
    """Draw deliveries, one a row."""
    table = _table("Event", "Subscriber", "Status", "Attempts", "Changed", "Last error")
    table.columns[4].no_wrap = True
    for account in accounts:
        delivery, changed = account.delivery, account.changed
        table.add_row(
            _text(delivery.event[:SHORT_ID], "cyan"),
            _text(delivery.subscriber),
            _text(delivery.status, "" if delivery.status == "done" else "red"),
            _text(delivery.attempts),
            _text(_local(changed)),
            _text(shorten(delivery.error or "")),
        )
    return table


def tree(title: str, nodes: Sequence[Node]) -> RenderableType:
    """Draw what came of an order, cause above effect."""
    root = Tree(_text(title, "bold"), guide_style="dim")
    waiting = [(root, node, 1) for node in reversed(nodes)]
    while waiting:
        parent, node, depth = waiting.pop()
        time = _clock(node.time) if node.time else ""
        style = "bold cyan" if node.id else "green" if node.is_well else "red"
        label = Text(" ").join(
            part
            for part in (
                _text(node.name, style),
                _text(node.id[:SHORT_ID], "cyan"),
                _text(time, "dim"),
                _text(node.text, "" if node.is_well else "red"),
            )
            if part
        )
        branch = parent.add(label)
        below = branch if depth < DEEPEST else parent  # further in, no width would be left for text
        waiting += [(below, child, depth + 1) for child in reversed(node.children)]
    return root


def feed_lines(record: Record) -> Iterator[RenderableType]:
    """Yield what a record adds to the live feed: a line for each message and delivery."""
    for message in record.messages:
        order_id = _text(getattr(message, "order_id", "")[:SHORT_ID], "cyan")
        about = _text(detail(message, ("time", "order_id")))
        what = _text(name_of(message), "bold cyan"), order_id, about
        yield _feed_line(record.number, message.time, what)
    for delivery in record.deliveries:
        style = DELIVERY_STYLES[delivery.status]
        event = _text(delivery.event[:SHORT_ID], "cyan")
        what = _text("Delivery", "bold"), event, _text(outcome(delivery), style)
        yield _feed_line(record.number, record.time, what)


def _feed_line(number: int, time: datetime, what: Iterable[Text]) -> RenderableType:
    line = Table.grid(Column(), Column(), Column(overflow="fold"), padding=(0, 1))
    said = Text(" ").join(part for part in what if part)
    line.add_row(_text(number, "dim"), _text(_clock(time), "dim"), said)
    return line


def bar_chart(title: str, bars: Sequence[tuple[str, int]]) -> RenderableType:
    """Draw numbers as bars, as wide as the terminal."""
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(max_width=30, overflow="fold")
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    longest = max((number for _, number in bars), default=0)
    for label, number in bars:
        grid.add_row(_text(label), Bar(longest, 0, number, color="cyan"), _text(f"{number:,}"))
    return Group(Text(title, "bold"), grid, "")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on standard error; yield the function that advances it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RateColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


class _RateColumn(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", "dim")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(value: Any, style: str = "") -> Text:
    return Text(safe(str(value)), style)


def _local(time: datetime, precision: str = "minutes") -> str:
    return _here(time).replace(tzinfo=None).isoformat(" ", precision)


def _clock(time: datetime) -> str:
    return f"{_here(time):%H:%M:%S.%f}"[:-3]


def _here(time: datetime) -> datetime:
    try:
        return time.astimezone()
    except (OverflowError, ValueError):  # the first and the last day of the calendar
        return time
