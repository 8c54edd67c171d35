"""A state file, like `orders.json`, as a TinyDB storage that survives crashes.

TinyDB's own JSONStorage rewrites the file in place: a crash or a full disk in between
empties it. This one replaces the file atomically, keeps the tables in memory between reads,
and begins the file with a table that says which part of the log the state is made of:

    {"log": {"1": {"format": 1, "seq": 7, "offset": 3301, "line": "1c291ca3", "checksum": "..."}},
     "orders": {"1": {"id": "...", "items": ["..."], ...}, "2": {...}},
     "keys": {"2": {"key": "...", "order_id": "..."}}}

`seq` lines of the log, `offset` bytes, are folded into it, the last one with the checksum
`line`; `checksum` is the CRC-32 of that and of all that follows. Stock TinyDB opens the file.
"""

import re
from collections.abc import ItemsView, ValuesView
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from zlib import crc32

import msgspec
from tinydb.storages import Storage

from ...errors import ForeignFile, StoreError
from .disk import Disk, available, regular_status
from .line import Position

FORMAT = 1
HEAD_SIZE = 4096  # bytes within which the first table ends
DOCUMENT = 512  # bytes; most are shorter

_BEGIN = rb'[{,]"[0-9]+":\{'  # of a document, see `last_documents`; seldom needed: not compiled

D = TypeVar("D", bound=dict[int, Any])

Tables = dict[str, dict[str, Any]]
RawTables = dict[str, msgspec.Raw]  # as those of orders are loaded: most nobody looks at


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first table's only document: what the state is made of."""

    format: int
    seq: int
    offset: int
    line: str
    checksum: str = ""

    @property
    def position(self) -> Position:
        """Up to where the log is folded in."""
        return Position(self.offset, self.seq)


class KeyDocument(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key and the order that it belongs to."""

    key: str
    order_id: str


class Documents(dict[str, Any]):
    """A table for TinyDB whose documents, given as raw JSON, are decoded when looked at.

    Args:
        raw: the table's JSON.
        kind: what to decode its documents as: a struct.
    """

    def __init__(self, raw: msgspec.Raw, kind: type[msgspec.Struct]) -> None:
        super().__init__(msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
        self._decoder = msgspec.json.Decoder(kind)
        self._indexes: dict[str, dict[str, str]] = {}

    def __getitem__(self, number: str) -> Any:
        document = super().__getitem__(number)
        if isinstance(document, msgspec.Raw):
            document = self[number] = self._decoder.decode(document)
        return document

    def get(self, number: str, default: Any = None) -> Any:
        """Return a document, or the default."""
        return self[number] if number in self else default  # noqa: SIM401 - this is get

    def items(self) -> Any:
        """Return the documents with their numbers."""
        return ItemsView(self)

    def values(self) -> Any:
        """Return the documents."""
        return ValuesView(self)

    def by(self, field: str) -> dict[str, str]:
        """Return the documents' numbers by a field of text, which is all that is decoded."""
        if (index := self._indexes.get(field)) is None:
            decode = msgspec.json.Decoder(msgspec.defstruct("Only", [(field, str)])).decode
            index = self._indexes[field] = {
                getattr(decode(d) if isinstance(d, msgspec.Raw) else d, field): n
                for n, d in super().items()
            }
        return index

    def put(self, number: str, document: msgspec.Struct) -> None:
        """Add a document, or replace one; what it is found by does not change."""
        self[number] = document
        for field, index in self._indexes.items():
            index[getattr(document, field)] = number

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, dict)
            and self.keys() == other.keys()
            and all(
                (self._decoder.decode(d) if isinstance(d, msgspec.Raw) else d) == other[number]
                for number, d in dict.items(self)  # decoded, all of them would take much memory
            )
        )

    __hash__ = None


def last_documents(table: msgspec.Raw, many: int, shape: type[D]) -> D:
    """Return the last documents of a table by number, without a look at those before them.

    They have no objects in them. Within a text a quote has a backslash before it, and behind the
    one that ends a text comes no digit: so what looks like the beginning of a document is one.

    Args:
        table: its JSON.
        many: how many documents; all, if it has fewer.
        shape: what to return them as: a dict by number.
    """
    data, size = memoryview(table), many * DOCUMENT
    while len(begins := [*re.finditer(_BEGIN, data[-size:])]) < many and size < len(data):
        size *= 4
    rest = data[-size:][begins[-many:][0].start() + 1 :] if begins else b"}"
    last: D = msgspec.json.Decoder(shape).decode(b"{" + rest)
    return last


