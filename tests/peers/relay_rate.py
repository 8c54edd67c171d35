"""How many events a second the relay sends, beside a bare nats-py publisher, in turns.

    PYTHONPATH=tests:tests/adapters python tests/peers/relay_rate.py [EVENTS [ROUNDS]]

Both send to a server that syncs each message (`sync_interval: always`), with 256 under way: the
relay from a log of files, the publisher from a list of the same messages. The publisher chains
nothing. A run of each, in turns; what counts is the ratio of the medians.
"""

import asyncio
import os
import sys
import time
from collections import deque
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import nats
import nats_server
from relaying import fill, relay

from orders import bootstrap

UNDER_WAY = 256


def publish(url, stream, payloads):
    """Publish with nats-py's own means."""

    async def main():
        client = await nats.connect(url)
        jetstream = client.jetstream()
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"])
        under_way = deque()
        for payload in payloads:
            under_way.append(await jetstream.publish_async(f"{stream}.order-created", payload))
            if len(under_way) == UNDER_WAY:
                await under_way.popleft()
        for future in under_way:
            await future
        await client.close()

    asyncio.run(main())


def timed(function, *arguments, **options):
    """Return how long it took in seconds, and how much of a processor."""
    began, used = time.perf_counter(), time.process_time()
    function(*arguments, **options)
    return time.perf_counter() - began, time.process_time() - used


def compare(events, rounds):
    """Print what each round took, and the ratio."""
    rates = {"relay": [], "publisher": []}
    with TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        with bootstrap(data) as app:
            fill(app.store, events)
        server = nats_server.Server()
        try:
            relay(data, server.url(), stream="first", prefix="first.")
            payloads = [one.data for one in nats_server.messages(server.url(), "first")]
            for number in range(rounds):
                runs = [
                    ("relay", (relay, data, server.url()), f"r{number}"),
                    ("publisher", (publish, server.url()), f"p{number}"),
                ]
                for name, call, stream in runs if number % 2 else reversed(runs):
                    if name == "relay":
                        seconds, used = timed(*call, stream=stream, prefix=f"{stream}.")
                    else:
                        seconds, used = timed(*call, stream, payloads)
                    nats_server.run(server.url(), lambda one, name=stream: one.delete_stream(name))
                    rates[name].append(events / seconds)
                    print(f"{name:10} {events / seconds:8,.0f} a second, processor {used:.2f} s")
        finally:
            server.close()
    ratio = median(rates["relay"]) / median(rates["publisher"])
    print(f"relay / publisher: {ratio:.2f} ({os.cpu_count()} cores)")


if __name__ == "__main__":
    compare(*map(int, sys.argv[1:3]), *(5000, 5)[len(sys.argv) - 1 :])
