"""How a command ends: at once, unless somebody has something left to do in its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ORDERS = str(Path(sys.executable).with_name("orders"))

AT_EXIT = "import atexit\natexit.register(print, 'the last word')"
THREAD = """
import threading

def speak():
    threading.main_thread().join()
    print("the last word")

threading.Thread(target=speak).start()
"""
TAKEN_APART = """
import os

class Left:
    def __del__(self, write=os.write):
        write(1, b"taken apart")

left = Left()
"""
UNFINISHED = "import sys\nsys.stderr.write('half a line')"


@pytest.fixture
def end(tmp_path):
    """Run a command beside a plugin; return what it printed, and said."""

    def run(plugin, *command):
        (tmp_path / "beside.py").write_text(f"{plugin}\n\ndef install(app): pass\n")
        environment = {**os.environ, "ORDERS_PLUGINS": "beside"}
        command = command or (ORDERS,)
        ran = subprocess.run(
            [*command, "topics"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0
        return ran.stdout, ran.stderr

    return run


def test_nothing_is_taken_apart(end):
    assert "taken apart" not in end(TAKEN_APART)[0]


@pytest.mark.parametrize("plugin", [AT_EXIT, THREAD], ids=["registered", "thread"])
def test_who_has_something_left_to_do_does_it(end, plugin):
    assert end(plugin)[0].endswith("the last word\n")


def test_what_was_said_by_half_is_said(end):
    assert end(UNFINISHED)[1] == "half a line"


def test_a_profiler_shows_what_it_saw(end):
    shown, _ = end("", sys.executable, "-m", "cProfile", "-m", "orders")
    assert "function calls" in shown
