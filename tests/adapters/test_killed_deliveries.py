"""Every delivery happens once: events x subscribers, some failing, some poison, all killed."""

import os
import random
from typing import ClassVar
from zlib import crc32

import pytest

from orders import Event, bootstrap
from orders.application.deliveries import RETRIES
from orders.application.store import Match
from orders.tools.doctor import examine, repair


class Asked(Event, frozen=True):
    topic: ClassVar[str] = "asked"

    number: int = 0


class Effect(Event, frozen=True):
    topic: ClassVar[str] = "effect"

    number: int = 0
    subscriber: str = ""


SUBSCRIBERS = ("first", "second", "third")


def luck(number, name):
    return crc32(f"{number} {name}".encode()) % 100


def is_poison(number, name):
    return luck(number, name) == 0


def is_transient(number, name):
    return 1 <= luck(number, name) <= 5


class Stamping:
    """A subscriber whose effect is an event; it fails after it, by the rules above."""

    def __init__(self, name, failures):
        self.name, self.failures = name, failures

    def __call__(self, event, *, uow):
        uow.emit(Effect(number=event.number, subscriber=self.name))
        if is_poison(event.number, self.name):
            raise ValueError("poison")
        if is_transient(event.number, self.name):
            with (self.failures / f"{event.number} {self.name}").open("ab", buffering=0) as file:
                if file.tell() < 1 + event.number % 5:  # once to five times, across all processes
                    file.write(b".")
                    raise OSError("not now")


def open_app(data, failures, progress=None):
    def report(character):
        if progress is not None:
            os.write(progress, character)

    class Reporting(Stamping):
        def __call__(self, event, *, uow):
            super().__call__(event, uow=uow)
            report(b".")  # about to be recorded

    app = bootstrap(data, on_failure=lambda *_: report(b"!"))
    for name in SUBSCRIBERS:
        app.bus.subscribe(Asked, Reporting(name, failures), name=name)
    return app


def stored(app, kind):
    """The events of a class in the log; one unreadable line would raise."""
    records = app.store.read(match=Match(types=[kind]))
    found = (message for record in records for message in record.messages)
    return [message for message in found if isinstance(message, kind)]


def work(data, failures, progress, me, events):
    """Deliver what the dead left, then ask what of this worker's share is not asked yet."""
    with open_app(data, failures, progress) as app:
        app.deliveries.recover()
        known = {event.number for event in stored(app, Asked)}
        for number in range(me, events, 2):
            if number not in known:
                app.unit_of_work.emit(Asked(number=number))


def kill_and_restart(work_as, kills, total, progress, reading):
    """Kill one of two workers after random progress, again and again; then let them finish."""
    chance, killed = random.Random(20261121), 0
    workers = [work_as(me) for me in range(2)]
    while killed < kills:
        for _ in range(chance.randint(1, total // kills)):
            assert os.read(reading, 1)
        me = chance.randrange(2)
        workers[me].kill()
        killed += workers[me].wait() == -9
        workers[me] = work_as(me)
    os.close(progress)
    while os.read(reading, 1 << 16):
        pass
    os.close(reading)
    assert [worker.wait() for worker in workers] == [0, 0]


def keys_in(app, *statuses):
    return {account.delivery.key for account in app.store.deliveries(*statuses)}


@pytest.mark.engines
@pytest.mark.parametrize(
    ("events", "kills"), [(60, 2), pytest.param(10_000, 200, marks=pytest.mark.long)]
)
@pytest.mark.sample(2)
def test_every_delivery_happens_once_and_ends_in_one_state_whatever_is_killed(
    events, kills, data, fork, tmp_path
):
    failures = tmp_path / "failures"
    failures.mkdir()
    reading, progress = os.pipe()
    kill_and_restart(
        lambda me: fork(work, data, failures, progress, me, events),
        kills,
        len(SUBSCRIBERS) * events,
        progress,
        reading,
    )
    with open_app(data, failures) as app:
        app.deliveries.recover()  # what was left by a worker killed late
        assert list(app.store.pending()) == []
        by_id = {event.id: event.number for event in stored(app, Asked)}
        assert sorted(by_id.values()) == [*range(events)]
        keys = {(event, name) for event in by_id for name in SUBSCRIBERS}
        poison = {(event, name) for event, name in keys if is_poison(by_id[event], name)}
        assert keys_in(app) == keys
        failed = keys_in(app, "failed")
        assert failed > poison > set()
        assert keys_in(app, "done") == keys - failed

        for _ in range(RETRIES):
            _, tried = app.deliveries.retry()
            assert tried == len(failed)
            failed = keys_in(app, "failed")
        assert app.deliveries.retry() == (0, 0)
        assert keys_in(app, "done") == keys - poison
        assert keys_in(app, "dead") == poison
        dead = list(app.store.deliveries("dead"))
        assert {account.delivery.retries for account in dead} == {RETRIES}
        event, _ = min(poison)  # still to be retried by its id
        assert app.deliveries.retry([event]) == (0, sum(key[0] == event for key in poison))
        assert keys_in(app, "dead") == poison

        effects = [(event.number, event.subscriber) for event in stored(app, Effect)]
        assert len(effects) == len({*effects})
        assert {*effects} == {(by_id[event], name) for event, name in keys - poison}
        numbers = [record.number for record in app.store.read()]
        assert numbers == [*range(1, len(numbers) + 1)]
        list(repair(app))
        assert [f.subject for f in examine(app) if not f.is_well] == ["deliveries"]  # the dead
    print(f"{len(keys)} deliveries, {kills} kills: {len(effects)} effects, {len(poison)} dead")
