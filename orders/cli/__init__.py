"""The command line: `main` is its entry point, `app` the Typer application.

Each command parses, sends a message or asks the store, and shows the answer. May import
everything but the engines.
"""

import sys
from typing import NoReturn

try:  # imports take most of a command's time, and Ctrl-C may come at any moment of it
    import signal

    from .root import app, run
except KeyboardInterrupt:
    sys.exit(130)

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    try:
        status = run()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
