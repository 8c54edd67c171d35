"""A store written by the package as it was before its layers: it opens as it is.

`written_before/store` holds shipped, cancelled and rejected orders, keys, a failed delivery, a
dead letter, one that a killed process left pending, and snapshots that are behind the log; the
text files beside it are what the commands of that time printed of it.
"""

import json
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("written_before")


@pytest.fixture
def old(data):
    shutil.copytree(HERE / "store", data)
    return data


def expected(name):
    return (HERE / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize(
    "arguments", [["deliveries"], ["stats"], ["log"], ["export", "--format", "jsonl"], ["list"]]
)
def test_it_prints_what_was_printed_then(arguments, old, tool):
    done = tool(*arguments)
    assert (done.returncode, done.stdout) == (0, expected(arguments[0]))


def test_each_order_has_its_history(old, tool):
    for line in expected("show").splitlines():
        shown = tool("show", json.loads(line)["id"], "--json")
        assert shown.stdout == f"{line}\n"


def test_what_a_killed_process_left_is_delivered_and_the_rest_can_be_retried(old, tool):
    listed = tool("list")
    assert listed.stderr.count("New Order") == 1
    assert "Items: ['owed']" in listed.stderr
    traced = tool("trace", listed.stdout.splitlines()[4].split("\t")[0])
    assert (traced.returncode, traced.stderr) == (0, "")
    retried = tool("retry", "--all")  # its subscriber is not known here
    assert (retried.returncode, "0 of 1 delivered" in retried.stderr) == (1, True)


def test_replay_finds_nothing_different_and_checkpoint_brings_it_up_to_date(old, tool):
    replayed = tool("replay", "--dry-run")
    assert "None of 3 projections differed" in replayed.stderr
    assert tool("checkpoint").returncode == 0
    assert tool("replay", "--dry-run").stderr == replayed.stderr
    found = tool("doctor").stdout
    assert "damaged" not in found
    assert tool("list").stdout == expected("list")
