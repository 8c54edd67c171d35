"""The health of a store: what is well, what is not, and what of that can be mended.

The log is the truth. The doctor folds it from the first line and compares the result with
the state file; whatever can be made from the log is made anew, and nothing is thrown away
without a copy.
"""

import stat
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from .bootstrap import App
from .disk import aside
from .errors import OrdersError, StoreBusy
from .followers import Follower, owed_by
from .policies import POLICIES
from .replay import replay
from .repository import TinyDBOrderRepository
from .views import count

SHARED = 0o027  # permissions that let others read or change the store


class Finding(NamedTuple):
    """One sentence on one subject."""

    is_well: bool
    subject: str
    text: str


def examine(app: App) -> list[Finding]:
    """Look at everything; change nothing."""
    try:
        app.log.end()
    except StoreBusy as busy:
        return [Finding(False, "lock", str(busy))]
    except OrdersError as error:
        return [Finding(False, "log", str(error))]
    lock = Finding(True, "lock", "free")
    checks = (_log, _state, _projections, _deliveries, _permissions, _leftovers)
    return [lock, *(finding for check in checks for finding in _guarded(check, app))]


def repair(app: App) -> Iterator[str]:
    """Mend what can be mended; yield what was done, a sentence each.

    Raises:
        OrdersError: the log is damaged, which only a backup can mend.
    """
    if app.log.end():
        yield from _cut_torn(app)
    if app.log.end() and not _is_well(_state, app):
        _fold(app, "was not the fold of the log").checkpoint()
        yield f"made {app.orders.path} anew from the log"
    try:
        yield from _mend_projections(app)
    except OrdersError as error:  # a foreign file; it is named, and the rest can still be mended
        app.warn(str(error))
    for path in _too_open(app):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~SHARED)
        yield f"made {path} private"
    for path in _temporary(app):
        with app.log.writing():  # or it may be one that somebody is about to rename
            app.disk.unlink(path)
        yield f"removed {path}"
    if dead := app.leases.dead():
        app.leases.sweep()
        yield f"removed {count(len(dead), 'lock file')} of processes that died"
    if late := app.deliveries.recover():
        yield f"delivered {late} that processes owed when they died"


def _mend_projections(app: App) -> Iterator[str]:
    if not _is_well(_projections, app):
        for one in replay(app, keep=True):
            yield f"made the projection {one.name} anew from the log"
    for policy in POLICIES:
        if owed := owed_by(app, policy):
            Follower(app, policy).keep_up(at_any_cost=True)
            yield f"had {policy.name} react to {count(len(owed), 'event')}"


def _cut_torn(app: App) -> Iterator[str]:
    with app.lock.held():
        if torn := app.log.torn():
            kept = aside(app.log.path)
            app.disk.replace_atomically(kept, torn)
            with app.log.writing():
                yield f"cut {len(torn)} bytes that a crash left, kept as {kept.name}"


def _guarded(check: Callable[[App], Iterator[Finding]], app: App) -> Iterator[Finding]:
    """Run a check; what it cannot read is not well."""
    try:
        yield from check(app)
    except OrdersError as error:
        yield Finding(False, check.__name__.strip("_"), str(error))


def _is_well(check: Callable[[App], Iterator[Finding]], app: App) -> bool:
    return all(finding.is_well for finding in _guarded(check, app))


def _log(app: App) -> Iterator[Finding]:
    lines = sum(1 for _ in app.log.read())
    if torn := app.log.torn():
        yield Finding(
            False, "log", f"{lines:,} lines are whole; a crash left {len(torn)} bytes after them"
        )
    else:
        yield Finding(True, "log", f"{lines:,} lines, numbered without a gap, every checksum fits")


def _state(app: App) -> Iterator[Finding]:
    path = app.orders.path
    if not app.log.end() and not path.exists():
        yield Finding(True, "state", "nothing is stored yet")
        return
    kept = TinyDBOrderRepository(path, app.log, app.disk, app.warn)
    found = kept.tables()
    if found != _fold(app, "is not looked at").tables(until=kept.position.offset):
        yield Finding(False, "state", f"{path} is not the fold of the log")
    elif damage := kept.damage:
        yield Finding(False, "state", f"{path} {damage}")
    else:
        orders = count(len(found["orders"]), "order")
        yield Finding(True, "state", f"{orders}, equal to the fold of the log")


def _projections(app: App) -> Iterator[Finding]:
    replayed = list(replay(app, keep=False))
    wrong = [f"{one.name} {one.found}" for one in replayed if one.found not in {"equal", "nothing"}]
    kept = sum(one.found == "equal" for one in replayed)
    if wrong:
        yield Finding(False, "projections", f"{'; '.join(wrong)}; orders replay makes them anew")
    else:
        yield Finding(True, "projections", f"{kept} kept, equal to the fold of the log")
    for policy in POLICIES:
        if owed := owed_by(app, policy):
            events = count(len(owed), "event")
            text = f"{policy.name} has yet to react to {events}; orders checkpoint has it do so"
            yield Finding(True, "projections", text)


def _deliveries(app: App) -> Iterator[Finding]:
    accounts = app.deliveries.accounts()
    failed, dead = accounts.having("failed"), accounts.having("dead")
    owed = [a for a in accounts.having("pending") if not app.leases.is_alive(a.owner)]
    if owed:
        yield Finding(
            False, "deliveries", f"{len(owed):,} owed by processes that died; see orders deliveries"
        )
    if failed:
        yield Finding(False, "deliveries", f"{len(failed):,} failed; try orders retry --all")
    if dead:
        yield Finding(False, "deliveries", f"{len(dead):,} dead letters; see orders deliveries")
    if not (owed or failed or dead):
        yield Finding(True, "deliveries", "nothing is owed")


def _permissions(app: App) -> Iterator[Finding]:
    if paths := _too_open(app):
        names = ", ".join(path.name for path in paths)
        yield Finding(False, "permissions", f"everybody on this machine can use {names}")
    else:
        yield Finding(True, "permissions", "the files are private")


def _leftovers(app: App) -> Iterator[Finding]:
    if paths := [*_temporary(app), *app.leases.dead()]:
        names = ", ".join(path.name for path in paths[:5])
        yield Finding(False, "leftovers", f"{len(paths)} left by crashes: {names}")
    else:
        yield Finding(True, "leftovers", "none")


def _fold(app: App, distrust: str) -> TinyDBOrderRepository:
    return TinyDBOrderRepository(app.orders.path, app.log, app.disk, app.warn, distrust)


def _too_open(app: App) -> list[Path]:
    files = (path for path in app.files if path != app.lock.path)
    return [path for path in files if path.is_file() and path.stat().st_mode & SHARED]


def _temporary(app: App) -> list[Path]:
    places = (app.settings.data.glob(".orders.json.*.tmp"), app.projections.glob(".*.json.*.tmp"))
    return sorted(chain.from_iterable(places))
