"""Times whole commands, beside what else a start of Python costs on this machine.

    python tests/peers/commands.py [--rounds 21] [--orders 100000] [--json]

`orders place` and `orders list` in the scripts' directory of this interpreter are run, piped,
in rounds with the scripts that they are compared with; the table shows medians, and ratios of
medians. PYTHONDONTWRITEBYTECODE is ignored: a stranger's second start has its bytecode.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ORDERS = Path(sys.executable).with_name("orders")
ARTICLE = Path(__file__).with_name("article.py")
PARSE = """
import json, sys, time
start = time.perf_counter()
json.load(open(sys.argv[1], encoding="utf-8"))
print(time.perf_counter() - start)
"""

RATIOS = {  # what: at most
    ("place", "article"): 2.0,
    ("place", "pass"): 10.0,
    ("place, large", "place"): 1.15,
    ("list as a table, large", "parse, large"): 1.0,
}


def main() -> int:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description="Time whole commands.")
    options.add_argument("--rounds", type=int, default=21)
    options.add_argument("--orders", type=int, default=100_000, help="held by the large store")
    options.add_argument("--json", action="store_true")
    wanted = options.parse_args()
    with TemporaryDirectory(dir=Path.cwd(), prefix=".orders-commands-") as directory:
        times = measure(Path(directory), wanted.rounds, wanted.orders)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    ratios = {f"{a} / {b}": medians[a] / medians[b] for a, b in RATIOS}
    if wanted.json:
        print(json.dumps({"seconds": medians, "ratios": ratios}))
        return 0
    for name, seconds in medians.items():
        print(f"{name:40}{seconds * 1000:8.1f} ms   fastest {min(times[name]) * 1000:8.1f}")
    for (name, ratio), most in zip(ratios.items(), RATIOS.values(), strict=True):
        print(f"{name:40}{ratio:8.2f}      at most {most:8.2f}")
    return 0


def measure(directory: Path, rounds: int, orders: int) -> dict[str, list[float]]:
    """Return the seconds of each command in each round."""
    small, large = directory / "small", directory / "large"
    fill(large, directory / "orders.jsonl", orders)
    commands = {
        "pass": [sys.executable, "-c", "pass"],
        "article": [sys.executable, ARTICLE, directory / "article.json", "100 inch TV"],
        "place": [ORDERS, "--data", small, "place", "100 inch TV"],
        "place, large": [ORDERS, "--data", large, "place", "100 inch TV"],
        "list": [ORDERS, "--data", small, "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(seconds_of(command))
    run([ORDERS, "--data", large, "checkpoint"])
    times |= {"list as a table, large": [], "parse, large": []}
    for _ in range(rounds):
        table = seconds_of([ORDERS, "--data", large, "list"], FORCE_COLOR="1")
        times["list as a table, large"].append(table)
        parsed = run([sys.executable, "-c", PARSE, large / "orders.json"])
        times["parse, large"].append(float(parsed))
    return times


def fill(data: Path, file: Path, orders: int) -> None:
    """Make the large store."""
    with file.open("w", encoding="utf-8") as lines:
        for number in range(orders):
            items = [f"item {random.randrange(1000)}" for _ in range(random.randint(1, 3))]
            line = {"items": items, "customer": f"customer {number % 500}", "key": f"key {number}"}
            lines.write(json.dumps(line) + "\n")
    run([ORDERS, "--data", data, "import", file])


def seconds_of(command: list[object], **environment: str) -> float:
    """Return how long a process takes from start to end."""
    start = time.perf_counter()
    run(command, **environment)
    return time.perf_counter() - start


def run(command: list[object], **environment: str) -> str:
    """Run a process; return what it printed."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("ORDERS_")
    }
    return subprocess.run(
        list(map(str, command)), env=own | environment, capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
