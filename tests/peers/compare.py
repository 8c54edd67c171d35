"""Compares this package with its peers: orders placed a second, each stored durably.

    python tests/peers/compare.py [--orders 1000 10000] [--seconds 60] [--json]

The work is that of `workload.py`; how each peer does it, and how durably, stands at the top of
its file. Each run has a process and a directory of its own. A peer whose cost grows with what
is stored is stopped after a minute, and the table says how far it came: the rest would have
been slower still. The peers are the dependency group `peers`.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fresh import Result, run_fresh
from rounds import PEERS, Row, parser, play, report


def main() -> int:
    """Do what the command line says."""
    options = parser("Compare with peers: orders placed a second.")
    options.add_argument("--orders", type=int, nargs="+", default=[1000, 10000])
    wanted = options.parse_args()

    def rows(orders: int) -> list[Row]:
        def run(peer: str) -> Result:
            with TemporaryDirectory(dir=wanted.directory) as directory:
                return run_fresh(peer, "place", Path(directory), orders, wanted.seconds)

        return play(wanted.peers or list(PEERS), orders, wanted.rounds, wanted.directory, run)

    return report([row for orders in wanted.orders for row in rows(orders)], "orders", wanted)


if __name__ == "__main__":
    sys.exit(main())
