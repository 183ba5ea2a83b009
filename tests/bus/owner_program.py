"""A process that owns a conversation and writes its log as fast as it can, until a newer owner is there.

Run it with the URL of Redis and the name of the process; it tells what it does, a line each.
"""

from __future__ import annotations

import asyncio
import sys

from adk_relay.bus.lease import Lease
from adk_relay.bus.log import FencedError, Log
from adk_relay.bus.ownership import Ownership
from adk_relay.bus.server import Server


async def main(url: str, name: str) -> None:
    server = Server(url)
    lease = Lease(server, name, lambda: print("lease lost", flush=True))
    ownership = Ownership(server, name, lambda *_: print("ownership lost", flush=True))
    extending = asyncio.create_task(lease.run())
    owner = await ownership.take("c", 0)
    print("owns", owner.process == name, flush=True)
    log = Log("c", owner.token, name, max_bytes=10**6, max_age=60)
    number = 0
    try:
        while True:
            number += 1
            await log.write(server, b"%d" % number)
            if number == 10:
                print("writes", flush=True)
    except FencedError as error:
        print("fenced by", error.owner.process, flush=True)
    print("holds", await ownership.is_held("c"), flush=True)
    extending.cancel()
    await lease.release()
    await server.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
