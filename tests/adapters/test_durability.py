"""What is acknowledged was handed to the disk: the real fsync is called, on the right files."""

import os

import pytest

from orders import PlaceOrder, bootstrap


@pytest.fixture
def synced(monkeypatch):
    """The inodes that were synced, in order; the syncing itself goes on as it does."""
    inodes = []
    fsync = os.fsync

    def note(descriptor):
        inodes.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return inodes


def test_an_order_is_acknowledged_after_the_log_and_its_names_were_synced(data, sales, synced):
    app = bootstrap(data, notifier=sales)
    app.bus.send(PlaceOrder(("rope",)))
    names = [data.parent, data, data / "events.jsonl"]
    assert [path.stat().st_ino for path in names if path.stat().st_ino not in synced] == []


def test_every_acknowledged_order_was_synced(app, data, synced):
    for number in range(1, 4):
        app.bus.send(PlaceOrder(("rope",)))
        assert synced.count((data / "events.jsonl").stat().st_ino) == number


def test_a_notice_is_given_after_the_order_was_synced(data, synced):
    class Checking:
        def notify(self, notice):
            assert (data / "events.jsonl").stat().st_ino in synced
            notices.append(notice)

    notices = []
    with bootstrap(data, notifier=Checking()) as app:
        app.bus.send(PlaceOrder(("rope",)))
    assert len(notices) == 1


def test_the_state_is_synced_and_then_its_name(data, sales, synced):
    with bootstrap(data, notifier=sales) as app:
        app.bus.send(PlaceOrder(("rope",)))
        synced.clear()
    state, directory = (data / "orders.json").stat().st_ino, data.stat().st_ino
    assert synced.index(state) < len(synced) - 1 - synced[::-1].index(directory)
