"""What a terminal shows while a long log is read in silence."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

PATIENCE = 1.0  # seconds of silence before a bar is worth its drawing


class ReadingBar:
    """A progress bar on standard error; it comes after some silence and goes when words come."""

    def __init__(self) -> None:
        self._silent_since = time.monotonic()
        self._is_reading = False
        self._shown = ExitStack()  # the bar, if there is one
        self._draw: Callable[[int], None] | None = None

    @contextmanager
    def of(self, size: int) -> Iterator[Callable[[int], None]]:
        """Show how far `size` bytes are read; yield what is told how many are.

        What is read meanwhile for something else has no bar of its own.
        """
        if self._is_reading or not sys.stderr.isatty():
            yield lambda _read: None
            return
        self._is_reading = True
        try:
            yield lambda read: self._tell(read, size)
        finally:
            self._is_reading = False
            self._clear()

    def silence_ends(self) -> None:
        """Take the bar away, for something is about to be printed."""
        self._silent_since = time.monotonic()
        self._clear()

    def _tell(self, read: int, size: int) -> None:
        if self._draw is None and time.monotonic() - self._silent_since > PATIENCE:
            from . import bars  # noqa: PLC0415 - Rich takes 50 ms to import

            self._draw = self._shown.enter_context(bars.reading(size))
        if self._draw is not None:
            self._draw(read)

    def _clear(self) -> None:
        self._draw = None
        self._shown.close()
