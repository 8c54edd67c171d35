"""Requests from other services: what they ask for, as commands, and what they are answered.

The body of a request is the command's own fields as JSON, its last subject token the command's
topic, and its id the idempotency key:

    place-order   {"items": ["rope"], "customer": "Ada"}
    ship-order    {"order_id": "aafc3ad9-417c-484b-8ed7-3960e7241ba8"}
    cancel-order  {"order_id": "aafc3ad9-417c-484b-8ed7-3960e7241ba8", "reason": "too late"}

The answer is one line: ``{"request": ID, "order": {...}}``, the order as it stands now, or
``{"request": ID, "error": "why"}``. Nothing here knows of NATS.
"""

from typing import Any
from uuid import UUID, uuid5

import msgspec

from ...application.orders import Orders
from ...application.store import Store
from ...domain.commands import CancelOrder, PlaceOrder, ShipOrder
from ...domain.order import MAX_TEXT, OrderState, valid_text
from ...domain.text import safe_json, shorten
from ...errors import Conflict, ForbiddenMove, OrdersError, StoreError, describe
from ...messaging.bus import MessageBus
from ...messaging.message import Command, Message

_NAMESPACE = UUID("2f6c2a3e-6a0f-5c43-9d1c-0e8f5b7d9a11")  # of the ids that `decode` gives
_REQUESTS: dict[str, type[Command]] = {
    str(kind.topic): kind for kind in (PlaceOrder, ShipOrder, CancelOrder)
}


class BadRequest(OrdersError):
    """The request cannot be understood; nothing was done."""


def decode(topic: str, request_id: str | None, body: bytes) -> Command:
    """Return the command that is asked for; the same request gives the same command.

    Its id is made of the whole request; the request's id is the key of an order.

    Raises:
        BadRequest: there is no such command, or it has not these fields.
        InvalidOrder: the id is no text that an order may have for its key.
    """
    kind = _REQUESTS.get(topic)
    if kind is None:
        raise BadRequest(f"nobody is asked for {topic!r}; ask for {', '.join(_REQUESTS)}")
    if request_id is None:
        raise BadRequest("the request has no id, so it could not be repeated without harm")
    key = valid_text("the request's id", request_id)
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        allowed = set(kind.__struct_fields__) - {*Message.__struct_fields__, "key"}
        if unknown := fields.keys() - allowed:
            raise BadRequest(f"{kind.__name__} has no {min(unknown)!r}")
        whole = msgspec.json.encode([topic, key, fields], order="deterministic")
        own = {"id": str(uuid5(_NAMESPACE, whole.decode()))}
        if kind is PlaceOrder:
            own["key"] = key
        return msgspec.convert(fields | own, kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the request is no {kind.__name__}: {error}") from error


def fulfil(command: Command, bus: MessageBus, store: Store) -> OrderState:
    """Have a command handled, unless it has been; return the order as it then stands.

    Raises:
        OrdersError: it is refused, or the store cannot be used.
    """
    try:
        order_id = bus.send(command) or command.order_id  # type: ignore[attr-defined]
    except Conflict:  # it may be refused now
        return fulfil(command, bus, store)
    except ForbiddenMove as error:
        if command.id not in store.messages([command.id]):
            raise
        order_id = error.order_id
        store.sync(store.head())  # another server may be storing it still
    return Orders(store).get(order_id).state


def answer(
    topic: str, request_id: str | None, body: bytes, bus: MessageBus, store: Store
) -> dict[str, Any]:
    """Do what is asked for, once; return the answer, whatever the request is.

    Raises:
        StoreError: the store cannot be used now.
    """
    try:
        order = fulfil(decode(topic, request_id, body), bus, store)
    except StoreError:
        raise
    except OrdersError as error:
        return refusal(request_id, str(error))
    except Exception as error:  # noqa: BLE001 - a request must not stop the server
        return refusal(request_id, describe(error))
    return {"request": request_id, "order": msgspec.to_builtins(order)}


def refusal(request_id: str | None, why: str) -> dict[str, Any]:
    """Return the answer to a request that was not fulfilled, which may have been long."""
    return {
        "request": request_id and shorten(request_id, MAX_TEXT),
        "error": shorten(why, MAX_TEXT),
    }


def encode(answer: dict[str, Any], limit: int) -> bytes:
    """Return an answer as one line of JSON.

    Where it has more than `limit` bytes, it goes without the items, or else only says so.
    """
    line = _line(answer)
    if len(line) > limit and (order := answer.get("order")):
        line = _line({**answer, "order": {**order, "items": None}})
    if len(line) > limit:
        done = "it is done, but " if "order" in answer else ""
        why = f"{done}the answer has more than the {limit:,} bytes that the server takes"
        line = _line(refusal(answer["request"], why))
    return line


def _line(answer: dict[str, Any]) -> bytes:
    return safe_json(msgspec.json.encode(answer).decode()).encode()
