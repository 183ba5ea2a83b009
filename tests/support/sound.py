"""What tests of the two ways of sound share: a listener without a socket, and what google-genai has seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from google.adk.agents import LlmAgent
from google.genai import types
from google.genai.live import AsyncSession

from adk_relay.adk.conversation import Conversation
from adk_relay.core.messages import (
    Audio,
    Input,
    Message,
    ToolComplete,
    ToolStart,
    TurnEnd,
    UserAudio,
    UserText,
)
from relay import Relay
from support.gemini import NATIVE_AUDIO_2
from support.server import a_relay

Way = Literal["short", "long"]
WAYS: tuple[Way, Way] = ("short", "long")

GEMINI_3 = "gemini-3.8-live"
MODELS = [GEMINI_3, NATIVE_AUDIO_2]

both_ways = pytest.mark.parametrize("way", WAYS)
models = pytest.mark.parametrize("model", MODELS)
backends = pytest.mark.parametrize("vertex", [False, True], ids=["ai_studio", "vertex"])


@dataclass(eq=False)
class Attendee:
    """A listener that keeps all messages."""

    conversation: Conversation
    connection_id: str = "attendee"
    name: str = ""
    member: str = ""
    address: str = ""
    is_audio: bool = True
    attends: Literal["all", "newest", "own"] = "all"
    messages: list[Message] = field(default_factory=list)
    _change: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, message: Message) -> None:
        self.messages.append(message)
        self._change.set()

    def replay(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.deliver(message)

    @property
    def connects(self) -> bool:
        return self.is_audio

    @property
    def sound(self) -> bytes:
        """All sound so far."""
        return b"".join(each.pcm for each in self.messages if isinstance(each, Audio))

    def say(self, user_input: Input) -> None:
        self.conversation.handle(user_input, self)

    def ask(self, text: str) -> None:
        self.say(UserText(text))

    def speak(self, pcm: bytes, rate: int = 16_000) -> None:
        """Says sound in chunks of 40 ms, all at once."""
        size = 2 * rate * 40 // 1000
        for start in range(0, len(pcm), size):
            self.say(UserAudio(pcm[start : start + size], rate))

    async def until(self, done: Callable[[Message], Any], count: int = 1) -> None:
        """Waits for the `count`-th message that is `done`."""
        async with asyncio.timeout(60):
            while sum(bool(done(each)) for each in self.messages) < count:
                self._change.clear()
                await self._change.wait()

    async def turn(self, count: int = 1) -> None:
        """Waits for the `count`-th end of a turn."""
        await self.until(lambda message: isinstance(message, TurnEnd), count)

    async def heard(self, pcm: bytes) -> None:
        """Waits until so much sound has come, and checks that it is this."""
        async with asyncio.timeout(60):
            while len(self.sound) < len(pcm):
                self._change.clear()
                await self._change.wait()
        assert self.sound == pcm


@asynccontextmanager
async def attending(relay: Relay, user: str = "alice", *, is_audio: bool = True) -> AsyncIterator[Attendee]:
    """A listener of a user's conversation. The relay's conversations are closed at the end."""
    conversation = await relay.conversations.open(user)
    attendee = Attendee(conversation, is_audio=is_audio)
    conversation.attach(attendee)
    try:
        yield attendee
    finally:
        await relay.conversations.aclose()


def relay_of(way: Way, model: str = GEMINI_3, agent: Any = None, **options: Any) -> Relay:
    """A relay whose sound goes this way."""
    return a_relay(agent or LlmAgent(name="tester", model=model), sound=way, **options)


def on_vertex(monkeypatch: pytest.MonkeyPatch) -> None:
    """google-genai uses Vertex from now on."""
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")


def timeless(messages: Sequence[Message]) -> list[Message]:
    """Messages without what depends on the clock."""
    found: list[Message] = []
    for message in messages:
        match message:
            case ToolStart() | ToolComplete():
                found.append(replace(message, timestamp=""))
            case TurnEnd(answer=answer) if answer:
                found.append(replace(message, answer=replace(answer, seconds=0)))
            case _:
                found.append(message)
    return found


@dataclass
class Seen:
    """The sound that google-genai has made objects of."""

    down: list[bytes] = field(default_factory=list)
    up: list[bytes] = field(default_factory=list)


def watched(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Keeps the sound that takes the long way through google-genai from now on."""
    found = Seen()
    receive, send = AsyncSession._receive, AsyncSession.send_realtime_input

    async def _receive(self: AsyncSession) -> types.LiveServerMessage:
        message = await receive(self)
        turn = message.server_content and message.server_content.model_turn
        for part in (turn and turn.parts) or []:
            if part.inline_data:
                found.down.append(part.inline_data.data or b"")
        return message

    async def send_realtime_input(self: AsyncSession, **what: Any) -> None:
        for blob in what.values():
            if isinstance(blob, types.Blob) and (blob.mime_type or "").startswith("audio/"):
                found.up.append(blob.data or b"")
        await send(self, **what)

    monkeypatch.setattr(AsyncSession, "_receive", _receive)
    monkeypatch.setattr(AsyncSession, "send_realtime_input", send_realtime_input)
    return found


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says about the way of sound."""
    return [
        f"{record.levelname}: {record.getMessage()}"
        for record in caplog.get_records("call")
        if record.name == "relay.agent" and "sound takes the long way" in record.getMessage()
    ]
