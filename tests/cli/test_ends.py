"""How a command ends: at once, unless somebody has something left to do in its process."""

import json
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
RETURNING = """
import typer

commands = typer.Typer()

@commands.command()
def compute():
    return {}

def install(app): pass
"""
UNFINISHED = "import sys\nsys.stderr.write('half a line')"


OPEN_FILE = """
from orders import OrderCreated

book = open("sales.txt", "a")

def write_down(event: OrderCreated):
    book.write(event.order_id)

def install(app):
    app.bus.subscribe(OrderCreated, write_down)
"""
CALLED = """
import sys

from orders.cli import main

sys.argv = ["orders", "topics"]
try:
    main()
except SystemExit:
    print("the rest of the program")
"""


@pytest.fixture
def end(tmp_path):
    """Run a command in a Python that begins with a script; return what it printed, and said."""

    def run(script, *command):
        (tmp_path / "sitecustomize.py").write_text(script)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = command or (ORDERS,)
        ran = subprocess.run(
            [*command, "topics"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0
        return ran.stdout, ran.stderr

    return run


def test_nothing_is_taken_apart(end):
    assert "taken apart" not in end(TAKEN_APART)[0]


@pytest.mark.parametrize("script", [AT_EXIT, THREAD], ids=["registered", "thread"])
def test_who_has_something_left_to_do_does_it(end, script):
    assert end(script)[0].endswith("the last word\n")


def test_what_was_said_by_half_is_said(end):
    assert end(UNFINISHED)[1] == "half a line"


def test_a_profiler_shows_what_it_saw(end):
    shown, _ = end("", sys.executable, "-m", "cProfile", "-m", "orders")
    assert "function calls" in shown


def test_what_a_plugin_has_written_is_in_its_file(tmp_path):
    (tmp_path / "ledger.py").write_text(OPEN_FILE)
    command = [ORDERS, "--plugin", "ledger", "place", "rope", "--json"]
    placed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "sales.txt").read_text() == json.loads(placed.stdout)["id"]


def test_a_program_that_calls_the_command_line_goes_on(tmp_path):
    (tmp_path / "program.py").write_text(CALLED)
    ran = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True)
    assert ran.stdout.endswith(b"the rest of the program\n")


@pytest.mark.parametrize(("result", "status"), [("'text'", 0), ("2**40", 0), ("True", 0), ("3", 3)])
def test_what_a_command_of_a_plugin_returns_is_a_status_if_it_can_be_one(
    tmp_path, tool, result, status
):
    (tmp_path / "returning.py").write_text(RETURNING.format(result))
    ran = tool("--plugin", "returning", "compute")
    assert (ran.returncode, ran.stderr) == (status, "")


def test_where_the_directory_is_gone_another_is_proposed(tmp_path):
    gone = 'mkdir gone; cd gone; rmdir ../gone; "$0" list'
    ran = subprocess.run(["/bin/sh", "-c", gone, ORDERS], cwd=tmp_path, capture_output=True)
    assert ran.returncode == 1
    assert b"cannot use data: " in ran.stderr
    assert b"\ntry: choose another directory with --data\n" in ran.stderr
