"""The whole idea in a minute: five scenes, every line of them read from the store."""

from collections import Counter

from .. import App, NotifySales, OrderCreated, PlaceOrder
from ..application.notifications import NullNotifier
from ..application.store import Status
from ..domain.text import count
from ..messaging.message import Message
from .crash import ARTICLE
from .stage import Stage

LINE, READ = 1.5, 3.0  # seconds for a line of the log; for a title, or what came of it


def run(stage: Stage) -> None:
    """Play the scenes, then say what to do next."""
    stage.shows_checks = stage.is_stepping
    with stage.open(notifier=NullNotifier(), on_failure=lambda *_: None) as app:
        tour = Tour(stage, app)
        tour.place()
        tour.subscribe()
        tour.kill()
        tour.recover()
        tour.retry()
        tour.sum_up()
    stage.say("Now you:  orders place rope  ·  orders trace ID  ·  orders demo --list")


class Tour:
    """The scenes."""

    def __init__(self, stage: Stage, app: App) -> None:
        self._stage = stage
        self._app = app
        self._has_mail = False
        self._mails: list[str] = []

    def mail_customer(self, event: OrderCreated) -> None:
        """Be a subscriber that is new; raise while the mail server is down."""
        if not self._has_mail:
            raise ConnectionError("the mail server is down")
        self._mails.append(event.order_id)

    def place(self) -> None:
        """Show how a message finds its handlers."""
        self._begin(
            "1/5  The sender names nobody; topics find the handlers",
            'orders place "100 inch TV" "magic carpet"',
            asks="Who calls the sales department?",
        )
        self._app.bus.send(PlaceOrder(("100 inch TV", "magic carpet")))
        self._show()
        self._stage.check("the order is delivered to whoever hears of it", self._are("done") == 1)

    def subscribe(self) -> None:
        """Show that a new subscriber changes nothing for the others, not even when it fails."""
        self._begin(
            "2/5  Add a subscriber; place_order is untouched. Its mail server is down",
            "orders place rope",
            asks="Does the order fail with the mail?",
        )
        self._app.bus.subscribe(OrderCreated, self.mail_customer, name="mail_customer")
        order = self._app.bus.send(PlaceOrder(("rope",)))
        self._show()
        self._stage.check("the order is stored all the same", order in self._app.orders)
        self._stage.check("the others were delivered to", self._are("done") == 2)
        self._stage.check("the failure is on record", self._are("failed") == 1)

    def kill(self) -> None:
        """Kill a process at the worst moment; do the same without this package."""
        self._begin(
            "3/5  kill -9 between the commit and the notice",
            'ORDERS_FAULT=after-fsync orders place "soft cheese"',
            asks="Who remembers the notice?",
        )
        killed = self._stage.orders("place", "soft cheese", ORDERS_FAULT="after-fsync")
        self._show()
        self._say(f"process {killed.process} was killed: the order is on disk, its notice pending")
        self._stage.check("the process was really killed", killed.was_killed)
        self._stage.check("the order is on disk", self._app.orders.count() == 3)
        self._stage.check("its notice is pending", self._are("pending") == 1)
        plain = str(self._stage.data.with_name("plain.json"))
        killed = self._stage.python(str(ARTICLE), plain, "soft cheese", "--die")
        after = self._stage.python(str(ARTICLE), plain, "rope")
        self._say("(the same with plain pypubsub and TinyDB: lost for good)")
        is_lost = killed.was_killed and "soft cheese" not in killed.output + after.output
        self._stage.check("with plain pypubsub and TinyDB the notice is lost", is_lost)

    def recover(self) -> None:
        """Let the next command about orders deliver what is pending."""
        self._begin(
            "4/5  The next command about orders delivers it",
            "orders list",
            asks="Which process is to do it, and how does it know?",
            sends=OrderCreated,
        )
        self._stage.orders("list")
        self._show()
        self._stage.check("nothing is pending any more", self._are("pending") == 0)
        self._stage.check("the notice came late, but came", self._are("done") == 3)

    def retry(self) -> None:
        """Deliver what failed."""
        self._begin(
            "5/5  The mail server is back",
            "orders retry --all",
            asks="Are those notified again who were not the problem?",
            sends=OrderCreated,
        )
        self._has_mail = True
        done, _ = self._app.deliveries.retry()
        self._show()
        self._stage.check("the mail went out, once", (done, len(self._mails)) == (1, 1))

    def sum_up(self) -> None:
        """Count what is in the store."""
        records = self._app.store.read()
        messages = [message for record in records for message in record.messages]
        placed = Counter(m.order_id for m in messages if isinstance(m, OrderCreated))
        notified = Counter(m.order_id for m in messages if isinstance(m, NotifySales))
        self._stage.check("no order is lost", len(placed) == self._app.orders.count() == 3)
        self._stage.check("sales were notified of each order, once", placed == notified)
        self._stage.check("nothing is left to deliver", not self._are("pending", "failed", "dead"))
        outcome = "nothing lost, nobody notified twice"
        checked = count(self._stage.checks, "check")
        if not self._stage.failed:
            self._say(f"{count(len(placed), 'order')}, {outcome} ({checked} ok)")

    def _begin(
        self, title: str, command: str, asks: str, sends: type[Message] = PlaceOrder
    ) -> None:
        self._stage.step(title, command, asks=asks, sends=sends)
        self._stage.pause(READ)

    def _show(self) -> None:
        self._stage.show_log(self._app, LINE)

    def _say(self, text: str) -> None:
        self._stage.say(text)
        self._stage.pause(READ)

    def _are(self, *statuses: Status) -> int:
        """Return how many deliveries stand like that."""
        return len([*self._app.store.deliveries(*statuses)])
