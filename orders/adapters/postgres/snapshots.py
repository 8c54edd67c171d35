"""Snapshots of projections: a row each, with its tables and the place that they are made of."""

import msgspec

from ...application.store import START, Snapshot
from .connection import Connection

SMALL = 1 << 20  # bytes of snapshot, and of log to fold in, that no user notices
WORTHWHILE = 1 << 16  # bytes of log to fold in again each time, before another snapshot is cheaper
RECORD = 500  # bytes of a record, more or less

OF_ANOTHER_LOG = "was made of another log"


class Snapshots:
    """Loads and saves the snapshots of a store.

    Args:
        connection: to its server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; None where there is none."""
        rows = self._connection.rows(
            """
            select cursor, tables::text, cursor = '{}' or exists (
                select from record where (era, xid, seq) = (cursor[1], cursor[2], cursor[3])
            )
            from snapshot where name = %s
            """,
            [name],
        )
        for cursor, tables, is_of_this_log in rows:
            if is_of_this_log:
                return Snapshot(tuple(cursor), msgspec.json.decode(tables))
            return Snapshot(START, {}, OF_ANOTHER_LOG)
        return None

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep the snapshot, tables and cursor in one step, in place of the one before."""
        tables = msgspec.json.encode(snapshot.tables).decode()
        self._connection.run(
            lambda session: session.link.execute(
                """
                insert into snapshot (name, cursor, tables) values (%s, %s::bigint[], %s)
                on conflict (name) do update
                set cursor = excluded.cursor, tables = excluded.tables
                """,
                (name, list(snapshot.cursor), tables),
            )
        )

    def names(self) -> list[str]:
        """Return the names of the snapshots."""
        return [name for (name,) in self._connection.rows("select name from snapshot")]

    def is_due(self, name: str) -> bool:
        """Return whether to bring this snapshot up to date now: it is cheap, or has become so."""
        size, behind = self._size_and_behind(name)
        return max(size, behind) < SMALL or behind >= size // 2

    def is_stale(self, name: str) -> bool:
        """Return whether so much of the log follows this snapshot that a newer one is worth it."""
        return self._size_and_behind(name)[1] > WORTHWHILE

    def _size_and_behind(self, name: str) -> tuple[int, int]:
        """Return the bytes of a snapshot, and about how many of the log follow it."""
        ((size, behind),) = self._connection.rows(
            """
            select s.size, b.records * %(record)s
            from (
                select coalesce(max(pg_column_size(tables)), 0) as size,
                    coalesce(max(cursor), '{}') as cursor
                from snapshot where name = %(name)s
            ) s,
            lateral (
                select count(*) as records from (
                    select from record
                    where (era, xid, seq) > (
                        coalesce(cursor[1], 0), coalesce(cursor[2], 0), coalesce(cursor[3], 0)
                    )
                    limit greatest(%(small)s, s.size) / %(record)s + 1
                ) r
            ) b
            """,
            {"name": name, "record": RECORD, "small": SMALL},
        )
        return size, behind
