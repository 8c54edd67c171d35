"""The Server: takes requests of other services from a stream, and answers each.

Requests wait in a work queue, a stream which any number of servers share, and stay there until
one of them has answered: what a server that was killed was at is sent to another one. What it
had stored by then is found again by the request's id.

JetStream puts an address of its own in the place of the reply subject of a message, so a request
says in a header, `Reply-To`, where it wants the answer: an inbox.

A request that ended several servers is answered with an error, and put aside: it stays in the
stream, below the subject `dead`, where no server takes it.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from nats.aio.msg import Msg
from nats.js.api import (
    ConsumerConfig,
    ConsumerInfo,
    DiscardPolicy,
    Header,
    RetentionPolicy,
    StreamConfig,
)

from ...application.store import Store
from ...errors import (
    NotStored,
    OrdersError,
    StoreBusy,
    StoreError,
    StoreUnavailable,
    StoreUnreachable,
)
from ...messaging.bus import MessageBus
from . import requests
from .connection import Connection
from .consuming import LOOK, Puller, check_name, find_consumer, find_stream
from .endpoint import Endpoint
from .refusals import NatsRefused, NotPermitted

REPLY_TO = "Reply-To"
CONSUMER = "orders-serve"  # which all servers share
DEATHS = 5  # of servers, or other reasons not to acknowledge, before a request is put aside
ACK_WAIT = 30.0  # seconds after which a request is sent to another server
WINDOW = 0.1  # seconds, as few as there can be: a repeat of a request is to be answered, too

_PASSING = (StoreBusy, NotStored, StoreUnavailable, StoreUnreachable)  # to end would be a death
_INBOX = re.compile(r"_INBOX(\.[\w-]+)+", re.ASCII)  # anywhere else we might be made to publish


class Server(Endpoint):
    """Answers requests, until it is stopped.

    Args:
        url: of the server.
        stream: of the requests; made where there is none.
        subject: what the subjects of requests begin with.
        bus: handles their commands.
        store: where these are stored.
        on_served: called with what was asked for and the answer, once that was sent; see
            `requests`.
        on_turn: called at least four times a second, unless a handler takes longer.
        on_lost: called with each loss of the connection that is survived.
        warn: called with an error that was survived.

    Raises:
        WrongName: the stream cannot have this name, or requests this subject.
        NatsRefused: it is no URL of a NATS server.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        subject: str,
        bus: MessageBus,
        store: Store,
        *,
        on_served: Callable[[str, dict[str, Any]], None] = lambda _topic, _answer: None,
        on_turn: Callable[[], None] = lambda: None,
        on_lost: Callable[[NatsRefused], None] = lambda _error: None,
        warn: Callable[[OrdersError], None] = lambda _error: None,
    ) -> None:
        super().__init__(url, stream, on_turn, on_lost)
        self._subject = ".".join(check_name("subject", part) for part in subject.split("."))
        self._bus = bus
        self._store = store
        self._on_served = on_served
        self._warn = warn

    async def _session(self, connection: Connection) -> None:
        """Answer over one connection."""
        consumer = await self._prepare(connection)
        puller = Puller(connection, self._stream, consumer, 1)
        while self._is_wanted():
            try:
                if (message := await puller.next()) is not None:
                    await self._take(message, connection)
                elif puller.is_idle(self._until_idle):
                    break
            except NotPermitted as error:
                if error.action != "publish to" or not error.subject.startswith("_inbox."):
                    raise
                self._warn(error)  # somebody wants answers where we may not send any

    async def _prepare(self, connection: Connection) -> ConsumerInfo:
        """Have the stream and its consumer, as we need them."""
        wanted = [f"{self._subject}.*", f"{self._subject}.dead.*"]
        config = StreamConfig(
            name=self._stream,
            subjects=wanted,
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            duplicate_window=WINDOW,
        )
        found = (await find_stream(connection, self._stream, config)).config
        is_queue = found.retention == RetentionPolicy.WORK_QUEUE
        if not is_queue or not {*wanted} <= {*(found.subjects or ())}:
            raise NatsRefused(
                self.location,
                f"the stream {self._stream} is no work queue of {' and '.join(wanted)}",
                "name another one with --stream, or other subjects with --subject",
            )
        consumer = ConsumerConfig(
            name=CONSUMER,
            durable_name=CONSUMER,
            filter_subject=wanted[0],
            ack_wait=ACK_WAIT,
            max_deliver=2 * DEATHS,  # of a message that we cannot even read
        )
        return await find_consumer(connection, self._stream, consumer)

    async def _take(self, message: Msg, connection: Connection) -> None:
        """Answer a request, then acknowledge it."""
        headers = message.headers or {}
        topic, request_id = message.subject.rpartition(".")[2], headers.get(Header.MSG_ID)
        deliveries = message.metadata.num_delivered
        if deliveries > DEATHS:
            why = f"{deliveries - 1} servers began with it, and none could end it"
            answer = requests.refusal(request_id, why)
            await connection.ask(self._put_aside(message, topic, connection))
        elif (found := await self._fulfilled(topic, request_id, message, connection)) is None:
            return
        else:
            answer = found
        if _INBOX.fullmatch(reply_to := headers.get(REPLY_TO, "")):
            line = requests.encode(answer, connection.client.max_payload)
            await connection.ask(connection.client.publish(reply_to, line))
        await connection.ask(message.ack())
        self._on_served(topic, answer)

    async def _fulfilled(
        self, topic: str, request_id: str | None, message: Msg, connection: Connection
    ) -> dict[str, Any] | None:
        """Return the answer; None where we were stopped while the store was of no use."""
        while not self._is_stopped:
            try:
                return requests.answer(topic, request_id, message.data, self._bus, self._store)
            except _PASSING as error:
                self._warn(error)
                await connection.ask(message.in_progress())
                await asyncio.sleep(LOOK)
            except StoreError:
                await connection.ask(message.nak())  # another server may have better luck
                raise
        await connection.ask(message.nak())
        return None

    async def _put_aside(self, message: Msg, topic: str, connection: Connection) -> None:
        headers = dict(message.headers or {})
        if request_id := headers.pop(Header.MSG_ID, None):
            headers[Header.MSG_ID] = f"dead {request_id}"  # the first is known to the stream
        await connection.jetstream.publish(
            f"{self._subject}.dead.{topic}", message.data, headers=headers
        )
