"""The live feed: what every process stores, as the log grows."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..application.store import Cursor, Record, Store
from ..errors import StoreBusy

LOOK = 0.25  # seconds between two questions whether somebody still wants the feed


def feed(
    store: Store,
    after: Cursor,
    until_idle: float | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Record]:
    """Yield the records after a cursor as they are stored, each once, in order.

    Args:
        store: what is watched.
        after: where to begin.
        until_idle: seconds without news after which to end; None goes on for ever.
        is_wanted: asked at every look whether to go on.

    Raises:
        StoreError: the log is damaged, or no longer the same.
    """
    cursor = after
    since = time.monotonic()
    while is_wanted():
        with suppress(StoreBusy):  # who watches has the time to look again
            for record in store.read(cursor):
                yield record
                cursor = record.cursor
                since = time.monotonic()
        idle = time.monotonic() - since
        if until_idle is not None and idle >= until_idle:
            return
        pause = LOOK if until_idle is None else min(LOOK, until_idle - idle)
        with suppress(StoreBusy):
            store.wait(cursor, pause)
