"""The README says what is so: its transcripts are replayed, its commands are CI's."""

import json
import os
import re
import runpy
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nats_server
import typer

from orders import PlaceOrder
from orders.adapters.nats.cloudevents import decode, encode
from orders.application.store import Record
from orders.cli import app
from orders.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def masked(text):
    """Replace what differs from run to run: ids and times."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "<time>", text)


def replayed(block, directory, **env):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = []
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=directory,
            env={**os.environ, "PATH": path, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
        )
        lines += [f"$ {command}", *run.stdout.splitlines()]
    return "\n".join(lines)


ON_A_SERVER = "## When one machine is not enough"
OTHERS = "## Other services"


def transcripts(text):
    return re.findall(r"```console\n(.*?)```", text, re.DOTALL)


def test_the_transcripts_are_what_the_commands_print(tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/sample-orders.csv", tmp_path / "data")
    blocks = transcripts(README.split(ON_A_SERVER)[0])
    assert len(blocks) == 3
    for block in blocks:
        assert masked(replayed(block, tmp_path)) == masked(block.rstrip("\n"))


def test_the_transcript_on_a_server_is_what_the_commands_print(postgres, tmp_path):
    postgres.execute("create database readme")
    (block,) = transcripts(README.split(ON_A_SERVER)[1])
    shown = replayed(block, tmp_path, ORDERS_DATA=postgres.url("readme"))
    assert masked(shown) == masked(block.rstrip("\n"))


def test_the_python_examples_run_one_after_the_other_and_their_comments_are_true(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README.split(OTHERS)[0], re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        checked = re.sub(
            r"^( *)(\S.*?)  # (.+)$", r"\1assert (\2) == \3", block, flags=re.MULTILINE
        )
        run = subprocess.run(
            [sys.executable, "-c", checked], cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        assert "assert " in checked


def test_the_consumer_of_events_runs_as_it_is_printed_and_takes_each_once(
    start_nats, tool, send, tmp_path
):
    text = README.split(OTHERS)[1]
    (script,) = re.findall(r"```python\n(\S[^`]*pull_subscribe.*?)```", text, re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 15
    server = start_nats()
    script = script.replace("nats://127.0.0.1:4222", server.url())
    script = script.replace("timeout=5", "timeout=0.2")  # what was asked of a dead server is lost
    order = lambda: f"OrderCreated {send(PlaceOrder(items=('rope',)))[0]}"
    relay = ["relay", server.url(), "--until-idle", "0"]
    mails = sqlite3.connect(tmp_path / "mails.db")
    sent = [order(), order()]
    assert tool("place", " ").returncode == 1
    sent.append("OrderRejected None")
    assert tool(*relay).returncode == 0
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path) as consumer:

        def await_mails():
            found = []
            while len(found) < len(sent):
                assert consumer.poll() is None
                time.sleep(0.01)
                with suppress(sqlite3.OperationalError):  # there is no table yet
                    found = [mail for (mail,) in mails.execute("select text from mail")]
            assert found == sent

        try:
            await_mails()
            sent.append(order())  # the consumer waits for it
            assert tool(*relay).returncode == 0
            await_mails()
            server.restart()
            sent.append(order())
            assert tool(*relay).returncode == 0
            await_mails()
            repeat = nats_server.messages(server.url(), "ORDERS")[0].data  # its ack was lost
            end = json.dumps({"id": "the end", "type": "The", "subject": "end"}).encode()
            for event in (repeat, end):
                publish = lambda one, event=event: one.publish("orders.order-created", event)
                nats_server.run(server.url(), publish)
            sent.append("The end")
            await_mails()
        finally:
            consumer.kill()
    mails.close()


def test_the_event_that_is_shown_is_one():
    (shown,) = re.findall(r"```json\n(.*?)```", README.split(OTHERS)[1], re.DOTALL)
    received = decode(shown.encode())
    assert (received.event.items, received.number) == (("rope",), 1)
    record = Record((), 1, received.event.time, (None, received.event), ())
    assert encode(received.event, record, 1, received.source).decode() == shown.strip()


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^(python3 .* && .venv/bin/pytest)$", README, re.MULTILINE)
    assert command in (ROOT / ".ci/run").read_text()


def test_every_command_and_option_and_variable_is_documented():
    line = typer.main.get_command(app)
    commands = {**line.commands, "": line}
    options = {o for c in commands.values() for p in c.params for o in p.opts if o[:2] == "--"}
    variables = {f"ORDERS_{name.upper()}" for name in Settings.__struct_fields__}
    for name in {*line.commands, *options - {"--help"}, *variables}:
        assert re.search(rf"`[^`\n]*(?<![\w-]){re.escape(name)}(?![\w-])[^`\n]*`", README), name


def test_every_rung_has_a_demo_and_a_file():
    from orders.demos import SCENARIOS

    rungs = re.findall(r"^\| .* \| `orders demo (\S+)` \| `(\S+)` \|$", README, re.MULTILINE)
    assert len(rungs) >= 6
    for scenario, path in rungs:
        assert scenario in SCENARIOS
        assert (ROOT / path).is_file(), path


def test_the_map_names_every_package_and_the_order_of_reading_every_file_of_the_heart():
    text = README.split("## Read it")[1]
    packages = {path.name for path in (ROOT / "orders").iterdir() if path.is_dir()}
    named = set(re.findall(r"`(\w+)/`", text)) - {"files", "postgres", "nats", "notifiers"}
    assert packages - {"__pycache__"} == named
    reading = text.split("Everything else")[0]
    for name in re.findall(r"`(\w+/\w+\.py)`", reading):
        assert (ROOT / "orders" / name).exists(), name


def shown(svg):
    """Return the text of a picture, without what differs from run to run."""
    text = " ".join(re.findall(r">([^<>]+)</text>", svg))
    return re.sub(r"\b([0-9a-f]{8}|\d{3,})\b", "#", text)


def test_the_picture_is_what_the_tour_shows():
    draw = runpy.run_path(str(ROOT / ".github/picture.py"))["picture"]
    drawn = (ROOT / ".github/tour.svg").read_text("utf-8")
    assert shown(draw()) == shown(drawn), "remake it: python .github/picture.py"
