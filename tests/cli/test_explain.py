"""`orders explain`: every text fits a screen, every example in it runs, every word is found."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from screens import plain, width

import orders
from orders import PlaceOrder, Settings
from orders.adapters.files.faults import POINTS
from orders.cli.explaining import TEXTS
from orders.demos import SCENARIOS

FILES = sorted(TEXTS.glob("*.md"), key=lambda path: path.stem)
WORDS = [path.stem for path in FILES]
PACKAGE = Path(orders.__file__).parent

each_text = pytest.mark.parametrize("text", [path.read_text() for path in FILES], ids=WORDS)

each_word = pytest.mark.parametrize("path", FILES, ids=WORDS)


def examples(text):
    return re.findall(r"^    \$ (.*)$", text, re.MULTILINE)


# Texts


def test_every_word_of_the_field_is_there():
    assert WORDS == [
        "aggregate",
        "at-least-once",
        "command",
        "correlation-and-causation",
        "cqrs",
        "cursor",
        "dead-letter",
        "delivery",
        "environment",
        "event",
        "event-sourcing",
        "fault-point",
        "handler",
        "idempotency",
        "message-bus",
        "optimistic-concurrency",
        "outbox",
        "plugin",
        "policy",
        "projection",
        "replay",
        "repository",
        "snapshot",
        "store-port",
        "subscriber",
        "time-travel",
        "topic",
        "unit-of-work",
        "worker",
    ]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.sample(3)
def test_every_text_fits_a_screen_and_leaves_a_line_to_type_on(screen, word):
    status, shown = screen("explain", word)
    lines = plain(shown).splitlines()
    assert status == 0
    assert len(lines) < 24
    assert max(map(width, lines)) <= 80


@each_word
def test_a_text_is_piped_as_the_markdown_that_it_is_and_fits_a_screen_too(tool, path):
    shown = tool("explain", path.stem)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, path.read_text(), "")
    lines = shown.stdout.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


@each_word
def test_every_text_is_titled_by_its_word_and_ends_in_a_command_to_try(path):
    title, _, _, *_, last = path.read_text().splitlines()
    assert title.lower() == f"# {path.stem.replace('-', ' ')}"
    assert last.startswith("    $ ")


@each_text
def test_every_file_that_a_text_names_exists(text):
    paths = re.findall(r"`(orders/[a-z_/.]+)`", text)
    assert paths
    assert [path for path in paths if not (PACKAGE.parent / path).exists()] == []


@each_text
@pytest.mark.sample(4)
def test_every_example_runs(text, tool, send, data):
    send(PlaceOrder(("100 inch TV", "magic carpet"), "Aunt Mae"), PlaceOrder(("rope",)))
    bin_ = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "ORDERS_DATA": str(data),
    }
    for example in examples(text):
        program, *arguments = shlex.split(example)
        if program != "orders" or set(example) & set("$;|"):
            run = subprocess.run(["bash", "-c", example], env=env, capture_output=True, text=True)
        elif arguments[0] == "demo":  # each is played in tests/demos
            assert arguments[1:] == [name for name in SCENARIOS if name in arguments]
            continue
        else:
            run = tool(*arguments)
        assert run.returncode == 0, example
        assert "error:" not in run.stderr
        assert run.stdout or run.stderr or "--failed" in example, example


def test_the_fault_points_and_the_variables_are_all_explained():
    faults = (TEXTS / "fault-point.md").read_text()
    assert set(re.findall(r"`((?:before|mid|torn|after)-[a-z-]+)`", faults)) == set(POINTS)
    environment = (TEXTS / "environment.md").read_text()
    named = set(re.findall(r"`(?:ORDERS_)?([A-Z_]+)`:", environment))
    assert named >= {name.upper() for name in Settings.__struct_fields__}


# Finding


def test_without_a_word_they_are_listed_one_a_line(tool, screen):
    listed = tool("explain")
    words = [line.split("\t")[0] for line in listed.stdout.splitlines()]
    assert [word.lower().replace(" ", "-") for word in words] == WORDS
    _, shown = screen("explain")
    for word in words:
        (line,) = (line for line in plain(shown).splitlines() if line.startswith(f"{word}  "))
        assert line.rstrip().endswith(".")


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        *((word, word) for word in WORDS),
        *((word.replace("-", " ").upper(), word) for word in WORDS if "-" in word),
        ("Unit  of-Work", "unit-of-work"),
        ("pol", "policy"),
        ("time", "time-travel"),
        ("concurrency", "optimistic-concurrency"),
        ("causation", "correlation-and-causation"),
    ],
)
@pytest.mark.sample(12)
def test_a_word_is_found_in_any_case_and_by_how_it_or_a_part_of_it_begins(tool, typed, word):
    assert tool("explain", typed).stdout == (TEXTS / f"{word}.md").read_text()


def test_a_word_of_several_needs_no_quotes(tool):
    assert tool("explain", "unit", "of", "work").stdout.startswith("# Unit of work\n")


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("comand", "try: orders explain command"),
        ("out box", "try: orders explain outbox"),
        ("optimistc concurency", "try: orders explain 'optimistic concurrency'"),
        ("xyzzy", "try: orders explain"),
        ("dead latter", "try: orders explain 'dead letter'"),
        (
            "o",
            "optimistic concurrency, outbox\ntry: orders explain optimistic concurrency",
        ),
        ("", "try: orders explain aggregate"),
    ],
)
def test_what_is_not_a_word_says_the_nearest(tool, typed, advice):
    refused = tool("explain", typed)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 2)
    assert advice in refused.stderr


def test_words_are_completed(tool):
    env = {"_ORDERS_COMPLETE": "complete_bash", "COMP_WORDS": "orders explain c", "COMP_CWORD": "2"}
    completed = tool(env=env).stdout.split()
    assert completed == ["command", "correlation-and-causation", "cqrs", "cursor"]
