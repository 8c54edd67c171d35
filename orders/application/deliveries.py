"""Every subscriber gets every event, although each may raise or die.

A commit records, with its events, a pending delivery for every subscriber; that is the outbox.
Each is made here, and what a subscriber stores through the unit of work and the record that it
has run are one commit, so its effects in the store happen once even if it runs twice. What a
process had yet to deliver when it died, another one claims: it records that it tries, and tries.
A failed delivery waits for `retry`; after `RETRIES` of these it is a dead letter, retried only
by name.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from time import perf_counter

from msgspec.structs import replace

from ..domain.text import shorten
from ..errors import AlreadySettled, OrdersError, StoreError, describe
from ..messaging.bus import MessageBus
from ..messaging.message import Event
from ..messaging.subscriptions import Subscriber
from .store import Cursor, Delivery, Failure, Store
from .unit_of_work import UnitOfWork

TRIES = 3  # at once, before a delivery has failed
RETRIES = 5  # by hand, before it is a dead letter
DEATHS = 5  # of processes in the midst of one delivery, before it has failed
MAX_ERROR = 500  # characters of an error that are recorded

Reactor = Callable[[Collection[str]], Subscriber]
"""Makes what reacts for a policy to the events with these ids, and to no others."""


class Deliveries:
    """Delivers events to subscribers and records what came of it.

    Args:
        store: where deliveries are recorded.
        bus: knows the subscribers.
        uow: makes a subscriber's effects and the record of its run one commit.
        find_reactor: returns what makes the policy of a name react again, or None.
        is_strict: whether `deliver` raises what a subscriber raises.

    Attributes:
        bus: the bus.
        run: runs a subscriber with an event; who replaces it can have that fail.
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
        self._is_strict = is_strict
        self._tries = 1 if is_strict else TRIES
        self._find_reactor = find_reactor

    def deliver(self, subscriber: Subscriber, event: Event) -> None:
        """Run one subscriber with one event, up to three times; record what came of it.

        It does not raise what the subscriber raises, unless it is Ctrl-C or we are strict.
        """
        delivery = Delivery(event.id, subscriber.name)
        if delivery.key in self._uow.expected:
            self._uow.expected.discard(delivery.key)
            error = self._attempt(subscriber, event, delivery, self._tries)
        else:  # published past the log: nothing is recorded
            error = self._run_unrecorded(subscriber, event)
        if error is not None and self._is_strict:
            raise error

    def recover(self) -> int:
        """Make the deliveries that processes had yet to make when they died.

        Returns how many were made. Those that lack their subscriber, or the class of their
        event, in this process wait for one that has it.
        """
        abandoned = [found.delivery for found in self._store.pending() if found.is_abandoned]
        claims = [
            (found, _next_attempt(replace(found, deaths=found.deaths + 1))) for found in abandoned
        ]
        done, _, _ = self._redeliver(claims, TRIES)
        return done

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
        attempts = [_next_attempt(replace(one, retries=one.retries + 1)) for one in found]
        done, unknown, taken = self._redeliver(list(zip(found, attempts, strict=True)), 1)
        if ids is not None and (missing := unknown or taken):
            why = (
                "its subscriber, or the class of the event, is not known to this process"
                if unknown
                else "another process is at it"
            )
            event, subscriber = missing[0].key
            raise OrdersError(f"event {event} cannot be delivered to {subscriber}: {why}")
        return done, len(found) - len(taken)

    def react(self, subscriber: Subscriber, event: Event, seen: Cursor) -> None:
        """Run a policy's reaction to an event, up to three times; record what came of it.

        Args:
            subscriber: sends the policy's commands.
            event: what it reacts to.
            seen: up to where the log says nothing of this reaction.

        Raises:
            AlreadySettled: the log says so after that.
            StoreError: it could not be recorded.
        """
        delivery = Delivery(event.id, subscriber.name)
        with self.bus.handling_of(event):
            error = self._attempt(subscriber, event, delivery, self._tries, seen)
        if error is not None and self._is_strict:
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
        found: dict[tuple[str, str], Delivery] = {}
        for beginning in ids:
            fitting = {d.key: d for d in waiting if beginning and d.event.startswith(beginning)}
            if not fitting:
                raise OrdersError(
                    f"no failed delivery of an event {beginning!r}", "orders deliveries --failed"
                )
            found |= fitting
        return list(found.values())

    def _redeliver(
        self, claims: Sequence[tuple[Delivery, Delivery]], tries: int
    ) -> tuple[int, list[Delivery], list[Delivery]]:
        """Claim deliveries, each given with its next attempt, and make them.

        Returns how many are done, those whose subscriber or event this process does not know,
        and those where somebody else was quicker.
        """
        subscribers = self._subscribers(found for found, _ in claims)
        events = self._store.messages(
            {found.event for found, _ in claims if found.subscriber in subscribers}
        )
        done, unknown, taken = 0, [], []
        for found, attempt in claims:
            subscriber, event = subscribers.get(found.subscriber), events.get(found.event)
            if subscriber is None or not isinstance(event, Event):
                unknown.append(found)
            elif not self._store.claim(found, attempt):
                taken.append(found)
            elif attempt.deaths > DEATHS:
                error = RuntimeError(f"{DEATHS} processes died of it")
                failed = replace(
                    attempt, status="failed", attempts=found.attempts, error=str(error)
                )
                self._fail(subscriber, event, error, failed, None)
            else:
                with self.bus.handling_of(event):
                    done += self._attempt(subscriber, event, attempt, tries) is None
        return done, unknown, taken

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

        Returns why it failed, or None.
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
            except AlreadySettled:  # by somebody else
                if seen is not None:
                    raise
                return None
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
        except AlreadySettled:
            return None
        except StoreError as error:
            self._store.release()
            if seen is not None:
                raise
            failure = error
        self.bus.report(subscriber, event, failure)
        return failure


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
        status="done" if error is None else "dead" if delivery.retries >= RETRIES else "failed",
        attempts=attempt,
        seconds=round(perf_counter() - start, 6),
        error=None if error is None else shorten(describe(error), MAX_ERROR),
        failures=failures,
    )
