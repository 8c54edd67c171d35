"""A service of somebody else's, for `cluster.py`: it knows NATS, and nothing of this package.

python auditor.py URL STREAM    prints the id of each message that the stream has, in its order
"""

import asyncio
import json
import sys

import nats


async def main(url: str, stream: str) -> None:
    """Read the messages, one by one."""
    client = await nats.connect(url, allow_reconnect=False)
    jetstream = client.jetstream()
    state = (await jetstream.stream_info(stream)).state
    for sequence in range(state.first_seq, state.last_seq + 1):
        message = await jetstream.get_msg(stream, sequence)
        print(json.loads(message.data or b"{}")["id"])
    await client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
