"""What PostgreSQL's errors mean to people: what, why, and what to try."""

import psycopg
from psycopg import errors

from ...errors import NotStored, OrdersError, StoreBusy, StoreUnreachable, WrongPayload
from .address import Address

PASSING = (  # as a server says that it is worth waiting
    "starting up",
    "shutting down",
    "in recovery mode",
    "too many clients",
    "too many connections",
    "remaining connection slots",
)

# What a server that lets nobody in says, and what to try; there is no code for it.
_CONNECTING = (
    ("password", "correct the password: in the URL, in PGPASSWORD or in ~/.pgpass"),
    ("too many", "end some of the others, raise max_connections, or put a pooler in front"),
    ("connection slots", "end some of the others, raise max_connections, or put a pooler in front"),
    ("does not match host", "write the host in the URL as the server's certificate names it"),
    ("certificate", "give the server's certificate with ?sslrootcert=FILE"),
    ("SSL", "add ?sslmode=require to the URL or leave it out, as the server wants it"),
    ("encryption", "add ?sslmode=require to the URL or leave it out, as the server wants it"),
    ("role", "correct the user in the URL, or have the role created"),
    ("starting up", "wait a moment, and repeat the command"),
    ("database", "create the database, or correct its name in the URL"),
    ("resolve host", "correct the host in the URL"),
    ("invalid", "correct this in the URL"),
)
_DOWN = "start the server, or correct host and port in the URL"

_STANDBY = "give the URL of the primary, or add ?target_session_attrs=read-write"
_CURES: dict[type[psycopg.Error], str] = {
    errors.InsufficientPrivilege: "have these rights granted, or take another user",
    errors.DiskFull: "make room on the server, then repeat the command",
}


class ConnectionLost(StoreUnreachable):
    """The connection broke; what was under way may be done or not."""


def reason(error: BaseException, address: Address) -> str:
    """Return the last thing that an error says, in one line and without the password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "FATAL:" in line), lines[0] if lines else "no answer")
    for secret in address.secrets:
        said = said.replace(secret, "***")
    return said.partition("FATAL:")[2].strip() or said


def cannot_connect(error: psycopg.Error, address: Address) -> StoreUnreachable:
    """Return what is to be said of a server that lets us not in."""
    said = reason(error, address)
    cures = (cure for part, cure in _CONNECTING if part in said)
    return StoreUnreachable(address.location, said, next(cures, _DOWN))


def refused(error: psycopg.Error, address: Address, timeout: float) -> OrdersError:
    """Return what is to be said of a statement that failed on a sound connection."""
    where, said = address.location, reason(error, address)
    match error:
        case errors.LockNotAvailable():
            return StoreBusy(where, timeout, "another transaction")
        case psycopg.DataError():
            return WrongPayload(f"a message cannot be stored: {said}")
        case errors.ReadOnlySqlTransaction():
            return NotStored(where, "the server is a read-only standby", _STANDBY)
    for kind, cure in _CURES.items():
        if isinstance(error, kind):
            return NotStored(where, said, cure)
    return StoreUnreachable(where, said, "orders doctor, or restore the schema from a backup")
