"""Connections to a NATS server: where it is, how one is made, and what else may go wrong on it.

nats-py's own reconnecting is off: it keeps what was sent before the connection broke and sends
it later, perhaps for the second time and out of order. Who wants to go on connects anew.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
from nats.aio.client import Client
from nats.errors import AuthorizationError, ConnectionClosedError, SecureConnWantedError
from nats.js import JetStreamContext

from .refusals import (
    NO_JETSTREAM,
    TROUBLE,
    WITHIN,
    NatsLost,
    NatsRefused,
    NobodyThere,
    cannot_connect,
    refused,
)

T = TypeVar("T")

PAUSE = 0.25  # seconds between two attempts to connect
GRACE = 10.0  # seconds that a server that was started anew may refuse what it granted before

_URL = "nats://HOST:4222, tls://HOST:4222 or nats://USER:PASSWORD@HOST"


class Address(msgspec.Struct, frozen=True):
    """One server, or several that are one cluster.

    Attributes:
        location: the URL without its password or token.
        servers: a URL each, without user and password.
        credentials: user and password, or a token, or nothing.
    """

    location: str
    servers: list[str]
    credentials: dict[str, str]

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Return what a URL says: ``nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT][,HOST[:PORT]...]``.

        Raises:
            NatsRefused: it is no URL of a NATS server.
        """
        scheme, is_url, rest = url.partition("://")
        secret, at, where = rest.rpartition("@")
        user, has_password, password = secret.partition(":")
        shown = f"{user}@" if at and has_password else ""
        location = f"{scheme}://{shown}{where}" if is_url else url
        if scheme not in {"nats", "tls"} or not is_url:
            raise NatsRefused(location, "it is no URL of a NATS server", _URL)
        servers = [f"{scheme}://{host.removeprefix(f'{scheme}://')}" for host in where.split(",")]
        for server in servers:
            _check(server, location)
        if has_password:
            return cls(location, servers, {"user": unquote(user), "password": unquote(password)})
        return cls(location, servers, {"token": unquote(secret)} if secret else {})

    def __repr__(self) -> str:
        return f"Address({self.location!r})"


