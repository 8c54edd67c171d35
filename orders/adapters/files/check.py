"""The health of the files: what is well, what is not, and what of that can be repaired.

The log is the truth. It is folded from the first line and compared with the state file;
whatever can be made from the log is made anew, and nothing is thrown away without a copy.
"""

import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ...application.store import Finding
from ...domain.text import count
from ...errors import ForeignFile, OrdersError, StoreBusy
from .disk import available, copy_path
from .ledger import Accounts

if TYPE_CHECKING:
    from .orders import Orders
    from .store import FilesStore

REPAIR = "orders doctor --repair"
SHARED = 0o027  # permissions that let others read or change the store


def check(store: "FilesStore") -> Iterator[Finding]:
    """Look at everything; change nothing. What is wrong with the log is said once."""
    try:
        store.log.end()
    except StoreBusy as busy:
        yield _refused("lock", busy)
        return
    except OrdersError as error:
        yield _refused("log", error)
        return
    yield Finding("ok", "lock", "free")
    folded = store.new_state()
    folded.begin()
    is_readable = True
    for finding in _guarded("log", partial(_log, folded), store):
        is_readable &= finding.is_well or finding.cure == REPAIR
        yield finding
    if is_readable:
        yield from _guarded("state", partial(_state, folded), store)
        yield from _guarded("projections", _snapshots, store)
    yield from _guarded("permissions", _permissions, store)
    yield from _guarded("leftovers", _leftovers, store)


def repair(store: "FilesStore") -> Iterator[str]:
    """Repair what can be repaired; yield what was done, a sentence each.

    Raises:
        StoreError: the log is damaged, or gone, which only a backup can repair.
    """
    if store.log.end():
        yield from _cut_torn(store)
        folded = store.new_state()
        folded.begin()
        if not all(f.is_well for f in _guarded("state", partial(_state, folded), store)):
            store.state.begin()
            store.state.checkpoint("was not the fold of the log")
            yield f"made {store.state_path} anew from the log"
    else:
        store.state.verify()  # where there is no log, it is all that is left of the orders
    for path in store.snapshots.paths:
        with suppress(ForeignFile):  # which is not ours to move
            if damage := store.snapshots.damage(path):
                kept = copy_path(path)
                store.disk.replace(path, kept)
                yield f"moved {path} to {kept.name}: it {damage}"
    for path in _too_open(store):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~SHARED)
        yield f"made {path} private"
    for path in _temporary(store):
        with store.lock.held():  # or it may be one that somebody is about to rename
            store.disk.unlink(path)
        yield f"removed {path}"
    if dead := len(store.leases.dead()):
        store.leases.sweep()
        yield f"removed {count(dead, 'lock file')} of processes that died"


def _cut_torn(store: "FilesStore") -> Iterator[str]:
    if not store.log.torn():
        return
    with store.lock.held():
        if torn := store.log.torn():
            with store.log.writing():  # which cuts it off
                kept = store.log.kept
            if kept is not None:
                yield f"cut {count(len(torn), 'byte')} that a crash left, kept as {kept.name}"


def _guarded(
    subject: str, examine: Callable[["FilesStore"], Iterator[Finding]], store: "FilesStore"
) -> Iterator[Finding]:
    """Examine a subject; what cannot be read is not well."""
    try:
        yield from examine(store)
    except OrdersError as error:
        yield _refused(subject, error)


def _refused(subject: str, error: OrdersError) -> Finding:
    return Finding("bad", subject, str(error), error.hint or "")


def _log(folded: "Orders", store: "FilesStore") -> Iterator[Finding]:
    """Read every line, and fold it into a state and into what is known of deliveries."""
    end = store.log.position()
    accounts = Accounts()  # which whoever asks for deliveries need not read again
    for entry in store.log.read(until=end):
        folded.add(entry)
        accounts.apply(entry.line, entry.start)
    accounts.position, store.accounts = end, accounts
    if torn := store.log.torn(end):
        whole, left = count(end.seq, "whole line"), count(len(torn), "byte")
        text = f"{whole}, then {left} that a crash left"
        yield Finding("bad", "log", text, REPAIR)
    else:
        text = f"{count(end.seq, 'line')}, numbered without a gap, every checksum fits"
        yield Finding("ok", "log", text)


def _state(folded: "Orders", store: "FilesStore") -> Iterator[Finding]:
    """Compare the state file, brought up to date, with what was folded of the log until now."""
    path = store.state_path
    if not store.log.end() and not path.exists():
        yield Finding("ok", "state", "nothing is stored yet")
        return
    kept = store.new_state() if path.exists() else folded
    kept.refresh()
    folded.refresh(until=kept.position)
    orders = len(folded.tables()["orders"])
    if kept.tables() != folded.tables():
        yield Finding("bad", "state", f"{path} is not the fold of the log", REPAIR)
    elif kept.damage:
        yield Finding("bad", "state", f"{path} {kept.damage}", REPAIR)
    else:
        text = f"{count(orders, 'order')}, equal to the fold of the log"
        yield Finding("ok", "state", text)


def _snapshots(store: "FilesStore") -> Iterator[Finding]:
    for path in store.snapshots.paths:
        if damage := store.snapshots.damage(path):
            yield Finding("bad", "projections", f"{path.stem} {damage}", REPAIR)


def _permissions(store: "FilesStore") -> Iterator[Finding]:
    if paths := _too_open(store):
        names = ", ".join(path.name for path in paths)
        yield Finding("bad", "permissions", f"everybody on this machine can use {names}", REPAIR)
    else:
        yield Finding("ok", "permissions", "the files are private")


def _leftovers(store: "FilesStore") -> Iterator[Finding]:
    if paths := [*_temporary(store), *store.leases.dead()]:
        names = ", ".join(path.name for path in paths[:5])
        yield Finding("bad", "leftovers", f"{len(paths)} left by crashes: {names}", REPAIR)
    else:
        yield Finding("ok", "leftovers", "none")


def _too_open(store: "FilesStore") -> list[Path]:
    paths = (store.log_path, store.state_path, *store.snapshots.paths)
    with available(store.directory):
        return [path for path in paths if path.is_file() and path.stat().st_mode & SHARED]


def _temporary(store: "FilesStore") -> list[Path]:
    places = (
        store.directory.glob(".orders.json.*.tmp"),
        store.directory.glob(".events.jsonl.*.tmp"),
        (store.directory / "projections").glob(".*.json.*.tmp"),
    )
    with available(store.directory):
        return sorted(chain.from_iterable(places))
