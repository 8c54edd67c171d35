"""What tests of the files engine share: logs to open, disks, orders to store, files to compare."""

import os
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path

from orders.adapters.files.disk import Disk
from orders.adapters.files.line import encode_messages
from orders.adapters.files.lock import FileLock
from orders.adapters.files.log import EventLog
from orders.application.store import Change, Commit
from orders.domain.order import Order

FOREIGN_LOGS = {
    "text": b"Dear diary,\ntoday I ordered a TV.\n",
    "text without a newline": b"Dear diary",
    "one line of text": b"Dear diary\n",
    "json": b'{"foo": 1}',
    "json with a newline": b'{"foo": 1}\n',
    "pretty json": b'{\n  "format": 1,\n  "seq": 1\n}\n',
    "another program's lines": b'{"seq":1,"event":"start"}\n{"seq":2,"event":"stop"}\n',
    "the same line twice": b"a\na\n",
    "an unfinished line": b'{"seq":1,"event":"start"}\n{"seq":2,"ev',
    "binary": bytes(range(256)) * 10,
    "binary without a newline": bytes(range(128, 256)) * 1000,
    "text and zeros": b"Dear diary\n" + bytes(5000),
    "zeros and text": bytes(5000) + b"Dear diary\n",
    "spaces": b"   ",
    "a blank line": b"\n",
    "blank lines": b"\n\n\n",
}


class RecordingDisk(Disk):
    """Notes its calls, each with the name of its file, and counts the bytes that it reads."""

    def __init__(self):
        self.calls = []
        self.bytes_read = 0

    def open(self, path, flags):
        self.calls.append(("open", path.name))
        return super().open(path, flags)

    def read(self, descriptor, size, offset):
        data = super().read(descriptor, size, offset)
        self.bytes_read += len(data)
        return data

    def write(self, descriptor, data):
        self.calls.append(("write", path_of(descriptor).name))
        return super().write(descriptor, data)

    def sync(self, descriptor):
        self.calls.append(("sync", path_of(descriptor).name))
        super().sync(descriptor)

    def truncate(self, descriptor, size):
        self.calls.append(("truncate", path_of(descriptor).name))
        super().truncate(descriptor, size)

    def replace(self, source, target):
        self.calls.append(("replace", target.name))
        super().replace(source, target)

    def sync_directory(self, directory):
        self.calls.append(("sync_directory", directory.name))
        super().sync_directory(directory)


class RefusingDisk(Disk):
    """Refuses the calls named in `refused`, with their error number, on files that fit `glob`.

    The sync of a directory is refused whatever its name; a `short_write` writes half, and the
    next one is refused.
    """

    def __init__(self, glob="*", **refused):
        self.glob = glob
        self.refused = refused

    def _consider(self, call, path=None):
        if call in self.refused and (path is None or path.match(self.glob)):
            raise OSError(self.refused[call], os.strerror(self.refused[call]))

    def open(self, path, flags):
        self._consider("open", path)
        return super().open(path, flags)

    def read(self, descriptor, size, offset):
        self._consider("read", path_of(descriptor))
        return super().read(descriptor, size, offset)

    def write(self, descriptor, data):
        if "short_write" in self.refused:
            self.refused["write"] = self.refused.pop("short_write")
            return super().write(descriptor, data[: len(data) // 2])
        self._consider("write", path_of(descriptor))
        return super().write(descriptor, data)

    def sync(self, descriptor):
        self._consider("sync", path_of(descriptor))
        super().sync(descriptor)

    def truncate(self, descriptor, size):
        self._consider("truncate", path_of(descriptor))
        super().truncate(descriptor, size)

    def replace(self, source, target):
        self._consider("replace", source)
        super().replace(source, target)

    def sync_directory(self, directory):
        self._consider("sync_directory")
        super().sync_directory(directory)


class HastyDisk(Disk):
    """Waits for nothing to be on the disk, where a test writes a thousand times."""

    def sync(self, descriptor):
        pass

    def sync_directory(self, directory):
        pass


def path_of(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@contextmanager
def opening_logs(data):
    """Yield what opens the log once more; all logs are closed in the end."""
    with ExitStack() as stack:

        def open_log(disk=None, timeout=60.0, proven=0):
            lock = FileLock(data / "orders.lock", timeout)
            log = EventLog(data / "events.jsonl", lock, disk or Disk(), lambda: proven)
            stack.callback(lock.close)
            stack.callback(log.close)
            return log

        yield open_log


def append(log, *messages, deliveries=(), sync=True, **options):
    with log.writing():
        entry = log.append(encode_messages(messages), tuple(deliveries), **options)
    if sync:
        log.confirm(entry)
    return entry


def lines_of(log):
    return [entry.line for entry in log.read()]


def order_ids(log, *arguments, **options):
    entries = log.read(*arguments, **options)
    return [message.order_id for entry in entries for message in entry.line.messages]


def newcomer(log):
    """Let a log object that knows nothing learn where the log ends."""
    with log.writing():
        return log


def commit_of(*orders, **rest):
    """Return a commit of what these orders have pending."""
    messages = tuple(event.caused_by(None) for order in orders for event in order.pending)
    changes = tuple(Change(order.state, order.stored_version, order.key) for order in orders)
    return Commit(messages, changes, **rest)


def place(store, *items, customer=None, key=None):
    """Store a new order; return its id."""
    order = Order.place(items or ("lamp",), customer, key)
    store.commit(commit_of(order))
    return order.id


def move(store, order_id, how="ship"):
    """Ship a stored order, or cancel it."""
    order = Order(store.order(order_id))
    getattr(order, how)()
    store.commit(commit_of(order))


def place_eight(store):
    """Place eight orders, ship one and cancel one; return them, newest first."""
    for number, item in enumerate(("100 inch TV", "magic carpet", "Zoë's 🧞 lamp", "TV")):
        place(store, item, customer="Ann", key=f"key {number}")
        place(store, item, "batteries")
    *_, second, first = store.orders()
    move(store, first.id)
    move(store, second.id, "cancel")
    return store.orders()


def snapshot(path):
    """What must not change: the kind, the content and the time of a file or directory."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        content = sorted(entry.name for entry in path.iterdir())
    else:
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
    return status.st_mode, status.st_ino, status.st_mtime_ns, content


def copies_of(path):
    """Return the copies that are kept beside a file, oldest first."""
    return sorted(path.parent.glob(f"{path.name}.*"))


def checksum(raw):
    """Return the checksum that stands in a line: eight hexadecimal digits."""
    return raw[-10:-2].decode()
