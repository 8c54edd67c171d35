"""A plugin that has one run of a subscriber fail: what `orders demo --fail SUBSCRIBER:N` adds."""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple, Self

from .. import App, Event
from ..messaging.subscriptions import Subscriber

VARIABLE = "DEMO_FAIL"  # carries the plan to other processes of the demo


class MadeToFail(Exception):
    """What the run raises."""


class Plan(NamedTuple):
    """Which run is to fail."""

    subscriber: str  # its name
    nth: int  # run, in whichever process
    runs: Path = Path()  # a file with a byte for each run so far

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``SUBSCRIBER:N``.

        Raises:
            ValueError: it is not written like that.
        """
        subscriber, _, nth = text.rpartition(":")
        if not (subscriber and nth.isdecimal() and int(nth)):
            raise ValueError(f"{text!r} is not SUBSCRIBER:N, like order_created:1")
        return cls(subscriber, int(nth))

    def __str__(self) -> str:
        return f"{self.subscriber}:{self.nth}"

    @property
    def counted(self) -> int:
        """How many runs there were."""
        return self.runs.stat().st_size if self.runs.exists() else 0

    def install(self, app: App) -> None:
        """Stand between the application and its subscribers."""
        run = app.deliveries.run

        def run_or_fail(subscriber: Subscriber, event: Event) -> None:
            if subscriber.name == self.subscriber and self._count() == self.nth:
                raise MadeToFail(f"made to fail by --fail {self}")
            run(subscriber, event)

        app.deliveries.run = run_or_fail

    def _count(self) -> int:
        """Count a run; return which it is."""
        with self.runs.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(b".")
            file.flush()
            return file.tell()


def install(app: App) -> None:
    """Have a process of a demo do as the demo does."""
    runs, _, plan = os.environ[VARIABLE].rpartition("//")
    Plan.parse(plan)._replace(runs=Path(runs)).install(app)
