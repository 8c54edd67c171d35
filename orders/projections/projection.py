"""Read models: each a pure fold of events into tables that answer one question quickly.

A projection knows nothing of stores and cursors: given the same events in the same order, its
tables are the same. A follower feeds it (see `follower.py`), and keeps its tables together
with the cursor of the log that they are made of, as documents:

    {"sold": {"1": {"item": "magic carpet", "times": 3}, ...},
     "open": {"1": {"order_id": "...", "items": ["magic carpet"]}, ...}}
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ..messaging.message import Event, message_classes
from ..messaging.subscriptions import Target, matches


class Projection(ABC):
    """A fold of events.

    Attributes:
        name: the name of its snapshot; lower-case-words-with-hyphens.
        follow: the events it wants: classes, which stand for their subclasses, topics or globs.
        columns: for each table, what the key and the value of its documents are called.
        tables: what the events so far make, by table and key; values are of JSON's types.
    """

    name: ClassVar[str]
    follow: ClassVar[tuple[Target, ...]]
    columns: ClassVar[Mapping[str, tuple[str, str]]] = {}

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.clear()

    def clear(self) -> None:
        """Be as before the first event."""
        self.tables = {table: {} for table in self.columns}

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Fold one event in."""

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return the tables as a snapshot keeps them: documents by number."""
        return {
            table: {
                str(number): {key: entry, value: content}
                for number, (entry, content) in enumerate(self.tables[table].items(), start=1)
            }
            for table, (key, value) in self.columns.items()
        }

    def restore(self, documents: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what `documents` returned.

        Raises:
            KeyError: it is of other tables.
        """
        self.tables = {
            table: {document[key]: document[value] for document in documents[table].values()}
            for table, (key, value) in self.columns.items()
        }


def followed(projection: Projection) -> tuple[type[Event], ...]:
    """Return the classes of the events that a projection wants."""
    events = [kind for kind in message_classes().values() if issubclass(kind, Event)]
    return tuple(kind for kind in events if any(matches(each, kind) for each in projection.follow))
