"""Messages of a durable consumer, as they come.

nats-py's own `fetch` takes a stored message that has a header "Status" for a word of the
server's: whoever may publish could end whoever fetches. Here a message is what can be
acknowledged.
"""

import asyncio
import re
import time
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerConfig, ConsumerInfo, Header, StreamConfig, StreamInfo
from nats.js.errors import APIError, NotFoundError

from ...errors import WrongName
from .connection import Connection

LOOK = 0.25  # seconds between two looks at something else than messages
EXPIRES = 5.0  # seconds after which the server forgets that we want messages

_PASSING = {"404", "408", "409"}  # no messages, expired, not now
_NAME = re.compile(r"[\w-]+", re.ASCII)


def check_name(what: str, name: str) -> str:
    """Return the name of a stream, a consumer or a part of a subject.

    Raises:
        WrongName: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise WrongName(what, name)
    return name


async def find_stream(
    connection: Connection, name: str, config: StreamConfig | None = None
) -> StreamInfo:
    """Return what the server knows of a stream; make it first, where there is none and a `config`.

    Raises:
        NatsRefused: there is none, or we may not.
    """
    await connection.check_jetstream()

    async def find() -> StreamInfo:
        try:
            return await connection.jetstream.stream_info(name)
        except NotFoundError:
            if config is None:
                raise
            return await connection.jetstream.add_stream(config)

    return await connection.ask(find())


async def find_consumer(
    connection: Connection, stream: str, config: ConsumerConfig
) -> ConsumerInfo:
    """Return what the server knows of a durable consumer; make it first, where there is none.

    Raises:
        NatsRefused: we may not.
    """

    async def find() -> ConsumerInfo:
        found: ConsumerInfo
        try:
            found = await connection.jetstream.consumer_info(stream, str(config.durable_name))
        except NotFoundError:
            found = await connection.jetstream.add_consumer(stream, config)
        return found

    return await connection.ask(find())


class Puller:
    """Pulls a durable consumer's messages.

    Args:
        connection: to the server.
        stream: its name.
        consumer: as the server knows it.
        batch: how many messages may be on their way to us.
    """

    def __init__(
        self, connection: Connection, stream: str, consumer: ConsumerInfo, batch: int
    ) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer.name}"
        self._inbox = connection.client.new_inbox()
        self._subscription: Subscription | None = None
        self._batch = batch
        self._left = 0  # messages that the server may send still
        self._until = 0.0  # when it forgets that
        self._is_behind = bool(consumer.num_pending)
        self._last = time.monotonic()  # when there was a message

    async def next(self) -> Msg | None:
        """Return the next message, or None if there is none for a quarter of a second.

        Raises:
            NatsRefused: there is no such consumer any more; NatsLost where it may come back.
        """
        return await self._connection.ask(self._next())

    def is_idle(self, seconds: float | None) -> bool:
        """Return whether for so long there was no message; there may always be, if None."""
        if seconds is None:
            return False
        if self._is_behind:  # unless others took what was there
            seconds = max(seconds, EXPIRES)
        return time.monotonic() - self._last >= seconds

    async def _next(self) -> Msg | None:
        if self._subscription is None:
            self._subscription = await self._connection.client.subscribe(self._inbox)
        if self._left <= 0 or time.monotonic() > self._until:
            await self._pull()
        try:
            message = await self._subscription.next_msg(LOOK)
        except TimeoutError:
            return None
        if message.reply.startswith("$JS.ACK."):
            self._left -= 1
            self._is_behind = message.metadata.num_pending > 0
            self._last = time.monotonic()
            return message
        self._left = 0
        status = (message.headers or {}).get(Header.STATUS, "")
        if status not in _PASSING:
            raise APIError.from_msg(message)
        if status != "408":
            await asyncio.sleep(LOOK)
        return None

    async def _pull(self) -> None:
        wanted: dict[str, Any] = {"batch": self._batch, "expires": round(EXPIRES * 1e9)}
        await self._connection.client.publish(
            self._subject, msgspec.json.encode(wanted), self._inbox
        )
        self._left, self._until = self._batch, time.monotonic() + EXPIRES + LOOK
