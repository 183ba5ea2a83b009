"""The clients: they ask, listen and speak; and what the server uses meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.processes import Build, Lab, Server
from benchmarks.sound import CHUNK, MIC_BYTES_PER_MS, REAL_TIME, STAMP_BYTES, stamp, stamped_at


class Kind(NamedTuple):
    """What is measured."""

    build: Build = "relay"
    app: str = "relay"  # one of `Apps`
    base64: bool = False
    ms: int = 40  # of speech in a frame of the client
    is_fed: bool = False  # the speech does not come from a client; see `Apps`

    @property
    def user(self) -> str:
        return f"{self.app}-{self.ms}-{self.base64}-{self.is_fed}"


RELAY, LONG, TODAY = Kind(), Kind("long"), Kind("today")
FLOOR, DIRECT, SAMPLE = Kind("plain", "floor"), Kind("plain", "direct"), Kind("plain", "sample", True, 8)


@dataclass
class Answer:
    """What a client received of an answer."""

    size: int = 0  # bytes of sound
    frames: int = 0  # with sound in them
    texts: list[str] = field(default_factory=list)  # transcripts
    delays: list[tuple[int, int]] = field(default_factory=list)  # a chunk was sent at, took so long: ns

    def delays_between(self, begin: float, end: float) -> list[float]:
        """Milliseconds that the chunks sent in a span of time were on their way."""
        return [delay / 1e6 for sent, delay in self.delays if begin <= sent / 1e9 < end]


@asynccontextmanager
async def open_client(
    server: Server,
    app: str,
    user: str,
    *,
    audio: bool = True,
    base64: bool = False,
    narrow: bool = False,
    after: str = "",
    headers: dict[str, str] | None = None,
) -> AsyncIterator[ClientConnection]:
    """A client of one of `Apps`.

    Args:
        audio: relay: in audio mode.
        base64: relay: with the dialect whose sound is base64.
        narrow: the client's kernel keeps little of what the client has not read.
        after: relay: replay what came after this position ("epoch.seq").
        headers: of the upgrade, in addition.
    """
    path, options = f"{app}/{user}", dict[str, Any]()
    if app == "relay":
        path = f"ws/{user}?is_audio={str(audio).lower()}" + (f"&after={after}" if after else "")
        if not base64:
            options["subprotocols"] = [Subprotocol("relay.v1")]
    if narrow:
        options["sock"] = tcp = socket.socket()
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects, or it is too late
        tcp.connect(("127.0.0.1", server.port))
    async with connect(
        f"ws://127.0.0.1:{server.port}/{path}",
        compression=None,
        max_size=None,
        ping_interval=None,
        open_timeout=60,
        close_timeout=1,
        proxy=None,
        additional_headers=headers,
        **options,
    ) as client:
        yield client


async def ask(client: ClientConnection, *, stamps: bool = False, **wanted: Any) -> Answer:
    """Sends an order (see model.py) and reads to the end of the answer."""
    await client.send(order(**wanted))
    return await listen(client, stamps=stamps)


def order(**wanted: Any) -> str:
    """The frame of an order."""
    return json.dumps({"mime_type": "text/plain", "data": json.dumps(wanted)})


async def listen(client: ClientConnection, *, stamps: bool = False) -> Answer:
    """Reads to the end of an answer; with `stamps`, it notes how long each chunk was on its way."""
    answer = Answer()
    async for frame in client:
        if isinstance(frame, bytes) or '"audio/pcm"' in frame[:30]:
            pcm = frame[4:] if isinstance(frame, bytes) else base64.b64decode(json.loads(frame)["data"])
            answer.frames += 1
            answer.size += len(pcm)
            if stamps:
                now = time.monotonic_ns()
                for start in range(0, len(pcm), CHUNK):  # a merged frame holds several chunks
                    sent = stamped_at(pcm[start : start + 8])
                    answer.delays.append((sent, now - sent))
        elif '"turn_complete":true' in frame or '"interrupted":true' in frame:
            break
        elif '"transcript"' in frame or '"is_transcript"' in frame:
            message = json.loads(frame)
            answer.texts.append(message.get("text") or message["data"])
    return answer


async def speak(
    client: ClientConnection, ms: int, seconds: float, *, pace: float, base64_: bool, stamps: bool = False
) -> None:
    """So many seconds of speech in frames of `ms` milliseconds; a second of it in `pace` seconds.

    It is low noise, which the stand-in does not take for a turn; relay can't know that. With `stamps`, each
    frame begins with the time at which it is sent.
    """
    pcm = b"\x20\x00" * (ms * MIC_BYTES_PER_MS // 2)
    frame: str | bytes = pcm
    if base64_:
        frame = json.dumps({"mime_type": "audio/pcm", "data": base64.b64encode(pcm).decode()})
    begin = time.monotonic()
    for number in range(round(seconds * 1000 / ms)):
        await asyncio.sleep(begin + number * ms / 1000 * pace - time.monotonic())
        await client.send(stamp() + pcm[STAMP_BYTES:] if stamps else frame)


@dataclass
class Window:
    """What was measured in a span of time, in the middle of what the clients do."""

    begin: float  # of the monotonic clock
    end: float
    cpu: float  # seconds of CPU time that the server used, for a second
    answers: list[Answer]
    parts: dict[str, float] = field(default_factory=dict)  # the same, of each of its processes

    def arrived(self) -> int:
        """How many chunks came to the clients in this span of time."""
        times = ((sent + delay) / 1e9 for answer in self.answers for sent, delay in answer.delays)
        return sum(self.begin <= time < self.end for time in times)

    def delays(self) -> list[float]:
        """Milliseconds that the chunks of all clients were on their way."""
        return [delay for answer in self.answers for delay in answer.delays_between(self.begin, self.end)]


SETTLE = 0.25
"""Seconds before and after the window of `measure`."""


async def measure(
    lab: Lab,
    server: Server,
    clients: list[ClientConnection],
    seconds: float,
    talk: Callable[[ClientConnection, float], Awaitable[Answer]],
) -> Window:
    """Lets all clients talk in real time, evenly shifted, and measures so many seconds of it.

    Raises:
        AssertionError: a core was not fast enough, so that the result says little.
    """
    length = seconds + 2 * SETTLE

    async def later(number: int, client: ClientConnection) -> Answer:
        await asyncio.sleep(number / len(clients) * REAL_TIME)
        return await talk(client, length)

    talks = [asyncio.create_task(later(*numbered)) for numbered in enumerate(clients)]
    await asyncio.sleep(SETTLE)
    lab.profile(server)
    begin, before, others = time.monotonic(), server.cpu_by_part(), time.process_time() + lab.model.cpu()
    await asyncio.sleep(seconds)
    end, after = time.monotonic(), server.cpu_by_part()
    others = (time.process_time() + lab.model.cpu() - others) / (end - begin)
    parts = {name: (used - before[name]) / (end - begin) for name, used in after.items()}
    cpu = sum(parts.values())
    answers = await asyncio.gather(*talks)
    if cpu > 0.95 or others > 0.95:
        raise AssertionError(
            f"a core was full: the server's was used to {cpu:.0%}, the other to {others:.0%}"
        )
    return Window(begin, end, cpu, answers, parts)


@asynccontextmanager
async def crowd(server: Server, kind: Kind, count: int) -> AsyncIterator[list[ClientConnection]]:
    """So many clients with a conversation each."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                open_client(server, kind.app, f"{kind.user}-{count}-{number}", base64=kind.base64)
            )
            for number in range(count)
        ]
