"""The benchmark measures what it says, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys

import pytest

from orders.errors import OrdersError
from orders.tools import bench


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    for name in ("PLACES", "EACH", "BULK", "EVENTS", "LISTS"):
        monkeypatch.setattr(bench, name, 10)


@pytest.mark.parametrize("orders", [pytest.param(0, marks=pytest.mark.long), 25])
def test_every_measure_is_taken_and_the_directory_removed(tmp_path, orders):
    steps = []
    rates = bench.measure(tmp_path, orders, lambda: steps.append(1))
    assert rates.orders == orders
    assert all(rate > 0 for rate in rates[1:])
    assert len(steps) == bench.STEPS
    assert [*tmp_path.iterdir()] == []


def test_the_ratios_follow_from_the_rates():
    rates = bench.Rates(
        0,
        placed=500,
        at_once=750,
        imported=200,
        disk_bulk=600,
        one_subscriber=1,
        three_subscribers=1,
        listed=1,
        folded=1,
        tinydb=2,
        tinydb_bulk=1,
        disk=1000,
    )
    assert (rates.times_tinydb, rates.times_disk) == (250, 2)
    assert (rates.times_alone, rates.times_disk_bulk) == (1.5, 3)


def test_a_writer_that_fails_is_an_error(tmp_path):
    tmp_path.joinpath("store").write_text("no directory")
    with pytest.raises(OrdersError, match="one of the processes"):
        bench._place_at_once(tmp_path / "store")


def test_the_directory_is_removed_when_it_is_interrupted(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.measure(tmp_path, 0, interrupt)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.sample(1)
def test_the_directory_is_removed_when_the_process_is_ended(data, ending):
    data.mkdir()
    bench = subprocess.Popen(
        [sys.executable, "-m", "orders", "bench", "--orders", "1000000"],
        env={**os.environ, "ORDERS_DATA": str(data)},
    )
    while not [*data.iterdir()]:
        assert bench.poll() is None
    bench.send_signal(ending)
    assert bench.wait(60) in {130, -signal.SIGINT}  # which is 130 to a shell, too
    assert [*data.iterdir()] == []


def test_rows_and_json_name_every_measure():
    rates = bench.Rates(0, *range(1, 1 + bench.STEPS))
    assert [row[0] for row in bench.rows([rates, rates])] == [*bench.MEASURES.values()]
    assert {len(row) for row in bench.rows([rates, rates])} == {3}
    assert [*bench.as_object(rates)] == ["orders", *bench.MEASURES]


@pytest.mark.long
def test_the_disk_that_holds_the_data_is_measured(patched_tool, data):
    data.mkdir(mode=0o700)
    before = [path.stat().st_mtime_ns for path in (data, data.parent)]
    assert patched_tool("bench", "--orders", "1").returncode == 0
    after = [path.stat().st_mtime_ns for path in (data, data.parent)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]


def test_the_command_prints_a_column_for_each_size(patched_tool, data):
    result = patched_tool("bench", "--orders", "20", "--json")
    assert result.returncode == 0, result.stderr
    empty, large = json.loads(result.stdout)
    assert (empty["orders"], large["orders"]) == (0, 20)
    assert all(value > 0 for value in (*[*empty.values()][1:], *large.values()))
    assert not data.exists()
    assert [path for path in data.parent.iterdir() if "bench" in path.name] == []
