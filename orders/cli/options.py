"""What several commands share: the store they open, their parameters, and how signals end them.

`open_store`, `OrderArgument` and `JsonOption` serve the commands of plugins, too.
"""

import math
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from ..bootstrap import App, bootstrap
from ..domain.order import statuses
from ..domain.text import shorten
from ..errors import AmbiguousOrder, NotStored, OrdersError, StoreUnavailable
from ..messaging.message import now
from ..settings import CONSOLE, Settings
from .mistakes import UnknownName, WrongUse
from .output import Console
from .times import TIMES, age, parse_time

# Not left of an item in a completion: shells evaluate what they are given as help.
_HARMFUL = r"[^\w ,.-]"

EVERY = 1.0  # seconds between two looks at what is pending
FEW = 10  # notices that are printed when they come late; orders that an id may mean


@contextmanager
def open_store(
    context: typer.Context, *, recover: bool = True, in_bulk: bool = False, defer: bool = False
) -> Iterator[tuple[Console, App]]:
    """Open the store, and in the end have policies react to what the command has stored.

    Neither that nor what is left from before is done where it is left to workers.

    Args:
        context: the command's; names the store and the plugins.
        recover: whether to make first the deliveries that processes left when they died.
        in_bulk: whether the command takes its time, so that policies may take theirs.
        defer: whether to leave it to workers, whatever the environment says.
    """
    console: Console = context.obj
    with open_app(context, context.meta["data"], defer=defer) as app:
        is_ours = not app.unit_of_work.is_deferring
        if recover and is_ours:
            deliver_late(console, app)
        try:
            yield console, app
        except AmbiguousOrder as error:
            _list_candidates(console, app, error)
            raise
        if (app.store.commits or in_bulk) and is_ours:
            react(console, app, at_any_cost=in_bulk)


def open_app(context: typer.Context, data: str, *, defer: bool) -> App:
    """Return the application on a store, with the command's plugins, to be closed.

    Args:
        context: the command's.
        data: the store.
        defer: whether deliveries are left to workers, whatever the environment says.
    """
    console: Console = context.obj
    settings = replace(Settings.from_environment(), data=data, plugins=context.meta["plugins"])
    own: dict[str, Any] = {"notifier": console} if settings.notify == CONSOLE else {}
    return bootstrap(
        settings=settings,
        deliver="worker" if defer else None,
        on_failure=console.delivery_failed,
        on_warning=console.warn,
        on_reading=console.reading.of,
        **own,
    )


def _list_candidates(console: Console, app: App, error: AmbiguousOrder) -> None:
    """Say which orders an id may mean: as much of each id as tells them apart, age, items."""
    from .lines import short_length  # noqa: PLC0415 - a start pays for what it uses

    ids, length = error.candidates, short_length(error.candidates)
    for order in map(app.orders.get, ids[:FEW]):
        state = order.state
        items = shorten(", ".join(state.items), min(40, console.width - length - 11))
        console.say(f"{state.id[:length]}  {age(state.placed_at, now()):7}  {items}")
    if len(ids) > FEW:
        console.say(f"and {len(ids) - FEW:,} more")


def say_none_yet(console: Console, app: App, what: str) -> None:
    """Say that the store has none of them, and how it gets some."""
    console.say(f"No {what} in {app.store.location} yet.", hint='orders place "100 inch TV"')


def react(console: Console, app: App, *, at_any_cost: bool) -> int:
    """Have the policies react; warn of those that could not, and return how many these are."""
    if console.notices_to == "stdout":
        console.notices_to = "stderr"  # it is not what the command was asked for
    errors = app.react(at_any_cost=at_any_cost)
    for error in errors:  # the next command will try again
        console.warn(str(error), error.hint)
    return len(errors)


def deliver_late(console: Console, app: App) -> None:
    """Make the deliveries that processes left when they died, and say so."""
    left = [pending for pending in app.store.pending() if pending.is_abandoned]
    if not left:
        return
    # Notices of an import are not printed one by one.
    console.notices_to, own = "nowhere" if len(left) > FEW else "stderr", console.notices_to
    are_deferred = all(pending.is_deferred for pending in left)
    why = "left to workers" if are_deferred else "left by a process that died"
    try:
        if late := app.deliveries.recover():
            console.say(f"Delivered late: {late}, {why}; see orders log.")
    except (StoreUnavailable, NotStored) as error:  # to read, no disk needs to be writable
        console.warn(f"what a process left when it died was not delivered: {error}")
    finally:
        console.notices_to = own


def complete_order(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the orders whose id begins with what is typed, and what is in them."""
    try:
        data = context.find_root().params.get("data")
        with bootstrap(data, on_warning=lambda _warning: None) as app:
            return [
                (order.id, re.sub(_HARMFUL, " ", shorten(", ".join(order.items))))
                for order in app.orders.list()
                if order.id.startswith(incomplete)
            ]
    except OrdersError:
        return []  # a shell is no place for an error


def time_of(text: str) -> datetime:
    """Parse a time as people type it; what is none is wrong use."""
    try:
        return parse_time(text, now())
    except ValueError as error:
        raise WrongUse(str(error), TIMES) from None


def status_of(text: str) -> str:
    """Return a status that orders can have, those of plugins included; any other is wrong use."""
    if text not in statuses():
        raise UnknownName("status", text, statuses())
    return text


OrderArgument = Annotated[
    str,
    typer.Argument(
        metavar="ORDER",
        help="An order's id, or as much of it as is unambiguous.",
        autocompletion=complete_order,
    ),
]
UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="nats://[USER:PASSWORD@]HOST[:PORT], or tls://...")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
DeferOption = Annotated[bool, typer.Option("--defer", help="Leave it to workers to deliver.")]
UntilIdleOption = Annotated[
    float | None, typer.Option(min=0, metavar="S", help="End after S seconds without news.")
]
StatusOption = Annotated[
    str | None,
    typer.Option(
        metavar="STATUS",
        parser=status_of,
        autocompletion=statuses,
        help=f"Only orders with this status: {', '.join(statuses())}.",
    ),
]


def time_option(what: str) -> Any:
    """Return an option that takes a time; its help says what the time is for."""
    wanted = f"{what}: ISO 8601, 2h, 10 minutes ago, yesterday."
    return typer.Option(metavar="T", parser=time_of, help=wanted)


def check_until_idle(seconds: float | None) -> None:
    """Refuse what is a number for Typer, but not for a clock."""
    if seconds is not None and math.isnan(seconds):
        raise WrongUse("--until-idle wants a number, 0 or more, not 'nan'")


def end_on_signals() -> None:
    """Have SIGTERM and SIGHUP, unless they are ignored, end us as Ctrl-C does: leaving nothing."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) == signal.SIG_DFL:
            signal.signal(ending, signal.default_int_handler)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` at the first signal that is to end us; yield the list of those that came.

    Ctrl-C a second time raises KeyboardInterrupt. Signals that are ignored stay so.
    """
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        stop()
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    usual = {signal.SIG_DFL, signal.default_int_handler}
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in ending}
    for number, handler in before.items():
        if handler in usual:
            signal.signal(number, hear)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
