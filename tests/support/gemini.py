"""A stand-in for the Gemini Live service: the `BidiGenerateContent` wire over TLS, on this machine.

Unmodified google-genai, and so unmodified ADK, talks to it as it would to Google:

    async with GeminiLive() as gemini:
        for name, value in gemini.env.items():
            monkeypatch.setenv(name, value)
        ...
        await gemini.wait_for(lambda: gemini.connections[0].texts == ["hello"])
        assert gemini.violations == []

Three things make it more than an echo. It refuses what the service refuses. It checks what it is
sent: a breach of the protocol closes the connection with 1007 and stays in `violations`. And it
knows what the model would know: `Connection.context` survives in resumption handles, so a test
can assert that a text was said exactly once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import math
import re
import socket
import tempfile
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import trustme
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

T = TypeVar("T")
Json = dict[str, Any]

NATIVE_AUDIO_2 = "gemini-2.5-flash-native-audio-preview-12-2025"
HALF_CASCADE_2 = "gemini-live-2.5-flash-preview"
MODELS = frozenset({"gemini-3.8-live", NATIVE_AUDIO_2, HALF_CASCADE_2})

AI_STUDIO = re.compile(r"/+ws/google\.ai\.generativelanguage\.v\w+\.GenerativeService\.BidiGenerateContent")
VERTEX = re.compile(r"/+ws/google\.cloud\.aiplatform\.v\w+\.LlmBidiService/BidiGenerateContent")

OUTPUT_RATE = 24_000  # Hz of the sound that the model sends
CHUNK_MS = 40
LOUD = 500  # mean amplitude, of 32767, from which 20 ms of sound count as speech
PAUSE_MS = 300  # quiet after speech that ends a turn


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the model is to answer: a text, or the PCM from the start of speech to the end of it."""

    text: str = ""
    audio: bytes = b""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to go wrong with one connection. A close code of 1006 means: no close frame."""

    http_status: int | None = None  # refuse the handshake with this
    gate: asyncio.Event | None = None  # answer the upgrade only when this is set
    hang: Literal["", "handshake", "setup"] = ""  # never answer the upgrade, or the setup
    close_before_setup: tuple[int, str] | None = None  # instead of setupComplete
    close_after_setup: tuple[int, str] | None = None  # right after setupComplete
    delay: float = 0  # seconds before setupComplete
    deaf: bool = False  # after setupComplete, read nothing more


class Refusal(Exception):
    """The service will not do this; the connection is closed with `code` and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Violation(Refusal):
    """The client broke the protocol."""

    def __init__(self, reason: str) -> None:
        super().__init__(1007, reason)


