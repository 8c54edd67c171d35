"""Where a scenario is played: a directory and processes, of which nothing is left behind.

Ctrl-C, SIGTERM or SIGHUP may come at any moment: while a process is started, while the directory
is removed. So the directory has its name before it is made, a process is known before an
interrupt is heard, and nothing interrupts the tidying up. What kill -9 leaves, see `remains`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from types import FrameType
from typing import Any, NamedTuple

from ..messaging.message import new_id
from . import remains

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        self.directory = Path(gettempdir()) / f"{remains.PREFIX}{new_id()}"
        self.environment = {"FORCE_COLOR": "", "PYTHONUTF8": "1"}
        self._processes: dict[subprocess.Popen[str], int] = {}  # and the signal that ends each
        self._mark = -1  # a descriptor, see `remains`
        self.is_interrupted = self._is_deaf = self._is_watched = False

    def enter(self) -> None:
        """Make the directory; remove those of demos that are gone."""
        remains.clear_all()
        self.directory.mkdir(mode=0o700)
        self._mark = remains.mark(self.directory)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python process, to be talked to by pipes.

        Args:
            arguments: what follows `python`.
            environment: variables of this process only.
        """
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return self._start([sys.executable, *arguments], environment, signal.SIGKILL, **pipes)

    def begin(
        self,
        name: str,
        *command: str | Path,
        ending: int = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a program that is to run until the end of all, even if that is kill -9.

        Args:
            name: of the files that it writes to: ``name.out``, and ``name.err`` for what it says.
            command: the program and its arguments.
            ending: the signal that ends it without remains, see `remains.ENDINGS`.
            environment: variables of this process only.
            options: of the process, as for `subprocess.Popen`.
        """
        if not self._is_watched:
            self._watch()
        with (
            (self.directory / f"{name}.out").open("ab") as output,
            (self.directory / f"{name}.err").open("ab") as talk,
        ):
            files: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": talk}
            return self._start(command, environment or {}, ending, **files, **options)

    def lines(self, name: str) -> list[str]:
        """Return the lines that programs of this name have written so far, whole ones only."""
        *lines, _ = (self.directory / f"{name}.out").read_text(encoding="utf-8").split("\n")
        return lines

    def last_words(self, name: str) -> str:
        """Return the last line of what programs of this name have said."""
        talk = (self.directory / f"{name}.err").read_text(encoding="utf-8", errors="replace")
        return talk.rstrip().rpartition("\n")[2] or "it said nothing"

    def _watch(self) -> None:
        """Have somebody look after what we leave, should we be killed."""
        script = [sys.executable, "-P", "-S", remains.__file__, str(self.directory)]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._start(script, {}, signal.SIGKILL, belongs=False, start_new_session=True, **quiet)
        self._is_watched = True

    def _start(
        self,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        ending: int,
        *,
        belongs: bool = True,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """Start a process; one that belongs to the demo is ended with it, even if by kill -9."""
        if belongs:
            mark = self._mark
            options |= {"pass_fds": (mark,), "preexec_fn": lambda: remains.belong(mark, ending)}
        own = {name: value for name, value in os.environ.items() if not name.startswith("ORDERS_")}
        self._is_deaf = True
        try:
            process = subprocess.Popen(
                command, env={**own, **self.environment, **environment}, encoding="utf-8", **options
            )
            self._processes[process] = ending
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
        for process, ending in reversed(self._processes.items()):
            process.send_signal(ending)
            try:
                process.wait(remains.PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with suppress(OSError):  # what was to be written has no reader any more
                    pipe.close()
        remains.remove(self.directory)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1


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
            workspace.enter()
            play()
        finally:
            workspace.leave()
    finally:  # a signal may have come between the two words before
        workspace.leave()
        for number, handler in before.items():
            signal.signal(number, handler)
    if workspace.is_interrupted:  # while tidying up, or somebody has swallowed it
        raise KeyboardInterrupt
