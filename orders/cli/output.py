"""What the commands print with: data to standard output, talk to standard error.

On a terminal data is drawn with Rich; piped, it is one record a line, its fields separated by
tabs. Whatever is printed here is made safe first.
"""

import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, TextIO, cast

import typer

from ..adapters.notifiers import ConsoleNotifier
from ..application.notifications import Notice
from ..application.store import Account
from ..domain.order import OrderState
from ..domain.text import safe, safe_json, shorten
from ..errors import ImportRefused, Interrupted, OrdersError, StoreError, describe
from ..messaging.message import Event, name_of
from ..messaging.subscriptions import Subscriber
from ..tools.json_lines import as_json
from . import rows


class ExitStatus(IntEnum):
    """What the process returns to its caller."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    INTERRUPTED = 130


class _Unread(Exception):
    """Whoever reads our output has seen enough."""


_WrongUse: Any = typer.BadParameter.__base__  # UsageError, which Typer does not export


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
        self.notices_to: Literal["stdout", "stderr", "nowhere"] = "stdout"

    def run(self, command: Callable[[], int | None]) -> int:
        """Run a command; say what stopped it, and return the status to exit with."""
        try:
            status = command() or ExitStatus.DONE
            sys.stdout.flush()
        except (_WrongUse, OrdersError) as error:
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
            self.warn(f"interrupted: {error}")
            return ExitStatus.INTERRUPTED
        if isinstance(error, OrdersError):
            for line in error.lines if isinstance(error, ImportRefused) else ():
                self.say(line)
            self.fail(str(error))
            return ExitStatus.FAILED
        path = error.ctx.command_path if error.ctx else "orders"
        self.fail(f"{error.format_message().rstrip('.')} (see {path} --help)")
        return ExitStatus.WRONG_USE

    def say(self, text: str, mark: str = "", colour: str = "") -> None:
        """Say something that is not data, after a mark that may be coloured."""
        marked = f"{_label(mark, colour)} " if mark else ""
        try:
            print(f"{marked}{safe(text)}", file=sys.stderr, flush=True)
        except OSError:  # nobody reads it; what is done is done all the same
            _discard(sys.stderr)

    def warn(self, text: str) -> None:
        """Say what was survived."""
        self.say(text, "warning:", "yellow")

    def fail(self, text: str) -> None:
        """Say in one line why it could not be done."""
        self.say(text, "error:", "red")

    def delivery_failed(self, subscriber: Subscriber, event: Event, error: BaseException) -> None:
        """Say that a subscriber failed; what was stored is safe all the same."""
        advice = "what was stored stays; see orders deliveries --failed, then orders retry --all"
        if isinstance(error, StoreError):
            advice = "what was stored stays; the delivery was not recorded and is still pending"
        self.warn(
            f"{subscriber.name} failed on {name_of(event)} {event.id}:"
            f" {shorten(describe(error), 200)}; {advice}"
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

    @staticmethod
    def _print(lines: Iterable[str]) -> None:
        try:
            for line in lines:
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # Typer would make it a failure
            raise _Unread from None

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows as a table on a terminal, as records otherwise."""
        if self.draws:
            from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(rendering.rows_table(columns, rows))
        else:
            self.records(rows)

    def orders(self, orders: Sequence[OrderState]) -> None:
        """Show orders as a table on a terminal, as records otherwise."""
        if self.draws and orders:
            from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(rendering.order_table(orders))
        else:
            self.records(map(rows.order_row, orders))

    def deliveries(self, accounts: Iterable[Account]) -> None:
        """Show deliveries as a table on a terminal, as records otherwise."""
        if self.draws:
            from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(rendering.delivery_table(accounts))
        else:
            self.records(map(rows.account_row, accounts))

    def wait(self) -> None:
        """Wait until the user presses Enter."""
        print("  [Enter]", end="", file=sys.stderr, flush=True)
        sys.stdin.readline()

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show progress where somebody is watching; yield the function that advances it."""
        if not _is_terminal(sys.stderr):
            yield lambda: None
            return
        from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

        with rendering.progress(what, total) as advance:
            yield advance

    def notify(self, notice: Notice) -> None:
        """Deliver a notice to where this command's notices go (see `Notifier`)."""
        if self.notices_to == "nowhere":
            return
        stream = getattr(sys, self.notices_to)
        if _is_terminal(stream):
            from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import

            rendering.show(rendering.notice_panel(notice), stderr=self.notices_to == "stderr")
            stream.flush()
        else:
            ConsoleNotifier(stream).notify(notice)


def _nowhere(mode: str) -> TextIO:
    return cast(TextIO, Path(os.devnull).open(mode, encoding="utf-8"))


def _discard(stream: TextIO) -> None:
    """Have what is still in the stream's buffer go nowhere, instead of failing at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_terminal(stream: Any) -> bool:
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def _label(text: str, colour: str) -> str:
    if not _is_terminal(sys.stderr) or os.environ.get("NO_COLOR"):
        return text
    return typer.style(text, fg=colour, bold=True)
