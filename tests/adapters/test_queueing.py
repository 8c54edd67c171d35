"""Those who want the store get it in their turn: nobody is kept waiting by whoever is quicker."""

import os
import statistics
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import Sales

from orders import PlaceOrder, StoreBusy, bootstrap
from orders.adapters.files.lock import FileLock
from orders.adapters.files.store import FilesStore

WRITERS = 8
READERS = 14
FEW_TURNS = 200  # while we look at the lock, before we queue for it


@pytest.fixture
def lock(data):
    data.mkdir()
    with closing(FileLock(data / "orders.lock", timeout=60)) as lock:
        yield lock


def waiting(lock):
    """How many wait for the lock in the kernel's queue."""
    inode = f":{lock.path.stat().st_ino} "
    lines = Path("/proc/locks").read_text("ascii").splitlines()
    return sum("-> FLOCK" in line and inode in line for line in lines)


def wait_until(condition):
    while not condition():
        os.sched_yield()


def test_the_lock_is_given_in_the_order_in_which_it_was_asked_for(lock, fork):
    def take(name):
        with FileLock(lock.path, timeout=60).held():
            os.write(taken, name)

    order, taken = os.pipe()
    with lock.held():
        children = []
        for number, name in enumerate(b"abcdef", start=1):
            children.append(fork(take, bytes([name])))
            wait_until(lambda: waiting(lock) == number)  # noqa: B023 - called in this turn
    assert [child.wait() for child in children] == [0] * 6
    os.close(taken)
    with os.fdopen(order) as file:
        assert file.read() == "abcdef"


def test_who_takes_the_lock_again_and_again_does_not_keep_another_from_it(lock, fork):
    def take_often():
        greedy = FileLock(lock.path, timeout=60)
        while not got.exists():
            with greedy.held():
                os.write(turns, b".")
                os.fsync(turns)  # as a commit does

    got, history = lock.path.with_name("got"), lock.path.with_name("turns")
    turns = os.open(history, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    child = fork(take_often)
    waits = []
    for _ in range(20):
        before = history.stat().st_size
        wait_until(lambda: history.stat().st_size > before)  # noqa: B023 - it is at it again
        before = history.stat().st_size
        with lock.held():
            waits.append(history.stat().st_size - before)
    got.touch()
    assert child.wait() == 0
    os.close(turns)
    print(f"turns of the other while we waited: {waits}")
    assert statistics.median(waits) <= FEW_TURNS


def test_who_waits_in_vain_is_told_and_takes_nothing_when_the_lock_is_free(lock, fork):
    """The wait goes on in the kernel after its caller has given up."""
    with closing(FileLock(lock.path, timeout=0.05)) as impatient:
        with lock.held():
            own = fork(_wait_in_vain, lock.path)
            assert own.wait() == 0
            with pytest.raises(StoreBusy, match=f"process {os.getpid()}"), impatient.held():
                pass
            assert waiting(lock) == 1
        wait_until(lambda: waiting(lock) == 0)
        for _ in range(3):
            with lock.held():
                pass
        with impatient.held():
            pass


def _wait_in_vain(path):
    with pytest.raises(StoreBusy), FileLock(path, timeout=0.05).held():
        pass


@pytest.mark.parametrize("orders", [30, pytest.param(500, marks=pytest.mark.long)])
def test_of_eight_writers_none_waits_much_longer_than_the_others(orders, tmp_path, fork):
    # A busy machine may keep a process from its turn once; a store would do so each time.
    assert any(
        is_fair(gaps_between_turns(orders, tmp_path / f"store-{number}", fork))
        for number in range(3)
    )


def is_fair(gaps):
    median = statistics.median(gaps)
    print(f"others' orders between two of a writer: median {median}, most {max(gaps)}")
    return max(gaps) <= 20 * max(median, WRITERS / 2)


def gaps_between_turns(orders, data, fork):
    """Return how many orders of others eight writers see between two of their own, each time."""

    def write(name):
        with bootstrap(data, notifier=Sales()) as app:
            os.write(arrived, b".")
            os.read(go, 1)
            for number in range(orders):
                app.bus.send(PlaceOrder(items=(str(number),), customer=name))

    (here, arrived), (go, started) = os.pipe(), os.pipe()
    children = [fork(write, str(number)) for number in range(WRITERS)]
    for _ in children:
        os.read(here, 1)
    os.write(started, b"." * WRITERS)
    assert [child.wait() for child in children] == [0] * WRITERS
    with bootstrap(data, notifier=Sales()) as app:
        placed = [order.customer for order in app.orders.list()]
    return [
        after - before
        for name in {*placed}
        for before, after in pairwise(at for at, customer in enumerate(placed) if customer == name)
    ]


def test_readers_in_a_loop_do_not_keep_a_writer_from_the_store(data, fork, send, tool):
    def read():
        with closing(FilesStore(data)) as store:
            os.write(arrived, b".")
            while not done.exists():
                store.head()
                store.count()

    send(PlaceOrder(items=("lamp",)))
    done = data.with_name("done")
    here, arrived = os.pipe()
    children = [fork(read) for _ in range(READERS)]
    for _ in children:
        os.read(here, 1)
    placed = [tool("place", str(number)) for number in range(3)]
    done.touch()
    assert [child.wait() for child in children] == [0] * READERS
    assert [(run.returncode, run.stderr) for run in placed] == [(0, "")] * 3
