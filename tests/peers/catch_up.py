"""Compares projections: how many stored events a second a newcomer catches up on.

    python tests/peers/catch_up.py [--events 10000] [--json]

The follower counts the items of orders. It has never run before, and processes every event
from the first one; opening the store, and storing the counts with their position, is part of
it. Against the runner of the `eventsourcing` library, the one peer whose followers keep their
position with what they have made. Each stores as it is made to: that library after each event,
in a transaction; this package once, at the end, for a follower that is killed before has only to
read the log again.
"""

import sys
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from fresh import Result, run_fresh
from rounds import parser, play, report

FOLLOWED = ["orders", "eventsourcing"]


def main() -> int:
    """Do what the command line says."""
    options = parser("Compare projections: stored events a second that a newcomer processes.")
    options.add_argument("--events", type=int, default=10000)
    wanted = options.parse_args()

    with TemporaryDirectory(dir=wanted.directory) as name:

        @cache
        def filled(peer: str) -> Path:
            """Return a store of events, made once, that nobody has followed."""
            directory = Path(name, peer)
            directory.mkdir()
            run_fresh(peer, "fill", directory, wanted.events, wanted.seconds)
            return directory

        def run(peer: str) -> Result:
            with TemporaryDirectory(dir=wanted.directory) as directory:
                copytree(filled(peer), directory, dirs_exist_ok=True)
                return run_fresh(peer, "catch_up", Path(directory), wanted.events, wanted.seconds)

        peers = [peer for peer in FOLLOWED if peer in (wanted.peers or FOLLOWED)]
        rows = play(peers, wanted.events, wanted.rounds, wanted.directory, run)
        return report(rows, "events", wanted)


if __name__ == "__main__":
    sys.exit(main())
