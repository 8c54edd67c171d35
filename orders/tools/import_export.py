"""Orders in and out as files: JSON, JSON lines and CSV, in and out alike.

What is exported can be imported. A file is read twice: once to find every bad line before
anything is stored, once to place its orders, many to a commit.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec

from .bootstrap import App
from .commands import CancelOrder, PlaceOrder, ShipOrder
from .domain import OrderState, Status, valid_items, valid_text
from .errors import ImportRefused, Interrupted, InvalidOrder, KeyTaken, OrdersError, StoreError
from .unit_of_work import UnitOfWork
from .views import Format, as_json, json_array

COLUMNS = ("key", "item", "customer", "status", "id", "placed_at", "version")
_OPTIONAL = ", ".join(COLUMNS[2:])
CHUNK = 500  # orders a commit
SHOWN = 10  # bad lines that are named


class Row(NamedTuple):
    """An order in a file: the line it begins at, and why it cannot be read, if so."""

    line: int
    order: "FileOrder"
    problem: str | None = None


class Counts(NamedTuple):
    """What became of the orders of a file."""

    imported: int
    skipped: int  # their key was known


class FileOrder(msgspec.Struct, forbid_unknown_fields=True):
    """An order as a file has it; `id`, that of another store, serves as key where none is."""

    items: list[str]
    customer: str | None = None
    key: str | None = None
    id: str | None = None
    status: Status = "placed"
    placed_at: Any = None  # these two are made anew
    version: Any = None

    def problem(self) -> str | None:
        """Say which rule the order breaks, or None."""
        try:
            valid_items(self.items)
            for name in ("customer", "key", "id"):
                if (text := getattr(self, name)) is not None:
                    valid_text(name, text)
        except InvalidOrder as error:
            return str(error)
        return None

    @property
    def import_key(self) -> str | None:
        """The key that it is imported with, if it has one."""
        key = self.key or self.id
        return key and key.strip()

    def command(self) -> PlaceOrder:
        """Return the command that places it."""
        return PlaceOrder(tuple(self.items), self.customer, self.import_key)


def format_of(path: Path) -> Format:
    """Return the format that the file's name says.

    Raises:
        OrdersError: it says none that we know.
    """
    formats: tuple[Format, ...] = get_args(Format)
    for known in formats:
        if path.suffix.lower() == f".{known}":
            return known
    raise OrdersError(f"{path}: the name must end in .json, .jsonl or .csv to say what is in it")


def check(path: Path) -> int:
    """Read the whole file; return how many orders are in it.

    Raises:
        ImportRefused: some of its lines cannot be imported.
        OrdersError: it cannot be read.
    """
    problems: list[tuple[int, str]] = []
    orders = 0
    for row in read(path):
        if problem := row.problem or row.order.problem():
            problems.append((row.line, problem))
        else:
            orders += 1
    if problems:
        raise ImportRefused(path, sorted(problems)[:SHOWN], len(problems))
    return orders


def read(path: Path) -> Iterator[Row]:
    """Yield the orders of a file; whether they keep the rules is not looked at.

    Raises:
        OrdersError: it cannot be read.
    """
    readers = {"json": _read_json, "jsonl": _read_lines, "csv": _read_csv}
    reader = readers[format_of(path)]
    if path.exists() and not path.is_file():
        raise OrdersError(f"cannot read {path}: it is a directory or a pipe, not a file")
    try:
        yield from reader(path)
    except OSError as error:
        raise OrdersError(f"cannot read {path}: {error.strerror}") from error


def import_file(app: App, path: Path, advance: Callable[[], None]) -> Counts:
    """Place the orders of a checked file whose key is new; call `advance` for each one.

    Raises:
        Interrupted: somebody pressed Ctrl-C; what was placed before stays.
        StoreError: the store cannot be used any more; what was placed before stays.
    """
    imported = skipped = 0
    remaining = (row.order for row in read(path))
    new: list[str] = []
    try:
        while chunk := list(islice(remaining, CHUNK)):
            new = []
            _place_chunk(app, chunk, new)
            imported += len(new)
            skipped += len(chunk) - len(new)
            new = []
            for _ in chunk:
                advance()
    except KeyboardInterrupt:  # perhaps after the commit, while its events were delivered
        app.deliveries.recover(own=True)
        imported += len(new) if new and app.orders.find(new[-1]) else 0
        raise Interrupted(f"{imported:,} orders imported; run it again for the rest") from None
    except StoreError as error:
        raise StoreError(f"{imported:,} orders imported; of the rest: {error}") from error
    return Counts(imported, skipped)


def write(orders: Iterable[tuple[OrderState, str]], to: Format) -> Iterator[str]:
    """Yield the orders, each given with its key, as the lines of a file of this format."""
    if to == "csv":
        yield _csv_line(COLUMNS)
        for order, key in orders:
            fields = msgspec.to_builtins(order)
            for item in order.items:
                row = {**fields, "key": key, "item": item}
                yield _csv_line([row[column] for column in COLUMNS])
        return
    lines = (_json(order, key) for order, key in orders)
    yield from lines if to == "jsonl" else json_array(lines)


def _place_chunk(app: App, chunk: list[FileOrder], new: list[str]) -> None:
    """Place the orders in one commit; put the ids of the new ones into `new`."""
    keys = [key for order in chunk if (key := order.import_key) is not None]
    while True:
        new.clear()
        known = app.orders.with_keys(keys)
        try:
            with app.uow() as uow:
                for order in chunk:
                    _place(app, uow, order, known, new)
        except KeyTaken:  # somebody imports the same file; what they placed, we skip
            continue
        return


def _place(
    app: App, uow: UnitOfWork, order: FileOrder, known: dict[str, str], new: list[str]
) -> None:
    if (key := order.import_key) in known:
        return
    order_id = app.bus.send(order.command())
    if order_id not in uow.orders:  # somebody has used the key since we looked
        return
    if key is not None:
        known[key] = order_id
    if order.status == "shipped":
        app.bus.send(ShipOrder(order_id))
    elif order.status == "cancelled":
        app.bus.send(CancelOrder(order_id))
    new.append(order_id)


def _json(order: OrderState, key: str) -> str:
    fields = msgspec.to_builtins(order)
    if key != order.id:
        fields["key"] = key
    return as_json(fields)


def _csv_line(fields: Iterable[object]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


_decoder = msgspec.json.Decoder(FileOrder)


def _row(line: int, data: bytes) -> Row:
    try:
        order = _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's, and of bytes that are not UTF-8
        reason = str(error).replace("Input data was truncated", "not JSON, or half a character")
        return Row(line, FileOrder([]), reason)
    return Row(line, order)


def _read_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            text = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            if text.strip():
                yield _row(number, text)


def _read_json(path: Path) -> Iterator[Row]:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        orders = msgspec.json.decode(data, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        yield Row(1, FileOrder([]), "the file must be an array of orders")
        return
    except (ValueError, RecursionError) as error:  # msgspec says at which byte, or at none
        byte = re.search(r"\(byte (\d+)\)", str(error))
        end = int(byte[1]) if byte else len(data.rstrip())
        yield Row(data.count(b"\n", 0, end) + 1, FileOrder([]), str(error))
        return
    line, position = 1, 0
    for raw in orders:
        order = bytes(raw)
        start = data.index(order, position)
        line += data.count(b"\n", position, start)
        yield _row(line, order)
        line += order.count(b"\n")
        position = start + len(order)


def _read_csv(path: Path) -> Iterator[Row]:
    """Gather the rows of a key, which need not stand together, into one order."""
    found: dict[str, Row] = {}
    for line, fields, trouble in _csv_rows(path):
        if trouble is not None:
            yield Row(line, FileOrder([]), trouble)
            continue
        facts = {name: fields[name] for name in ("customer", "key", "status") if fields.get(name)}
        try:
            order = msgspec.convert({"items": [], **facts}, FileOrder)
        except msgspec.ValidationError as error:
            yield Row(line, FileOrder([]), str(error))
            continue
        key = fields["key"].strip()
        if not key:
            yield Row(line, order, "the key is blank; rows with one key are one order")
            continue
        row = found.setdefault(key, Row(line, order))
        row.order.items.append(fields["item"])
        for name in ("customer", "status"):  # where it is blank, it is as above
            if name in facts and facts[name] != getattr(row.order, name):
                yield Row(line, order, f"the {name} differs from that in line {row.line}")
    yield from found.values()


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str], str | None]]:
    """Yield line number, fields by column, and what is wrong with the row."""
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        rows = csv.reader(file, strict=True)
        header: list[str] | None = None
        while True:
            line = rows.line_num + 1
            try:
                fields = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                yield line, {}, str(error)
                break
            if header is None:
                header = [name.strip() for name in fields]
                if not {"key", "item"} <= set(header) <= set(COLUMNS):
                    yield line, {}, f"the header must name key and item, and may name {_OPTIONAL}"
                    return
                if len(set(header)) < len(header):
                    yield line, {}, "the header names a column twice"
                    return
            elif fields and len(fields) != len(header):
                yield line, {}, f"{len(fields)} fields stand under {len(header)} columns"
            elif fields:
                yield line, dict(zip(header, fields, strict=True)), None
    if header is None:
        yield 1, {}, "the file is empty; it needs a header that names the columns key and item"
