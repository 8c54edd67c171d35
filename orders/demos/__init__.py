"""Scripted runs, one file each; every one checks that what it shows has happened."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from ..application.notifications import Notice
from ..application.store import Account
from ..cli.output import Console
from ..errors import OrdersError
from ..messaging.message import Event
from ..messaging.subscriptions import Subscriber

SCENARIOS = {
    "article": "two orders, two notices, then the list: the article's run",
    "simple": "the same in twenty lines: pubsub and a dict, nothing of this package",
    "unit-of-work": "a command returns a value; events follow the commit, or never",
    "session": "override a dependency; add, commit, roll back an order",
    "failure": "a subscriber fails, is shown, is repaired, is delivered to again",
    "system": "followers of the log count items, in one thread and in many",
    "crash": "kill -9 between commit and notice: the next command delivers",
    "plugin": "refunds: a command, an event, a subscriber, a projection, a policy, in one module",
    "race": "eight processes at once, on plain TinyDB and on this store",
}


class Stage:
    """What a scenario plays on: a directory, a notifier, and an audience.

    Attributes:
        data: an empty directory, removed after the run.
        console: shows data.
        notices: the notices that the sales department has got so far.
        failures: what subscribers raised so far, where the scenario has them reported here.
    """

    def __init__(self, console: Console, data: Path, *, step: bool) -> None:
        self.data = data
        self.console = console
        self.notices: list[Notice] = []
        self.failures: list[BaseException] = []
        self._waits = step
        self._failed: list[str] = []

    def step(self, text: str) -> None:
        """Say what happens next; with --step, wait until the presenter has said more."""
        self.console.say("")
        self.console.say(text, ">", "cyan")
        if self._waits:
            self.console.wait()

    def say(self, text: str) -> None:
        """Say something on the way."""
        self.console.say(f"  {text}")

    def show(self, text: str) -> None:
        """Show output of another process, or of a comparison."""
        self.console.records(line.split("\t") for line in text.splitlines())

    def show_delivery(self, account: Account) -> None:
        """Show a delivery as `orders deliveries` does."""
        self.console.deliveries([account])

    def failed(self, subscriber: Subscriber, event: Event, error: BaseException) -> None:
        """Show and keep a subscriber's failure."""
        self.failures.append(error)
        self.say(f"{subscriber.name} failed on {type(event).__name__}: {error}")

    def notify(self, notice: Notice) -> None:
        """Show a notice and keep it (see `Notifier`)."""
        self.notices.append(notice)
        self.console.notify(notice)

    def check(self, claim: str, is_true: bool) -> None:
        """Say whether what was claimed has happened."""
        mark, colour = ("ok:", "green") if is_true else ("NOT SO:", "red")
        self.console.say(claim, f"  {mark}", colour)
        if not is_true:
            self._failed.append(claim)

    def finish(self) -> None:
        """End the run.

        Raises:
            OrdersError: a claim was not so.
        """
        if self._failed:
            raise OrdersError(f"the demo did not show what it says: {'; '.join(self._failed)}")


def play(scenario: str, console: Console, *, step: bool = False) -> None:
    """Play one of `SCENARIOS` in a directory of its own.

    Raises:
        OrdersError: it did not show what it says.
    """
    run: Callable[[Stage], None] = import_module(f".{scenario.replace('-', '_')}", __name__).run
    with TemporaryDirectory(prefix="orders-demo-", ignore_cleanup_errors=True) as directory:
        stage = Stage(console, Path(directory) / "data", step=step)
        run(stage)
        stage.finish()
