"""How much relay costs: a benchmark, not a test.

    python benchmarks/bench.py [--quick] [down up sessions stalled barge-in rooms replay start]

Machines differ and are shared, so nothing here is worth much by itself. Whatever is compared runs in
one process, in turns (A B A B …), and what counts is the median of each round's ratio. relay is
measured against

    floor    ADK's `run_live` over the same wire, whose events nobody uses
    direct   an ASGI callable that passes what `run_live` yields straight to `send`: no queue, no
             heartbeat, no bound, one client that is fast enough
    bare     an ASGI callable that sends frames it already has; no model at all

Three processes: the model (a stand-in for the Gemini Live service, over TLS) and the clients share one
core; the server has the other for itself, and only its CPU time is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil  # type: ignore[import-untyped]
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # relay itself, also in the processes that are started here

from support.gemini import Connection, GeminiLive, UserTurn  # noqa: E402

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

CHUNK = 1920  # bytes in 40 ms of 24 kHz 16-bit sound, which is what the model sends at a time
CHUNKS_PER_S = 25
MIC_BYTES_PER_MS = 32
MIB = 1024 * 1024

PACE = 0.002
"""Seconds between two chunks where CPU time is counted: far enough apart that each is handled by
itself, as in a real conversation, and close enough that a round is short."""

SEND_BUFFER = 64 * 1024
"""What the kernel takes for a client that does not read, where that is measured: as for a slow network."""

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


# --- the model's process ----------------------------------------------------------------------

_HEAD = (
    '{"serverContent":{"modelTurn":{"role":"model","parts":[{"inlineData":'
    '{"mimeType":"audio/pcm;rate=24000","data":"'
)
_TAIL = base64.b64encode(bytes(CHUNK - 9)).decode() + '"}}]}}}'


def _stamped() -> str:
    """A chunk of sound that begins with the time it was sent, ready for the wire.

    Nine bytes, because they are twelve characters of base64: the rest need not be encoded again.
    """
    stamp = time.monotonic_ns().to_bytes(8, "big") + b"\0"
    return _HEAD + base64.b64encode(stamp).decode() + _TAIL


async def _answer(connection: Connection, turn: UserTurn) -> None:
    """What the model does: whatever the client's text, an order in JSON, asks for."""
    order = json.loads(turn.text)
    if order.get("count"):
        heard = {"text": str(len(connection.audio))}
        await connection.send({"serverContent": {"outputTranscription": heard}})
    begin, every = time.monotonic(), order.get("every", 0)
    for number in range(order.get("chunks", 0)):
        if every:
            await asyncio.sleep(begin + number * every - time.monotonic())
        await connection._ws.send(_stamped())
    if "interrupt_after" in order:
        await asyncio.sleep(order["interrupt_after"])
        await connection.heard(f"interrupted at {time.monotonic_ns()}")
        await connection.interrupted()
    await connection.turn_complete()


def _be_the_model(pipe: Pipe) -> None:
    async def serve() -> None:
        async with GeminiLive(_answer) as service:
            pipe.send(service.env)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(serve())


# --- the served process -----------------------------------------------------------------------


