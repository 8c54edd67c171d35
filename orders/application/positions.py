"""Positions of relays: how far events have been passed on to each stream of another service.

A stream says itself what its last event is. The store remembers it as well, for a stream that
was emptied, and for `orders doctor`, which asks no server.
"""

from hashlib import sha256
from urllib.parse import urlsplit

import msgspec

from ..messaging.message import Event
from .store import Cursor, Match, Snapshot, Store

_PREFIX = "relay."  # a projection's name has no dot
_PORT = 4222  # where a URL names none


class Position(msgspec.Struct, frozen=True):
    """How far a stream has the events of a store.

    Attributes:
        location: the server's URL, without password.
        stream: its name.
        event: the id of the last event that it has; empty before the first.
        sequence: of that event in the stream.
        number: of the event's record in the log.
        cursor: a place shortly before that record; before the first event, where to begin.
    """

    location: str
    stream: str
    event: str
    sequence: int
    number: int
    cursor: Cursor

    @property
    def url(self) -> str:
        """The server's URL as a command takes it, a word in the place of the password."""
        return ":PASSWORD@".join(self.location.rsplit("@", 1))

    @property
    def name(self) -> str:
        """The name of the snapshot that this is kept in."""
        return _name(self.location, self.stream)


def load(store: Store, location: str, stream: str) -> Position | None:
    """Return what the store remembers of a stream; None where that is nothing that can be used."""
    return _load(store, _name(location, stream))


def keep(store: Store, position: Position) -> None:
    """Remember a position in place of the one before.

    Raises:
        StoreError: it cannot be kept.
    """
    tables = {"relay": {"1": msgspec.to_builtins(position)}}
    store.save(position.name, Snapshot(position.cursor, tables))


def positions(store: Store) -> list[Position]:
    """Return the positions of all relays, but of those that cannot be read."""
    names = (name for name in store.saved() if name.startswith(_PREFIX))
    return [position for name in names if (position := _load(store, name)) is not None]


def behind(store: Store, position: Position) -> int:
    """Return how many events the stream does not have yet."""
    number, is_after = 0, not position.event
    for record in store.read(position.cursor, match=Match(types=(Event,))):
        for message in record.messages:
            if is_after:
                number += isinstance(message, Event)
            is_after = is_after or message.id == position.event
    return number


def _name(location: str, stream: str) -> str:
    return _PREFIX + sha256(f"{_servers(location)} {stream}".encode()).hexdigest()[:16]


def _servers(location: str) -> str:
    """Return what is the same of a URL whoever asks, and however the hosts are written."""
    hosts = location.rpartition("@")[2].split(",")
    parts = [urlsplit(f"//{host.rpartition('://')[2]}") for host in hosts]
    return ",".join(sorted(f"{part.hostname}:{part.port or _PORT}" for part in parts))


def _load(store: Store, name: str) -> Position | None:
    snapshot = store.load(name)
    if snapshot is None or snapshot.damage is not None:
        return None
    try:
        return msgspec.convert(snapshot.tables["relay"]["1"], Position)
    except (LookupError, msgspec.ValidationError):  # of another version
        return None
