"""Real servers and processes, killed one after the other while orders flow.

What came of it is counted in the store, in the stream, and in what the listener has shown.
"""

import signal
from collections import Counter

from .. import NotifySales, OrderCreated
from ..application.store import Status
from ..domain.text import count
from .machinery import Cluster, Compared
from .servers import NatsServer, PostgreSQL, Server, check_installed
from .stage import Stage

LINE, READ = 0.6, 2.5  # seconds for a line of the log; for a title, or what came of it
HURRIED, PACED = 0.05, 0.5  # seconds between two orders
WORKERS = ("worker 1", "worker 2", "worker 3")
FATAL = 7  # the delivery at which the first worker dies
FLOW = 5  # orders that are to be placed while something is dead


def run(stage: Stage) -> None:
    """Start the cluster, kill its parts, and count.

    Raises:
        NotInstalled: the extra `cluster` is not all there.
        OrdersError: something has failed.
    """
    check_installed()
    stage.shows_checks = stage.is_stepping
    stage.say("PostgreSQL and nats-server are started, for this demo alone")
    workspace = stage.workspace
    database, broker = PostgreSQL(workspace), NatsServer(workspace)
    database.start()
    broker.start()
    workspace.environment |= {"ORDERS_DATA": database.url, "ORDERS_LOCK_TIMEOUT": "60"}
    with stage.open(database.url) as app:
        scenes = Scenes(stage, Cluster(workspace, app, database, broker))
        scenes.begin()
        scenes.kill_a_worker()
        scenes.kill_the_relay()
        scenes.kill_nats()
        scenes.kill_postgres()
        scenes.sum_up()


