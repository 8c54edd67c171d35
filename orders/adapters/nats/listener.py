"""The Listener: shows what a relay has put into a stream, from a machine that has no store.

Its place in the stream is kept by the server, under a name: a durable consumer. An event is
acknowledged after it was shown, so it is shown at least once: what was shown just before we were
killed is shown again. A repeat has the event's id; within one run it is dropped by that.

Events are shown in the order of the stream: where another process, or another connection, left
some unacknowledged, we wait until the server sends these again before we take newer ones.
"""

import asyncio
import time
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from ...messaging.message import Message
from .cloudevents import decode
from .connection import Connection
from .consuming import LOOK, Puller, check_name, find_consumer, find_stream
from .endpoint import Endpoint
from .refusals import NatsRefused

BATCH = 256  # events on their way to us
ACK_WAIT = 1.0  # seconds after which the server sends an event again
REMEMBERED = 10_000  # ids of events that were shown


class Listener(Endpoint):
    """Hears the events of a stream, until it is stopped.

    Args:
        url: of the server.
        stream: its name.
        name: under which the server keeps our place in the stream.
        on_event: called with each event and the number of its record, once; then it is
            acknowledged.
        on_turn: called at least four times a second.
        on_lost: called with each loss of the connection that is survived.
        warn: called with a sentence on what is no event, or who else listens.

    Raises:
        WrongName: a stream or a listener cannot have this name.
        NatsRefused: it is no URL of a NATS server.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        name: str,
        *,
        on_event: Callable[[Message, int], None],
        on_turn: Callable[[], None] = lambda: None,
        on_lost: Callable[[NatsRefused], None] = lambda _error: None,
        warn: Callable[[str], None] = lambda _warning: None,
    ) -> None:
        super().__init__(url, stream, on_turn, on_lost)
        self._name = check_name("listener", name)
        self._on_event = on_event
        self._warn = warn
        self._shown: dict[tuple[str, str], None] = {}  # source and id, oldest first

    async def _session(self, connection: Connection) -> None:
        """Show events over one connection."""
        await find_stream(connection, self._stream)
        config = ConsumerConfig(
            name=self._name, durable_name=self._name, ack_wait=ACK_WAIT, max_ack_pending=BATCH
        )
        consumer = await find_consumer(connection, self._stream, config)
        if consumer.num_waiting:
            self._warn(f"somebody else listens as {self._name}: each event goes to one of you")
        if consumer.num_ack_pending:
            await self._pause((consumer.config.ack_wait or ACK_WAIT) + LOOK)
        puller = Puller(connection, self._stream, consumer, BATCH)
        while self._is_wanted():
            message = await puller.next()
            if message is not None:
                self._hear(message)
                await connection.ask(message.ack())
            elif puller.is_idle(self._until_idle):
                break

    async def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._is_wanted() and time.monotonic() < end:  # noqa: ASYNC110 - it takes turns
            await asyncio.sleep(LOOK)

    def _hear(self, message: Msg) -> None:
        try:
            received = decode(message.data)
        except ValueError as error:
            place = message.metadata.sequence.stream
            self._warn(f"message {place} of {self._stream} was passed over: {error}")
            return
        key = received.source, received.event.id
        if key in self._shown:
            return
        self._on_event(received.event, received.number)
        self._shown[key] = None
        if len(self._shown) > REMEMBERED:
            del self._shown[next(iter(self._shown))]
