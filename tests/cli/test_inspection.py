"""The log, the feed and the wiring on the command line."""

import json
import re

import pytest
from command_line import ISO, TWO, done, rows

from orders import ShipOrder


@pytest.mark.engines
def test_log_json_is_an_array_of_records_with_the_documented_fields(tool, send):
    send(*TWO)
    records = json.loads(done(tool("log", "--json")))
    assert [record["seq"] for record in records] == [1, 2, 3, 4]
    for record in records:
        assert list(record) == ["seq", "time", "messages", "deliveries"]
        assert re.fullmatch(ISO, record["time"])
    created, notified, *_ = records
    assert [message["type"] for message in created["messages"]] == ["PlaceOrder", "OrderCreated"]
    assert [message["type"] for message in notified["messages"]] == ["NotifySales"]
    assert [d["status"] for r in (created, notified) for d in r["deliveries"]] == [
        "pending",
        "done",
    ]
    assert json.loads(done(tool("log", "--after", "3", "--json"))) == records[3:]


@pytest.mark.engines
def test_a_piped_log_has_each_message_and_delivery_with_its_number_and_time(tool, send):
    send(TWO[0])
    found = rows(tool("log"))
    assert [(row[0], row[2]) for row in found] == [
        ("1", "PlaceOrder"),
        ("1", "OrderCreated"),
        ("1", "Delivery"),
        ("2", "NotifySales"),
        ("2", "Delivery"),
    ]
    assert all(re.fullmatch(ISO, row[1]) for row in found)


def test_topics_shows_who_handles_what(tool, data):
    wiring = {row[0]: row[1:] for row in rows(tool("topics"))}
    assert wiring["place-order"][:2] == ["PlaceOrder", "command"]
    assert wiring["place-order"][2].startswith("place_order (handlers.py:")
    created = r"order_created \(handlers.py:\d+\), Bestseller.react \(shipped.py:\d+\)"
    assert re.fullmatch(created, wiring["order-created"][2])
    assert not data.exists()


@pytest.mark.engines
def test_a_piped_feed_has_the_rows_of_the_log(tool, send):
    order_id, _ = send(*TWO)
    send(ShipOrder(order_id))
    feed = tool("watch", "--from", "start", "--until-idle", "0")
    assert "Delivery" in done(feed)
    assert feed.stdout == done(tool("log"))


@pytest.mark.engines
def test_the_feed_in_json_has_an_object_for_each_message_and_each_delivery(tool, send):
    send(TWO[0])
    feed = done(tool("watch", "--json", "--from", "start", "--until-idle", "0"))
    found = [json.loads(line) for line in feed.splitlines()]
    records = json.loads(done(tool("log", "--json")))
    assert found == [
        entry
        for record in records
        for entry in (
            *({"seq": record["seq"]} | message for message in record["messages"]),
            *(
                {"seq": record["seq"], "time": record["time"], "delivery": delivery}
                for delivery in record["deliveries"]
            ),
        )
    ]
    assert [list(entry) for entry in found if "delivery" in entry] == 2 * [
        ["seq", "time", "delivery"]
    ]
