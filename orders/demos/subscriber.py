"""One feature more, "mail the customer": built by calls and by publish/subscribe.

Both systems run, before and after; the lines that change are read from this file.
"""

from collections.abc import Callable, Iterator
from difflib import unified_diff
from inspect import getsource
from typing import Any

from pubsub.core import Publisher  # noqa: TID251 - to be compared with

from ..application.handlers import place_order
from ..domain.text import count
from ..queries.wording import place_of
from .stage import Stage

Call = Callable[[str, list[str]], None]


def place_by_call(order: str, done: list[str]) -> None:
    """Place an order: whoever does it knows everybody who has to hear of it."""
    done.append(f"stored {order}")
    done.append(f"notified sales of {order}")


def place_by_call_and_mail(order: str, done: list[str]) -> None:
    """Place an order: whoever does it knows everybody who has to hear of it."""
    done.append(f"stored {order}")
    done.append(f"notified sales of {order}")
    done.append(f"mailed the customer of {order}")


def wire(bus: Publisher) -> None:
    """Say who hears of an order; `place` knows nobody."""
    bus.subscribe(notify_sales, "order-created")


def wire_and_mail(bus: Publisher) -> None:
    """Say who hears of an order; `place` knows nobody."""
    bus.subscribe(notify_sales, "order-created")
    bus.subscribe(mail_customer, "order-created")


def place(order: str, done: list[str], bus: Publisher) -> None:
    """Place an order and say so, to nobody in particular."""
    done.append(f"stored {order}")
    bus.sendMessage("order-created", order=order, done=done)


def notify_sales(order: str, done: list[str]) -> None:
    """Hear of an order."""
    done.append(f"notified sales of {order}")


def mail_customer(order: str, done: list[str]) -> None:
    """Hear of an order: the feature."""
    done.append(f"mailed the customer of {order}")


def run(stage: Stage) -> None:
    """Build the feature twice; compare what had to be touched."""
    stage.step("By calls: whoever places an order calls everybody", asks="Which function changes?")
    calls = [*_changed(place_by_call, place_by_call_and_mail)]
    _show(stage, "the function that places an order", calls)
    before, after = _called(place_by_call), _called(place_by_call_and_mail)
    stage.check("it does one thing more than before", after[:-1] == before)

    stage.step(
        "By publish/subscribe: whoever places an order says so, to nobody in particular",
        asks="And here? Who has to be tested again?",
    )
    wiring = [*_changed(wire, wire_and_mail)]
    _show(stage, "the wiring", wiring)
    stage.check("it does the same as the other", _published(wire) == before)
    stage.check("and the same thing more", _published(wire_and_mail) == after)

    stage.beside(
        ("", "by calls", "by publish/subscribe"),
        ("placing an order", f"{count(len(calls), 'line')} more", "nothing changes"),
        ("the wiring", "there is none", f"{count(len(wiring), 'line')} more"),
        ("who knows of mails", "whoever places orders", "the wiring"),
    )

    stage.step(
        "In this package: the same line, and nothing else",
        'app.bus.subscribe(OrderCreated, mail_customer, name="mail_customer")',
        asks="Which line of place_order names the sales department?",
    )
    with stage.open() as app:
        names = place_order.__code__.co_names
        stage.say(f"place_order ({place_of(place_order)}) uses: {', '.join(names)}")
        stage.check("place_order names no subscriber", not {"order_created", "bus"} & {*names})
        stage.check(
            "there is one to hear it all the same", bool(app.bus.subscriber("order_created"))
        )


def _changed(before: Callable[..., Any], after: Callable[..., Any]) -> Iterator[str]:
    """Yield the lines of a function's body that are not in the other's."""
    old, new = (getsource(function).splitlines()[1:] for function in (before, after))
    for line in unified_diff(old, new, n=0, lineterm=""):
        if line[0] in "+-" and line[:3] not in {"+++", "---"}:
            yield line


def _show(stage: Stage, what: str, lines: list[str]) -> None:
    stage.say(f"{what}:")
    for line in lines:
        stage.say(line)


def _called(place_one: Call) -> list[str]:
    done: list[str] = []
    place_one("rope", done)
    return done


def _published(wire_up: Callable[[Publisher], None]) -> list[str]:
    done: list[str] = []
    bus = Publisher()
    wire_up(bus)
    place("rope", done, bus)
    return done
