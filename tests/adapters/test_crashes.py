"""Kill it anywhere: what was acknowledged is kept, and the next command works."""

import os
import random
import re
import signal
from itertools import count, islice, product

import msgspec
import pytest
from tinydb import TinyDB

from orders import PlaceOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.faults import POINTS
from orders.adapters.files.store import FilesStore
from orders.domain.order import OrderState
from orders.tools.doctor import examine, repair

ITEMS = ("100 inch TV", "magic carpet")
KILLED = -signal.SIGKILL
NEEDS_A_TORN_LOG = ("before-truncate", "after-truncate")
ERRORS = ("EIO", "ENOSPC")

# How a store can be found by the command that a fault stops.
STARTS = ("fresh", "existing", "torn")


def start_for(point):
    """How the store is found in the short form, which stops at every point once."""
    if point in NEEDS_A_TORN_LOG:
        return "torn"
    return "fresh" if "directory" in point else "existing"


def once_and_always(start, point, *others, is_turn=True):
    """Return parameters, the last of them how often: once in the short form, at most; any time."""
    if start == start_for(point) and is_turn:
        yield pytest.param(start, point, *others, 1)
    yield pytest.param(start, point, *others, None, marks=pytest.mark.long)


class Quiet:
    def notify(self, notice):
        pass


def open_app(data):
    return bootstrap(data, notifier=Quiet(), on_failure=print)


def stored(data):
    """The orders by id, by somebody who only looks."""
    with open_app(data) as app:
        return {order.id: order for order in app.orders.list()}


def whole_lines(data):
    log = data / "events.jsonl"
    return log.read_bytes().rpartition(b"\n")[0] if log.exists() else b""


def noticed(*runs):
    """The ids of the orders that these processes have notified sales of."""
    text = "".join(run.stdout + run.stderr for run in runs)
    return set(re.findall(r"^ID: (\S+)$", text, re.MULTILINE))


def check_store(app):
    """What must hold of every store: gap-free log, state equal to it, stock TinyDB too."""
    numbers = [record.number for record in app.store.read()]
    assert numbers == [*range(1, len(numbers) + 1)]
    app.store.checkpoint()
    listed = {order.id: order for order in app.orders.list()}
    with TinyDB(app.store.state_path) as stock:
        documents = stock.table("orders").all()
    assert {d["id"]: msgspec.convert(d, OrderState) for d in documents} == listed
    assert len(documents) == len(listed)
    return listed


def unwell(app):
    return {finding.subject for finding in examine(app) if not finding.is_well}


def fault(text):
    return {"ORDERS_FAULT": text}


@pytest.fixture
def prepared(tool, tmp_path):
    """Make a store in one of the states of STARTS; returns its directory and what it printed."""
    numbers = count()

    def prepare(start):
        data = tmp_path / f"store-{next(numbers)}"
        runs = []
        if start != "fresh":
            runs.append(tool("place", "kept", data=data))
            assert runs[-1].returncode == 0
        if start == "torn":
            runs.append(tool("place", "lost", data=data, env=fault("torn-append")))
            assert runs[-1].returncode == KILLED
        return data, runs

    return prepare


# At random moments


def keep_placing(data, acknowledgements, name, has_checkpoints):
    for batch in count():
        with open_app(data) as app:
            app.deliveries.recover()
            for number in range(5):
                order_id = app.bus.send(PlaceOrder(items=(f"{name} {batch} {number}",)))
                os.write(acknowledgements, f"{order_id}\n".encode())
                if has_checkpoints and number % 2:
                    app.store.checkpoint()


