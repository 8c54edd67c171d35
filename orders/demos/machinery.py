"""The processes of `cluster.py`, and what is read at each end of them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from .. import App
from ..application.store import Record
from ..errors import OrdersError
from ..messaging.message import Event
from . import customer
from .servers import NatsServer, PostgreSQL
from .workspace import Workspace

T = TypeVar("T")

PATIENCE = 120.0  # seconds for anything to happen, on a machine with much else to do
LOOK = 0.02  # seconds between two looks whether it has
STREAM = "ORDERS"
AUDITOR = Path(__file__).with_name("auditor.py")


class Compared(NamedTuple):
    """How what is at one end differs from what is at the other."""

    sent: int
    arrived: int
    lost: int  # which is at one end only
    twice: int
    disordered: int

    @classmethod
    def of(cls, sent: Sequence[str], arrived: Sequence[str]) -> Self:
        """Compare ids with those that arrived."""
        once = dict.fromkeys(arrived)
        places = {sent_id: place for place, sent_id in enumerate(sent)}
        order = [places[one] for one in once if one in places]
        return cls(
            len(sent),
            len(arrived),
            len(once.keys() ^ places.keys()),
            len(arrived) - len(once),
            sum(first > second for first, second in pairwise(order)),
        )


class Cluster:
    """A customer, PostgreSQL, workers, a relay, nats-server and a listener.

    Attributes:
        app: on the store, to look at it.
        database: the store's server.
        broker: the stream's server.
    """

    def __init__(
        self, workspace: Workspace, app: App, database: PostgreSQL, broker: NatsServer
    ) -> None:
        self.app = app
        self.database = database
        self.broker = broker
        self._workspace = workspace
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, *command: str, **environment: str) -> None:
        """Start a command of `orders` under a name of its own."""
        self._python(name, "-m", "orders", *command, **environment)

    def start_customer(self, seconds: float) -> None:
        """Have orders placed, so many seconds apart."""
        self._python("customer", "-m", customer.__name__, str(seconds))

    def process(self, name: str) -> int:
        """Return the id of a process."""
        return self._processes[name].pid

    def kill(self, name: str) -> int:
        """Kill a process, as `kill -9` does; return its id."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        return process.pid

    def await_death(self, name: str) -> subprocess.Popen[str]:
        """Wait until a process has ended; return it."""
        process = self._processes.pop(name)
        self.until(f"{name} ends", lambda: process.poll() is not None)
        return process

    def dismiss_customer(self) -> None:
        """Have no more orders placed, once the one in hand is acknowledged."""
        self._processes["customer"].terminate()
        self.await_death("customer")

    def until(self, what: str, look: Callable[[], T]) -> T:
        """Wait for something; return what `look` returns as soon as that is true.

        Raises:
            OrdersError: it does not happen, or a process has ended that was not killed.
        """
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            for name, process in self._processes.items():
                if process.poll() not in {None, -signal.SIGKILL}:
                    raise OrdersError(f"{name} has ended: {self._workspace.last_words(name)}")
            if time.monotonic() > deadline:
                raise OrdersError(f"it was waited in vain until {what}")
            time.sleep(LOOK)
        return found

    # What is at each end, in its order

    def placed(self) -> list[str]:
        """Return the ids of the orders that the customer knows to be placed."""
        return self._workspace.lines("customer")

    def stored(self) -> list[Event]:
        """Return the events in the store."""
        messages = (message for record in self.records() for message in record.messages)
        return [message for message in messages if isinstance(message, Event)]

    def records(self) -> list[Record]:
        """Return the records of the store."""
        return [*self.app.store.read()]

    def relayed(self) -> list[str]:
        """Return the ids of the events in the stream; as somebody else's program reads them."""
        reader = self._workspace.start(str(AUDITOR), self.broker.url, STREAM)
        return self._workspace.finish(reader).output.split()

    def heard(self) -> list[str]:
        """Return the ids of the events that the listener has shown."""
        return [json.loads(line)["id"] for line in self._workspace.lines("listener")]

    def _python(self, name: str, *arguments: str, **environment: str) -> None:
        self._processes[name] = self._workspace.begin(
            name, sys.executable, *arguments, environment=environment
        )
