"""The command that works as one of many: it shows and measures what a `Worker` does."""

import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..application.store import Store
from ..bootstrap import App
from ..errors import NotWritten, StoreBusy
from ..messaging.message import Event, message_classes, now
from .inspection import show_record
from .mistakes import UnknownName
from .options import (
    EVERY,
    JsonLinesOption,
    UntilIdleOption,
    check_until_idle,
    open_store,
    stopping,
)
from .output import Console

if TYPE_CHECKING:  # a start pays for what it uses
    from ..application.worker import Tallied, Tally

commands = typer.Typer()


@commands.command(epilog="Example: orders worker --until-idle 1")
def worker(
    context: typer.Context,
    subscriber: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Deliver to this one only; may be given again."),
    ] = None,
    until_idle: UntilIdleOption = None,
    metrics: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep counts in FILE, for Prometheus."),
    ] = None,
    json: JsonLinesOption = False,
) -> None:
    """Deliver what is pending, and have policies react; any number share the work.

    Ctrl-C or SIGTERM: what is in hand is finished first; Ctrl-C again ends it at once.
    """
    check_until_idle(until_idle)
    with open_store(context, defer=True) as (console, app):
        console.notices_to = "stderr"
        app.bus.on_failure = lambda *_: None  # the lines say so

        def on_turn() -> None:
            meter.look()
            if not console.is_read():
                one.stop()

        one = app.worker(
            [_known(name, app) for name in subscriber or ()],
            on_record=partial(show_record, console, app, json=json),
            on_turn=on_turn,
            warn=lambda error: console.warn(str(error), error.hint),
        )
        meter = _Meter(console, app.store, one.tally, metrics)
        meter.write()
        if console.draws and not json:
            console.say(f"Working on {app.store.location}; Ctrl-C ends it.")
        with stopping(one.stop) as heard, console.status(lambda: meter.line):
            one.run(until_idle)
        meter.write()
        console.say(f"{meter.counts()}.")
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


class _Meter:
    """Counts what is done and pending, for a line on the terminal and a file of metrics."""

    def __init__(self, console: Console, store: Store, tally: "Tally", path: Path | None) -> None:
        self.line = ""  # what a terminal shows; made here, for another thread draws it
        self._console = console
        self._store = store
        self._tally = tally
        self._path = path
        self._looked = time.monotonic()
        self._done = self._waiting = 0
        self._rate = 0.0

    def look(self) -> None:
        """Make the line; once a second measure, and write the file."""
        passed = time.monotonic() - self._looked
        if passed >= EVERY:
            done = self._total("done")
            self._rate, self._done = (done - self._done) / passed, done
            self._looked += passed
            try:
                self.write()
            except NotWritten as error:  # to deliver matters more
                self._path = None
                self._console.warn(f"no metrics are written any more: {error}")
        self.line = f"{self.counts()}, {self._rate:,.0f} a second"

    def write(self) -> None:
        """Count what is pending; write the file, if there is to be one.

        Raises:
            NotWritten: the system refuses.
        """
        from ..tools.import_export import write_file  # noqa: PLC0415 - a start pays for what it uses
        from ..tools.metrics import exposition  # noqa: PLC0415 - same

        with suppress(StoreBusy):
            pending = list(self._store.deliveries("pending"))
            self._waiting = len(pending)
            if self._path is not None:
                write_file(self._path, exposition(self._tally, pending, now()))

    def counts(self) -> str:
        """Return ``7 delivered, 1 failed, 0 waiting``."""
        failed = self._total("failed") + self._total("dead")
        return f"{self._total('done'):,} delivered, {failed:,} failed, {self._waiting:,} waiting"

    def _total(self, what: "Tallied") -> int:
        return sum(number for (kind, _), number in self._tally.items() if kind == what)


def _known(name: str, app: App) -> str:
    """Return the name of a subscriber or a policy; any other is wrong use."""
    events = [kind for kind in message_classes().values() if issubclass(kind, Event)]
    heard = [one.name for kind in events for one in app.bus.subscribers(kind)]
    known = list(dict.fromkeys([*heard, *app.policies]))
    if name not in known:
        raise UnknownName("subscriber", name, known, "orders topics")
    return name
