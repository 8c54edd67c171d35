"""Which lines of the log may have what a `Match` wants, told from their bytes alone."""

import re
from functools import lru_cache

import msgspec

from ...application.store import Match
from ...domain.order import is_change
from ...messaging.message import message_classes
from .line import as_written
from .reader import Wanted

ONE_BY_ONE = 8  # texts that are sought for themselves

_ID = rb'"(?:id|correlation_id|event)":("(?:[^"\\]|\\.)*")'  # seldom needed, so not compiled here


def containing(match: Match) -> Wanted | None:
    """Return what tells from a line as it is written whether it may be wanted; None: all are."""
    ids = {msgspec.json.encode(text) for text in (*match.conversations, *match.events)}
    parts = [] if match.order_id is None else [as_written(match.order_id)]
    if match.subscriber is not None:
        parts.append(b'"subscriber":%s' % msgspec.json.encode(match.subscriber))
    parts += _tags(tuple(match.types), len(message_classes()))
    if not ids and not parts:
        return _nothing if match.types else None
    if len(ids) <= ONE_BY_ONE:
        return re.compile(b"|".join(map(re.escape, [*parts, *ids]))).search
    return lambda raw: (
        any(part in raw for part in parts) or not ids.isdisjoint(re.findall(_ID, raw))
    )


def with_changes() -> Wanted:
    """Return what tells whether a line may change an order."""
    kinds = [kind.__name__.encode() for kind in message_classes().values() if is_change(kind)]
    return re.compile(b'"type":"(?:%s)|"states":' % b"|".join(kinds)).search


def with_deliveries(raw: bytes) -> bool:
    """Return whether a line may say something of deliveries."""
    return b'"deliveries":' in raw


@lru_cache
def _tags(families: tuple[type, ...], _known: int) -> list[bytes]:
    """Return how messages of these classes and their subclasses are tagged, at any revision."""
    kinds = [kind for kind in message_classes().values() if issubclass(kind, families)]
    return [b'"type":"%s' % kind.__name__.encode() for kind in kinds]


def _nothing(_raw: bytes) -> bool:
    return False