@pytest.mark.parametrize("rounds", [5, pytest.param(500, marks=pytest.mark.long)])
def test_no_acknowledged_order_is_lost_to_kill_9_at_a_random_moment(rounds, tmp_path, fork):
    chance = random.Random(20261121)
    acknowledged, data, total, leftovers = set(), tmp_path, 0, 0
    for round_ in range(rounds):
        if round_ % 20 == 0:  # now and then a fresh store, which has its own moments
            data, acknowledged = tmp_path / f"store-{round_}", set()
        reading, writing = os.pipe()
        writers = [
            fork(keep_placing, data, writing, f"{round_} {number}", round_ % 2 == 0)
            for number in range(chance.randint(2, 4))
        ]
        os.close(writing)
        enough = chance.randint(1, 25)
        with os.fdopen(reading, encoding="ascii") as lines:
            new = [line.strip() for line in islice(lines, enough)]
            chance.shuffle(writers)
            for writer in writers:
                writer.kill()
            assert [writer.wait() for writer in writers] == [KILLED] * len(writers)
            new += [line.strip() for line in lines]
        assert len(new) >= enough
        total += len(new)
        acknowledged |= {*new}
        with open_app(data) as app:
            assert acknowledged <= {order.id for order in app.orders.list()}
            check_store(app)
            app.deliveries.recover()
            bad = unwell(app)
            assert bad <= {"leftovers"}, list(examine(app))
            leftovers += bool(bad)
            list(repair(app))
            assert not unwell(app)
            assert acknowledged <= check_store(app).keys()
    print(f"{rounds} rounds, {total} orders acknowledged, none lost, {leftovers} with leftovers")


# At every fault point, dying


@pytest.mark.long
def test_a_place_reaches_every_fault_point_but_those_of_a_torn_log(prepared, tool):
    for start, expected in (("fresh", NEEDS_A_TORN_LOG), ("existing", NEEDS_A_TORN_LOG)):
        deaths = {}
        for point in POINTS:
            data, _ = prepared(start)
            deaths[point] = tool("place", *ITEMS, data=data, env=fault(point)).returncode
        missed = tuple(point for point, code in deaths.items() if code == 0)
        assert missed == expected, start
        assert {deaths[point] for point in POINTS if point not in missed} == {KILLED}


@pytest.mark.parametrize(
    ("start", "point", "times"),
    [
        parameters
        for start, point in product(STARTS, POINTS)
        if start == "torn" or point not in NEEDS_A_TORN_LOG
        for parameters in once_and_always(start, point)
    ],
)
@pytest.mark.sample(4)
def test_a_place_killed_at_any_point_leaves_all_or_nothing_and_the_next_works(
    point, start, times, prepared, orders, tool
):
    # in an interpreter of its own the first time that a log is torn, else in a fork
    for nth in islice(count(1), times):
        data, runs = prepared(start)
        before = stored(data)
        command = orders if nth == 1 and start == "torn" else tool
        runs.append(command("place", *ITEMS, env=fault(f"{point}@{nth}"), data=data))
        if nth > 1 and runs[-1].returncode == 0:
            break  # it is not reached so often
        assert runs[-1].returncode == KILLED
        new = [order for id_, order in stored(data).items() if id_ not in before]
        assert [(order.items, order.version) for order in new] in ([], [(ITEMS, 1)])
        runs.append(tool("place", "next", data=data))
        assert (runs[-1].returncode, "Traceback" in runs[-1].stderr) == (0, False)
        placed = stored(data)
        assert [order.items for order in placed.values()].count(("next",)) == 1
        assert {*before, *(order.id for order in new)} < placed.keys()
        with open_app(data) as app:
            assert unwell(app) <= {"leftovers"}, list(examine(app))
        assert noticed(*runs) >= placed.keys()
        runs.append(tool("doctor", "--repair", data=data))
        assert runs[-1].returncode == 0, runs[-1].stdout
        assert tool("doctor", data=data).returncode == 0
        assert stored(data) == placed
        with open_app(data) as app:
            assert check_store(app) == placed


# At every fault point, failing


