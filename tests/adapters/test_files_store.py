"""The files engine as a directory: what it makes there, and when."""

import errno
import os

import pytest
from conftest import Sales
from store_files import place

from orders import PlaceOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.store import FilesStore
from orders.application.store import START, Commit, Filter, Snapshot
from orders.errors import NotStored


class Unreachable(Sales):
    is_down = True

    def notify(self, notice):
        if self.is_down:
            raise OSError("down")
        super().notify(notice)


@pytest.mark.parametrize("exists", [False, True], ids=["no directory", "an empty directory"])
def test_looking_at_a_store_that_is_not_there_finds_nothing_wrong_and_makes_nothing(
    data, tmp_path, exists
):
    if exists:
        data.mkdir()
    before = list(tmp_path.rglob("*"))
    store = FilesStore(data)
    assert store.head() == START
    assert list(store.read()) == list(store.pending()) == list(store.deliveries()) == []
    assert store.orders() == store.orders(Filter(status="placed")) == []
    assert store.ids(prefix="a") == store.ids(keys=["k"]) == store.messages(["m"]) == {}
    assert store.load("item-sales") is None
    assert store.commit(Commit()) == START
    assert [finding for finding in store.check() if not finding.is_well] == []
    store.close()
    assert list(tmp_path.rglob("*")) == before


def test_a_store_is_made_of_the_files_that_are_documented(data):
    store = FilesStore(data)
    place(store)
    store.close()
    assert {path.name for path in data.iterdir()} == {"events.jsonl", "orders.json", "orders.lock"}
    assert (store.directory, store.location) == (data, str(data))
    assert (store.log_path, store.state_path) == (data / "events.jsonl", data / "orders.json")


def test_a_snapshot_of_another_log_and_a_damaged_one_say_so_and_are_left_alone(data, tmp_path):
    stores = [FilesStore(directory) for directory in (data, tmp_path / "other")]
    for store in stores:
        place(store)
        store.save("stats", Snapshot(store.head(), {"items": {"1": {"item": "lamp"}}}))
    path = data / "projections" / "stats.json"
    foreign = (tmp_path / "other" / "projections" / "stats.json").read_bytes()
    for content, damage in [
        (foreign, "was made of another log"),
        (path.read_bytes()[:-1], "is not valid JSON"),
        (path.read_bytes().replace(b"lamp", b"LAMP"), "was changed by another program"),
    ]:
        path.write_bytes(content)
        assert stores[0].load("stats") == Snapshot(START, {}, damage)
        assert path.read_bytes() == content
    for store in stores:
        store.close()


def test_an_order_that_is_in_doubt_is_left_to_others_to_deliver(data):
    """Its sync has failed, another process having appended behind it."""

    class FailingOnce(Disk):
        is_due = False

        def sync(self, descriptor):
            if self.is_due:
                self.is_due = False
                place(FilesStore(data))
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().sync(descriptor)

    disk = FailingOnce()
    with bootstrap(store=FilesStore(data, disk=disk), notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("rope",)))
        disk.is_due = True
        with pytest.raises(NotStored, match="it may be stored all the same"):
            app.bus.send(PlaceOrder(items=("lamp",)))
        (found,) = app.store.pending()
        assert found.is_abandoned
    with bootstrap(data, notifier=(sales := Sales())) as app:
        app.deliveries.recover()
        assert [order.items for order in app.orders.list()][1] == ("lamp",)
        assert sales.order_ids == [app.orders.list()[1].id]


def test_a_claim_of_several_whose_sync_has_failed_is_taken_back_as_a_whole(data):
    class Failing(Disk):
        is_due = False

        def sync(self, descriptor):
            if self.is_due:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            super().sync(descriptor)

    sales, disk = Unreachable(), Failing()
    store = FilesStore(data, disk=disk)
    with bootstrap(store=store, notifier=sales, on_failure=lambda *_: None) as app:
        for item in ("rope", "lamp", "rug"):
            app.bus.send(PlaceOrder(items=(item,)))
        before = store.log_path.read_bytes()
        disk.is_due = True
        with pytest.raises(NotStored, match="input/output error"):
            app.deliveries.retry()
        assert store.log_path.read_bytes() == before
        disk.is_due = False
        sales.is_down = False
        assert app.deliveries.retry() == (3, 3)
        assert len(sales.order_ids) == 3


def test_what_was_claimed_when_the_disk_was_full_is_left_to_others(data):
    class Filling(Disk):
        left = 100

        def write(self, descriptor, data):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data)

    sales, disk = Unreachable(), Filling()
    store = FilesStore(data, disk=disk)
    with bootstrap(store=store, notifier=sales, on_failure=lambda *_: None) as app:
        for item in ("rope", "lamp", "rug"):
            app.bus.send(PlaceOrder(items=(item,)))
        disk.left = 2
        with pytest.raises(NotStored, match="no space left"):
            app.deliveries.retry()
        disk.left = 100
        assert [found.is_abandoned for found in store.pending()] == [True, True]
        sales.is_down = False
        assert (app.deliveries.recover(), app.deliveries.retry()) == (2, (1, 1))
        assert len(sales.order_ids) == 3
