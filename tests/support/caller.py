"""A stand-in for Twilio and a caller behind it: Media Streams over a WebSocket, at the pace of a telephone.

    async with calling(port) as caller:
        caller.says(speech(800, RATE))
        await caller.until(lambda: caller.heard_ms >= 240)

It speaks the frames that Twilio has published, and does what Twilio does with those it gets: sound is kept
and played in real time, a mark comes back when all before it was played, and `clear` forgets what is left
and sends its marks back. Frames of 20 ms come with jitter, as over a network.
Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from adk_relay.wire.sound import pcm_of_ulaw, ulaw_of
from support.client import Json

T = TypeVar("T")

RATE = 8000
MS = 8
"""Bytes of µ-law in a millisecond."""

TICK = 0.02
"""Seconds of sound in a frame."""

_JITTER = 0.015
"""Seconds by which a frame comes too late, at most."""

_MOST_LATE = 0.1
"""Seconds of sound that are made up for at once."""

_STARTS_WITH = 100 * MS
"""Bytes of sound that a telephone collects before it plays, after a pause."""

ACCOUNT_SID, STREAM_SID = "AC" + "0" * 32, "MZ" + "1" * 32
CALL_SID = "CA" + "2" * 32


def started(call_sid: str = CALL_SID, **params: str) -> Json:
    """The frame that begins a stream."""
    return {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": ACCOUNT_SID,
            "streamSid": STREAM_SID,
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": params,
        },
        "streamSid": STREAM_SID,
    }


CONNECTED: Json = {"event": "connected", "protocol": "Call", "version": "1.0.0"}


class Caller:
    """One call.

    Attributes:
        heard: all µ-law that was played.
        stretches: the same, one for each time that sound has begun.
        most_ms: the most sound that was kept, and not played yet, in milliseconds.
        frames: all that has come, in order, without the sound.
        cleared_ms: how much sound was forgotten.
        answers_marks: it sends marks back.
        sends_sound: it sends what the caller says, which is mostly silence.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard = bytearray()
        self.stretches: list[bytearray] = []
        self.most_ms = 0.0
        self.frames: list[Json] = []
        self.cleared_ms = 0.0
        self.answers_marks = True
        self.sends_sound = True
        self.closed: tuple[int, str] | None = None
        self._kept = bytearray()
        self._marks: deque[tuple[int, str]] = deque()
        """Up to which byte of all sound the mark comes, and its name."""
        self._come = 0
        """Bytes of sound that have come, less those that were forgotten."""
        self._is_playing = False
        self._begun = 0.0
        self._mouth = bytearray()
        self._sequence = 1
        self._chunk = 0
        self._change = asyncio.Event()
        self._random = random.Random(7)

    # ---- what a test does ----

    def says(self, pcm: bytes) -> None:
        """Says this next: PCM at 8 kHz."""
        self._mouth += ulaw_of(pcm)

    async def presses(self, keys: str) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            await self.send("dtmf", {"track": "inbound_track", "digit": key})

    async def hangs_up(self) -> None:
        """Ends the call, as Twilio tells it."""
        await self.send("stop", {"accountSid": ACCOUNT_SID, "callSid": CALL_SID})

    async def send(self, event: str, fields: Json) -> None:
        """Sends a frame."""
        self._sequence += 1
        frame = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: fields,
            "streamSid": STREAM_SID,
        }
        await self.socket.send(json.dumps(frame))

    async def until(self, done: Callable[[], T], timeout: float = 60) -> T:
        """What `done` returns once that is true; it is asked after all that happens here."""
        try:
            async with asyncio.timeout(timeout):
                while not (result := done()):
                    assert not self.closed, f"the call was closed: {self.closed}"
                    self._change.clear()
                    await self._change.wait()
                return result
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {self!r}") from None

    async def until_closed(self, timeout: float = 60) -> tuple[int, str]:
        """How the server closes the call."""
        async with asyncio.timeout(timeout):
            while not self.closed:
                self._change.clear()
                await self._change.wait()
        return self.closed

    @property
    def heard_ms(self) -> float:
        return len(self.heard) / MS

    @property
    def is_quiet(self) -> bool:
        """Nothing is kept that is still to be played."""
        return not self._kept

    def events(self, *names: str) -> list[Json]:
        """The frames of some kinds that have come."""
        return [frame for frame in self.frames if frame["event"] in names]

    def __repr__(self) -> str:
        stretches = [len(each) / MS for each in self.stretches]
        return f"<Caller heard {stretches} ms, keeps {len(self._kept) / MS} ms, {self.frames[-3:]}>"

    # ---- what Twilio and the telephone do ----

    async def run(self, *, speaks: bool = True) -> None:
        """Listens, plays and speaks until the socket is closed."""
        works = [self._listen(), self._tick()] if speaks else [self._listen()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.gather(*tasks)
        except ConnectionClosed:
            await self.socket.wait_closed()
            self.closed = (self.socket.close_code or 1006, self.socket.close_reason or "")
        finally:
            for task in tasks:
                task.cancel()
            self._change.set()

    async def _listen(self) -> None:
        while True:
            frame = json.loads(await self.socket.recv())
            assert frame["streamSid"] == STREAM_SID
            match frame["event"]:
                case "media":
                    self._keep(base64.b64decode(frame["media"]["payload"], validate=True))
                case "mark":
                    self.frames.append(frame)
                    self._marks.append((self._come, frame["mark"]["name"]))
                case "clear":
                    self.frames.append(frame)
                    self.cleared_ms += len(self._kept) / MS
                    self._come -= len(self._kept)
                    self._kept.clear()
                    self._is_playing, self._begun = False, 0.0
                    self._marks = deque((self._come, name) for _, name in self._marks)
                case other:
                    raise AssertionError(f"Twilio does not know {other!r}")
            await self._return_marks()
            self._change.set()

    def _keep(self, ulaw: bytes) -> None:
        assert ulaw
        self._kept += ulaw
        self._come += len(ulaw)
        self.most_ms = max(self.most_ms, len(self._kept) / MS)

    async def _return_marks(self) -> None:
        while self._marks and self._marks[0][0] <= self._come - len(self._kept):
            _, name = self._marks.popleft()
            if self.answers_marks:
                await self.send("mark", {"name": name})

    async def _tick(self) -> None:
        began, number = time.monotonic(), 0
        while True:
            number += 1
            pause = began + number * TICK + self._random.uniform(0, _JITTER) - time.monotonic()
            if pause < -_MOST_LATE:  # the test's own process stood still, and with it this telephone
                began -= pause
            await asyncio.sleep(max(0.0, pause))
            self._play(160)
            await self._return_marks()
            said = bytes(self._mouth[:160]).ljust(160, b"\xff")
            del self._mouth[:160]
            self._chunk += 1
            media = {"track": "inbound", "chunk": str(self._chunk), "timestamp": str(self._chunk * 20)}
            if self.sends_sound:
                await self.send("media", media | {"payload": base64.b64encode(said).decode()})
            self._change.set()

    def _play(self, size: int) -> None:
        """A tick of the loudspeaker."""
        now = time.monotonic()
        if not self._is_playing:
            if not self._kept:
                return
            self._begun = self._begun or now
            if len(self._kept) < _STARTS_WITH and now - self._begun < 0.1:
                return
            self._is_playing = True
            self.stretches.append(bytearray())
        played = self._kept[:size]
        del self._kept[:size]
        self.heard += played
        self.stretches[-1] += played
        if not self._kept:
            self._is_playing, self._begun = False, 0.0


@asynccontextmanager
async def calling(
    port: int,
    path: str = "/twilio",
    call_sid: str = CALL_SID,
    params: dict[str, str] | None = None,
    begins: bool = True,
    **options: Any,
) -> AsyncIterator[Caller]:
    """A call that has begun, and sends sound; with `begins=False` nothing of that happens."""
    options = {"max_queue": None, "open_timeout": 60, "proxy": None} | options
    scheme = "wss" if "ssl" in options else "ws"
    async with connect(f"{scheme}://127.0.0.1:{port}{path}", **options) as socket:
        caller = Caller(socket)
        await socket.send(json.dumps(CONNECTED))
        if begins:
            await socket.send(json.dumps(started(call_sid, **(params or {}))))
        running = asyncio.create_task(caller.run(speaks=begins))
        try:
            yield caller
        finally:
            running.cancel()
            await asyncio.wait([running])


def tones_in(ulaw: bytes | bytearray) -> Iterator[int]:
    """Which chunks of the model's sound these are: the numbers of `support.gemini.tone`, modulo 40."""
    samples = np.frombuffer(pcm_of_ulaw(bytes(ulaw)), "<i2").astype(float)
    for start in range(0, len(samples) - 319, 320):  # 40 ms, so a line of the spectrum is 25 Hz
        spectrum = abs(np.fft.rfft(samples[start : start + 320] * np.hanning(320)))
        yield (int(spectrum.argmax()) * 25 - 200) // 25
