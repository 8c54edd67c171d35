"""The connections of one store: made when first needed, made again when they are lost.

One carries the statements, for all threads in turn, and the lease: a session advisory lock with
a random id, which the server lets go of when the session ends, however that happens. Another
one listens, once somebody waits.
"""

import os
import secrets
import select
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, RLock
from typing import Any, LiteralString, NamedTuple, TypeVar, cast

import psycopg
from psycopg import errors, generators, sql
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from ...errors import StoreError
from .address import Address
from .refusals import PASSING, ConnectionLost, cannot_connect, reason, refused
from .schema import bring_up_to_date, check_version, raise_era

T = TypeVar("T")
Link = psycopg.Connection[tuple[Any, ...]]

PAUSE = 0.1  # seconds between two attempts to connect
TRIES = 5  # of what was under way when the connection broke, before we give up
OFTEN = 5  # calls of a function, before it is prepared: whoever makes one or two need not

# Plans are to fit tables that have grown since they were looked at, so they use indexes always.
# The server notices a machine that vanished as soon as we do: see `KEEPALIVES`.
SESSION = {
    "timezone": "UTC",
    "enable_seqscan": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "60s",
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}

OPEN = """
    select version, era, system_identifier,
        (select system_identifier from pg_control_system()),
        pg_is_in_recovery(), pg_try_advisory_lock(%(lease)s), {settings}
    from {meta}
"""

LISTEN = """
    listen {schema}; select pg_advisory_lock_shared({record}::regclass::oid::integer, 0)
"""

# Whoever notifies holds a lock that there is once a server until its commit is on the disk: so it
# does not wait for that.
HINT = sql.SQL("select set_config('synchronous_commit', 'off', true), pg_notify({}, '')")

# Whoever is cut off may still be at work on the server: what it had begun is over after this.
END = """
    select pg_terminate_backend(pid, 5000) from {lease}
    where owner = %s and pid <> pg_backend_pid()
"""


class Session(NamedTuple):
    """A connection, what was learnt when it was made, and which queries are called often."""

    link: Link
    era: int
    is_standby: bool
    calls: Counter[bytes]
    prepared: set[bytes]

    def call(self, query: bytes, *parameters: bytes) -> PGresult:
        """Return what a query answers; as `link.execute`, in a third of the client's time.

        Args:
            query: with $1 for its first parameter; of at most 63 bytes, as it is its own name.
            parameters: as text.

        Raises:
            psycopg.Error: the server could not.
        """
        server = self.link.pgconn
        if query not in self.prepared:
            self.calls[query] += 1
            if self.calls[query] != OFTEN:  # more than that, where preparing it was interrupted
                return self._wait(server.send_query_params, query, parameters)
            self._wait(server.send_prepare, query, query)
            self.prepared.add(query)
        return self._wait(server.send_query_prepared, query, parameters)

    def _wait(self, send: Callable[..., None], *arguments: Any) -> PGresult:
        send(*arguments)
        answer: PGresult
        (answer,) = self.link.wait(generators.execute(self.link.pgconn))
        if answer.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(answer)
        return answer


