"""Orders as they are looked up: those that are stored, and those under a unit of work."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ..domain.events import Added
from ..domain.order import Order, OrderState
from ..errors import AmbiguousOrder, OrderNotFound, WiringError, WrongPayload
from .store import EVERY_ORDER, Filter, Store

if TYPE_CHECKING:
    from .unit import Unit
    from .unit_of_work import UnitOfWork


class Orders:
    """Looks stored orders up. What it returns is the caller's own: changing it stores nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, order_id: str) -> Order:
        """Return the order with this id.

        Raises:
            OrderNotFound: there is none.
        """
        if (state := self._store.order(_text(order_id))) is None:
            raise OrderNotFound(order_id)
        return Order(state)

    def list(self, wanted: Filter = EVERY_ORDER, limit: int | None = None) -> Sequence[OrderState]:
        """Return the wanted orders, newest first, at most `limit`.

        Raises:
            WiringError: the limit is no number of orders.
        """
        if limit is not None and not (isinstance(limit, int) and limit >= 0):
            raise WiringError(
                f"{limit!r} is no number of orders", "give 0 or more, or None for all"
            )
        return self._store.orders(wanted, limit)

    def count(self, wanted: Filter = EVERY_ORDER) -> int:
        """Return how many orders are wanted."""
        return self._store.count(wanted)

    def resolve(self, prefix: str) -> str:
        """Return the only order id that begins with `prefix`.

        Raises:
            OrderNotFound: none does.
            AmbiguousOrder: several do.
        """
        found = self._store.ids(prefix=_text(prefix)) if prefix else {}
        if prefix in found:
            return prefix
        if len(found) > 1:
            raise AmbiguousOrder(prefix, list(found))
        for order_id in found:
            return order_id
        raise OrderNotFound(prefix)

    def __contains__(self, order_id: object) -> bool:
        return isinstance(order_id, str) and self._store.order(order_id) is not None


def _text(order_id: object) -> str:
    if not isinstance(order_id, str):
        raise WrongPayload(f"{order_id!r} is no id of an order", "ids are text")
    return order_id


class UnitOrders:
    """The orders as a unit of work sees them: what is stored, with the unit's own changes."""

    def __init__(self, uow: "UnitOfWork", store: Store) -> None:
        self._uow = uow
        self._store = store

    def add(self, order: Order) -> None:
        """Put `order`, new or changed, under the unit: its events are stored with it.

        Raises:
            WrongPayload: it is no Order, or another copy of it is under the unit.
            OrdersError: no unit is open.
        """
        if not isinstance(order, Order):
            raise WrongPayload(f"{type(order).__name__} is no Order", "add what `get` returned")
        if self._unit.add(order):
            self._uow.announce(Added, [order.id])

    def get(self, order_id: str) -> Order:
        """Return the order, to be changed: its events are stored with the unit.

        Raises:
            OrderNotFound: there is none.
        """
        if (order := self._unit.orders.get(_text(order_id))) is None:
            order = Orders(self._store).get(order_id)
            self.add(order)
        return order

    def with_key(self, key: str) -> str | None:
        """Return the id of the order placed with this key, in this unit or before, or None."""
        unit = self._unit
        order_id = unit.keys.get(key, key)
        if order_id in unit.orders:
            return order_id
        return None if key in unit.unused else self._store.ids(keys=[key]).get(key)

    def with_keys(self, keys: Collection[str]) -> Mapping[str, str]:
        """Return the ids of stored orders by key, of those of these keys that were used before.

        For the others `with_key` does not ask again: should somebody else use one meanwhile, the
        unit cannot be stored.
        """
        found = self._store.ids(keys=keys)
        self._unit.unused.update(set(keys) - found.keys())
        return found

    def __contains__(self, order_id: object) -> bool:
        is_new = isinstance(order_id, str) and order_id in self._unit.orders
        return is_new or order_id in Orders(self._store)

    @property
    def _unit(self) -> "Unit":
        return self._uow.unit
