"""Another service: it asks for orders, and gets events, with nothing but nats-py."""

import asyncio
import json

import nats
from nats.errors import Error, TimeoutError  # noqa: A004 - it is no other
from nats.js.api import StreamConfig

REQUESTS, SUBJECT = "ORDERS_REQUESTS", "order-requests"
AGAIN = 0.5  # seconds after which a request is repeated


def talk(url, conversation):
    """Return what a conversation makes of a connection."""

    async def main():
        client = await nats.connect(url)
        try:
            return await asyncio.wait_for(conversation(client), 600)
        finally:
            await client.close()

    return asyncio.run(main())


async def ask(client, topic, request_id, again=AGAIN, **fields):
    """Return the answer to a request, which is repeated until there is one."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    headers = {"Nats-Msg-Id": request_id, "Reply-To": inbox}
    while True:
        try:
            await client.jetstream().publish(
                f"{SUBJECT}.{topic}", json.dumps(fields).encode(), headers=headers
            )
            return json.loads((await answers.next_msg(again)).data)
        except (TimeoutError, Error):  # nobody there yet, or not any more
            await asyncio.sleep(0.01)


def asked(url, topic, request_id, **fields):
    """As `ask`, on a connection of its own."""
    return talk(url, lambda client: ask(client, topic, request_id, **fields))


def send(url, payloads, stream="ORDERS", **options):
    """Put messages into a stream, as a relay does."""

    async def send(client):
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig(name=stream, subjects=[f"{stream}.events"]))
        for payload in payloads:
            await jetstream.publish(f"{stream}.events", payload, **options)

    talk(url, send)
