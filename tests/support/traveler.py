"""A client that loses its socket and comes back, and checks that it gets everything once."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypedDict

from google.adk.agents import LlmAgent
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.typing import Subprotocol

from adk_relay.core.room import Room
from relay import Relay
from support.api import untimed
from support.chat import taken
from support.client import Json, client, words
from support.gemini import Connection, UserTurn, tone

Done = Callable[[Json], Any]

CHUNK = len(tone(0))
"""Bytes of sound in one of the model's messages."""


@dataclass
class Traveler:
    """A client on a bad network. It remembers the epoch and the last number it has got, comes back
    after each drop with `after=`, and sends a text again until it is acked.

    It checks everything: a number that is not above the last one is a failure.
    """

    port: int
    user: str = "alice"
    audio: bool = True
    binary: bool = True
    session_id: str = ""
    epoch: str = ""
    seq: int = 0
    said: list[Json] = field(default_factory=list)
    """Numbered frames, in order, since the last gap."""
    notices: list[Json] = field(default_factory=list)
    """Frames without a number, except presence."""
    lines: list[Json] = field(default_factory=list)
    """The messages that came with the last gap."""
    gaps: list[Json] = field(default_factory=list)
    hellos: list[Json] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    owed: dict[str, str] = field(default_factory=dict)
    """Texts, by id, that were not acked yet."""
    ids: set[str] = field(default_factory=set)
    """The ids of all texts that were said."""
    frames: int = 0
    """How many frames have come over this connection."""
    dropped_after: list[str] = field(default_factory=list)
    """The last frame over each connection that was lost."""
    _last: str = "nothing"
    _socket: ClientConnection | None = None
    _now: str = ""  # the server's present epoch
    _gap: list[Json] | None = None

    async def __aenter__(self) -> Traveler:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Closes the socket with a closing handshake."""
        if self._socket:
            await self._socket.close()
            self._socket = None

    async def say(self, text: str, name: str) -> None:
        """Says a text with an id, now or as soon as there is a connection."""
        self.ids.add(name)
        self.owed[name] = text
        if self._socket:
            await self._tell(name)

    async def send(self, **said: Any) -> None:
        assert self._socket
        await self._socket.send(json.dumps(said))

    async def until(self, done: Done, timeout: float = 60) -> list[Json]:
        """All frames up to the first that is `done`, over as many connections as it takes."""
        got = []
        async with asyncio.timeout(timeout):
            while True:
                got.append(await self.next())
                if done(got[-1]):
                    return got

    async def next(self) -> Json:
        """The next frame; sound as a message of type `sound`."""
        while True:
            if not self._socket:
                await self._connect()
            assert self._socket
            try:
                frame = await self._socket.recv()
            except ConnectionClosed as closed:
                self._socket = None
                if closed.rcvd:
                    raise
                self.dropped_after.append(self._last)
                continue
            self.frames += 1
            said = _parsed(frame)
            self._last = said.get("type") or ("words" if said.get("mime_type") else "end")
            await self._take(said)
            return said

    async def greeted(self) -> Json:
        """Connects and returns the hello, or what came instead."""
        return (await self.until(lambda said: said.get("type") == "hello"))[-1]

    async def arrived(self) -> None:
        """Connects, and waits until it has got what it has missed."""
        await self.greeted()
        await self.send(type="history", before="0.0")
        await self.until(is_type("history"))

    async def _connect(self) -> None:
        query = f"?is_audio={str(self.audio).lower()}"
        query += f"&session_id={self.session_id}" if self.session_id else ""
        query += f"&after={self.epoch}.{self.seq}" if self.epoch else ""
        subprotocols = [Subprotocol("relay.v1")] if self.binary else None
        self.frames = 0
        self._gap, self._last = None, "nothing"
        while not self._socket:
            with suppress(InvalidMessage, ConnectionError):  # the network was cut during the handshake
                self._socket = await connect(
                    f"ws://127.0.0.1:{self.port}/ws/{self.user}{query}",
                    subprotocols=subprotocols,
                    proxy=None,
                    compression=None,
                    max_queue=None,  # a test that does not read is not a slow client
                )

    async def _tell(self, name: str) -> None:
        with suppress(ConnectionClosed):  # it is sent again
            await self.send(mime_type="text/plain", data=self.owed[name], id=name)

    async def _take(self, said: Json) -> None:
        if self._gap is not None:
            self._gap.append(said)
            assert said["type"] == "message"
            assert "seq" not in said
            if len(self._gap) == self.gaps[-1]["messages"]:
                self._mend()
            return
        match said.get("type"):
            case "hello":
                assert self.frames == 1
                self.hellos.append(said)
                self._now = said["epoch"]
                if not self.epoch:
                    self.epoch, self.seq = said["epoch"], said["seq"]
                if said["epoch"] == self.epoch:
                    assert said["seq"] >= self.seq
                for name in self.owed:
                    await self._tell(name)
            case "gap":
                assert self.frames == 2, "a gap comes right after hello"
                self.gaps.append(said)
                self._gap = []
                if not said["messages"]:
                    self._mend()
            case "ack":
                self.acks.append(said["id"])
                self.owed.pop(said["id"], None)
            case "cleared" | "deleted":
                self.epoch, self.seq = self._now, _ = said["epoch"], said["seq"]
                self.said, self.lines = [], []
            case "ping":
                await self.send(type="pong")
            case "presence":
                pass
            case _ if "seq" in said:
                assert self._now == self.epoch, "of another epoch, and there was no gap"
                assert said["seq"] > self.seq, f"{said} after {self.seq}"
                self.seq = said["seq"]
                self.said.append(said)
            case _:
                self.notices.append(said)

    def _mend(self) -> None:
        """The gap is complete: it replaces all that was there."""
        assert self._gap is not None
        self.lines, self.said, self._gap = self._gap, [], None
        self.epoch, self.seq = self._now, self.gaps[-1]["to"]

    @property
    def words(self) -> str:
        return words(self.said)

    @property
    def sound(self) -> bytes:
        return b"".join(said["pcm"] for said in self.said if said.get("type") == "sound")

    def count(self, what: str) -> int:
        """How many numbered frames have a type, or are `turn_complete` or `interrupted`."""
        return sum(said.get("type") == what or bool(said.get(what)) for said in self.said)

    @property
    def story(self) -> list[tuple[str, Any]]:
        """All that was said, in whatever pieces it came. Its own texts, which only come to one who
        was away, are left out; but they must not come twice."""
        own = Counter(said["id"] for said in self.said if said.get("id") in self.ids)
        assert not own or max(own.values()) == 1
        told = (_told(said) for said in self.said if said.get("id") not in self.ids)
        story: list[tuple[str, Any]] = []
        for kind, pieces in itertools.groupby(told, key=lambda one: one[0]):
            values = [value for _, value in pieces]
            if kind == "words":
                story.append((kind, "".join(values)))
            elif kind == "sound":
                story.append((kind, b"".join(values)))
            else:
                story += [(kind, value) for value in values]
        return story


def _parsed(frame: str | bytes) -> Json:
    if isinstance(frame, bytes):
        return {"type": "sound", "seq": int.from_bytes(frame[:4], "big"), "pcm": frame[4:]}
    said: Json = json.loads(frame)
    said.pop("timestamp", None)  # which ADK and relay do not note at the same moment
    if said.get("mime_type") == "audio/pcm":
        return {"type": "sound", "seq": said["seq"], "pcm": base64.b64decode(said["data"])}
    return said


def _told(said: Json) -> tuple[str, Any]:
    match said:
        case {"type": "sound", "pcm": pcm}:
            return "sound", pcm
        case {"mime_type": "text/plain", "data": data}:
            return "words", data
        case {"type": "tool_start", "tool_name": name, "arguments": arguments}:
            return "tool_start", (name, arguments)
        case {"type": "tool_complete", "tool_name": name, "result": result}:
            return "tool_complete", (name, result)
        case {"type": "message", "role": role, "text": text}:
            return "message", (role, text)
        case {"turn_complete": complete, "interrupted": interrupted}:
            return "end", (complete, interrupted)
        case _:
            return "other", {key: said[key] for key in said if key != "seq"}


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


def is_interrupted(said: Json) -> bool:
    return bool(said.get("interrupted"))


def is_type(kind: str) -> Done:
    return lambda said: said.get("type") == kind


def is_ack(name: str) -> Done:
    return lambda said: said.get("type") == "ack" and said["id"] == name


def an_agent(*tools: Callable[..., Any]) -> LlmAgent:
    return LlmAgent(name="tester", model="gemini-3.8-live", tools=[*tools])


async def temperature(city: str) -> dict[str, Any]:
    """How warm it is."""
    return {"city": city, "celsius": 7}


async def long_answer(connection: Connection, turn: UserTurn) -> None:
    """Words, sound and a tool call: some 60 messages."""
    await connection.say(" ".join(f"before{n}" for n in range(10)), complete=False)
    await connection.call_tool("temperature", {"city": "Oslo"})
    await connection.say("".join(f" after{n}" for n in range(10)))


class Kind(TypedDict):
    """Of client."""

    audio: bool
    binary: bool


KINDS: dict[str, Kind] = {
    "binary": {"audio": True, "binary": True},
    "base64": {"audio": True, "binary": False},
    "text": {"audio": False, "binary": True},
}


async def uncut(port: int, *questions: str, audio: bool = True, binary: bool = True) -> list[tuple[str, Any]]:
    """What a client gets that is never cut off."""
    async with Traveler(port, f"uncut-{audio}-{binary}", audio=audio, binary=binary) as one:
        await one.greeted()
        for text in questions or ("go",):
            await one.say(text, text)
            await one.until(is_end)
        assert len(one.hellos) == 1
        return one.story


async def emitted(
    relay: Relay, done: Callable[[Room], bool], user: str = "alice", timeout: float = 60
) -> None:
    """Waits until `done` holds for a user's room, whoever attends it."""
    async with asyncio.timeout(timeout):
        while not done((await relay.conversations.open(user)).room):
            await asyncio.sleep(0.002)


def is_over(room: Room) -> bool:
    """The agent has said something, and no answer is open."""
    return room.history.message_count > 1 and not room.history.is_answering


async def gone(relay: Relay) -> None:
    """Waits until no conversation is in memory."""
    async with asyncio.timeout(60):
        while relay.conversations.active:
            await asyncio.sleep(0.002)


async def interruptible(connection: Connection, turn: UserTurn) -> None:
    if turn.text == "go":
        await connection.say("".join(f" {n}" for n in range(20)), complete=False)
        await asyncio.Event().wait()
    else:
        await connection.say("Yes?")


def texts(*lines: str) -> list[Json]:
    """Messages as they come after a gap: the user's and the agent's in turn."""
    roles = itertools.cycle(["user", "agent"])
    return [{"type": "message", "role": role, "text": text} for role, text in zip(roles, lines, strict=False)]


ONE_AND_TWO = texts("one", "You said: one.", "two", "You said: two.")


async def told(port: int, query: str, user: str = "alice") -> list[Json]:
    """What a new text client gets at once, without times."""
    async with client(port, user, query=query) as newcomer:
        await taken(newcomer)
        return untimed(newcomer.frames[:-1])
