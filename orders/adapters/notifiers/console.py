"""Notices on the console."""

import os
import sys
from typing import TextIO

from ...application.notifications import Notice


class ConsoleNotifier:
    """Prints notices, as plain text, to standard output unless given another stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def notify(self, notice: Notice) -> None:
        """Print the notice, past the stream's buffer: what fails must not be printed later."""
        stream = self._stream or sys.stdout
        stream.flush()
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError):  # a stream in memory
            print(notice, file=stream, flush=True)
            return
        data = memoryview(f"{notice}\n".encode(stream.encoding or "utf-8", "backslashreplace"))
        while data:
            data = data[os.write(descriptor, data) :]
