"""A follower: a projection that is fed from the log, and kept with its cursor in it.

Tables and cursor are one snapshot, so they never disagree. Where it is missing, damaged or of
another log, the follower begins at the first event, with the same result.

A policy's reaction is one commit of all that its commands store and of the record, in the
log, that this event was reacted to. Whoever comes to the event again, because a process died
or because two are at work, finds that record and does not react a second time.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ..application.deliveries import Deliveries
from ..application.store import START, Cursor, Match, Record, Snapshot, Store
from ..errors import AlreadySettled, DuplicateSubscriber, FollowerError, StoreError, WiringError
from ..messaging.message import Event, Message, is_hyphenated
from ..messaging.subscriptions import check_target
from .policy import Policy, reacting, reaction
from .projection import Projection, followed

P = TypeVar("P", bound=Projection)


class Follower:
    """Brings one projection up to date with one store's log.

    Args:
        store: whose log is followed.
        make: makes the projection, empty; its class will do.
        deliveries: makes a policy's reactions; without it they are only listed in `waiting`.
        reacts: whether a policy is one, and not only folded.

    Attributes:
        projection: its tables are what the log makes of it up to `cursor`.
        types: the classes of the events that it wants.
        cursor: up to where the log is folded in.
        waiting: the events that a policy has yet to react to.

    Raises:
        WiringError: its name is none, or a subscriber's; or it follows what no event will match.
    """

    def __init__(
        self,
        store: Store,
        make: Callable[[], Projection],
        deliveries: Deliveries | None = None,
        *,
        reacts: bool = True,
    ) -> None:
        self.projection = projection = make()
        check_projection(projection)
        if (
            isinstance(projection, Policy)
            and deliveries is not None
            and deliveries.bus.subscriber(projection.name) is not None
        ):
            raise DuplicateSubscriber(projection.name)
        self.cursor = START
        self.waiting: list[Event] = []
        self._policy = projection if reacts and isinstance(projection, Policy) else None
        self._store = store
        self._deliveries = deliveries
        self.types = followed(projection)
        self._kept = START  # the cursor of the snapshot
        self._is_partial = False  # whether an event may be folded in half
        self._recorded: set[str] = set()  # ids of events whose reaction the log has recorded
        self._seen = START  # up to where the log was searched for these

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.projection.name

    def load(self) -> str | None:
        """Take over the snapshot, if it can be used; say why it cannot, if so."""
        self.cursor, self._is_partial = START, False
        self.projection.clear()
        self.waiting.clear()
        snapshot = self._store.load(self.name)
        damage = snapshot.damage if snapshot else None
        if snapshot is not None and damage is None:
            try:
                self.projection.restore(snapshot.tables)
                self.cursor = snapshot.cursor
            except (LookupError, TypeError):
                damage = "is of another version of the projection"
        self._kept = self._seen = self.cursor
        self._recorded.clear()
        return damage

    def catch_up(
        self, until: Cursor | None = None, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Fold in what the log has after `cursor`, up to a place in it if that is given.

        `is_wanted` is asked after every record whether to go on.

        Raises:
            FollowerError: at the stage "pulling" or "processing". What was folded in since the
                last snapshot is forgotten, for it may be half of an event.
        """
        try:
            if self._is_partial:
                self.load()
            end = self._store.head() if until is None else until
            if end <= self.cursor:
                return
            self._is_partial = True
            for record in self._store.read(self.cursor, end, Match(types=self.types)):
                self.fold(record)
                if not is_wanted():
                    end = self.cursor
                    break
            self.cursor = end
            self._is_partial = False
            if self._seen <= end:  # what was recorded until then is of events before `end`
                self._recorded.clear()
        except (KeyboardInterrupt, FollowerError):
            raise
        except BaseException as error:
            raise FollowerError(self.name, "pulling", None, error) from error

    def fold(self, record: Record) -> None:
        """Fold in the next record that has events of these `types`; a policy reacts to them.

        Raises:
            FollowerError: at the stage "processing".
        """
        event: Message | None = None
        try:
            for event in record.messages:
                if isinstance(event, self.types):
                    self._process(event)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise FollowerError(self.name, "processing", event, error) from error
        self.cursor = record.cursor

    def save(self) -> None:
        """Keep the projection with its cursor, if it has moved on.

        Raises:
            StoreError: it cannot be kept; what was kept before is as it was.
        """
        if not self._is_partial and self.cursor != self._kept:
            self._store.save(self.name, Snapshot(self.cursor, self.projection.documents()))
            self._kept = self.cursor

    def keep_up(self, *, at_any_cost: bool) -> None:
        """Load and catch up, if that is due, or at any cost; save now and then.

        Raises:
            FollowerError, StoreError: as `catch_up` and `save`.
        """
        if at_any_cost or self._store.is_due(self.name):
            self.load()
            before: Cursor | None = None
            while self.cursor != before:  # a policy's own commands make the log longer
                before = self.cursor
                self.catch_up()
            if at_any_cost or self._store.is_stale(self.name):
                self.save()

    def _process(self, event: Event) -> None:
        self.projection.apply(event)
        if self._policy is not None:
            self._react(self._policy, event)

    def _react(self, policy: Policy, event: Event) -> None:
        found = reaction(policy, event)
        if not found.commands and found.error is None:
            return
        self._look_for_recorded()
        if event.id in self._recorded:
            return
        if self._deliveries is None:
            self.waiting.append(event)
            return
        with suppress(AlreadySettled):  # another process was quicker
            subscriber = reacting(policy, self._deliveries.bus, lambda _event: found)
            self._deliveries.react(subscriber, event, self._seen)

    def _look_for_recorded(self) -> None:
        """Learn which events this policy has reacted to, in whatever process."""
        end = self._store.head()
        for record in self._store.read(self._seen, end, Match(subscriber=self.name)):
            found = (d.event for d in record.deliveries if d.subscriber == self.name)
            self._recorded.update(found)
        self._seen = end


def check_projection(projection: Projection) -> None:
    """Refuse a projection that could not be followed.

    Raises:
        WiringError: its name is none, it follows nothing, or what no event will match.
    """
    name = getattr(projection, "name", None)
    if not is_hyphenated(name):
        raise WiringError(
            f"{name!r} is no name of {type(projection).__name__}", "write it like item-sales"
        )
    follow = getattr(projection, "follow", None)
    if not isinstance(follow, tuple | list):
        raise WiringError(
            f"{type(projection).__name__} cannot follow {follow!r}", "write it like (OrderCreated,)"
        )
    for target in follow:
        check_target(target)


def waiting_for(store: Store, policy: Callable[[], Policy]) -> list[Event]:
    """Return the events of the log that a policy has yet to react to.

    Raises:
        FollowerError: the log is damaged, or the policy does not cope with it.
    """
    follower = Follower(store, policy)
    follower.load()
    follower.catch_up()
    return follower.waiting


def current(store: Store, make: Callable[[], P], warn: Callable[[str], None]) -> P:
    """Return a projection, up to date with the log, and keep it if the store allows."""
    projection = make()
    follower = Follower(store, lambda: projection)
    try:
        follower.load()
    except StoreError as error:
        warn(str(error))
    follower.catch_up()
    with suppress(StoreError):  # it can be made again
        follower.save()
    return projection
