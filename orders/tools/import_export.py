"""Orders in and out as files: JSON, JSON lines and CSV, in and out alike.

What is exported can be imported. A file is read once, and every bad line in it found, before
the first of its orders is placed, many to a unit of work.
"""

import csv
import gc
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from os import fsync
from os.path import realpath
from pathlib import Path
from shutil import copymode
from tempfile import NamedTemporaryFile
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from ..bootstrap import App
from ..domain.commands import CancelOrder, PlaceOrder, ShipOrder
from ..domain.order import OrderState, valid_items, valid_text
from ..errors import (
    ImportRefused,
    Interrupted,
    InvalidOrder,
    KeyTaken,
    NotWritten,
    OrdersError,
    StoreError,
)
from .json_lines import as_json, json_array

Format = Literal["json", "jsonl", "csv"]

COLUMNS = ("key", "item", "customer", "status", "id", "placed_at", "version")
_OPTIONAL = ", ".join(COLUMNS[2:])
CHUNK = 500  # orders a unit of work
SHOWN = 10  # bad lines that are named
KEPT = 100_000  # objects made before Python looks for garbage among them


class Counts(NamedTuple):
    """What became of the orders of a file."""

    imported: int
    skipped: int  # their key was known


class FileOrder(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An order as a file has it; `id`, that of another store, serves as key where none is."""

    items: list[str]
    customer: str | None = None
    key: str | None = None
    id: str | None = None
    status: Literal["placed", "shipped", "cancelled"] = "placed"
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

    def command(self, key: str | None) -> PlaceOrder:
        """Return the command that places it with its `import_key`."""
        return PlaceOrder(tuple(self.items), self.customer, key)


Found = tuple[int, FileOrder | str]  # a line, and the order that begins there, or what is wrong


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Have Python look for garbage rarely: most of what an import makes, it keeps."""
    before = gc.get_threshold()
    gc.set_threshold(KEPT)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def format_of(path: Path) -> Format:
    """Return the format that the file's name says.

    Raises:
        OrdersError: it says none that we know.
    """
    formats: tuple[Format, ...] = get_args(Format)
    for known in formats:
        if path.suffix.lower() == f".{known}":
            return known
    raise OrdersError(
        f"the name of {path} does not say its format", "have it end in .csv, .jsonl or .json"
    )


@_rare_collections()
def read(path: Path) -> deque[FileOrder]:
    """Return the orders of a file, all of which keep the rules.

    Raises:
        ImportRefused: some of its lines cannot be imported.
        OrdersError: it cannot be read.
    """
    readers = {"json": _read_json, "jsonl": _read_lines, "csv": _read_csv}
    reader = readers[format_of(path)]
    if path.exists() and not path.is_file():
        raise OrdersError(
            f"cannot read {path}: it is a directory or a pipe", "give the name of a file"
        )
    orders: deque[FileOrder] = deque()
    problems: list[tuple[int, str]] = []
    try:
        for line, found in reader(path):
            if isinstance(found, str):
                problems.append((line, found))
            elif problem := found.problem():
                problems.append((line, problem))
            else:
                orders.append(found)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OrdersError(
            f"cannot read {path}: {reason}", "give the name of a file that can be read"
        ) from error
    if problems:
        raise ImportRefused(path, sorted(problems)[:SHOWN], len(problems))
    return orders


@_rare_collections()
def import_orders(app: App, orders: deque[FileOrder], advance: Callable[[], None]) -> Counts:
    """Place the orders whose key is new, taking them from `orders`; call `advance` for each one.

    Raises:
        Interrupted: somebody pressed Ctrl-C; what was placed before stays.
        StoreError: the store cannot be used any more; what was placed before stays.
    """
    imported = skipped = 0
    new: list[str] = []
    try:
        while orders:
            chunk = [orders.popleft() for _ in range(min(CHUNK, len(orders)))]
            _place_chunk(app, chunk, new)
            imported += len(new)
            skipped += len(chunk) - len(new)
            new.clear()
            for _ in chunk:
                advance()
    except KeyboardInterrupt:  # perhaps after the commit, while its events were delivered
        app.deliveries.recover()
        imported += len(new) if new and new[-1] in app.orders else 0
        raise Interrupted(f"{imported:,} orders imported", "run it again for the rest") from None
    except StoreError as error:
        what = f"{imported:,} orders imported; of the rest: {error}"
        raise StoreError(what, error.hint) from error
    return Counts(imported, skipped)


def write(orders: Iterable[OrderState], keys: Mapping[str, str], to: Format) -> Iterator[str]:
    """Yield the orders, whose keys are given by order id, as the lines of a file of this format."""
    if to == "csv":
        yield _csv_line(COLUMNS)
        for order in orders:
            fields = {**msgspec.to_builtins(order), "key": keys.get(order.id, order.id)}
            for item in order.items:
                fields["item"] = item
                yield _csv_line([fields[column] for column in COLUMNS])
        return
    objects = (_object(order, keys) for order in orders)
    yield from map(as_json, objects) if to == "jsonl" else json_array(objects)


def write_file(path: Path, lines: Iterable[str]) -> None:
    """Write lines into a file: all of them or none, unless it is a pipe or a device.

    A symbolic link stays one; a file keeps its mode, and a new one is for its owner only.

    Raises:
        NotWritten: the system refuses.
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    target = Path(realpath(path))
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as new:
            try:
                if target.exists():
                    copymode(target, new.name)
                new.write(data)
                new.flush()
                fsync(new.fileno())
                Path(new.name).replace(target)
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise NotWritten(path, (error.strerror or str(error)).lower()) from error


def _place_chunk(app: App, chunk: list[FileOrder], new: list[str]) -> None:
    """Place the orders in one unit of work; put the ids of the new ones into `new`."""
    keys = [order.import_key for order in chunk]
    wanted = {key for key in keys if key is not None}
    while True:
        new.clear()
        try:
            with app.uow() as uow:
                known = set(uow.orders.with_keys(wanted))
                for order, key in zip(chunk, keys, strict=True):
                    _place(app, order, key, known, new)
        except KeyTaken:  # somebody imports the same file; what they placed, we skip
            continue
        return


def _place(app: App, order: FileOrder, key: str | None, known: set[str], new: list[str]) -> None:
    if key in known:
        return
    order_id = app.bus.send(order.command(key))
    if order_id not in app.unit_of_work.unit.orders:  # somebody has used the key since we looked
        return
    if key is not None:
        known.add(key)
    if order.status == "shipped":
        app.bus.send(ShipOrder(order_id))
    elif order.status == "cancelled":
        app.bus.send(CancelOrder(order_id))
    new.append(order_id)


def _object(order: OrderState, keys: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(order)
    return fields | {"key": keys[order.id]} if order.id in keys else fields


def _csv_line(fields: Iterable[object]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


_decoder = msgspec.json.Decoder(FileOrder)


def _decode(data: bytes) -> FileOrder | str:
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's, and of bytes that are not UTF-8
        return str(error).replace("Input data was truncated", "not JSON, or half a character")


def _read_lines(path: Path) -> Iterator[Found]:
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            text = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            if text.strip():
                yield number, _decode(text)


def _read_json(path: Path) -> Iterator[Found]:
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        orders = msgspec.json.decode(data, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        yield 1, "the file must be an array of orders"
        return
    except (ValueError, RecursionError) as error:  # msgspec says at which byte, or at none
        byte = re.search(r"\(byte (\d+)\)", str(error))
        end = int(byte[1]) if byte else len(data.rstrip())
        yield data.count(b"\n", 0, end) + 1, str(error)
        return
    line, position = 1, 0
    for raw in orders:
        order = bytes(raw)
        start = data.index(order, position)
        line += data.count(b"\n", position, start)
        yield line, _decode(order)
        line += order.count(b"\n")
        position = start + len(order)


def _read_csv(path: Path) -> Iterator[Found]:
    """Make one order of the rows of a key, which need not stand together."""
    orders: dict[str, tuple[int, FileOrder]] = {}
    for line, row in _csv_rows(path):
        if isinstance(row, str):
            yield line, row
            continue
        facts = {name: row[name] for name in ("customer", "key", "status") if row.get(name)}
        try:
            order = msgspec.convert({"items": [], **facts}, FileOrder)
        except msgspec.ValidationError as error:
            yield line, str(error)
            continue
        key = row["key"].strip()
        if not key:
            yield line, "the key is blank; rows with one key are one order"
            continue
        begin, first = orders.setdefault(key, (line, order))
        first.items.append(row["item"])
        for name in ("customer", "status"):  # where it is blank, it is as above
            if name in facts and facts[name] != getattr(first, name):
                yield line, f"the {name} differs from that in line {begin}"
    yield from orders.values()


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Yield the line at which a row begins, and its fields by column, or what is wrong with it."""
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        rows: Any = csv.DictReader(file, restkey="", strict=True)
        line = 1
        try:
            header = [name.strip() for name in rows.fieldnames or ()]
            if problem := _header_problem(header, is_empty=rows.fieldnames is None):
                yield line, problem
                return
            rows.fieldnames = header
            line = rows.line_num + 1
            for row in rows:
                fields = [text for text in row.values() if isinstance(text, str)]
                extra = row.get("", ())
                begin = rows.line_num - sum(text.count("\n") for text in (*fields, *extra))
                number = len(fields) + len(extra)
                if number == len(header):
                    yield begin, row
                else:
                    yield begin, f"{number} fields stand under {len(header)} columns"
                line = rows.line_num + 1
        except csv.Error as error:
            yield line, str(error)


def _header_problem(header: list[str], *, is_empty: bool) -> str | None:
    if is_empty:
        return "the file is empty; it needs a header that names the columns key and item"
    if not {"key", "item"} <= set(header) <= set(COLUMNS):
        return f"the header must name key and item, and may name {_OPTIONAL}"
    return "the header names a column twice" if len(set(header)) < len(header) else None
