"""OpenAI's own Python SDK as a client of relay: `async with realtime(port) as connection`."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

WAIT = 20.0


class Client:
    """A connection of the SDK, and all events that it has got."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.events: list[Any] = []

    async def next(self) -> Any:
        """The next event."""
        async with asyncio.timeout(WAIT):
            event = await self.connection.recv()
        self.events.append(event)
        return event

    async def until(self, event_type: str) -> Any:
        """Reads up to the first event of this type, and returns it."""
        while True:
            event = await self.next()
            if event.type == event_type:
                return event
            if event.type == "error" and event_type != "error":
                raise AssertionError(f"the server reported {event.error}")

    async def response(self) -> list[Any]:
        """The events up to the end of a response."""
        began = len(self.events)
        await self.until("response.done")
        return self.events[began:]

    async def ask(self, text: str, **response: Any) -> list[Any]:
        """Asks something, and returns the events up to the end of the response."""
        began = len(self.events)
        await self.write(text)
        await self.connection.response.create(**response)
        await self.until("response.done")
        return self.events[began:]

    async def write(self, text: str, **more: Any) -> None:
        """Creates an item with a text."""
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        await self.connection.conversation.item.create(item=item | more)

    async def speak(self, pcm: bytes, piece: int = 4800) -> None:
        """Appends sound."""
        for start in range(0, len(pcm), piece):
            audio = b64encode(pcm[start : start + piece]).decode()
            await self.connection.input_audio_buffer.append(audio=audio)

    async def update(self, **session: Any) -> Any:
        """Changes the session, and returns it as it is then."""
        wanted: Any = {"type": "realtime", **session}
        await self.connection.session.update(session=wanted)
        return (await self.until("session.updated")).session


@asynccontextmanager
async def realtime(port: int, **query: str) -> AsyncIterator[Client]:
    """A client with the SDK's defaults."""
    async with connecting(port, query=query) as client:
        assert (await client.next()).type == "session.created"
        yield client


@asynccontextmanager
async def connecting(
    port: int,
    *,
    key: str = "sk-anything",
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
) -> AsyncIterator[Client]:
    """The same before the first event."""
    sdk = AsyncOpenAI(api_key=key, websocket_base_url=f"ws://127.0.0.1:{port}/v1")
    connecting = sdk.realtime.connect(
        model="gpt-realtime", extra_query=query or {}, extra_headers=headers or {}
    )
    async with connecting as connection:
        yield Client(connection)


def types(events: Iterable[Any]) -> list[str]:
    """The types of events; of deltas that follow each other only the first."""
    found: list[str] = []
    for event in events:
        if not (event.type.endswith(".delta") and event.type in found):
            found.append(event.type)
    return found


def words(events: Iterable[Any]) -> str:
    """What the agent has said in these events."""
    deltas = ("response.output_audio_transcript.delta", "response.output_text.delta")
    return "".join(event.delta for event in events if event.type in deltas)
