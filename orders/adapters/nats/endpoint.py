"""What Listener, Server and Relay are: endpoints, which talk to a server until they are stopped."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from .connection import Address, Connection, keep_connected
from .consuming import check_name
from .refusals import NatsRefused


class Endpoint(ABC):
    """One end of a stream, over one connection after the other.

    Args:
        url: of the server.
        stream: its name.
        on_turn: called before each time that it goes on.
        on_lost: called with each loss of the connection that is survived.

    Raises:
        WrongName: a stream cannot have this name.
        NatsRefused: it is no URL of a NATS server.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        on_turn: Callable[[], None],
        on_lost: Callable[[NatsRefused], None],
    ) -> None:
        self._address = Address.parse(url)
        self._stream = check_name("stream", stream)
        self._on_turn = on_turn
        self._on_lost = on_lost
        self._until_idle: float | None = None
        self._is_stopped = False

    @property
    def location(self) -> str:
        """Where the server is, as it may be shown."""
        return self._address.location

    def stop(self) -> None:
        """Finish what is in hand, and return from `run`; for threads and signals."""
        self._is_stopped = True

    def run(self, until_idle: float | None = None) -> None:
        """Go on until `stop` is called, or for `until_idle` seconds there was nothing to do.

        Raises:
            NatsRefused: the server cannot be reached at first, or refuses.
            StoreError: the store, if it has one, cannot be used any more.
        """
        self._until_idle = until_idle
        asyncio.run(keep_connected(self._address, self._session, self._on_lost, self._is_wanted))

    @abstractmethod
    async def _session(self, connection: Connection) -> None:
        """Talk over one connection, to the end."""

    def _is_wanted(self) -> bool:
        """Return whether to go on."""
        self._on_turn()
        return not self._is_stopped
