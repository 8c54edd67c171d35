"""The live feed: messages of every process, as the log grows."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from .errors import StoreBusy
from .event_log import EventLog
from .ledger import Position
from .message import Message

POLL = 0.05  # seconds between two looks at the size of the log


class Told(NamedTuple):
    """A message and the number of its line in the log."""

    seq: int
    message: Message


def feed(
    log: EventLog,
    after: Position,
    until_idle: float | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Told]:
    """Yield messages after a position as they are stored, each once, in order.

    Args:
        log: what is watched.
        after: where to begin.
        until_idle: seconds without news after which to end; None goes on for ever.
        is_wanted: asked at every look whether to go on.

    Raises:
        StoreError: the log is damaged, or no longer the same file.
    """
    position = after
    since = time.monotonic()
    while is_wanted():
        with suppress(StoreBusy):  # who watches has the time to look again
            if log.size() != position.offset:
                for entry in log.read(position):
                    yield from (Told(entry.line.seq, message) for message in entry.line.messages)
                    position = entry.end
                    since = time.monotonic()
        if until_idle is not None and time.monotonic() - since >= until_idle:
            return
        time.sleep(POLL if until_idle is None else min(POLL, until_idle))
