"""The offline model: it answers if there is no API key, and in tests.

It behaves like a live model of Gemini's third generation: it answers in sound, with transcriptions of both
sides, can be interrupted, calls a tool, and completes its turn only after the tool has answered. It does not
understand what it is told. It repeats a text, and it plays speech back as in an echo test, which shows that
microphone, relay and loudspeaker work. A text that is a tool's name, alone or with arguments, calls the tool:

    order_status {"number": 7}

Of its instructions it follows one kind: a line `Say: …` is what each of its answers in words ends with.

It has no task and no thread. Input only changes the state of the connection. `receive()` answers at the pace
of speech, and checks before each chunk whether it was interrupted.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import zoneinfo
from array import array
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence, Set
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from functools import cache, lru_cache

from google.adk.models import BaseLlm, LlmCapabilities
from google.adk.models.base_llm_connection import BaseLlmConnection, RealtimeInput
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types

from adk_relay.adk.hearing import Ear, Utterance

_INTRODUCTION = "This is a rehearsal: no model is connected."
_CLOCK = "get_current_time"
_SAY = re.compile(r"^Say: (.+)$", re.MULTILINE)

_RATE_OUT = 24_000
"""Samples a second of the answer, 16-bit mono; every Gemini Live model speaks at this rate."""

_CHUNK = _RATE_OUT * 40 // 1000
"""Samples of the answer that are sent at once."""

_LEAD = 0.2
"""Seconds that sound is sent before it is played: enough to play without gaps, and so little that
after an interruption almost no stale sound is on its way."""

_NOTES = (262, 294, 330, 392, 440)
"""Hz. The length of a word selects its note. The scale is pentatonic: all sequences sound pleasant."""

_NOTE_LEVEL = 1500
"""The peak of a word's note, of 32767: audible, but quiet."""

_LONGEST_QUOTE = 300
"""Characters of a text that are repeated."""


class Rehearsal(BaseLlm):
    """A model that needs no key and no network.

    Args:
        words_per_second: how fast it speaks.
        pace: how many times faster than real time its sound is sent; more than 1 is for tests.
    """

    model: str = "rehearsal"
    words_per_second: float = 3.0
    pace: float = 1.0

    @property
    def capabilities(self) -> LlmCapabilities:
        """The model has no special capabilities. Without this property, ADK shows a FutureWarning."""
        return LlmCapabilities(output_schema_and_tools=False)

    @asynccontextmanager
    async def connect(self, llm_request: LlmRequest) -> AsyncIterator[BaseLlmConnection]:
        """A live connection, as `run_live` uses it."""
        tools, told = frozenset(llm_request.tools_dict), llm_request.config.system_instruction
        connection = _Connection(self, tools=tools, says=_SAY.findall(told) if isinstance(told, str) else [])
        try:
            yield connection
        finally:
            await connection.close()

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """One answer in text, as `adk run` and the text chat of `adk web` ask for it."""
        text, results = _read(llm_request.contents[-1] if llm_request.contents else types.Content())
        answer = _reported(results[0]) if results else _reply(text, frozenset(llm_request.tools_dict))
        if isinstance(answer, types.FunctionCall):
            yield _said(types.Part(function_call=answer))
            return
        for word in _words(answer) if stream else ():
            yield _said(types.Part(text=word), partial=True)
            await asyncio.sleep(1 / self.words_per_second)
        yield _said(types.Part(text=answer))


