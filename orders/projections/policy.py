"""Policies: projections that also react, by commands, to what they have folded.

A policy is pure, too: it says which commands an event calls for. Its reaction is a delivery
like any other, of the event to the policy: made by its follower, recorded in one commit with
all that the commands store, and when it fails shown, retried, and a dead letter in the end.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import NamedTuple

from ..application.deliveries import Reactor
from ..application.store import Match, Store
from ..messaging.bus import MessageBus
from ..messaging.message import Command, Event
from ..messaging.subscriptions import Subscriber
from .projection import Projection, followed


class Policy(Projection):
    """A projection that reacts to the events it follows."""

    @abstractmethod
    def react(self, event: Event) -> Iterable[Command]:
        """Return the commands that the event, which `apply` has just folded in, calls for."""


class Reaction(NamedTuple):
    """What an event calls for: commands, or the error that kept the policy from saying so."""

    commands: tuple[Command, ...] = ()
    error: BaseException | None = None


def reaction(policy: Policy, event: Event) -> Reaction:
    """Return what the event, which the policy has just folded in, calls for."""
    try:
        return Reaction(tuple(policy.react(event)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - it is recorded as a failed delivery
        return Reaction(error=error)


def reacting(policy: Policy, bus: MessageBus, find: Callable[[Event], Reaction]) -> Subscriber:
    """Return the subscriber that sends the commands of the reactions that `find` returns."""

    def run(event: Event) -> None:
        commands, error = find(event)
        if error is not None:
            raise error
        for command in commands:
            bus.send(command)

    return Subscriber(policy.name, policy.react, run)


def reactor(store: Store, bus: MessageBus, make: Callable[[], Policy]) -> Reactor:
    """Return what makes a policy react again to events that it failed on.

    What the policy knew at that time is folded anew from the log, once for all of the events;
    if that fails, so do these deliveries.
    """

    def react_again(ids: Collection[str]) -> Subscriber:
        @cache
        def reactions() -> dict[str, Reaction]:
            policy, found = make(), {}
            types = followed(policy)
            for record in store.read(match=Match(types=types)):
                for event in record.messages:
                    if isinstance(event, types):
                        policy.apply(event)
                        if event.id in ids:
                            found[event.id] = reaction(policy, event)
            return found

        return reacting(make(), bus, lambda event: reactions()[event.id])

    return react_again