@pytest.mark.parametrize(
    ("start", "point", "error", "times"),
    [
        parameters
        for start, point, error in product(STARTS, POINTS, ERRORS)
        for is_turn in [POINTS.index(point) % 2 == ERRORS.index(error)]
        for parameters in once_and_always(start, point, error, is_turn=is_turn)
    ],
)
@pytest.mark.sample(4)
def test_a_system_call_that_fails_costs_no_order_and_leaves_a_store_that_works(
    point, start, error, times, prepared, tool
):
    for nth in islice(count(1), times):
        data, runs = prepared(start)
        before, log = stored(data), whole_lines(data)
        run = tool("place", *ITEMS, data=data, env=fault(f"{point}@{nth}={error}"))
        assert "Traceback" not in run.stderr
        new = {id_: order for id_, order in stored(data).items() if id_ not in before}
        if run.returncode == 0:
            assert [order.items for order in new.values()] == [ITEMS]
            assert run.stderr.count("\n") <= 2, run.stderr
        else:
            assert (run.returncode, new, whole_lines(data)) == (1, {}, log)
            assert re.fullmatch(r"error: [^\n]+\ntry: [^\n]+\n", run.stderr)
        runs += [run, tool("place", "next", data=data)]
        assert (runs[-1].returncode, "Traceback" in runs[-1].stderr) == (0, False)
        placed = stored(data)
        assert placed.keys() > {*before, *new}
        assert noticed(*runs) >= placed.keys()
        doctor = tool("doctor", data=data)
        assert doctor.returncode == 0, doctor.stdout
        with open_app(data) as app:
            assert check_store(app) == placed
        if run.returncode == 0 and not run.stderr:
            break  # it was not reached, or tried again with success


@pytest.mark.parametrize("how", ["", "=EIO"], ids=["killed", "failed"])
def test_a_directory_that_was_made_but_not_synced_is_synced_before_the_next_acknowledgement(
    how, tool, data
):
    class Recording(Disk):
        def sync_directory(self, directory):
            super().sync_directory(directory)
            synced.append(directory)

    synced = []
    assert tool("place", "a", env=fault(f"before-directory-fsync{how}")).returncode in {KILLED, 1}
    assert (data / "events.jsonl").read_bytes() == b""
    with bootstrap(store=FilesStore(data, disk=Recording()), notifier=Quiet()) as app:
        app.bus.send(PlaceOrder(items=ITEMS))
        assert data in synced  # the log's name
        assert data.parent in synced  # the store's own


# Two faults in a row

DEADLY = ("torn-append", "after-append", "before-fsync", "after-replace", "mid-delivery")
AFTER_A_TORN_LOG = ("before-truncate", "after-truncate", "torn-append", "before-replace")
CHAINS = [
    pytest.param(
        ("torn-append", first, second),
        marks=() if place in {0, 1} else pytest.mark.long,  # each with itself, and with the next
        id=f"torn-append {first} {second}",
    )
    for first, second in product(AFTER_A_TORN_LOG, AFTER_A_TORN_LOG)
    for place in [(AFTER_A_TORN_LOG.index(second) - AFTER_A_TORN_LOG.index(first)) % 4]
]


def follow(faults, tool, data):
    """Run `place` once with each fault, then once without; check what is left."""
    runs, kept = [], {}
    for text in faults:
        runs.append(tool("place", *ITEMS, data=data, env=fault(text)))
        assert "Traceback" not in runs[-1].stderr
        assert runs[-1].returncode in {KILLED, 0, 1}
        now = stored(data)
        assert kept.items() <= now.items()
        assert len(now) - len(kept) <= 1
        if runs[-1].returncode == 0:
            assert len(now) - len(kept) == 1
        kept = now
    runs.append(tool("place", "next", data=data))
    assert runs[-1].returncode == 0
    placed = stored(data)
    assert kept.items() <= placed.items()
    assert len(placed) == len(kept) + 1
    assert tool("doctor", "--repair", data=data).returncode == 0
    with open_app(data) as app:
        assert check_store(app) == placed
    return runs, placed


@pytest.mark.parametrize("faults", CHAINS)
@pytest.mark.sample(2)
def test_a_torn_log_and_then_another_two_crashes_lose_nothing(faults, tool, data):
    runs, placed = follow(faults, tool, data)
    assert noticed(*runs) >= placed.keys()


