"""Notices by mail.

    smtp://[user[:password]@]host[:port][?to=ADDRESS,...&from=ADDRESS]

`smtp` begins in the clear, on port 25, or 587 for a user; what a user sends is encrypted where the
server can. `smtps` encrypts from the first byte, on port 465. Without `to` and `from` a user who
is a mail address writes to himself; else it is from orders@host to sales@host.
"""

import re
from datetime import UTC, datetime
from email.message import EmailMessage
from smtplib import SMTP, SMTP_SSL, SMTPRecipientsRefused
from ssl import create_default_context
from typing import NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

from ...application.notifications import Notice
from ...errors import NoticeRefused, UnusableChannel, describe

TIMEOUT = 10.0  # seconds that a server may take for each answer

_ADDRESS = re.compile(r"[^\s,<>@]+@[^\s,<>@]+")
_FORM = (
    "a mail server is smtp://USER:PASSWORD@HOST:PORT?to=ADDRESS&from=ADDRESS, of which only HOST is"
    " needed; the signs @ : / ? # in USER and PASSWORD are written %40 %3A %2F %3F %23"
)


class MailRoute(NamedTuple):
    """By which server mail goes, and to whom."""

    host: str
    port: int
    is_encrypted: bool  # from the first byte
    user: str
    password: str
    recipients: tuple[str, ...]
    sender: str

    @classmethod
    def parse(cls, address: str) -> Self:
        """Read an address as drawn above.

        Raises:
            UnusableChannel: it is none.
        """
        try:
            url = urlsplit(address)
            host, port = url.hostname, url.port
            options = parse_qs(url.query, strict_parsing=True) if url.query else {}
        except ValueError:  # its text may quote the password
            raise UnusableChannel(_FORM) from None
        user, password = unquote(url.username or ""), unquote(url.password or "")
        own = user if "@" in user else None
        recipients = ",".join(options.pop("to", [own or f"sales@{host}"])).split(",")
        (sender, *others) = options.pop("from", [own or f"orders@{host}"])
        if (
            not host
            or url.path.strip("/")
            or url.fragment
            or options
            or others
            or not (user + password).isascii()  # which is all that smtplib can send
            or not all(map(_ADDRESS.fullmatch, [*recipients, sender]))
        ):
            raise UnusableChannel(_FORM)
        is_encrypted = url.scheme == "smtps"
        usual = 465 if is_encrypted else 587 if user else 25
        return cls(host, port or usual, is_encrypted, user, password, tuple(recipients), sender)


class MailNotifier:
    """Sends each notice as a mail; a repeated one has the Message-ID of the first."""

    def __init__(self, route: MailRoute) -> None:
        self._route = route

    def notify(self, notice: Notice) -> None:
        """Hand the mail to the server.

        Raises:
            NoticeRefused: the server is out of reach, or refuses the mail or a recipient.
        """
        route = self._route
        try:
            with self._connect() as server:
                if route.user:
                    server.ehlo_or_helo_if_needed()
                    if not route.is_encrypted and server.has_extn("starttls"):
                        server.starttls(context=create_default_context())
                    server.login(route.user, route.password)
                if refused := server.send_message(self._mail(notice)):
                    raise SMTPRecipientsRefused(refused)
        except OSError as error:  # as all of smtplib's are
            raise NoticeRefused(f"{route.host}:{route.port}", describe(error)) from error

    def _connect(self) -> SMTP:
        host, port, is_encrypted, *_ = self._route
        if is_encrypted:
            return SMTP_SSL(host, port, timeout=TIMEOUT, context=create_default_context())
        return SMTP(host, port, timeout=TIMEOUT)

    def _mail(self, notice: Notice) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._route.sender
        mail["To"] = ", ".join(self._route.recipients)
        mail["Subject"] = notice.subject
        mail["Date"] = datetime.now(UTC)
        mail["Message-ID"] = f"<{uuid5(NAMESPACE_URL, notice.subject)}@orders>"
        mail.set_content(f"{notice}\n", cte="quoted-printable")  # which every server can take
        return mail