class Loaded(msgspec.Struct, frozen=True):
    """The state file as found: `head` is None and `damage` says why where it cannot be used."""

    head: Head | None
    tables: Any  # `Tables`, or what else they are loaded as
    damage: str | None


class StateStorage(Storage):
    """Keeps TinyDB's tables in memory; writes them as one file, atomically.

    Args:
        path: the state file.
        disk: does the file calls.
        shape: the type of the tables.
    """

    def __init__(self, path: Path, disk: Disk, shape: Any = Tables) -> None:
        super().__init__()
        self.path = path
        self.tables: Tables = {}
        self._disk = disk
        self._decoder = msgspec.json.Decoder(shape)

    def read(self) -> Tables:
        """Return the tables in memory; TinyDB calls this for every query."""
        return self.tables

    def write(self, data: Tables) -> None:
        """Replace the file by `data`, whose first table is the head without its checksum.

        Raises:
            NotWritten: the disk refuses; the file is as it was.
        """
        head = msgspec.convert(data["log"]["1"], Head)
        rest = {name: table for name, table in data.items() if name != "log"}
        body = msgspec.json.encode(rest)[1:]
        head = msgspec.structs.replace(head, checksum=_checksum(head, body))
        start = msgspec.json.encode({"log": {"1": head}})[:-1]
        self._disk.replace_atomically(self.path, start + (b"," if rest else b"") + body)
        self.tables = data

    def size(self) -> int:
        """Return the file's size in bytes; 0 where there is none."""
        status = regular_status(self.path)
        return status.st_size if status else 0

    def head(self) -> Head | None:
        """Return the head, reading the beginning of the file only; None where it has none."""
        if not regular_status(self.path):
            return None
        with self._open() as file:
            return _split(file.read(HEAD_SIZE))[0]

    def load(self) -> Loaded:
        """Read and check the whole file.

        Raises:
            ForeignFile: it is JSON, but not ours.
        """
        data = b""
        if regular_status(self.path):
            with self._open() as file:
                data = file.read()
        if not data:
            return Loaded(None, {}, None)
        head, body = _split(data)
        if head is not None and head.format > FORMAT:
            raise ForeignFile(self.path, f"has format {head.format}, of a newer version of orders")
        try:
            if head is not None and head.checksum == _checksum(head, body):
                return Loaded(head, self._decoder.decode(data), None)
            tables = msgspec.json.decode(data)
        except (ValueError, RecursionError):  # msgspec's, and that of bytes that are not UTF-8
            return Loaded(None, {}, "is not valid JSON")
        if not (isinstance(tables, dict) and isinstance(tables.get("log"), dict)):
            raise ForeignFile(self.path, "is not the state of an order store")
        return Loaded(None, {}, "was changed by another program")

    def _open(self) -> BinaryIO:
        with available(self.path):
            return self.path.open("rb")


def proven(path: Path, disk: Disk) -> int:
    """Return the byte of the log that a sound state file was made of, once that was synced."""
    try:
        head = StateStorage(path, disk).load().head
    except StoreError:
        return 0
    return head.offset if head else 0


def _split(data: bytes) -> tuple[Head | None, memoryview]:
    """Return the head, or None, and what follows its table."""
    end = data.find(b"}}") + 2
    start = end + 1 if data.startswith(b",", end) else end
    rest = memoryview(data)[start:]  # which may be large: it is not copied
    try:
        tables = msgspec.json.decode(data[:end] + b"}", type=dict[str, dict[str, Head]])
        return tables["log"]["1"], rest
    except (ValueError, KeyError, RecursionError):
        return None, rest


def _checksum(head: Head, body: bytes | memoryview) -> str:
    made_of = b"%d %d %d %s " % (head.format, head.seq, head.offset, head.line.encode())
    return f"{crc32(body, crc32(made_of)):08x}"
