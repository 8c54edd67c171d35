"""What a demo that was killed has left, and who ends it: no process, no directory stays.

The directory of a demo has a file that is locked: its byte 0 by the demo, and byte N by each
process that is to be ended by signal N. The kernel opens a lock when its holder ends, however
that happens, and says who holds one. So nobody is taken for gone who is not, and nobody is ended
for having the number of a process that is gone.

python -P -S remains.py DIRECTORY    waits until the demo there is gone, then ends what it left
"""

import fcntl
import os
import signal
import stat
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir

PREFIX = "orders-demo-"  # of the names of directories, before an id
LOCK = "lock"
DEMO = 0  # the byte of it that is the demo's own
ENDINGS = (signal.SIGKILL, signal.SIGQUIT)  # clients first, then the servers that tidy up
PATIENCE = 10.0  # seconds that a process has to tidy up
LOOK = 0.01  # seconds between two looks whether it has
TRIES = 100  # to remove a directory: something that ends may be writing to it

# struct flock, see fcntl(2)
FIELDS, FORMAT = (
    (("start", "len", "pid", "type", "whence"), "qqihh")
    if sys.platform == "darwin"
    else (("type", "whence", "start", "len", "pid"), "hhqqi")
)


def mark(directory: Path) -> int:
    """Mark a directory as that of a demo, for as long as the descriptor returned is open.

    This process must not open the lock again: to close it once would open it.
    """
    new = directory / "new"  # it gets its name when it is locked
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, DEMO)
    new.rename(directory / LOCK)
    return descriptor


def belong(descriptor: int, ending: int) -> None:
    """Have this process belong to the demo, also when it has become another program.

    Args:
        descriptor: of the lock.
        ending: the signal that ends the process without remains, one of `ENDINGS`.
    """
    fcntl.lockf(descriptor, fcntl.LOCK_SH, 1, ending)


def clear_all() -> None:
    """End what demos have left that are gone."""
    id_of = "-".join("[0-9a-f]" * digits for digits in (8, 4, 4, 4, 12))
    for directory in Path(gettempdir()).glob(f"{PREFIX}{id_of}"):
        with suppress(OSError):  # it is at work, or no demo's, or somebody else clears it
            found = directory.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                clear(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clear(directory: Path, how: int = fcntl.LOCK_EX) -> None:
    """When the demo is gone, end its processes and remove its directory.

    Raises:
        OSError: there is no demo; or it is at work, and `how` is not to wait.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.lockf(descriptor, how, 1, DEMO)
        for ending in ENDINGS:
            while process := holder(descriptor, ending):
                _end(process, descriptor, ending)
        remove(directory)
    finally:
        os.close(descriptor)


def holder(descriptor: int, ending: int) -> int:
    """Return the id of a process that this signal is to end; 0 where there is none we can end."""
    wanted = {"type": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": ending, "len": 1, "pid": 0}
    question = struct.pack(FORMAT, *(wanted[field] for field in FIELDS))
    answer = struct.unpack(FORMAT, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    found = dict(zip(FIELDS, answer, strict=True))
    return 0 if found["type"] == fcntl.F_UNLCK else max(found["pid"], 0)


def remove(directory: Path) -> None:
    """Remove a directory, even if somebody who ends is still writing to it.

    The lock is the last to go: whoever dies meanwhile leaves what is a demo's still.
    """
    for _ in range(TRIES):
        with suppress(OSError):
            for path in directory.iterdir():
                if path.is_dir() and not path.is_symlink():
                    rmtree(path, ignore_errors=True)
                elif path.name != LOCK:
                    path.unlink()
            if [path.name for path in directory.iterdir()] in ([], [LOCK]):
                rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return


def _end(process: int, descriptor: int, ending: int) -> None:
    """End it as it wants to be ended; if that is in vain, kill it."""
    os.kill(process, ending)
    deadline = time.monotonic() + PATIENCE
    while holder(descriptor, ending) == process:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(LOOK)


if __name__ == "__main__":
    with suppress(OSError):
        clear(Path(sys.argv[1]))
