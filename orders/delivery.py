"""Every subscriber gets every event, although each may raise, hang or die.

Once a commit is in the log, its events are delivered here, one subscriber at a time. What a
subscriber stores through the unit of work and the record that it has run are one commit, so
its effects happen once even if it runs twice. What a process owed when it died, another one
takes over: it records in the log that it tries, and then tries.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter

from msgspec.structs import replace

from .bus import STRANGE, MessageBus
from .errors import OrdersError, StoreError, describe
from .event_log import EventLog
from .leases import Leases
from .ledger import RETRIES, Accounts, Delivery, Failure, Key, Owed, Status
from .message import Event
from .subscriptions import Subscriber
from .text import shorten
from .unit_of_work import UnitOfWork

TRIES = 3  # at once, before a delivery has failed
DEATHS = 5  # of processes in the midst of one delivery, before it has failed
PATIENCE = 1 << 20  # bytes of log, before a subscriber that is missing has failed
MAX_ERROR = 500  # characters of an error that are recorded


class NotHere(OrdersError):
    """The delivery is not for this process: it lacks the subscriber or the event's class."""


class UnderWay(OrdersError):
    """Another process is making this delivery."""

    def __init__(self, event_id: str, subscriber: str) -> None:
        self.event_id, self.subscriber = event_id, subscriber
        super().__init__(f"event {event_id} is being delivered to {subscriber} by another process")


class Settled(Exception):
    """Somebody else has settled this delivery meanwhile."""


def run_subscriber(subscriber: Subscriber, event: Event) -> None:
    """Run a subscriber with an event; raise what it raises."""
    subscriber.run(event)


