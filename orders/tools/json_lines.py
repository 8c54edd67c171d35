"""JSON as it is printed and exported: a value a line."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec


def as_json(value: Any) -> str:
    """Return a value as one line of JSON."""
    return msgspec.json.encode(value).decode()


def json_array(values: Iterable[Any]) -> Iterator[str]:
    """Yield the lines of a JSON array, a value a line."""
    yield "["
    before: str | None = None
    for line in map(as_json, values):
        if before is not None:
            yield f" {before},"
        before = line
    if before is not None:
        yield f" {before}"
    yield "]"