class Connection:
    """What a store talks to its server through, from any thread.

    Args:
        address: of the store.
        timeout: seconds to wait for another transaction, and for a server that was lost.

    Attributes:
        address: of the store.
        timeout: as given.
        lease: the id of the advisory lock that says that we are alive.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self.lease = _new_lease()
        self._lock = RLock()
        self._session: Session | None = None
        self._was_lost = False
        self._listening = Lock()
        self._listener: Link | None = None

    def run(self, work: Callable[[Session], T]) -> T:
        """Return what `work` makes of the session; again where it was lost meanwhile.

        Raises:
            StoreError: the server cannot be reached, or refuses.
            WrongPayload: what is to be stored is no text of PostgreSQL's.
        """
        with self._lock:
            for _ in range(TRIES - 1):
                with suppress(ConnectionLost):
                    return self.run_once(work)
            return self.run_once(work)

    def run_once(self, work: Callable[[Session], T]) -> T:
        """Return what `work` makes of the session.

        Raises:
            ConnectionLost: the connection broke: what `work` does may be done or not.
            StoreError, WrongPayload: as `run`.
        """
        with self._lock:
            session = self._open()
            try:
                return work(session)
            except psycopg.Error as error:
                if session.link.closed:
                    self._lose()
                    said = reason(error, self.address)
                    raise ConnectionLost(
                        self.address.location, said, "repeat the command"
                    ) from error
                raise refused(error, self.address, self.timeout) from error

    def rows(self, query: LiteralString, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query, which changes nothing or may be repeated.

        Raises:
            StoreError: as `run`.
        """
        return self.run(lambda session: session.link.execute(query, parameters).fetchall())

    def hint(self) -> None:
        """Tell those who listen that the log has grown, and do not wait for the answer."""
        with self._lock:
            if self._session is not None:
                link = self._session.link.pgconn
                with suppress(psycopg.Error):  # it is a hint
                    link.send_query(HINT.format(self.address.schema).as_bytes())
                    link.flush()

    def listen(self) -> None:
        """Hear hints from now on, where the server lets us; a standby does not."""
        if self.run(lambda session: session.is_standby):
            return
        with self._listening:
            if self._listener is None or self._listener.closed:
                with suppress(psycopg.Error):  # they are hints
                    self._listener = self._connect()
                    schema = self.address.schema
                    record = sql.Identifier(schema, "record").as_string()
                    query = sql.SQL(LISTEN).format(schema=sql.Identifier(schema), record=record)
                    self._listener.execute(query)

    def await_hint(self, seconds: float) -> bool:
        """Wait for a hint, so many seconds at most; return whether there was one."""
        if not self._listening.acquire(timeout=seconds):  # another thread hears it
            return False
        try:
            if self._listener is not None:
                return any(self._listener.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error:
            self._listener = None
        finally:
            self._listening.release()
        time.sleep(min(PAUSE, seconds))
        return False

    def release(self) -> None:
        """Take another lease, so that what this one stands for is abandoned."""
        with self._lock:
            self.lease = _new_lease()
            if self._session is not None:
                with suppress(StoreError):  # a session that was lost has let go of it
                    self.run_once(
                        lambda session: session.link.execute(
                            "select pg_advisory_unlock_all(), pg_try_advisory_lock(%s)",
                            (self.lease,),
                        )
                    )

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            if self._session is not None:
                with suppress(psycopg.Error):
                    _finish_hint(self._session.link)
                self._lose()
            self._was_lost = False
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def abandon(self) -> None:
        """In a child process: close our copies of the sockets, and say nothing on them."""
        for link in (self._session and self._session.link, self._listener):
            if link is not None and not link.closed:
                os.close(link.pgconn.socket)
                _inherited.append(link)
        self._session = self._listener = None

    def __del__(self) -> None:
        if self._session is not None or self._listener is not None:  # nobody has closed us
            with suppress(Exception):  # of an interpreter that ends
                self.close()

    def _open(self) -> Session:
        if self._session is not None:
            with suppress(psycopg.Error):
                _finish_hint(self._session.link)
            if self._session.link.closed:
                self._lose()
        if self._session is None:
            self._session = self._begin()
            self._was_lost = False
        return self._session

    def _lose(self) -> None:
        if self._session is not None:
            self._session.link.close()
            self._session, self._was_lost = None, True

    def _begin(self) -> Session:
        deadline = time.monotonic() + self.timeout
        while True:
            link = None
            try:
                link = self._connect()
                return self._prepare(link)
            except psycopg.Error as error:
                if link is not None and not link.closed:
                    link.close()
                    raise refused(error, self.address, self.timeout) from error
                is_passing = self._was_lost or any(part in str(error) for part in PASSING)
                if not is_passing or time.monotonic() > deadline:
                    raise cannot_connect(error, self.address) from error
            except BaseException:
                if link is not None:
                    link.close()
                raise
            time.sleep(PAUSE)

    def _connect(self) -> Link:
        return psycopg.connect(**self.address.parameters, autocommit=True, prepare_threshold=None)

    def _prepare(self, link: Link) -> Session:
        """Set the session up, and bring the schema up to date; one round trip where it is."""
        schema = sql.Identifier(self.address.schema)
        if self._was_lost:
            query = sql.SQL(END).format(lease=sql.Identifier(self.address.schema, "lease"))
            link.execute(query, (self.lease,))
        settings = {
            **SESSION,
            "lock_timeout": f"{max(1, round(self.timeout * 1000))}ms",
            "search_path": schema.as_string(),
        }
        query = sql.SQL(OPEN).format(
            settings=sql.SQL(", ").join(
                sql.SQL("set_config({}, {}, false)").format(name, value)
                for name, value in settings.items()
            ),
            meta=sql.Identifier(self.address.schema, "meta"),
        )
        try:
            row = link.execute(query, {"lease": self.lease}).fetchone()
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            row = None
        if row is None or not check_version(row[0], self.address):
            bring_up_to_date(link, self.address)
            row = link.execute(query, {"lease": self.lease}).fetchone()
        _, era, known, actual, is_standby, has_lease, *_ = cast("tuple[Any, ...]", row)
        if not has_lease:  # the session before this one has it still
            self.lease = _new_lease()
            link.execute("select pg_advisory_lock(%s)", (self.lease,))
        if known != actual:
            era = raise_era(link, era, actual, is_standby=is_standby)
        return Session(link, era, is_standby, Counter(), set())


_inherited: list[Link] = []  # of a parent process, which must never be finished here


def _new_lease() -> int:
    return secrets.randbits(62) + 1


def _finish_hint(link: Link) -> None:
    """Take the answer to a hint, which is there by now, so that the connection can be used."""
    server = link.pgconn
    while server.transaction_status == TransactionStatus.ACTIVE:
        while server.is_busy():  # to take it before it is there would stop all threads
            readable = select.poll()
            readable.register(server.socket, select.POLLIN)
            readable.poll()
            server.consume_input()
        if server.get_result() is None:
            break
