"""Notices in a file, which others may follow."""

import fcntl
import os
from errno import ENOSPC
from io import FileIO
from pathlib import Path

from ...application.notifications import Notice
from ...errors import NoticeRefused, UnusableChannel


class FileNotifier:
    """Appends notices to a file, each whole or not at all.

    Raises:
        UnusableChannel: there can be no such file, or it must not be written.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()
        is_there = self._path.exists()
        if not (self._path.is_file() if is_there else self._path.parent.is_dir()):
            raise UnusableChannel(f"{self._path} is no file, or its directory is missing")
        if not os.access(self._path if is_there else self._path.parent, os.W_OK):
            raise UnusableChannel(f"{self._path} must not be written")

    def notify(self, notice: Notice) -> None:
        """Append the notice, in one write, and sync it.

        Raises:
            NoticeRefused: it could not be written; the file is as it was.
        """
        data = f"{notice}\n".encode("utf-8", "backslashreplace")
        try:
            with self._path.open("ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # or what is cut off below might be another's
                end = file.seek(0, os.SEEK_END)
                try:
                    _write(file, data)
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise NoticeRefused(str(self._path), error.strerror or str(error)) from error


def _write(file: FileIO, data: bytes) -> None:
    if file.write(data) < len(data):
        raise OSError(ENOSPC, os.strerror(ENOSPC))
    os.fsync(file.fileno())
