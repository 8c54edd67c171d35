"""The lock: one at a time, queued by the kernel, freed by any death, and its holder named."""

import fcntl
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from orders.adapters.files import lock as locks_of_files
from orders.adapters.files.lock import FileLock
from orders.errors import StoreBusy, StoreError, StoreUnavailable

HOLDER = """
import sys
from pathlib import Path
from orders.adapters.files.lock import FileLock

with FileLock(Path(sys.argv[1]), 10).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@contextmanager
def held_elsewhere(path):
    """Another process that holds the lock; yields it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.stdin.close()


def is_free(path):
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def let_wait(path, threads):
    """Return once all these threads wait for the lock, as the kernel says."""
    inode = f":{path.stat().st_ino} "
    while sum(inode in line and "->" in line for line in locks()) < len(threads):
        assert all(thread.is_alive() for thread in threads), "one did not have to wait"


def locks():
    return Path("/proc/locks").read_text().splitlines()


def test_a_lock_excludes_everybody_else_and_is_free_afterwards(path):
    lock = FileLock(path, 0)
    assert not lock.is_held
    with lock.held():
        assert lock.is_held
        assert not is_free(path)
    assert not lock.is_held
    assert is_free(path)


def test_a_reader_excludes_everybody_else_too(path):
    with FileLock(path, 0).held(reading=True):
        assert not is_free(path)
        with pytest.raises(StoreBusy), FileLock(path, 0).held(reading=True):
            pass


def test_who_holds_a_lock_may_enter_again_and_keeps_it_until_the_last_exit(path):
    lock = FileLock(path, 0)
    with lock.held():
        with lock.held(), lock.held(reading=True):
            pass
        assert not is_free(path)
    assert is_free(path)


def test_a_lock_is_freed_when_its_block_raises(path):
    lock = FileLock(path, 0)
    with pytest.raises(ZeroDivisionError), lock.held():
        _ = 1 / 0
    assert is_free(path)
    with lock.held():
        assert not is_free(path)


def test_a_closed_lock_can_be_held_again(path):
    lock = FileLock(path, 0)
    with lock.held():
        pass
    lock.close()
    lock.close()
    with lock.held():
        assert not is_free(path)


def test_the_lock_file_is_never_deleted_nor_exchanged(path):
    lock = FileLock(path, 0)
    with lock.held():
        first = path.stat().st_ino
    lock.close()
    with FileLock(path, 0).held():
        assert path.stat().st_ino == first
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_holder_in_another_process_excludes_all_and_is_named(path):
    with held_elsewhere(path) as other:
        assert not is_free(path)
        with pytest.raises(StoreBusy) as caught, FileLock(path, 0.05).held():
            pass
    assert str(caught.value).endswith(f"busy for 0.05 s: {path} is held by process {other.pid}")
    assert "ORDERS_LOCK_TIMEOUT" in caught.value.hint


def test_a_file_of_another_disk_with_the_same_number_is_not_taken_for_the_lock(
    path, tmp_path, monkeypatch
):
    with held_elsewhere(path) as other:
        (held,) = (line for line in locks() if f":{path.stat().st_ino} " in line)
        device = held.split()[5].rpartition(":")[0]
        foreign = held.replace(device, "ff:ff").replace(str(other.pid), "4711")
        listed = tmp_path / "locks"
        monkeypatch.setattr(locks_of_files, "LOCKS", listed)
        for lines, holder in (
            ((foreign, held, foreign), f"process {other.pid}"),
            ((foreign,), "process 4711"),  # some file systems are listed as another device
            ((foreign, foreign.replace("ff:ff", "ff:fe")), "another process"),
        ):
            listed.write_text("\n".join(lines))
            with pytest.raises(StoreBusy, match=f"is held by {holder}"):
                FileLock(path, 0).held().__enter__()


@pytest.fixture
def unlisted(monkeypatch, tmp_path):
    """A system that does not list who holds which lock."""
    monkeypatch.setattr(locks_of_files, "LOCKS", tmp_path / "none")


def test_where_the_system_lists_no_locks_the_holder_is_named_too(path, unlisted):
    with FileLock(path, 0).held(), pytest.raises(StoreBusy) as caught, FileLock(path, 0.05).held():
        pass
    assert f"{path} is held by process {os.getpid()} since 2" in str(caught.value)


def test_a_killed_holder_frees_the_lock(path):
    with held_elsewhere(path) as other:
        other.kill()
        other.wait()
        assert is_free(path)


def test_a_waiter_gets_the_lock_when_its_holder_lets_go(path):
    with held_elsewhere(path) as other:
        waiter = Thread(target=lambda: enter(FileLock(path, 60)))
        waiter.start()
        let_wait(path, [waiter])
        other.stdin.close()
        waiter.join()
    assert is_free(path)


def enter(lock, note=lambda: None):
    with lock.held():
        note()


def test_who_waits_for_long_stands_in_the_queue_of_the_kernel_and_gets_the_lock(path):
    seen, threads = set(), []
    with FileLock(path, 0).held():
        for number in range(5):
            note = lambda number=number: seen.add(number)
            threads.append(Thread(target=enter, args=(FileLock(path, 60), note)))
            threads[-1].start()
        let_wait(path, threads)  # who only looked again and again would give up after a minute
    for thread in threads:
        thread.join()
    assert seen == {0, 1, 2, 3, 4}  # in which order is the kernel's affair: a signal costs a place


def test_who_has_given_up_waiting_does_not_keep_the_lock_when_it_comes(path):
    lock = FileLock(path, 0.05)
    with FileLock(path, 0).held():
        for _ in range(3):
            with pytest.raises(StoreBusy), lock.held():
                pass
    with FileLock(path, 60).held(), pytest.raises(StoreBusy), lock.held():
        pass
    lock.timeout = 60
    with lock.held():
        assert not is_free(path)


def test_a_thread_waits_for_another_of_its_process(path):
    lock = FileLock(path, 0.05)
    with ThreadPoolExecutor() as pool:
        with lock.held(), pytest.raises(StoreBusy, match="held by another thread of this process"):
            pool.submit(enter, lock).result()
        pool.submit(enter, lock).result()


@pytest.mark.parametrize("reading", [False, True])
def test_a_lock_where_no_directory_is_is_refused_and_makes_nothing(tmp_path, reading):
    lock = FileLock(tmp_path / "nowhere" / "lock", 0)
    with pytest.raises(StoreUnavailable, match="no such file"), lock.held(reading=reading):
        pass
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_may_write_a_reader_goes_on_without_the_lock():
    path = Path("/proc/sys/kernel/ostype")  # which even root may only read
    with FileLock(path, 0).held(reading=True), FileLock(path, 0).held(reading=True):
        pass
    with pytest.raises(StoreUnavailable, match=f"cannot use {path}"), FileLock(path, 0).held():
        pass


@pytest.mark.parametrize("reading", [False, True])
def test_a_directory_in_place_of_the_lock_is_refused(path, reading):
    path.mkdir()
    lock = FileLock(path, 0)
    with pytest.raises(StoreError, match=r"lock is a directory"), lock.held(reading=reading):
        pass


def test_a_disk_too_full_for_the_holders_name_raises_no_bare_error_and_leaves_no_lock(
    path, unlisted
):
    lock, limits = FileLock(path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # every write is refused
    try:
        with suppress(StoreError), lock.held():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b""
    assert is_free(path)


def test_a_lock_file_that_was_deleted_does_not_let_two_in(path):
    first, second = FileLock(path, 0.1), FileLock(path, 0.1)
    with first.held():
        pass
    path.unlink()
    with second.held(), pytest.raises(StoreBusy), first.held():
        pass
