"""Every sentence that DESIGN.md says of the bus; units of work have a file of their own."""

import gc
import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import ClassVar

import pytest
from pubsub import pub  # noqa: TID251 - to see that nothing reaches it
from pubsub.core import Publisher  # noqa: TID251 - to see what it refuses

from orders import Command, Event, MessageBus, NotifySales, PlaceOrder, bootstrap
from orders.errors import (
    DuplicateHandler,
    DuplicateSubscriber,
    NoHandler,
    UnknownTopic,
    UnsuppliedParameter,
    WiringError,
    WrongPayload,
)


class PackBox(Command, frozen=True):
    topic: ClassVar[str] = "pack-box"

    content: str = ""


class SealBox(Command, frozen=True):
    topic: ClassVar[str] = "seal-box"


class BoxCommand(Command, frozen=True):
    pass


class BoxEvent(Event, frozen=True):
    content: str = ""


class BoxPacked(BoxEvent, frozen=True):
    topic: ClassVar[str] = "box-packed"


class BoxSealed(BoxEvent, frozen=True):
    topic: ClassVar[str] = "box-sealed"


class PalletMoved(Event, frozen=True):
    topic: ClassVar[str] = "pallet-moved"


@pytest.fixture
def failed():
    """What subscribers raised, by the subscriber's name."""
    return {}


class Declared(Publisher):
    """What a bus publishes on."""

    def __init__(self):
        super().__init__()
        self.before_subscribe = lambda: None

    def subscribe(self, *arguments):
        self.before_subscribe()
        return super().subscribe(*arguments)


@pytest.fixture
def publisher(monkeypatch):
    """The publisher of `bus`, where a test asks for both."""
    publisher = Declared()
    monkeypatch.setattr("orders.messaging.bus.Publisher", lambda: publisher)
    return publisher


@pytest.fixture
def bus(failed, publisher):
    def note(subscriber, event, error):
        failed[subscriber.name] = error

    return MessageBus({"colour": "red", "size": 3}, on_failure=note)


def fails(message):
    raise ValueError(f"no room for {message.content!r}")


# A private pypubsub publisher


def test_two_buses_do_not_hear_each_other():
    first, second = MessageBus(), MessageBus()
    heard = []
    for name, bus in (("first", first), ("second", second)):
        bus.subscribe(BoxPacked, lambda event, name=name: heard.append(name), name="listener")
        bus.register(PackBox, lambda command, name=name: name)
    first.publish(BoxPacked())
    assert heard == ["first"]
    assert second.send(PackBox()) == "second"


def test_nothing_reaches_the_global_publisher_of_pypubsub(bus):
    heard = []

    def listen(**data):
        heard.append(data)

    pub.subscribe(listen, pub.ALL_TOPICS)
    bus.subscribe(BoxPacked, lambda event: None, name="listener")
    bus.register(PackBox, lambda command: None)
    bus.publish(BoxPacked())
    bus.send(PackBox())
    pub.unsubscribe(listen, pub.ALL_TOPICS)
    assert heard == []
    assert pub.getDefaultTopicMgr().getTopic("box-packed", okIfNone=True) is None
    assert pub.getDefaultTopicMgr().getTopic("pack-box", okIfNone=True) is None


def test_lambdas_closures_and_methods_of_nobody_are_kept(bus):
    heard = []

    class Shelf:
        def put(self, event):
            heard.append("method")

    def subscribe():
        def closure(event):
            heard.append("closure")

        bus.subscribe(BoxPacked, lambda event: heard.append("lambda"), name="lambda")
        bus.subscribe(BoxPacked, closure, name="closure")
        bus.subscribe(BoxPacked, Shelf().put, name="method")
        bus.register(PackBox, lambda command: "handled")

    subscribe()
    gc.collect()
    bus.publish(BoxPacked())
    assert heard == ["lambda", "closure", "method"]
    assert bus.send(PackBox()) == "handled"


