"""Policies: projections that also react, by commands, to what they have folded.

A policy is pure, too: it says which commands an event calls for. Its reaction is a delivery
like any other, of the event to the policy: made by its follower, recorded in one commit with
all that the commands store, and when it fails shown, retried, and a dead letter in the end.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable

from ..application.deliveries import Reactor
from ..application.store import Match, Store
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event
from ..messaging.subscriptions import Subscriber, targeted
from .projection import Projection


class Policy(Projection):
    """A projection that reacts to the events it follows."""

    @abstractmethod
    def react(self, event: Event) -> Iterable[Command]:
        """Return the commands that the event, which `apply` has just folded in, calls for."""


def reaction(
    policy: Policy, bus: MessageBus, commands: Iterable[Command], failure: Exception | None = None
) -> Subscriber:
    """Return the subscriber that sends a policy's commands, or raises why there are none."""

    def run(_event: Event) -> None:
        if failure is not None:
            raise failure
        for command in commands:
            bus.send(command)

    return Subscriber(policy.name, policy.react, run)


def reactor(store: Store, bus: MessageBus, make: Callable[[], Policy]) -> Reactor:
    """Return what makes a policy react again to events that it failed on.

    What the policy knew at that time is folded anew from the log, once for all of the events.
    """

    def react_again(ids: Collection[str]) -> Subscriber:
        policy = make()
        commands: dict[str, list[Command]] = {}
        types = targeted(policy.follow)
        for record in store.read(match=Match(types=types)):
            for event in record.messages:
                if isinstance(event, types):
                    policy.apply(event)
                    if event.id in ids:
                        commands[event.id] = list(policy.react(event))

        def run(event: Event) -> None:
            for command in commands[event.id]:
                bus.send(command)

        return Subscriber(policy.name, policy.react, run)

    return react_again
