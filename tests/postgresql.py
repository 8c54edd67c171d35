"""A real PostgreSQL, from a wheel: its programs only, on a port and in a directory of its own."""

import signal
import subprocess
import time
from contextlib import suppress

import psutil
import psycopg
import pytest
from watched import Watched

from orders.demos.servers import free_port, hand_over, postgres_programs, readable

QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
SAFE = ("fsync=on",)
ALWAYS = (
    "listen_addresses=127.0.0.1",
    "autovacuum=off",
    "shared_buffers=32MB",
    "max_connections=60",
    "log_min_messages=fatal",
    "log_min_error_statement=panic",
)
ACCESS = """
local all all trust
host replication all 127.0.0.1/32 trust
host all guarded 127.0.0.1/32 scram-sha-256
host all all samenet trust
"""
USER = "postgres"


def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Server(Watched):
    """A cluster of its own, in a temporary directory; `close` removes it.

    Attributes:
        port: on 127.0.0.1.
        directory: of everything.
        data: the cluster's, in there.
    """

    data = "data"

    def __init__(self, *settings):
        if postgres_programs() is None:
            pytest.skip("no wheel has PostgreSQL for this platform")
        self.port = free_port()
        super().__init__("postgres", "data/postmaster.pid", signal.SIGQUIT)
        self._settings = (*ALWAYS, *settings, f"unix_socket_directories={self.directory}")
        self._as_user = hand_over(self.directory)
        self._bin = readable(postgres_programs(), self.directory, self._as_user)
        self.run("initdb", "-D", "data", "-U", USER, "-E", "UTF8", "--no-sync", "--locale=C")
        (self.directory / "data/pg_hba.conf").write_text(ACCESS)
        self.start()

    def start(self, *settings):
        """Start, or start again, with these settings on top; return when it is ready."""
        options = " ".join(f"-c {setting}" for setting in (*self._settings, *settings))
        log, options = f"{self.data}.log", f"-p {self.port} {options}"
        self.run("pg_ctl", "start", "-w", "-D", self.data, "-l", log, "-o", options)

    def stop(self):
        """Shut down as if power were cut, but for what the operating system has in memory."""
        with suppress(subprocess.CalledProcessError):
            self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self.data)

    def kill(self):
        """Kill the server and every process of it; as `kill -9` does."""
        pid_file = self.directory / "data/postmaster.pid"
        with pid_file.open() as file:
            postmaster = psutil.Process(int(file.readline()))
        killed = [postmaster, *postmaster.children()]
        for process in killed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        while any(map(is_running, killed)):
            time.sleep(0.001)
        # Where its id stands; the next start would wait for whoever is to bury it, a second or so.
        for file in (pid_file, self.directory / f".s.PGSQL.{self.port}.lock"):
            file.unlink()

    def url(self, database="postgres", user=USER, password="", **parameters):
        secret = f":{password}" if password else ""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        where = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}{secret}@{where}{'?' * bool(query)}{query}"

    def execute(self, statement, *parameters, database="postgres"):
        """Run a statement as the superuser; return its rows, if it has some."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else None

    def run(self, program, *arguments, **options):
        return subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.directory,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=60,
            **{**self._as_user, **options},
        )
