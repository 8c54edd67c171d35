"""What several commands share: the store they open, and parameters that mean the same in each."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer

from .bootstrap import App, bootstrap
from .console import Console
from .errors import FollowerError, NotStored, OrdersError, StoreError, StoreUnavailable
from .message import now
from .settings import Settings
from .text import shorten
from .times import parse_time

# Not left of an item in a completion: shells evaluate what they are given as help.
_HARMFUL = r"[^\w ,.-]"


FEW = 10  # notices that are printed when they come late


@contextmanager
def open_store(
    context: typer.Context, *, recover: bool = True, in_bulk: bool = False
) -> Iterator[tuple[Console, App]]:
    """Open the store, and in the end have policies react to what the command has stored.

    Args:
        context: the command's; names the directory.
        recover: whether to deliver first what a process that died still owed.
        in_bulk: whether the command takes its time, so that policies may take theirs.
    """
    console: Console = context.obj
    with bootstrap(
        settings=Settings.from_environment()._replace(data=context.meta["data"]),
        notifier=console,
        on_failure=console.delivery_failed,
        on_warning=console.warn,
    ) as store:
        if recover:
            _recover(console, store)
        yield console, store
        if store.log.appended or in_bulk:
            _follow(console, store, in_bulk=in_bulk)


def _follow(console: Console, store: App, *, in_bulk: bool) -> None:
    from .followers import Follower  # noqa: PLC0415 - 2 ms that only a command that writes pays
    from .policies import POLICIES  # noqa: PLC0415 - same

    if console.notices_to == "stdout":
        console.notices_to = "stderr"  # it is not what the command was asked for
    try:
        for policy in POLICIES:
            Follower(store, policy).keep_up(at_any_cost=in_bulk)
    except (FollowerError, StoreError) as error:  # the next command will try again
        console.warn(str(error))


def _recover(console: Console, store: App) -> None:
    is_import = len(store.log.pending()) > FEW  # whose notices are not printed one by one
    console.notices_to, own = "nowhere" if is_import else "stderr", console.notices_to
    try:
        if late := store.deliveries.recover():
            console.say(f"Delivered late: {late}, owed by a process that died; see orders log.")
    except (StoreUnavailable, NotStored) as error:  # to read, no disk needs to be writable
        console.warn(f"what a process owed was not delivered: {error}")
    finally:
        console.notices_to = own


def complete_order(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the orders whose id begins with what is typed, and what is in them."""
    try:
        data = context.find_root().params.get("data")
        with bootstrap(data, on_warning=lambda _warning: None) as store:
            return [
                (order.id, re.sub(_HARMFUL, " ", shorten(", ".join(order.items))))
                for order in store.orders.list()
                if order.id.startswith(incomplete)
            ]
    except OrdersError:
        return []  # a shell is no place for an error


def time_of(text: str) -> datetime:
    """Parse a time as people type it; what is none is wrong use."""
    try:
        return parse_time(text, now())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


OrderArgument = Annotated[
    str,
    typer.Argument(
        metavar="ORDER",
        help="An order's id, or as much of it as is unambiguous.",
        autocompletion=complete_order,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


def time_option(what: str) -> Any:
    """Return an option that takes a time; its help says what the time is for."""
    wanted = f"{what}: ISO 8601, 2h, 10 minutes ago, yesterday."
    return typer.Option(metavar="T", parser=time_of, help=wanted)