class _Apps:
    """relay and what it is compared with, in one ASGI application."""

    def __init__(self, settings: dict[str, Any]) -> None:
        from google.adk.agents import LlmAgent
        from google.adk.runners import InMemoryRunner

        from adk_relay.adk.models import run_config
        from relay import Relay

        def agent() -> LlmAgent:
            return LlmAgent(name="bench", model="gemini-3.8-live")

        self.relay = Relay(agent(), **settings)
        self.runner = InMemoryRunner(agent(), app_name="bench")
        self.run_config = run_config
        self.sent: list[tuple[int, int]] = []
        self.room: list[Send] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == "/sent":
            body = json.dumps(self.sent).encode()
            self.sent.clear()
            await send({"type": "http.response.start", "status": 200})
            return await send({"type": "http.response.body", "body": body})
        if "logged" in path:
            send = self._logging(send)
        kind, _, user = path[1:].partition("/")
        if scope["type"] == "websocket" and kind in ("floor", "direct", "bare", "room"):
            await receive()
            await send({"type": "websocket.accept"})
            if kind == "bare":
                return await self._bare(receive, send)
            if kind == "room":
                return await self._room(receive, send)
            return await self._run_live(receive, send, user, passes_on=kind == "direct")
        await self.relay(scope, receive, send)

    def _logging(self, send: Send) -> Send:
        """Keeps when how much sound was handed to `send`."""

        async def logging(event: Any) -> None:
            if event.get("bytes"):
                self.sent.append((time.monotonic_ns(), len(event["bytes"]) - 4))
            await send(event)

        return logging

    async def _bare(self, receive: Receive, send: Send) -> None:
        chunk = bytes(CHUNK)
        while (event := await receive())["type"] == "websocket.receive":
            if event.get("bytes"):
                continue
            order = json.loads(json.loads(event["text"])["data"])
            begin, every = time.monotonic(), order.get("every", 0)
            for number in range(order["chunks"]):
                if every:
                    await asyncio.sleep(begin + number * every - time.monotonic())
                if order.get("base64"):
                    data = base64.b64encode(chunk).decode("ascii")
                    text = f'{{"mime_type":"audio/pcm","data":"{data}","seq":{number}}}'
                    await send({"type": "websocket.send", "text": text})
                else:
                    await send({"type": "websocket.send", "bytes": number.to_bytes(4, "big") + chunk})
            await send({"type": "websocket.send", "text": '{"turn_complete":true}'})

    async def _room(self, receive: Receive, send: Send) -> None:
        """What one of them asks for, all of them get: frames that are made once."""
        self.room.append(send)
        chunk = bytes(CHUNK)
        while (event := await receive())["type"] == "websocket.receive":
            order = json.loads(json.loads(event["text"])["data"])
            begin, every = time.monotonic(), order["every"]
            for number in range(order["chunks"]):
                await asyncio.sleep(begin + number * every - time.monotonic())
                frame = {"type": "websocket.send", "bytes": number.to_bytes(4, "big") + chunk}
                for one in self.room:
                    await one(frame)
            for one in self.room:
                await one({"type": "websocket.send", "text": '{"turn_complete":true}'})
        self.room.remove(send)

    async def _run_live(self, receive: Receive, send: Send, user: str, *, passes_on: bool) -> None:
        from google.adk.agents.live_request_queue import LiveRequestQueue
        from google.genai import types

        key: dict[str, Any] = {"user_id": user, "session_id": user}
        await self.runner.session_service.create_session(app_name="bench", **key)
        queue = LiveRequestQueue()

        async def up() -> None:
            while (event := await receive())["type"] == "websocket.receive":
                if pcm := event.get("bytes"):
                    queue.send_realtime(types.Blob(data=pcm, mime_type="audio/pcm;rate=16000"))
                else:
                    part = types.Part(text=json.loads(event["text"])["data"])
                    queue.send_content(types.Content(role="user", parts=[part]))
            queue.close()

        reading = asyncio.create_task(up())
        seq = 0
        try:
            events = self.runner.run_live(live_request_queue=queue, run_config=self.run_config(), **key)
            async for event in events:
                if passes_on and event.content:
                    for part in event.content.parts or ():
                        if part.inline_data and part.inline_data.data:
                            seq += 1
                            frame = seq.to_bytes(4, "big") + part.inline_data.data
                            await send({"type": "websocket.send", "bytes": frame})
                if event.input_transcription and event.input_transcription.finished:
                    heard = {"type": "transcript", "text": event.input_transcription.text}
                    await send({"type": "websocket.send", "text": json.dumps(heard)})
                if event.turn_complete:
                    await send({"type": "websocket.send", "text": '{"turn_complete":true}'})
        except OSError:
            pass  # the client has gone in mid answer
        finally:
            queue.close()
            await reading
            await self.runner.session_service.delete_session(app_name="bench", **key)


def _be_the_server(pipe: Pipe, env: dict[str, str], settings: dict[str, Any]) -> None:
    if CORES:
        os.sched_setaffinity(0, {CORES[0]})
    os.environ.update(env)
    warnings.simplefilter("ignore")  # ADK's about what is experimental
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    if send_buffer := settings.pop("send_buffer", 0):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    app = _Apps({"sessions": "memory://", "grace": 0} | settings)
    config = uvicorn.Config(app, ws_per_message_deflate=False, timeout_graceful_shutdown=3, log_level="error")
    pipe.send(listener.getsockname()[1])
    uvicorn.Server(config).run(sockets=[listener])


# --- processes --------------------------------------------------------------------------------


