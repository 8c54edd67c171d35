"""A process is killed between commit and notice: here, and as the article wires it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tinydb import TinyDB

from . import Stage

ARTICLE = Path(__file__).with_name("article_wiring.py")


def run(stage: Stage) -> None:
    """Kill both; run the next command of both; see which one remembers the notice."""
    stage.data.mkdir()
    plain = stage.data / "plain.json"

    stage.step("The article's wiring, killed between storing the order and the notice")
    killed = _run(sys.executable, str(ARTICLE), str(plain), "magic carpet", "--die")
    stage.check("the process was really killed", killed.returncode == -signal.SIGKILL)
    after = _run(sys.executable, str(ARTICLE), str(plain), "rope")
    stage.show(after.stdout)
    stage.check("both orders are in its file", len(TinyDB(plain)) == 2)
    stage.check("the first one's notice is lost for good", "magic carpet" not in after.stdout)

    stage.step("orders place, killed at the same place: after the commit, before the notice")
    orders = (sys.executable, "-m", "orders", "--data", str(stage.data / "store"))
    killed = _run(*orders, "place", "magic carpet", ORDERS_FAULT="after-fsync")
    stage.check("the process was really killed", killed.returncode == -signal.SIGKILL)
    stage.check("nobody was notified", "New Order" not in killed.stdout)

    stage.step("The next command makes the delivery that is pending")
    after = _run(*orders, "place", "rope")
    stage.show(after.stderr)
    stage.show(after.stdout)
    stage.check("the first order's notice came late, but came", "magic carpet" in after.stderr)
    again = _run(*orders, "list")
    stage.check("and only once", "New Order" not in again.stdout + again.stderr)
    stage.check("both orders are stored", again.stdout.count("\n") == 2)


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ORDERS_")}
    own |= {"FORCE_COLOR": "", "PYTHONUTF8": "1"}
    return subprocess.run(
        command, env=own | environment, capture_output=True, encoding="utf-8", check=False
    )