# A mistyped topic or a wrong payload is an error


@pytest.mark.parametrize("topic", ["box-packd", "boxes-*", "BOX-PACKED", "", "pack-box", "pack-*"])
def test_a_topic_or_glob_of_no_event_cannot_be_subscribed_to(bus, topic):
    with pytest.raises(UnknownTopic, match="no event has the topic") as refusal:
        bus.subscribe(topic, lambda event: None, name="listener")
    assert "box-packed" in str(refusal.value)


@pytest.mark.parametrize("target", [PackBox, dict, None, 5, BoxPacked()])
def test_only_events_can_be_subscribed_to(bus, target):
    with pytest.raises(WrongPayload):
        bus.subscribe(target, lambda event: None, name="listener")


@pytest.mark.parametrize("target", [BoxPacked, BoxCommand, Command, str, "pack-box", PackBox()])
def test_only_commands_with_a_topic_can_be_handled(bus, target):
    with pytest.raises(WrongPayload):
        bus.register(target, lambda command: None)


def test_a_mistyped_topic_is_an_error_of_pypubsub_too(bus, publisher):
    bus.subscribe(BoxPacked, lambda event: None, name="listener")
    bus.publish(BoxPacked())
    with pytest.raises(Exception, match="No topic specification for topic 'box-packd'"):
        publisher.sendMessage("box-packd", message=BoxPacked())


@pytest.mark.parametrize("payload", [{"msg": BoxPacked()}, {}, {"message": BoxPacked(), "more": 1}])
def test_a_mistyped_argument_is_an_error_of_pypubsub_too(bus, publisher, payload):
    bus.subscribe(BoxPacked, lambda event: None, name="listener")
    bus.publish(BoxPacked())
    with pytest.raises(Exception, match=r"args (missing|unknown) in call to sendMessage"):
        publisher.sendMessage("box-packed", **payload)


@pytest.mark.parametrize("payload", [BoxPacked(), "pack-box", None, PackBox])
def test_only_commands_are_sent(bus, payload):
    with pytest.raises(WrongPayload, match="no command"):
        bus.send(payload)


@pytest.mark.parametrize("payload", [PackBox(), BoxEvent(), "box-packed", None, BoxPacked])
def test_only_events_with_a_topic_are_published(bus, payload):
    heard = []
    bus.subscribe(Event, heard.append)
    with pytest.raises(WrongPayload, match="no event"):
        bus.publish(BoxPacked(), payload)
    assert heard == []


# send: exactly one handler


def test_a_command_reaches_its_handler_and_its_return_value_comes_back(bus):
    bus.register(PackBox, lambda command: command.content.upper())
    assert bus.send(PackBox("carpet")) == "CARPET"


def test_a_command_without_a_handler_is_an_error(bus):
    with pytest.raises(NoHandler, match=r"nothing handles PackBox\ntry: register a handler with"):
        bus.send(PackBox())


def test_a_second_handler_is_refused_when_it_is_registered(bus):
    bus.register(PackBox, lambda command: "first")
    with pytest.raises(DuplicateHandler, match=r"PackBox is handled by .*; fails cannot"):
        bus.register(PackBox, fails)
    assert bus.send(PackBox()) == "first"


def test_the_handlers_error_reaches_the_sender(bus, failed):
    bus.register(PackBox, fails)
    with pytest.raises(ValueError, match="no room for 'carpet'"):
        bus.send(PackBox("carpet"))
    assert failed == {}


def test_the_bus_works_on_after_a_handlers_error(bus):
    bus.register(PackBox, fails)
    bus.register(SealBox, lambda command: "sealed")
    with pytest.raises(ValueError):
        bus.send(PackBox())
    assert bus.send(SealBox()) == "sealed"
    assert bus.handling is None


def test_return_values_of_nested_sends_come_back_each_to_its_sender(bus):
    bus.register(SealBox, lambda command: "sealed")
    bus.register(PackBox, lambda command: ["packed", bus.send(SealBox()), bus.send(SealBox())])
    assert bus.send(PackBox()) == ["packed", "sealed", "sealed"]


