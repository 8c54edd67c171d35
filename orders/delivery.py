"""Every subscriber gets every event, although each may raise, hang or die.

Once a commit is in the log, its events are delivered here, one subscriber at a time. What a
subscriber stores through the unit of work and the record that it has run are one commit, so
its effects happen once even if it runs twice. A process that dies owes what it has not
delivered; a lock file of its own, its lease, tells others that it has died.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from .bus import MessageBus, Subscriber
from .disk import PRIVATE, Disk
from .errors import StoreError
from .event_log import EventLog, Position
from .ledger import Delivery, Outcome, Owed
from .message import Event, new_id
from .text import shorten
from .unit_of_work import UnitOfWork

TRIES = 3  # at once, before a delivery is given up for now
MAX_ERROR = 500  # characters of an error that are recorded


class Settled(Exception):
    """Somebody else has settled this delivery meanwhile."""


class Leases:
    """Lock files by which processes know each other to be alive.

    A lease is a file that its owner keeps locked; the kernel unlocks it when the owner dies.
    Its name is never used again, so removing it is safe.

    Args:
        directory: where the lock files are; made when first needed.
        disk: does the file calls.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._held: dict[str, int] = {}  # lease -> descriptor
        self._mine: str | None = None

    def mine(self) -> str:
        """Return this application's lease, which it holds from the first call to `close()`."""
        if self._mine is None:
            self._disk.make_directory(self._directory)
            lease = new_id()
            self.claim(lease)
            self._mine = lease
        return self._mine

    def claim(self, lease: str) -> bool:
        """Take over a lease; return False if its owner is alive."""
        if lease in self._held:
            return lease != self._mine
        self._disk.make_directory(self._directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._directory / Path(lease).name, flags, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held[lease] = descriptor
        return True

    def close(self) -> None:
        """Give up every lease held."""
        for lease, descriptor in self._held.items():
            with suppress(OSError):
                self._disk.unlink(self._directory / lease)
            os.close(descriptor)
        self._held.clear()
        self._mine = None


class Deliveries:
    """Delivers events to subscribers and records what came of it."""

    def __init__(self, log: EventLog, bus: MessageBus, uow: UnitOfWork, leases: Leases) -> None:
        self._log = log
        self._bus = bus
        self._uow = uow
        self._leases = leases

    def deliver(self, subscriber: Subscriber, event: Event) -> None:
        """Run one subscriber with one event, up to three times; never raise what it raises."""
        if not self._log.ledger.is_pending(event.id, subscriber.name):
            self._bus.run_isolated(subscriber, event)  # published past the log: nothing is owed
            return
        failure: Exception | None = None
        for attempt in range(1, TRIES + 1):
            start = perf_counter()
            try:
                with self._bus.handling_of(event), self._uow:
                    subscriber.run(event)
                    self._settle(event, subscriber, "done", attempt, perf_counter() - start)
            except Settled:
                return
            except StoreError as error:  # it could not be recorded, so it stays owed
                self._bus.on_failure(subscriber, event, error)
                return
            except Exception as error:  # noqa: BLE001 - subscribers are strangers
                failure = error
            else:
                return
        if failure is not None:
            self._give_up(subscriber, event, failure, perf_counter() - start)

    def recover(self) -> int:
        """Deliver what processes owed when they died; return how many deliveries that were."""
        recovered = 0
        for owed in self._log.pending():
            subscriber = self._bus.subscriber(owed.delivery.subscriber)
            if subscriber is None or owed.owner is None or not self._leases.claim(owed.owner):
                continue
            with self._log.writing():  # another process may have recovered it before our claim
                still = self._log.ledger.is_pending(owed.delivery.event, subscriber.name)
            if still:
                self.deliver(subscriber, self._event(owed))
                recovered += 1
        return recovered

    def _event(self, owed: Owed) -> Event:
        entry = next(self._log.read(Position(owed.offset, owed.seq - 1)))
        return next(
            message
            for message in entry.line.messages
            if isinstance(message, Event) and message.id == owed.delivery.event
        )

    def _give_up(
        self, subscriber: Subscriber, event: Event, failure: Exception, seconds: float
    ) -> None:
        with suppress(Settled, StoreError), self._bus.handling_of(event), self._uow:
            self._settle(event, subscriber, "failed", TRIES, seconds, failure)
        self._bus.on_failure(subscriber, event, failure)

    def _settle(
        self,
        event: Event,
        subscriber: Subscriber,
        status: Outcome,
        attempts: int,
        seconds: float,
        failure: Exception | None = None,
    ) -> None:
        error = None if failure is None else shorten(describe(failure), MAX_ERROR)
        delivery = Delivery(event.id, subscriber.name, status, attempts, round(seconds, 6), error)

        def check() -> None:
            if not self._log.ledger.is_pending(event.id, subscriber.name):
                raise Settled

        self._uow.settle(delivery, check)


def describe(error: BaseException) -> str:
    """Return an error's class and text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
