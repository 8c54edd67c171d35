"""Runs one function of one peer in a process of its own, so that nothing is warm or shared.

    python fresh.py PEER FUNCTION DIRECTORY AMOUNT SECONDS

FUNCTION is one of those below. What came of it is the last line of the standard output.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from workload import check_sold

PATIENCE = 600  # seconds past the deadline, for the order under way, closing and checking


class NotInstalled(Exception):
    """The peer's package is not there, or not for this interpreter."""


class Failed(Exception):
    """The peer did not do the work; what it said instead."""


class Result(NamedTuple):
    """What a function did, and in how many seconds."""

    done: int
    seconds: float


def run_fresh(peer: str, function: str, directory: Path, amount: int, seconds: float) -> Result:
    """Run a function of a peer in a new process; return what came of it.

    Raises:
        NotInstalled: the peer cannot take part.
        Failed: it took part and failed.
    """
    os.sync()  # what others have written is not to be waited for by this one
    command = [sys.executable, __file__, peer, function, directory, amount, seconds]
    try:
        process = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE,
            env={name: os.environ[name] for name in os.environ if not name.startswith("ORDERS_")},
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(str(error)) from error
    if process.returncode:
        raise Failed(process.stderr)
    result = json.loads(process.stdout.splitlines()[-1])
    if "missing" in result:
        raise NotInstalled(result["missing"])
    return Result(result["done"], result["seconds"])


def place(module: Any, directory: Path, amount: int, seconds: float) -> Result:
    """Place orders, opening and closing the store included; then see that it has them."""
    start = time.monotonic()
    done = module.run(directory, amount, start + seconds)
    took = time.monotonic() - start
    if (stored := module.stored(directory)) != done:
        raise RuntimeError(f"{done} orders were placed, but {stored} are stored")
    return Result(done, took)


def fill(module: Any, directory: Path, amount: int, _seconds: float) -> Result:
    """Store events, one an order."""
    start = time.monotonic()
    module.fill(directory, amount)
    return Result(amount, time.monotonic() - start)


def catch_up(module: Any, directory: Path, amount: int, _seconds: float) -> Result:
    """Have a newcomer process all stored events; then see that it has."""
    start = time.monotonic()
    sold = module.catch_up(directory)
    took = time.monotonic() - start
    check_sold(sold, amount)
    return Result(amount, took)


FUNCTIONS: dict[str, Callable[[Any, Path, int, float], Result]] = {
    "place": place,
    "fill": fill,
    "catch_up": catch_up,
}


def main(peer: str, function: str, directory: str, amount: str, seconds: str) -> None:
    """Do what the command line says."""
    try:
        module = import_module(f"{peer}_peer")
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return
    result = FUNCTIONS[function](module, Path(directory), int(amount), float(seconds))
    print(json.dumps(result._asdict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
