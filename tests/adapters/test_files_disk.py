"""Files replaced atomically, directories made durable, and what the system refuses."""

import errno
import os
import stat
from pathlib import Path

import pytest
from store_files import RecordingDisk, append, opening_logs

from orders.adapters.files.disk import Disk, available, reason, regular_status
from orders.errors import ForeignFile, NotWritten, StoreUnavailable

STEPS = ["open", "write", "sync", "replace", "sync_directory"]


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
    disk = RecordingDisk()
    disk.replace_atomically(tmp_path / "file", b"new")
    assert [call for call, _ in disk.calls] == [
        "open",
        "write",
        "sync",
        "replace",
        "sync_directory",
    ]


def test_the_file_is_the_old_or_the_new_one_at_every_step(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    seen = []

    class Looking(Disk):
        def write(self, descriptor, data):
            written = super().write(descriptor, data[:1])
            seen.append(file.read_bytes())
            return written

        def sync(self, descriptor):
            super().sync(descriptor)
            seen.append(file.read_bytes())

        def sync_directory(self, directory):
            seen.append(file.read_bytes())
            super().sync_directory(directory)

    Looking().replace_atomically(file, b"new")
    assert seen == [b"old"] * 4 + [b"new"]


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
    disk = RecordingDisk()
    disk.make_directory(tmp_path / "a" / "b")
    assert disk.calls == [("sync_directory", tmp_path.name)]
    with opening_logs(tmp_path / "a" / "b") as open_log:
        append(open_log(disk))
    synced = [name for call, name in disk.calls if call == "sync_directory"]
    assert synced == [tmp_path.name, "a", "b"]


@pytest.mark.parametrize("wanted", ["file", "file/store"])
def test_a_file_where_a_directory_should_be_is_refused(tmp_path, wanted):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(StoreUnavailable, match=r"file: it is a file, not a directory\ntry: choose"):
        Disk().make_directory(tmp_path / wanted)
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("wanted", ["/proc/orders", "/proc/orders/store"])
def test_a_place_where_nothing_can_be_made_is_refused(wanted):
    with pytest.raises(StoreUnavailable, match=r"cannot use /proc/orders: .*\ntry: .*--data"):
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


def test_what_the_system_refuses_in_a_block_names_the_path(tmp_path):
    path = tmp_path / "file"
    refused = pytest.raises(StoreUnavailable, match=f"cannot use {path}: no such file")
    with refused as caught, available(path):
        path.read_bytes()
    assert isinstance(caught.value.__cause__, FileNotFoundError)
