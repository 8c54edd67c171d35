"""The bar that a terminal shows while a long log is read in silence."""

import pytest
from command_line import TWO
from screens import plain

from orders.adapters.files import reader
from orders.cli import waiting

SILENT = [["doctor"], ["checkpoint"], ["stats"], ["deliveries"], ["replay"], ["list"]]


@pytest.fixture
def long_log(monkeypatch, data, send):
    """Return a store whose log, of whatever length, takes long to read."""
    send(*TWO)
    (data / "orders.json").unlink()
    monkeypatch.setattr(reader, "LONG", 1)
    monkeypatch.setattr(waiting, "PATIENCE", -1.0)
    return data


@pytest.mark.parametrize("command", SILENT, ids=" ".join)
@pytest.mark.sample(3)
def test_a_terminal_shows_how_much_of_a_long_log_is_read_and_takes_it_away(
    screen, long_log, command
):
    _, shown = screen(*command)
    size = (long_log / "events.jsonl").stat().st_size
    assert "Reading the log" in plain(shown)
    assert f"{size / 1000:.1f}/{size / 1000:.1f} kB" in plain(shown)
    assert "\x1b[2K" in shown.rpartition("Reading the log")[2]


@pytest.mark.parametrize("command", SILENT, ids=" ".join)
def test_nothing_is_said_of_it_where_no_terminal_is(patched_tool, long_log, command):
    result = patched_tool(*command, env={"FORCE_COLOR": "1"})
    assert "Reading" not in plain(result.stdout + result.stderr)


def test_a_log_that_is_soon_read_shows_no_bar(screen, long_log, monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 60.0)
    assert "Reading" not in screen("doctor")[1]
