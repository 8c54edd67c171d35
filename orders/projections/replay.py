"""Rebuilds projections from the log beside the kept ones, and says what differs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..application.store import START, Cursor, Match, Snapshot, Store
from ..errors import FollowerError
from .follower import Follower
from .policy import Policy
from .projection import Projection


class Difference(NamedTuple):
    """An entry of a table that is not what the log makes of it; None is no entry."""

    table: str
    key: str
    kept: Any
    rebuilt: Any


class Replayed(NamedTuple):
    """What the rebuilding of one projection has shown."""

    name: str
    found: str  # what was kept: "nothing", "equal", "different", or what is wrong with it
    differences: list[Difference]

    @property
    def is_right(self) -> bool:
        """Whether what was kept is what the log says, or nothing was kept."""
        return self.found in {"nothing", "equal"}


def replay(
    store: Store, projections: Iterable[Callable[[], Projection]], *, keep: bool
) -> Iterator[Replayed]:
    """Rebuild every projection and policy; no command is sent a second time.

    Each is rebuilt up to where it was: what a policy has yet to react to comes after that. A
    policy of which nothing is kept is made when it reacts.

    Args:
        store: whose log is replayed.
        projections: what makes each one, empty; its class will do.
        keep: whether the rebuilt ones take the place of the kept.

    Raises:
        FollowerError: one cannot be rebuilt; in the end, when all others are.
        StoreError: one cannot be kept.
    """
    pairs = [(Follower(store, make), Follower(store, make, reacts=False)) for make in projections]
    damages = [kept.load() for kept, _ in pairs]
    end = store.head()
    failed = _rebuild(
        store,
        {
            rebuilt: end if kept.cursor == START else kept.cursor
            for kept, rebuilt in pairs
            if kept.cursor != START or not isinstance(rebuilt.projection, Policy)
        },
    )
    for (kept, rebuilt), damage in zip(pairs, damages, strict=True):
        if rebuilt in failed:
            continue
        is_kept = kept.cursor != START
        tables = kept.projection.tables, rebuilt.projection.tables
        differences = list(_compare(*tables)) if is_kept else []
        verdict = "different" if differences else "equal" if is_kept else "nothing"
        if keep and damage:  # a policy begins anew; the log knows what it has reacted to
            store.save(rebuilt.name, Snapshot(rebuilt.cursor, rebuilt.projection.documents()))
        elif keep and verdict != "equal":
            rebuilt.save()
        yield Replayed(rebuilt.name, damage or verdict, differences)
    if failed:
        raise next(iter(failed.values()))


def _rebuild(store: Store, empty: Mapping[Follower, Cursor]) -> dict[Follower, FollowerError]:
    """Fold the log into followers, up to a place each; read it once for all of them.

    Returns why some could not be, which has kept no other one from it.
    """
    failed: dict[Follower, FollowerError] = {}
    types = {kind for follower in empty for kind in follower.types}
    if types:
        for record in store.read(until=max(empty.values()), match=Match(types=types)):
            for follower, until in empty.items():
                if record.cursor <= until and follower not in failed:
                    try:
                        follower.fold(record)
                    except FollowerError as error:
                        failed[follower] = error
    for follower, until in empty.items():
        if follower not in failed:
            follower.catch_up(until)  # to where there is nothing more for it
    return failed


def _compare(
    kept: Mapping[str, Mapping[str, Any]], rebuilt: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    for table in rebuilt:
        for key in sorted(kept[table].keys() | rebuilt[table].keys(), key=str):
            before, after = kept[table].get(key), rebuilt[table].get(key)
            if before != after:
                yield Difference(table, key, before, after)
