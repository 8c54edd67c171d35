"""The `eventsourcing` library on SQLite files, with a thread for each follower.

Durability: that of `eventsourcing_peer.py`, but `place_order` returns before the followers
have run; what they have not processed by then, they do after a crash. An order counts here
when both have run. The older of the library's multi-threaded runners: the newer one does
a seventh less.
"""

from pathlib import Path

from eventsourcing.system import MultiThreadedRunner
from eventsourcing_peer import run_with, stored

__all__ = ["run", "stored"]


def run(directory: Path, orders: int, deadline: float) -> int:
    """Place orders until all are placed or the time is up; return how many were."""
    return run_with(MultiThreadedRunner, directory, orders, deadline)
