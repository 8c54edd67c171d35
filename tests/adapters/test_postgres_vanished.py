"""A machine vanishes with a worker on it: nothing is said, and nothing is answered any more."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import closing, suppress

import postgresql
import pytest
from conftest import Sales

from orders import OrderCreated, PlaceOrder, bootstrap

OURS, THEIRS = "10.213.77.1", "10.213.77.2"
PATIENCE = 120.0  # seconds, before the test says that nobody takes over

PLUGIN = """
import sys
from orders import OrderCreated

def slow(event):
    print("begun", flush=True)
    sys.stdin.readline()

def install(app):
    app.bus.subscribe(OrderCreated, slow, name="slow")
"""


class Machine:
    """A network of its own, joined to ours by a cable; what runs there may be cut off."""

    def __init__(self):
        self.name, cable, plug = f"orders-{os.getpid()}", f"our{os.getpid()}", "eth0"
        self._ip("netns", "add", self.name)
        self._ip("link", "add", cable, "type", "veth", "peer", plug, "netns", self.name)
        self._ip("addr", "add", f"{OURS}/30", "dev", cable)
        self._ip("link", "set", cable, "up")
        self._ip("-n", self.name, "addr", "add", f"{THEIRS}/30", "dev", plug)
        self._ip("-n", self.name, "link", "set", plug, "up")

    def start(self, *command, **options):
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **options)

    def vanish(self):
        """Answer nothing from now on, not even that it has arrived."""
        self._ip("-n", self.name, "route", "add", "blackhole", OURS)

    def appear(self):
        self._ip("-n", self.name, "route", "del", "blackhole", OURS)

    def close(self):
        self._ip("netns", "del", self.name)

    def _ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, timeout=10)


@pytest.fixture
def machine():
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root makes networks, with the program ip")
    with closing(Machine()) as machine:
        yield machine


@pytest.mark.long
def test_what_a_vanished_machine_was_at_another_worker_takes_over(machine, tmp_path):
    made = []
    (tmp_path / "slow.py").write_text(PLUGIN)
    with (
        closing(postgresql.Server(f"listen_addresses='127.0.0.1,{OURS}'")) as server,
        bootstrap(server.url(), deliver="worker", notifier=Sales()) as app,
    ):
        app.bus.subscribe(OrderCreated, made.append, name="slow")
        app.bus.send(PlaceOrder(items=("rope",)))
        data = server.url().replace("127.0.0.1", OURS)
        command = [sys.executable, "-m", "orders", "--plugin", "slow", "--data", data]
        vanished = machine.start(
            *command,
            *("worker", "--subscriber", "slow"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert "begun\n" in iter(vanished.stdout.readline, "")
            machine.vanish()
            since = time.monotonic()
            worker = app.worker(["slow"], on_turn=lambda: made and worker.stop())
            worker.run(until_idle=PATIENCE)
            print(f"taken over after {time.monotonic() - since:.1f} s")
            assert len(made) == 1
            machine.appear()
            vanished.stdin.write("\n")
            vanished.stdin.flush()
            said = next(line for line in vanished.stderr if "made by somebody else" in line)
            assert "to slow" in said
        finally:
            with suppress(ProcessLookupError):
                vanished.kill()
            vanished.communicate()
        (account,) = [one for one in app.store.deliveries() if one.delivery.subscriber == "slow"]
        assert (account.delivery.status, account.delivery.deaths) == ("done", 1)
