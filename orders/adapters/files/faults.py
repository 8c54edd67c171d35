"""Fault points: where a test or a demo stops the process, or makes a system call fail.

    ORDERS_FAULT=after-fsync             kill -9 at the first fsync of the log, once it is done
    ORDERS_FAULT=before-fsync@3=EIO      let the third one fail instead
    ORDERS_FAULT=torn-append             write half a line, then kill -9

Nothing of this is loaded, or costs anything, unless the variable is set.
"""

import errno
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Self

from ...errors import OrdersError
from ...messaging.message import Event
from ...messaging.subscriptions import Subscriber
from .disk import Disk

POINTS = (
    "before-append",  # the log: nothing of the line is written
    "torn-append",  # half of it is
    "after-append",  # all of it is, unsynced
    "before-fsync",
    "after-fsync",
    "before-truncate",  # of what a failed or torn append left
    "after-truncate",
    "before-state-write",  # the state file's successor: nothing is written
    "torn-state-write",
    "after-state-write",
    "before-state-fsync",
    "after-state-fsync",
    "before-replace",
    "after-replace",
    "before-directory-fsync",
    "after-directory-fsync",
    "before-delivery",  # the subscriber has not run
    "mid-delivery",  # it has, which is not recorded yet
)


class Fault(NamedTuple):
    """What happens where: at the `nth` time that `point` is reached."""

    point: str
    nth: int
    error: str | None  # the name of an errno; None kills the process

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``POINT[@COUNT][=ERRNO]``.

        Raises:
            OrdersError: there is no such point or errno.
        """
        match = re.fullmatch(r"([a-z-]+)(?:@([1-9]\d*))?(?:=(E[A-Z0-9]+))?", text)
        if match is None or match[1] not in POINTS or (match[3] and not hasattr(errno, match[3])):
            raise OrdersError(
                f"ORDERS_FAULT is {text!r}; write POINT, POINT@COUNT or POINT@COUNT=ERRNO with"
                f" a point of {', '.join(POINTS)}",
                "orders explain fault-point",
            )
        return cls(match[1], int(match[2] or 1), match[3])


class FaultyDisk(Disk):
    """The disk, until the fault's point is reached."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._reached: Counter[str] = Counter()
        self._states: set[int] = set()  # descriptors of the state file's successors

    def reach(self, point: str) -> None:
        """Let happen what is to happen at this point, if it is the one."""
        if self._arrive_at(point):
            self._happen()

    def open(self, path: Path, flags: int) -> int:
        """Open a file; remember which descriptors are of a state file's successor."""
        descriptor = super().open(path, flags)
        (self._states.add if path.suffix == ".tmp" else self._states.discard)(descriptor)
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write, or half of it."""
        what = "state-write" if descriptor in self._states else "append"
        self.reach(f"before-{what}")
        if self._arrive_at(f"torn-{what}"):
            super().write(descriptor, data[: len(data) // 2])
            self._happen()
        written = super().write(descriptor, data)
        self.reach(f"after-{what}")
        return written

    def sync(self, descriptor: int) -> None:
        """Sync a file."""
        what = "state-fsync" if descriptor in self._states else "fsync"
        self.reach(f"before-{what}")
        super().sync(descriptor)
        self.reach(f"after-{what}")

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        self.reach("before-truncate")
        super().truncate(descriptor, size)
        self.reach("after-truncate")

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file."""
        self.reach("before-replace")
        super().replace(source, target)
        self.reach("after-replace")

    def sync_directory(self, directory: Path) -> None:
        """Sync a directory."""
        self.reach("before-directory-fsync")
        super().sync_directory(directory)
        self.reach("after-directory-fsync")

    def run(self, subscriber: Subscriber, event: Event) -> None:
        """Run a subscriber between the points of a delivery."""
        self.reach("before-delivery")
        subscriber.run(event)
        self.reach("mid-delivery")

    def _arrive_at(self, point: str) -> bool:
        """Count that this point is reached; return whether the fault is due now."""
        self._reached[point] += 1
        return (point, self._reached[point]) == self._fault[:2]

    def _happen(self) -> None:
        if self._fault.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, str(self._fault.error))
        raise OSError(number, os.strerror(number))