class _Connection(BaseLlmConnection):
    def __init__(self, model: Rehearsal, *, tools: Set[str], says: Sequence[str]) -> None:
        self._model = model
        self._says = says
        self._tools = tools
        self._ear = Ear()
        self._questions: deque[str | Utterance] = deque()
        self._results: dict[str, types.FunctionResponse] = {}
        self._asides: dict[str, str] = {}  # sentences that are added to the next answer
        self._turns = 0
        self._answering = False
        self._interrupted = False
        self._closed = asyncio.Event()
        self._news = asyncio.Event()
        self._heard_until = 0.0  # event-loop time at which the sound sent so far has been played

    # ---- what ADK sends: nothing here waits ----

    async def send_history(self, history: list[types.Content]) -> None:
        """Takes the turns before this connection. If the last one is the user's, it is answered."""
        self._turns = before = len(history)
        if history and history[-1].role == "user":
            before -= 1
            self._take(history[-1])
        if before:
            self._asides["history"] = f"I remember {before} {'turn' if before == 1 else 'turns'} before this."

    async def send_content(self, content: types.Content) -> None:
        """A text, which interrupts what is being said, or the answer of a tool."""
        self._take(content)

    async def send_realtime(self, input: RealtimeInput) -> None:
        """Sound (`audio/pcm`, 16-bit mono, 16 kHz unless it says `;rate=N`), its end, or a picture."""
        match input:
            case types.Blob(data=bytes() as data, mime_type=str() as mime) if mime.startswith("audio/"):
                rate = re.search(r"rate=([1-9]\d{3,5})\b", mime)
                for heard in self._ear.hear(data, int(rate[1]) if rate else 16_000, wary=self._is_heard()):
                    if isinstance(heard, Utterance):
                        self._ask(heard)
                    else:
                        self._interrupt()
            case types.Blob():
                self._see(input)
            case types.ActivityEnd() | types.LiveClientRealtimeInput(audio_stream_end=True):
                if utterance := self._ear.flush():
                    self._ask(utterance)

    async def close(self) -> None:
        """Ends `receive()`."""
        self._closed.set()
        self._news.set()

    def _take(self, content: types.Content) -> None:
        text, results = _read(content)
        for part in content.parts or ():
            if part.inline_data:
                self._see(part.inline_data)
        for result in results:
            self._results[result.id or ""] = result
        if results:
            self._news.set()
        else:
            self._ask(text)

    def _see(self, picture: types.Blob) -> None:
        # Only the latest is kept: a camera sends one every second.
        self._asides["picture"] = f"I got a picture of {math.ceil(len(picture.data or b'') / 1024)} KB."

    def _ask(self, question: str | Utterance) -> None:
        self._questions.append(question)
        self._interrupt()

    def _interrupt(self) -> None:
        self._interrupted = self._answering
        self._news.set()

    def _is_heard(self) -> bool:
        """Whether the microphone may pick up the agent's own voice now."""
        return self._answering or asyncio.get_running_loop().time() < self._heard_until + 0.3

    # ---- what ADK receives ----

    async def receive(self) -> AsyncGenerator[LlmResponse, None]:
        """Yields one turn, or nothing after `close`. As with a real connection, each turn is a call."""
        await self._wait(lambda: bool(self._questions))
        if self._closed.is_set():
            return
        question = self._questions.popleft()
        self._turns += 1
        self._answering = True
        self._interrupted = bool(self._questions)  # the next question came before this answer began
        aloud = ""
        async with aclosing(self._answer(question)) as responses:
            async for response in responses:
                if self._interrupted or self._closed.is_set():
                    break
                if response.output_transcription:
                    aloud += response.output_transcription.text or ""
                yield response
        await self._until(self._heard_until)  # an answer can be interrupted while its sound is played
        self._answering = False
        was_interrupted, self._interrupted = self._interrupted, False
        if self._closed.is_set():
            return
        if aloud:
            yield _aloud(aloud, finished=True)
        if was_interrupted:
            yield LlmResponse(interrupted=True)
        yield LlmResponse(turn_complete=True)

    async def _answer(self, question: str | Utterance) -> AsyncGenerator[LlmResponse, None]:
        self._heard_until = asyncio.get_running_loop().time()
        if isinstance(question, Utterance):
            heard = types.Transcription(text=f"({question.seconds:.1f} seconds of speech)", finished=True)
            yield LlmResponse(input_transcription=heard, partial=False)
            yield _aloud(f"You said this, for {question.seconds:.1f} seconds:")
            for chunk in _resampled(question.pcm, question.rate):
                yield await self._sound(chunk)
            return
        answer = _reply(question, self._tools)
        if isinstance(answer, types.FunctionCall):
            # The number includes the turns of the history: a call's id must be unique within the session.
            answer.id = call_id = f"call-{self._turns}"
            self._results.clear()
            yield _said(types.Part(function_call=answer))
            await self._wait(lambda: call_id in self._results)
            if call_id not in self._results:
                return  # interrupted or closed
            answer = _reported(self._results.pop(call_id))
        asides = " ".join([*self._asides.values(), *self._says])
        self._asides.clear()
        for word in _words(f"{answer} {asides}".strip()):
            yield await self._sound(_note(len(word), int(_RATE_OUT / self._model.words_per_second)))
            yield _aloud(word)

    async def _sound(self, pcm: bytes) -> LlmResponse:
        """Waits until it is time to send a chunk of sound, and returns its response."""
        await self._until(self._heard_until - _LEAD)
        now = asyncio.get_running_loop().time()
        # After a delay the rest is sent at the usual pace, not all at once.
        self._heard_until = max(self._heard_until, now) + len(pcm) / 2 / _RATE_OUT / self._model.pace
        return _said(types.Part(inline_data=types.Blob(data=pcm, mime_type=f"audio/pcm;rate={_RATE_OUT}")))

    async def _until(self, when: float) -> None:
        await self._wait(lambda: False, when)

    async def _wait(self, done: Callable[[], bool], when: float | None = None) -> None:
        """Waits until `done()` or an interruption or the end, at most until the event loop's time `when`."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(when):
                while not (done() or self._interrupted or self._closed.is_set()):
                    self._news.clear()
                    await self._news.wait()


# ---- speaking --------------------------------------------------------------------------------


def _said(part: types.Part, *, partial: bool | None = None) -> LlmResponse:
    return LlmResponse(content=types.Content(role="model", parts=[part]), partial=partial)


def _aloud(text: str, *, finished: bool = False) -> LlmResponse:
    """A chunk of the transcript of what the agent says; if `finished`, the whole transcript once more."""
    spoken = types.Transcription(text=text, finished=finished)
    return LlmResponse(output_transcription=spoken, partial=not finished)


def _words(text: str) -> list[str]:
    """The words of a text, with their white space: joined, they are the text."""
    return re.findall(r"\s*\S+\s*", text)


@lru_cache(maxsize=32)
def _note(length: int, samples: int) -> bytes:
    """The sound of a word: a soft note for the first half of its time, then silence."""
    step = 2 * math.pi * _NOTES[length % len(_NOTES)] / _RATE_OUT
    half = samples // 2
    note = (_NOTE_LEVEL * math.sin(math.pi * i / half) * math.sin(step * i) for i in range(half))
    return array("h", map(int, note)).tobytes() + bytes(2 * (samples - half))


def _resampled(pcm: bytes, rate: int) -> Iterator[bytes]:
    """Yields sound at the rate of the answer, in chunks, by linear interpolation."""
    samples = array("h", pcm)
    total = len(samples) * _RATE_OUT // rate
    samples.append(samples[-1])
    for start in range(0, total, _CHUNK):
        chunk = array("h")
        for i in range(start, min(start + _CHUNK, total)):
            at, between = divmod(i * rate, _RATE_OUT)
            chunk.append(samples[at] + (samples[at + 1] - samples[at]) * between // _RATE_OUT)
        yield chunk.tobytes()


# ---- finding something to say ----------------------------------------------------------------


def _read(content: types.Content) -> tuple[str, list[types.FunctionResponse]]:
    parts = content.parts or []
    text = "".join(part.text for part in parts if part.text)
    return text.strip(), [part.function_response for part in parts if part.function_response]


def _reply(text: str, tools: Set[str]) -> str | types.FunctionCall:
    if call := _called(text, tools):
        return call
    if _CLOCK in tools and re.search(
        r"\bwhat('s| is)? (the )?(current )?time\b|\btime is it\b", text, re.IGNORECASE
    ):
        place = re.search(r"\bin (.+?)( right now| now| please)?[\s?.!]*$", text, re.IGNORECASE)
        zone = _zones().get(place[1].lower().replace(" ", "_"), place[1]) if place else "UTC"
        return types.FunctionCall(name=_CLOCK, args={"timezone": zone})
    quote = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + " …"
    return f"{_INTRODUCTION} You said: {quote}" if quote else _INTRODUCTION


def _called(text: str, tools: Set[str]) -> types.FunctionCall | None:
    """The call that a text asks for: the name of a tool, alone or with its arguments as a JSON object."""
    name, _, arguments = text.partition(" ")
    if name not in tools:
        return None
    try:
        args = json.loads(arguments or "{}")
    except ValueError:
        return None
    return types.FunctionCall(name=name, args=args) if isinstance(args, dict) else None


def _reported(result: types.FunctionResponse) -> str:
    answer = result.response or {}
    try:
        when = datetime.fromisoformat(str(answer.get("local_time")))
    except ValueError:
        return f"{_INTRODUCTION} The tool says: {answer.get('message') or answer}"
    return f"{_INTRODUCTION} The tool says: it is {when:%H:%M} on {when:%A} in {answer.get('timezone')}."


@cache
def _zones() -> dict[str, str]:
    """Time zones by their name and by their city, in lower case: "asia/tokyo", "tokyo" → "Asia/Tokyo"."""
    # Cached, because reading the database takes a tenth of a second. In reverse order, because of
    # several zones with the same city the first is meant, and in a dict the last one stays.
    names = sorted(zoneinfo.available_timezones(), reverse=True)
    return {name.lower().rpartition("/")[2]: name for name in names} | {name.lower(): name for name in names}
