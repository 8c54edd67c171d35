"""A forked child must not share what its parent has open: its stores begin anew."""

import os
from typing import Protocol
from weakref import WeakSet


class Abandonable(Protocol):
    """A store that has files or connections open."""

    def abandon(self) -> None:
        """Begin anew in a child process, and leave alone what the parent has open."""


_stores: WeakSet[Abandonable] = WeakSet()


def abandon_in_children(store: Abandonable) -> None:
    """Have the store begin anew in each process that is forked from this one, while it lives."""
    _stores.add(store)


def _after_fork() -> None:
    for store in tuple(_stores):
        store.abandon()


os.register_at_fork(after_in_child=_after_fork)
