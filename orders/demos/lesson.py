"""What a presenter shows at each stop of `orders demo --step`, beyond the scenario itself.

Before it: the message, its topic, and three lines of whoever handles it. After it: what has
changed in the store's files, read as anybody may read them.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from inspect import getsourcelines
from pathlib import Path
from typing import Any

from ..application.handlers import COMMAND_HANDLERS, EVENT_SUBSCRIBERS
from ..cli.lines import MARKS, SHORT_ID
from ..domain.text import shorten
from ..messaging.message import Command, Message
from ..messaging.subscriptions import display_name
from ..queries.wording import place_of

WIDTH = 600  # characters of a line of the log
_ID = re.compile(r"([0-9a-f]{8})-[0-9a-f]{4}-4[0-9a-f-]{21}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")

ROUTING: Mapping[Any, Any] = {**COMMAND_HANDLERS, **EVENT_SUBSCRIBERS}

Document = dict[str, Any]


def introduce(message: type[Message]) -> Iterator[str]:
    """Yield a message, its topic, and three lines of each of its handlers."""
    mark = MARKS["command" if issubclass(message, Command) else "event"]
    yield f"{mark} {message.__name__} on the topic {message.topic}"
    found = ROUTING.get(message, ())
    for handler in found if isinstance(found, tuple) else (found,):
        yield f"  → {display_name(handler)}  {place_of(handler)}"
        yield from (f"  {line}" for line in essence(handler))


def essence(function: Callable[..., Any]) -> Iterator[str]:
    """Yield a function's signature, what it says of itself, and its first line that does it."""
    lines, first = getsourcelines(function)
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=first)]
    body = [line for line in numbered[2:] if not line[1].endswith(":")]
    for number, line in (*numbered[:2], *body[:1]):
        indent = "" if number == first else "    "  # however deep the line stands
        yield f"{number:>4}  {indent}{line}"


class Files:
    """The files of the stores below a directory, and how they were when last looked at."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lines: dict[Path, int] = {}
        self._orders: dict[Path, dict[str, Document]] = {}
        self._pending: list[str] = []

    def changes(self) -> Iterator[str]:
        """Yield what is new in each log and state since the last call, and what is pending."""
        changes = [line for path in self._paths("events.jsonl") for line in self._new_lines(path)]
        changes += [line for path in self._paths("orders.json") for line in self._changed(path)]
        pending = [one for path in self._paths("events.jsonl") for one in _pending(path)]
        yield from changes
        if changes or pending != self._pending:
            yield f"pending: {', '.join(pending) or 'nothing'}"
        self._pending = pending

    def _paths(self, name: str) -> list[Path]:
        return sorted(self._directory.rglob(name))

    def _new_lines(self, path: Path) -> Iterator[str]:
        lines = path.read_text("utf-8").splitlines()
        new = lines[self._lines.get(path, 0) :]
        self._lines[path] = len(lines)
        if new:
            yield f"{path.name}, new lines:"
        for line in new:
            spaced = json.dumps(json.loads(line), ensure_ascii=False)  # to be wrapped at spaces
            readable = _TIME.sub("…", _ID.sub(r"\1…", spaced))
            yield f"  + {shorten(readable, WIDTH)}"

    def _changed(self, path: Path) -> Iterator[str]:
        before, after = self._orders.get(path, {}), json.loads(path.read_text("utf-8"))["orders"]
        self._orders[path] = after
        if after != before:
            yield f"{path.name}, changed:"
        for number, order in after.items():
            old = before.get(number)
            if old is None:
                items = shorten(", ".join(order["items"]))
                yield f"  + {order['id'][:SHORT_ID]}  {order['status']}  {items}"
            elif old != order:
                changed = (
                    f"{name} {old[name]} → {order[name]}"
                    for name in order
                    if old[name] != order[name]
                )
                yield f"  ~ {order['id'][:SHORT_ID]}  {', '.join(changed)}"


def _pending(path: Path) -> list[str]:
    """Return the deliveries that the log says are pending: subscriber and event."""
    pending: dict[tuple[str, str], None] = {}
    for line in path.read_text("utf-8").splitlines():
        for delivery in json.loads(line).get("deliveries", ()):
            key = delivery["subscriber"], delivery["event"]
            pending.pop(key, None)
            if delivery.get("status", "pending") == "pending":
                pending[key] = None
    return [f"{subscriber} of event {event[:SHORT_ID]}" for subscriber, event in pending]
