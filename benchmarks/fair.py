"""A client that does its worst: how long a quiet one waits for the echo of its pings."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.frames import Frame, Opcode

from benchmarks.load import open_client
from benchmarks.processes import SEND_BUFFER, Lab, Server
from benchmarks.report import Row, percentile
from support.long import write

_EVERY = 0.01
"""Seconds between two pings. They are sent at this pace whether the answers come or not: a client that waits
for each answer would measure a long pause once only."""

_AT_ONCE = 256 * 1024
"""Bytes that a flood gives to the kernel at once."""

_MESSAGES = 2000
"""In the conversation whose history is read."""

_ROOM, _STALLED = 200, 50

_RATE = 95.0
"""Frames a second that are just not refused: RELAY_MESSAGE_RATE is 100."""

_WORST_USER = "worst"

Worst = Callable[[Server, Callable[[], None]], Coroutine[Any, Any, None]]
"""What a client does until it is canceled. It calls the function now and then, to show that it still does."""


async def fair(lab: Lab) -> list[Row]:
    """With the bounds of `relay serve` and the limits that are set by default.

    Raises:
        AssertionError: a client that should have done its worst did nothing any more.
    """
    seconds, rounds = (6.0, 1) if lab.quick else (10.0, 3)
    picture = json.dumps(
        {"mime_type": "image/png", "data": base64.b64encode(bytes(4 * 1024 * 1024)).decode()}
    )
    worst: dict[str, Worst] = {
        "small frames": partial(_flood, frame=json.dumps({"type": "typing_start"})),
        "pings": partial(_flood, frame=json.dumps({"type": "ping"})),
        "pictures of 4 MiB": partial(_flood, frame=picture),
        f"typing into a room of {_ROOM}": _type,
        "older messages": _read_histories,
        f"{_STALLED} stalled listeners": _stall,
    }
    with tempfile.TemporaryDirectory(prefix="fair-") as folder:
        path = str(Path(folder) / "sessions.db")
        await write(path, f"live-{_WORST_USER}", _MESSAGES, app_name="bench", user_id=_WORST_USER)
        return [await _row(lab, what, how, path, seconds, rounds) for what, how in worst.items()]


async def _row(lab: Lab, what: str, worst: Worst, path: str, seconds: float, rounds: int) -> Row:
    measured, bound = [], []
    for _ in range(rounds):
        with lab.new_server(
            "relay", bounded=True, sessions=f"sqlite:///{path}", send_buffer=SEND_BUFFER
        ) as server:
            await _p99(server, 1)  # the first answers take longer
            alone = await _p99(server, seconds)
            shown = [0]
            doing = asyncio.create_task(worst(server, partial(_count, shown)))
            await asyncio.sleep(1.5)
            before = shown[0]
            measured.append(await _p99(server, seconds))
            is_doing = shown[0] > before and not doing.done()
            doing.cancel()
            await asyncio.wait({doing})
            if not doing.cancelled() and (error := doing.exception()):
                raise AssertionError(f"the client that did its worst has ended: {error!r}")
            assert is_doing, "the client that should do its worst did nothing"
            bound.append(max(1.5 * alone, alone + 20))
    against = "1.5 times what it is alone, or 20 ms more"
    return Row(f"fair: p99 of an echo during {what}", measured, against, bound, "{:.1f} ms", 1.0)


def _count(shown: list[int]) -> None:
    shown[0] += 1


@asynccontextmanager
async def _worst_client(server: Server, **options: Any) -> AsyncIterator[ClientConnection]:
    async with open_client(server, "relay", _WORST_USER, **{"audio": False, **options}) as client:
        try:
            yield client
        finally:
            client.transport.abort()


async def _flood(server: Server, show: Callable[[], None], *, frame: str) -> None:
    """Sends a frame without a pause. The server closes the sockets of some: the client comes back at once."""
    one = Frame(Opcode.TEXT, frame.encode()).serialize(mask=True)
    many = one * max(1, _AT_ONCE // len(one))  # made before, because the quiet client shares this event loop
    while True:
        with suppress(ConnectionClosed, OSError, InvalidHandshake):
            async with _worst_client(server) as client:
                _throw_away(client)
                while not client.transport.is_closing():
                    if not client.transport.get_write_buffer_size():
                        client.transport.write(many)
                    show()  # the server may take long to read what is written
                    await asyncio.sleep(_EVERY)


async def _type(server: Server, show: Callable[[], None]) -> None:
    """Begins and stops typing, as often as it may: the others in the room are told each time."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_worst_client(server)) for _ in range(_ROOM)]
        for client in clients:
            _throw_away(client)
        kinds = cycle(("typing_start", "typing_stop"))
        frames = [
            Frame(Opcode.TEXT, json.dumps({"type": kind}).encode()) for kind in (next(kinds), next(kinds))
        ]
        for frame in cycle(frames):
            assert not clients[0].transport.is_closing()
            clients[0].transport.write(frame.serialize(mask=True))
            show()
            await asyncio.sleep(1 / _RATE)


async def _read_histories(server: Server, show: Callable[[], None]) -> None:
    """Asks for all older messages, again and again."""
    while True:
        async with _worst_client(server, after="0.0") as client:
            older = ""
            async for frame in client:
                message = json.loads(frame)
                if message.get("type") in ("gap", "history"):
                    show()
                    await asyncio.sleep(1 / _RATE)
                    if not (older := message.get("older", "")):
                        break
                    await client.send(json.dumps({"type": "history", "before": older}))


async def _stall(server: Server, show: Callable[[], None]) -> None:
    """Asks for sound faster than real time, for listeners who do not read, and who come back when closed."""

    async def listener() -> None:
        while True:
            with suppress(ConnectionClosed, OSError, InvalidHandshake):
                async with _worst_client(server, audio=True, narrow=True) as client:
                    client.transport.pause_reading()
                    await asyncio.sleep(8)
                    client.transport.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(_STALLED):
            group.create_task(listener())
        async with _worst_client(server, audio=True) as client:
            _throw_away(client)
            while True:
                text = json.dumps({"chunks": 250, "every": 0.004})
                order = json.dumps({"mime_type": "text/plain", "data": text}).encode()
                client.transport.write(Frame(Opcode.TEXT, order).serialize(mask=True))
                show()
                await asyncio.sleep(1.1)


class _Nobody(asyncio.Protocol):
    """Takes what comes, and does nothing with it."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.connection_lost(exc)


def _throw_away(client: ClientConnection) -> None:
    """What comes is not parsed from now on: the quiet client shares this event loop."""
    client.transport.set_protocol(_Nobody(client))


async def _p99(server: Server, seconds: float) -> float:
    """The 99th percentile of the time to the server and back, in milliseconds."""
    async with open_client(server, "relay", "quiet", audio=False) as client:
        sent: list[float] = []
        answering = asyncio.create_task(_pongs(client, sent, round(seconds / _EVERY)))
        began = time.monotonic()
        for number in range(round(seconds / _EVERY)):
            await asyncio.sleep(max(0.0, began + number * _EVERY - time.monotonic()))
            sent.append(time.monotonic())
            await client.send('{"type": "ping"}')
        return percentile(await answering, 99)


async def _pongs(client: ClientConnection, sent: list[float], count: int) -> list[float]:
    """Milliseconds until each pong. One pong answers all pings that have come before it."""
    delays: list[float] = []
    async for frame in client:
        if json.loads(frame).get("type") == "pong":
            now, answered = time.monotonic(), len(delays)
            delays += [(now - at) * 1000 for at in sent[answered:]]
            if len(delays) >= count:
                break
    return delays
