"""Files replaced atomically, locks between processes, and what the system refuses."""

import errno
import os
import resource
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from orders import bootstrap
from orders.adapters.files.disk import Disk, FileLock, reason, regular_status
from orders.errors import ForeignFile, NotWritten, StoreBusy, StoreError, StoreUnavailable

STEPS = ["open", "write", "sync", "replace", "sync_directory"]

HOLDER = """
import sys
from pathlib import Path
from orders.adapters.files.disk import FileLock

with FileLock(Path(sys.argv[1]), 10).held(shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


class FailingDisk(Disk):
    """Raises the error at the call of that name."""

    def __init__(self, call, error):
        def fail(*arguments):
            raise error

        setattr(self, call, fail)


class HalvingDisk(Disk):
    """Writes half of what it is given, then nothing more: the disk is full."""

    def __init__(self):
        self.writes = 0

    def write(self, descriptor, data):
        self.writes += 1
        if self.writes > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data[: len(data) // 2])


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def is_free(path, *, shared=False):
    lock = FileLock(path, 0)
    try:
        with lock.held(shared=shared):
            return True
    except StoreBusy:
        return False
    finally:
        lock.close()


@contextmanager
def held_elsewhere(path, kind):
    """Another process that holds the lock; yields it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.stdin.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


# replace_atomically


def test_a_new_file_is_written_for_its_owner_only(tmp_path):
    Disk().replace_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert mode(tmp_path / "file") == 0o600
    assert names(tmp_path) == ["file"]


def test_a_replaced_file_keeps_its_mode(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o640)
    Disk().replace_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert mode(file) == 0o640


def test_a_reader_that_has_the_old_file_open_keeps_reading_it(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with file.open("rb") as reader:
        Disk().replace_atomically(file, b"new")
        assert reader.read() == b"old"


def test_a_replaced_symbolic_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real"
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(Path("elsewhere") / "real")
    Disk().replace_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert names(tmp_path / "elsewhere") == ["real"]


def test_a_symbolic_link_to_nothing_gets_its_target_written(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("real")
    Disk().replace_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_the_new_bytes_are_synced_before_they_get_the_name_and_the_name_after(tmp_path):
    calls = []

    class Recording(Disk):
        def sync(self, descriptor):
            calls.append("sync")
            super().sync(descriptor)

        def sync_directory(self, directory):
            calls.append("sync directory")
            super().sync_directory(directory)

        def replace(self, source, target):
            calls.append("replace")
            super().replace(source, target)

    Recording().replace_atomically(tmp_path / "file", b"new")
    assert calls[:3] == ["sync", "replace", "sync directory"]


@pytest.mark.parametrize("call", STEPS)
def test_a_refused_step_leaves_a_whole_file_and_nothing_beside_it(tmp_path, call):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    with pytest.raises(NotWritten, match=r"file: input/output error; the file is as it was"):
        FailingDisk(call, error).replace_atomically(file, b"new")
    has_its_name = call == "sync_directory"  # only that it lasts is not known
    assert file.read_bytes() == (b"new" if has_its_name else b"old")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", STEPS)
def test_an_interrupted_step_leaves_nothing_beside_the_file(tmp_path, call):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        FailingDisk(call, KeyboardInterrupt()).replace_atomically(file, b"new")
    assert names(tmp_path) == ["file"]


def test_a_disk_that_fills_up_half_way_leaves_the_old_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(NotWritten, match="no space left on device"):
        HalvingDisk().replace_atomically(file, b"new and longer")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_what_a_write_leaves_over_is_written_too(tmp_path):
    class ByteByByte(Disk):
        def write(self, descriptor, data):
            return super().write(descriptor, data[:1])

    ByteByByte().replace_atomically(tmp_path / "file", b"all of it")
    assert (tmp_path / "file").read_bytes() == b"all of it"


# make_directory


def test_a_directory_is_made_with_its_parents_for_its_owner_only(tmp_path):
    Disk().make_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_making_a_directory_that_exists_changes_nothing(tmp_path):
    (tmp_path / "a").mkdir(mode=0o755)
    (tmp_path / "a").chmod(0o755)
    Disk().make_directory(tmp_path / "a")
    assert mode(tmp_path / "a") == 0o755


def test_each_new_directory_is_made_durable_in_its_parent_the_last_one_with_its_log(tmp_path):
    synced = []

    class Recording(Disk):
        def sync_directory(self, directory):
            synced.append(directory)
            super().sync_directory(directory)

    Recording().make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path]
    with bootstrap(tmp_path / "a" / "b", disk=Recording()) as app, app.log.writing():
        assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


@pytest.mark.parametrize("wanted", ["file", "file/store"])
def test_a_file_where_a_directory_should_be_is_refused(tmp_path, wanted):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreUnavailable, match=r"file: it is a file, not a directory; choose"):
        Disk().make_directory(tmp_path / wanted)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("wanted", ["/proc/orders", "/proc/orders/store"])
