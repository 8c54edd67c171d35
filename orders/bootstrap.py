"""The composition root: the only module that knows every other and puts them together.

with bootstrap("data") as app:
    order_id = app.bus.send(PlaceOrder(items=("100 inch TV",)))
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from . import plugins as plugin_modules
from .adapters.notifiers import open_notifier
from .application.deliveries import Deliveries, Reactor
from .application.handlers import COMMAND_HANDLERS, EVENT_SUBSCRIBERS
from .application.orders import Orders
from .application.store import Store
from .application.unit_of_work import UnitOfWork
from .errors import DuplicateSubscriber, FollowerError, OrdersError, StoreError, WiringError
from .messaging.bus import MessageBus
from .messaging.message import Event
from .messaging.subscriptions import Subscriber, log_failure, log_warning
from .settings import MEMORY, Deliver, Settings, without_password

if TYPE_CHECKING:
    from .adapters.files.reader import Watch
    from .adapters.nats.listener import Listener
    from .adapters.nats.relay import Relay
    from .adapters.nats.serving import Server
    from .application.worker import Worker
    from .projections.policy import Policy
    from .projections.projection import Projection


class App:
    """The order system on one store. Close it, or use it in a `with` block.

    Attributes:
        store: where everything is kept.
        bus: send commands and subscribe to events here.
        orders: to look orders up.
        unit_of_work: the one that handlers are given.
        deliveries: what subscribers are to get, or did not get.
        warn: called with a sentence when something was survived.
    """

    def __init__(
        self,
        store: Store,
        on_failure: Callable[[Subscriber, Event, BaseException], None],
        on_warning: Callable[[str], None],
        *,
        is_strict: bool,
        is_deferring: bool,
    ) -> None:
        self.store = store
        self.warn = on_warning
        self.orders = Orders(store)
        self.bus = MessageBus(on_failure=on_failure)
        self.unit_of_work = UnitOfWork(store, self.bus, on_warning, is_deferring=is_deferring)
        self.deliveries = Deliveries(
            store,
            self.bus,
            self.unit_of_work,
            find_reactor=self._find_reactor,
            is_strict=is_strict,
        )
        self.bus.deliver = self.deliveries.deliver
        self.bus.on_handled = self.unit_of_work.on_handled
        self.bus.on_refused = self.unit_of_work.on_refused
        self.bus.on_published = self.unit_of_work.on_published

    def uow(self) -> UnitOfWork:
        """Return a unit of work, to be opened with `with`."""
        return self.unit_of_work.begin()

    def follow(self, *projections: "Callable[[], Projection]") -> None:
        """Add projections and policies, given by what makes each one: its class will do.

        Policies react to what this application stores, when `react` is called; the command line
        calls it after every command. Runners keep any of them up to date at every commit.

        Raises:
            WiringError: one cannot be followed, or has the name of another one or a subscriber.
        """
        from .projections.follower import check_projection  # noqa: PLC0415 - as `projections`
        from .projections.policy import Policy  # noqa: PLC0415 - same

        for make in projections:
            projection = make()
            check_projection(projection)
            name = projection.name
            if name in self.projections or self.bus.subscriber(name):
                raise DuplicateSubscriber(name)
            self.projections[name] = make
            if isinstance(projection, Policy):
                self.policies[name] = cast("Callable[[], Policy]", make)

    @cached_property
    def projections(self) -> "dict[str, Callable[[], Projection]]":
        """What makes each projection and policy, by name."""
        from .projections.shipped import SHIPPED  # noqa: PLC0415 - 2 ms that `list` need not pay

        return {make.name: make for make in SHIPPED}

    @cached_property
    def policies(self) -> "dict[str, Callable[[], Policy]]":
        """What makes each policy, by name."""
        from .projections.policy import Policy  # noqa: PLC0415 - as `projections`
        from .projections.shipped import SHIPPED  # noqa: PLC0415 - same

        return {make.name: make for make in SHIPPED if issubclass(make, Policy)}

    def react(self, *, at_any_cost: bool = False) -> list[OrdersError]:
        """Have the policies react to what the log has; return why some could not.

        Args:
            at_any_cost: whether a policy with much to catch up on does so at once; else it does
                when the log has grown by half.
        """
        from .projections.follower import Follower  # noqa: PLC0415 - as `projections`

        errors: list[OrdersError] = []
        for make in self.policies.values():
            try:
                Follower(self.store, make, self.deliveries).keep_up(at_any_cost=at_any_cost)
            except (FollowerError, StoreError) as error:  # the others go on
                errors.append(error)
        return errors

    def worker(self, subscribers: Collection[str] = (), **options: Any) -> "Worker":
        """Return a worker on this store; from now on what is stored here is left to workers.

        Args:
            subscribers: names of subscribers and policies; none means all.
            options: as those of `Worker`.
        """
        from .application.worker import Worker  # noqa: PLC0415 - only workers need it
        from .projections.follower import Follower  # noqa: PLC0415 - as `projections`

        self.unit_of_work.is_deferring = True
        policies = [
            Follower(self.store, make, self.deliveries)
            for name, make in self.policies.items()
            if not subscribers or name in subscribers
        ]
        return Worker(self.store, self.deliveries, policies, subscribers=subscribers, **options)

    def relay(self, url: str, **options: Any) -> "Relay":
        """Return a relay of this store's events to a NATS server.

        Args:
            url: of the server.
            options: as those of `Relay`.

        Raises:
            OrdersError: it is no URL of a NATS server, or nats-py is not installed.
        """
        with _installing("a relay", "nats-py", "nats"):
            from .adapters.nats.relay import Relay  # noqa: PLC0415 - only relays need it
        return Relay(self.store, url, **options)

    def server(self, url: str, **options: Any) -> "Server":
        """Return what answers the requests that a NATS server keeps for us.

        Args:
            url: of the server.
            options: as those of `Server`.

        Raises:
            OrdersError: there is no such server, or nats-py is not installed.
        """
        with _installing("serving", "nats-py", "nats"):
            from .adapters.nats.serving import Server  # noqa: PLC0415 - only `serve` needs it
        return Server(url, bus=self.bus, store=self.store, **options)

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def _find_reactor(self, name: str) -> Reactor | None:
        from .projections.policy import reactor  # noqa: PLC0415 - as `projections`

        make: Any = self.policies.get(name)
        return make and reactor(self.store, self.bus, make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bootstrap(
    data: str | Path | None = None,
    *,
    settings: Settings | None = None,
    store: Store | None = None,
    plugins: Iterable[str] | None = None,
    deliver: Deliver | None = None,
    strict: bool = False,
    on_failure: Callable[[Subscriber, Event, BaseException], None] = log_failure,
    on_warning: Callable[[str], None] = log_warning,
    on_reading: "Watch | None" = None,
    **dependencies: Any,
) -> App:
    """Wire the order system; the store is touched when it is first needed.

    Args:
        data: the store: a directory, "postgresql://HOST/DATABASE", or ":memory:"; else that of
            `settings`.
        settings: else read from the environment.
        store: an engine of one's own, instead of `data`.
        plugins: names of modules to install; else those of `settings`.
        deliver: "here" (at once, by this process) or "worker"; else that of `settings`.
        strict: for tests: what a subscriber raises is raised by whoever sent, emitted or delivers.
        on_failure: called with (subscriber, event, error) when a delivery has failed.
        on_warning: called with a sentence when something was survived.
        on_reading: entered, where the store is a directory, with how many bytes are read when
            these are many; yields what is called with how many are read by now.
        dependencies: what handlers may ask for by name; `notifier=...` replaces that of `settings`.

    Raises:
        PluginFailed: a plugin cannot be imported or installed.
        UnusableChannel: notices cannot be sent where the settings say.
        OrdersError: there is no engine for such a store.
    """
    settings = settings or Settings.from_environment()
    if "notifier" not in dependencies:
        dependencies["notifier"] = open_notifier(settings.notify)
    names = settings.plugins if plugins is None else plugins
    modules = plugin_modules.load([names] if isinstance(names, str) else names)
    if data is not None and store is not None:
        name = without_password(str(data))
        raise WiringError(f"{name} and {store.location} are two stores", "give one of them")
    run = None
    if store is None:
        store, run = _open(str(data or settings.data), settings, on_warning, on_reading)
    is_deferring = (deliver or settings.deliver) == "worker"
    app = App(store, on_failure, on_warning, is_strict=strict, is_deferring=is_deferring)
    app.deliveries.run = run or app.deliveries.run
    app.bus.dependencies.update({"bus": app.bus, "uow": app.unit_of_work} | dependencies)
    for command, handler in COMMAND_HANDLERS.items():
        app.bus.register(command, handler)
    for event, subscribers in EVENT_SUBSCRIBERS.items():
        for subscriber in subscribers:
            app.bus.subscribe(event, subscriber)
    for module in modules:
        plugin_modules.install(module, app)
    return app


def listener(url: str, **options: Any) -> "Listener":
    """Return what hears the events that a relay has put into a stream of a NATS server.

    Args:
        url: of the server.
        options: as those of `Listener`.

    Raises:
        OrdersError: there can be no such stream, or nats-py is not installed.
    """
    with _installing("listening", "nats-py", "nats"):
        from .adapters.nats.listener import Listener  # noqa: PLC0415 - only `listen` needs it
    return Listener(url, **options)


def _open(
    data: str, settings: Settings, warn: Callable[[str], None], watch: "Watch | None"
) -> tuple[Store, Callable[[Subscriber, Event], object] | None]:
    """Return the engine for a store, and what runs subscribers where a fault is to happen."""
    if data == MEMORY:
        from .adapters.memory import MemoryStore  # noqa: PLC0415 - only one engine is needed

        return MemoryStore(), None
    disk, run = None, None
    if settings.fault is not None:
        from .adapters.files.faults import Fault, FaultyDisk  # noqa: PLC0415 - off, it costs nothing

        disk = FaultyDisk(Fault.parse(settings.fault))
        run = disk.run
    scheme, is_url, _ = data.partition("://")
    if is_url:
        return _open_server(scheme, data, settings), run
    from .adapters.files.store import FilesStore  # noqa: PLC0415 - same

    timeout = settings.lock_timeout
    return FilesStore(Path(data), lock_timeout=timeout, disk=disk, warn=warn, watch=watch), run


def _open_server(scheme: str, url: str, settings: Settings) -> Store:
    if scheme not in {"postgresql", "postgres"}:
        raise OrdersError(
            f"no engine for {scheme} stores",
            "give a directory, postgresql://HOST/DATABASE or :memory:",
        )
    with _installing("a store on PostgreSQL", "psycopg", "postgres"):
        from .adapters.postgres.store import PostgresStore  # noqa: PLC0415 - as the others
    return PostgresStore(url, lock_timeout=settings.lock_timeout)


@contextmanager
def _installing(what: str, library: str, extra: str) -> Iterator[None]:
    """Say what to install where a library is missing.

    Raises:
        OrdersError: it is.
    """
    try:
        yield
    except ImportError as error:
        raise OrdersError(
            f"{what} needs {library}: {error}", f'pip install "orders[{extra}]"'
        ) from error
