"""What the tests share: a store of their own, and the tool as a real process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orders import Notice, bootstrap


class Sales:
    """A notifier that keeps what it is told."""

    def __init__(self):
        self.notices: list[Notice] = []

    def notify(self, notice):
        self.notices.append(notice)

    @property
    def order_ids(self):
        return [notice.order_id for notice in self.notices]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    """Keep the tests away from the developer's store, terminal and colours."""
    for name in [name for name in os.environ if name.startswith("ORDERS_")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path) -> Path:
    """The directory of a store that does not exist yet."""
    return tmp_path / "store"


@pytest.fixture
def sales() -> Sales:
    return Sales()


@pytest.fixture
def failures() -> list:
    """What subscribers raised: (subscriber's name, event, error)."""
    return []


@pytest.fixture
def app(data, sales, failures):
    """The order system on a fresh store, its notices kept by `sales`."""

    def note(subscriber, event, error):
        failures.append((subscriber.name, event, error))

    with bootstrap(data, notifier=sales, on_failure=note) as app:
        yield app


@pytest.fixture
def orders(data):
    """Run the tool as a process of its own; returns the completed process, output as text."""

    def run(*arguments, input=None, env=(), data=data):  # noqa: A002 - as subprocess.run calls it
        return subprocess.run(
            [sys.executable, "-m", "orders", *arguments],
            input=input,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            env={**os.environ, "ORDERS_DATA": str(data), **dict(env)},
            timeout=120,
        )

    return run
