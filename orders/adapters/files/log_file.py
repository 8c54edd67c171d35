"""The file of an event log: known again when it is looked at, given up when a sync has failed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import ChangedInUse
from .disk import Disk, available, regular_status


class LogFile:
    """A file that is appended to, and read.

    Args:
        path: the file; made when it is first opened for appending, in a directory that exists.
        disk: does the file calls.

    Attributes:
        path: the file.
        descriptor: of the file as it is open for appending, if it is.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._name = str(path)
        self.descriptor: int | None = None
        self._disk = disk
        self._identity: tuple[int, int] | None = None  # device and inode, once seen

    def check(self) -> int:
        """Return the size in bytes, having seen that the file is the one that it was before.

        Raises:
            ForeignFile: something else stands in its place, or now does.
        """
        status = regular_status(self._name)
        self._identify(status)
        return status.st_size if status else 0

    def open(self) -> tuple[int, int]:
        """Open the file for appending, if it is not; return its descriptor and size.

        Raises:
            ForeignFile: something else stands in its place, or now does.
            StoreUnavailable: the system refuses.
        """
        size = self.check()
        if self.descriptor is not None:
            return self.descriptor, size
        try:
            with available(self.path):
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
                self.descriptor = self._disk.open(self.path, flags)
                if not size:  # its name may not be durable yet
                    directory = Path(os.path.realpath(self.path)).parent
                    with suppress(PermissionError):  # it is not ours, and was there before
                        self._disk.sync_directory(directory.parent)
                    self._disk.sync_directory(directory)
                    self._identify(os.fstat(self.descriptor))
        except BaseException:
            self.close()
            raise
        return self.descriptor, size

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Open the file for reading only; yield its descriptor."""
        with available(self.path):
            descriptor = self._disk.open(self.path, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def cut(self, size: int) -> bool:
        """Cut off what a failed append left, if it is open; return whether that could be done.

        It is closed then, for after a failure a descriptor tells nothing any more.
        """
        try:
            if self.descriptor is not None:
                self._disk.truncate(self.descriptor, size)
        except OSError:
            return False
        finally:
            self.close()
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _identify(self, status: os.stat_result | None) -> None:
        """Know the file again; another one in its place would be another store."""
        identity = None if status is None else (status.st_dev, status.st_ino)
        if identity != self._identity:
            if self._identity is not None:
                raise ChangedInUse(self.path, "removed or replaced")
            self._identity = identity
