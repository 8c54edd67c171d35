"""Where a notice goes. The console now; mail or a queue by the same port."""

import os
import sys
from typing import NamedTuple, Protocol, TextIO

from .text import safe


class Notice(NamedTuple):
    """What the sales department is told of an order; its id tells a repeated notice."""

    order_id: str
    items: tuple[str, ...]
    title: str = "New Order"

    @property
    def item_list(self) -> str:
        """The items as Python writes a list, which escapes what cannot be shown."""
        return repr(list(self.items))

    def __str__(self) -> str:
        rule = "============"
        title = f"{rule}\n{safe(self.title)}:\n{rule}\n"
        return f"{title}ID: {safe(self.order_id)}\nItems: {self.item_list}"


class Notifier(Protocol):
    """Delivers notices; whatever it raises makes the delivery one to be tried again."""

    def notify(self, notice: Notice) -> None:
        """Deliver one notice, wholly, before returning."""


class NullNotifier:
    """Tells nobody."""

    def notify(self, notice: Notice) -> None:
        """Do nothing."""


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