# --- sound ------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _wave(frequency: int, rate: int, ms: int) -> bytes:
    samples = (int(8000 * math.sin(2 * math.pi * frequency * n / rate)) for n in range(rate * ms // 1000))
    return array("h", samples).tobytes()


def tone(number: int) -> bytes:
    """Chunk `number` of what the model says: 40 ms of a sine wave at 24 kHz.

    Neighboring chunks differ, so that a test sees lost and swapped ones; each is a whole number
    of cycles, so that together they are smooth.
    """
    return _wave(200 + 25 * (number % 40), OUTPUT_RATE, CHUNK_MS)


def speech(ms: int, rate: int = 16_000) -> bytes:
    """PCM that the stand-in takes for speech."""
    return _wave(300, rate, ms)


def silence(ms: int, rate: int = 16_000) -> bytes:
    return bytes(2 * (rate * ms // 1000))


class Ear:
    """Finds the turns in what is heard, by energy. Counts time in sound, never by the clock."""

    def __init__(self) -> None:
        self._heard = bytearray()  # the speech of the open turn; empty between turns
        self._quiet_ms = 0.0

    def hear(self, pcm: bytes, rate: int) -> Iterator[UserTurn | None]:
        """Yields None where speech starts, and the turn where it has ended."""
        step = 2 * (rate // 50)  # bytes in 20 ms
        for start in range(0, len(pcm), step):
            block = pcm[start : start + step]
            samples = array("h", block)
            loud = sum(map(abs, samples)) >= LOUD * len(samples)
            if not loud and not self._heard:
                continue
            if not self._heard:
                yield None
            self._heard += block
            self._quiet_ms = 0.0 if loud else self._quiet_ms + len(samples) * 1000 / rate
            if self._quiet_ms >= PAUSE_MS:
                yield from self.flush()

    def flush(self) -> Iterator[UserTurn]:
        if self._heard:
            turn, self._heard, self._quiet_ms = UserTurn(audio=bytes(self._heard)), bytearray(), 0.0
            yield turn


# --- the wire ---------------------------------------------------------------------------------

# Below these keys the names are the user's, not the protocol's.
OPAQUE = frozenset({"args", "response", "properties", "parametersJsonSchema"})


def _camel(value: Any) -> Any:
    """google-genai mixes clientContent and client_content; protobuf's JSON takes both."""
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {re.sub(r"_([a-z])", lambda m: m[1].upper(), key): value[key] for key in value}
    return {key: item if key in OPAQUE else _camel(item) for key, item in named.items()}


def _only(message: Any, *names: str) -> tuple[str, Any]:
    """The one field of a message that must have exactly one, of these."""
    if not isinstance(message, dict) or len(message) != 1 or not message.keys() <= set(names):
        found = list(message) if isinstance(message, dict) else message
        raise Violation(f"expected one of {', '.join(names)}, got {found}")
    return next(iter(message.items()))


def _bytes(blob: Json) -> bytes:
    data = blob.get("data")
    try:  # both alphabets are good; google-genai writes the URL-safe one
        return base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)  # type: ignore[union-attr]
    except (AttributeError, binascii.Error):
        raise Violation(f"data is not base64: {str(data)[:40]!r}") from None


def _text(content: Json) -> str:
    return "".join(part.get("text", "") for part in content.get("parts", []))


def _lines(content: Json) -> list[tuple[str, str]]:
    """What a turn of the history adds to the model's context."""
    parts = content.get("parts", [])
    tools = [part.get("functionCall") or part.get("functionResponse") for part in parts]
    lines = [("tool", tool["name"]) for tool in tools if tool]
    return lines + ([(content.get("role", "user"), _text(content))] if _text(content) else [])


class Connection:
    """One connection of a client: what came over it, and the means to answer."""

    def __init__(self, server: GeminiLive, ws: ServerConnection, number: int, vertex: bool) -> None:
        self.number = number  # of the attempt, refused ones included; the first is 1
        self.vertex = vertex
        self.open = True
        self.closed: int | None = None  # the close code
        self.ready = False  # setupComplete was sent
        self.deaf = False
        # What the client sent. Keys of the protocol are camelCase here, however they came.
        self.received: list[str | bytes] = []  # all frames, as they came
        self.setup: Json = {}
        self.handle: str | None = None  # of the session that this connection resumed
        self.history: list[Json] = []  # turns of the initial client content
        self.triggered = False  # ADK's "." came after a history that awaits an answer
        self.texts: list[str] = []
        self.audio = bytearray()
        self.rates: set[int] = set()  # Hz, as declared with the sound
        self.images: list[bytes] = []
        self.audio_stream_ends = 0
        self.activities: list[bytes] = []  # the sound between the signals, where speech is not detected
        self.tool_responses: list[Json] = []
        # What the model said.
        self.said = ""
        self.sound = bytearray()
        self.turn_open = False
        # What the model knows: ("user" | "model" | "tool", words or the tool's name).
        self.context: list[tuple[str, str]] = []
        self._server = server
        self._ws = ws
        self._ear = Ear()
        self._activity: bytearray | None = None  # the one that has begun and not ended
        self._answering: asyncio.Task[None] | None = None
        self._calls: dict[str, asyncio.Future[Json]] = {}
        self._canceled: set[str] = set()
        self._partial = ""  # text of a turn that the client has not completed
        self._awaits: UserTurn | None = None  # history's open turn, on 3.x
        self._started = False  # something came after setup

    def __repr__(self) -> str:
        state = "open" if self.open else f"closed {self.closed}"
        return f"<Connection {self.number} {state} texts={self.texts} context={self.context}>"

    @property
    def model(self) -> str:
        return str(self.setup.get("model", "")).rsplit("/", 1)[-1]

    @property
    def gemini_3(self) -> bool:
        return self.model.startswith("gemini-3")

    @property
    def modality(self) -> str:
        modalities = self.setup.get("generationConfig", {}).get("responseModalities") or ["AUDIO"]
        return str(modalities[0])

    @property
    def detects_speech(self) -> bool:
        """Whether the service finds out by itself when the user speaks."""
        detection = self.setup.get("realtimeInputConfig", {}).get("automaticActivityDetection", {})
        return not detection.get("disabled")

    @property
    def is_listening(self) -> bool:
        """Whether the client has told the beginning of an activity, and not its end."""
        return self._activity is not None

    # --- building blocks for answers ---

    async def send(self, message: Json) -> None:
        """Any message at all; what the others below end in."""
        await self.send_raw(json.dumps(message))

    async def send_raw(self, frame: str | bytes) -> None:
        """A frame that may be no message."""
        await self._ws.send(frame)

    async def _content(self, content: Json) -> None:
        self.turn_open = True
        await self.send({"serverContent": content})

    async def say(
        self,
        text: str,
        *,
        words: bool = True,
        audio: bool = True,
        delay: float = 0,
        complete: bool = True,
    ) -> None:
        """Say a text word by word, two chunks of sound to a word; `delay` seconds after each.

        With `complete=False` neither generation_complete nor turn_complete follows. A connection
        with modality TEXT gets the words as text parts.
        """
        await self.resumption_update(resumable=False)
        for word in re.findall(r"\s*\S+", text):
            self._knows("model", word)
            self.said += word
            if self.modality == "TEXT":
                await self._content({"modelTurn": {"role": "model", "parts": [{"text": word}]}})
            elif words and "outputAudioTranscription" in self.setup:
                await self._content({"outputTranscription": {"text": word}})
            if audio and self.modality == "AUDIO":
                await self.send_audio(2)
            await asyncio.sleep(delay)
        if complete:
            await self._content({"generationComplete": True})
            await self.turn_complete()

    async def send_audio(self, chunks: int, *, delay: float = 0) -> None:
        """So many chunks of 40 ms at 24 kHz. All of a connection's are in `sound`."""
        for _ in range(chunks):
            pcm = tone(len(self.sound) // len(tone(0)))
            self.sound += pcm
            blob = {
                "mimeType": f"audio/pcm;rate={OUTPUT_RATE}",
                "data": base64.b64encode(pcm).decode(),
            }
            await self._content({"modelTurn": {"role": "model", "parts": [{"inlineData": blob}]}})
            if delay:
                await asyncio.sleep(delay)

    async def send_text_parts(self, *texts: str, thought: bool = False) -> None:
        """One message whose parts are these texts."""
        self._knows("model", "" if thought else "".join(texts))
        parts = [{"text": text} | ({"thought": True} if thought else {}) for text in texts]
        await self._content({"modelTurn": {"role": "model", "parts": parts}})

    async def heard(self, text: str) -> None:
        """The user's transcription: whole on 3.x, in pieces before. Neither says `finished`."""
        self._knows("user", text)
        if "inputAudioTranscription" in self.setup:
            for piece in [text] if self.gemini_3 else re.findall(r"\s*\S+", text):
                await self._content({"inputTranscription": {"text": piece}})

    async def call_tool(self, name: str, args: Json, id: str | None = None) -> Json:
        """Call a tool of the client and return what it answered.

        Before 3.x the turn is completed first. On 3.x it stays open until the answer goes on.
        """
        (answer,) = await self.call_tools((name, args, id))
        return answer

    async def call_tools(self, *calls: tuple[str, Json, str | None]) -> list[Json]:
        """Several calls in one message: (name, args, id or None)."""
        message = []
        futures = []
        for name, args, id in calls:
            id = id or self._server.new_id("call")
            self._calls[id] = asyncio.get_running_loop().create_future()
            futures.append(self._calls[id])
            message.append({"id": id, "name": name, "args": args})
            self._knows("tool", name)
        self.turn_open = True
        await self.send({"toolCall": {"functionCalls": message}})
        if not self.gemini_3:
            await self.turn_complete()
        return [await future for future in futures]

    async def interrupted(self) -> None:
        await self._content({"interrupted": True})

    async def turn_complete(self, interaction_status: str | None = None) -> None:
        """End the turn. A handle follows, unless a tool or the model (IN_PROGRESS) goes on."""
        status = {"interactionStatus": interaction_status} if interaction_status else {}
        self.turn_open = False
        await self.send({"serverContent": {"turnComplete": True} | status})
        if not self._calls and interaction_status != "IN_PROGRESS":
            await self.resumption_update()
        self._server.changed()

    async def resumption_update(self, handle: str | None = None, resumable: bool = True) -> None:
        """A handle that brings back all that the model knows now, if the client asked for handles.

        `resumable=False` sends the empty update of a session that cannot be resumed at the moment.
        """
        if "sessionResumption" not in self.setup:
            return
        update: Json = {}  # protobuf's JSON leaves out what is empty or false
        if resumable:
            update = {"newHandle": handle or self._server.new_id("handle"), "resumable": True}
            self._server.handles[update["newHandle"]] = list(self.context)
        await self.send({"sessionResumptionUpdate": update})

    async def go_away(self, time_left_seconds: float) -> None:
        await self.send({"goAway": {"timeLeft": f"{time_left_seconds:g}s"}})

    async def usage(self, prompt: int = 10, response: int = 20) -> None:
        tokens = {"promptTokenCount": prompt, "responseTokenCount": response}
        await self.send({"usageMetadata": tokens | {"totalTokenCount": prompt + response}})

    async def ground(self, *sources: tuple[str, str], searches: tuple[str, ...] = (), html: str = "") -> None:
        """What the answer is based on: sources as (title, URL)."""
        chunks = [{"web": {"title": title, "uri": url}} for title, url in sources]
        grounding = {"groundingChunks": chunks, "webSearchQueries": [*searches]}
        if html:
            grounding["searchEntryPoint"] = {"renderedContent": html}
        await self._content({"groundingMetadata": grounding})

    async def die(self, code: int, reason: str = "") -> None:
        """Close with this code; 1006 is an abort."""
        if code == 1006:
            self.abort()
        else:
            await self._ws.close(code, reason)

    def abort(self) -> None:
        """Drop the TCP connection without a close frame."""
        self._ws.transport.abort()

    def deafen(self) -> None:
        """Read nothing more, not even from the socket, until the stand-in ends or `abort()`.

        The client's sends go on until the buffers of both sides are full.
        """
        self.deaf = True
        tcp = self._ws.transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._ws.transport.pause_reading()

    # --- what comes from the client ---

    def _knows(self, role: str, words: str) -> None:
        if role == "model" and self.turn_open and self.context and self.context[-1][0] == role:
            words = self.context.pop()[1] + words
        if words:
            self.context.append((role, words))

    async def run(self, plan: Plan) -> None:
        try:
            await self._set_up(plan)
            while True:
                raw = await self._ws.recv()
                self.received.append(raw)
                if self.deaf:  # taken by the library before the socket was
                    self._ws.transport.pause_reading()
                    await self._ws.wait_closed()
                await self._take(_parse(raw))
                self._server.changed()
        except Refusal as refusal:
            if isinstance(refusal, Violation):
                self._server.violations.append(str(refusal))
            await self._ws.close(refusal.code, str(refusal)[:120])
        except ConnectionClosed:
            pass
        except Exception as error:  # a message of a shape that nobody foresaw
            self._server.violations.append(f"the stand-in failed: {error!r}")
        finally:
            await self._stop_answering()
            await self._ws.close()
            self.open = False
            self.closed = self._ws.close_code
            self._server.changed()

    async def _set_up(self, plan: Plan) -> None:
        _, self.setup = _only(_parse(await self._ws.recv()), "setup")
        self._server.changed()
        if plan.hang:
            await self._ws.wait_closed()
        if plan.close_before_setup:
            return await self.die(*plan.close_before_setup)
        if self.model not in self._server.models:
            name = self.setup.get("model")
            raise Refusal(1008, f"{name} is not found for API version v1beta, or is not supported")
        modalities = self.setup.get("generationConfig", {}).get("responseModalities", [])
        if len(modalities) > 1:
            raise Refusal(1007, "The requested combination of response modalities is not supported")
        if self.modality == "TEXT" and (self.gemini_3 or "native-audio" in self.model):
            raise Refusal(1007, "Cannot extract voices from a non-audio request.")
        resumption = self.setup.get("sessionResumption", {})
        if resumption.get("transparent") and not self.vertex:
            raise Refusal(1007, 'Unknown name "transparent" at setup.session_resumption')
        if handle := resumption.get("handle"):
            if handle not in self._server.handles:
                raise Refusal(1008, "BidiGenerateContent session not found")
            self.handle = handle
            self.context = list(self._server.handles[handle])
        await asyncio.sleep(plan.delay)
        await self.send({"setupComplete": {"sessionId": f"session-{self.number}"}})
        self.ready = True
        self._server.changed()
        if plan.close_after_setup:
            await self.die(*plan.close_after_setup)
        if plan.deaf:
            self.deafen()

    async def _take(self, message: Any) -> None:
        kind, body = _only(message, "clientContent", "realtimeInput", "toolResponse")
        first, self._started = not self._started, True
        if kind == "toolResponse":
            self._take_tool_response(body)
        elif kind == "realtimeInput":
            await self._take_realtime(body)
        elif first and self.setup.get("historyConfig", {}).get("initialHistoryInClientContent"):
            self.history = body.get("turns", [])
            self.context += [line for turn in self.history for line in _lines(turn)]
            if body.get("turnComplete"):
                self._awaits = UserTurn(text=_text(self.history[-1]))
                if not self.gemini_3:  # 3.x waits for some other input first
                    await self._answer(self._awaits)
        elif self.gemini_3:
            raise Violation("Request contains an invalid argument: clientContent after the history")
        else:
            await self._take_turns(body)

    async def _take_turns(self, body: Json) -> None:
        for content in body.get("turns", []):
            for part in content.get("parts", []):
                if "inlineData" in part:
                    self.images.append(_bytes(part["inlineData"]))
            if text := _text(content):
                self.texts.append(text)
                self._partial += text
        if body.get("turnComplete"):
            text, self._partial = self._partial, ""
            await self._answer(UserTurn(text=text), new=True)

    async def _take_realtime(self, body: Any) -> None:
        kinds = ("text", "audio", "video", "mediaChunks", "audioStreamEnd", "activityStart", "activityEnd")
        kind, value = _only(body, *kinds)
        if kind in (("activityStart", "activityEnd") if self.detects_speech else ("audioStreamEnd",)):
            raise Violation(
                f"{kind} with automaticActivityDetection {'on' if self.detects_speech else 'off'}"
            )
        if kind == "text":
            awaits, self._awaits = self._awaits, None
            if awaits is not None and self.gemini_3 and value == ".":
                self.triggered = True
                await self._answer(awaits)
            else:
                self.texts.append(value)
                await self._answer(UserTurn(text=value), new=True)
        elif kind == "audioStreamEnd":
            self.audio_stream_ends += 1
            for turn in self._ear.flush() if self._server.heeds_stream_end else ():
                await self._answer(turn)
        elif kind == "activityStart":
            if self._activity is not None:
                raise Violation("activityStart, and the activity before has not ended")
            self._activity = bytearray()
            await self._interrupt()
        elif kind == "activityEnd":
            if self._activity is None:
                raise Violation("activityEnd, and no activity has begun")
            sound, self._activity = bytes(self._activity), None
            self.activities.append(sound)
            await self._answer(UserTurn(audio=sound))
        elif kind == "mediaChunks" and self.gemini_3:
            raise Violation("realtime_input.media_chunks is deprecated. Use audio, video, or text")
        else:
            for blob in value if kind == "mediaChunks" else [value]:
                if str(blob.get("mimeType", "")).startswith("image/") and kind != "audio":
                    self.images.append(_bytes(blob))
                elif kind != "video":
                    await self._take_sound(blob)
                else:
                    raise Violation(f"video is an image, not {blob.get('mimeType')!r}")

    async def _take_sound(self, blob: Json) -> None:
        match = re.fullmatch(r"audio/pcm;\s*rate=(\d+)", str(blob.get("mimeType")))
        if not match:
            raise Violation(f"sound is audio/pcm;rate=N, not {blob.get('mimeType')!r}")
        pcm, rate = _bytes(blob), int(match[1])
        if not pcm or len(pcm) % 2:
            raise Violation(f"sound is 16-bit samples, not {len(pcm)} bytes")
        self.audio += pcm
        self.rates.add(rate)
        if not self.detects_speech:
            if self._activity is not None:
                self._activity += pcm
            return
        for turn in self._ear.hear(pcm, rate):
            if turn is None:  # speech starts: barge-in
                await self._interrupt()
            else:
                await self._answer(turn)

    def _take_tool_response(self, body: Json) -> None:
        for response in body.get("functionResponses", []):
            id = response.get("id")
            if id in self._canceled:
                continue  # was on its way
            if id not in self._calls:
                raise Violation(f"tool answer for {id!r}, open are {list(self._calls)}")
            if not isinstance(response.get("response"), dict):
                raise Violation(f"tool answer without a response: {response}")
            self.tool_responses.append(response)
            if not response.get("willContinue"):
                self._calls.pop(id).set_result(response["response"])

    # --- answering ---

    async def _answer(self, turn: UserTurn, *, new: bool = False) -> None:
        """Answer this turn, not the one before. A `new` text enters the context; a history's is
        there already, and speech only gets there by `heard`."""
        await self._interrupt()
        if new:
            self._knows("user", turn.text)
        self.turn_open = True
        self._answering = asyncio.create_task(self._run_answer(turn))

    async def _run_answer(self, turn: UserTurn) -> None:
        try:
            await self._server.answer(self, turn)
        except ConnectionClosed:
            pass
        except Exception as error:  # a failing script must fail the test
            self._server.violations.append(f"the answer failed: {error!r}")
            await self._ws.close(1011, "Internal error encountered.")

    async def _stop_answering(self) -> bool:
        """Whether there was an answer to stop. `wait`, since awaiting would raise its cancel."""
        task, self._answering = self._answering, None
        if task is None or task.done():
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def _interrupt(self) -> None:
        """As the service: the answer stops where it is, its tools are canceled, its turn ends."""
        if not await self._stop_answering():
            return
        canceled = list(self._calls)
        self._canceled.update(canceled)
        self._calls.clear()
        if canceled:
            await self.send({"toolCallCancellation": {"ids": canceled}})
        if self.turn_open:
            await self.interrupted()
            await self.turn_complete()


def _parse(raw: str | bytes) -> Any:
    try:
        return _camel(json.loads(raw))
    except ValueError as error:
        raise Violation(f"not JSON: {error}") from None


Answer = Callable[[Connection, UserTurn], Awaitable[None]]


async def default_answer(connection: Connection, turn: UserTurn) -> None:
    if turn.audio:
        await connection.heard("Hello there.")
        await connection.say("I heard you.")
    else:
        await connection.say(f"You said: {turn.text}.")


def all_well(number: int) -> Plan | None:
    return None


class GeminiLive:
    """The service. `answer` is what the model does with a turn: it runs in a task of its own,
    and is canceled by whatever the user says next.

    `on_connect` gets the number of an attempt (from 1) and may return a Plan; the `get` of a
    dictionary is such a function. It may be exchanged while the service runs.
    """

    def __init__(
        self,
        answer: Answer = default_answer,
        *,
        on_connect: Callable[[int], Plan | None] = all_well,
        models: frozenset[str] = MODELS,
        api_key: str = "the-good-key",
        port: int = 0,
    ) -> None:
        self.answer = answer
        self.on_connect = on_connect
        self.models = models
        self.api_key = api_key
        self.port = port
        self.heeds_stream_end = True  # reported: some models ignore audioStreamEnd
        self.connects = 0  # attempts, with the refused ones
        self.connections: list[Connection] = []  # WebSockets that were opened
        self.violations: list[str] = []
        self.handles: dict[str, list[tuple[str, str]]] = {}  # `clear()` kills them all
        self._ids = 0
        self._change = asyncio.Event()
        self._server: Server | None = None
        self._sockets: dict[ServerConnection, tuple[int, Plan]] = {}  # from upgrade to end

    @property
    def base_url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> str:
        return str(Path(self._directory.name) / "ca.pem")

    @property
    def env(self) -> dict[str, str]:
        """What makes google-genai, in this process or another, come here."""
        return {
            "GOOGLE_GEMINI_BASE_URL": self.base_url,
            "GOOGLE_VERTEX_BASE_URL": self.base_url,
            "SSL_CERT_FILE": self.ca_file,
            "GOOGLE_API_KEY": self.api_key,
        }

    @property
    def open_connections(self) -> int:
        """Clients that are connected now, those that still wait for their upgrade included."""
        return len(self._sockets)

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 60) -> T:
        """What `predicate` returns once that is true; it is asked after everything that happens
        here, but not after what happens elsewhere in the test."""
        try:
            async with asyncio.timeout(timeout):
                while not (result := predicate()):
                    await self._change.wait()
                return result
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {self!r}") from None

    async def connection(self, index: int = 0, timeout: float = 60) -> Connection:
        """`connections[index]`, when it has been set up."""
        await self.wait_for(lambda: len(self.connections) > index and self.connections[index].ready, timeout)
        return self.connections[index]

    def __repr__(self) -> str:
        return f"<GeminiLive connects={self.connects} {self.connections} {self.violations}>"

    def changed(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def new_id(self, kind: str) -> str:
        self._ids += 1
        return f"{kind}-{self._ids}"

    async def __aenter__(self) -> Self:
        authority = trustme.CA()
        self._directory = tempfile.TemporaryDirectory(prefix="gemini-")
        authority.cert_pem.write_to_path(self.ca_file)
        tls = SSLContext(PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(tls)
        quiet = logging.getLogger("stand-in.websockets")  # clients that go early are no news
        quiet.disabled = True
        # The protocol by name, or asyncio leaves Nagle's algorithm on: 40 ms with every message.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # As over Ethernet. With the loopback's 64 KiB the kernel gives a client megabytes of send
        # buffer, and no test would see a deaf service block it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = await serve(
            self._handle,
            sock=listener,
            ssl=tls,
            process_request=self._admit,
            compression=None,
            max_size=2**25,
            open_timeout=None,
            ping_interval=None,
            close_timeout=1,
            logger=quiet,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        for ws, (_, plan) in list(self._sockets.items()):  # the hung and the deaf would not end otherwise
            ws.transport.abort()
            if plan.gate:
                plan.gate.set()
        self._server.close()
        await self._server.wait_closed()
        self._directory.cleanup()

    async def _admit(self, ws: ServerConnection, request: Request) -> Response | None:
        self.connects += 1
        plan = self.on_connect(self.connects) or Plan()
        self._sockets[ws] = (self.connects, plan)
        self.changed()
        response = None
        with suppress(ConnectionClosed):
            response = await self._refuse(ws, request, plan)
        if response is not None:
            self._sockets.pop(ws)
            self.changed()
        return response

    async def _refuse(self, ws: ServerConnection, request: Request, plan: Plan) -> Response | None:
        if plan.gate:
            await plan.gate.wait()
        if plan.hang == "handshake":
            await ws.wait_closed()
            return ws.respond(HTTPStatus.SERVICE_UNAVAILABLE, "gone")
        if plan.http_status:
            return ws.respond(HTTPStatus(plan.http_status), "as planned")
        url = urlsplit(request.path)
        if not AI_STUDIO.fullmatch(url.path) and not VERTEX.fullmatch(url.path):
            return ws.respond(HTTPStatus.NOT_FOUND, f"no such path: {url.path}")
        keys = [
            *request.headers.get_all("x-goog-api-key"),
            *parse_qs(url.query).get("key", []),
            *(v.removeprefix("Bearer ") for v in request.headers.get_all("Authorization")),
        ]
        if self.api_key not in keys:
            return ws.respond(HTTPStatus.FORBIDDEN, "API key not valid. Please pass a valid key.")
        return None

    async def _handle(self, ws: ServerConnection) -> None:
        number, plan = self._sockets[ws]
        assert ws.request is not None
        vertex = VERTEX.fullmatch(urlsplit(ws.request.path).path) is not None
        connection = Connection(self, ws, number, vertex)
        self.connections.append(connection)
        try:
            await connection.run(plan)
        finally:
            self._sockets.pop(ws)
            self.changed()
