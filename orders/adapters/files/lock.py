"""The lock between processes and threads; nobody waits for it much longer than the others.

It is flock(2): the kernel frees it when its holder dies, however that happens. A lock that is
not free is looked at again and again, at first without a pause: it is held for a fraction of a
millisecond, and to be woken costs more. But that favours whoever looks at the right moment: who
had no luck for a while waits in the kernel's own queue.

Who holds the lock is what Linux lists in `/proc/locks`; elsewhere each holder writes it down.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock, RLock, Thread

from ...errors import StoreBusy, StoreUnavailable
from .disk import PRIVATE, reason, regular_status

SPIN = 0.0002  # seconds of looking at a lock that is not free, without a pause
FIRST_PAUSE = 0.00025  # seconds; each pause is twice the one before,
LONGEST_PAUSE = 0.001  # up to this
QUEUE_AFTER = 0.01  # seconds of looking

LOCKS = Path("/proc/locks")


class FileLock:
    """A lock on a file that is never deleted, which says who holds the lock.

    Args:
        path: the lock file; it is created when the lock is first held.
        timeout: seconds to wait for another holder.

    Attributes:
        threads: the lock between the threads of this process, which may be entered again.
        is_held: whether somebody in this process holds the lock.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        self._name = str(path)
        self.timeout = timeout
        self.threads = RLock()
        self.is_held = False
        self._descriptor: int | None = None
        self._file = (0, 0)  # its device and inode
        self._is_listed = LOCKS.exists()
        self._waiters: set[_Waiter] = set()

    @contextmanager
    def held(self, *, reading: bool = False) -> Iterator[None]:
        """Hold the lock; a thread that holds it may enter again.

        Args:
            reading: whether to go on without it where nobody can write, us included.

        Raises:
            StoreBusy: somebody else kept it for longer than the timeout.
            StoreUnavailable: the system refuses.
        """
        deadline = time.monotonic() + self.timeout
        if not self.threads.acquire(timeout=self.timeout):
            raise StoreBusy(self.path, self.timeout, "another thread of this process")
        try:
            if self.is_held:
                yield
                return
            self._lock(deadline, reading=reading)
            self.is_held = True
            try:
                yield
            finally:
                self.is_held = False
                if self._descriptor is not None:
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        finally:
            self.threads.release()

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def abandon(self) -> None:
        """Close this process's copies of what its parent has open, which keeps its lock."""
        self.close()
        for waiter in self._waiters:
            if waiter.is_open:
                os.close(waiter.descriptor)

    def _lock(self, deadline: float, *, reading: bool) -> None:
        try:
            while True:
                if self._descriptor is None:
                    self._use(self._open(reading=reading))
                    if self._descriptor is None:
                        return
                if not (self._try_lock(self._descriptor) or self._look_again(deadline)):
                    self._wait(deadline)
                if self._is_in_place():
                    break
                self.close()  # somebody has deleted the file: others lock its successor
            if not (reading or self._is_listed):  # who reads holds it briefly, and changes nothing
                _say_who_holds(self._descriptor)
        except BaseException:
            self.close()  # which unlocks it, if Ctrl-C came in between
            raise

    def _try_lock(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(self.path, reason(error)) from error
        return True

    def _look_again(self, deadline: float) -> bool:
        """Return whether the lock was free at one of the next looks."""
        begun, pause = time.monotonic(), FIRST_PAUSE
        while self._descriptor is not None and (now := time.monotonic()) < deadline:
            if now > begun + QUEUE_AFTER:
                break
            if now > begun + SPIN:
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            if self._try_lock(self._descriptor):
                return True
        return False

    def _wait(self, deadline: float) -> None:
        """Wait in the kernel's queue, in a thread: a blocking call cannot be given a timeout."""
        if time.monotonic() >= deadline:
            raise StoreBusy(self.path, self.timeout, self._holder())
        descriptor = self._open(reading=False)
        if descriptor is None:
            raise RuntimeError("a file that is locked can be opened")
        waiter = _Waiter(descriptor)
        self._waiters = {other for other in self._waiters if other.is_alive()} | {waiter}
        try:
            waiter.start()
            waiter.ended.acquire(timeout=max(0.0, deadline - time.monotonic()))
        except BaseException:
            if waiter.finish():
                os.close(descriptor)
            raise
        has_lock = waiter.finish()
        if waiter.error is not None:
            raise StoreUnavailable(self.path, reason(waiter.error)) from waiter.error
        if not has_lock:
            raise StoreBusy(self.path, self.timeout, self._holder())
        self._waiters.discard(waiter)
        self.close()
        self._use(descriptor)

    def _holder(self) -> str:
        found = ""
        with suppress(OSError, ValueError):  # as a system may not list it, or a file not have it
            found = _listed(self.path) if self._is_listed else self.path.read_text("utf-8").strip()
        return found or "another process"

    def _use(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            status = os.fstat(descriptor)
            self._file = (status.st_dev, status.st_ino)

    def _is_in_place(self) -> bool:
        status = regular_status(self._name)
        return status is not None and (status.st_dev, status.st_ino) == self._file

    def _open(self, *, reading: bool) -> int | None:
        regular_status(self.path)
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        except OSError as error:
            if reading and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
                return None
            raise StoreUnavailable(self.path, reason(error)) from error


class _Waiter(Thread):
    """Takes the lock for whoever waits, or gives it back if nobody does any more."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self.descriptor = descriptor
        self.is_open = True
        self.error: OSError | None = None
        self.ended = Lock()  # quicker than join(), which waits for the thread to be gone
        self.ended.acquire()
        self._is_locked = False
        self._is_finished = False
        self._decision = Lock()

    def run(self) -> None:
        """Wait for the lock as long as it takes."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        except OSError as error:
            self.error = error
        with self._decision:
            self._is_locked = self.error is None
            if self._is_finished or self.error is not None:
                self.is_open = False
                os.close(self.descriptor)  # which unlocks it
        self.ended.release()

    def finish(self) -> bool:
        """Stop waiting; return whether the lock was taken."""
        with self._decision:
            self._is_finished = True
            return self._is_locked


def _listed(path: Path) -> str:
    """Return who holds the lock on a file, as Linux lists it: ``process 26147``."""
    status = path.stat()
    holders: dict[str, str] = {}  # process by file
    for line in LOCKS.read_text().splitlines():
        _, kind, *_, process, file, _, _ = line.split()
        if kind == "FLOCK" and int(process) > 0:  # in our container
            holders[file] = process
    device, inode = status.st_dev, f":{status.st_ino}"
    exact = holders.get(f"{os.major(device):02x}:{os.minor(device):02x}{inode}")
    similar = [held for file, held in holders.items() if file.endswith(inode)]
    # Some file systems are listed as another device than stat(2) says.
    process = exact or (similar[0] if len(similar) == 1 else "")
    return f"process {process}" if process else ""


def _say_who_holds(descriptor: int) -> None:
    holder = _holder(os.getpid(), int(time.time()))
    with suppress(OSError):  # a full disk must not keep the lock locked
        if os.pread(descriptor, len(holder), 0) != holder:  # reading is cheaper than writing
            os.pwrite(descriptor, holder, 0)


@lru_cache(maxsize=1)
def _holder(process: int, second: int) -> bytes:
    since = datetime.fromtimestamp(second, UTC)
    return f"process {process} since {since:%FT%TZ}".ljust(63).encode() + b"\n"
