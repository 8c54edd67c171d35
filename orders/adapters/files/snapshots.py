"""Snapshots of projections: a file each, with its tables and the position they are made of."""

from pathlib import Path

import msgspec

from ...application.store import START, Snapshot
from .disk import Disk
from .line import Position
from .log import EventLog
from .state import FORMAT, Head, StateStorage, proven

SMALL = 1 << 20  # bytes of snapshot, and of log to fold in, that no user notices
WORTHWHILE = 1 << 16  # bytes of log to fold in again each time, before another snapshot is cheaper

OF_ANOTHER_LOG = "was made of another log"


class Snapshots:
    """Loads and saves the snapshots of a store.

    Args:
        directory: where the files are; made when first needed.
        log: the event log that they are made of.
        disk: does the file calls.
    """

    def __init__(self, directory: Path, log: EventLog, disk: Disk) -> None:
        self._directory = directory
        self._log = log
        self._disk = disk

    @property
    def paths(self) -> list[Path]:
        """The files that exist."""
        return sorted(self._directory.glob("*.json"))

    def load(self, name: str) -> Snapshot | None:
        """Return the snapshot of this name; None where there is none.

        Raises:
            ForeignFile: something else stands in its place.
        """
        loaded = self._storage(self._path(name)).load()
        head, tables, damage = loaded.head, loaded.tables, loaded.damage
        if head is None:
            return Snapshot(START, {}, damage) if damage else None
        if not self._log.ends_at(head.position, head.line):
            return Snapshot(START, {}, OF_ANOTHER_LOG)
        del tables["log"]
        return Snapshot(head.position if head.seq else START, tables)

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of the one before, in one step; inside `log.writing()`.

        Raises:
            NotWritten: the disk refuses; what was kept before is as it was.
        """
        position = Position(*snapshot.cursor)
        self._disk.make_directory(self._directory)
        self._log.make_durable(position)  # or a power cut could leave less than the file knows
        head = Head(FORMAT, position.seq, position.offset, self._log.checksum_at(position))
        log = {"1": msgspec.to_builtins(head)}
        self._storage(self._path(name)).write({"log": log, **snapshot.tables})  # type: ignore[dict-item]

    def is_due(self, name: str) -> bool:
        """Return whether to fold the log in is cheap, or the log has outgrown the snapshot by half.

        Raises:
            ForeignFile: something else stands in its place.
        """
        size = self._storage(self._path(name)).size()
        behind = self._behind(name)
        return max(size, behind) < SMALL or behind >= size // 2

    def is_stale(self, name: str) -> bool:
        """Return whether it takes longer to fold the log in again than to save.

        Raises:
            ForeignFile: something else stands in the snapshot's place.
        """
        return self._behind(name) > WORTHWHILE

    def damage(self, path: Path) -> str | None:
        """Return why a snapshot's file cannot be used, if so.

        Raises:
            ForeignFile: something else stands in its place.
        """
        return self._storage(path).load().damage

    def proven(self) -> int:
        """Return the byte of the log before which, as these files prove, all was on the disk."""
        return max((proven(path, self._disk) for path in self.paths), default=0)

    def _behind(self, name: str) -> int:
        head = self._storage(self._path(name)).head()
        return self._log.end() - (head.offset if head else 0)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _storage(self, path: Path) -> StateStorage:
        return StateStorage(path, self._disk)