class Deliveries:
    """Delivers events to subscribers and records what came of it.

    Args:
        log: where deliveries are recorded.
        bus: knows the subscribers.
        uow: makes a subscriber's effects and the record of its run one commit.
        leases: tells who is alive.
        run: runs a subscriber with an event; a fault may stand in between.
    """

    def __init__(
        self,
        log: EventLog,
        bus: MessageBus,
        uow: UnitOfWork,
        leases: Leases,
        run: Callable[[Subscriber, Event], object] = run_subscriber,
    ) -> None:
        self._log = log
        self._bus = bus
        self._uow = uow
        self._leases = leases
        self._run = run

    def deliver(self, subscriber: Subscriber, event: Event) -> None:
        """Run one subscriber with one event, up to three times; never raise what it raises."""
        with self._log.thread_lock:  # or another thread could be in the midst of learning it
            owed = self._log.ledger.owed((event.id, subscriber.name))
        if owed is None:
            self._bus.run_isolated(subscriber, event)  # published past the log: nothing is owed
        else:
            self._try(subscriber, event, owed.delivery, TRIES)

    def recover(self, *, own: bool = False) -> int:
        """Deliver what processes owed when they died; return how many deliveries were done.

        Args:
            own: also what this application owes, because its delivering was interrupted.
        """
        recovered = 0
        for owed in self._log.pending():
            is_ours = own and owed.owner == self._leases.mine()
            if self._leases.is_alive(owed.owner) and not is_ours:
                continue
            subscriber = self._bus.subscriber(owed.delivery.subscriber)
            if subscriber is None:
                self._miss(owed)
                continue
            event = self._log.find_event(owed.delivery.event, owed.position)
            if event is None:  # of a class that this process does not define
                continue
            if (delivery := self._take_over(owed, subscriber, event)) is not None:
                recovered += self._try(subscriber, event, delivery, TRIES)
        self._leases.sweep()
        return recovered

    def accounts(self, known: Accounts | None = None) -> Accounts:
        """Return every delivery that the log knows of; `known` is brought up to date."""
        accounts = known or Accounts()
        for entry in self._log.read(accounts.position):
            accounts.apply(entry.line.deliveries, entry.line.owner, entry.line.time)
            accounts.position = entry.end
        return accounts

    def retry_all(self, ids: Sequence[str] | None = None) -> tuple[int, int]:
        """Try failed deliveries once more; return how many are done, of how many tried.

        Args:
            ids: beginnings of event ids; failed and dead deliveries of these events are tried.
                None tries every failed one, and leaves the dead letters alone.

        Raises:
            OrdersError: nothing that failed has such an id.
        """
        accounts = self.accounts()
        wanted: list[Key] = []
        if ids is None:
            wanted = [account.delivery.key for account in accounts.having("failed")]
        else:
            unsettled = [a.delivery for a in accounts.having("failed", "dead", "pending")]
            for beginning in ids:
                found = [d.key for d in unsettled if beginning and d.event.startswith(beginning)]
                if not found:
                    raise OrdersError(
                        f"no failed delivery of an event {beginning!r}; see orders deliveries"
                    )
                wanted += found
        keys = dict.fromkeys(wanted)
        done, tried = 0, len(keys)
        for key in keys:
            try:
                done += self.retry(key, accounts)
            except (NotHere, UnderWay) as error:
                if ids is not None:
                    raise
                tried -= isinstance(error, UnderWay)
        return done, tried

    def retry(self, key: Key, accounts: Accounts) -> bool:
        """Try a failed or dead delivery once more; return whether it is done now.

        Raises:
            OrdersError: its subscriber is not registered here, or somebody is at it already.
        """
        event_id, name = key
        subscriber = self._bus.subscriber(name)
        if subscriber is None:
            raise NotHere(f"no subscriber {name!r} is registered in this process")
        event = self._log.find_event(event_id)
        if event is None:
            raise NotHere(f"event {event_id} is of a class that this process does not define")
        with self._log.writing():
            delivery = self.accounts(accounts).by_key[key].delivery
            if delivery.status == "done":
                return True
            if delivery.status == "pending":
                raise UnderWay(event_id, name)
            again = self._attempt(replace(delivery, retries=delivery.retries + 1))
        return self._try(subscriber, event, again, 1)

    def _miss(self, owed: Owed) -> None:
        """Give up, for now, on a subscriber that nobody has registered for long.

        Until then it may come back; but every newcomer reads the log from what is owed on.
        """
        if self._log.end() - owed.position.offset < PATIENCE:
            return
        failed = replace(owed.delivery, status="failed", error="no such subscriber is registered")
        with self._log.writing():
            if self._log.ledger.owed(owed.delivery.key) == owed:
                self._log.append(deliveries=[failed])

    def _take_over(self, owed: Owed, subscriber: Subscriber, event: Event) -> Delivery | None:
        """Make a dead process's delivery ours, unless another process was quicker."""
        with self._log.writing():
            if self._log.ledger.owed(owed.delivery.key) != owed:
                return None
            delivery = replace(owed.delivery, deaths=owed.delivery.deaths + 1)
            if delivery.deaths <= DEATHS:
                return self._attempt(delivery)
            death = RuntimeError(f"{DEATHS} processes died of it")
            self._log.append(deliveries=[replace(delivery, status="failed", error=str(death))])
        self._bus.report(subscriber, event, death)
        return None

    def _attempt(self, delivery: Delivery) -> Delivery:
        """Record that this process makes an attempt; return the delivery as it is now."""
        attempts = delivery.attempts + 1
        pending = replace(
            delivery, status="pending", attempts=attempts, seconds=0.0, error=None, failures=()
        )
        self._log.append(deliveries=[pending], owner=self._leases.mine())
        return pending

    def _try(self, subscriber: Subscriber, event: Event, delivery: Delivery, tries: int) -> bool:
        """Run the subscriber until it succeeds, `tries` times at most; record what came of it."""
        first = max(delivery.attempts, 1)
        failures: tuple[Failure, ...] = ()
        for attempt in range(first, first + tries):
            start = perf_counter()
            try:
                with self._bus.handling_of(event), self._uow:
                    self._run(subscriber, event)
                    self._settle(_outcome(delivery, attempt, start, None, failures))
            except Settled:
                return True
            except StoreError as error:  # it could not be recorded, so it stays owed
                self._bus.report(subscriber, event, error)
                return False
            except STRANGE as error:
                failure, outcome = error, _outcome(delivery, attempt, start, error, failures)
                failures += (Failure(outcome.seconds, outcome.error or ""),)
            else:
                return True
        with suppress(Settled, StoreError), self._bus.handling_of(event), self._uow:
            self._settle(outcome)
        self._bus.report(subscriber, event, failure)
        return False

    def _settle(self, outcome: Delivery) -> None:
        """Record an outcome with the present unit of work, if the delivery is still owed then."""

        def check() -> None:
            if self._log.ledger.owed(outcome.key) is None:
                raise Settled

        self._uow.settle(outcome, check)


def _outcome(
    delivery: Delivery,
    attempt: int,
    start: float,
    error: BaseException | None,
    failures: tuple[Failure, ...],
) -> Delivery:
    failed: Status = "dead" if delivery.retries >= RETRIES else "failed"
    return replace(
        delivery,
        status="done" if error is None else failed,
        attempts=attempt,
        seconds=round(perf_counter() - start, 6),
        error=None if error is None else shorten(describe(error), MAX_ERROR),
        failures=failures,
    )
