"""What becomes of a commit whose connection is cut, and of the lease of a process that is gone."""

import gc
import os
import signal
import traceback
from itertools import count

import pytest
from conftest import Sales
from postgres_proxy import Proxy
from storing import again, commit_of, notified, numbers, outcome, place

from orders import OrderCreated, PlaceOrder, bootstrap
from orders.adapters.postgres import connection
from orders.adapters.postgres.store import PostgresStore
from orders.application.store import Commit, Delivery
from orders.domain.order import Order
from orders.errors import AlreadySettled, NotStored, StoreUnreachable


def eventually(is_so):
    """Wait until the server has noticed, which takes it a moment."""
    assert any(is_so() for _ in range(10_000))


def is_all_abandoned(store):
    return all(pending.is_abandoned for pending in store.pending())


@pytest.fixture
def proxy(postgres):
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def open_store(url):
    stores = []

    def open_one(url=url, **options):
        stores.append(PostgresStore(url, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


# Commits that are cut


def test_an_order_with_its_delivery_takes_three_round_trips_at_most(url, proxy, open_store):
    with bootstrap(proxy.url(url), notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("rope",)))
        proxy.cut_after(10**9)
        app.bus.send(PlaceOrder(items=("rope",)))
        app.store.head()  # by then the last hint was answered
        asked = [kind for kind in proxy.messages if kind in "SQ"]
        assert asked == ["S", "S", "S"]  # commit, commit; and this question
        open_store().wait((), 0)  # who listens from now on
        proxy.cut_after(10**9)
        app.bus.send(PlaceOrder(items=("rope",)))
        app.store.head()
        asked = [kind for kind in proxy.messages if kind in "SQ"]
        assert asked[-4:] == ["S", "Q", "S", "S"]  # with a hint, whose answer nobody waits for


@pytest.mark.parametrize("often", [1, connection.OFTEN], ids=["prepared", "not prepared"])
@pytest.mark.sample(1)
def test_a_commit_that_is_cut_at_any_message_is_stored_once_or_not_at_all(
    often, url, proxy, open_store, monkeypatch
):
    monkeypatch.setattr(connection, "OFTEN", often)
    store, other = open_store(proxy.url(url)), open_store()
    place(store)
    stored = 1
    for cut in count():
        store.head()  # which answers the hint of the commit before
        order = Order.place([f"cut at {cut}"])
        commit = commit_of(order, pending=(Delivery(order.pending[0].id, "sales"),))
        proxy.cut_after(cut)
        cursor = store.commit(commit)
        stored += 1
        assert other.order(order.id) == order.state
        assert other.head() == cursor
        assert store.holds(commit)
        assert numbers(other) == list(range(1, stored + 1))
        assert len(list(other.pending())) == stored - 1
        assert {pending.is_abandoned for pending in other.pending()} == {False}
        if not proxy.was_cut:
            break
    assert cut > 11  # parse, bind, describe, execute, sync; what is said to each of these
    assert store.commits == stored


def test_a_cut_outcome_is_recorded_once(url, proxy, open_store):
    store, other = open_store(proxy.url(url)), open_store()
    for cut in range(12):
        delivery = notified(other)
        store.head()
        proxy.cut_after(cut)
        store.commit(Commit(outcomes=(outcome(delivery),), is_durable=False))
        assert list(other.pending()) == []
    assert len(list(other.deliveries("done"))) == 12


def test_whoever_made_a_claim_that_is_cut_knows_it(url, proxy, open_store):
    store, other = open_store(proxy.url(url)), open_store()
    for cut in range(12):
        found = notified(other)
        other.release()
        store.head()
        proxy.cut_after(cut)
        attempt = again(found)
        assert store.claim([(found, attempt)])
        store.commit(Commit(outcomes=(outcome(attempt),), is_durable=False))
        assert list(other.pending()) == []


def test_a_reaction_that_was_cut_is_not_taken_for_another_ones(url, proxy, open_store):
    store, other = open_store(proxy.url(url)), open_store()
    event = notified(other).event
    reaction = Commit(reactions=(Delivery(event, "policy"),), seen=other.head(), is_durable=False)
    other.commit(reaction)
    store.head()
    proxy.cut_after(0)
    with pytest.raises(AlreadySettled):
        store.commit(reaction)
    assert proxy.was_cut


def test_a_commit_that_nobody_can_ask_for_says_that_it_is_not_known(url, open_store, postgres):
    proxy = Proxy(postgres.port)
    store = open_store(proxy.url(url), lock_timeout=0.2)
    place(store)
    store.head()
    proxy.cut_after(2)
    proxy.listen_no_more()
    with pytest.raises(NotStored, match="it may be stored all the same") as refused:
        place(store)
    assert "before you repeat" in refused.value.hint
    proxy.close()


def test_what_is_read_is_read_again_where_the_connection_was_lost(url, proxy, open_store):
    store = open_store(proxy.url(url))
    order = place(store)
    for cut in range(6):
        proxy.cut_after(cut)
        assert store.order(order.id) == order.state


def test_what_is_read_is_read_again_where_the_connection_is_lost_again_and_again(
    url, proxy, open_store
):
    connection, cuts = open_store(proxy.url(url)).connection, [0, 0, 0]

    def read(session):
        if cuts:
            proxy.cut_after(cuts.pop())
        return session.link.execute("select 7").fetchone()

    assert connection.run(read) == (7,)
    assert not cuts


# Leases


def test_what_a_killed_process_was_to_deliver_is_abandoned_at_once(url, open_store, fork):
    def die():
        store = PostgresStore(url)
        notified(store)
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(die).wait() == -signal.SIGKILL
    store = open_store()
    eventually(lambda: is_all_abandoned(store))
    (pending,) = store.pending()
    assert store.claim([(pending.delivery, again(pending.delivery))])


def test_a_process_that_hangs_keeps_what_it_is_to_deliver(url, open_store, fork):
    reading, writing = os.pipe()

    def hang():
        store = PostgresStore(url)
        notified(store)
        os.write(writing, b".")
        signal.pause()

    child = fork(hang)
    os.read(reading, 1)
    os.kill(child.pid, signal.SIGSTOP)
    store = open_store()
    (pending,) = store.pending()
    assert not pending.is_abandoned
    assert not store.claim([(pending.delivery, again(pending.delivery))])


def test_a_lease_outlives_a_lost_connection(url, proxy, open_store):
    store, other = open_store(proxy.url(url)), open_store()
    delivery = notified(store)
    lease = store.connection.lease
    proxy.cut_after(0)
    assert store.order("nobody") is None
    assert store.connection.lease == lease
    assert [pending.is_abandoned for pending in other.pending()] == [False]
    assert not other.claim([(delivery, again(delivery))])


def test_a_worker_says_if_another_one_has_made_what_it_was_at_when_its_connection_was_lost(
    url, postgres
):
    warnings = []
    with (
        bootstrap(url, deliver="worker", notifier=Sales()) as app,
        bootstrap(url, deliver="worker", notifier=Sales()) as other,
    ):

        def lose_connection(_):
            (pid,) = app.store.connection.rows("select pg_backend_pid()")[0]
            assert postgres.execute("select pg_terminate_backend(%s, 5000)", pid) == [(True,)]
            other.worker(["audit"]).run(until_idle=0)

        app.bus.subscribe(OrderCreated, lose_connection, name="audit")
        other.bus.subscribe(OrderCreated, lambda _: None, name="audit")
        app.bus.send(PlaceOrder(items=("rope",)))
        worker = app.worker(["audit"], warn=warnings.append)
        worker.run(until_idle=0)
        (account,) = [one for one in app.store.deliveries() if one.delivery.subscriber == "audit"]
        assert (account.delivery.status, account.delivery.attempts) == ("done", 2)
        assert worker.tally["done", "audit"] == 0
        (warning,) = warnings
        assert "to audit was made by somebody else, too" in str(warning)


def test_a_session_that_the_server_has_not_missed_yet_is_ended_first(url, proxy, open_store):
    """Else it would keep the lease, and might store what its store has given up."""
    store, other = open_store(proxy.url(url)), open_store()
    delivery, lease = notified(store), store.connection.lease
    proxy.lingers = True
    for _ in range(3):
        store.head()
        proxy.cut_after(3)
        place(store)
    assert numbers(other) == [1, 2, 3, 4]
    assert store.connection.lease == lease
    assert other.connection.rows("select count(*) from lease") == [(2,)]
    assert not other.claim([(delivery, again(delivery))])


def test_a_store_that_nobody_has_closed_leaves_no_session(url, open_store):
    store = PostgresStore(url)
    notified(store)
    del store
    gc.collect()
    other = open_store()
    eventually(lambda: is_all_abandoned(other))


# Forks


def test_parent_and_children_that_use_one_application_lose_and_repeat_nothing(url, fork):
    with bootstrap(url, notifier=Sales()) as app:
        app.bus.send(PlaceOrder(items=("before",)))

        def work(name):
            for number in range(5):
                app.bus.send(PlaceOrder(items=(f"{name} {number}",)))
            app.close()

        children = [fork(work, name) for name in "abc"]
        for number in range(5):
            app.bus.send(PlaceOrder(items=(f"parent {number}",)))
        assert [child.wait() for child in children] == [0] * 3
        app.bus.send(PlaceOrder(items=("after",)))
        assert len({order.items for order in app.orders.list()}) == 22
        assert numbers(app.store) == list(range(1, 45))
        assert {account.delivery.status for account in app.store.deliveries()} == {"done"}


def test_a_sleeping_child_does_not_keep_the_lease_of_a_killed_parent_alive(url, open_store, fork):
    reading, writing = os.pipe()

    def die():
        store = PostgresStore(url)
        notified(store)
        pid = os.fork()
        if pid == 0:
            os.write(writing, b"%d\n" % os.getpid())
            signal.pause()
            os._exit(0)
        assert os.waitid(os.P_PID, pid, os.WNOHANG | os.WEXITED) is None
        signal.pause()

    child = fork(die)
    sleeper = int(os.read(reading, 100))  # by then it has let go of what it inherited
    try:
        child.kill()
        child.wait()
        store = open_store()
        eventually(lambda: is_all_abandoned(store))
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_a_child_that_ends_takes_nothing_from_its_parent(url, open_store, fork):
    store, other = open_store(), open_store()
    delivery = notified(store)
    assert fork(store.close).wait() == 0
    assert fork(lambda: None).wait() == 0
    assert [pending.is_abandoned for pending in other.pending()] == [False]
    store.commit(Commit(outcomes=(outcome(delivery),)))
    assert list(other.pending()) == []


# Passwords


def test_a_password_is_never_shown(open_store, postgres):
    secret = "s3cret/?x"
    store = PostgresStore(postgres.url("nowhere", "guarded", "s3cret%2F%3Fx"))
    with pytest.raises(StoreUnreachable) as refused:
        store.head()
    shown = [repr(store), repr(store.address), store.location, str(refused.value)]
    shown += traceback.format_exception(refused.value)
    assert not [text for text in shown if "s3cret" in text or secret in text]
    assert "guarded@" in store.location
