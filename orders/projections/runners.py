"""Runners: they keep followers up to date with the log, in one thread or in one each.

    with SingleThreadedRunner(app, [ItemSales]) as runner:
        app.bus.send(PlaceOrder(("rope",)))
        runner.get(ItemSales).times("rope")  # 1

A runner wakes its followers, in the order in which they were declared, whenever this
application has stored something, and looks for what other processes have. A follower that
fails is stopped, and its error kept for `stop` and `watch_for_errors`; the others go on.
After that it starts over from what was saved, and so resumes where it was. The interface is
that of the runners of the `eventsourcing` library.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Event as Flag
from threading import Lock, Thread
from types import TracebackType
from typing import Protocol, Self, TypeVar

from ..application.deliveries import Deliveries
from ..application.store import Cursor, Store
from ..application.unit_of_work import UnitOfWork
from ..errors import FollowerError, OrdersError, StoreError, WiringError
from .follower import Follower
from .projection import Projection

POLL = 0.05  # seconds between two looks for what other processes have written

P = TypeVar("P", bound=Projection)


class Followed(Protocol):
    """What a runner needs of an application."""

    store: Store
    deliveries: Deliveries
    unit_of_work: UnitOfWork


class Runner(ABC):
    """What both runners have in common.

    Args:
        app: the application whose log is followed.
        followers: what makes each projection or policy: its class, or a function.

    Attributes:
        errors: why followers have stopped, since the last start.
    """

    def __init__(self, app: Followed, followers: Sequence[Callable[[], Projection]]) -> None:
        self.errors: list[FollowerError] = []
        self._store = app.store
        self._deliveries = app.deliveries
        self._uow = app.unit_of_work
        self._makers = tuple(followers)
        self._followers: list[Follower] = []
        self._stopped: set[Follower] = set()
        self._is_started = False
        self._has_failed = Flag()

    @property
    def is_started(self) -> bool:
        """Whether the runner has been started, and not been stopped since."""
        return self._is_started

    @property
    def cursors(self) -> dict[str, Cursor]:
        """Up to where each follower has folded in the log, by name."""
        return {follower.name: follower.cursor for follower in self._followers}

    def start(self) -> None:
        """Load the followers and have them catch up.

        Raises:
            WiringError: the runner is started already, a follower cannot be followed, or two have
                one name.
        """
        if self._is_started:
            raise WiringError("the runner is started already", "stop it first")
        self.errors, self._followers, self._stopped = [], [], set()
        self._has_failed.clear()
        for make in self._makers:
            name = getattr(make, "name", getattr(make, "__qualname__", repr(make)))
            try:
                follower = Follower(self._store, make, self._deliveries)
                follower.load()
            except WiringError:
                raise
            except Exception as error:  # noqa: BLE001 - kept for `stop`, which raises it
                self._fail(FollowerError(str(name), "starting", None, error))
            else:
                self._followers.append(follower)
        names = [follower.name for follower in self._followers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise WiringError(f"two followers are named {', '.join(twice)}", "rename one")
        self._is_started = True
        self._uow.watchers.append(self.wake)
        self._run()

    def stop(self) -> None:
        """Have the followers process what is in the log, save them, and let go.

        Raises:
            FollowerError: a follower had stopped before, or cannot be saved.
            WiringError: this thread is inside a unit of work, so nothing can be processed.
        """
        if not self._is_started:
            return
        if self._uow.is_open:
            raise WiringError("a runner cannot stop inside a unit of work", "end the unit first")
        self._drain()
        self._is_started = False
        self._uow.watchers.remove(self.wake)
        with self._halt():
            for follower in self._running():
                try:
                    follower.save()
                except Exception as error:  # noqa: BLE001 - same
                    self._fail(FollowerError(follower.name, "saving", None, error), follower)
        self._raise_first()

    def get(self, kind: type[P]) -> P:
        """Return the projection of this class, as far as it has caught up.

        Raises:
            FollowerError: none is followed here, perhaps because this one could not be started.
            OrdersError: none is followed here.
        """
        for follower in self._followers:
            if isinstance(follower.projection, kind):
                return follower.projection
        self._raise_first()
        raise OrdersError(f"no {kind.__name__} runs here")

    def wait(self, cursor: Cursor, timeout: float) -> None:
        """Wait until every follower has folded in the log up to `cursor`.

        Args:
            cursor: from `app.store.head()`, for instance.
            timeout: seconds.

        Raises:
            TimeoutError: some follower has not.
            FollowerError: some follower never will: it has stopped.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._look()
            self._raise_first()
            if not (late := [f.name for f in self._running() if f.cursor < cursor]):
                return
            if time.monotonic() >= deadline:
                raise TimeoutError(f"not caught up in {timeout:g} s: {', '.join(late)}")
            time.sleep(POLL / 10)

    def watch_for_errors(self, timeout: float | None = None) -> None:
        """Wait until a follower fails, the runner is stopped, or `timeout` seconds are over.

        Raises:
            FollowerError: a follower has failed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._is_started and not self._has_failed.is_set():
            self._look()
            left = POLL if deadline is None else min(POLL, deadline - time.monotonic())
            if left <= 0:
                break
            self._has_failed.wait(left)
        self._raise_first()

    @abstractmethod
    def wake(self) -> None:
        """Let the followers know, in declared order, that the log has grown."""

    @abstractmethod
    def _run(self) -> None:
        """Have the followers catch up for the first time."""

    @abstractmethod
    def _look(self) -> None:
        """Have the followers process what other processes have written, if that is our work."""

    @abstractmethod
    def _halt(self) -> AbstractContextManager[object]:
        """End what `_run` has begun; nothing is processed inside the context."""

    def _drain(self) -> None:
        """Process what is in the log now, and what followers write because of it."""
        commits = -1
        while commits != self._store.commits:
            commits = self._store.commits
            try:
                end = self._store.head()
            except StoreError as error:
                for follower in self._running():
                    self._fail(FollowerError(follower.name, "pulling", None, error), follower)
                return
            while any(follower.cursor < end for follower in self._running()):
                self.wake()
                time.sleep(POLL / 10)

    def _running(self) -> list[Follower]:
        return [follower for follower in self._followers if follower not in self._stopped]

    def _advance(self, follower: Follower) -> None:
        """Bring one follower up to date; stop it if it fails."""
        try:
            follower.catch_up()
        except FollowerError as error:
            self._fail(error, follower)

    def _fail(self, error: FollowerError, follower: Follower | None = None) -> None:
        if follower is not None:
            self._stopped.add(follower)
        self.errors.append(error)
        self._has_failed.set()

    def _raise_first(self) -> None:
        if self.errors:
            first, *others = self.errors
            first.__notes__ = [str(other) for other in others]
            raise first

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except OrdersError as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # what the block raised is the first thing to know


class SingleThreadedRunner(Runner):
    """Runs followers in the thread that writes: when `bus.send` returns, they have processed.

    Only if another thread is processing at that moment it is left to that one.

    What other processes write is processed inside `wait` and `watch_for_errors`.
    """

    def __init__(self, app: Followed, followers: Sequence[Callable[[], Projection]]) -> None:
        super().__init__(app, followers)
        self._is_woken = Flag()
        self._pumping = Lock()

    def wake(self) -> None:
        """Have the followers process what is new; to be woken meanwhile is not lost."""
        self._is_woken.set()
        if not self._is_started or self._uow.is_open:  # what is open is not a policy's
            return
        while self._is_woken.is_set() and self._pumping.acquire(blocking=False):
            try:
                self._is_woken.clear()
                for follower in self._running():
                    self._advance(follower)
            finally:
                self._pumping.release()

    def _run(self) -> None:
        self.wake()

    def _look(self) -> None:
        self.wake()

    def _halt(self) -> AbstractContextManager[object]:
        return self._pumping  # a thread may be in the midst of it


class MultiThreadedRunner(Runner):
    """Runs each follower in a thread of its own; `bus.send` does not wait for any of them."""

    def __init__(self, app: Followed, followers: Sequence[Callable[[], Projection]]) -> None:
        super().__init__(app, followers)
        self._threads: list[tuple[Thread, Flag]] = []
        self._is_stopping = Flag()

    def wake(self) -> None:
        """Wake the followers' threads; one that is awake already will look again."""
        for _, wake in self._threads:
            wake.set()

    def _run(self) -> None:
        self._is_stopping.clear()
        for follower in self._followers:
            wake = Flag()
            wake.set()
            thread = Thread(
                target=self._follow, args=(follower, wake), name=follower.name, daemon=True
            )
            self._threads.append((thread, wake))
            thread.start()

    def _look(self) -> None:
        pass

    def _halt(self) -> AbstractContextManager[object]:
        self._is_stopping.set()
        self.wake()
        for thread, _ in self._threads:
            thread.join()
        self._threads.clear()
        return nullcontext()

    def _follow(self, follower: Follower, wake: Flag) -> None:
        while not self._is_stopping.is_set() and follower in self._running():
            wake.clear()
            try:
                self._advance(follower)
            except BaseException as error:  # noqa: BLE001 - else the thread dies, unheard
                self._fail(FollowerError(follower.name, "processing", None, error), follower)
            wake.wait(POLL)
