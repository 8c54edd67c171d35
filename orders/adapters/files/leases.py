"""How processes know each other to be alive: each keeps a lock file of its own locked.

The kernel unlocks the file when its owner dies, however that happens, so no process id can be
taken for another's: the one in a lease's name is there to be read. The rest of the name is
random and never used again, which makes it safe to remove the file.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ...errors import StoreUnavailable
from ...messaging.message import new_id
from .disk import PRIVATE, Disk, available, reason


class Leases:
    """The leases of a store: one of this application's own, and those of others.

    Args:
        directory: where the lock files are; made when first needed.
        disk: does the file calls.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._lock = Lock()
        self._mine: tuple[str, int] | None = None  # name and descriptor

    def mine(self) -> str:
        """Return this application's lease, held from the first call until `close()`.

        Raises:
            StoreUnavailable: the system refuses.
        """
        with self._lock:
            while self._mine is None:
                self._disk.make_directory(self._directory)
                self.sweep()
                self._mine = self._take()
            return self._mine[0]

    def is_alive(self, name: str | None) -> bool:
        """Return whether the owner of a lease lives; nobody does not.

        Raises:
            StoreUnavailable: the system does not let us look.
        """
        return name is not None and _is_locked(self._directory / Path(name).name)

    def dead(self) -> list[Path]:
        """Return the lock files of owners that died.

        Raises:
            StoreUnavailable: the system does not let us look.
        """
        with available(self._directory):
            paths = sorted(self._directory.iterdir()) if self._directory.exists() else []
        return [path for path in paths if not _is_locked(path)]

    def sweep(self) -> None:
        """Remove the lock files of owners that died."""
        for path in self.dead():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or it may be about to be taken
                self._disk.unlink(path)

    def close(self) -> None:
        """Give up this application's lease; the next call of `mine` takes another one."""
        with self._lock:
            if self._mine is not None:
                name, descriptor = self._mine
                with suppress(OSError):
                    self._disk.unlink(self._directory / name)
                os.close(descriptor)
                self._mine = None

    def abandon(self) -> None:
        """Close this process's copy of a lease that its parent keeps."""
        if self._mine is not None:
            os.close(self._mine[1])

    def _take(self) -> tuple[str, int] | None:
        path = self._directory / f"{os.getpid()}.{new_id()}"
        with available(self._directory):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists():
            return path.name, descriptor
        os.close(descriptor)  # somebody swept it away before it was locked
        return None


def process_of(name: str | None) -> int | None:
    """Return the id of the process that took a lease, if its name tells."""
    process, dot, _ = (name or "").partition(".")
    return int(process) if dot and process.isdecimal() else None


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two who look do not see each other
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return False  # it is gone, or never was a name
    except OSError as error:
        raise StoreUnavailable(path, reason(error)) from error
    return False
