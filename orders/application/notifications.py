"""The port to whoever is notified: the console, mail, a queue."""

from typing import Protocol

import msgspec

from ..domain.text import safe


class Notice(msgspec.Struct, frozen=True):
    """What the sales department reads of an order; its id tells a repeated notice."""

    order_id: str
    items: tuple[str, ...]
    title: str = "New Order"

    @property
    def item_list(self) -> str:
        """The items as Python writes a list, which escapes what cannot be shown."""
        return repr(list(self.items))

    @property
    def subject(self) -> str:
        """One line that tells this notice from others."""
        return f"{safe(self.title)}: order {safe(self.order_id)}"

    def __str__(self) -> str:
        rule = "============"
        title = f"{rule}\n{safe(self.title)}:\n{rule}\n"
        return f"{title}ID: {safe(self.order_id)}\nItems: {self.item_list}"


class Notifier(Protocol):
    """Delivers notices; whatever it raises makes the delivery one to be tried again."""

    def notify(self, notice: Notice) -> None:
        """Deliver one notice, wholly, before returning."""


class NullNotifier:
    """Notifies nobody."""

    def notify(self, notice: Notice) -> None:
        """Do nothing."""
