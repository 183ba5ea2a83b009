"""Clients of the chat dialect, the turn dialect and HTTP. `support.client` has that of the live dialect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from relay import Relay
from support.client import Client, Json, client

CHAT = {
    "connected": "connection_id message server_info limits",
    "session_created": "session_id model connection_id",
    "session_joined": "session_id model message_count connection_id",
    "status": "message ahead session_id context_messages",
    "ack": "session_id id",
    "response_start": "session_id total_length connection_id",
    "chunk": "text chunk_number is_final session_id",
    "response_complete": "total_chunks processing_time message_count session_id full_response connection_id",
    "tool_start": "session_id tool_id tool_name arguments pending",
    "tool_complete": "session_id tool_id tool_name result",
    "ping": "",
    "pong": "connection_id",
    "going_away": "after",
    "token_expiring": "expires_in",
    "error": "code message",
    "user_typing": "connection_id typing",
    "message_added": "message_count last_message_preview role message connection_id",
    "user_joined": "connection_id",
    "user_disconnected": "connection_id",
    "session_cleared": "",
    "session_deleted": "",
    "session_rewound": "messages message_count",
    "session_renamed": "title",
}
"""The fields of each frame of the chat dialect besides its type and the time, updates by their kind."""

OPTIONAL = {
    "session_created": "name",
    "session_joined": "name role names title",
    "user_typing": "name",
    "message_added": "name",
    "user_joined": "name",
    "user_disconnected": "name",
    "status": "id",
    "response_start": "id",
    "tool_start": "interim",
    "response_complete": "interrupted id usage grounding",
    "session_rewound": "id",
    "error": "session_id id tool_id retry_after",
    "going_away": "session_id",
}


def check(said: Json) -> None:
    """A frame of the chat dialect is what the contract says, with nothing more and nothing less."""
    kind, more = said["type"], {"type", "timestamp"}
    if kind == "session_update":
        kind, more = said["update_type"], more | {"update_type", "session_id"}
    fields = {*CHAT[kind].split(), *more}
    assert fields <= said.keys() <= fields | {*OPTIONAL.get(kind, "").split()}, said
    assert datetime.fromisoformat(said["timestamp"]).tzinfo, said
    assert said.get("interrupted", True) is True


@dataclass
class Chat(Client):
    """A client of the chat dialect, which checks each frame that it gets."""

    async def next(self, timeout: float = 60) -> Json:
        said = await super().next(timeout)
        check(said)
        return said

    async def get(self, kind: str) -> Json:
        """The next frame of a type, or of a kind of session_update."""
        return (await self.until(lambda said: kind in (said["type"], said.get("update_type"))))[-1]

    async def join(self, session_id: str) -> Json:
        await self.send(type="join_session", session_id=session_id)
        return await self.get("session_joined")

    async def chat(self, message: str, **more: Any) -> None:
        await self.send(type="chat", message=message, **more)

    async def ask(self, text: str) -> str:
        """Says a text and returns the whole answer."""
        await self.chat(text)
        response: str = (await self.get("response_complete"))["full_response"]
        return response

    def of(self, *kinds: str) -> list[Json]:
        """All frames so far of these types."""
        return [said for said in self.frames if {said["type"], said.get("update_type")} & {*kinds}]


@asynccontextmanager
async def chat(port: int, session_id: str = "", **options: Any) -> AsyncIterator[Chat]:
    """A connected chat client, in the session if one is named; with `ssl`, over TLS."""
    # Frames are read at once, or closing a client that has not read all of them would take long.
    options = {"max_queue": None, "open_timeout": 60} | options
    scheme = "wss" if "ssl" in options else "ws"
    async with connect(f"{scheme}://127.0.0.1:{port}/ws", proxy=None, **options) as socket:
        connected = json.loads(await socket.recv())
        assert connected["type"] == "connected"
        check(connected)
        who = Chat(socket, connected)
        if session_id:
            await who.join(session_id)
        yield who


@asynccontextmanager
async def asking(port: int, session_id: str, message: str, **more: Any) -> AsyncIterator[Client]:
    """A turn client that has sent its request and got its `user_message`."""
    async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None, max_queue=None) as socket:
        who = Client(socket, {})
        await who.send(session_id=session_id, message=message, **more)
        said = await who.next()
        assert (said["type"], said["content"], said["session_id"]) == ("user_message", message, session_id)
        yield who


async def end(who: Client) -> tuple[list[Json], int]:
    """All frames until the socket is closed, and the close code."""
    frames = []
    try:
        while True:
            frames.append(await who.next())
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return frames, closed.rcvd.code


async def turn(port: int, session_id: str, message: str) -> Json:
    """Makes a request of the turn dialect and returns its response."""
    async with asking(port, session_id, message) as who:
        frames, code = await end(who)
    assert code == 1000
    assert frames[-1] == {"type": "done"}
    assert frames[-2]["type"] == "response"
    return frames[-2]


def http(port: int) -> httpx.AsyncClient:
    """A client of the HTTP interface; without TLS, whose authorities would take 20 ms to load."""
    url = f"http://127.0.0.1:{port}"
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=False)


async def created(port: int) -> str:
    """The id of a new session of the guest's."""
    async with http(port) as web:
        response = await web.post("/sessions/new")
    assert response.status_code == 200
    session_id: str = response.json()["session_id"]
    return session_id


@asynccontextmanager
async def guest(port: int, session_id: str, *, query: str = "", **options: Any) -> AsyncIterator[Client]:
    """A live client in a session of the guest's."""
    query = f"&session_id={session_id}{query}"
    async with client(port, "guest", query=query, **{"max_queue": None} | options) as who:
        yield who


async def left(port: int) -> None:
    """Waits until the server has no socket any more."""
    async with http(port) as web:
        free = 0
        while free < 2:  # two processes may have sockets: they answer in turn
            health = (await web.get("/health")).json()
            free = 0 if health.get("process", health)["websocket_connections"] else free + 1


async def received(who: Client) -> None:
    """Waits until the server has taken all that `who` has sent; earlier frames are in `who.frames`."""
    await who.send(type="ping")
    await who.until(lambda said: said.get("type") == "pong")


async def taken(who: Client) -> None:
    """Waits until the conversation of a live client has taken all that it has sent.

    Returns after what it was told before that: this is in `who.frames`.
    """
    await who.send(type="history", before="0.0")  # of an epoch that never exists
    await who.until(lambda said: said.get("type") == "history")


async def fence(writer: Client, *readers: Client) -> None:
    """Waits until the readers have got all that was sent before; `writer` speaks the live dialect."""
    name = writer.hello["connection_id"]
    for typing in (True, False):  # one after the other, or the two frames would be merged
        await writer.send(type=f"typing_{'start' if typing else 'stop'}")
        for reader in readers:
            await reader.until(
                lambda said: (said.get("connection_id"), said.get("typing")) == (name, typing)  # noqa: B023
            )


async def stored(relay: Relay, session_id: str, user_id: str = "guest") -> list[tuple[str, str]] | None:
    """What a session holds, as (author, text); None: there is no such session."""
    session = await relay.conversations.service.get_session(
        app_name=relay.conversations.app_name, user_id=user_id, session_id=session_id
    )
    if session is None:
        return None
    lines = []
    for event in session.events:
        parts = (event.content and event.content.parts) or []
        text = "".join(part.text or "" for part in parts)
        for spoken in (event.input_transcription, event.output_transcription):
            text += (spoken and spoken.text) or ""
        if text:
            lines.append((event.author, text))
    return lines
