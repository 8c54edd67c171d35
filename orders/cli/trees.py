"""The picture of a trace: what came of an order, cause above effect, and when."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

from ..domain.order import OrderState
from ..messaging.subscriptions import display_name
from ..queries.trace import Node
from ..queries.wording import link_of, place_of
from .lines import MARKS, NAMES, SHORT_ID
from .rendering import LINE_STYLES, TINY, Fitted, local, text_of

DEEPEST = 8  # levels of a tree that are indented; no width would be left for text
TIME, NAME, PLACE = 9, 20, 16  # columns

_MARKS: Mapping[str, str] = {
    **MARKS,
    "attempt": "✗",
    "killed": "✗",
    "taken over": "↻",
    "absent": "○",
    "pending": "○",
}
_STYLES = {
    **LINE_STYLES,
    "attempt": "red",
    "killed": "red",
    "taken over": "yellow",
    "absent": "dim",
}
_OF_ATTEMPTS = {"attempt", "killed", "taken over"}


def tree(order: OrderState, nodes: Sequence[Node]) -> RenderableType:
    """Draw what came of an order, the times from each conversation's first message on."""

    def draw(width: int) -> RenderableType:
        lines = [*_title(order, width)]
        for number, node in enumerate(nodes):
            start = node.time or order.placed_at
            if number:
                lines.append(text_of(local(start), "dim"))
            lines += (_line(one, start, width) for one in _flat(node))
        return Group(*lines)

    return Fitted(draw)


class _Placed(NamedTuple):
    """A node, how deep it stands, and what it is called."""

    node: Node
    depth: int
    name: str


def _title(order: OrderState, width: int) -> Iterator[RenderableType]:
    what = Text.assemble(("Order ", "bold"), text_of(order.id[:SHORT_ID], "bold cyan"))
    items = Text() + text_of(", ".join(order.items))
    if order.customer:
        items += Text.assemble((" for ", "dim"), text_of(order.customer))
    status = text_of(f"{order.status}, version {order.version}", "dim")
    if width < TINY:
        yield Text.assemble(what, "  ", status)
        yield items
    else:
        grid = Table.grid(
            Column(), Column(ratio=1, overflow="fold"), Column(), padding=(0, 2, 0, 0)
        )
        grid.expand = True
        grid.add_row(what, items, status)
        yield grid


def _flat(root: Node) -> Iterator[_Placed]:
    """Yield a node and all below it in order; not by recursion, for chains are long."""
    waiting = [_Placed(root, 0, root.name)]
    while waiting:
        placed = waiting.pop()
        node, depth, name = placed
        if node.kind in NAMES:  # a delivery, what came before its end on the same level
            before = [child for child in node.children if child.kind in _OF_ATTEMPTS]
            if node.kind == "done" and before and before[-1].kind == "attempt":
                before.pop()  # which the delivery's own line tells of
            yield from (_Placed(child, depth, name) for child in before)
            below = [child for child in node.children if child.kind not in _OF_ATTEMPTS]
        else:
            below = node.children
        yield placed
        waiting += [_Placed(child, depth + 1, child.name) for child in reversed(below)]


def _line(placed: _Placed, start: datetime, width: int) -> RenderableType:
    node, depth, name = placed
    depth, step, aligned = min(depth, DEEPEST), 2, NAME
    if width < TINY:
        step, aligned = 1, 0
    indent = " " * (step * (depth - 1)) + "└ " if depth else ""
    if node.kind in {"killed", "taken over"}:
        said = text_of(node.note, _STYLES[node.kind])
        indent = " " * len(indent)
    else:
        called = _padded(text_of(name, _name_style(node)), aligned - len(indent))
        said = called + _rest(node, width)
    said.rstrip()
    when = _when(node)
    line = Table.grid(
        Column(width=TIME if width >= TINY else TIME - 1, no_wrap=True),
        Column(no_wrap=True),
        Column(overflow="fold"),
    )
    line.add_row(
        Text(_after(when - start) if when else "", "dim"),
        Text.assemble((indent, "dim"), (_MARKS[node.kind], _STYLES[node.kind]), " "),
        said,
    )
    return line


def _when(node: Node) -> datetime | None:
    """Return when it was, or when a delivery began: at the latest when it sent its commands."""
    if node.kind in {"command", "event", "failed", "dead"}:
        return node.time
    sent = (child.time for child in node.children if child.kind == "command" and child.time)
    return min([node.began, *sent]) if node.began else None


def _rest(node: Node, width: int) -> Text:
    """Return who handles it, where that stands, and what else there is to say."""
    said = Text()
    if node.kind == "command":
        handler = text_of("nobody here" if node.function is None else display_name(node.function))
        said += Text.assemble(("→ ", "dim"), _padded(handler, PLACE if width >= TINY else 0))
    if node.function is not None and node.kind != "attempt" and width >= TINY:
        link = link_of(node.function)
        place = Text(place_of(node.function) or "", Style(dim=True, link=link))
        said += _padded(place, PLACE) if node.note else place
    elif node.function is None and node.kind in NAMES and node.kind != "pending":
        said += Text("not known here  ", "dim")
    said += text_of(node.note, "" if node.is_well else _STYLES[node.kind])
    return said


def _name_style(node: Node) -> str:
    return _STYLES[node.kind] if node.kind in {"command", "event"} or not node.is_well else ""


def _padded(text: Text, width: int) -> Text:
    return Text.assemble(text, " " * max(width - text.cell_len, 1))


def _after(time: timedelta) -> str:
    """Return how much later something was: ``+297 ms``, ``+2.5 s``, ``+3 min``, ``+2 d``."""
    seconds = abs(time.total_seconds())
    sign = "-" if time < timedelta() else "+"
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f} ms"
    for unit, length, digits in (("s", 60, 1), ("min", 60, 0), ("h", 24, 0)):
        if seconds < length:
            return f"{sign}{seconds:.{digits}f} {unit}"
        seconds /= length
    return f"{sign}{seconds:,.0f} d"
