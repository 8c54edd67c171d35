"""What `orders` says of itself: the start page, `orders help`, and what --help adds to Typer's."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from .. import __version__
from ..application.store import Pending
from ..bootstrap import App
from ..domain.text import count
from ..errors import OrdersError
from ..settings import without_password
from .mistakes import UnknownName
from .options import open_store
from .output import Console, wrapped

SLOGAN = "the order system you can kill at any line"
MANY = 100  # orders; with more, to look for what has failed takes longer than a list
NARROW = 28  # columns that an explanation needs beside what it explains


class Guide(NamedTuple):
    """Where a command is, where it stands in the help, and what to do after it."""

    module: str  # beside this one; imported when the command is asked for
    panel: str
    next: str  # a command that runs as it is; ORDER stands for an id
    why: str


GUIDE = {
    "place": Guide(
        "ordering", "Order", "orders list", "shows it, and orders trace what came of it"
    ),
    "list": Guide("ordering", "Order", "orders show ORDER", "shows one of them with its history"),
    "show": Guide(
        "ordering", "Order", "orders trace ORDER", "shows what came of it: who was notified"
    ),
    "ship": Guide("ordering", "Order", "orders show ORDER", "shows its history"),
    "cancel": Guide("ordering", "Order", "orders show ORDER", "shows its history"),
    "import": Guide("ordering", "Order", "orders stats", "shows what was ordered most"),
    "export": Guide(
        "ordering", "Order", "orders help import", "says how to read it into another store"
    ),
    "watch": Guide(
        "inspection", "Look", "orders place rope", "in another terminal: watch it arrive"
    ),
    "log": Guide(
        "inspection", "Look", "orders trace ORDER", "shows one order's part of it, as a tree"
    ),
    "trace": Guide("inspection", "Look", "orders retry --all", "delivers again what has failed"),
    "stats": Guide(
        "inspection", "Look", "orders replay --dry-run", "checks the numbers against the log"
    ),
    "topics": Guide("inspection", "Look", "orders explain topic", "says what a topic is"),
    "deliveries": Guide(
        "maintenance", "Look", "orders retry --all", "delivers again what has failed"
    ),
    "listen": Guide("serving", "Look", "orders place rope", "where a relay runs: see it arrive"),
    "retry": Guide(
        "maintenance", "Keep", "orders deliveries --failed", "shows what has failed again, and why"
    ),
    "worker": Guide(
        "working", "Keep", "orders place rope --defer", "in another terminal: it is delivered"
    ),
    "serve": Guide(
        "serving", "Keep", "orders log", "shows what was asked for, and what came of it"
    ),
    "doctor": Guide(
        "maintenance", "Keep", "orders doctor --repair", "repairs what it can, keeping copies"
    ),
    "checkpoint": Guide(
        "maintenance", "Keep", "orders doctor", "checks what it has brought up to date"
    ),
    "replay": Guide(
        "maintenance", "Keep", "orders stats", "shows what two of the projections hold"
    ),
    "relay": Guide("relaying", "Keep", "orders doctor", "says how far it is behind"),
    "copy": Guide("maintenance", "Keep", "orders doctor", "with --data TO, checks the copy"),
    "bench": Guide("maintenance", "Keep", "orders explain snapshot", "says why the cost is flat"),
    "demo": Guide("demo", "Learn", "orders demo --list", "lists the other runs"),
    "explain": Guide(
        "explaining", "Learn", "orders topics", "shows the wiring that the words are about"
    ),
    "help": Guide("help", "Learn", "orders explain", "lists the words of the field"),
}

FAULTS = (
    "before-append torn-append after-append before-fsync after-fsync before-truncate"
    " after-truncate before-state-write torn-state-write after-state-write before-state-fsync"
    " after-state-fsync before-replace after-replace before-directory-fsync"
    " after-directory-fsync before-delivery mid-delivery"
)
ENVIRONMENT = {
    "ORDERS_DATA": "The store, as --data: a directory, a postgresql:// URL, or :memory:.",
    "ORDERS_PLUGINS": "Modules that add to the system, as --plugin; commas between them.",
    "ORDERS_NOTIFY": "Where notices go: console, file:PATH, smtp://HOST, or any address that the"
    " apprise library knows.",
    "ORDERS_DELIVER": "Who delivers what commands store: here, they themselves; worker, as with"
    " --defer.",
    "ORDERS_LOCK_TIMEOUT": "How many seconds to wait for another process; 10 if not set.",
    "ORDERS_FAULT": "Where to be killed, to see what is kept: POINT or POINT@COUNT; with"
    f" POINT@COUNT=ERRNO a call fails instead. A POINT is one of {FAULTS.replace(' ', ', ')}.",
    "NO_COLOR": "If set, no colours.",
    "FORCE_COLOR": "If set, as on a terminal, even when piped.",
}

START = (
    ("orders demo", "see it at work, killed and recovered"),
    ('orders place "100 inch TV"', "place an order"),
    ("orders explain outbox", "what a word of the field means"),
    ("orders help place", "what a command does, and what to do next"),
)

commands = typer.Typer()


class Command(TyperCommand):
    """A command whose usage has ORDER where Typer has {ORDER}, which nobody is to type."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands after the command's name."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


