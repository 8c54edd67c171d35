"""What NATS's errors mean to people: what, why, and what to try."""

import os
import re
import socket
import ssl

from nats import errors
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

from ...errors import OrdersError

WITHIN = 4.0  # seconds in which a server is to answer: people are told within five

_DOWN = "start the server (nats-server -js), or correct host and port in the URL"
_ELSEWHERE = "correct host and port in the URL"
_SILENT = "look whether it is a NATS server that listens there, and what it is at"
_CREDENTIALS = "correct user and password, or the token: nats://USER:PASSWORD@HOST"
_PERMISSION = "have it granted to this user, or take another one: nats://USER:PASSWORD@HOST"
_TLS = "have SSL_CERT_FILE name the certificate of the server's authority, or correct the host"
_GONE = "look whether it was deleted: nats stream list"
NO_JETSTREAM = "start the server with JetStream: nats-server -js"

# What it says to nobody in particular; nats-py has it in lower case.
_VIOLATION = re.compile(r'permissions violation (for ([^"]*) "([^"]*)".*)')

# What a server says, and what to try; an error of its connection has no code.
_SAID = (
    ("Authorization Violation", "it refuses this user", _CREDENTIALS),
    ("authorization failed", "it refuses this user", _CREDENTIALS),
    ("Authentication", "it refuses this user", _CREDENTIALS),
    ("expecting INFO", "it is no NATS server", _ELSEWHERE),
    ("maximum connections", "it has too many connections", "end some, or raise max_connections"),
    ("secure connection not", "it has no TLS", "write nats:// in the place of tls://"),
)
_CODES = {  # err_code of JetStream
    10023: "have the server's JetStream limits raised",  # insufficient resources
    10047: "have the server's JetStream limits raised",  # no memory or storage left
    10026: "give the account a higher limit of streams",
    10039: "have JetStream enabled for this account",
    10059: "have the stream created, or correct its name with --stream",
    10065: "name the stream that has these subjects with --stream, or take other subjects",
    10054: "raise max_msg_size of the stream",
    10077: "raise the stream's limits, or have it drop old messages (discard: old)",
}

TROUBLE = (errors.Error, OSError)  # of a connection or a server; all else is a mistake of ours


class NatsRefused(OrdersError):
    """The server cannot be used, or refuses what we ask."""

    def __init__(self, location: str, reason: str, hint: str | None = None) -> None:
        self.location = location
        super().__init__(f"cannot use {location}: {reason}", hint)


class NatsLost(NatsRefused):
    """The server cannot be reached, or does not answer: later it may."""


class NobodyThere(NatsLost):
    """The server is there, but nothing in it takes what we send: no stream, consumer, JetStream."""

    def __init__(self, location: str) -> None:
        super().__init__(location, "no stream or consumer there takes what is sent", _GONE)


class NotPermitted(NatsRefused):
    """The user may not do what we ask.

    Attributes:
        action: ``publish to``, ``subscription to`` or ``publish with reply of``.
        subject: that this is of, in lower case.
    """

    def __init__(self, location: str, what: str, action: str, subject: str) -> None:
        self.action = action
        self.subject = subject
        super().__init__(location, f"no permission {what}", _PERMISSION)


def cannot_connect(error: BaseException, location: str) -> NatsRefused:
    """Return what is to be said of a server that lets us not in."""
    match error:
        case ssl.SSLError():
            said = getattr(error, "verify_message", None) or error.reason or "no handshake"
            return NatsRefused(location, f"TLS failed: {said}", _TLS)
        case socket.gaierror():
            return NatsLost(location, "there is no such host", "correct the host in the URL")
        case OSError() if not isinstance(error, TimeoutError):
            return NatsLost(location, _why(error), _DOWN)
        case ValueError():  # of asyncio: what it sends is no line
            return NatsRefused(location, "it is no NATS server", _ELSEWHERE)
    return refused(error, location)


def refused(error: BaseException, location: str) -> NatsRefused:
    """Return what is to be said of a request that failed with one of `TROUBLE`."""
    match error:
        case TimeoutError():
            return NatsLost(location, f"no answer within {WITHIN:g} s", _SILENT)
        case APIError(err_code=code) if code in _CODES:
            return NatsRefused(location, error.description or _why(error), _CODES[code])
        case (
            ServiceUnavailableError(description=None)
            | NoStreamResponseError()
            | errors.NoRespondersError()
        ):
            return NobodyThere(location)
        case APIError():
            kind = NatsLost if isinstance(error, ServiceUnavailableError) else NatsRefused
            return kind(location, error.description or _why(error))
        case errors.ConnectionClosedError() | errors.StaleConnectionError():
            return NatsLost(location, "the connection was lost", _DOWN)
    return _said(_why(error), location)


def _said(text: str, location: str) -> NatsRefused:
    """Return what a server's own words mean, which have no code."""
    if violation := _VIOLATION.search(text):
        return NotPermitted(location, *violation.groups())
    for part, said, hint in _SAID:
        if part.lower() in text.lower():
            return NatsRefused(location, said, hint)
    return NatsLost(location, text, _DOWN)


def _why(error: BaseException) -> str:
    """Return what an error says, on one line and without nats-py's own words around it."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    text = str(error) or type(error).__name__
    return " ".join(text.removeprefix("nats: ").replace("'", "").split())
