"""The stream that events are relayed to: what it must be like, and its last message."""

from collections.abc import Collection
from typing import NamedTuple

from nats.js.api import Header, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from .connection import Connection
from .consuming import find_stream
from .refusals import NatsRefused, NotPermitted


class Tail(NamedTuple):
    """The end of a stream.

    Attributes:
        sequence: of the last message that it was ever given; 0 for none.
        id: of that message, empty where it has none; None where the message is gone.
        data: of that message.
    """

    sequence: int
    id: str | None = None
    data: bytes = b""


class Stream:
    """A stream on a server.

    Args:
        connection: to the server.
        name: the stream's.
        prefix: of the subjects that events are published to: ``orders.``.
        topics: of the events.
    """

    def __init__(
        self, connection: Connection, name: str, prefix: str, topics: Collection[str]
    ) -> None:
        self.name = name
        self._connection = connection
        self._where = connection.address.location
        self._every = f"{prefix}>"
        self._subjects = [prefix + topic for topic in topics]

    async def open(self) -> bool:
        """Make sure that the stream is there and fit to hold events; return whether it was made.

        Raises:
            NatsRefused: it is not, and cannot be made.
        """
        config = StreamConfig(name=self.name, subjects=[self._every])
        try:
            info = await find_stream(self._connection, self.name, config)
        except NotPermitted as error:
            if error.subject != f"$js.api.stream.create.{self.name.lower()}":
                raise
            raise self._refusal(
                f"there is no stream {self.name}, and this user may not create it",
                f"nats stream add {self.name} --subjects '{self._every}', as one who may",
            ) from error
        self._check(info.config)
        return bool(info.did_create)

    async def tail(self) -> Tail:
        """Return the end of the stream.

        Raises:
            NatsRefused: it cannot be asked.
        """
        jetstream = self._connection.jetstream
        info = await self._connection.ask(jetstream.stream_info(self.name))
        last = info.state.last_seq
        if not info.state.messages:
            return Tail(last)
        try:
            found = await self._connection.ask(jetstream.get_msg(self.name, seq=last))
        except NatsRefused as error:
            if not isinstance(error.__cause__, NotFoundError):
                raise
            return Tail(last)
        id_ = (found.headers or {}).get(Header.MSG_ID.value, "")
        return Tail(last, id_, found.data or b"")

    def _check(self, config: StreamConfig) -> None:
        what = f"stream {self.name}"
        kept = RetentionPolicy(config.retention or RetentionPolicy.LIMITS)
        if kept is not RetentionPolicy.LIMITS:
            raise self._refusal(
                f"{what} forgets what was read (retention: {kept.value})",
                "name one whose retention is limits with --stream",
            )
        if config.no_ack or config.mirror or config.sealed:
            raise self._refusal(
                f"{what} acknowledges nothing, or takes nothing (no_ack, mirror or sealed)",
                "name another one with --stream",
            )
        taken = config.subjects or []
        for subject in self._subjects:
            if not any(matches(pattern, subject) for pattern in taken):
                raise self._refusal(
                    f"{what} does not take {subject}",
                    f"nats stream edit {self.name} --subjects '{self._every}', or name another"
                    " one with --stream",
                )

    def _refusal(self, reason: str, hint: str) -> NatsRefused:
        return NatsRefused(self._where, reason, hint)


def matches(pattern: str, subject: str) -> bool:
    """Return whether NATS has `subject` match `pattern`, in which * is a part and > the rest."""
    wanted, parts = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, parts = wanted[:-1], parts[: len(wanted) - 1] if len(parts) >= len(wanted) else []
    return len(wanted) == len(parts) and all(
        one in {"*", part} for one, part in zip(wanted, parts, strict=True)
    )
