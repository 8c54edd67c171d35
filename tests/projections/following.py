"""What the tests of followers share: events, projections, policies, and how to wait for them."""

from collections import Counter
from typing import ClassVar

from orders import Command, Event, OrderCreated, OrderShipped, PlaceOrder, ShipOrder, bootstrap
from orders.adapters.files.store import FilesStore
from orders.projections.follower import Follower
from orders.projections.policy import Policy
from orders.projections.projection import Projection
from orders.projections.runners import MultiThreadedRunner, SingleThreadedRunner
from orders.projections.shipped import ItemSales
from orders.queries.wording import name_of

RUNNERS = (SingleThreadedRunner, MultiThreadedRunner)
TIMEOUT = 60  # seconds, for what takes a few milliseconds


class Heard(Projection):
    """Keeps the names of the events that it was given."""

    name = "heard"
    columns: ClassVar = {"heard": ("number", "event")}

    def apply(self, event):
        heard = self.tables["heard"]
        heard[str(len(heard))] = name_of(event)

    @property
    def names(self):
        return [*self.tables["heard"].values()]


class BellRung(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "bell-rung"

    times: int = 1


class JobAsked(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "job-asked"

    text: str


class JobEnded(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "job-ended"

    text: str
    error: str | None = None


class JobFiled(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "job-filed"

    text: str


class DoJob(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "do-job"

    text: str


class FileJob(Command, frozen=True, kw_only=True):
    topic: ClassVar[str] = "file-job"

    text: str


class Quiet:
    def notify(self, notice):
        pass


class Bad(Exception):
    pass


class Seeing(Policy):
    """Keeps the ids of the events that it was given, in order; reacts to none."""

    columns: ClassVar = {"seen": ("event", "number")}

    def apply(self, event):
        seen = self.tables["seen"]
        assert event.id not in seen
        seen[event.id] = len(seen)

    def react(self, event):
        return ()

    @property
    def ids(self):
        return [*self.tables["seen"]]


class Listed(Seeing):
    name = "listed"
    follow = (Event,)


class Shipper(Seeing):
    """Ships what is placed, but for paper; nothing can be shipped twice."""

    name = "shipper"
    follow = (OrderCreated,)

    def react(self, event):
        if event.items != ("paper",):
            yield ShipOrder(event.order_id)


class Restocker(Seeing):
    """Orders paper, without a key, whenever something is shipped."""

    name = "restocker"
    follow = (OrderShipped,)

    def react(self, event):
        yield PlaceOrder(("paper",))


class Ringer(Seeing):
    """Has a bell rung for what is shipped."""

    name = "ringer"
    follow = (OrderShipped,)

    def react(self, event):
        yield DoJob(text=f"ring for {event.order_id}")


class Worker(Seeing):
    name = "worker"
    follow = (JobAsked,)

    def react(self, event):
        yield DoJob(text=event.text)


class Clerk(Seeing):
    name = "clerk"
    follow = ("job-ended",)

    def react(self, event):
        if event.error is None:
            yield FileJob(text=event.text)


def do_job(command, *, uow):
    number = command.text.partition(" ")[0]
    error = None if number.isdecimal() else f"{number} is no number"
    uow.emit(JobEnded(text=command.text, error=error))


def file_job(command, *, uow):
    uow.emit(JobFiled(text=command.text))
    _, _, rest = command.text.partition(" ")
    if rest:
        uow.emit(JobAsked(text=rest))


class Failing(ItemSales):
    """Fails in the midst of an order with a bone, as long as its class says so."""

    fails = False

    def apply(self, event):
        if self.fails and isinstance(event, OrderCreated) and "bone" in event.items:
            self.tables["sold"]["rope"] = 1 + self.times("rope")
            raise Bad("choked")
        super().apply(event)


class Counting(ItemSales):
    """Knows how many events it was given, which is not kept."""

    def __init__(self):
        super().__init__()
        self.applied = 0

    def apply(self, event):
        self.applied += 1
        super().apply(event)


class Choking(Counting):
    """Fails in the midst of an order with a bone, until it is switched off."""

    def __init__(self):
        super().__init__()
        self.chokes = True

    def apply(self, event):
        if isinstance(event, OrderCreated) and "bone" in event.items and self.chokes:
            self.tables["sold"]["rope"] = 1 + self.tables["sold"].get("rope", 0)
            raise KeyError("bone")
        super().apply(event)


def open_app(data, disk=None):
    return bootstrap(store=FilesStore(data, disk=disk), notifier=Quiet())


def place(app, *items):
    return app.bus.send(PlaceOrder(items or ("rope",)))


def stored(app, kind=Event):
    return [message for message in messages(app) if isinstance(message, kind)]


def ids(app, kind=Event):
    return [event.id for event in stored(app, kind)]


def deliveries(app, name):
    """What the log says of a policy's reactions, or a subscriber's runs."""
    found = (delivery for record in app.store.read() for delivery in record.deliveries)
    return [delivery for delivery in found if delivery.subscriber == name]


def reacted(app, name):
    """The ids of the events that a policy has reacted to, each as often as the log says so."""
    return [delivery.event for delivery in deliveries(app, name)]


def bestsellers(sales):
    return [notice for notice in sales.notices if notice.title.startswith("Bestseller")]


def followed(app, make=Counting):
    """A follower that has caught up."""
    follower = Follower(app.store, make)
    follower.load()
    follower.catch_up()
    return follower


def kept(app, make=Counting):
    """A follower that has caught up and saved."""
    follower = followed(app, make)
    follower.save()
    return follower


def snapshot(data, kind=ItemSales):
    return data / "projections" / f"{kind.name}.json"


def times(follower):
    return dict(follower.projection.ranking())


def messages(app):
    return [message for record in app.store.read() for message in record.messages]


def heard_by(app, *targets):
    """What a projection of these targets is given of the log, in order."""
    return followed(app, type("HeardSome", (Heard,), {"follow": targets})).projection.names


def sold(app):
    """What the orders say was sold."""
    orders = (order for order in app.orders.list() if order.status != "cancelled")
    return Counter(item for order in orders for item in order.items)


def settle(app, runner):
    """Wait until the followers have processed what is stored, and what they store in turn."""
    end = None
    while end != (now := app.store.head()):
        runner.wait(end := now, TIMEOUT)


def damage(log):
    """Add a line that is none; return what was there."""
    whole = log.read_bytes()
    log.write_bytes(whole + b'{"format":1,"seq":0}\n')
    return whole


def rows(result):
    """What the tool has printed, which must have succeeded."""
    assert result.returncode == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


def reactions(tool):
    return [row for row in rows(tool("log")) if row[2] == "RecordBestseller"]
