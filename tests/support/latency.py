"""A network that is slow: a TCP proxy that delivers everything later, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def slow_network(port: int, delay: Callable[[], float]) -> AsyncIterator[int]:
    """The port of a proxy to `port`. Each piece of data is on its way for `delay()` seconds."""
    pumps: set[asyncio.Task[None]] = set()

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", port)
        for reader, writer in ((client, to_server), (server, to_client)):
            pumps.add(asyncio.create_task(_pump(reader, writer, delay)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        yield proxy.sockets[0].getsockname()[1]
    for pump in pumps:
        pump.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)
    await asyncio.sleep(0.01)  # for the sockets to be closed


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Callable[[], float]
) -> None:
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    clock = asyncio.get_running_loop().time

    async def deliver() -> None:
        while True:
            due, data = await on_the_way.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not data:
                return
            writer.write(data)

    delivering = asyncio.create_task(deliver())
    try:
        while data := await reader.read(65536):
            on_the_way.put_nowait((clock() + delay(), data))
        on_the_way.put_nowait((clock() + delay(), b""))
        await delivering
    except OSError:
        pass
    finally:
        delivering.cancel()
        writer.transport.abort()
