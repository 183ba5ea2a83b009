"""The clients: they ask, listen and speak."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.processes import Server
from benchmarks.sound import CHUNK, MIC_BYTES_PER_MS, stamped_at


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
) -> AsyncIterator[ClientConnection]:
    """A client of one of `Apps`.

    Args:
        audio: relay: in audio mode.
        base64: relay: with the dialect whose sound is base64.
        narrow: the client's kernel keeps little of what the client has not read.
        after: relay: replay what came after this position ("epoch.seq").
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
        **options,
    ) as client:
        yield client


async def ask(client: ClientConnection, *, stamps: bool = False, **order: Any) -> Answer:
    """Sends an order (see model.py) and reads to the end of the answer."""
    await client.send(json.dumps({"mime_type": "text/plain", "data": json.dumps(order)}))
    return await listen(client, stamps=stamps)


async def listen(client: ClientConnection, *, stamps: bool = False) -> Answer:
    """Reads to the end of an answer; with `stamps`, it notes how long each chunk was on its way."""
    answer = Answer()
    async for frame in client:
        if isinstance(frame, bytes):
            answer.frames += 1
            answer.size += len(frame) - 4
            if stamps:
                now = time.monotonic_ns()
                for start in range(4, len(frame), CHUNK):  # a merged frame holds several chunks
                    sent = stamped_at(frame[start : start + 8])
                    answer.delays.append((sent, now - sent))
        elif frame.startswith('{"mime_type":"audio/pcm"'):
            answer.frames += 1
            answer.size += len(base64.b64decode(json.loads(frame)["data"]))
        elif '"turn_complete":true' in frame or '"interrupted":true' in frame:
            break
        elif '"transcript"' in frame or '"is_transcript"' in frame:
            message = json.loads(frame)
            answer.texts.append(message.get("text") or message["data"])
    return answer


async def speak(client: ClientConnection, ms: int, seconds: float, *, pace: float, base64_: bool) -> None:
    """So many seconds of speech in frames of `ms` milliseconds; a second of it in `pace` seconds.

    It is low noise, which the stand-in does not take for a turn; relay can't know that.
    """
    pcm = b"\x20\x00" * (ms * MIC_BYTES_PER_MS // 2)
    frame: str | bytes = pcm
    if base64_:
        frame = json.dumps({"mime_type": "audio/pcm", "data": base64.b64encode(pcm).decode()})
    begin = time.monotonic()
    for number in range(round(seconds * 1000 / ms)):
        await asyncio.sleep(begin + number * ms / 1000 * pace - time.monotonic())
        await client.send(frame)