def test_a_handler_survives_the_error_of_a_nested_send(bus):
    def pack(command):
        with pytest.raises(ValueError):
            bus.send(SealBox())
        return "packed anyway"

    def seal(command):
        raise ValueError

    bus.register(PackBox, pack)
    bus.register(SealBox, seal)
    assert bus.send(PackBox()) == "packed anyway"


def test_none_is_a_return_value_too(bus):
    bus.register(SealBox, lambda command: None)
    bus.register(PackBox, lambda command: (bus.send(SealBox()), "packed"))
    assert bus.send(PackBox()) == (None, "packed")


# publish: none to many subscribers


def test_an_event_that_nobody_hears_is_fine(bus):
    bus.publish(BoxPacked())
    bus.publish()


def test_an_event_reaches_all_its_subscribers(bus):
    heard = []
    bus.subscribe(BoxPacked, lambda event: heard.append(("first", event)), name="first")
    bus.subscribe(BoxPacked, lambda event: heard.append(("second", event)), name="second")
    bus.publish(BoxPacked("carpet"))
    assert [(name, event.content) for name, event in heard] == [
        ("first", "carpet"),
        ("second", "carpet"),
    ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (BoxPacked, ["box-packed"]),
        (BoxEvent, ["box-packed", "box-sealed"]),
        (Event, ["box-packed", "box-sealed", "pallet-moved"]),
        ("box-packed", ["box-packed"]),
        ("box-*", ["box-packed", "box-sealed"]),
        ("*-[sm]*", ["box-sealed", "pallet-moved"]),
        ("*", ["box-packed", "box-sealed", "pallet-moved"]),
    ],
)
def test_events_are_heard_by_class_base_class_topic_and_glob(bus, target, expected):
    heard = []
    bus.subscribe(target, lambda event: heard.append(event.topic), name="listener")
    bus.publish(BoxPacked(), BoxSealed(), PalletMoved())
    assert heard == expected


def test_who_subscribes_late_hears_what_comes_then(bus):
    heard = []
    bus.publish(BoxPacked("1"))
    bus.subscribe(BoxPacked, lambda event: heard.append(event.content), name="listener")
    bus.publish(BoxPacked("2"))
    bus.subscribe("box-*", lambda event: heard.append(event.content + "again"), name="another")
    bus.publish(BoxPacked("3"))
    assert heard == ["2", "3", "3again"]


def test_lower_priority_runs_first_and_equals_in_declared_order(bus):
    heard = []
    for name, target, priority in [
        ("late", BoxPacked, 5),
        ("third", "box-*", 0),
        ("fourth", BoxPacked, 0),
        ("second", BoxEvent, -1),
        ("first", Event, -7),
        ("fifth", "box-packed", 0),
    ]:
        listen = lambda event, name=name: heard.append(name)
        bus.subscribe(target, listen, priority=priority, name=name)
    bus.publish(BoxPacked())
    assert heard == ["first", "second", "third", "fourth", "fifth", "late"]


def test_a_handler_reached_twice_runs_once_at_its_first_place(bus):
    heard = []

    def listen(event):
        heard.append("listen")

    bus.subscribe(BoxPacked, listen, priority=1, name="listen")
    bus.subscribe(BoxPacked, lambda event: heard.append("other"), name="other")
    bus.subscribe(BoxEvent, listen, name="listen")
    bus.subscribe("box-*", listen, priority=-1)
    bus.publish(BoxPacked())
    assert heard == ["listen", "other"]


