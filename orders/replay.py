"""Rebuilds projections from the log beside the kept ones, and says what differs."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from .bootstrap import App
from .errors import StoreError
from .followers import Follower
from .policies import POLICIES
from .projections import PROJECTIONS, Projection
from .storage import Tables
from .views import Row, as_json

P = TypeVar("P", bound=Projection)


class Difference(NamedTuple):
    """An entry of a table that is not what the log makes of it; None is no entry."""

    table: str
    key: str
    kept: Any
    rebuilt: Any


class Replayed(NamedTuple):
    """What the rebuilding of one projection has shown."""

    name: str
    lines: int  # of the log that it was rebuilt from
    found: str  # what was kept: "nothing", "equal", "different", or what is wrong with the file
    differences: list[Difference]


def replay(app: App, *, keep: bool) -> Iterator[Replayed]:
    """Rebuild every projection and policy; no command is sent a second time.

    A policy is rebuilt up to where it was: what comes after, it has yet to react to. Where that
    cannot be told, it reacts to what it has never reacted to.

    Args:
        app: the store.
        keep: whether the rebuilt ones take the place of the kept.

    Raises:
        FollowerError, StoreError: a projection cannot be rebuilt, or not be kept.
    """
    for make in (*PROJECTIONS, *POLICIES):
        kept, rebuilt = (Follower(app, make, reacts=False) for _ in range(2))
        damage, until = kept.load(), kept.claimed().offset or None
        if damage and not until and keep:
            rebuilt = Follower(app, make)  # a policy does now what it has not done yet
        if until or damage or make in PROJECTIONS:
            rebuilt.catch_up(until)
        found = kept.as_found()
        differences = (
            _compare(found, rebuilt.projection.tables) if found and rebuilt.position.seq else []
        )
        verdict = "different" if differences else "equal" if kept.position.offset else "nothing"
        if keep:
            rebuilt.save()
        yield Replayed(rebuilt.name, rebuilt.position.seq, damage or verdict, differences)


def rows(replayed: Replayed) -> Iterator[Row]:
    """Yield what a replay found: projection, verdict, detail; then each difference."""
    found = "not kept" if replayed.found == "nothing" else replayed.found
    until = f"up to line {replayed.lines:,} of the log" if replayed.lines else "made when needed"
    yield replayed.name, found, until
    for table, key, kept, rebuilt in replayed.differences:
        change = f"kept {_entry(kept)}, the log says {_entry(rebuilt)}"
        yield replayed.name, f"{table} {as_json(key)}", change


def _entry(value: Any) -> str:
    return "nothing" if value is None else as_json(value)


def current(app: App, make: Callable[[], P]) -> P:
    """Return a projection, up to date with the log, and keep it if the disk allows."""
    projection = make()
    follower = Follower(app, lambda: projection)
    try:
        follower.load()
    except StoreError as error:
        app.warn(str(error))
        follower.catch_up()
    else:
        follower.catch_up()
        if follower.position.offset == app.log.size():  # else a crash has left something
            with suppress(StoreError):  # it can be made again
                follower.save()
    return projection


def _compare(kept: Tables, rebuilt: Tables) -> list[Difference]:
    return [
        Difference(table, key, before, after)
        for table in rebuilt
        for key in sorted(kept[table].keys() | rebuilt[table].keys(), key=str)
        if (before := kept[table].get(key)) != (after := rebuilt[table].get(key))
    ]
