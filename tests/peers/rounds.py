"""Rounds of runs, the peers taking turns, and the table that comes out of them."""

import argparse
import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, NamedTuple

from fresh import Failed, NotInstalled, Result

PEERS = {
    "orders": "this package",
    "eventsourcing": "eventsourcing, SQLite",
    "eventsourcing_threads": "eventsourcing, SQLite, threads",
    "eventsource_py": "eventsource-py, SQLite",
    "cqrs_message_bus": "cqrs-message-bus, TinyDB",
    "pybondi": "pybondi, TinyDB",
    "article": "the article, JSON file",
}
PACKAGES = (
    "orders",
    "eventsourcing",
    "eventsource-py",
    "cqrs-message-bus",
    "pybondi",
    "pypubsub",
    "tinydb",
)
SYNCS = 200  # to measure what one costs


class Row(NamedTuple):
    """What one peer did, and what an fsync cost meanwhile: the disk is not always as quick."""

    peer: str
    amount: int  # asked for in each round
    done: int = 0  # in the worst round
    rates: tuple[float, ...] = ()  # a second, of each round
    syncs: tuple[float, ...] = ()  # seconds that an fsync took before each round
    note: str = ""  # why it has not done all

    @property
    def rate(self) -> float | None:
        """The median of the rounds."""
        return median(self.rates) if self.rates else None


def play(
    peers: Sequence[str],
    amount: int,
    rounds: int,
    directory: Path,
    run: Callable[[str], Result],
) -> list[Row]:
    """Run every peer once a round, each round another one first; return a row for each.

    Fsyncs are measured in `directory`.

    A peer that is not installed, fails or is stopped does not play the next round.
    """
    results: dict[str, list[Result]] = {peer: [] for peer in peers}
    syncs: dict[str, list[float]] = {peer: [] for peer in peers}
    notes: dict[str, str] = {}
    for number in range(rounds):
        first = number % len(peers)
        for peer in [*peers[first:], *peers[:first]]:
            if peer in notes:
                continue
            print(f"round {number + 1}: {amount:,}: {PEERS[peer]}", file=sys.stderr)
            sync = _sync_cost(directory)
            try:
                result = run(peer)
            except NotInstalled as error:
                notes[peer] = f"not installed ({error})"
            except Failed as error:
                notes[peer] = "failed"
                print(error, file=sys.stderr)
            else:
                results[peer].append(result)
                syncs[peer].append(sync)
                if result.done < amount:
                    notes[peer] = f"stopped after {result.seconds:.0f} s, at {result.done:,}"
    return [
        Row(
            PEERS[peer],
            amount,
            min((result.done for result in results[peer]), default=0),
            tuple(result.done / result.seconds for result in results[peer]),
            tuple(syncs[peer]),
            notes.get(peer, ""),
        )
        for peer in peers
    ]


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that both comparisons have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--peers", nargs="+", choices=PEERS, help="only these")
    made.add_argument("--rounds", type=int, default=3, help="medians of so many")
    made.add_argument("--seconds", type=float, default=60, help="after which a run is stopped")
    made.add_argument(
        "--directory", type=Path, default=gettempdir(), help="on the file system to be used"
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return made


def report(rows: Sequence[Row], what: str, options: argparse.Namespace) -> int:
    """Print the rows, and on what they were measured; return the exit status."""
    ours = {row.amount: row.rate for row in rows if row.peer == PEERS["orders"]}.get
    records: list[dict[str, Any]] = [
        {
            **row._asdict(),
            f"{what}_a_second": row.rate,
            "ratio": own / row.rate if row.rate and (own := ours(row.amount)) else None,
        }
        for row in rows
    ]
    machine = _machine()
    if options.json:
        print(json.dumps({"machine": machine, "rows": records}, indent=2))
    else:
        print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n")
        for amount in dict.fromkeys(row.amount for row in rows):
            heads = (f"{what:>8}", *map("{:>9}".format, ("a second", "slowest", "fastest")))
            print(f"\n{'peer':30}", *heads, "ratio", " fsync")
            for row, record in zip(rows, records, strict=True):
                if row.amount == amount:
                    print(_line(row, record["ratio"]))
        print(
            "\nratio: how many times as many this package does in the same time; fsync: the median"
            "\nmicroseconds of one that appends half a kilobyte, measured before each run"
        )
    return 1 if any(row.note == "failed" for row in rows) else 0


def _line(row: Row, ratio: float | None) -> str:
    name = f"{row.peer:30} {row.amount:8,}"
    if row.rate is None:
        return f"{name} {row.note}"
    rates = " ".join(f"{rate:9,.0f}" for rate in (row.rate, min(row.rates), max(row.rates)))
    times = f"{ratio:5.2f}" if ratio is not None else "    -"
    return f"{name} {rates} {times} {median(row.syncs) * 1e6:6,.0f} {row.note}".rstrip()


def _machine() -> dict[str, str]:
    """Say what the figures depend on."""
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    return {
        "versions": ", ".join([*versions, f"SQLite {sqlite3.sqlite_version}"]),
        "python": f"{platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _sync_cost(directory: Path) -> float:
    """Return the median seconds of an append of half a kilobyte and its fsync."""
    costs = []
    with TemporaryDirectory(dir=directory) as name, (Path(name) / "log").open("ab", 0) as file:
        for _ in range(SYNCS):
            start = time.perf_counter()
            file.write(b"." * 512)
            os.fsync(file)
            costs.append(time.perf_counter() - start)
    return median(costs)