def test_events_raised_meanwhile_wait_their_turn_first_in_first_out(bus):
    heard = []

    def first(event):
        heard.append(f"first {event.content}")
        if len(event.content) < 3:
            bus.publish(BoxPacked(event.content + "a"), BoxPacked(event.content + "b"))

    bus.subscribe(BoxPacked, first, name="first")
    bus.subscribe(BoxPacked, lambda event: heard.append(f"second {event.content}"), name="second")
    bus.publish(BoxPacked("x"), BoxPacked("y"))
    contents = ["x", "y", "xa", "xb", "ya", "yb", "xaa", "xab", "xba", "xbb"]
    contents += ["yaa", "yab", "yba", "ybb"]
    assert heard == [f"{who} {content}" for content in contents for who in ("first", "second")]


def test_a_subscriber_that_raises_does_not_stop_the_others(bus, failed):
    heard = []
    bus.subscribe(BoxPacked, lambda event: heard.append("first"), name="first")
    bus.subscribe(BoxPacked, fails)
    bus.subscribe(BoxPacked, lambda event: heard.append("third"), name="third")
    bus.publish(BoxPacked("carpet"))
    assert heard == ["first", "third"]
    assert str(failed["fails"]) == "no room for 'carpet'"


def test_the_events_after_a_failure_are_heard(bus, failed):
    heard = []
    bus.subscribe(BoxPacked, fails)
    bus.subscribe(BoxSealed, heard.append)
    bus.publish(BoxPacked(), BoxSealed())
    assert len(heard) == len(failed) == 1


def test_a_failure_that_nobody_asks_for_is_logged(caplog):
    bus = MessageBus()
    bus.subscribe(BoxPacked, fails)
    with caplog.at_level(logging.WARNING):
        bus.publish(BoxPacked("carpet"))
    assert "fails failed on BoxPacked" in caplog.text
    assert "no room for 'carpet'" in caplog.text


def test_an_interrupt_stops_everything_and_leaves_the_bus_usable(bus):
    heard = []

    def interrupted(event):
        raise KeyboardInterrupt

    bus.subscribe(BoxPacked, interrupted, name="interrupted")
    bus.subscribe(BoxSealed, heard.append)
    with pytest.raises(KeyboardInterrupt):
        bus.publish(BoxPacked(), BoxSealed("of the interrupted"))
    bus.publish(BoxSealed("of the next"))
    assert [event.content for event in heard] == ["of the next"]
    assert bus.handling is None


# Dependencies by name


def test_a_handler_gets_its_dependencies_by_name(bus):
    def pack(command, *, size, colour):
        return (command.content, size, colour)

    bus.register(PackBox, pack)
    assert bus.send(PackBox("carpet")) == ("carpet", 3, "red")


def test_a_subscriber_gets_its_dependencies_by_name(bus):
    heard = []

    def listen(event, colour):
        heard.append(colour)

    bus.subscribe(BoxPacked, listen, name="listen")
    bus.publish(BoxPacked())
    assert heard == ["red"]


def test_one_dependency_is_overridden_in_one_line(data, sales):
    with bootstrap(data, notifier=sales) as app:
        order_id = app.bus.send(PlaceOrder(items=("carpet",)))
        app.bus.send(NotifySales(order_id="by hand", items=("carpet",)))
    assert sales.order_ids == [order_id, "by hand"]


def test_a_new_dependency_is_given_in_the_same_way(data):
    def pack(command, *, tape):
        return tape

    with bootstrap(data, tape="strong") as app:
        app.bus.register(PackBox, pack)
        assert app.bus.send(PackBox()) == "strong"


def test_a_parameter_with_a_default_that_nothing_supplies_is_left_alone(bus):
    def pack(command, *, size, tape="weak", **others):
        return (size, tape, others)

    bus.register(PackBox, pack)
    assert bus.send(PackBox()) == (3, "weak", {})


def needs_tape(message, *, colour, tape):
    pass


def test_a_parameter_that_nothing_supplies_is_refused_when_a_handler_is_registered(bus):
    with pytest.raises(
        UnsuppliedParameter, match="nothing supplies the parameter 'tape' of needs_tape"
    ):
        bus.register(PackBox, needs_tape)
    with pytest.raises(NoHandler):
        bus.send(PackBox())


