"""Where a scenario is played: a directory and processes, of which nothing is left behind.

Ctrl-C, SIGTERM or SIGHUP may come at any moment: while a process is started, while the directory
is removed. So the directory has its name before it is made, a process is known before an
interrupt is heard, and nothing interrupts the tidying up.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir
from types import FrameType
from typing import NamedTuple

from ..messaging.message import new_id

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TRIES = 100  # to remove the directory: a thread that ends may be writing to it


class Finished(NamedTuple):
    """A process that has ended."""

    process: int  # its id
    status: int  # negative: the signal that killed it
    output: str
    talk: str  # what it said on standard error

    @property
    def was_killed(self) -> bool:
        """Whether it was kill -9 that ended it."""
        return self.status == -signal.SIGKILL


class Workspace:
    """A directory of its own, and the processes at work there.

    Attributes:
        directory: empty at first.
        environment: what processes are started with, besides what is not of `orders`.
        is_interrupted: whether a signal came that is to end us.
    """

    def __init__(self) -> None:
        self.directory = Path(gettempdir()) / f"orders-demo-{new_id()}"
        self.environment = {"FORCE_COLOR": "", "PYTHONUTF8": "1"}
        self._processes: list[subprocess.Popen[str]] = []
        self.is_interrupted = self._is_deaf = False

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python process, to be talked to by pipes.

        Args:
            arguments: what follows `python`.
            environment: variables of this process only.
        """
        own = {name: value for name, value in os.environ.items() if not name.startswith("ORDERS_")}
        self._is_deaf = True
        try:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=own | self.environment | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            self._processes.append(process)
        finally:
            self._is_deaf = False
        if self.is_interrupted:
            raise KeyboardInterrupt
        return process

    def finish(self, process: subprocess.Popen[str]) -> Finished:
        """Wait for the end of a process."""
        output, talk = process.communicate()
        return Finished(process.pid, process.returncode, output, talk)

    def interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Hear a signal that is to end us."""
        self.is_interrupted = True
        if not self._is_deaf:
            raise KeyboardInterrupt

    def leave(self) -> None:
        """Kill what runs and remove what is there, whatever signal comes meanwhile."""
        self._is_deaf = True
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with suppress(OSError):  # what was to be written has no reader any more
                    pipe.close()
        for _ in range(TRIES):
            if not self.directory.exists():
                return
            rmtree(self.directory, ignore_errors=True)


def play_in(workspace: Workspace, play: Callable[[], None]) -> None:
    """Make the directory, play, and leave nothing.

    Raises:
        KeyboardInterrupt: a signal has ended it.
    """
    before = {
        number: signal.signal(number, workspace.interrupt)
        for number in ENDING
        if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}
    }
    try:
        try:
            workspace.directory.mkdir(mode=0o700)
            play()
        finally:
            workspace.leave()
    finally:  # a signal may have come between the two words before
        workspace.leave()
        for number, handler in before.items():
            signal.signal(number, handler)
    if workspace.is_interrupted:  # while tidying up, or somebody has swallowed it
        raise KeyboardInterrupt
