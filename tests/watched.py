"""What every server of the tests needs: somebody who ends it, whatever becomes of the tests."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Ends the server when whoever has our standard input is gone, killed or not.
WATCHER = """
import os, shutil, sys
directory, pid_file, ending = sys.argv[1:]
sys.stdin.read()
try:
    with open(pid_file) as file:
        os.kill(int(file.readline()), int(ending))
except (OSError, ValueError):
    pass
shutil.rmtree(directory, ignore_errors=True)
"""


class Watched:
    """A temporary directory for a server; `close` ends the server and removes the directory.

    Args:
        name: what the directory's begins with.
        pid_file: in there; its first line is the server's process id.
        ending: the signal that ends the server and leaves nothing.
    """

    def __init__(self, name, pid_file, ending):
        self.directory = Path(tempfile.mkdtemp(prefix=f"orders-{name}-"))
        pid_file = self.directory / pid_file
        self._watcher = subprocess.Popen(
            [sys.executable, "-S", "-c", WATCHER, self.directory, pid_file, str(int(ending))],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        os.register_at_fork(after_in_child=self._watcher.stdin.close)  # a child may outlive us

    def close(self):
        self._watcher.stdin.close()
        self._watcher.wait()
