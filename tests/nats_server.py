"""A real nats-server, from a wheel, on a port and in a directory of its own."""

import asyncio
import json
import os
import signal
import subprocess
import time

import nats
import pytest
from nats.errors import TimeoutError as NothingMore
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError
from watched import Watched

from orders.demos.servers import nats_program

SAFE = "sync_interval: always"
READY_WITHIN = 60  # seconds; only a broken machine takes that long


class Server(Watched):
    """A server with a store of its own, in a temporary directory; `close` removes it.

    Args:
        config: lines of its configuration, on top of what every test's server has.
        jetstream: lines of its JetStream's; None leaves JetStream out.

    Attributes:
        port: on 127.0.0.1; the same after `start` as before `kill`.
        directory: of everything.
    """

    def __init__(self, config="", jetstream=SAFE):
        if nats_program() is None:
            pytest.skip("no wheel has nats-server for this platform")
        super().__init__("nats", "pid", signal.SIGKILL)
        self.port = -1  # one that is free
        self._config, self._jetstream = config, jetstream
        self._process = None
        self.start()

    def start(self, config=None):
        """Start, or start again, perhaps with another configuration; return when it is ready."""
        self._config = self._config if config is None else config
        settings = [
            f'listen: "127.0.0.1:{self.port}"',
            f'ports_file_dir: "{self.directory}"',
            f'pid_file: "{self.directory}/pid"',
            f'log_file: "{self.directory}/log"',
            self._config,
        ]
        if self._jetstream is not None:
            store = f'store_dir: "{self.directory}/store"'
            settings.append(f"jetstream {{\n{store}\n{self._jetstream}\n}}")
        (self.directory / "config").write_text("\n".join(settings))
        self._process = subprocess.Popen(
            [nats_program(), "-c", self.directory / "config"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.port = self._await_port()

    def kill(self, number=signal.SIGKILL):
        """End the server as `kill -9` does."""
        self._process.send_signal(number)
        self._process.wait()
        self._ports().unlink(missing_ok=True)

    def restart(self):
        """Kill it and start it again, on the same port and store."""
        self.kill()
        self.start()

    def pause(self):
        """Have it hang: it takes connections, and says nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        if self._process.poll() is None:
            self.kill()
        super().close()

    @property
    def log(self):
        return (self.directory / "log").read_text()

    def url(self, user="", scheme="nats"):
        return f"{scheme}://{user}{'@' * bool(user)}127.0.0.1:{self.port}"

    def _ports(self):
        return self.directory / f"nats-server_{self._process.pid}.ports"

    def _await_port(self):
        """Return the port, once the server listens there, which is when it writes the file."""
        end = time.monotonic() + READY_WITHIN
        while time.monotonic() < end and self._process.poll() is None:
            try:
                (url,) = json.loads(self._ports().read_text())["nats"]
                return int(url.rpartition(":")[2])
            except (OSError, ValueError):  # not yet there, or half of it
                time.sleep(0.005)
        self.close()
        raise AssertionError(f"nats-server does not start with {self._config}")


class Missing(Exception):
    """Stands for no default."""


def run(url, ask, missing=Missing):
    """Return what `ask` makes of a JetStream; `missing`, if given, where it finds nothing."""

    async def main():
        client = await nats.connect(url, max_reconnect_attempts=1)
        try:
            return await ask(client.jetstream())
        finally:
            await client.close()

    try:
        return asyncio.run(main())
    except NotFoundError:
        if missing is Missing:
            raise
        return missing


def messages(url, stream):
    """Return all messages of a stream, oldest first."""

    async def ask(jetstream):
        left = (await jetstream.stream_info(stream)).state.messages
        config = ConsumerConfig(ack_policy=AckPolicy.NONE)
        reader = await jetstream.pull_subscribe(">", stream=stream, config=config)
        found = []
        while len(found) < left:
            found += await reader.fetch(min(500, left - len(found)), timeout=30)
        with pytest.raises(NothingMore):
            await reader.fetch(1, timeout=0.01)
        return found

    return run(url, ask)
