"""Notices to chats, phones and web hooks, by the apprise library."""

from ...application.notifications import Notice
from ...errors import NoticeRefused, UnusableChannel


class PushNotifier:
    """Sends notices wherever apprise can, which waits 4 seconds at most for an answer.

    Raises:
        UnusableChannel: apprise is not installed, or does not know such an address.
    """

    def __init__(self, address: str) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra; 150 ms
        except ImportError:
            raise UnusableChannel(
                'addresses like this one need another library: pip install "orders[notify]"'
            ) from None
        self._scheme = address.partition(":")[0]
        self._capture = apprise.LogCapture  # else its log is printed
        with self._capture():  # it may log the address
            channel = apprise.Apprise.instantiate(address)
        if channel is None:
            raise UnusableChannel(f"the apprise library knows no such {self._scheme} address")
        self._channel = channel

    def notify(self, notice: Notice) -> None:
        """Send the notice.

        Raises:
            NoticeRefused: it was not taken.
        """
        with self._capture(fmt="%(message)s") as log:
            is_sent = self._channel.notify(
                body=str(notice), title=notice.subject, body_format="text"
            )
        if not is_sent:
            raise NoticeRefused(self._scheme, log.getvalue().strip() or "it does not say why")
