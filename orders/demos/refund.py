"""A plugin: shipped orders can be refunded. `orders --plugin orders.demos.refund refund ORDER`."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import typer

from .. import (
    App,
    Command,
    Event,
    Notice,
    Notifier,
    OrderEvent,
    OrderState,
    PlaceOrder,
    Policy,
    Projection,
    UnitOfWork,
)
from ..cli.options import OrderArgument, open_store
from ..domain.order import apply, require


class RefundOrder(Command, frozen=True):
    """Give the money of a shipped order back."""

    topic: ClassVar[str] = "refund-order"

    order_id: str
    reason: str


class OrderRefunded(OrderEvent, frozen=True, kw_only=True):
    """The money of an order was given back."""

    topic: ClassVar[str] = "order-refunded"
    status: ClassVar[str] = "refunded"

    reason: str
    customer: str | None


@apply.register
def _(event: OrderRefunded, order: OrderState | None) -> OrderState:
    return require(order, event, "shipped")


def refund_order(command: RefundOrder, *, uow: UnitOfWork) -> None:
    """Handle the command: let the event happen to the order."""
    with uow:
        order = uow.orders.get(command.order_id)
        reason, customer = command.reason, order.customer
        order.record(OrderRefunded(order_id=order.id, reason=reason, customer=customer))


def pay_back(event: OrderRefunded, *, notifier: Notifier) -> None:
    """Have the money sent."""
    notifier.notify(Notice(event.order_id, (event.reason,), "Refund"))


class RefundReasons(Projection):
    """How often each reason was given."""

    name = "refund-reasons"
    follow = (OrderRefunded,)
    columns: ClassVar = {"reasons": ("reason", "times")}

    def apply(self, event: Event) -> None:
        """Count the reason."""
        if isinstance(event, OrderRefunded):
            reasons = self.tables["reasons"]
            reasons[event.reason] = reasons.get(event.reason, 0) + 1


class Apology(Policy):
    """Places an order of chocolates for everybody who was refunded."""

    name = "apology"
    follow = (OrderRefunded,)
    columns: ClassVar = {}

    def apply(self, event: Event) -> None:
        """Remember nothing."""

    def react(self, event: Event) -> Iterator[PlaceOrder]:
        """Place the order."""
        if isinstance(event, OrderRefunded):
            yield PlaceOrder(("box of chocolates",), event.customer)


def install(app: App) -> None:
    """Add all this to an application."""
    app.bus.register(RefundOrder, refund_order)
    app.bus.subscribe(OrderRefunded, pay_back)
    app.follow(RefundReasons, Apology)


commands = typer.Typer()


@commands.command(epilog='Example: orders refund 3f2a --reason "too small"')
def refund(
    context: typer.Context,
    order: OrderArgument,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why.")] = "not said",
) -> None:
    """Refund a shipped order."""
    with open_store(context) as (console, app):
        order_id = app.orders.resolve(order)
        app.bus.send(RefundOrder(order_id, reason))
        console.say(f"Refunded order {order_id}.")
