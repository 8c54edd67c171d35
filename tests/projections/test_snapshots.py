"""A follower's tables and cursor are one; what is kept of them changes speed, never results."""

import errno
import json
import os
import shutil
from itertools import count
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from following import Counting, Quiet, followed, kept, open_app, place, snapshot, sold, times

from orders import CancelOrder, Order, Settings, ShipOrder, bootstrap
from orders.adapters.files.disk import Disk
from orders.adapters.files.state import StateStorage
from orders.application.store import Snapshot
from orders.errors import ForeignFile, NotWritten, StoreBusy
from orders.projections.follower import Follower
from orders.projections.shipped import ItemSales, OrdersADay


def file_of(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@pytest.fixture
def app(request, sales):
    """The order system in memory; on files where the test looks at those."""
    where = request.getfixturevalue("data") if "data" in request.fixturenames else ":memory:"
    with bootstrap(where, notifier=sales) as app:
        yield app


@pytest.fixture
def busy(app):
    """A store with seven events of four orders."""
    ids = [place(app, "rope", f"item {number}") for number in range(4)]
    app.bus.send(ShipOrder(ids[0]))
    app.bus.send(CancelOrder(ids[1]))
    app.bus.send(ShipOrder(ids[3]))
    return app


# Kept


def test_who_comes_later_begins_where_the_snapshot_ends(busy):
    first = kept(busy)
    place(busy, "lamp")
    second = followed(busy)
    assert second.projection.applied == 1
    first.catch_up()
    assert second.projection.tables == first.projection.tables
    assert times(second) == sold(busy)


def test_nothing_new_leaves_the_file_alone(busy, data):
    follower = kept(busy)
    before = snapshot(data).stat().st_ino  # each time it is written it is another file
    follower.catch_up()
    follower.save()
    kept(busy).save()
    assert snapshot(data).stat().st_ino == before


def test_only_its_owner_may_read_what_is_kept(busy, data):
    kept(busy)
    assert snapshot(data).stat().st_mode & 0o777 == 0o600
    assert snapshot(data).parent.stat().st_mode & 0o777 == 0o700


def test_a_snapshot_that_is_gone_costs_time_only(busy, data):
    before = kept(busy).projection
    shutil.rmtree(snapshot(data).parent)
    after = kept(busy).projection
    assert after.tables == before.tables
    assert after.applied == 7
    assert snapshot(data).exists()


def cut(whole):
    return (whole[:size] for size in range(len(whole)))


def flip(whole):
    return (whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(len(whole)))


def blank(whole):
    return (whole[:n].ljust(len(whole), b"\0") for n in range(0, len(whole), 16))


@pytest.mark.parametrize("damages", [cut, flip, blank])
@pytest.mark.sample(1)
def test_a_damaged_snapshot_changes_no_result_wherever_it_is_damaged(damages, busy, data):
    kept(busy)
    place(busy, "lamp")
    expected = sold(busy)
    whole = snapshot(data).read_bytes()
    body = whole.index(b'"sold"')
    for number, damaged in enumerate(damages(whole)):
        snapshot(data).write_bytes(damaged)
        try:
            follower = followed(busy)
        except ForeignFile:  # it looks like a file of another program, or of a newer version
            assert damages is flip
            assert number < body
            assert isinstance(json.loads(damaged), dict)
            continue
        assert times(follower) == expected
        assert follower.projection.applied in {1, 8}
        follower.save()
        assert followed(busy).projection.applied == 0


def test_a_number_that_was_changed_by_another_program_is_not_believed(busy, data):
    kept(busy)
    snapshot(data).write_bytes(snapshot(data).read_bytes().replace(b'"times":3', b'"times":9'))
    follower = Follower(busy.store, Counting)
    assert "another program" in follower.load()
    follower.catch_up()
    assert times(follower) == sold(busy)


def test_a_snapshot_of_another_log_is_not_believed(busy, data, tmp_path):
    kept(busy)
    busy.close()
    other = tmp_path / "other"
    with open_app(other) as app:
        for _ in range(12):  # more of it than of the first
            place(app, "carpet")
    for name in ("events.jsonl", "orders.json"):
        shutil.copy(other / name, data / name)
    with open_app(data) as app:
        follower = kept(app)
        assert times(follower) == sold(app) == {"carpet": 12}
        assert followed(app).projection.applied == 0


def test_a_snapshot_that_knows_more_than_the_log_is_not_believed(busy, data):
    """A power cut has taken the end of the log; what came instead is as long."""
    lines = busy.store.log_path.read_bytes().splitlines(keepends=True)
    kept(busy)
    known = busy.store.log_path.stat().st_size
    busy.close()
    for remaining in (len(lines) - 1, len(lines) - 4, 1, 0):
        (data / "orders.json").unlink(missing_ok=True)
        (data / "events.jsonl").write_bytes(b"".join(lines[:remaining]))
        with open_app(data) as app:
            assert times(followed(app)) == sold(app)
            for number in count():
                place(app, f"other {number}")
                assert times(followed(app)) == sold(app)
                if app.store.log_path.stat().st_size > known:
                    break


def test_a_snapshot_of_an_older_version_of_the_projection_is_begun_anew(busy, data):
    class Older(OrdersADay):
        name = "item-sales"

    class OtherColumns(ItemSales):
        columns: ClassVar = {"sold": ("thing", "times"), "open": ("order_id", "items")}

    for older in (Older, OtherColumns):
        kept(busy, older)
        follower = kept(busy)
        assert times(follower) == sold(busy)
        assert follower.projection.applied == 7
        snapshot(data).unlink()


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", '{"log": {"1": {"format": 2}}}', "5"])
def test_a_foreign_file_in_place_of_the_snapshot_is_refused_and_left_alone(text, busy, data):
    kept(busy)
    if "format" in text:
        whole = snapshot(data).read_text()
        text = whole.replace('"format":1', '"format":2')
    snapshot(data).write_text(text)
    with pytest.raises(ForeignFile, match=r"item-sales\.json"):
        Follower(busy.store, ItemSales).load()
    assert snapshot(data).read_text() == text


def test_a_directory_in_place_of_the_snapshot_is_refused(busy, data):
    snapshot(data).mkdir(parents=True)
    with pytest.raises(ForeignFile, match="is a directory"):
        Follower(busy.store, ItemSales).load()


def test_a_full_disk_keeps_the_snapshot_of_before_and_the_follower_goes_on(busy, data):
    class Full(Disk):
        is_full = True

        def write(self, descriptor, content):
            if self.is_full and file_of(descriptor).suffix == ".tmp":
                raise OSError(errno.ENOSPC, "no space left on device")
            return super().write(descriptor, content)

    kept(busy)
    before = snapshot(data).read_bytes()
    with open_app(data, disk=(disk := Full())) as app:
        place(app, "lamp")
        follower = followed(app)
        with pytest.raises(NotWritten, match="no space left"):
            follower.save()
        assert snapshot(data).read_bytes() == before
        assert [file.name for file in snapshot(data).parent.iterdir()] == ["item-sales.json"]
        disk.is_full = False
        place(app, "lamp")
        follower.catch_up()
        follower.save()
        assert followed(app).projection.applied == 0
        assert times(followed(app)) == sold(app)


def test_a_snapshot_never_knows_what_a_power_cut_could_take_from_the_log(busy, data):
    class Recording(Disk):
        synced = 0
        known: ClassVar = []

        def sync(self, descriptor):
            super().sync(descriptor)
            if file_of(descriptor).name == "events.jsonl":
                Recording.synced = os.fstat(descriptor).st_size

        def replace(self, source, target):
            if target.name == "item-sales.json":
                head = StateStorage(source, self).head()
                self.known.append((head.offset, self.synced))
            super().replace(source, target)

    with open_app(data, disk=Recording()) as app:
        for _ in range(5):
            kept(app)  # of what this process has not synced, and others perhaps not
            place(busy)
            place(app)  # whose delivery is recorded, and not synced
    assert len(Recording.known) == 5
    assert all(offset <= synced for offset, synced in Recording.known)


def test_a_large_snapshot_is_due_when_the_log_has_outgrown_it_by_half(data):
    large = {"sold": {"1": {"item": "x" * (1 << 21), "times": 1}}, "open": {}}
    with open_app(data) as app:
        assert app.store.is_due("item-sales")
        place(app)
        app.store.save("item-sales", Snapshot(app.store.head(), large))
        place(app)
        assert not app.store.is_due("item-sales")
        assert app.store.is_due("orders-a-day")  # of which nothing is kept
        with app.uow() as uow:
            for _ in range(1200):
                uow.orders.add(Order.place(["x" * 450, "y" * 450]))
        assert app.store.is_due("item-sales")
        follower = kept(app, ItemSales)
        assert follower.projection.times("rope") == 1  # the other one the snapshot knew
        assert not app.store.is_stale("item-sales")


# Others at the same time


def write(data, name, orders):
    with open_app(data) as app:
        for number in range(orders):
            order_id = place(app, name, "rope")
            if number % 3 == 0:
                app.bus.send(CancelOrder(order_id))


def save_again_and_again(data, stop):
    """Follow, each time anew or as before, and keep, until it is to stop."""
    with open_app(data) as app:
        follower = Follower(app.store, Counting)
        for number in count():
            is_last = stop.exists()
            if number % 3 == 0:
                follower = Follower(app.store, Counting)
                follower.load()
            follower.catch_up()
            follower.save()
            assert len({*times(follower)}) <= 4
            if is_last:
                break


def test_saving_disturbs_no_writer_and_savers_do_not_disturb_each_other(data, fork, tmp_path):
    stop = tmp_path / "stop"
    with open_app(data) as app:
        place(app)
    savers = [fork(save_again_and_again, data, stop) for _ in range(2)]
    writers = [fork(write, data, f"item {number}", 30) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0] * 3
    stop.touch()
    assert [saver.wait() for saver in savers] == [0] * 2
    with open_app(data) as app:
        follower = followed(app)
        assert follower.projection.applied == 0
        assert times(follower) == sold(app)
        assert times(follower)["rope"] == 1 + 3 * 20


def test_two_of_one_process_that_save_at_the_same_time_wait_for_each_other(busy, data):
    class Slow(Disk):
        def replace(self, source, target):
            if target.name == "item-sales.json" and other.ident is None:
                other.start()
                other.join(0.2)  # or until it waits
            super().replace(source, target)

    second = followed(busy)
    other = Thread(target=lambda: (second.save(), saved.append("second")))
    saved = []
    with open_app(data, disk=Slow()) as app:
        kept(app)
        other.join()
    assert saved == ["second"]
    assert followed(busy).projection.applied == 0


def test_a_writer_is_not_kept_waiting_by_who_folds(app, data):
    """An order is placed, by another application, in the midst of a fold."""

    class Ordering(Counting):
        def apply(self, event):
            super().apply(event)
            if self.applied <= 3:
                place(other, "carpet")

    place(app)
    with open_app(data) as other:
        follower = followed(app, Ordering)
        follower.catch_up()
        follower.catch_up()
        follower.catch_up()
        assert times(follower) == {"rope": 1, "carpet": 3} == sold(app)


def test_a_store_that_stays_locked_is_an_error_and_changes_nothing(busy, data):
    follower = followed(busy)
    settings = Settings(data, lock_timeout=0.05)
    with bootstrap(settings=settings, notifier=Quiet()) as impatient:
        waiting = followed(impatient)
        with busy.store.log.writing(), pytest.raises(StoreBusy):
            waiting.save()
        assert not snapshot(data).exists()
        waiting.save()
    follower.save()
    assert times(followed(busy)) == sold(busy)
