"""A worker: one of any number that share what is to be delivered.

It claims what nobody is at, one delivery at a time, and has the policies react; so no two
workers are at one delivery, and what a killed one was at another takes over. Failed deliveries
it makes again, each time after a longer pause, until they are dead letters.

Whatever it shows or counts it reads back from the log, as everybody else can.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from threading import Event as Flag
from typing import Literal, Protocol

from ..errors import OrdersError, StoreBusy, StoreUnreachable
from ..messaging.message import now
from .deliveries import BACK_OFF, MAX_BACK_OFF, Deliveries, Made, retried, taken_over
from .store import Claim, Cursor, Delivery, DeliveryKey, Record, Store

LOOK = 0.25  # seconds between two looks for what a killed process has left, or somebody wants
BATCH = 50  # deliveries that are looked up together

Tallied = Literal["done", "failed", "dead", "retried", "taken over"]
Tally = Counter[tuple[Tallied, str]]  # of what happened to deliveries to this subscriber


class Reacting(Protocol):
    """A policy that is kept up to date with the log, and reacts."""

    @property
    def name(self) -> str:
        """The policy's name."""

    def load(self) -> object:
        """Go on from what was saved."""

    def catch_up(self, until: Cursor | None = None, is_wanted: Callable[[], bool] = ...) -> None:
        """Process what is new in the log, for as long as that is wanted."""

    def save(self) -> None:
        """Keep what it has made of the log."""


