"""What scenarios play on: a store, processes, an audience, and a count of what was checked."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from ..application.notifications import Notice
from ..application.store import START, Account, Cursor, Record
from ..bootstrap import App, bootstrap
from ..cli import rendering
from ..cli.lines import MARKS, Line, lines_of
from ..cli.output import Console, wrapped
from ..domain.text import count, ordinal
from ..errors import OrdersError
from ..messaging.message import Event, Message
from ..messaging.subscriptions import Subscriber
from ..settings import Settings
from . import failing
from .lesson import Files, introduce
from .workspace import Finished, Workspace


class Stage:
    """What a scenario plays on.

    Args:
        console: shows it.
        workspace: where files and processes are.
        step: whether a presenter says when it goes on, and everything is shown.
        is_paced: whether, on a terminal, there is time to read.
        plan: which run of which subscriber is to fail.

    Attributes:
        data: a directory that does not exist yet, removed after the run.
        workspace: where files and processes are.
        console: shows data.
        is_stepping: whether a presenter says when it goes on.
        is_paced: whether, on a terminal, there is time to read.
        shows_checks: whether what was checked is shown; else only what was not so.
        checks: how many claims were checked so far.
        failed: those that were not so.
        notices: what the sales department was notified of so far.
        failures: what subscribers raised so far.
    """

    def __init__(
        self,
        console: Console,
        workspace: Workspace,
        *,
        step: bool = False,
        is_paced: bool = True,
        plan: failing.Plan | None = None,
    ) -> None:
        self.data = workspace.directory / "data"
        self.console = console
        self.is_stepping = step
        self.is_paced = is_paced and not step
        self.shows_checks = True
        self.checks = 0
        self.failed: list[str] = []
        self.notices: list[Notice] = []
        self.failures: list[BaseException] = []
        self.workspace = workspace
        self._app: App | None = None
        self._files = Files(self.data)
        self._shown: Cursor = START
        self._plan = plan and plan._replace(runs=workspace.directory / "runs")
        if self._plan:
            workspace.environment |= {
                "ORDERS_PLUGINS": failing.__name__,
                failing.VARIABLE: f"{self._plan.runs}//{self._plan}",
            }

    # What the audience sees

    def step(
        self, title: str, command: str = "", *, asks: str = "", sends: type[Message] | None = None
    ) -> None:
        """Say what happens next; with --step, ask the audience, and wait for Enter.

        Args:
            title: what happens.
            command: to be typed by whoever wants to do the same.
            asks: a question whose answer the step is.
            sends: the message that it begins with.
        """
        self._show_changes()
        self.console.say("")
        self.console.say(title, ">", "cyan")
        if self.is_stepping and asks:
            self.console.say(asks, "  ?", "yellow")
        if command:
            self.console.say(command, "  $", "cyan")
        if self.is_stepping:
            for line in introduce(sends) if sends else ():
                self.say(line)
            self.console.wait()

    def say(self, text: str) -> None:
        """Say something on the way."""
        self.console.say(f"  {text}")

    def show(self, text: str) -> None:
        """Show output of another process, which did not know how wide the terminal is."""
        for line in text.splitlines():
            fitted = wrapped(line, self.console.width) if self.console.draws else line
            self.console.lines(fitted.splitlines())

    def beside(self, *rows: Sequence[object]) -> None:
        """Show two systems side by side: each row a subject and what either has of it."""
        columns, *facts = (tuple(map(str, row)) for row in rows)
        self.console.table(columns, facts)

    def show_delivery(self, account: Account) -> None:
        """Show a delivery as `orders deliveries` does."""
        self.console.deliveries([account])

    def show_log(self, app: App, seconds: float = 0.0) -> None:
        """Show what the store has recorded since the last time, as `orders watch` does.

        Args:
            app: the application on the store.
            seconds: for the audience to read a line in.
        """
        for record in app.store.read(self._shown):
            self.show_record(app, record, seconds)
            self._shown = record.cursor

    def show_record(self, app: App, record: Record, seconds: float = 0.0) -> None:
        """Show a record as `orders watch` does; arguments as of `show_log`."""
        for line in lines_of(record, app):
            self._show_line(line)
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Let the audience read, if there is one."""
        if self.is_watched:
            sleep(seconds)

    @property
    def is_watched(self) -> bool:
        """Whether somebody reads along, and is to have time for it."""
        return self.is_paced and sys.stdout.isatty()

    def check(self, claim: str, is_true: bool) -> None:
        """Say whether what was claimed has happened."""
        self._show_changes()
        self.checks += 1
        if not is_true:
            self.failed.append(claim)
            self.console.say(claim, "  NOT SO:", "red")
        elif self.shows_checks:
            self.console.say(claim, "  ok:", "green")

    # What happens

    @contextmanager
    def open(self, data: Path | str | None = None, **wiring: Any) -> Iterator[App]:
        """Wire the system on a store of the stage's, as `bootstrap` does."""
        wired: dict[str, Any] = {"notifier": self, "on_failure": self.note} | wiring
        with bootstrap(data or self.data, settings=Settings(), **wired) as app:
            if self._plan:
                self._plan.install(app)
            self._app = app
            try:
                yield app
            finally:
                self._app = None

    def python(self, *arguments: str, **environment: str) -> Finished:
        """Run Python in a process of its own, to its end."""
        return self.workspace.finish(self.workspace.start(*arguments, **environment))

    def orders(
        self,
        *arguments: str,
        data: Path | None = None,
        plugins: Sequence[str] = (),
        **environment: str,
    ) -> Finished:
        """Run a command in a process of its own, to its end."""
        line = ["-m", "orders", "--data", str(data or self.data)]
        for plugin in (*plugins, *([failing.__name__] if self._plan else [])):
            line += ["--plugin", plugin]
        return self.python(*line, *arguments, **environment)

    def race(self, kind: str, path: Path, writers: int, each: int) -> list[Finished]:
        """Let writers of `racer.py` begin together; return what became of them."""
        arguments = ("-m", "orders.demos.racer", kind, str(path), str(each))
        racers = [self.workspace.start(*arguments) for _ in range(writers)]
        for racer in racers:
            if racer.stdout is not None:
                racer.stdout.readline()  # it is ready
        for racer in racers:
            if racer.stdin is not None:
                racer.stdin.write("go\n")
                racer.stdin.flush()
        return [self.workspace.finish(racer) for racer in racers]

    def note(self, subscriber: Subscriber, event: Event, error: BaseException) -> None:
        """Show and keep a subscriber's failure."""
        self.failures.append(error)
        self.say(f"{subscriber.name} failed on {type(event).__name__}: {error}")

    def notify(self, notice: Notice) -> None:
        """Show a notice and keep it (see `Notifier`)."""
        self.notices.append(notice)
        self.console.notify(notice)

    def finish(self) -> None:
        """End the run.

        Raises:
            OrdersError: a claim was not so.
        """
        self._show_changes()
        if self._plan:
            name, nth, _ = self._plan
            ran = f"--fail {self._plan}: {name} ran {count(self._plan.counted, 'time')}"
            if self._plan.counted >= nth:
                self.console.say(f"{ran}; the {ordinal(nth)} run was made to fail.")
            else:
                self.console.warn(f"{ran}, so nothing was made to fail")
        if self.failed:
            raise OrdersError(f"the demo did not show what it says: {'; '.join(self.failed)}")

    def _show_line(self, line: Line) -> None:
        if self.console.draws:
            rendering.show(rendering.draw_line(line))
            return
        handler = "" if line.kind == "event" else f"→ {line.handler:<14} {line.place:<16} "
        what = f"{MARKS[line.kind]:1} {line.name:<14} {handler}{line.text}"
        self.console.lines([f"{line.number:>4}  {line.topic:<14} {what}".rstrip()])

    def _show_changes(self) -> None:
        if self.is_stepping:
            if self._app:  # which would bring orders.json up to date when it is closed
                self._app.store.checkpoint()
            for line in self._files.changes():
                self.say(line)
