"""Every write to a file of the store, and the lock between processes, in one small room.

The log and the state reach the disk through a `Disk` only, so a test can put a failing or
a forgetful one in its place. What is here follows the rules of durable files on POSIX: data
is safe after fsync; a new or replaced name is safe after fsync of its directory; after a
failed fsync the handle tells nothing any more and is given up.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import RLock

from .errors import ForeignFile, NotWritten, StoreBusy, StoreUnavailable
from .message import now

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

    def write_file(self, path: Path, data: bytes) -> None:
        """Write a file for somebody else: whole if it is one, as it comes if it is a pipe.

        Raises:
            NotWritten: the system refuses.
        """
        if not path.exists() or path.is_file():
            self.replace_atomically(path, data)
            return
        try:
            path.write_bytes(data)
        except OSError as error:
            raise NotWritten(path, reason(error)) from error

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


class FileLock:
    """A lock between processes and threads, on a file that is never deleted.

    It is flock(2): the kernel frees it when its holder dies, however that happens. The file
    says who holds it, for the error of whoever waits in vain.

    Args:
        path: the lock file; it is created when the lock is first held.
        timeout: seconds to wait for another holder.

    Attributes:
        threads: the lock between the threads of this process, which may be entered again.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self.threads = RLock()
        self._depth = 0
        self._descriptor: int | None = None
        self._file: os.stat_result  # what the descriptor stands for

    @contextmanager
    def held(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock, alone or with other readers; a thread that holds it may enter again.

        Raises:
            StoreBusy: somebody else kept it for longer than the timeout.
        """
        deadline = time.monotonic() + self.timeout
        if not self.threads.acquire(timeout=self.timeout):
            raise StoreBusy(self.path, self.timeout, "another thread of this process")
        try:
            if self._depth == 0:
                self._lock(deadline, shared=shared)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0 and self._descriptor is not None:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self.threads.release()

    @property
    def is_held(self) -> bool:
        """Whether somebody in this process holds the lock."""
        return self._depth > 0

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> str:
        """Say who holds the lock: process and time, which only writers leave in the file."""
        with suppress(BlockingIOError), self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return "a process that reads"
        try:
            return self.path.read_text("utf-8", "replace").strip() or "another process"
        except OSError:
            return "another process"

    def _lock(self, deadline: float, *, shared: bool) -> None:
        pause = 0.0005
        while True:
            if self._descriptor is None:
                self._descriptor = self._open(shared=shared)
                if self._descriptor is None:
                    return  # a reader of a store that nobody can write: nothing to wait for
                self._file = os.fstat(self._descriptor)
            try:
                kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreBusy(self.path, self.timeout, self._holder()) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.02)
                continue
            if self._is_in_place():
                break
            self.close()  # somebody has deleted the file: others lock its successor
        if not shared:
            self._say_who_holds(self._descriptor)

    def _say_who_holds(self, descriptor: int) -> None:
        holder = _holder(os.getpid(), int(time.time()))
        with suppress(OSError):  # a full disk must not keep the lock locked
            if os.pread(descriptor, len(holder), 0) != holder:  # reading is cheaper than writing
                os.pwrite(descriptor, holder, 0)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._file, self.path.stat())
        except FileNotFoundError:
            return False

    def _open(self, *, shared: bool) -> int | None:
        regular_status(self.path)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        except OSError as error:
            if not shared:
                raise StoreUnavailable(self.path, reason(error)) from error
        with suppress(OSError):
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return None


@lru_cache(maxsize=1)
def _holder(process: int, second: int) -> bytes:
    since = datetime.fromtimestamp(second, UTC)
    return f"process {process} since {since:%FT%TZ}".ljust(63).encode() + b"\n"


def regular_status(path: Path) -> os.stat_result | None:
    """Return what the system knows of the file, or None where there is none.

    Raises:
        ForeignFile: it is a directory, a FIFO or another thing that is not a plain file.
        StoreUnavailable: the system does not let us look.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(path, reason(error)) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise ForeignFile(path, f"is {kind}")
    return status


def aside(path: Path) -> Path:
    """Return a name beside `path` under which a copy of it can be kept."""
    return path.with_name(f"{path.name}.{now():%Y%m%dT%H%M%S.%f}")


def reason(error: OSError) -> str:
    """Return the system's words for `error`, without paths."""
    return (error.strerror or str(error)).lower()
