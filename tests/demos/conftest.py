"""What the tests of the demos share."""

import tempfile
from pathlib import Path
from shutil import rmtree

import pytest


@pytest.fixture
def empty(monkeypatch):
    """The directory for temporary files, with nothing in it.

    It is not one of pytest's, which are the user's alone: as root, PostgreSQL is run by another.
    """
    directory = Path(tempfile.mkdtemp(prefix="orders-tests-"))
    directory.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield directory
    rmtree(directory, ignore_errors=True)
