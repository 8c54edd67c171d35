"""Draws the picture of the README: what `orders demo` shows on a terminal of 84 columns.

python .github/picture.py [FILE]    writes .github/tour.svg, or FILE

What differs from run to run, process ids and the ids of orders, is drawn as it came; a test
compares all else and fails when the picture is stale.
"""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 84
LINK = re.compile(r"\x1b\]8;[^\x1b]*\x1b\\")  # which Rich does not read back


def picture() -> str:
    """Return the tour as SVG."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ORDERS_") and name != "NO_COLOR"
    }
    played = subprocess.run(
        [sys.executable, "-m", "orders", "demo", "tour"],
        env=environment | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=True,
    )
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(LINK.sub("", played.stdout).strip("\n")))
    return console.export_svg(title="orders demo", unique_id="tour")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("tour.svg")
    target.write_text(picture(), "utf-8")
