"""Notifiers: where notices go. See `application/notifications.py` for the port.

    console            standard output, as plain text
    file:PATH          appended to a file
    smtp://...         mail; see `mail.py`
    SCHEME://...       else whatever the apprise library makes of it

No error shows an address: it may hold a password.
"""

from ...application.notifications import Notifier
from ...errors import UnusableChannel
from ...settings import CONSOLE
from .console import ConsoleNotifier

__all__ = ["ConsoleNotifier", "open_notifier"]


def open_notifier(address: str) -> Notifier:
    """Return the notifier for an address; nothing is connected to or written yet.

    Raises:
        UnusableChannel: there is no channel with this address.
    """
    scheme, _, rest = address.partition(":")
    if address == CONSOLE:
        return ConsoleNotifier()
    if scheme == "file":
        from .file import FileNotifier  # noqa: PLC0415 - only one channel is needed

        return FileNotifier(rest)
    if scheme in {"smtp", "smtps"}:
        from .mail import MailNotifier, MailRoute  # noqa: PLC0415 - same; smtplib takes 40 ms

        return MailNotifier(MailRoute.parse(address))
    if rest.startswith("//"):
        from .push import PushNotifier  # noqa: PLC0415 - same

        return PushNotifier(address)
    raise UnusableChannel("it names no channel")
