"""What the commands print with: data to standard output, talk to standard error.

On a terminal data is drawn with Rich; piped, it is one record a line, its fields separated by
tabs. Whatever is printed here is made safe first.
"""

import os
import re
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from io import TextIOWrapper
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Literal, TextIO, cast

import typer

from ..adapters.notifiers import ConsoleNotifier
from ..application.notifications import Notice
from ..application.store import Account
from ..domain.order import OrderState
from ..domain.text import safe, safe_json, shorten
from ..errors import ImportRefused, Interrupted, OrdersError, StoreError, WrongName, describe
from ..messaging.message import Event
from ..messaging.subscriptions import Subscriber
from ..tools.json_lines import as_json
from . import rows
from .mistakes import UsageError, explain
from .waiting import ReadingBar

PLAIN_WIDTH = 80  # columns of a page that no terminal shows
STATUSES = range(256)  # that a process can exit with


class ExitStatus(IntEnum):
    """What the process returns to its caller."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    INTERRUPTED = 130


class _Unread(Exception):
    """Whoever reads our output has seen enough."""


class Console:
    """The process's own streams, and what the user wants to see on them."""

    def __init__(self) -> None:
        sys.stdin = sys.stdin or _nowhere("r")  # a closed stream is None
        sys.stdout = sys.stdout or _nowhere("w")
        sys.stderr = sys.stderr or _nowhere("w")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # show what cannot be encoded, do not fail on it
                stream.reconfigure(errors="backslashreplace")
        if isinstance(sys.stdout, TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.reconfigure(encoding="utf-8")  # data is the same wherever it is piped
        if isinstance(sys.stdin, TextIOWrapper):  # what is no text is refused by name, later
            sys.stdin.reconfigure(errors="surrogateescape")
        self.draws = _is_terminal(sys.stdout)
        self.store: str | None = None  # that the command was given
        self.notices_to: Literal["stdout", "stderr", "nowhere"] = "stdout"
        self.reading = ReadingBar()

    def run(self, command: Callable[[], object]) -> int:
        """Run a command; say what stopped it, and return the status to exit with."""
        try:
            result = command()  # what a command returns, or the status it has exited with
            status = result if type(result) is int and result in STATUSES else ExitStatus.DONE
            sys.stdout.flush()
        except (UsageError, OrdersError) as error:
            status = self._explain(error)
        except _Unread:
            _discard(sys.stdout)
            status = ExitStatus.DONE
        except OSError as error:
            _discard(sys.stdout)
            reason = (error.strerror or str(error)).lower()
            self.fail(f"cannot use {error.filename or 'the output'}: {reason}")
            status = ExitStatus.FAILED
        except (KeyboardInterrupt, typer.Abort):
            status = ExitStatus.INTERRUPTED
        return status

    def _explain(self, error: Any) -> ExitStatus:
        if isinstance(error, Interrupted):
            self.warn(f"interrupted: {error}", error.hint)
            return ExitStatus.INTERRUPTED
        if isinstance(error, OrdersError):
            for line in error.lines if isinstance(error, ImportRefused) else ():
                self.say(line)
            self.fail(str(error), error.hint)
            return ExitStatus.WRONG_USE if isinstance(error, WrongName) else ExitStatus.FAILED
        self.fail(*explain(error))
        return ExitStatus.WRONG_USE

    @property
    def width(self) -> int:
        """How many columns there are to write in."""
        return get_terminal_size().columns if self.draws else PLAIN_WIDTH

    def heading(self, text: str) -> None:
        """Print lines that are bold where somebody reads them."""
        self._print(_styled(safe(line), sys.stdout) for line in text.splitlines())

    def say(
        self, text: str, mark: str = "", colour: str | None = None, *, hint: str | None = None
    ) -> None:
        """Say something that is not data, after a mark that may be coloured.

        It is one line, unless somebody reads it on a terminal that is narrower; what to try
        stands on a line of its own.
        """
        self.reading.silence_ends()
        said = f"{mark} {safe(text)}" if mark else safe(text)
        if sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            said = wrapped(said, width or PLAIN_WIDTH)
        said = _styled(mark, sys.stderr, colour) + said[len(mark) :]
        try:
            print(said, file=sys.stderr, flush=True)
        except OSError:  # nobody reads it; what is done is done all the same
            _discard(sys.stderr)
        if hint:
            self.say(self._on_the_same_store(hint), "try:", "cyan")

    def _on_the_same_store(self, hint: str) -> str:
        if self.store is None:
            return hint
        from shlex import quote  # noqa: PLC0415 - only for who uses the option and goes wrong

        command = f"orders --data {quote(self.store)} "
        return re.sub(r"(^|, then )orders (?!-)", lambda before: before[1] + command, hint)

    def warn(self, text: str, hint: str | None = None) -> None:
        """Say what was survived, and what to try."""
        self.say(text, "warning:", "yellow", hint=hint)

    def fail(self, text: str, hint: str | None = None) -> None:
        """Say in one line why it could not be done, and on another one what to try."""
        self.say(text, "error:", "red", hint=hint)

    def delivery_failed(self, subscriber: Subscriber, event: Event, error: BaseException) -> None:
        """Say that a subscriber failed; what was stored is safe all the same."""
        is_recorded = not isinstance(error, StoreError)
        so_far = "what was stored stays"
        if not is_recorded:
            so_far += "; the delivery was not recorded and is still pending"
        self.warn(
            f"{subscriber.name} failed on {type(event).__name__} {event.id}:"
            f" {shorten(describe(error), 200)}; {so_far}",
            "orders deliveries --failed, then orders retry --all" if is_recorded else None,
        )

    @staticmethod
    def is_read() -> bool:
        """Return whether somebody can still read what is printed: false once a pipe is closed."""
        watched = select.poll()
        watched.register(sys.stdout.fileno(), 0)
        gone = select.POLLERR | select.POLLHUP  # macOS says POLLNVAL of a living terminal
        return not any(events & gone for _, events in watched.poll(0))

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        self.json_lines([as_json(value)])

    def json_lines(self, lines: Iterable[str]) -> None:
        """Print lines of JSON."""
        self._print(map(safe_json, lines))

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines of another format."""
        self._print(map(safe, lines))

    def records(self, rows: Iterable[Sequence[str]]) -> None:
        """Print rows, one a line, full values separated by tabs."""
        self._print("\t".join(map(safe, row)) for row in rows)

    def _print(self, lines: Iterable[str]) -> None:
        try:
            for line in lines:
                self.reading.silence_ends()
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # Typer would make it a failure
            raise _Unread from None

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows as a table on a terminal, as records otherwise."""
        if self.draws:
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(tables.rows_table(columns, rows))
        else:
            self.records(rows)

    def orders(self, orders: Sequence[OrderState]) -> None:
        """Show orders as a table on a terminal, as records otherwise."""
        if self.draws and orders:
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(tables.order_table(orders))
        else:
            self.records(map(rows.order_row, orders))

    def deliveries(self, accounts: Sequence[Account]) -> None:
        """Show deliveries as a table on a terminal, as records otherwise."""
        if self.draws and accounts:
            from . import rendering, tables  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(tables.delivery_table(accounts))
        else:
            self.records(map(rows.account_row, accounts))

    def wait(self) -> None:
        """Wait until the user presses Enter."""
        print("  [Enter]", end="", file=sys.stderr, flush=True)
        sys.stdin.readline()
        if not sys.stdin.isatty():  # where Enter is not seen
            print(file=sys.stderr)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show progress where somebody is watching; yield the function that advances it."""
        if not _is_terminal(sys.stderr):
            yield lambda: None
            return
        from . import bars  # noqa: PLC0415 - Rich takes 50 ms to import

        with bars.progress(what, total) as advance:
            yield advance

    @contextmanager
    def status(self, line: Callable[[], str]) -> Iterator[None]:
        """Keep a line in place below all that is printed, where somebody is watching."""
        if not _is_terminal(sys.stderr):
            yield
            return
        from . import bars  # noqa: PLC0415 - Rich takes 50 ms to import

        with bars.status(line):
            yield

    def notify(self, notice: Notice) -> None:
        """Deliver a notice to where this command's notices go (see `Notifier`)."""
        if self.notices_to == "nowhere":
            return
        self.reading.silence_ends()
        stream = getattr(sys, self.notices_to)
        if _is_terminal(stream):
            from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(rendering.notice_panel(notice), stderr=self.notices_to == "stderr")
            stream.flush()
        else:
            ConsoleNotifier(stream).notify(notice)


def wrapped(text: str, width: int) -> str:
    """Return `text` with line feeds in the place of spaces, where a line is full.

    Each line is as far from the edge as the first one.
    """
    first, *words = text.lstrip(" ").split(" ")
    edge = " " * (len(text) - len(text.lstrip(" ")))
    lines = [edge + first]
    for word in words:
        line = f"{lines[-1]} {word}"
        if columns(line) > width:
            lines.append(edge + word)
        else:
            lines[-1] = line
    return "\n".join(lines)


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - seldom needed

    return sum(
        2
        if unicodedata.east_asian_width(character) in "WF"
        else not unicodedata.combining(character)
        for character in text
    )


def _nowhere(mode: str) -> TextIO:
    return cast(TextIO, Path(os.devnull).open(mode, encoding="utf-8"))


def _discard(stream: TextIO) -> None:
    """Have what is still in the stream's buffer go nowhere, instead of failing at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_terminal(stream: Any) -> bool:
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def _styled(text: str, stream: TextIO, colour: str | None = None) -> str:
    if not (text and _is_terminal(stream)) or os.environ.get("NO_COLOR"):
        return text
    return typer.style(text, fg=colour, bold=True)