@dataclass
class Served:
    """A served process, seen from outside."""

    pid: int
    port: int

    def cpu(self) -> float:
        """Seconds of CPU time that the process has used."""
        if sys.platform == "linux":
            # What clock_getcpuclockid(3) returns; /proc and psutil count in steps of 10 ms.
            return time.clock_gettime((~self.pid << 3) | 2)
        else:
            times = psutil.Process(self.pid).cpu_times()
            return float(times.user + times.system)

    def rss(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)

    def uss(self) -> int:
        """Bytes that would be free if the process ended. Slow, and the process waits meanwhile."""
        return int(psutil.Process(self.pid).memory_full_info().uss)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return json.load(response)

    @asynccontextmanager
    async def socket(
        self,
        kind: str,
        user: str,
        *,
        audio: bool = True,
        base64: bool = False,
        narrow: bool = False,
        query: str = "",
    ) -> AsyncIterator[ClientConnection]:
        """A client of one of `_Apps`; with `narrow`, its kernel keeps little of what it has not read."""
        path = f"ws/{user}?is_audio={str(audio).lower()}{query}" if kind == "relay" else f"{kind}/{user}"
        options: dict[str, Any] = {}
        if kind == "relay" and not base64:
            options["subprotocols"] = [Subprotocol("relay.v1")]
        if narrow:
            tcp = socket.socket()
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            tcp.connect(("127.0.0.1", self.port))
            options["sock"] = tcp
        async with connect(
            f"ws://127.0.0.1:{self.port}/{path}",
            compression=None,
            max_size=None,
            ping_interval=None,
            open_timeout=60,
            close_timeout=1,
            proxy=None,
            **options,
        ) as connection:
            yield connection


_spawn = multiprocessing.get_context("spawn")


@contextmanager
def a_model() -> Iterator[dict[str, str]]:
    """The model's process; yields the environment that leads google-genai to it."""
    ours, its = _spawn.Pipe()
    process = _spawn.Process(target=_be_the_model, args=(its,), daemon=True)
    process.start()
    its.close()
    try:
        yield ours.recv()
        ours.send("stop")
        process.join(10)
    finally:
        process.terminate()


@contextmanager
def a_server(env: dict[str, str], **settings: Any) -> Iterator[Served]:
    """A served process; `settings` are those of `Relay`, and `send_buffer`, the kernel's for a client.

    Left alone, that is anything from 64 KiB to megabytes, depending on what the kernel remembers of
    the address from earlier connections.
    """
    ours, its = _spawn.Pipe()
    process = _spawn.Process(target=_be_the_server, args=(its, env, settings), daemon=True)
    process.start()
    its.close()
    try:
        port = ours.recv()
        assert process.pid
        yield Served(process.pid, port)
    finally:
        process.terminate()
        process.join(15)


# --- clients ----------------------------------------------------------------------------------


@dataclass
class Heard:
    """What a client got of one answer."""

    sound: int = 0  # bytes
    frames: int = 0  # with sound in them
    words: list[str] = field(default_factory=list)
    delays: list[tuple[int, int]] = field(default_factory=list)  # (sent at, later by), ns

    def between(self, begin: float, end: float) -> list[float]:
        """Milliseconds that the chunks of a time window were on their way."""
        return [late / 1e6 for sent, late in self.delays if begin <= sent / 1e9 < end]


async def turn(client: ClientConnection, *, stamps: bool = False, **order: Any) -> Heard:
    """Has the model do something and reads until it has."""
    await client.send(json.dumps({"mime_type": "text/plain", "data": json.dumps(order)}))
    return await listen(client, stamps=stamps)


async def listen(client: ClientConnection, *, stamps: bool = False) -> Heard:
    """Reads to the end of an answer."""
    heard = Heard()
    async for frame in client:
        if isinstance(frame, bytes):
            heard.frames += 1
            heard.sound += len(frame) - 4
            if stamps:
                now = time.monotonic_ns()
                for start in range(4, len(frame), CHUNK):  # a merged frame holds several chunks
                    sent = int.from_bytes(frame[start : start + 8], "big")
                    heard.delays.append((sent, now - sent))
        elif frame.startswith('{"mime_type":"audio/pcm"'):
            heard.frames += 1
            heard.sound += len(base64.b64decode(json.loads(frame)["data"]))
        elif '"turn_complete":true' in frame or '"interrupted":true' in frame:
            break
        elif '"transcript"' in frame or '"is_transcript"' in frame:
            said = json.loads(frame)
            heard.words.append(said.get("text") or said["data"])
    return heard


