"""What runners' followers store in turn, and in which order they process it."""

import pytest
from following import (
    RUNNERS,
    BellRung,
    Clerk,
    DoJob,
    FileJob,
    JobAsked,
    JobEnded,
    JobFiled,
    Listed,
    Quiet,
    Ringer,
    Seeing,
    Shipper,
    Worker,
    do_job,
    file_job,
    ids,
    place,
    reacted,
    settle,
    sold,
    stored,
)

from orders import OrderCreated, OrderEvent, OrderShipped, ShipOrder, bootstrap
from orders.projections.runners import SingleThreadedRunner
from orders.projections.shipped import ItemSales


@pytest.fixture(params=RUNNERS)
def kind(request):
    return request.param


@pytest.fixture
def app(request):
    """The order system in memory; on files where the test looks at those."""
    where = request.getfixturevalue("data") if "data" in request.fixturenames else ":memory:"
    with bootstrap(where, notifier=Quiet()) as app:
        yield app


@pytest.fixture
def jobs(app):
    app.bus.register(DoJob, do_job)
    app.bus.register(FileJob, file_job)
    return app


# Edges


def test_what_a_follower_stores_another_one_reacts_to(kind, jobs):
    with kind(jobs, [Ringer, Shipper, Listed]) as runner:
        order_ids = [place(jobs) for _ in range(10)]
        settle(jobs, runner)
        assert runner.get(Listed).ids == ids(jobs)
    rung = [event.text for event in stored(jobs, JobEnded)]
    assert sorted(rung) == sorted(f"ring for {order_id}" for order_id in order_ids)
    assert {order.status for order in jobs.orders.list()} == {"shipped"}


def test_a_loop_of_commands_and_results_goes_on_until_it_ends_though_a_command_fails(kind, jobs):
    with kind(jobs, [Clerk, Worker]) as runner:
        jobs.uow().emit(JobAsked(text="1 2 3"))
        jobs.uow().emit(JobAsked(text="4 five 6"))
        settle(jobs, runner)
    assert sorted((event.text, event.error) for event in stored(jobs, JobEnded)) == [
        ("1 2 3", None),
        ("2 3", None),
        ("3", None),
        ("4 five 6", None),
        ("five 6", "five is no number"),
    ]
    assert sorted(event.text for event in stored(jobs, JobFiled)) == [
        "1 2 3",
        "2 3",
        "3",
        "4 five 6",
    ]
    assert sorted(reacted(jobs, "worker")) == sorted(ids(jobs, JobAsked))


def test_a_follower_catches_up_with_what_was_before_the_start(kind, jobs):
    for _ in range(5):
        place(jobs)
    with kind(jobs, [Shipper, Ringer]) as runner:
        settle(jobs, runner)
        assert len(stored(jobs, JobEnded)) == 5
        place(jobs)
        settle(jobs, runner)
    assert len(stored(jobs, JobEnded)) == 6


def test_a_follower_gets_the_topics_it_follows_and_no_other(kind, jobs):
    class Jobs(Seeing):
        name = "jobs"
        follow = ("job-*", OrderShipped)

    with kind(jobs, [Jobs, Shipper, Worker]) as runner:
        place(jobs)
        jobs.uow().emit(JobAsked(text="1"))
        settle(jobs, runner)
        assert sorted(runner.get(Jobs).ids) == sorted(ids(jobs, (JobAsked, JobEnded, OrderShipped)))


def test_what_a_subscriber_stores_in_the_same_runner_is_followed_too(kind, app):
    def ring(event, *, uow):
        uow.emit(BellRung(times=len(event.items)))

    app.bus.subscribe(OrderCreated, ring, name="ring")
    with kind(app, [Listed, Shipper]) as runner:
        place(app, "rope", "rope")
        settle(app, runner)
        assert runner.get(Listed).ids == ids(app)
    assert [event.times for event in stored(app, BellRung)] == [2]


def test_a_subscriber_hears_what_a_follower_stores(kind, app):
    heard = []
    app.bus.subscribe(OrderShipped, heard.append)
    with kind(app, [Shipper]) as runner:
        order_id = place(app)
        settle(app, runner)
    assert [event.order_id for event in heard] == [order_id]


def test_the_settings_and_dependencies_of_the_app_reach_what_followers_do(kind, data):
    class Courier:
        def __init__(self):
            self.jobs = []

    def carry(command, *, courier, notifier, uow):
        courier.jobs.append((command.text, notifier, uow))

    courier, notifier = Courier(), Quiet()
    with bootstrap(data, notifier=notifier, courier=courier) as app:
        app.bus.register(DoJob, carry)
        with kind(app, [Worker, Shipper, Ringer]) as runner:
            app.uow().emit(JobAsked(text="letter"))
            order_id = place(app)
            settle(app, runner)
        assert sorted(courier.jobs, key=str) == sorted(
            [
                ("letter", notifier, app.unit_of_work),
                (f"ring for {order_id}", notifier, app.unit_of_work),
            ],
            key=str,
        )
    kept = {file.name for file in data.glob("projections/*")}
    assert kept == {"worker.json", "shipper.json", "ringer.json"}


# Order


def test_when_a_command_returns_the_followers_in_one_thread_have_processed_in_declared_order(app):
    done = []

    def noting(letter):
        def apply(self, event):
            done.append((letter, type(event).__name__))

        return type("Noting", (Listed,), {"name": letter, "apply": apply})

    with SingleThreadedRunner(app, [noting("b"), noting("a"), noting("c")]):
        order_id = place(app)
        assert done == [(letter, "OrderCreated") for letter in "bac"]
        done.clear()
        app.bus.send(ShipOrder(order_id))
        assert done == [(letter, "OrderShipped") for letter in "bac"]


def test_in_one_thread_all_have_processed_what_a_follower_stores_when_a_command_returns(app):
    class Last(Listed):
        name = "last"

    with SingleThreadedRunner(app, [Listed, Shipper, Last]) as runner:
        order_id = place(app)
        assert app.orders.get(order_id).status == "shipped"
        assert runner.get(Listed).ids == runner.get(Last).ids == ids(app, OrderEvent)
        assert len(runner.get(Last).ids) == 2


def test_each_follower_gets_the_events_in_the_order_of_the_log(kind, app):
    others = [type("Other", (Listed,), {"name": f"other-{n}"}) for n in range(4)]
    with kind(app, [*others, Shipper]) as runner:
        for _ in range(20):
            place(app)
        settle(app, runner)
        assert [runner.get(other).ids for other in others] == [ids(app)] * 4


def test_what_an_event_published_past_the_log_leads_to_is_followed_at_once(app):
    app.bus.subscribe(BellRung, lambda _event: place(app), name="door")
    with SingleThreadedRunner(app, [ItemSales]) as runner:
        app.bus.publish(BellRung())
        assert sold(app) == {"rope": 1}
        assert runner.get(ItemSales).times("rope") == 1


def test_to_be_woken_without_news_does_nothing(kind, app, data):
    with kind(app, [Listed]) as runner:
        place(app)
    kept = data / "projections" / "listed.json"
    before, size = kept.stat().st_ino, (data / "events.jsonl").stat().st_size
    with kind(app, [Listed]) as runner:
        for _ in range(20):
            runner.wake()
        settle(app, runner)
        assert runner.get(Listed).ids == ids(app)  # which refuses an event that it has seen
    assert kept.stat().st_ino == before
    assert (data / "events.jsonl").stat().st_size == size