def test_a_place_where_nothing_can_be_made_is_refused(wanted):
    with pytest.raises(StoreUnavailable, match=r"cannot use /proc/orders: .*--data"):
        Disk().make_directory(Path(wanted))


# regular_status


def test_a_file_and_a_link_to_one_are_regular(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    assert regular_status(tmp_path / "file")
    assert regular_status(tmp_path / "link")


def test_what_is_not_there_is_no_error(tmp_path):
    (tmp_path / "dangling").symlink_to("nothing")
    assert not regular_status(tmp_path / "nothing")
    assert not regular_status(tmp_path / "nowhere" / "nothing")
    assert not regular_status(tmp_path / "dangling")


def test_a_directory_a_fifo_and_a_device_are_foreign(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ForeignFile, match="is a directory; it was left untouched"):
        regular_status(tmp_path)
    for path in (tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ForeignFile, match=f"{path} is no regular file"):
            regular_status(path)


def test_what_cannot_be_looked_at_is_unavailable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "file" / "below", tmp_path / "loop"):
        with pytest.raises(StoreUnavailable, match=f"cannot use {path}: "):
            regular_status(path)


def test_the_reason_is_the_systems_words_without_paths():
    assert reason(FileNotFoundError(errno.ENOENT, "No such file or directory", "/x")) == (
        "no such file or directory"
    )
    assert reason(OSError("Just words")) == "just words"


# FileLock


def test_a_lock_excludes_everybody_else_and_is_free_afterwards(path):
    with FileLock(path, 0).held():
        assert not is_free(path)
        assert not is_free(path, shared=True)
    assert is_free(path)


def test_who_holds_a_lock_may_enter_again_and_keeps_it_until_the_last_exit(path):
    lock = FileLock(path, 0)
    with lock.held():
        with lock.held(), lock.held(shared=True):
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
    assert path.exists()
    assert mode(path) == 0o600


def test_readers_share_a_lock_but_not_with_a_writer(path):
    with FileLock(path, 0).held(shared=True):
        assert is_free(path, shared=True)
        assert not is_free(path)
    assert is_free(path)


def test_a_reader_in_another_process_excludes_writers_only(path):
    with held_elsewhere(path, "shared"):
        assert is_free(path, shared=True)
        assert not is_free(path)


def test_a_writer_in_another_process_excludes_all_and_is_named(path):
    with held_elsewhere(path, "alone") as other:
        assert not is_free(path, shared=True)
        with pytest.raises(StoreBusy) as caught, FileLock(path, 0.05).held():
            pass
    assert f"busy for 0.05 s: {path} is held by process {other.pid} since 2" in str(caught.value)
    assert "ORDERS_LOCK_TIMEOUT" in str(caught.value)


def test_a_killed_holder_frees_the_lock(path):
    with held_elsewhere(path, "alone") as other:
        other.kill()
        other.wait()
        assert is_free(path)


def test_a_waiter_gets_the_lock_as_soon_as_its_holder_lets_go(path):
    with held_elsewhere(path, "alone") as other:
        other.stdin.close()
        with FileLock(path, 60).held():
            pass


def test_a_thread_waits_for_another_of_its_process(path):
    lock = FileLock(path, 0.05)

    def enter():
        with lock.held(shared=True):
            pass

    with ThreadPoolExecutor() as pool:
        with lock.held(), pytest.raises(StoreBusy, match="held by another thread of this process"):
            pool.submit(enter).result()
        pool.submit(enter).result()


def test_the_first_lock_of_a_store_that_is_not_there_is_refused_to_writers_only(tmp_path):
    lock = FileLock(tmp_path / "nowhere" / "lock", 0)
    with lock.held(shared=True):
        assert names(tmp_path) == []
    with pytest.raises(StoreUnavailable, match="no such file or directory"), lock.held():
        pass


def test_a_directory_in_place_of_the_lock_is_refused_to_a_writer(path):
    path.mkdir()
    with pytest.raises(StoreError, match=r"lock is a directory"), FileLock(path, 0).held():
        pass


def test_a_disk_too_full_for_the_holders_name_raises_no_bare_error_and_leaves_no_lock(path):
    lock, limits = FileLock(path, 0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # every write is refused
    try:
        with suppress(StoreError), lock.held():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b""
    assert is_free(path)


def test_a_lock_file_that_was_deleted_does_not_let_two_in(tmp_path):
    path = tmp_path / "lock"
    first, second = FileLock(path, 0.1), FileLock(path, 0.1)
    with first.held():
        pass
    path.unlink()
    with second.held(), pytest.raises(StoreBusy), first.held():
        pass
