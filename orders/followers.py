"""A follower: a projection that is fed from the log, and kept with its position in it.

State and position are one file, replaced at once, so they never disagree. The file is a
snapshot: where it is missing, damaged or of another log, the follower begins at the first
event, with the same result.

A policy's reaction is one commit of all that its commands store and of the record, in the
log, that this event was reacted to. Whoever comes to the event again, because a process died
or because two are at work, finds that record and does not react a second time.
"""

import re
from collections.abc import Callable
from time import perf_counter

import msgspec
from msgspec.structs import asdict

from .bootstrap import App
from .bus import STRANGE
from .delivery import TRIES, Settled
from .errors import Conflict, DuplicateSubscriber, FollowerError, WiringError
from .ledger import START, Delivery, Position
from .line import checksum
from .message import Command, Event, message_classes
from .policies import Policy
from .projections import Projection
from .storage import FORMAT, Head, StateStorage, Tables
from .subscriptions import check_target, matches

CHEAP = 1 << 20  # bytes of state, and of log to fold in, that no user notices
TAIL = 1 << 16  # bytes of log that are folded in again each time, before a save is worth it

_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"


def owed_by(app: App, policy: Callable[[], Policy]) -> list[Event]:
    """Return the events of the log that a policy has yet to react to.

    Raises:
        FollowerError: the log is damaged, or the policy does not cope with it.
    """
    follower = Follower(app, policy, reacts=False)
    follower.catch_up()
    return follower.owed


