"""Sends messages to a stream, each chained to the one before it.

Each has an id and names the id that the stream's last message must have, and the server refuses
it else. So what a killed process, a broken connection or a second relay has sent can come late or
twice: it is stored where it belongs, or nowhere.

The server takes an id that it has seen for a repeat, for some minutes, even when the stream was
purged meanwhile: it acknowledges such a message, and drops it. So in a stream that was emptied
ids have an ending, the number of the last message that is gone, which the next ids inherit.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError, NoRespondersError
from nats.js.api import Header
from nats.js.client import NO_RESPONDERS_STATUS
from nats.js.errors import APIError

from .connection import Connection
from .refusals import TROUBLE, NatsRefused, refused
from .stream import Tail

T = TypeVar("T")

UNDER_WAY = 256  # messages that are not acknowledged yet
AT_ONCE = 64  # of these, acknowledgements that are waited for together
OVERTAKEN = {10070, 10071, 10164}  # err_codes of JetStream: the last message is another one


class StreamChanged(Exception):
    """The stream does not end any more as it did: somebody else wrote there, or emptied it."""


class Answer(msgspec.Struct, frozen=True):
    """What a stream says to a message: its name and the message's number, or why not."""

    stream: str = ""
    seq: int = 0
    error: dict[str, Any] | None = None


class Sender(Generic[T]):
    """Sends messages over one connection, behind the end of a stream.

    Args:
        connection: to the server.
        stream: its name.
        tail: the end of the stream.
        content_type: of all messages.
        on_stored: called, in order, with what was given to `send` and its number in the stream.

    Attributes:
        sequence: the number of the last message that is stored.
        sent: how many messages were sent.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        tail: Tail,
        content_type: str,
        on_stored: Callable[[T, int], None],
    ) -> None:
        self.sequence = tail.sequence
        self.sent = 0
        self._connection = connection
        self._stream = stream
        self._content_type = content_type
        self._on_stored = on_stored
        self._base = tail.sequence
        if tail.id is None:
            self._ending = f"+{tail.sequence}" if tail.sequence else ""
        else:
            _, plus, number = tail.id.partition("+")
            self._ending = plus + number
        self._last: str | None = None  # the id of the last message that was sent
        self._inbox = connection.client.new_inbox()
        self._window: deque[tuple[asyncio.Future[Msg], T]] = deque()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}  # by the subject of the answer

    async def open(self) -> None:
        """Hear what the server answers, for `publish_async` of nats-py drops refusals.

        Raises:
            NatsRefused: the connection was lost.
        """
        hearing = self._connection.client.subscribe(f"{self._inbox}.*", cb=self._hear)
        await self._connection.ask(hearing)

    async def send(self, subject: str, id_: str, data: bytes, what: T) -> None:
        """Send a message; wait first while too many are under way.

        Raises:
            StreamChanged: a message does not follow the stream's last one.
            NatsRefused: the server refuses, or does not answer.
        """
        if len(self._window) >= UNDER_WAY:
            await self._settle(AT_ONCE)
        name = quote(id_, safe="") + self._ending
        headers = {Header.MSG_ID.value: name, "content-type": self._content_type}
        if self._last is None:
            headers[Header.EXPECTED_LAST_SEQUENCE.value] = str(self._base)
        else:
            headers[Header.EXPECTED_LAST_MSG_ID.value] = self._last
        where = self._connection.address.location
        answer = f"{self._inbox}.{self.sent}"
        try:
            await self._connection.client.publish(subject, data, reply=answer, headers=headers)
        except MaxPayloadError as error:
            said = f"event {id_} has {len(data):,} bytes, which is more than it takes"
            raise NatsRefused(where, said, "raise max_payload of the server") from error
        except TROUBLE as error:
            raise refused(error, where) from error
        self._last = name
        self.sent += 1
        self._waiting[answer] = asyncio.get_running_loop().create_future()
        self._window.append((self._waiting[answer], what))

    async def finish(self) -> None:
        """Wait until all is acknowledged.

        Raises:
            StreamChanged, NatsRefused: as `send`.
        """
        while self._window:
            await self._settle(AT_ONCE)

    async def _settle(self, number: int) -> None:
        """Wait for so many acknowledgements."""
        first = [future for future, _ in islice(self._window, number)]
        await self._connection.ask(asyncio.wait(first))
        while self._window and self._window[0][0].done():
            future, what = self._window.popleft()
            self.sequence = self._stored(future.result())
            self._on_stored(what, self.sequence)

    async def _hear(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is not None:
            waiting.set_result(message)

    def _stored(self, message: Msg) -> int:
        """Return the number that a message has in the stream, as the answer to it says."""
        where = self._connection.address.location
        try:
            if message.headers and message.headers.get(Header.STATUS.value) == NO_RESPONDERS_STATUS:
                raise NoRespondersError  # noqa: TRY301 - as an answer that has an error
            answer = msgspec.json.decode(message.data, type=Answer)
            if answer.error is not None:
                raise APIError.from_error(answer.error)
        except APIError as error:
            if error.err_code in OVERTAKEN:
                raise StreamChanged from error
            raise refused(error, where) from error
        except NoRespondersError as error:
            raise refused(error, where) from error
        except msgspec.MsgspecError as error:
            said = "it answers what JetStream does not"
            raise NatsRefused(where, said, "look who else takes these subjects") from error
        if answer.stream != self._stream:
            said = f"stream {answer.stream} takes what stream {self._stream} should"
            raise NatsRefused(where, said, "correct the subjects of these streams")
        if answer.seq <= self._base:
            raise NatsRefused(where, "it takes an event for a repeat that it has not", "try again")
        return answer.seq
