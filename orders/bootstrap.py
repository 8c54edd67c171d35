"""The composition root: the only room that knows every other and puts them together.

with bootstrap("data") as app:
    order_id = app.bus.send(PlaceOrder(items=("100 inch TV",)))
"""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .bus import MessageBus
from .delivery import Deliveries, run_subscriber
from .disk import Disk, FileLock
from .errors import NotStored, NotWritten, OrdersError, StoreBusy
from .event_log import EventLog
from .handlers import COMMAND_HANDLERS, EVENT_SUBSCRIBERS
from .leases import Leases
from .message import Event
from .notifier import ConsoleNotifier
from .repository import TinyDBOrderRepository
from .settings import Settings
from .subscriptions import Subscriber, log_failure
from .unit_of_work import UnitOfWork


def log_warning(warning: str) -> None:
    """Pass a warning on to `logging`, which prints it unless told otherwise."""
    import logging  # noqa: PLC0415 - 5 ms that only a warning has to pay

    logging.getLogger("orders").warning("%s", warning)


class App:
    """The order system on one directory. Close it, or use it in a `with` block.

    Attributes:
        bus: send commands and subscribe to events here.
        orders: the repository, to look orders up.
        log: the event log.
        deliveries: what subscribers are owed.
        projections: the directory that followers keep theirs in.
        settings, disk, lock, leases, warn: what the store is used with, and by whom.
    """

    def __init__(
        self,
        settings: Settings,
        disk: Disk,
        on_failure: Callable[[Subscriber, Event, BaseException], None],
        on_warning: Callable[[str], None],
        run: Callable[[Subscriber, Event], object],
        dependencies: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.disk = disk
        self.warn = on_warning
        self.lock = FileLock(settings.data / "orders.lock", settings.lock_timeout)
        self.leases = Leases(settings.data / ".running", disk)
        self.log = EventLog(settings.data / "events.jsonl", self.lock, disk)
        self.orders = TinyDBOrderRepository(
            settings.data / "orders.json", self.log, disk, on_warning
        )
        self.projections = settings.data / "projections"
        self.bus = MessageBus(on_failure=on_failure)
        self._uow = UnitOfWork(self.log, self.orders, self.bus, self.leases.mine, on_warning)
        self.deliveries = Deliveries(self.log, self.bus, self._uow, self.leases, run)
        self.bus.deliver = self.deliveries.deliver
        self.bus.on_handled = self._uow.note_handled
        self.bus.on_published = self._uow.prompt
        self.bus.dependencies.update(
            {"bus": self.bus, "uow": self._uow, "notifier": ConsoleNotifier()} | dependencies
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that belong to the store alone."""
        kept = sorted(self.projections.glob("*.json"))
        return self.log.path, self.orders.path, self.lock.path, *kept

    def uow(self) -> UnitOfWork:
        """Return the unit of work, to be opened with `with`."""
        return self._uow

    def close(self) -> None:
        """Bring the state file up to date if this application stored anything; let go of all."""
        try:
            if self.log.appended:
                self.orders.checkpoint_if_due()
            elif self.orders.damage:
                self.warn(
                    f"{self.orders.path} {self.orders.damage}; the log was used instead, and the"
                    " next command that writes makes the file anew"
                )
        except (NotStored, NotWritten, StoreBusy) as error:
            self.warn(f"{error}; the orders themselves are safe in the log")
        except OrdersError as error:
            self.warn(str(error))
        finally:
            self.leases.close()
            self.log.close()
            self.lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def bootstrap(
    data: str | Path | None = None,
    *,
    settings: Settings | None = None,
    disk: Disk | None = None,
    on_failure: Callable[[Subscriber, Event, BaseException], None] = log_failure,
    on_warning: Callable[[str], None] = log_warning,
    **dependencies: Any,
) -> App:
    """Wire the order system; files are touched when they are first needed.

    Args:
        data: the store's directory; else that of `settings`.
        settings: else read from the environment.
        disk: does the file calls; a test may give one that fails.
        on_failure: called with (subscriber, event, error) when a delivery has failed.
        on_warning: called with a sentence when something was survived.
        dependencies: what handlers may ask for by name; `notifier=...` replaces the console.
    """
    settings = settings or Settings.from_environment()
    if data is not None:
        settings = settings._replace(data=Path(data))
    run = run_subscriber
    if settings.fault is not None:
        from .faults import Fault, FaultyDisk  # noqa: PLC0415 - off, it costs nothing

        disk = FaultyDisk(Fault.parse(settings.fault))
        run = disk.around
    app = App(settings, disk or Disk(), on_failure, on_warning, run, dependencies)
    for command, handler in COMMAND_HANDLERS.items():
        app.bus.register(command, handler)
    for event, subscribers in EVENT_SUBSCRIBERS.items():
        for subscriber in subscribers:
            app.bus.subscribe(event, subscriber)
    return app