@pytest.mark.parametrize(
    ("point", "error"),
    [
        pytest.param(point, error, marks=() if is_turn else pytest.mark.long)
        for point, error in product(AFTER_A_TORN_LOG, ERRORS)
        for is_turn in [AFTER_A_TORN_LOG.index(point) % 2 == ERRORS.index(error)]
    ],
)
@pytest.mark.sample(2)
def test_a_torn_log_that_cannot_be_repaired_is_repaired_later(point, error, tool, data):
    follow(("torn-append", f"{point}={error}", f"{point}={error}"), tool, data)


@pytest.mark.parametrize(
    "pairs",
    [
        random.Random(3).sample([*product(DEADLY, POINTS)], 3),
        pytest.param([*product(POINTS, POINTS)], marks=pytest.mark.long),
    ],
    ids=["some", "all"],
)
def test_two_crashes_in_a_row_lose_nothing(pairs, tool, tmp_path):
    for first, second in pairs:
        follow((first, second), tool, tmp_path / f"{first} {second}")


def test_a_crash_at_every_point_one_after_the_other_loses_nothing(tool, data):
    follow(POINTS, tool, data)


# Keys


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.sample(3)
def test_a_key_repeated_until_it_succeeds_gives_exactly_one_order(point, prepared, tool):
    data, _ = prepared("torn" if point in NEEDS_A_TORN_LOG else "fresh")
    before = stored(data)
    command = ("place", "--key", "K", *ITEMS)
    runs = [tool(*command, data=data, env=fault(point))]
    assert runs[0].returncode == KILLED
    for nth in (2, 1):  # die again, where it still can
        runs.append(tool(*command, data=data, env=fault(f"{point}@{nth}")))
    runs.append(tool(*command, data=data))
    assert runs[-1].returncode == 0
    placed = stored(data)
    (order_id,) = placed.keys() - before.keys()
    assert noticed(*runs) == {order_id}
    with open_app(data) as app:
        assert app.store.ids(keys=["K"]) == {"K": order_id}


def test_a_key_used_across_a_crash_at_every_point_gives_exactly_one_order(tool, data):
    command = ("place", "--key", "K", *ITEMS)
    codes = [tool(*command, data=data, env=fault(point)).returncode for point in POINTS]
    assert {*codes} <= {0, KILLED}
    assert tool(*command, data=data).returncode == 0
    assert len(stored(data)) == 1


# Imports


@pytest.fixture
def file(tmp_path):
    """A file to import: so many orders that they take several commits."""
    lines = (f'{{"items": ["item {n}"], "key": "key {n}"}}\n' for n in range(600))
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("point", ["after-fsync@2", "mid-delivery@50", "torn-append@2"])
@pytest.mark.sample(1)
def test_an_import_killed_and_run_again_places_every_order_once(point, file, tool, data):
    assert tool("import", str(file), env=fault(point)).returncode == KILLED
    again = tool("import", str(file))
    assert again.returncode == 0
    placed = stored(data).values()
    assert sorted(order.items for order in placed) == sorted((f"item {n}",) for n in range(600))
    with open_app(data) as app:
        assert unwell(app) <= {"leftovers"}, list(examine(app))


def test_what_an_import_left_pending_when_it_died_is_delivered_by_the_next_command(
    file, tool, data
):
    assert tool("import", str(file), env=fault("mid-delivery@50")).returncode == KILLED
    listed = tool("list")
    assert "Delivered late: 500" in listed.stderr
    assert tool("deliveries", "--pending").stdout == ""


def test_what_is_pending_is_delivered_by_the_next_command_even_if_the_log_is_torn(file, tool, data):
    assert tool("import", str(file), env=fault("torn-append@2")).returncode == KILLED
    listed = tool("list")
    assert "Delivered late: 500" in listed.stderr
    assert tool("deliveries", "--pending").stdout == ""
