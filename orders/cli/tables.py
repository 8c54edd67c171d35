"""Tables and pages for a terminal: one line a record, however narrow it is.

What does not fit ends in an ellipsis, except ids, which are never broken.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from rich import box
from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from ..application.store import Account, Finding
from ..domain.order import OrderState
from ..domain.text import shorten
from ..messaging.message import now
from .lines import MARKS, NAMES, cause, short_length
from .rendering import LINE_STYLES, TINY, Fitted, local, text_of
from .times import age

STATUS_MARKS = {"placed": "●", "shipped": "✓", "cancelled": "✗"}
STATUS_STYLES = {"placed": "yellow", "shipped": "green", "cancelled": "red"}
FINDING_MARKS = {"ok": "✓", "waiting": "●", "bad": "✗"}
FINDING_STYLES = {"ok": "green", "waiting": "yellow", "bad": "red"}
KIND_STYLES = {"command": LINE_STYLES["command"], "event": LINE_STYLES["event"]}

LONGEST = 400  # characters of a cell that is wrapped
NAME = 16  # columns that a subscriber's name has at least, if it needs them

_PLACE = re.compile(r" \([^)]*\)")


def rows_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Draw rows of text under a header; what does not fit is wrapped at words."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*(text_of(shorten(cell, LONGEST)) for cell in row))
    return table


def order_table(orders: Sequence[OrderState]) -> RenderableType:
    """Draw orders, one a row: id, how it stands, customer, items, age."""
    length, time = short_length([order.id for order in orders]), now()
    has_customers = any(order.customer for order in orders)

    def draw(width: int) -> RenderableType:
        is_narrow = width < TINY
        customer = ["Customer"] if has_customers else []
        table = _table("Order", "" if is_narrow else "Status", *customer, "Items", "Age")
        for column in (table.columns[0], table.columns[1], table.columns[-1]):
            column.no_wrap = True  # the others give way
        for order in orders:
            placed = age(order.placed_at, time)
            style = STATUS_STYLES.get(order.status, "")
            mark = STATUS_MARKS.get(order.status, "○")
            table.add_row(
                _cell(order.id[:length], "cyan"),
                _cell(mark if is_narrow else f"{mark} {order.status}", style),
                *([_cell(order.customer or "")] if has_customers else []),
                _Items(order.items),
                _cell(placed.removesuffix(" ago") if is_narrow else placed, "dim"),
            )
        return table

    return Fitted(draw)


def order_page(order: OrderState, history: Sequence[Sequence[str]]) -> RenderableType:
    """Draw one order with its history: rows of ISO time, event, detail."""
    style = STATUS_STYLES.get(order.status, "")
    status = f"{STATUS_MARKS.get(order.status, '○')} {order.status}"
    facts = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2, 0, 0))
    facts.add_row(Text("Status", "dim"), text_of(status, style))
    if order.customer:
        facts.add_row(Text("Customer", "dim"), text_of(order.customer))
    facts.add_row(Text("Placed", "dim"), text_of(local(order.placed_at)))
    for number, item in enumerate(order.items):
        facts.add_row(Text("" if number else "Items", "dim"), text_of(item))
    return Group(text_of(order.id, "bold cyan"), facts, "", Fitted(lambda w: _steps(history, w)))


def _steps(history: Sequence[Sequence[str]], width: int) -> RenderableType:
    detail = ["Detail"] if any(detail for *_, detail in history) else []
    table = _table("#", "Time", "Event", *detail)
    for column in table.columns[:3]:
        column.no_wrap = True
    for version, (time, event, said) in enumerate(history, start=1):
        when = local(datetime.fromisoformat(time))
        shown = when if width >= TINY else when[5:16]  # neither year nor seconds
        more = [_cell(said)] if detail else []
        table.add_row(_cell(str(version)), _cell(shown, "dim"), _cell(event), *more)
    return table


def delivery_table(accounts: Sequence[Account]) -> RenderableType:
    """Draw deliveries, one a row."""
    length, time = short_length([account.delivery.event for account in accounts]), now()

    def draw(width: int) -> RenderableType:
        is_narrow = width < TINY
        more = [] if is_narrow else ["Attempts", "Changed"]
        table = _table("Event", "" if is_narrow else "Status", "Subscriber", *more, "Last error")
        table.columns[2].max_width = max(width // 4, NAME)  # of which errors take none
        for column in table.columns[:-1]:
            column.no_wrap = True
        for account in accounts:
            delivery = account.delivery
            style = LINE_STYLES[delivery.status]
            mark = MARKS[delivery.status] or "○"
            facts = [str(delivery.attempts), age(account.changed, time)]
            table.add_row(
                _cell(delivery.event[:length], "cyan"),
                _cell(mark if is_narrow else f"{mark} {NAMES[delivery.status]}", style),
                _cell(delivery.subscriber),
                *([] if is_narrow else [_cell(fact, "dim") for fact in facts]),
                _cell(cause(delivery) if is_narrow else delivery.error or "", "red"),
            )
        return table

    return Fitted(draw)


def topic_table(rows: Sequence[Sequence[str]]) -> RenderableType:
    """Draw the wiring: rows of topic, message, kind, who handles it."""

    def draw(width: int) -> RenderableType:
        is_narrow = width < TINY
        table = _table("Topic", *([] if is_narrow else ["Message"]), "Handled by")
        table.columns[0].no_wrap = True
        for topic, message, kind, handlers in rows:
            mark = "◆" if kind == "command" else "●"
            name = [] if is_narrow else [_cell(message)]
            marked = Text.assemble((mark, KIND_STYLES[kind]), " ", _cell(topic))
            by = _PLACE.sub("", handlers) if is_narrow else handlers
            table.add_row(marked, *name, _cell(by))
        return table

    return Fitted(draw)


def finding_lines(findings: Sequence[Finding]) -> RenderableType:
    """Draw what the doctor found, a line each; what is bad is said to its end."""
    longest = max((cell_len(finding.subject) for finding in findings), default=0)

    def draw(width: int) -> RenderableType:
        grid = Table.grid(padding=(0, 1, 0, 0))
        room = width - longest - 4  # for the mark, and what is between the columns
        for finding in findings:
            style = FINDING_STYLES[finding.state]
            said = Text.assemble(text_of(finding.text, "" if finding.state == "ok" else style))
            cure = Text.assemble("→ ", text_of(finding.cure, "bold")) if finding.cure else Text()
            if cure and said.cell_len + cure.cell_len + 2 <= room:
                said, cure = Text.assemble(said, "  ", cure), Text()
            if finding.state == "ok":
                said.no_wrap, said.overflow = True, "ellipsis"
            mark = Text(FINDING_MARKS[finding.state], style)
            grid.add_row(mark, text_of(f"{finding.subject} "), said)
            if cure:
                grid.add_row("", "", cure)
        return grid

    return Fitted(draw)


def bar_chart(title: str, bars: Sequence[tuple[str, int]]) -> RenderableType:
    """Draw numbers as bars, as wide as the terminal."""
    longest = max((number for _, number in bars), default=0)

    def draw(width: int) -> RenderableType:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(max_width=max(width // 3, 10))
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        for label, number in bars:
            grid.add_row(_cell(label), Bar(longest, 0, number, color="cyan"), _cell(f"{number:,}"))
        return grid

    return Group(Text(title, "bold"), Fitted(draw), "")


class _Items:
    """As many items as fit, and how many there are besides: ``100 inch TV, rope +3``."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = [text_of(item).plain for item in items]

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        width = min(cell_len(", ".join(self._items)), options.max_width)
        return Measurement(min(width, 1), width)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        for shown in range(len(self._items), 0, -1):
            more = f" +{len(self._items) - shown}" if shown < len(self._items) else ""
            text = Text(", ".join(self._items[:shown]), no_wrap=True, overflow="ellipsis")
            if text.cell_len + len(more) <= options.max_width or shown == 1:
                break
        text.truncate(max(options.max_width - len(more), 1), overflow="ellipsis")
        yield text + Text(more, "dim")


def _table(*columns: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column)
    return table


def _cell(value: str, style: str = "") -> Text:
    text = text_of(value, style)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
