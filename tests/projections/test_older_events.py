"""Events of an older version are read as those of today, by whoever reads the log."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from following import Heard, followed, heard_by, messages

from orders import Event, PlaceOrder, bootstrap
from orders.application.store import START
from orders.errors import FollowerError, UnreadableMessage
from orders.projections.runners import SingleThreadedRunner
from orders.queries.wording import name_of

DAY = datetime(2026, 11, 21, tzinfo=UTC)


class KettleBoiled(Event, frozen=True, kw_only=True, tag="KettleBoiled@3"):
    """Stored once as a text `temperature`, then as a number of degrees Fahrenheit."""

    topic: ClassVar[str] = "kettle-boiled"

    celsius: int
    since: datetime

    @classmethod
    def upcast(cls, fields, revision):
        if revision == 1:
            temperature = fields.pop("temperature")
            if not temperature.endswith(" F"):
                raise ValueError(f"no temperature is {temperature!r}")
            fields["fahrenheit"] = int(temperature.removesuffix(" F"))
        celsius = (fields.pop("fahrenheit") - 32) * 5 // 9
        return {"since": fields["time"], **fields, "celsius": celsius}


class PotBoiled(Event, frozen=True, kw_only=True, tag="PotBoiled@2"):
    """Has nothing to say about its first revision."""

    topic: ClassVar[str] = "pot-boiled"


OLDER = """
import sys
from datetime import datetime
from typing import ClassVar
from orders import Event, OrderCreated, bootstrap

class KettleBoiled(Event, frozen=True, kw_only=True, tag=sys.argv[2]):
    topic: ClassVar[str] = "kettle-boiled"
    temperature: str | None = None
    fahrenheit: int | None = None
    pressure: int | None = None
    since: str | None = None

    @classmethod
    def upcast(cls, fields, revision):
        return fields

class PotBoiled(Event, frozen=True, kw_only=True):
    topic: ClassVar[str] = "pot-boiled"

class Unheard(Event, frozen=True):
    topic: ClassVar[str] = "unheard"

with bootstrap(sys.argv[1]) as app:
    with app.uow() as uow:
        for event in eval(sys.argv[3]):
            uow.emit(event)
"""


@pytest.fixture
def older(data):
    """Store events, in one line, in a process where their class is as it was, or will be."""

    def store(tag, *events):
        listed = f"[{', '.join(events)}]"
        command = [sys.executable, "-c", OLDER, str(data), tag, listed]
        subprocess.run(command, check=True, timeout=60)

    return store


@pytest.mark.parametrize(
    ("tag", "event"),
    [
        ("KettleBoiled", "KettleBoiled(temperature='212 F')"),
        ("KettleBoiled@2", "KettleBoiled(fahrenheit=212)"),
    ],
)
def test_a_stored_event_of_an_older_version_is_read_as_one_of_today(tag, event, older, app):
    older(tag, event)
    (stored,) = messages(app)
    assert type(stored) is KettleBoiled
    assert (stored.celsius, stored.since) == (100, stored.time)
    assert stored.correlation_id == stored.id
    assert app.store.messages([stored.id]) == {stored.id: stored}
    assert b"celsius" not in app.store.log_path.read_bytes()


def test_whoever_reads_the_log_sees_old_and_new_events_alike(older, app):
    older("KettleBoiled", "KettleBoiled(temperature='50 F')")
    older("KettleBoiled@2", "KettleBoiled(fahrenheit=212)")
    app.uow().emit(KettleBoiled(celsius=37, since=DAY))

    class Temperatures(Heard):
        follow = (KettleBoiled,)

        def apply(self, event):
            self.tables["heard"][event.id] = event.celsius

    assert followed(app, Temperatures).projection.names == [10, 100, 37]
    with SingleThreadedRunner(app, [Temperatures]) as runner:
        app.uow().emit(KettleBoiled(celsius=38, since=DAY))
        assert runner.get(Temperatures).names == [10, 100, 37, 38]


def test_an_older_event_beside_others_in_one_line_leaves_them_as_they_are(older, app):
    kettle = "KettleBoiled(temperature='212 F')"
    older("KettleBoiled", "OrderCreated(order_id='1', items=('rope',))", kettle, "Unheard()")
    names = [name_of(message) for message in messages(app)]
    assert names[:3] == ["OrderCreated", "KettleBoiled", "Unheard"]
    assert heard_by(app, Event) == ["OrderCreated", "KettleBoiled"]
    assert [order.items for order in app.orders.list()] == [("rope",)]


def test_an_event_of_a_newer_revision_is_refused_for_to_pass_over_it_would_be_to_forget(older, app):
    older("KettleBoiled@4", "KettleBoiled(pressure=3)")
    with pytest.raises(UnreadableMessage, match="KettleBoiled@4 is of a newer version of orders"):
        messages(app)
    with pytest.raises(FollowerError, match="KettleBoiled@4 is of a newer version of orders"):
        heard_by(app, KettleBoiled)


def test_an_older_event_that_no_way_leads_from_is_an_error_that_names_the_line(older, app):
    app.bus.send(PlaceOrder(("rope",)))
    older("KettleBoiled", "KettleBoiled(temperature='hot')")
    with pytest.raises(UnreadableMessage, match=r"jsonl:3: .* no temperature is 'hot'"):
        messages(app)


@pytest.mark.engines
def test_what_is_advised_does_not_depend_on_the_words_of_an_error(older, app):
    older("KettleBoiled", "KettleBoiled(temperature='of a newer version')")
    with pytest.raises(UnreadableMessage, match=r"'of a newer version'; give its class .*upcast"):
        messages(app)


def test_a_class_that_does_not_say_how_to_read_its_older_events_says_so(older, app):
    older("KettleBoiled@2", "PotBoiled()")
    with pytest.raises(
        UnreadableMessage, match="PotBoiled does not say how to read its revision 1"
    ):
        messages(app)


def test_an_upcast_event_that_its_class_refuses_is_an_error_that_names_the_line(older, app):
    older("KettleBoiled@2", "KettleBoiled(fahrenheit=212, since='yesterday')")
    with pytest.raises(UnreadableMessage, match=r"jsonl:1: .*since"):
        messages(app)


def test_a_reader_goes_on_at_any_cursor_past_an_old_event(older, app):
    older("KettleBoiled", "KettleBoiled(temperature='212 F')")
    app.uow().emit(KettleBoiled(celsius=37, since=DAY))
    first, second = app.store.read()
    assert list(app.store.read(first.cursor)) == [second]
    assert list(app.store.read(START)) == [first, second]


def test_an_event_of_today_is_stored_under_its_revision_and_read_back(app, data):
    emitted = KettleBoiled(celsius=37, since=DAY)
    app.uow().emit(emitted)
    assert b'"type":"KettleBoiled@3"' in app.store.log_path.read_bytes()
    with bootstrap(data) as other:
        stored = other.store.messages([emitted.id])[emitted.id]
    assert (stored.celsius, stored.since, stored.time) == (37, DAY, emitted.time)
