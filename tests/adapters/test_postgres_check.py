"""What the doctor sees of a database, and what it repairs from the log."""

from contextlib import closing

import postgresql
import psycopg
import pytest
from conftest import Sales
from storing import contents, moved, notified, outcome, place

from orders import bootstrap
from orders.adapters.postgres.store import PostgresStore
from orders.application.store import Commit
from orders.tools.doctor import examine, repair


def bad(store):
    return {finding.subject: finding for finding in store.check() if not finding.is_well}


def change(store, statement):
    store.connection.run(lambda session: session.link.execute(statement))


HARM = {
    "a version": ("state", "update orders set state = jsonb_set(state::jsonb, '{version}', '9')"),
    "a lost order": ("state", "delete from orders where key is not null"),
    "a key": ("state", "update orders set key = 'another' where key is not null"),
    "a status": ("deliveries", "update delivery set body = replace(body, 'done', 'failed')"),
    "a lost delivery": ("deliveries", "delete from delivery where status = 'done'"),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_not_the_fold_of_the_log_is_named_and_made_anew(store, url, harm):
    subject, statement = HARM[harm]
    order = place(store, "Lamp", customer="Zoë", key="key")
    place(store, "rope")
    store.commit(Commit(outcomes=(outcome(notified(store)),)))
    store.commit(commit_of_shipping(store, order))
    store.release()
    notified(store)
    before = contents(store)
    assert bad(store) == {}
    change(store, statement)
    assert {key: finding.cure for key, finding in bad(store).items()} == {
        subject: "orders doctor --repair"
    }
    assert contents(store) != before
    with bootstrap(url, notifier=Sales()) as app:
        done = list(app.store.repair())
        assert len(done) == 1
        assert list(app.store.repair()) == []
    assert bad(store) == {}
    assert [one.delivery for one in store.pending()] == [one.delivery for one in before[2]]
    assert (store.orders(), contents(store)[4]) == (before[1], before[4])
    assert next(store.deliveries()) == before[3][0]
    assert store.count() == 4


def commit_of_shipping(store, order):
    from storing import commit_of

    return commit_of(moved(store, order.id))


def test_the_doctor_of_the_command_line_repairs_what_it_says(url, store):
    place(store, key="key")
    change(store, "delete from orders")
    with bootstrap(url, notifier=Sales()) as app:
        assert "state" in [finding.subject for finding in examine(app) if not finding.is_well]
        assert list(repair(app)) == ["made the orders anew from the log"]
        assert [finding for finding in examine(app) if not finding.is_well] == []


def test_who_holds_the_log_back_is_named(store, postgres):
    with psycopg.connect(postgres.url("template1", application_name="big-load")) as other:
        other.execute("select pg_current_xact_id()")
        pid = other.info.backend_pid
        place(store)
        found = bad(store)["horizon"]
    assert f"process {pid} (big-load, database template1)" in found.text
    assert found.cure == f"select pg_terminate_backend({pid})"
    assert "horizon" not in bad(store)


@pytest.mark.long
def test_a_server_that_may_lose_what_was_acknowledged_is_named():
    with (
        closing(postgresql.Server(*postgresql.QUICK)) as risky,
        closing(PostgresStore(risky.url())) as store,
    ):
        place(store)
        found = bad(store)["durability"]
    assert "fsync and full_page_writes and synchronous_commit off" in found.text
    assert "alter system set fsync = on" in found.cure


def test_a_server_that_is_down_is_one_finding():
    url = f"postgresql://127.0.0.1:{postgresql.free_port()}/x"
    with bootstrap(url, notifier=Sales()) as app:
        (finding,) = examine(app)
    assert (finding.subject, finding.is_well) == ("log", False)
    assert "Connection refused" in finding.text
