"""The table of orders: what the log makes of each, looked up."""

from collections.abc import Collection, Iterable, Sequence
from sys import maxsize
from typing import Any, LiteralString

import msgspec

from ...application.store import Filter
from ...domain.order import OrderState
from .connection import Connection

LAST = "\U0010ffff"  # of all characters

_CONDITIONS: dict[str, LiteralString] = {
    "status": "status = %(status)s",
    "item": "strpos(items, %(item)s) > 0",
    "customer": "strpos(customer, %(customer)s) > 0",
    "since": "placed_at >= %(since)s",
    "until": "placed_at < %(until)s",
}

_decoder = msgspec.json.Decoder(OrderState)


class Orders:
    """Looks orders up.

    Args:
        connection: to the server of the store.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, order_id: str) -> OrderState | None:
        """Return the order with this id, or None."""
        rows = self._connection.rows("select state::text from orders where id = %s", [order_id])
        return _decoder.decode(rows[0][0]) if rows else None

    def newest(self, wanted: Filter, limit: int | None) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`."""
        where, parameters = conditions(wanted)
        query: LiteralString = (
            "select state::text from orders where "
            + where
            + " order by era desc, xid desc, place desc limit %(limit)s"
        )
        most = limit and min(limit, maxsize)
        rows = self._connection.rows(query, {**parameters, "limit": most})
        return [_decoder.decode(state) for (state,) in rows]

    def count(self, wanted: Filter) -> int:
        """Return how many orders are wanted."""
        where, parameters = conditions(wanted)
        query: LiteralString = "select count(*) from orders where " + where
        return int(self._connection.rows(query, parameters)[0][0])

    def beginning_with(self, prefix: str) -> dict[str, str]:
        """Return the ids that begin with `prefix`, by id."""
        rows = self._connection.rows(
            """
            select id, id from orders where id >= %(prefix)s and id <= %(prefix)s || %(last)s
            order by era, xid, place
            """,
            {"prefix": prefix, "last": LAST},
        )
        return dict(rows)

    def with_keys(self, keys: Collection[str]) -> dict[str, str]:
        """Return, by key, the ids of the orders placed with these keys; an id is a key, too."""
        rows = self._connection.rows(
            """
            select id, id from orders where id = any(%(keys)s)
            union all select key, id from orders where key = any(%(keys)s)
            """,
            {"keys": list(keys)},
        )
        return dict(rows)

    def keys_of(self, order_ids: Iterable[str]) -> dict[str, str]:
        """Return, by order id, the keys of those of these orders that were placed with one."""
        rows = self._connection.rows(
            "select id, key from orders where id = any(%s) and key is not null", [list(order_ids)]
        )
        return dict(rows)


def conditions(wanted: Filter) -> tuple[LiteralString, dict[str, Any]]:
    """Return a condition, and its parameters."""
    parameters = {
        "status": wanted.status,
        "item": folded(wanted.item),
        "customer": folded(wanted.customer),
        "since": wanted.since,
        "until": wanted.until,
    }
    given: list[LiteralString] = [
        condition for name, condition in _CONDITIONS.items() if parameters[name] is not None
    ]
    return " and ".join(["true", *given]), parameters


def folded(text: str | None) -> str | None:
    """Return a text without regard to case, as items and customers are kept beside the order."""
    return None if text is None else text.casefold()
