"""The commands that talk with other services: they show what a Listener and a Server do."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from ..application.store import START, Record
from ..bootstrap import App, listener
from ..domain.text import count
from ..errors import OrdersError, StoreBusy
from ..messaging.message import Message
from . import rows
from .inspection import show_record
from .options import (
    EVERY,
    JsonLinesOption,
    UntilIdleOption,
    UrlArgument,
    check_until_idle,
    deliver_late,
    open_app,
    open_store,
    react,
    stopping,
)
from .output import Console

commands = typer.Typer()


@commands.command(epilog="Example: orders listen nats://127.0.0.1:4222 --until-idle 1")
def listen(
    context: typer.Context,
    url: UrlArgument,
    stream: Annotated[
        str, typer.Option(metavar="NAME", help="The stream that a relay fills.")
    ] = "ORDERS",
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose place in the stream is kept; else this machine's."
        ),
    ] = None,
    json: JsonLinesOption = False,
    until_idle: UntilIdleOption = None,
) -> None:
    """Show the events that a relay sends, as watch does, but without their store.

    It begins with the first event, and later where it was; listeners of one name share the events.
    """
    check_until_idle(until_idle)
    console: Console = context.obj

    def on_turn() -> None:
        if not console.is_read():
            one.stop()

    with open_app(context, ":memory:", defer=True) as app:

        def on_event(event: Message, number: int) -> None:
            record = Record(START, number, event.time, (event,), ())
            show_record(console, app, record, json=json)

        one = listener(
            url,
            stream=stream,
            name=_own_name() if name is None else name,
            on_event=on_event,
            on_turn=on_turn,
            on_lost=_once(console),
            warn=console.warn,
        )
        if console.draws and not json:
            console.say(f"Listening to {one.location}; Ctrl-C ends it.")
        with stopping(one.stop) as heard:
            one.run(until_idle)
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


@commands.command(epilog="Example: orders serve nats://127.0.0.1:4222 --until-idle 1")
def serve(
    context: typer.Context,
    url: UrlArgument,
    stream: Annotated[
        str, typer.Option(metavar="NAME", help="The work queue of the requests; made if missing.")
    ] = "ORDERS_REQUESTS",
    subject: Annotated[
        str, typer.Option(metavar="SUBJECT", help="What their subjects begin with.")
    ] = "order-requests",
    json: JsonLinesOption = False,
    until_idle: UntilIdleOption = None,
) -> None:
    """Place, ship and cancel orders as other services ask; any number of servers share the work.

    Each request is done once, and answered: the README says how one asks.
    """
    check_until_idle(until_idle)
    with open_store(context) as (console, app):
        console.notices_to = "stderr"
        show = _Shown(console, app, json=json)

        def on_turn() -> None:
            show.keep_up()
            if not console.is_read():
                one.stop()

        one = app.server(
            url,
            stream=stream,
            subject=subject,
            on_served=show.served,
            on_turn=on_turn,
            on_lost=_once(console),
            warn=_once(console),
        )
        if console.draws and not json:
            console.say(f"Serving {one.location}; Ctrl-C ends it.")
        with stopping(one.stop) as heard, console.status(lambda: show.counts):
            one.run(until_idle)
        console.say(f"{show.counts}.")
    if signal.SIGINT in heard:
        raise KeyboardInterrupt


class _Shown:
    """Shows and counts requests, and makes what deliveries others have left meanwhile."""

    def __init__(self, console: Console, app: App, *, json: bool) -> None:
        self._console = console
        self._app = app
        self._json = json
        self._looked = time.monotonic()
        self._commits = 0
        self._number: Counter[bool] = Counter()  # of requests, by whether they were refused

    @property
    def counts(self) -> str:
        """``7 requests fulfilled, 1 refused``."""
        return f"{count(self._number[False], 'request')} fulfilled, {self._number[True]:,} refused"

    def served(self, topic: str, answer: dict[str, Any]) -> None:
        """Show a request and its answer."""
        is_refused = "error" in answer
        self._number[is_refused] += 1
        if self._json:
            self._console.json(answer)
        elif self._console.draws:
            self._draw(topic, answer)
        else:
            self._console.records([rows.request_row(topic, answer)])

    def keep_up(self) -> None:
        """Once a second, do what other commands do as they begin and as they end."""
        if self._app.unit_of_work.is_deferring or time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        with suppress(StoreBusy):  # there is time to look again
            deliver_late(self._console, self._app)  # what a server that was killed has left
        if self._app.store.commits > self._commits:
            react(self._console, self._app, at_any_cost=False)
            self._commits = self._app.store.commits

    def _draw(self, topic: str, answer: dict[str, Any]) -> None:
        from . import rendering  # noqa: PLC0415 - Rich takes 50 ms to import
        from .lines import request_line  # noqa: PLC0415 - a start pays for what it uses

        number = self._number.total()
        line = request_line(number, topic, answer, self._app)
        rendering.show(rendering.draw_line(line))


def _once(console: Console) -> Callable[[OrdersError], None]:
    """Return what warns of an error, unless it is the same as before."""
    said: list[str] = [""]

    def warn(error: OrdersError) -> None:
        if str(error) != said[0]:
            said[0] = str(error)
            console.warn(str(error), error.hint)

    return warn


def _own_name() -> str:
    """Return this machine's name, as far as a listener can have it."""
    return re.sub(r"[^\w-]", "-", f"listen-{os.uname().nodename}", flags=re.ASCII)