def test_a_parameter_that_nothing_supplies_is_refused_when_a_subscriber_is(bus, failed):
    with pytest.raises(
        UnsuppliedParameter, match="'tape' of needs_tape; supplied are colour, size"
    ):
        bus.subscribe(BoxPacked, needs_tape)
    bus.publish(BoxPacked())
    assert failed == {}


def takes_colour_by_position(message, colour, /):
    return colour


def test_a_parameter_that_cannot_be_given_by_name_is_refused_or_supplied(bus):
    try:
        bus.register(PackBox, takes_colour_by_position)
    except WiringError:
        return
    assert bus.send(PackBox()) == "red"


@pytest.mark.parametrize("handler", [lambda: None, lambda *, message: None, lambda **all: None])
def test_a_handler_must_take_the_message_first(bus, handler):
    with pytest.raises(WiringError, match="must take the message"):
        bus.register(PackBox, handler)
    with pytest.raises(WiringError, match="must take the message"):
        bus.subscribe(BoxPacked, handler, name="handler")


@pytest.mark.parametrize("handler", [5, None, "fails", dict, PackBox()])
def test_what_cannot_be_called_with_a_message_is_refused(bus, handler):
    with pytest.raises(WiringError):
        bus.register(PackBox, handler)
    with pytest.raises(WiringError):
        bus.subscribe(BoxPacked, handler, name="handler")


@pytest.mark.parametrize("priority", ["first", None, 1.5])
def test_a_priority_is_a_whole_number(bus, priority):
    with pytest.raises(WiringError, match="is no priority\ntry: give a whole number"):
        bus.subscribe(BoxPacked, fails, priority=priority)
    bus.publish(BoxPacked())


def test_the_error_of_a_wrong_wiring_is_a_wiring_error():
    for kind in (UnknownTopic, NoHandler, DuplicateHandler, DuplicateSubscriber, WrongPayload):
        assert issubclass(kind, WiringError)


# Cause and conversation


def test_causes_chain_from_command_to_event_to_command(bus):
    heard = []
    bus.register(PackBox, lambda command: (heard.append(command), bus.publish(BoxPacked())))
    bus.subscribe(BoxPacked, lambda event: (heard.append(event), bus.send(SealBox())), name="seal")
    bus.register(SealBox, lambda command: (heard.append(command), bus.publish(BoxSealed())))
    bus.subscribe(BoxSealed, heard.append)
    bus.send(PackBox())
    assert [type(message) for message in heard] == [PackBox, BoxPacked, SealBox, BoxSealed]
    assert {message.correlation_id for message in heard} == {heard[0].id}
    causes = [message.causation_id for message in heard]
    assert causes == [None, *(message.id for message in heard[:-1])]


def test_an_event_that_waits_keeps_the_cause_it_was_raised_for(bus):
    heard = {}

    def listen(event):
        heard[event.content] = event
        if event.content in {"1", "2"}:
            bus.publish(BoxPacked(event.content + "0"))

    bus.subscribe(BoxPacked, listen, name="listen")
    bus.publish(BoxPacked("1"), BoxPacked("2"))
    assert heard["10"].causation_id == heard["1"].id
    assert heard["20"].causation_id == heard["2"].id
    assert heard["10"].correlation_id != heard["20"].correlation_id


def test_what_is_sent_on_its_own_begins_a_conversation(bus):
    heard = []
    bus.register(PackBox, heard.append)
    for content in ("1", "2"):
        bus.send(PackBox(content))
    assert [message.correlation_id for message in heard] == [message.id for message in heard]


# Names of subscribers


def test_a_subscribers_name_is_its_functions_and_stable(failed):
    names = [MessageBus().subscribe(BoxPacked, fails).name for _ in range(2)]
    assert names == ["fails", "fails"]


