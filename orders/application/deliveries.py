"""Every subscriber gets every event, although each may raise or die.

A commit records, with its events, a pending delivery for every subscriber; that is the outbox.
Each is made here, and what a subscriber stores through the unit of work and the record that it
has run are one commit, so its effects in the store happen once even if it runs twice. What a
process had yet to deliver when it died, another one claims: it records that it tries, and tries.
A failed delivery waits for `retry`, by hand or by a worker; after `RETRIES` of these it is a dead
letter, retried only by name.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from time import perf_counter
from typing import Literal

from msgspec.structs import replace

from ..domain.text import shorten
from ..errors import AlreadySettled, OrdersError, StoreError, describe
from ..messaging.bus import MessageBus
from ..messaging.message import Event
from ..messaging.subscriptions import Subscriber
from .store import Claim, Commit, Cursor, Delivery, DeliveryKey, Failure, Pending, Status, Store
from .unit_of_work import UnitOfWork

TRIES = 3  # at once, before a delivery has failed
RETRIES = 5  # by hand or by workers, before it is a dead letter
BACK_OFF = 2.0  # seconds, about, before a worker's first retry; four times as long before the next
MAX_BACK_OFF = 300.0  # seconds, about
DEATHS = 5  # of processes in the midst of one delivery, before it has failed
CLAIMED = 100  # deliveries that a retry claims together
MAX_ERROR = 500  # characters of an error that are recorded

Reactor = Callable[[Collection[str]], Subscriber]
"""Makes what reacts for a policy to the events with these ids, and to no others."""


Made = Literal["done", "failed", "unknown", "taken"]
"""What came of a claim. Unknown here is its subscriber or the class of its event; one that is
taken, somebody else was quicker to claim, or to settle."""


class Deliveries:
    """Delivers events to subscribers and records what came of it.

    Args:
        store: where deliveries are recorded.
        bus: knows the subscribers.
        uow: makes a subscriber's effects and the record of its run one commit.
        find_reactor: returns what makes the policy of a name react again, or None.
        is_strict: whether what a subscriber raises is raised, after it was recorded.

    Attributes:
        bus: the bus.
        run: runs a subscriber with an event; who replaces it can have that fail.
        on_claimed: called with each delivery, as it then stands, that others left or deferred and
            that this process now makes.
    """

    def __init__(
        self,
        store: Store,
        bus: MessageBus,
        uow: UnitOfWork,
        *,
        find_reactor: Callable[[str], Reactor | None] = lambda _name: None,
        is_strict: bool = False,
    ) -> None:
        self._store = store
        self.bus = bus
        self._uow = uow
        self.run: Callable[[Subscriber, Event], object] = lambda each, event: each.run(event)
        self.on_claimed: Callable[[Delivery], None] = lambda _delivery: None
        self._is_strict = is_strict
        self._tries = 1 if is_strict else TRIES
        self._find_reactor = find_reactor

    def deliver(self, subscriber: Subscriber, event: Event) -> None:
        """Run one subscriber with one event, up to three times; record what came of it.

        It does not raise what the subscriber raises, unless it is Ctrl-C or we are strict.
        """
        delivery = Delivery(event.id, subscriber.name)
        if (key := delivery.key) in self._uow.expected:
            self._uow.expected.discard(key)
            error = self._attempt(subscriber, event, delivery, self._tries)
        else:  # published past the log: nothing is recorded
            error = self._run_unrecorded(subscriber, event)
        self._raise_if_strict(error)

    def recover(self) -> int:
        """Make the deliveries that processes had yet to make when they died.

        Returns how many were made. Those that lack their subscriber, or the class of their
        event, in this process wait for one that has it; the deferred ones for a worker, if this
        process itself leaves its own to these.
        """
        defers = self._uow.is_deferring
        waiting = [
            found
            for found in self._store.pending()
            if found.is_abandoned and not (defers and found.is_deferred)
        ]
        return list(self.redeliver(list(map(taken_over, waiting)))).count("done")

    def redeliver(self, claims: Sequence[Claim], at_once: int = 1) -> Iterator[Made]:
        """Make deliveries one by one, each if nobody is quicker; yield what came of each.

        Args:
            claims: what to make.
            at_once: how many of them are claimed together, which all wait if we die.
        """
        subscribers = self._subscribers(found for found, _ in claims)
        events = self._store.messages(
            {found.event for found, _ in claims if found.subscriber in subscribers}
        )
        rest = iter(claims)
        while batch := [*islice(rest, at_once)]:
            known = {
                found.key: (subscriber, event)
                for found, _ in batch
                if (subscriber := subscribers.get(found.subscriber)) is not None
                and isinstance(event := events.get(found.event), Event)
            }
            wanted = [claim for claim in batch if claim[0].key in known]
            try:
                ours = self._store.claim(wanted) if wanted else []
                claimed = {attempt.key for _, attempt in ours}
                for found, attempt in batch:
                    if found.key in claimed:
                        yield self._make(found, attempt, *known[found.key])
                    else:
                        yield "taken" if found.key in known else "unknown"
            except BaseException:
                self._store.release()  # or those that were claimed would wait for us
                raise

    def retry(self, ids: Sequence[str] | None = None) -> tuple[int, int]:
        """Make failed deliveries once more; return how many are done, of how many tried.

        Args:
            ids: beginnings of event ids; failed and dead deliveries of these events are tried,
                and those left by a process that died. None tries every failed one, and leaves
                the dead letters alone.

        Raises:
            OrdersError: nothing that could be tried has such an id, or what has cannot be tried.
        """
        if ids is None:
            found = [account.delivery for account in self._store.deliveries("failed")]
        else:
            found = self._beginning_with(ids)
        made = list(self.redeliver(list(map(retried, found)), CLAIMED))
        unknown = [one for one, what in zip(found, made, strict=True) if what == "unknown"]
        taken = [one for one, what in zip(found, made, strict=True) if what == "taken"]
        if ids is not None and (missing := unknown or taken):
            why = (
                "its subscriber, or the class of the event, is not known to this process"
                if unknown
                else "another process is at it"
            )
            event, subscriber = missing[0].key
            raise OrdersError(f"event {event} cannot be delivered to {subscriber}: {why}")
        return made.count("done"), len(found) - len(taken)

    def react(self, subscriber: Subscriber, event: Event, seen: Cursor) -> None:
        """Run a policy's reaction to an event, up to three times; record what came of it.

        Workers share the reactions, too: which one makes it is recorded first.

        Args:
            subscriber: sends the policy's commands.
            event: what it reacts to.
            seen: up to where the log says nothing of this reaction.

        Raises:
            AlreadySettled: the log says so after that.
            StoreError: it could not be recorded.
        """
        delivery = Delivery(event.id, subscriber.name)
        unrecorded: Cursor | None = seen
        if self._uow.is_deferring:
            self._store.commit(Commit(reactions=(delivery,), seen=seen, is_durable=False))
            self.on_claimed(delivery)
            unrecorded = None
        with self.bus.handling_of(event):
            error = self._attempt(subscriber, event, delivery, self._tries, unrecorded)
        self._raise_if_strict(error)

    def _raise_if_strict(self, error: BaseException | None) -> None:
        if self._is_strict and error is not None and not isinstance(error, AlreadySettled):
            raise error

    def _run_unrecorded(self, subscriber: Subscriber, event: Event) -> BaseException | None:
        try:
            with self._uow.begin():  # which it cannot leave open
                subscriber.run(event)
        except KeyboardInterrupt:
            self._store.release()  # what waits behind this event
            raise
        except BaseException as error:  # noqa: BLE001 - subscribers are strangers
            self.bus.report(subscriber, event, error)
            return error
        return None

    def _beginning_with(self, ids: Sequence[str]) -> list[Delivery]:
        accounts = self._store.deliveries("failed", "dead", "pending")
        waiting = [account.delivery for account in accounts]
        found: dict[DeliveryKey, Delivery] = {}
        for beginning in ids:
            fitting = {d.key: d for d in waiting if beginning and d.event.startswith(beginning)}
            if not fitting:
                raise OrdersError(
                    f"no failed delivery of an event {beginning!r}", "orders deliveries --failed"
                )
            found |= fitting
        return list(found.values())

    def _make(
        self, found: Delivery, attempt: Delivery, subscriber: Subscriber, event: Event
    ) -> Made:
        self.on_claimed(attempt)
        with self.bus.handling_of(event):
            if attempt.deaths > max(DEATHS, found.deaths):
                error = RuntimeError(f"{DEATHS} processes died of it")
                failed = replace(
                    attempt, status=_failed(attempt), attempts=found.attempts, error=str(error)
                )
                self._fail(subscriber, event, error, failed, None)
                return "failed"
            tries = 1 if attempt.retries > found.retries else self._tries
            failure = self._attempt(subscriber, event, attempt, tries)
        if isinstance(failure, AlreadySettled):  # our connection was lost meanwhile
            return "taken"
        self._raise_if_strict(failure)
        return "failed" if failure else "done"

    def _subscribers(self, deliveries: Iterable[Delivery]) -> dict[str, Subscriber]:
        """Return who makes these deliveries, as far as this process knows them."""
        ids: dict[str, set[str]] = {}
        for delivery in deliveries:
            ids.setdefault(delivery.subscriber, set()).add(delivery.event)
        found = {}
        for name, events in ids.items():
            if (subscriber := self.bus.subscriber(name)) is not None:
                found[name] = subscriber
            elif (react_to := self._find_reactor(name)) is not None:
                found[name] = react_to(events)
        return found

    def _attempt(
        self,
        subscriber: Subscriber,
        event: Event,
        delivery: Delivery,
        tries: int,
        seen: Cursor | None = None,
    ) -> BaseException | None:
        """Run the subscriber until it succeeds, `tries` times at most; record what came of it.

        Returns why it failed, AlreadySettled where somebody else has settled it, or None.
        """
        failures: tuple[Failure, ...] = ()
        first = max(delivery.attempts, 1)
        for attempt in range(first, first + tries):
            start, has_run = perf_counter(), False
            try:
                with self._uow.begin() as uow:
                    self.run(subscriber, event)
                    has_run = True
                    uow.unit.settle(_outcome(delivery, attempt, start, None, failures), seen)
            except KeyboardInterrupt:
                self._store.release()
                raise
            except AlreadySettled as error:  # by somebody else
                if seen is not None:
                    raise
                return error
            except BaseException as error:
                failure, outcome = error, _outcome(delivery, attempt, start, error, failures)
                failures += (Failure(outcome.seconds, outcome.error or ""),)
                if has_run and isinstance(error, StoreError):  # the next command makes it again
                    self._store.release()
                    self.bus.report(subscriber, event, error)
                    if seen is not None:
                        raise
                    return error
            else:
                return None
        return self._fail(subscriber, event, failure, outcome, seen)

    def _fail(
        self,
        subscriber: Subscriber,
        event: Event,
        failure: BaseException,
        outcome: Delivery,
        seen: Cursor | None,
    ) -> BaseException | None:
        """Record and report that a delivery has failed; or leave it pending, for anybody."""
        try:
            with self._uow.begin() as uow:
                uow.unit.settle(outcome, seen)
        except AlreadySettled as error:
            return error
        except StoreError as error:
            self._store.release()
            if seen is not None:
                raise
            failure = error
        self.bus.report(subscriber, event, failure)
        return failure


def taken_over(found: Pending) -> Claim:
    """Return the claim of an abandoned delivery; if it was never deferred, a process died."""
    deaths = found.delivery.deaths + (not found.is_deferred)
    return found.delivery, _next_attempt(replace(found.delivery, deaths=deaths))


def retried(found: Delivery) -> Claim:
    """Return the claim of a failed delivery."""
    return found, _next_attempt(replace(found, retries=found.retries + 1))


def _next_attempt(delivery: Delivery) -> Delivery:
    """Return the delivery as it is while it is tried once more."""
    attempts = delivery.attempts + 1
    return replace(
        delivery, status="pending", attempts=attempts, seconds=0.0, error=None, failures=()
    )


def _outcome(
    delivery: Delivery,
    attempt: int,
    start: float,
    error: BaseException | None,
    failures: tuple[Failure, ...],
) -> Delivery:
    return replace(
        delivery,
        status="done" if error is None else _failed(delivery),
        attempts=attempt,
        seconds=round(perf_counter() - start, 6),
        error=None if error is None else shorten(describe(error), MAX_ERROR),
        failures=failures,
    )


def _failed(delivery: Delivery) -> Status:
    return "dead" if delivery.retries >= RETRIES else "failed"
