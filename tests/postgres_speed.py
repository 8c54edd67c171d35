"""Orders a second on one PostgreSQL: one client process against eight, and beside eventsourcing.

    python tests/postgres_speed.py [--seconds 3] [--rounds 2] [--alone]

The server is the wheel's; a library in front of its C library makes each of its fsyncs 1 ms
longer, so that sharing them counts more than the disk of this machine does. Of each run it says
the processor's time an order, of clients and server: on a machine with something else to do, that
and not the rate tells one version from another. `--alone` leaves eventsourcing out, which
otherwise saves one event an order, in an aggregate like ours.
"""

import argparse
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory

import postgresql

from orders import PlaceOrder, bootstrap

SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int after_a_nap(const char *name, int file) {
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, 0);
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(file);
}

int fsync(int file) { return after_a_nap("fsync", file); }
int fdatasync(int file) { return after_a_nap("fdatasync", file); }
"""
CLIENTS = 8
WARM_UP = 50  # orders
ITEMS = ("100 inch TV", "magic carpet")

Work = Callable[[], object]


class Nobody:
    """A notifier that hears nothing."""

    def notify(self, notice: object) -> None:
        """Do nothing with it."""


def slow_server(directory: Path) -> postgresql.Server:
    """Start a server whose fsyncs take 1 ms longer."""
    (directory / "slow.c").write_text(SLOW)
    library = directory / "slow.so"
    directory.chmod(0o755)  # the server may be another user's
    subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", library, directory / "slow.c", "-ldl"], check=True
    )
    os.environ["LD_PRELOAD"] = str(library)
    try:
        return postgresql.Server(*postgresql.SAFE)
    finally:
        del os.environ["LD_PRELOAD"]


def ours(server: postgresql.Server) -> Work:
    """Return what places an order, and has the delivery of its notice recorded."""
    app = bootstrap(server.url(), notifier=Nobody())
    return lambda: app.bus.send(PlaceOrder(items=ITEMS))


def eventsourcing(server: postgresql.Server) -> Work:
    """Return what saves an aggregate with one event."""
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate

    class Order(Aggregate):
        def __init__(self, items: list[str]) -> None:
            self.items = items

    app: Application = Application(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": "postgres",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": postgresql.USER,
            "POSTGRES_PASSWORD": "any",
        }
    )
    return lambda: app.save(Order(list(ITEMS)))


def rate(server: postgresql.Server, make: Callable[..., Work], clients: int, seconds: float) -> str:
    """Return orders a second, and the processor's time of an order: clients', and the server's."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    begin = time.time() + 1 + clients / 4  # when all are ready, more or less
    given = (server, make, begin, seconds, answers)
    started = [fork.Process(target=work_on, args=given) for _ in range(clients)]
    for process in started:
        process.start()
    time.sleep(max(0.0, begin - time.time()))
    before = server_time(server)
    time.sleep(max(0.0, begin + seconds - time.time()))
    used_by_server = server_time(server) - before
    for process in started:
        process.join()
    said = [answers.get() for process in started if process.exitcode == 0]
    orders, used = map(sum, zip(*said, strict=True))
    each = 1000 / orders
    return f"{orders / seconds:6,.0f} a second; {used * each:.2f} + {used_by_server * each:.2f} ms"


def work_on(
    server: postgresql.Server,
    make: Callable[..., Work],
    begin: float,
    seconds: float,
    answers: "SimpleQueue[tuple[int, float]]",
) -> None:
    """Place orders from one moment on; answer how many, and how much of the processor it took."""
    work = make(server)
    for _ in range(WARM_UP):
        work()
    time.sleep(max(0.0, begin - time.time()))
    orders, used = 0, time.process_time()
    while time.time() < begin + seconds:
        work()
        orders += 1
    answers.put((orders, time.process_time() - used))


def server_time(server: postgresql.Server) -> float:
    """Return the seconds of the processor that the server has had so far."""
    with (server.directory / "data/postmaster.pid").open() as file:
        postmaster = file.readline().strip()
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if status.parent.name == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif fields[1] == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--alone", action="store_true")
    chosen = parser.parse_args()
    with TemporaryDirectory() as directory, closing(slow_server(Path(directory))) as server:
        for make in [ours, *([] if chosen.alone else [eventsourcing])]:
            os.environ["CREATE_TABLE"] = "y"  # for eventsourcing
            rate(server, make, 1, 1)
            os.environ["CREATE_TABLE"] = "n"  # or its clients make them all at once, and fail
            for _ in range(chosen.rounds):
                for clients in (1, CLIENTS):
                    found = rate(server, make, clients, chosen.seconds)
                    print(f"{make.__name__:14} {clients} clients {found}", flush=True)


if __name__ == "__main__":
    main()