class Connection:
    """An open connection; `connected` makes it.

    Attributes:
        address: of the server.
        client: nats-py's.
        jetstream: nats-py's, too.
        has_answered: whether the server has answered a question.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.client = Client()
        self.jetstream = JetStreamContext(self.client, timeout=WITHIN)
        self.has_answered = False
        self._errors: list[BaseException] = []
        self._trouble = asyncio.Event()

    async def ask(self, question: Awaitable[T]) -> T:
        """Return the answer of the server.

        What nats-py hears beside the answer counts, too: a server says to nobody in particular
        that something is not permitted, and never answers the question.

        Raises:
            NatsRefused: it refuses, or does not answer; NatsLost where it may answer later.
        """
        answer = asyncio.ensure_future(question)
        trouble = asyncio.ensure_future(self._trouble.wait())
        tasks = (answer, trouble)
        try:
            await asyncio.wait(tasks, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
            if answer.cancelled() or not answer.done():  # nats-py cancels what it gives up
                self.check()
            found = await asyncio.wait_for(answer, 0)
        except TROUBLE as error:
            raise refused(error, self.address.location) from error
        else:
            self.has_answered = True
            return found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what nats-py has heard since it was asked last.

        Raises:
            NatsRefused: something is not permitted; NatsLost where the connection was lost.
        """
        self._trouble.clear()
        if self._errors:
            error = self._errors.pop()
            self._errors.clear()
            if not isinstance(error, TROUBLE):
                raise error
            raise refused(error, self.address.location) from error
        if not self.client.is_connected:
            raise refused(ConnectionClosedError(), self.address.location)

    async def check_jetstream(self) -> None:
        """Tell a server without JetStream from one without the stream, which answers the same.

        Raises:
            NatsRefused: there is no JetStream here.
        """
        try:
            await self.ask(self.jetstream.account_info())
        except NobodyThere as error:
            where = self.address.location
            raise NatsRefused(where, "the server has no JetStream", NO_JETSTREAM) from error

    async def open(self) -> None:
        """Connect.

        Raises:
            NatsRefused: the server refuses; NatsLost where it cannot be reached.
        """
        options: dict[str, Any] = {
            "reconnect_time_wait": PAUSE,  # seconds; nats-py says that they are whole ones
            "connect_timeout": WITHIN,
            "ping_interval": WITHIN,
        }
        # nats-py asks for them when it knows the server; to one without TLS it would tell them.
        for name, secret in self.address.credentials.items():
            options[name] = partial(self._confide, secret)
        try:
            async with asyncio.timeout(WITHIN):
                await self.client.connect(
                    self.address.servers,
                    name="orders",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    error_cb=self._hear,
                    closed_cb=self._hear_the_end,
                    **options,
                )
            self._confide("")
            if self._info.get("tls_required"):  # or asyncio warns of how nats-py closes it
                logging.getLogger("asyncio").setLevel(logging.ERROR)
        except Exception as error:
            await self.close()
            if not isinstance(reason := self._reason(error), (*TROUBLE, ValueError)):
                raise
            raise cannot_connect(reason, self.address.location) from error
        self._errors.clear()
        self._trouble.clear()

    async def close(self) -> None:
        """Let go of the connection; what is under way may arrive or not."""
        with suppress(Exception):
            async with asyncio.timeout(1):
                await self.client.close()

    def _confide(self, secret: str) -> str:
        """Return a secret for a server that is what the URL says, and that nobody listens to."""
        if self._wants_tls and not self._info.get("tls_required"):
            raise SecureConnWantedError
        return secret

    @property
    def _wants_tls(self) -> bool:
        return self.address.location.startswith("tls://")

    @property
    def _info(self) -> dict[str, Any]:
        """What the server says of itself."""
        info: dict[str, Any] = self.client._server_info  # noqa: SLF001 - there is no other way
        return info

    def _reason(self, error: BaseException) -> BaseException:
        """Return why it was not possible to connect."""
        said = self._errors[-1] if self._errors else error
        # A server that lets nobody in says so and closes; whether we still hear it is chance.
        is_cut_off = isinstance(said, ConnectionResetError | BrokenPipeError)
        return AuthorizationError() if is_cut_off and self._info.get("auth_required") else said

    async def _hear(self, error: BaseException) -> None:
        self._errors.append(error)
        self._trouble.set()

    async def _hear_the_end(self) -> None:
        self._trouble.set()


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Connection]:
    """Connect for the time of a `with` block.

    Raises:
        NatsRefused: the server refuses; NatsLost where it cannot be reached.
    """
    connection = Connection(address)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def keep_connected(
    address: Address,
    session: Callable[[Connection], Awaitable[T]],
    on_lost: Callable[[NatsRefused], None],
    is_wanted: Callable[[], bool] = lambda: True,
) -> T | None:
    """Return what `session` makes of a connection; it is called anew for each one that was lost.

    Args:
        address: of the server.
        session: talks to the server, to its end.
        on_lost: called with each failure that is to be survived.
        is_wanted: asked before each further attempt whether to go on; if not, None is returned.

    Raises:
        NatsRefused: the server cannot be reached at first, or refuses.
    """
    lost_at: float | None = None
    while True:
        connection = None
        try:
            async with connected(address) as connection:
                return await session(connection)
        except NatsRefused as error:
            is_lost = isinstance(error, NatsLost)
            if is_lost and connection is not None and connection.has_answered:
                lost_at = time.monotonic()
            if lost_at is None or not (is_lost or time.monotonic() - lost_at < GRACE):
                raise
            on_lost(error)
        await asyncio.sleep(PAUSE)
        if not is_wanted():
            return None


def _check(server: str, location: str) -> None:
    """Refuse what is more or less than scheme, host and port."""
    try:
        parts = urlsplit(server)
        is_server = bool(parts.hostname) and parts.port != 0 and server.isprintable()
        is_all = not (parts.path.strip("/") or parts.query or parts.fragment)
    except ValueError:
        is_server = is_all = False
    if not (is_server and is_all):
        raise NatsRefused(location, "it is no URL of a NATS server", _URL)
