"""The log as it is read: once, in order and without a gap, whatever transactions are under way."""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from typing import Any, LiteralString, cast

from ...application.store import START, Cursor, Match, Record
from ...errors import StoreError
from .connection import Connection, Session
from .record import decode, wanted_ids, wanted_kinds

PAGE = 200  # records that are fetched at once
EVERY = 1000  # records from milestone to milestone
PATIENCE = 0.25  # seconds to wait for a transaction that stands before what is stored already

# Below the oldest transaction under way, of whatever database, nothing can be added any more.
HORIZON: LiteralString = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"

ENDS: LiteralString = (
    """
    select newest.era, newest.xid, newest.seq, settled.era, settled.xid, settled.seq
    from (
        select era, xid, seq from record order by era desc, xid desc, seq desc limit 1
    ) newest
    left join (
        select era, xid, seq from record where (era, xid) < (%s, """
    + HORIZON
    + """)
        order by era desc, xid desc, seq desc limit 1
    ) settled on true
    """
)

BETWEEN: LiteralString = """
    (era, xid, seq) > (%(era)s, %(xid)s, %(seq)s)
    and (era, xid, seq) <= (%(last_era)s, %(last_xid)s, %(last_seq)s)
"""

EACH: LiteralString = (
    """
    select era, xid, seq, time,
        case when %(is_all)s or about && %(ids)s::text[] or kinds && %(kinds)s::text[]
            then body::text end,
        null
    from record where """
    + BETWEEN
    + "order by era, xid, seq limit %(page)s"
)

FEW: LiteralString = (
    """
    with found as materialized (  -- by the index, however few are wanted at once
        select era, xid, seq from record where about && %(ids)s::text[]
    )
    select era, xid, seq, time, body::text, number_at(era, xid, seq)
    from found join record using (era, xid, seq) where """
    + BETWEEN
    + "order by era, xid, seq limit %(page)s"
)


class LogReader:
    """Reads the log of one store.

    Args:
        connection: to its server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._missed = START  # up to where somebody waited

    def ends(self) -> tuple[Cursor, Cursor]:
        """Return the places behind the newest record, and behind the last that can be read."""

        def fetch(session: Session) -> list[tuple[Any, ...]]:
            return session.link.execute(ENDS, [session.era]).fetchall()

        for row in self._connection.run(fetch):
            return row[:3], START if row[3] is None else row[3:]
        return START, START

    def head(self) -> Cursor:
        """Return the place behind the last record; wait a moment for what is nearly there."""
        newest, settled = self.ends()
        if settled < self._missed:  # the same transaction is open still
            return settled
        deadline, pause = time.monotonic() + PATIENCE, 0.001
        while settled < newest and time.monotonic() < deadline:
            time.sleep(pause)
            pause *= 2
            _, settled = self.ends()
        self._missed = newest
        return settled

    def read(self, after: Cursor, until: Cursor | None, match: Match) -> Iterator[Record]:
        """Yield the records between two places, oldest first."""
        end = self.head() if until is None else min(until, self.head())
        ids, kinds = wanted_ids(match), wanted_kinds(match)
        is_all = not (ids or kinds or match.types)
        if ids and not kinds and not match.types:
            return self._page_by_page(FEW, after, end, {"ids": ids})
        wanted = {"ids": ids, "kinds": kinds, "is_all": is_all}
        return self._page_by_page(EACH, after, end, wanted)

    def everything(self, session: Session) -> Iterator[Record]:
        """Yield every record that a transaction sees, those under way being none of it."""
        wanted = {"ids": [], "kinds": [], "is_all": True}
        return self._pages(session, wanted)

    def number_at(self, cursor: Cursor) -> int:
        """Return how many records stand before a place."""
        if cursor == START:
            return 0
        return int(self._connection.rows("select number_at(%s, %s, %s)", cursor)[0][0])

    def count_orders(self) -> int:
        """Return how many orders there are."""
        ((before, since),) = self._connection.rows(
            """
            with mark as (
                (select era, xid, orders from milestone order by number desc limit 1)
                union all select 0, 0, 0
                limit 1
            )
            select mark.orders, (
                select count(*) from orders where (era, xid) >= (mark.era, mark.xid)
            )
            from mark
            """
        )
        if since > 2 * EVERY:
            self._add_milestones_if_allowed()
        return int(before + since)

    def add_milestones(self) -> bool:
        """Note every thousandth record; return whether there was one to note."""

        def add(session: Session) -> bool:
            if session.is_standby:
                return False
            row = session.link.execute("select add_milestones(%s, %s)", [session.era, EVERY])
            return bool(cast("tuple[Any, ...]", row.fetchone())[0])

        return self._connection.run(add)

    def _page_by_page(
        self, query: LiteralString, after: Cursor, end: Cursor, wanted: dict[str, Any]
    ) -> Iterator[Record]:
        if end <= after:
            return
        number, has_passed_milestone = self.number_at(after) if query is EACH else 0, False
        place: Cursor = after or (0, 0, 0)
        rows: list[tuple[Any, ...]] | None = None
        while rows is None or len(rows) == PAGE:
            rows = self._connection.rows(query, _between(place, end) | wanted)
            for era, xid, seq, moment, body, known in rows:
                place = (era, xid, seq)
                number = number + 1 if known is None else known
                has_passed_milestone |= number % EVERY == 0
                if body is not None:
                    yield self._record(place, number, moment, body)
        if has_passed_milestone:
            self._add_milestones_if_allowed()

    def _pages(self, session: Session, wanted: dict[str, Any]) -> Iterator[Record]:
        place: Cursor = (0, 0, 0)
        number = 0
        last = (2**31 - 1, 0, 0)
        while rows := session.link.execute(EACH, _between(place, last) | wanted).fetchall():
            for number, (era, xid, seq, moment, body, _) in enumerate(rows, number + 1):  # noqa: B020
                place = (era, xid, seq)
                yield self._record(place, number, moment, body)

    def _record(self, place: Cursor, number: int, moment: Any, data: str) -> Record:
        messages, body = decode(data, self._connection.address.location, number)
        return Record(
            place,
            number,
            moment.astimezone(UTC),
            messages,
            body.deliveries,
            body.states,
            body.process,
        )

    def _add_milestones_if_allowed(self) -> None:
        with suppress(StoreError):  # who may only read counts for longer
            self.add_milestones()


def _between(place: Cursor, end: Cursor) -> dict[str, int]:
    names = ("era", "xid", "seq", "last_era", "last_xid", "last_seq")
    return dict(zip(names, (*place, *end), strict=True)) | {"page": PAGE}
