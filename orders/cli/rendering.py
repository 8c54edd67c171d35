"""What a terminal shows: data in, Rich renderables out; tables and trees are beside it.

Every text from outside goes through `text_of`, which escapes control characters and never
reads markup; what is drawn goes through `show`, which keeps text from right to left in place.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from ..application.notifications import Notice
from ..domain.text import safe
from .lines import MARKS, SHORT_ID, Line

LINE_STYLES = {
    "command": "magenta",
    "event": "cyan",
    "pending": "yellow",
    "done": "green",
    "failed": "red",
    "dead": "red",
}
TINY, NARROW, WIDE = 60, 76, 110  # columns from which a line has place, topic, time and id
PLACE = 16  # columns of a place in the source
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff]")
_ISOLATED = "\u2068{}\u2069"  # ours, for `safe` leaves none of the user's


def show(*renderables: RenderableType, stderr: bool = False) -> None:
    """Draw on standard output, or standard error."""
    theme = Theme({"markdown.code": "cyan"})  # else it is on black, whatever the terminal's ground
    console = Console(highlight=False, markup=False, emoji=False, stderr=stderr, theme=theme)
    for renderable in renderables:
        console.print(_Isolated(renderable))


class _Isolated:
    """Keeps text from right to left within its cell: else it takes what follows along."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):
            text = segment.text.strip()
            if text and _RIGHT_TO_LEFT.search(text):
                isolated = segment.text.replace(text, _ISOLATED.format(text))
                yield Segment(isolated, segment.style, segment.control)
            else:
                yield segment


def draw_line(line: Line) -> RenderableType:
    """Draw a line of `tour`, `watch` and `log`: never more than one, however narrow."""
    return Fitted(lambda width: _drawn_line(line, width))


def _drawn_line(line: Line, width: int) -> Text:
    style = LINE_STYLES[line.kind]
    short = text_of(line.id[:SHORT_ID], "dim")
    drawn = Text.assemble(_cell(text_of(f"{line.number:4}", "dim"), 5))
    if width >= WIDE:
        drawn += _cell(text_of(_clock(line.time), "dim"), 13) + _cell(short, SHORT_ID + 1)
    if width >= NARROW:
        drawn += _cell(text_of(line.topic, "dim"), 18)
    drawn += _cell(text_of(MARKS[line.kind], style), 2)
    drawn += _cell(text_of(line.name, style), 15 if width >= TINY else 11)
    if line.kind != "event":
        handler = _cell(text_of(line.handler or "nobody here"), 15 if width >= TINY else 14)
        drawn += Text.assemble(("→ ", "dim"), handler)
        if width >= TINY and drawn.cell_len + PLACE + cell_len(line.text) <= width:
            drawn += _linked(line)  # gives way to what there is to say
    elif line.id and TINY <= width < WIDE:
        drawn += _cell(short, SHORT_ID + 1)
    drawn += text_of(line.text, "" if line.kind == "event" else style)
    drawn.rstrip()
    drawn.truncate(width, overflow="ellipsis")
    return drawn


class Fitted:
    """What is drawn differently in different widths."""

    def __init__(self, draw: Callable[[int], RenderableType]) -> None:
        self._draw = draw

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._draw(options.max_width)


def _linked(line: Line) -> Text:
    """Return the place in the source, to be clicked on where the terminal can."""
    if not line.place:
        return Text()
    style = Style(dim=True, link=line.link or None)
    return _cell(Text(line.place, style), PLACE)


def _cell(text: Text, width: int) -> Text:
    """Return the text with so many columns; a longer one moves on what follows."""
    return Text.assemble(text, " " * max(width - cell_len(text.plain), 1))


def notice_panel(notice: Notice) -> RenderableType:
    """Draw a notice: the same content as its plain text."""
    content = Text.assemble(
        ("ID: ", "dim"),
        text_of(notice.order_id),
        "\n",
        ("Items: ", "dim"),
        text_of(notice.item_list),
    )
    return Panel(
        content, title=text_of(notice.title), title_align="left", border_style="green", expand=False
    )


def page(text: str) -> RenderableType:
    """Draw Markdown of our own."""
    from rich.markdown import Markdown  # noqa: PLC0415 - 50 ms that only `explain` has to pay

    return Markdown(text, code_theme="ansi_dark")  # in the terminal's own colours


def text_of(value: Any, style: str = "") -> Text:
    """Return text from anywhere, harmless and without its markup."""
    return Text(safe(str(value)), style)


def local(time: datetime) -> str:
    """Return a time to the second, as the clock here shows it."""
    return _here(time).replace(tzinfo=None).isoformat(" ", "seconds")


def _clock(time: datetime) -> str:
    return f"{_here(time):%H:%M:%S.%f}"[:-3]


def _here(time: datetime) -> datetime:
    try:
        return time.astimezone()
    except (OverflowError, ValueError):  # the first and the last day of the calendar
        return time
