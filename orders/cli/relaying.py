"""The command that passes events on to other services: it shows what a `Relay` does."""

import re
import signal
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..domain.text import count
from .mistakes import WrongUse
from .options import EVERY, UntilIdleOption, UrlArgument, check_until_idle, open_store, stopping

if TYPE_CHECKING:  # a start pays for what it uses
    from ..adapters.nats.relay import Relay

commands = typer.Typer()


@commands.command(epilog="Example: orders relay nats://127.0.0.1:4222 --until-idle 1")
def relay(
    context: typer.Context,
    url: UrlArgument,
    stream: Annotated[
        str, typer.Option(metavar="NAME", help="The stream; it is made if there is none.")
    ] = "ORDERS",
    subject_prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="What stands before the topic in a subject.")
    ] = "orders.",
    begin: Annotated[
        Literal["store", "start", "now"],
        typer.Option(
            "--from",
            help="In a stream whose last event is gone, go on where the store knows it was,"
            " with the first event, or with the next.",
        ),
    ] = "store",
    until_idle: UntilIdleOption = None,
) -> None:
    """Send every event to a stream of NATS JetStream, once and in order, until Ctrl-C.

    Killed, it goes on behind the stream's last event; two of them double nothing.
    """
    check_until_idle(until_idle)
    _check_prefix(subject_prefix)
    with open_store(context, defer=True) as (console, app):

        def on_turn() -> None:
            meter.look()
            if not console.is_read():
                one.stop()

        one = app.relay(
            url,
            stream=stream,
            prefix=subject_prefix,
            begin=begin,
            on_turn=on_turn,
            say=console.say,
            warn=lambda error: console.warn(str(error), error.hint),
        )
        meter = _Meter(one)
        if console.draws:
            console.say(f"Relaying {app.store.location} to the stream {stream}; Ctrl-C ends it.")
        with stopping(one.stop) as heard, console.status(lambda: meter.line):
            one.run(until_idle)
        console.say(f"{count(one.relayed, 'event')} relayed to {stream}.")
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


class _Meter:
    """Counts what is relayed, for a line on the terminal."""

    def __init__(self, one: "Relay") -> None:
        self.line = ""  # what a terminal shows; made here, for another thread draws it
        self._relay = one
        self._looked = time.monotonic()
        self._done = 0
        self._rate = 0.0

    def look(self) -> None:
        """Make the line; once a second measure."""
        relayed, losses, behind = self._relay.relayed, self._relay.losses, self._relay.behind
        passed = time.monotonic() - self._looked
        if passed >= EVERY:
            self._rate, self._done = (relayed - self._done) / passed, relayed
            self._looked += passed
        lag = f"{behind:,.0f} s behind" if behind else "up to date"
        lost = f", connection lost {count(losses, 'time')}" if losses else ""
        self.line = f"{count(relayed, 'event')} relayed, {self._rate:,.0f} a second, {lag}{lost}"


def _check_prefix(prefix: str) -> None:
    """Refuse what NATS would take for something else than a name."""
    if not re.fullmatch(r"([\w-]+\.)+", prefix, re.ASCII):
        raise WrongUse(
            f"{prefix!r} is no beginning of a subject", "end each part with a dot: orders."
        )
