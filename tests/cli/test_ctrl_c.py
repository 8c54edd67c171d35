"""Ctrl-C in the first moments of a command, most of which go into imports: no traceback, ever."""

import os
import random
import re
import signal
import subprocess
import sys

import pytest

IMPORTED = b"import time:"  # how a line begins with which `python -X importtime` reports an import
TRIES = 6  # of each command; the long form presses at every moment

whole = pytest.param(0, marks=pytest.mark.long, id="whole")


@pytest.fixture
def start(data):
    """Start the tool in an interpreter that reports each import as it ends; none is left."""
    started = []

    def run(*arguments, stdin=subprocess.DEVNULL):
        process = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "orders", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "ORDERS_DATA": str(data)},
        )
        started.append(process)
        return process

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # children inherit SIG_IGN
    yield run
    signal.signal(signal.SIGINT, before)
    for process in started:
        process.kill()
        process.communicate()


def imports(process):
    """Yield the names of the modules that the process imports, from the first of ours on."""
    is_ours = False
    for line in process.stderr:
        name = line.rpartition(b"|")[2].strip().decode() if line.startswith(IMPORTED) else ""
        is_ours = is_ours or name.startswith("orders.")
        if is_ours and name:
            yield name


def interrupted(process, moment):
    """Press Ctrl-C after so many imports; return the exit status, and what else it said."""
    for _ in zip(range(moment + 1), imports(process), strict=False):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    said = b"".join(line for line in err.splitlines(True) if not line.startswith(IMPORTED))
    return process.returncode, said.decode()


def is_quiet(status, said):
    """Return whether a command that was interrupted ended well, without a traceback of any file.

    What is frozen into Python runs between our modules, where nothing can be caught.
    """
    files = re.findall('File "(.*?)"', said)
    return (
        status in {0, 130, -signal.SIGINT}
        and all(file.startswith("<frozen ") for file in files)
        and bool(files) == ("Traceback" in said)
    )


@pytest.mark.parametrize("tries", [pytest.param(TRIES, id="some"), whole])
@pytest.mark.parametrize("command", [["list"], ["place", "rope"]], ids=" ".join)
@pytest.mark.sample(1)
def test_ctrl_c_while_a_command_starts_is_quiet(start, tool, command, tries):
    moments = range(len([*imports(start(*command))]))
    assert len(moments) > TRIES
    for moment in random.sample(moments, tries or len(moments)):
        status, said = interrupted(start(*command), moment)
        assert is_quiet(status, said), (moment, status, said)
    assert tool("list").returncode == 0  # delivers what was placed and not delivered
    assert tool("doctor").returncode == 0


def test_ctrl_c_while_items_are_read_is_quiet_and_places_nothing(start, data):
    process = start("place", "-", stdin=subprocess.PIPE)
    process.stdin.write(200 * (b"x" * 499 + b"\n"))  # more than a pipe holds: some have been read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, b"Traceback" in said) == (130, False)
    assert not data.exists()


MAKES_A_CLASS = """
import os, signal, orders.cli

class Pressed:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)

orders.cli.run = lambda: type("Made", (), {"pressed": Pressed()})
orders.cli.main()
"""


def test_ctrl_c_while_a_class_is_made_is_quiet():
    ended = subprocess.run([sys.executable, "-c", MAKES_A_CLASS], capture_output=True)
    assert (ended.returncode, ended.stderr) == (130, b"")