def test_a_subscription_more_does_not_change_the_name(bus):
    first = bus.subscribe(BoxPacked, fails, name="packer")
    assert bus.subscribe(BoxSealed, fails) is first
    assert bus.subscribe("box-*", fails, name="packer") is first
    assert bus.subscriber("packer") is first


def test_a_name_given_twice_is_refused(bus):
    bus.subscribe(BoxPacked, fails, name="packer")
    with pytest.raises(DuplicateSubscriber, match="'packer' exists\ntry: give this one name="):
        bus.subscribe(BoxSealed, lambda event: None, name="packer")


def test_two_functions_of_one_name_are_told_apart_by_the_names_they_are_given(bus):
    listeners = {name: lambda event: None for name in ("first", "second")}
    for name, listener in listeners.items():
        assert bus.subscribe(BoxPacked, listener, name=name).name == name
    assert {name: bus.subscriber(name).function for name in listeners} == listeners


def test_who_is_unsubscribed_hears_nothing_more_and_its_name_is_free(bus):
    heard = []
    bus.subscribe(BoxPacked, heard.append, name="packer")
    bus.subscribe("box-*", heard.append, name="packer")
    bus.publish(BoxPacked("1"))
    bus.unsubscribe("packer")
    bus.unsubscribe("of nobody")
    bus.publish(BoxPacked("2"))
    assert bus.subscriber("packer") is None
    bus.subscribe(BoxPacked, heard.append, name="packer")
    bus.publish(BoxPacked("3"))
    assert [event.content for event in heard] == ["1", "3"]


def test_the_wiring_can_be_read(bus):
    pack = lambda command: None
    bus.register(PackBox, pack)
    bus.subscribe("box-*", fails)
    assert bus.handlers(PackBox) == [pack]
    assert bus.handlers(SealBox) == bus.handlers(PalletMoved) == []
    assert bus.handlers(BoxPacked) == bus.handlers(BoxSealed) == [fails]


# Threads


def test_each_thread_has_a_handling_stack_of_its_own(bus):
    together = Barrier(2, timeout=30)

    def pack(command):
        together.wait()
        handled = bus.handling.content
        together.wait()
        return handled

    bus.register(PackBox, pack)
    with ThreadPoolExecutor(2) as threads:
        handled = list(threads.map(lambda content: bus.send(PackBox(content)), ["1", "2"]))
    assert handled == ["1", "2"]
    assert bus.handling is None


def test_a_thread_does_not_wait_for_the_events_of_another(bus):
    together = Barrier(2, timeout=30)
    heard = []

    def listen(event):
        together.wait()  # both are being published at once
        heard.append(event.content)

    bus.subscribe(BoxPacked, listen, name="listen")
    bus.publish(PalletMoved())
    bus.subscribers(BoxPacked)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda content: bus.publish(BoxPacked(content)), ["1", "2"]))
    assert sorted(heard) == ["1", "2"]


@pytest.mark.usefixtures("hasty_threads")
def test_the_first_events_of_many_threads_are_all_heard():
    for _ in range(20):
        bus, heard, together = MessageBus(), [], Barrier(4, timeout=30)
        bus.subscribe(BoxPacked, heard.append)

        def publish(content, bus=bus, together=together):
            together.wait()
            bus.publish(BoxPacked(content))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(publish, "1234"))
        assert len(heard) == 4


def test_who_subscribes_while_another_thread_publishes_is_heard_from_then_on(bus, publisher):
    bus.subscribe(BoxPacked, lambda event: None, name="listener")
    late, heard = [], []

    def subscribe_another():
        late.append(Thread(target=bus.subscribe, args=(BoxPacked, heard.append)))
        late[0].start()
        late[0].join(0.2)

    publisher.before_subscribe = subscribe_another
    bus.publish(BoxPacked("1"))
    publisher.before_subscribe = lambda: None
    late[0].join()
    bus.publish(BoxPacked("2"))
    assert [event.content for event in heard] == ["2"]