class Worker:
    """Delivers what is pending, until it is stopped.

    Args:
        store: where deliveries are pending.
        deliveries: makes them; its application is to leave new ones to workers, too.
        policies: which react here.
        subscribers: names of those to deliver to; none means all that are known here.
        back_off: seconds, about, before the first retry of a failed delivery.
        on_record: called with each record of the log that this worker has written.
        on_turn: called at least four times a second, unless a subscriber takes longer.
        warn: called with an error that was survived.

    Attributes:
        tally: what this worker has done, counted by what it was and subscriber.
    """

    def __init__(
        self,
        store: Store,
        deliveries: Deliveries,
        policies: Iterable[Reacting] = (),
        *,
        subscribers: Collection[str] = (),
        back_off: float = BACK_OFF,
        on_record: Callable[[Record], None] = lambda _record: None,
        on_turn: Callable[[], None] = lambda: None,
        warn: Callable[[OrdersError], None] = lambda _error: None,
    ) -> None:
        self.tally: Tally = Counter()
        self._store = store
        self._deliveries = deliveries
        self._policies = list(policies)
        self._subscribers = frozenset(subscribers)
        self._back_off = back_off
        self._on_record = on_record
        self._on_turn = on_turn
        self._warn = warn
        self._cursor: Cursor = ()  # up to where the log was read
        self._claimed: dict[DeliveryKey, Delivery] = {}  # by us; their outcome is yet to be read
        self._failed: dict[DeliveryKey, tuple[Delivery, datetime]] = {}  # and when to retry them
        self._unknown: set[DeliveryKey] = set()  # pending ones that cannot be made here
        self._last = 0.0  # when there was something to do
        self._is_stopped = Flag()

    def stop(self) -> None:
        """Finish what is in hand, and return from `run`; for other threads and for signals."""
        self._is_stopped.set()

    def run(self, until_idle: float | None = None) -> None:
        """Deliver until `stop` is called, or for `until_idle` seconds there was nothing to do.

        Raises:
            StoreError: the store cannot be used any more.
        """
        self._deliveries.on_claimed = self._note
        try:
            self._begin()
            while not self._is_stopped.is_set():
                is_at_work = False
                with suppress(StoreBusy):  # there is time to look again
                    is_at_work = self._turn()
                self._on_turn()
                idle = time.monotonic() - self._last
                if not is_at_work and until_idle is not None and idle >= until_idle:
                    break
                if not (is_at_work or self._is_stopped.is_set()):
                    pause = LOOK if until_idle is None else min(LOOK, until_idle - idle)
                    with suppress(StoreBusy):
                        self._store.wait(self._cursor, pause)
        finally:
            self._deliveries.on_claimed = lambda _delivery: None
        for policy in tuple(self._policies):
            self._guard(policy, policy.save)
        self._on_turn()

    def _begin(self) -> None:
        self._cursor = self._store.head()
        for account in self._store.deliveries("failed"):
            self._plan(account.delivery, account.changed)
        for policy in tuple(self._policies):
            self._guard(policy, policy.load)
        self._last = time.monotonic()

    def _turn(self) -> bool:
        """Do what there is to do, but not much longer than `LOOK`; return whether there was any."""
        began = time.monotonic()
        for policy in tuple(self._policies):
            self._guard(policy, partial(self._catch_up, policy))
        self._follow()
        end = time.monotonic() + LOOK
        while self._goes_on(end) and (claims := [*islice(self._claims(), BATCH)]):
            for claim, made in zip(claims, self._deliveries.redeliver(claims), strict=True):
                self._count(claim, made)
                self._follow()
                if not self._goes_on(end):
                    break
        return self._last >= began  # and more may have come of it

    def _goes_on(self, end: float) -> bool:
        return not self._is_stopped.is_set() and time.monotonic() < end

    def _count(self, claim: Claim, made: Made) -> None:
        found, attempt = claim
        self._failed.pop(found.key, None)
        if made == "unknown":
            self._unknown.add(found.key)
        elif made == "taken":
            if self._claimed.pop(found.key, None) is not None:
                event, subscriber = found.key
                self._warn(
                    OrdersError(
                        f"the delivery of {event} to {subscriber} was made by somebody else, too:"
                        " the connection was lost meanwhile"
                    )
                )
        else:
            self._last = time.monotonic()
            self.tally["taken over", found.subscriber] += attempt.deaths > found.deaths
            self.tally["retried", found.subscriber] += attempt.retries > found.retries

    def _claims(self) -> Iterator[Claim]:
        """Yield what can be claimed: what was left or deferred, oldest first; what is due again."""
        for found in self._store.pending():
            if found.is_abandoned and self._is_wanted(found.delivery):
                yield taken_over(found)
        present = now()
        for delivery, due in tuple(self._failed.values()):
            if due <= present and self._is_wanted(delivery):
                yield retried(delivery)

    def _is_wanted(self, delivery: Delivery) -> bool:
        is_ours = not self._subscribers or delivery.subscriber in self._subscribers
        return is_ours and delivery.key not in self._unknown

    def _catch_up(self, policy: Reacting) -> None:
        policy.catch_up(is_wanted=lambda: not self._is_stopped.is_set())
        if self._store.is_stale(policy.name):
            policy.save()

    def _guard(self, policy: Reacting, act: Callable[[], object]) -> None:
        """Go on without a policy that fails; a worker that is started anew resumes it."""
        try:
            act()
        except OrdersError as error:
            match error.__cause__ or error:
                case StoreBusy():  # there is time to try again
                    pass
                case StoreUnreachable() as cause:  # which is not the policy's fault
                    raise cause from None
                case _:
                    self._policies.remove(policy)
                    self._warn(error)

    def _follow(self) -> None:
        """Learn from the log what was done, here and elsewhere."""
        for record in self._store.read(self._cursor):
            ours = [delivery for delivery in record.deliveries if self._is_ours(delivery)]
            for delivery in record.deliveries:
                self._plan(delivery, record.time)
            self._cursor = record.cursor
            if ours:
                self._on_record(record)

    def _note(self, delivery: Delivery) -> None:
        self._claimed[delivery.key] = delivery
        self._last = time.monotonic()

    def _plan(self, delivery: Delivery, failed_at: datetime) -> None:
        """Make a delivery again some time after it has failed; and only then."""
        self._failed.pop(delivery.key, None)
        if delivery.status == "failed":
            pause = min(self._back_off * 4**delivery.retries, MAX_BACK_OFF)
            pause *= random.uniform(0.5, 1.5)  # noqa: S311 - so that they do not come all at once
            self._failed[delivery.key] = delivery, failed_at + timedelta(seconds=pause)

    def _is_ours(self, delivery: Delivery) -> bool:
        """Return whether this worker has recorded that; count it, if so."""
        claim = self._claimed.get(delivery.key)
        if (
            claim is None
            or delivery.attempts < claim.attempts
            or (delivery.retries, delivery.deaths) != (claim.retries, claim.deaths)
        ):
            return False
        if delivery.status != "pending":
            del self._claimed[delivery.key]
            self.tally[delivery.status, delivery.subscriber] += 1
        return True
