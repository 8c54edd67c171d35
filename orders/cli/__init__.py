"""The command line: `main` is its entry point, `app` the Typer application.

Each command parses, sends a message or asks the store, and shows the answer. May import
everything but the engines.
"""

import signal

from .. import startup

startup.begin()

from .. import plugins
from .root import app, run

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        startup.end()
        status = run()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    except KeyboardInterrupt:
        status = 130
    except RuntimeError as error:  # as which Python 3.11 reports it while a class is made
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        status = 130
    startup.leave(status, is_alone=not plugins.loaded)
