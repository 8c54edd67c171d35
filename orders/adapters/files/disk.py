"""Every write to a file of the store.

The log and the state reach the disk through a `Disk` only, so a test can put a failing or
a forgetful one in its place. What is here follows the rules of durable files on POSIX: data
is safe after fsync; a new or replaced name is safe after fsync of its directory; after a
failed fsync the handle tells nothing any more and is given up.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import ForeignFile, NotWritten, StoreUnavailable
from ...messaging.message import now

PRIVATE = 0o600  # orders are nobody else's business


class Disk:
    """The operating system's file calls, unadorned."""

    def open(self, path: Path, flags: int) -> int:
        """Open a regular file, creating it for its owner only; return the descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, PRIVATE)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write some of `data`; return how many bytes."""
        return os.write(descriptor, data)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        return os.pread(descriptor, size, offset)

    def sync(self, descriptor: int) -> None:
        """Wait until the file's bytes and length are on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(descriptor, size)

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, in one step."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def sync_directory(self, directory: Path) -> None:
        """Wait until the names in `directory` are on the disk."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_all(self, descriptor: int, data: bytes) -> None:
        """Write all of `data`, in as many calls as it takes."""
        view = memoryview(data)
        while view:
            view = view[self.write(descriptor, view) :]

    def make_directory(self, directory: Path) -> None:
        """Create `directory` and its parents; its own name is synced with the first file in it.

        Raises:
            StoreUnavailable: the system refuses.
        """
        missing = []
        try:
            while not directory.exists():
                missing.append(directory)
                directory = directory.parent
            if not directory.is_dir():
                raise NotADirectoryError("it is a file, not a directory")
            while missing:
                directory = missing.pop()
                directory.mkdir(mode=0o700, exist_ok=True)
                if missing:
                    self.sync_directory(directory.parent)
        except OSError as error:
            raise StoreUnavailable(directory, reason(error)) from error

    def replace_atomically(self, path: Path, data: bytes) -> None:
        """Make `data` the content of `path` so that a reader sees the old or the new, whole.

        A symbolic link stays one; the file keeps its mode.

        Raises:
            NotWritten: the system refuses; the file is as it was.
        """
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else PRIVATE
            descriptor = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                os.fchmod(descriptor, mode)
                self.write_all(descriptor, data)
                self.sync(descriptor)
            finally:
                os.close(descriptor)
            self.replace(temporary, target)
            self.sync_directory(target.parent)
        except BaseException as error:
            with suppress(OSError):
                self.unlink(temporary)
            if isinstance(error, OSError):
                raise NotWritten(path, reason(error)) from error
            raise


@contextmanager
def available(path: Path) -> Iterator[None]:
    """Turn what the system refuses inside the block into an error that names the path.

    Raises:
        StoreUnavailable: the system refuses.
    """
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(path, reason(error)) from error


def regular_status(path: Path | str) -> os.stat_result | None:
    """Return what the system knows of the file, or None where there is none.

    Raises:
        ForeignFile: it is a directory, a FIFO or another thing that is not a plain file.
        StoreUnavailable: the system does not let us look.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - each commit asks; for a Path takes twice as long
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(Path(path), reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise ForeignFile(Path(path), f"is {kind}")
    return status


def copy_path(path: Path) -> Path:
    """Return a name beside `path` under which a copy of it, or of a part, can be kept."""
    return path.with_name(f"{path.name}.{now():%Y%m%dT%H%M%S.%f}")


def reason(error: OSError) -> str:
    """Return the system's words for `error`, without paths."""
    return (error.strerror or str(error)).lower()