class Scenes:
    """What is done to the cluster."""

    def __init__(self, stage: Stage, cluster: Cluster) -> None:
        self._stage = stage
        self._cluster = cluster
        self._relay = ("relay", cluster.broker.url)

    def begin(self) -> None:
        """Start everything, and follow an order from end to end."""
        url = self._cluster.broker.url
        self._begin(
            "1/6  Customer, PostgreSQL, three workers; relay, nats-server, listener",
            f"orders worker & orders relay {url} & orders listen {url} &",
            asks="Who has to wait for whom?",
        )
        self._cluster.start(WORKERS[0], "worker", ORDERS_FAULT=f"before-delivery@{FATAL}")
        for name in WORKERS[1:]:
            self._cluster.start(name, "worker")
        self._cluster.start("relay", *self._relay)
        is_hurried = not (self._stage.is_stepping or self._stage.is_watched)
        self._cluster.start_customer(HURRIED if is_hurried else PACED)
        self._cluster.until("there is a stream", self._cluster.relayed)
        self._cluster.start("listener", "listen", url, "--json")
        self._follow(0)

    def kill_a_worker(self) -> None:
        """Have a worker die in the midst of a delivery."""
        self._begin(
            "2/6  kill -9 of a worker, in the midst of a delivery",
            f"ORDERS_FAULT=before-delivery@{FATAL} orders worker",
            asks="Who knows what it was at?",
        )
        worker = self._cluster.await_death(WORKERS[0])
        late = self._cluster.until("another worker has taken over", self._taken_over)
        self._say(f"process {worker.pid} was killed; another one delivers what it was at")
        self._show(late)
        self._stage.check("it was really killed", worker.returncode == -signal.SIGKILL)
        self._cluster.start(WORKERS[0], "worker")

    def kill_the_relay(self) -> None:
        """Kill what carries events from the store to the stream."""
        self._begin(
            "3/6  kill -9 of the relay",
            f"orders relay {self._cluster.broker.url}",
            asks="How is it to know what is in the stream?",
        )
        process = self._cluster.kill("relay")
        self._flow()
        stored, relayed = len(self._cluster.stored()), len(self._cluster.relayed())
        self._say(
            f"process {process} was killed; the store has {stored} events, the stream {relayed}"
        )
        self._stage.check("the stream is behind", relayed < stored)
        self._cluster.start("relay", *self._relay)
        self._catch_up()
        self._say("it was started again, and went on where the stream ended")

    def kill_nats(self) -> None:
        """Kill the stream's server."""
        self._begin("4/6  kill -9 of nats-server", asks="Who can go on, and who has to wait?")
        before = len(self._cluster.placed())
        self._kill(self._cluster.broker)
        self._flow()
        placed = self._cluster.placed()[before:]
        self._cluster.until("workers deliver", lambda: self._notified().keys() >= {*placed})
        self._say(f"{count(len(placed), 'order')} placed and delivered without it")
        self._cluster.broker.start()
        self._catch_up()
        self._say("it was started again; relay and listener have found it and caught up")

    def kill_postgres(self) -> None:
        """Kill the store's server."""
        self._begin("5/6  kill -9 of PostgreSQL", asks="Is what was in a commit stored or not?")
        self._kill(self._cluster.database)
        self._stage.pause(READ)
        placed = self._cluster.placed()
        self._cluster.database.start()
        self._flow()
        self._say("it was started again; all have waited for it, and the first order since is")
        self._follow(len(placed))

    def sum_up(self) -> None:
        """Let all come to an end, and count."""
        self._begin(
            "6/6  The customer has enough: what is at one end, what at the other?",
            asks="Which of the processes would have lost something?",
        )
        self._cluster.dismiss_customer()
        self._cluster.until("all is delivered", lambda: not self._are("pending", "failed"))
        number = self._cluster.app.orders.count()
        self._cluster.until(
            "all can be read",
            lambda: len(self._created()) >= number and self._known() >= self._are("done"),
        )
        self._catch_up()
        placed, created = self._cluster.placed(), self._created()
        events = [event.id for event in self._cluster.stored()]
        ways = {
            "customer to PostgreSQL": Compared.of(placed, list(created.values())),
            "PostgreSQL to stream": Compared.of(events, self._cluster.relayed()),
            "PostgreSQL to listener": Compared.of(events, self._cluster.heard()),
        }
        self._stage.beside(
            ("", "sent", "arrived", "lost", "twice", "out of order"),
            *((way, *compared) for way, compared in ways.items()),
        )
        for way, (_, _, *wrong) in ways.items():
            self._stage.check(f"{way}: nothing lost, twice, out of order", wrong == [0, 0, 0])
        self._stage.check("each order has an event that placed it", len(created) == number)
        self._stage.check(
            "sales were notified of each order, once", self._notified() == Counter(placed)
        )
        self._stage.check("no delivery was given up", not self._are("dead"))
        if not self._stage.failed:
            outcome = "nothing lost, nothing twice, nothing out of order"
            checked = count(self._stage.checks, "check")
            self._say(f"{count(len(placed), 'order')}: {outcome} ({checked} ok)")

    def _begin(self, title: str, command: str = "", *, asks: str) -> None:
        self._stage.step(title, command, asks=asks)
        self._stage.pause(READ)

    def _say(self, text: str) -> None:
        self._stage.say(text)
        self._stage.pause(READ)

    def _follow(self, place: int) -> None:
        """Show what is recorded of one of the customer's orders, once the listener knows it."""
        order_id = self._cluster.until(
            "an order is placed", lambda: self._cluster.placed()[place : place + 1]
        )[0]
        self._cluster.until("it can be read", lambda: order_id in self._created().values())
        event = next(event for event, order in self._created().items() if order == order_id)
        self._cluster.until("it is delivered", lambda: event in self._are("done"))
        self._show(event)
        self._cluster.until("the listener knows", lambda: event in self._cluster.heard())
        process = self._cluster.process("listener")
        self._say(f"process {process}, the listener, has shown it, too")

    def _show(self, event: str) -> None:
        """Show the records with an event and with what came of its delivery, which is made."""
        self._cluster.until("it can be read", lambda: event in self._known())
        for record in self._cluster.records():
            ids = [message.id for message in record.messages]
            if event in {*ids, *(delivery.event for delivery in record.deliveries)}:
                self._stage.show_record(self._cluster.app, record, LINE)

    def _kill(self, server: Server) -> None:
        self._say(f"process {server.kill()} was killed, with all that it was at")

    def _flow(self) -> None:
        """Have the customer place some more orders."""
        number = len(self._cluster.placed()) + FLOW
        self._cluster.until("orders flow", lambda: len(self._cluster.placed()) >= number)

    def _catch_up(self) -> None:
        """Wait until the listener has shown all that is stored by now."""
        last = self._cluster.stored()[-1].id
        self._cluster.until("the listener catches up", lambda: last in self._cluster.heard())

    def _created(self) -> dict[str, str]:
        """Return the order that each event has placed, in the order of the store."""
        stored = self._cluster.stored()
        return {event.id: event.order_id for event in stored if isinstance(event, OrderCreated)}

    def _notified(self) -> Counter[str]:
        """Return how often sales were notified of each order."""
        messages = (message for record in self._cluster.records() for message in record.messages)
        return Counter(one.order_id for one in messages if isinstance(one, NotifySales))

    def _taken_over(self) -> str:
        """Return the event of a delivery that was made although its worker was killed."""
        done = self._cluster.app.store.deliveries("done")
        return next((one.delivery.event for one in done if one.delivery.deaths), "")

    def _known(self) -> set[str]:
        """Return the events of which the log, as far as it can be read, says what came of them."""
        deliveries = (one for record in self._cluster.records() for one in record.deliveries)
        return {one.event for one in deliveries if one.status == "done"}

    def _are(self, *statuses: Status) -> set[str]:
        """Return the events that have deliveries like that."""
        return {one.delivery.event for one in self._cluster.app.store.deliveries(*statuses)}
