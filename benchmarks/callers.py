"""Clients that speak and listen, each kind over another dialect, to compare what the dialects cost.

All say the same to the same agent: speech that the stand-in for the model hears. It answers at the pace of
speech, see model.py.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from abc import ABC, abstractmethod
from array import array
from base64 import b64encode
from contextlib import suppress
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.processes import Server

_LOUD, _QUIET = 8000, 32
"""Amplitudes: speech, and noise that is none."""


_PATIENCE_MS = 10_000
"""So much later than it should an answer may come: the machine may be busy."""


class Caller(ABC):
    """A client with one socket.

    Args:
        user: a name of its own.
        ms: how much sound there is in each frame that it sends.
    """

    rate: int
    path: str
    subprotocols: tuple[str, ...] = ()

    def __init__(self, server: Server, user: str, ms: int) -> None:
        self._url = f"ws://127.0.0.1:{server.port}/{self.path.format(user=user)}"
        self._ms = ms
        self._loud, self._quiet = (self._coded(self._wave(amplitude)) for amplitude in (_LOUD, _QUIET))
        self._ws: ClientConnection
        self._reading: asyncio.Task[None] | None = None
        self._spoke_at = 0.0
        self._answered = asyncio.Event()
        self.heard_ms = 0.0
        """How much sound has come of the last answer."""
        self.after = 0.0
        """Seconds from the end of the speech to the first sound of its answer."""

    def _wave(self, amplitude: int) -> bytes:
        """A frame of a tone of which there are whole cycles in a frame."""
        samples = self.rate * self._ms // 1000
        step = 2 * math.pi * 400 / self.rate
        return array("h", [round(amplitude * math.sin(step * number)) for number in range(samples)]).tobytes()

    async def __aenter__(self) -> Self:
        subprotocols = [Subprotocol(name) for name in self.subprotocols] or None
        self._ws = await connect(
            self._url,
            compression=None,
            max_size=None,
            ping_interval=None,
            proxy=None,
            subprotocols=subprotocols,
        )
        await self._begin()
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ws.close()
        if self._reading:
            await self._reading

    async def say(self, speech_ms: int, answer_ms: float) -> None:
        """Says so much, and is then quiet until so much of the answer has come.

        Raises:
            AssertionError: it did not come.
        """
        self._answered.clear()
        self.heard_ms = 0.0
        begin, sent_ms = time.monotonic(), 0
        while self.heard_ms < answer_ms:
            late_ms = sent_ms - speech_ms - answer_ms - _PATIENCE_MS
            assert late_ms < 0, f"{self._url}: {self.heard_ms} of {answer_ms} ms of an answer came"
            # A frame is sent when its sound is over.
            sent_ms += self._ms
            await asyncio.sleep(begin + sent_ms / 1000 - time.monotonic())
            is_speech = sent_ms <= speech_ms
            await self._ws.send(self._frame(self._loud if is_speech else self._quiet))
            if is_speech:
                self._spoke_at = time.monotonic()

    async def answered(self) -> None:
        """Waits for the first sound of the answer."""
        async with asyncio.timeout(30):
            await self._answered.wait()

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for frame in self._ws:
                if ms := await self._heard(frame):
                    if not self._answered.is_set():
                        self.after = time.monotonic() - self._spoke_at
                        self._answered.set()
                    self.heard_ms += ms

    @abstractmethod
    async def _begin(self) -> None:
        """What comes before the sound."""

    @abstractmethod
    def _coded(self, pcm: bytes) -> bytes | str:
        """Sound as it is in a frame."""

    @abstractmethod
    def _frame(self, coded: bytes | str) -> bytes | str:
        """A frame with this sound."""

    @abstractmethod
    async def _heard(self, frame: bytes | str) -> float:
        """How much sound is in a frame of the server, in milliseconds."""


class LiveCaller(Caller):
    """The live dialect with binary frames."""

    rate = 16_000
    path = "ws/{user}?is_audio=true"
    subprotocols = ("relay.v1",)

    async def _begin(self) -> None:
        await self._ws.recv()  # hello

    def _coded(self, pcm: bytes) -> bytes | str:
        return pcm

    def _frame(self, coded: bytes | str) -> bytes | str:
        return coded

    async def _heard(self, frame: bytes | str) -> float:
        return (len(frame) - 4) / 48 if isinstance(frame, bytes) else 0.0


class OpenAICaller(Caller):
    """OpenAI's Realtime API, with PCM of 24 kHz in base64 both ways."""

    rate = 24_000
    path = "v1/realtime?model=bench"

    async def _begin(self) -> None:
        await self._ws.recv()  # session.created

    def _coded(self, pcm: bytes) -> bytes | str:
        return b64encode(pcm).decode()

    def _frame(self, coded: bytes | str) -> bytes | str:
        return f'{{"type":"input_audio_buffer.append","audio":"{coded!s}"}}'

    async def _heard(self, frame: bytes | str) -> float:
        if '"response.output_audio.delta"' not in str(frame[:400]):
            return 0.0
        return len(json.loads(frame)["delta"]) * 3 / 4 / 48


class TwilioCaller(Caller):
    """A telephone call by Twilio's Media Streams: it plays what comes, and says what it has played."""

    rate = 8_000
    path = "twilio"

    def __init__(self, server: Server, user: str, ms: int) -> None:
        super().__init__(server, user, ms)
        self._stream = f"MZ{user}"
        self._sent = 0
        self._plays_until = 0.0
        self._marking: set[asyncio.Task[None]] = set()

    async def _begin(self) -> None:
        await self._ws.send('{"event":"connected","protocol":"Call","version":"1.0.0"}')
        start = {
            "accountSid": "ACbench",
            "streamSid": self._stream,
            "callSid": f"CA{self._stream}",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
        }
        event = {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self._stream}
        await self._ws.send(json.dumps(event))

    def _coded(self, pcm: bytes) -> bytes | str:
        from adk_relay.wire.sound import ulaw_of

        return b64encode(ulaw_of(pcm)).decode()

    def _frame(self, coded: bytes | str) -> bytes | str:
        self._sent += 1
        return (
            f'{{"event":"media","sequenceNumber":"{self._sent + 1}","media":{{"track":"inbound",'
            f'"chunk":"{self._sent}","timestamp":"{self._sent * self._ms}","payload":"{coded!s}"}},'
            f'"streamSid":"{self._stream}"}}'
        )

    async def _heard(self, frame: bytes | str) -> float:
        event = json.loads(frame)
        if event["event"] == "media":
            ms = len(event["media"]["payload"]) * 3 / 4 / 8  # padding counts as sound, a thousandth of it
            self._plays_until = max(self._plays_until, time.monotonic()) + ms / 1000
            return ms
        if event["event"] == "mark":
            task = asyncio.create_task(self._mark(event["mark"]["name"], self._plays_until))
            self._marking.add(task)
            task.add_done_callback(self._marking.discard)
        return 0.0

    async def _mark(self, name: str, played_at: float) -> None:
        await asyncio.sleep(played_at - time.monotonic())
        event = {"event": "mark", "streamSid": self._stream, "mark": {"name": name}}
        with suppress(ConnectionClosed):
            await self._ws.send(json.dumps(event))