def complete_command(context: typer.Context, incomplete: str) -> list[str]:
    """Return the commands that begin with what is typed."""
    group: Any = context.find_root().command
    return [name for name in group.list_commands(context) if name.startswith(incomplete)]


@commands.command("help", epilog="Example: orders help place")
def show_help(
    context: typer.Context,
    command: Annotated[
        str | None,
        typer.Argument(metavar="[COMMAND]", help="Which one.", autocompletion=complete_command),
    ] = None,
) -> None:
    """Say what a command does, its options, and what to do next.

    Without one, say what all of them do, and which variables are heeded.
    """
    root = context.find_root()
    group: Any = root.command
    if command is None:
        print(root.get_help())
    elif (found := group.get_command(root, command)) is None:
        raise UnknownName("command", command, group.list_commands(root), "orders help")
    else:
        with typer.Context(found, info_name=command, parent=root) as own:
            print(own.get_help())


def panels(group: Any, context: Any) -> dict[str, list[str]]:
    """Return the names of the commands by their place in the help, both in order."""
    found: dict[str, list[str]] = {}
    for name in group.list_commands(context):
        found.setdefault(group.commands[name].rich_help_panel, []).append(name)
    return found


def show_start_page(context: typer.Context) -> None:
    """Show what this is, where to start, the commands, and the state of the store here."""
    console: Console = context.obj
    grouped = [
        (panel, ", ".join(names)) for panel, names in panels(context.command, context).items()
    ]
    width = console.width
    page = (
        ("Start here", laid_out(START, width)),
        ("Commands", laid_out(grouped, width)),
        ("The store here", _indented(_store_lines(context), width)),
    )
    console.heading(wrapped(f"orders {__version__}: {SLOGAN}", width))
    for title, lines in page:
        console.lines([""])
        console.heading(title)
        console.lines(lines)


def draw_environment() -> None:
    """Draw the variables that are heeded, as the panels are that Typer draws."""
    from rich import box, console, panel, table  # noqa: PLC0415, TID251 - Rich takes 50 ms

    rows = table.Table.grid(padding=(0, 1), expand=True)
    rows.add_column(style="bold cyan", no_wrap=True)
    rows.add_column(ratio=1)
    for name, text in ENVIRONMENT.items():
        rows.add_row(name, text)
    console.Console(highlight=False, markup=False).print(
        panel.Panel(
            rows, title="Environment", title_align="left", border_style="dim", box=box.ROUNDED
        )
    )


def _store_lines(context: typer.Context) -> Iterator[str]:
    """Yield where the store is and what is in it; nothing that would take longer than a list."""
    where = without_password(context.meta["data"])
    try:
        with open_store(context, recover=False) as (_, app):
            where, orders = app.store.location, app.orders.count()
            pending = Counter(_waits_for_workers(app, one) for one in app.store.pending())
            unmade = app.store.deliveries("failed", "dead") if orders <= MANY else ()
            failed = Counter(account.delivery.status for account in unmade)
    except OrdersError as error:
        yield where
        yield f"cannot be used: {error}"
        if error.hint:
            yield f"try: {error.hint}"
        return
    yield where
    yield count(orders, "order")
    if pending[False]:
        yield f"{pending[False]:,} pending: orders list delivers what a killed process left"
    if pending[True]:
        yield f"{pending[True]:,} left to workers: orders worker delivers"
    if failed["failed"]:
        yield f"{failed['failed']:,} failed: orders retry --all delivers again"
    if failed["dead"]:
        yield f"{count(failed['dead'], 'dead letter')}: orders doctor says how to try again"
    if orders > MANY:
        yield "orders deliveries --failed shows what has failed, if anything has"


def _waits_for_workers(app: App, pending: Pending) -> bool:
    return pending.is_deferred or app.unit_of_work.is_deferring


def _indented(lines: Iterable[str], width: int) -> Iterator[str]:
    for line in lines:
        yield from (f"  {part}" for part in wrapped(line, width - 2).splitlines())


def laid_out(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield rows of two columns; one below the other, where they do not fit."""
    first = max(len(left) for left, _ in rows) + 4
    for left, right in rows:
        if width - first < NARROW:
            yield from _indented([left], width)
            yield from (f"  {line}" for line in _indented([right], width - 2))
        else:
            begin, *more = wrapped(right, width - first).splitlines() or [""]
            yield f"  {left:{first - 2}}{begin}"
            yield from (f"{'':{first}}{line}" for line in more)