async def speak(client: ClientConnection, ms: int, seconds: float, *, pace: float, base64_: bool) -> None:
    """So many seconds of speech in frames of `ms`; a second of it in `pace` seconds.

    Low-level noise, which the stand-in does not take for a turn; relay can't know that beforehand.
    """
    pcm = b"\x20\x00" * (ms * MIC_BYTES_PER_MS // 2)
    frame: str | bytes = pcm
    if base64_:
        frame = json.dumps({"mime_type": "audio/pcm", "data": base64.b64encode(pcm).decode()})
    begin = time.monotonic()
    for number in range(round(seconds * 1000 / ms)):
        await asyncio.sleep(begin + number * ms / 1000 * pace - time.monotonic())
        await client.send(frame)


# --- the table --------------------------------------------------------------------------------


@dataclass
class Row:
    """A line of the table; `aim` is the highest ratio that is good enough."""

    what: str
    measured: str
    against: str
    ratios: list[float]
    aim: float | None = None

    def __str__(self) -> str:
        middle = median(self.ratios)
        ratio = f"{middle:.2f}"
        if len(self.ratios) > 2:
            low, _, high = quantiles(self.ratios, n=4)
            ratio += f" ({low:.2f} to {high:.2f})"
        aim = "" if self.aim is None else f"≤ {self.aim:.2f} {'met' if middle <= self.aim else 'MISSED'}"
        return f"| {self.what} | {self.measured} | {self.against} | {ratio} | {aim} |"


def per_round(ours: list[float], others: list[float]) -> list[float]:
    return [our / max(other, 1e-9) for our, other in zip(ours, others, strict=True)]


def percentile(values: Iterable[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def ms_of(pcm_bytes: int) -> float:
    return pcm_bytes / CHUNK * 40


# --- what is measured -------------------------------------------------------------------------


async def down(env: dict[str, str], quick: bool) -> list[Row]:
    """CPU time for a chunk of sound on its way to the client, paced and in a burst."""
    # Many short rounds: what else the machine does comes and goes by the second.
    rounds, chunks = (3, 80) if quick else (17, 120)
    kinds = {
        "floor": ("floor", False),
        "bare": ("bare", False),
        "bare base64": ("bare", True),
        "direct": ("direct", False),
        "relay": ("relay", False),
        "relay base64": ("relay", True),
    }
    used: dict[str, list[float]] = {kind: [] for kind in kinds}
    burst: dict[str, list[float]] = {kind: [] for kind in kinds}
    merged: list[float] = []
    with a_server(env) as server:
        async with AsyncExitStack() as stack:
            clients = {}
            for name, (kind, base64_) in kinds.items():
                user = name.replace(" ", "-")
                clients[name] = await stack.enter_async_context(server.socket(kind, user, base64=base64_))
                await turn(clients[name], chunks=150, every=PACE, base64=base64_)  # warms it up
            for _ in range(rounds):
                for every, into in ((PACE, used), (0, burst)):
                    for name, client in clients.items():
                        before = server.cpu()
                        heard = await turn(client, chunks=chunks, every=every, base64=kinds[name][1])
                        into[name].append((server.cpu() - before) / chunks * 1e6)
                        if name != "floor" and heard.sound != chunks * CHUNK:
                            raise AssertionError(f"{name}: {heard.sound} of {chunks * CHUNK} bytes came")
                        if name == "relay" and not every:
                            merged.append(chunks / heard.frames)

    def row(what: str, into: dict[str, list[float]], kind: str, other: str, aim: float | None = None) -> Row:
        measured = f"{median(into[kind]):.0f} µs a chunk"
        against = f"{other}: {median(into[other]):.0f} µs"
        return Row(f"down, {what}", measured, against, per_round(into[kind], into[other]), aim)

    return [
        row("binary", used, "relay", "floor", 1.15),
        row("base64", used, "relay base64", "floor", 1.20),
        row("direct, for comparison", used, "direct", "floor"),
        row("binary", used, "relay", "direct"),
        row("binary", used, "relay", "bare"),
        row("base64", used, "relay base64", "bare base64"),
        row(f"binary, in a burst ({median(merged):.1f} chunks a frame)", burst, "relay", "floor"),
        row("base64, in a burst", burst, "relay base64", "floor"),
        row("direct, in a burst", burst, "direct", "floor"),
    ]


async def up(env: dict[str, str], quick: bool) -> list[Row]:
    """CPU time for a second of speech on its way to the model, in short and in long frames."""
    rounds, seconds, pace = 2 if quick else 12, 1.2, 0.2
    kinds = [
        ("relay", 8, False),
        ("relay", 40, False),
        ("relay", 8, True),
        ("relay", 40, True),
        ("direct", 40, False),
        ("bare", 8, False),  # takes the frames and does nothing with them
        ("bare", 40, False),
    ]
    used: dict[tuple[str, int, bool], list[float]] = {kind: [] for kind in kinds}
    with a_server(env) as server:
        async with AsyncExitStack() as stack:
            clients = {}
            for kind in kinds:
                app, ms, base64_ = kind
                socket_ = server.socket(app, f"{app}-{ms}-{base64_}", base64=base64_)
                clients[kind] = await stack.enter_async_context(socket_)
                await speak(clients[kind], ms, 1.2, pace=pace, base64_=base64_)
            for _ in range(rounds):
                for kind, client in clients.items():
                    before = server.cpu()
                    await speak(client, kind[1], seconds, pace=pace, base64_=kind[2])
                    await asyncio.sleep(0.1)  # for what is still on its way
                    used[kind].append((server.cpu() - before) / seconds * 1000)
            for kind, client in clients.items():
                if kind[0] == "relay":
                    got = int((await turn(client, count=True)).words[0])
                    said = round((rounds * seconds + 1.2) * 1000 * MIC_BYTES_PER_MS)
                    if not said - 40 * MIC_BYTES_PER_MS <= got <= said:
                        raise AssertionError(f"{kind}: {got} of {said} bytes of sound came to the model")

    def row(
        what: str, kind: tuple[str, int, bool], other: tuple[str, int, bool], aim: float | None = None
    ) -> Row:
        app, ms, base64_ = other
        against = f"{app}, {ms} ms {'base64' if base64_ else 'binary'}: {median(used[other]):.1f} ms"
        measured = f"{median(used[kind]):.1f} ms a second"
        return Row(f"up, {what}", measured, against, per_round(used[kind], used[other]), aim)

    return [
        row("8 ms frames, binary", ("relay", 8, False), ("relay", 40, False), 1.3),
        row("8 ms frames, base64", ("relay", 8, True), ("relay", 40, True)),
        row("8 ms frames, binary", ("relay", 8, False), ("bare", 8, False)),
        row("40 ms frames, binary", ("relay", 40, False), ("bare", 40, False)),
        row("40 ms frames, binary", ("relay", 40, False), ("direct", 40, False)),
    ]


@dataclass
class Crowd:
    """What a number of concurrent voice sessions took."""

    cpu: list[float] = field(default_factory=list)  # of one core, for each session
    p50: list[float] = field(default_factory=list)  # ms
    p99: list[float] = field(default_factory=list)
    memory: float = 0  # bytes for each session, first time


async def _crowd(server: Served, kind: str, count: int, seconds: float, crowd: Crowd) -> None:
    """Voice sessions that speak and listen at the pace of real sound."""
    settle = 0.5
    empty = server.uss()
    chunks = round((seconds + settle + 0.5) * CHUNKS_PER_S)

    async def session(number: int, client: ClientConnection) -> Heard:
        await asyncio.sleep(number / count / CHUNKS_PER_S)  # not all at the same moment
        speaking = asyncio.create_task(speak(client, 40, seconds + settle + 0.5, pace=1, base64_=False))
        heard = await turn(client, stamps=True, chunks=chunks, every=1 / CHUNKS_PER_S)
        await speaking
        return heard

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(server.socket(kind, f"{kind}-{number}"))
            for number in range(count)
        ]
        await asyncio.sleep(0.5)  # the model's connections are opened meanwhile
        sessions = [asyncio.create_task(session(number, client)) for number, client in enumerate(clients)]
        await asyncio.sleep(settle)
        begin, before = time.monotonic(), server.cpu()
        await asyncio.sleep(seconds)
        end, after = time.monotonic(), server.cpu()
        crowd.memory = crowd.memory or (server.uss() - empty) / count
        heard = await asyncio.gather(*sessions)
    delays = [late for one in heard for late in one.between(begin, end)]
    crowd.cpu.append((after - before) / (end - begin) / count)
    crowd.p50.append(percentile(delays, 50))
    crowd.p99.append(percentile(delays, 99))
    await asyncio.sleep(0.5)


async def _idle(server: Served, kind: str, count: int) -> float:
    """Bytes that an idle socket takes."""
    async with AsyncExitStack() as stack:

        async def open_some(some: int) -> None:
            for number in range(some):
                socket_ = server.socket(kind, f"idle-{some}-{number}", audio=False)
                await stack.enter_async_context(socket_)

        await open_some(10)
        await asyncio.sleep(0.2)
        empty = server.uss()
        await open_some(count)
        await asyncio.sleep(0.5)
        return (server.uss() - empty) / count


async def sessions(env: dict[str, str], quick: bool) -> list[Row]:
    """Concurrent voice sessions: CPU, latency, memory; and sockets on which nothing happens."""
    rounds, seconds, counts, idle = (1, 1.5, (10, 40), 50) if quick else (3, 4.0, (10, 40), 200)
    crowds = {(kind, count): Crowd() for count in counts for kind in ("relay", "direct")}
    rows = []
    # A process for each, so that the memory is its own.
    with a_server(env) as relay, a_server(env) as direct, a_server(env) as bare:
        servers = {"relay": relay, "direct": direct}
        idle_relay, idle_bare = await _idle(relay, "relay", idle), await _idle(bare, "bare", idle)
        for kind, server in servers.items():
            await _crowd(server, kind, 3, 0.2, Crowd())  # warms it up
        for _ in range(rounds):
            for (kind, count), crowd in reversed(crowds.items()):  # the large one shows its memory first
                await _crowd(servers[kind], kind, count, seconds, crowd)
    for count in counts:
        ours, others = crowds["relay", count], crowds["direct", count]
        rows += [
            Row(
                f"{count} sessions, CPU",
                f"{median(ours.cpu):.2%} of a core each",
                f"direct: {median(others.cpu):.2%}",
                per_round(ours.cpu, others.cpu),
            ),
            Row(
                f"{count} sessions, latency p50",
                f"{median(ours.p50):.2f} ms",
                f"direct: {median(others.p50):.2f} ms",
                per_round(ours.p50, others.p50),
            ),
            Row(
                f"{count} sessions, latency p99",
                f"{median(ours.p99):.2f} ms",
                f"direct: {median(others.p99):.2f} ms",
                per_round(ours.p99, others.p99),
            ),
        ]
    ours, others = crowds["relay", max(counts)], crowds["direct", max(counts)]
    rows += [
        Row(
            f"memory of a session, of {max(counts)}",
            f"{ours.memory / 1024:.0f} KiB",
            f"direct: {others.memory / 1024:.0f} KiB",
            per_round([ours.memory], [others.memory]),
        ),
        Row(
            f"memory of an idle socket, of {idle}",
            f"{idle_relay / 1024:.0f} KiB",
            f"bare: {idle_bare / 1024:.0f} KiB",
            per_round([idle_relay], [idle_bare]),
        ),
    ]
    return rows


@dataclass
class Stall:
    """How a client that stops reading is borne; or one that reads, for comparison."""

    p99: float = 0  # of the others, ms
    growth: int = 0  # bytes
    released: float = 0  # seconds after it had stopped


async def _stall(server: Served, *, stalls: bool, seconds: float, name: str) -> Stall:
    """Eight clients at the pace of real sound, and one that gets it twenty times as fast."""
    result = Stall()
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(server.socket("relay", f"{name}-{number}")) for number in range(8)
        ]
        ninth = await stack.enter_async_context(server.socket("relay", f"{name}-ninth", narrow=stalls))
        await asyncio.sleep(0.5)
        chunks = round((seconds + 3) * CHUNKS_PER_S)
        hearing = [
            asyncio.create_task(turn(client, stamps=True, chunks=chunks, every=1 / CHUNKS_PER_S))
            for client in others
        ]
        await asyncio.sleep(1)
        begin, rss = time.monotonic(), server.rss()
        if stalls:
            ninth.transport.pause_reading()
        fast = round((seconds + 1) * CHUNKS_PER_S * 20)
        flooded = asyncio.create_task(turn(ninth, chunks=fast, every=1 / CHUNKS_PER_S / 20))
        while time.monotonic() - begin < seconds + 1.5:
            await asyncio.sleep(0.05)
            result.growth = max(result.growth, server.rss() - rss)
            if stalls and not result.released:
                health = await asyncio.to_thread(server.get, "/health")
                if health["connections"] == len(others):
                    result.released = time.monotonic() - begin
        end = begin + seconds
        result.p99 = percentile([late for h in hearing for late in (await h).between(begin, end)], 99)
        ninth.transport.abort()
        with suppress(ConnectionClosed):
            await flooded
    return result


async def stalled(env: dict[str, str], quick: bool) -> list[Row]:
    """One client of nine stops reading."""
    settings: dict[str, Any] = {"slow_timeout": 2.0, "queue_bytes": MIB} if quick else {}
    slow_timeout, bound = settings.get("slow_timeout", 10.0), settings.get("queue_bytes", 4 * MIB)
    reading: list[Stall] = []
    stopped: list[Stall] = []
    for number in range(1 if quick else 2):
        # A new process each time: what memory it has had, a process does not ask for again.
        for stalls, into in ((False, reading), (True, stopped)):
            with a_server(env, send_buffer=SEND_BUFFER, **settings) as server:
                into.append(
                    await _stall(server, stalls=stalls, seconds=slow_timeout + 0.5, name=f"{number}{stalls}")
                )
    limit = bound + MIB
    growth = [float(one.growth) for one in stopped]
    released = [one.released or float("inf") for one in stopped]
    return [
        Row(
            "one of nine stalled: the others' p99",
            f"{median(one.p99 for one in stopped):.2f} ms",
            f"it reads: {median(one.p99 for one in reading):.2f} ms",
            per_round([one.p99 for one in stopped], [one.p99 for one in reading]),
            1.2,
        ),
        Row(
            "memory growth meanwhile",
            f"{median(growth) / MIB:.1f} MiB",
            f"bound + 1 MiB: {limit / MIB:.0f} (it reads: "
            f"{median(one.growth for one in reading) / MIB:.1f}) MiB",
            [one / limit for one in growth],
            1.0,
        ),
        Row(
            "until it is given up",
            f"{median(released):.1f} s",
            f"slow_timeout: {slow_timeout:g} s",
            [one / slow_timeout for one in released],
        ),
    ]


async def barge_in(env: dict[str, str], quick: bool) -> list[Row]:
    """Ten seconds of sound wait for a client that does not read; then the model is interrupted."""
    handed: dict[str, list[float]] = {"relay": [], "direct": []}
    arrived: dict[str, list[float]] = {"relay": [], "direct": []}
    with a_server(env, send_buffer=SEND_BUFFER) as server:
        for number in range(1 if quick else 3):
            for kind in handed:
                async with server.socket(kind, f"logged-{number}", narrow=True) as client:
                    await asyncio.sleep(0.5)
                    client.transport.pause_reading()
                    asking = asyncio.create_task(turn(client, chunks=250, interrupt_after=0.5))
                    await asyncio.sleep(1.2)
                    client.transport.resume_reading()
                    heard = await asking
                    stamp = int(heard.words[-1].rsplit(" ", 1)[-1])
                sent = await asyncio.to_thread(server.get, "/sent")
                handed[kind].append(ms_of(sum(size for at, size in sent if at > stamp)))
                arrived[kind].append(ms_of(heard.sound))
    return [
        Row(
            "barge-in, stale sound handed to `send`",
            f"{median(handed['relay']):.0f} ms of 10 s",
            f"direct: {median(handed['direct']):.0f} ms",
            per_round(handed["relay"], handed["direct"]),
        ),
        Row(
            "barge-in, stale sound that arrives",
            f"{median(arrived['relay']):.0f} ms of 10 s",
            f"direct: {median(arrived['direct']):.0f} ms",
            per_round(arrived["relay"], arrived["direct"]),
        ),
    ]


async def rooms(env: dict[str, str], quick: bool) -> list[Row]:
    """CPU time for each chunk of one answer that reaches one of so many sockets of a conversation."""
    rows = []
    for count in (1, 10, 100) if quick else (1, 10, 100, 1000):
        rounds, chunks = (3, 20) if quick else (5, 30)
        used: dict[str, list[float]] = {"relay": [], "room": []}
        with a_server(env) as server:
            async with AsyncExitStack() as stack:
                clients: dict[str, list[ClientConnection]] = {}
                for kind in used:
                    clients[kind] = [
                        await stack.enter_async_context(server.socket(kind, "room")) for _ in range(count)
                    ]
                every = max(PACE, count * 120e-6)  # all are served before the next one comes
                for number in range(1 + rounds):
                    for kind, into in used.items():
                        before = server.cpu()
                        first, *others = clients[kind]
                        listening = [asyncio.create_task(listen(one)) for one in others]
                        heard = [await turn(first, chunks=chunks, every=every)]
                        heard += await asyncio.gather(*listening)
                        spent = (server.cpu() - before) / chunks / count * 1e6
                        if any(one.sound != chunks * CHUNK for one in heard):
                            raise AssertionError(f"{kind}: not all {count} sockets got the whole answer")
                        if number:  # the first one warms it up
                            into.append(spent)
        rows.append(
            Row(
                f"one answer to {count} sockets",
                f"{median(used['relay']):.0f} µs a message",
                f"a bare loop over `send`: {median(used['room']):.0f} µs",
                per_round(used["relay"], used["room"]),
                1.3 if count == 1000 else None,
            )
        )
    return rows


async def replay(env: dict[str, str], quick: bool) -> list[Row]:
    """From the reconnect to the first frame: the first replayed one, against the greeting of a new socket."""
    took: dict[str, list[float]] = {"replay": [], "greeting": []}
    with a_server(env, grace=30) as server:
        async with server.socket("relay", "back") as client:
            hello = json.loads(await client.recv())
            await turn(client, chunks=250, every=PACE)
        for _ in range(5 if quick else 25):
            began = time.monotonic()
            async with server.socket("relay", "back", query=f"&after={hello['epoch']}.50") as client:
                while not isinstance(await client.recv(), bytes):
                    pass
                took["replay"].append((time.monotonic() - began) * 1000)
            began = time.monotonic()
            async with server.socket("relay", "back") as client:
                await client.recv()
                took["greeting"].append((time.monotonic() - began) * 1000)
    return [
        Row(
            "reconnect to the first replayed message, of 8 s of sound",
            f"{median(took['replay']):.1f} ms",
            f"to the greeting: {median(took['greeting']):.1f} ms",
            per_round(took["replay"], took["greeting"]),
        )
    ]


async def start(env: dict[str, str], quick: bool) -> list[Row]:
    """From the command line to the first 200, without credentials."""
    settings = ("GEMINI_", "GOOGLE_", "RELAY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    environment["RELAY_SESSIONS"] = "memory://"
    serving: list[float] = []
    importing: list[float] = []
    with tempfile.TemporaryDirectory() as folder:

        def run(*arguments: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if CORES:
                os.sched_setaffinity(process.pid, {CORES[0]})
            return process

        for number in range(1 + (2 if quick else 4)):
            begin = time.monotonic()
            await asyncio.to_thread(run("-c", "import google.adk.runners").wait)
            imported = time.monotonic() - begin
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            begin = time.monotonic()
            server = run("-m", "uvicorn", "relay:app", "--app-dir", str(ROOT), "--port", str(port))
            try:
                while not _answers(port):
                    if server.poll() is not None:
                        raise AssertionError(f"uvicorn relay:app ended with {server.returncode}")
                    await asyncio.sleep(0.01)
                served = time.monotonic() - begin
            finally:
                server.terminate()
                server.wait(10)
            if number:  # the first one fills the disk's cache
                importing.append(imported)
                serving.append(served)
    against = f"import google.adk.runners: {median(importing):.1f} s"
    return [Row("start", f"{median(serving):.1f} s", against, per_round(serving, importing))]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


MEASUREMENTS = {
    "down": down,
    "up": up,
    "sessions": sessions,
    "stalled": stalled,
    "barge-in": barge_in,
    "rooms": rooms,
    "replay": replay,
    "start": start,
}


async def _measure(names: list[str], env: dict[str, str], quick: bool) -> bool:
    print("| what | measured | against | ratio | aim |\n|---|---|---|---|---|")
    well = True
    for name in names:
        try:
            rows = await MEASUREMENTS[name](env, quick)
            print(*rows, sep="\n", flush=True)
        except AssertionError as error:  # the others are still worth measuring
            print(f"| {name} | failed: {error} | | | |", flush=True)
            well = False
    return well


def main() -> None:
    parser = argparse.ArgumentParser(description="How much relay costs, in ratios.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="in about a minute, and rougher")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - MEASUREMENTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: there is only {', '.join(MEASUREMENTS)}")
    if CORES:
        os.sched_setaffinity(0, {CORES[-1]})
    began = time.monotonic()
    with a_model() as env:
        well = asyncio.run(_measure(arguments.names or list(MEASUREMENTS), env, arguments.quick))
    print(f"\n{time.monotonic() - began:.0f} s on {len(CORES) or os.cpu_count()} cores")
    sys.exit(not well)


if __name__ == "__main__":
    main()