class Follower:
    """Brings one projection up to date with one store's log.

    Args:
        app: the store, and where a policy's commands go.
        make: makes the projection, empty; its class will do.
        reacts: whether a policy's commands are sent; else the events that call for some are noted.

    Attributes:
        owed: the events that a policy has yet to react to, unless it reacts.
        projection: its tables are what the log makes of it up to `position`.
        position: up to where the log is folded in.

    Raises:
        WiringError: its name is none, or a subscriber's; or it follows what no event will match.
    """

    def __init__(self, app: App, make: Callable[[], Projection], *, reacts: bool = True) -> None:
        self.projection = projection = make()
        self._make = make
        if not re.fullmatch(_NAME, projection.name):
            raise WiringError(f"{projection.name!r} is no name; write it like item-sales")
        for target in projection.follow:
            check_target(target)
        if isinstance(projection, Policy) and app.bus.subscriber(projection.name) is not None:
            raise DuplicateSubscriber(projection.name)
        self.position = START
        self.owed: list[Event] = []
        self._reacts = reacts
        self._policy = projection if isinstance(projection, Policy) else None
        self._app = app
        self._log = app.log
        path = app.projections / f"{projection.name}.json"
        self._storage = StateStorage(path, app.disk)
        self._kept = START
        self._is_torn = False  # whether an event may be folded in half
        self._line = b""  # the last one folded in
        self._wanted: dict[type[Event], bool] = {}
        self._settled: set[str] = set()  # ids of events that were reacted to
        self._settled_until = START  # up to where the log was searched for these

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.projection.name

    def load(self) -> str | None:
        """Take over what is kept, if it is of this log; say why it cannot be used, if so.

        Raises:
            ForeignFile: something else stands in its place.
            StoreUnavailable: it cannot be read.
        """
        self.position, self._is_torn = START, False
        self.projection.clear()
        head, documents, damage = self._storage.load()
        if head is not None:
            if self._log.ends_at(head.position, head.line):
                try:
                    self.projection.restore(documents)
                    self.position = head.position
                except KeyError:
                    damage = "is of another version of the projection"
            else:
                damage = "was made of another log"
        self._kept = self._settled_until = self.position
        return damage

    def claimed(self) -> Position:
        """Return the position that the file claims to be made up to, right or wrong."""
        head = self._storage.head()
        if head is None or not self._log.ends_at(head.position, head.line):
            return START
        return head.position

    def as_found(self) -> Tables | None:
        """Return the tables as they stand in the file, right or wrong; None where it has none."""
        projection = self._make()
        try:
            projection.restore(msgspec.json.decode(self._storage.path.read_bytes()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        return projection.tables

    def catch_up(self, until: int | None = None) -> None:
        """Fold in what the log has after `position`, up to a byte of it if that is given.

        Raises:
            FollowerError: at the stage "pulling" or "processing". What was folded since the last
                save is forgotten, for it may be half of an event.
        """
        event: Event | None = None
        stage = "pulling"
        try:
            if self._is_torn:
                self.load()
            if 0 <= self.position.offset - self._log.size() <= 1:  # a line may lack its line feed
                return
            self._is_torn = True
            if self._policy is not None:
                self._look_for_settled()
            for entry in self._log.read(self.position, containing=self._tags(), until=until):
                stage = "processing"
                for message in entry.line.messages:
                    if isinstance(message, Event) and self._wants(type(message)):
                        event = message
                        self._process(event)
                event, stage = None, "pulling"
                self.position, self._line = entry.end, entry.raw
            self._is_torn = False
        except STRANGE as error:
            raise FollowerError(self.name, stage, event, error) from error
        if self.position == self._settled_until:
            self._settled.clear()

    def save(self) -> None:
        """Keep the projection and its position, in one step, if they have changed.

        Raises:
            StoreError: the disk refuses; what was kept before is as it was.
        """
        if self._is_torn or self.position == self._kept:
            return
        head = Head(FORMAT, self.position.seq, self.position.offset, checksum(self._line), "")
        self._app.disk.make_directory(self._storage.path.parent)
        with self._log.writing():
            self._log.make_durable(self.position)  # or a power cut could leave less than we know
            self._storage.write({"log": {"1": asdict(head)}, **self.projection.documents()})
        self._kept = self.position

    def keep_up(self, *, at_any_cost: bool) -> None:
        """Load and catch up, if that is cheap or due, or at any cost; save now and then.

        What is not cheap is due when the log has outgrown the state by half, so that the cost
        an event stays constant.

        Raises:
            FollowerError, StoreError: as `catch_up` and `save`.
        """
        size, head = self._storage.size(), self._storage.head()
        behind = self._log.size() - (head.offset if head else 0)
        is_cheap = max(size, behind) < CHEAP
        if at_any_cost or is_cheap or behind >= size // 2:
            self.load()
            before: Position | None = None
            while self.position != before:  # a policy's own commands make the log longer
                before = self.position
                self.catch_up()
            if at_any_cost or behind > TAIL:
                self.save()

    def _tags(self) -> list[bytes]:
        """Return what a line contains if it has an event for us, of whatever revision."""
        events = [kind for kind in message_classes().values() if issubclass(kind, Event)]
        tags = [str(kind.__struct_config__.tag) for kind in events if self._wants(kind)]
        return [b'"type":"%s' % tag.partition("@")[0].encode() for tag in tags]

    def _wants(self, event: type[Event]) -> bool:
        if (wanted := self._wanted.get(event)) is None:
            wanted = any(matches(target, event) for target in self.projection.follow)
            self._wanted[event] = wanted
        return wanted

    def _process(self, event: Event) -> None:
        self.projection.apply(event)
        if self._policy is None or event.id in self._settled:
            return
        commands = list(self._policy.react(event))
        if not commands:
            return
        if not self._reacts:
            self.owed.append(event)
            return
        for attempt in range(1, TRIES + 1):
            try:
                self._react(event, commands)
            except STRANGE as error:
                self._look_for_settled()
                if event.id in self._settled:  # another process was quicker
                    return
                if attempt == TRIES or not isinstance(error, Conflict):
                    raise
            else:
                return

    def _react(self, event: Event, commands: list[Command]) -> None:
        start = perf_counter()
        with self._app.bus.handling_of(event), self._app.uow() as uow:
            for command in commands:
                self._app.bus.send(command)
            seconds = round(perf_counter() - start, 6)
            done = Delivery(event.id, self.name, "done", attempts=1, seconds=seconds)
            uow.settle(done, lambda: self._check_unsettled(event))

    def _check_unsettled(self, event: Event) -> None:
        """Refuse, while nobody else can write, to react to an event for the second time."""
        self._look_for_settled()
        if event.id in self._settled:
            raise Settled

    def _look_for_settled(self) -> None:
        """Learn which events this follower has reacted to, in whatever process."""
        ours = [b'"subscriber":"%s"' % self.name.encode()]
        end = self._log.position()
        for entry in self._log.read(self._settled_until, containing=ours, until=end.offset):
            found = (d.event for d in entry.line.deliveries if d.subscriber == self.name)
            self._settled.update(found)
        self._settled_until = end
