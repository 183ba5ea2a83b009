"""Clients of a service whose processes die: they come back, say again what has no ack, and check what they get.

What they find wrong is kept in `World.wrong`, with the time, and they go on.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.typing import Subprotocol

Json = dict[str, Any]

WORD = re.compile(r"\bw(\d+)\b")
"""Each word that the model says has a number of its own, and the numbers rise."""

TEXT = re.compile(r"\bt\d+-\d+\b")
"""Each text that a user says is one of these: t, the number of the conversation, the number of the text."""

_SILENT = 4
"""So many pings of a client without any answer mean that its connection is dead."""

_PING_SECONDS = 2.0


@dataclass
class World:
    """What all clients share.

    Attributes:
        ports: where the service is reached now: any of these will do.
        wrong: what broke a promise.
        happened: what was done and seen, with the seconds since the beginning.
        worker_faults: when a worker was killed, stopped or cut off, as `time.monotonic()`.
        takeovers: seconds from such a fault until a client that had noticed it was told that all is well.
    """

    ports: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    worker_faults: list[float] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    pause: tuple[float, float] = (2.0, 8.0)
    is_quiet: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nobody says anything new any more."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all are to leave."""
    began: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        self.happened.append(f"{time.monotonic() - self.began:7.2f} {what}")

    def broke(self, what: str) -> None:
        self.wrong.append(what)
        self.note(f"WRONG: {what}")


class View:
    """The conversation, as a client has it: user's texts and the agent's answers in the order of the numbers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.is_tail = False
        """There are older messages."""

    def add(self, role: str, text: str) -> None:
        self.lines.append((role, text))

    def replace(self, lines: Sequence[Json], *, is_tail: bool) -> None:
        self.lines = [(line["role"], line["text"]) for line in lines]
        self.is_tail = is_tail

    def texts(self) -> list[str]:
        """The users' texts."""
        return [text for role, text in self.lines if role == "user"]

    def words(self) -> list[str]:
        """All that the agent has said, word by word."""
        return "".join(text for role, text in self.lines if role == "agent").split()

    def differs(self, lines: Sequence[tuple[str, str]], own: set[str]) -> str:
        """What is not as in the session; "": nothing. Texts of its own a client gets only after it was away."""
        stored = View()
        stored.lines = [*lines]
        mine = [text for text in self.texts() if text not in own]
        theirs = [text for text in stored.texts() if text not in own]
        for what, a, b in (("texts", mine, theirs), ("words", self.words(), stored.words())):
            if self.is_tail:
                b = b[len(b) - len(a) :] if len(a) <= len(b) else b
            if a != b:
                at = next(
                    (n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
                )
                return f"{what} from number {at}: {a[at : at + 8]}, and in the session {b[at : at + 8]}"
        return ""


class Client:
    """One client of one conversation, over as many sockets as it takes."""

    def __init__(self, world: World, number: int, session_id: str, name: str, *, writes: bool) -> None:
        self.name = f"{name} of {session_id}"
        self.session_id = session_id
        self.said: list[str] = []
        """All texts, in order."""
        self.owed: dict[str, str] = {}
        """By id: texts without an ack."""
        self.acked: list[str] = []
        self.writes = writes
        self.awaits = ""
        """The text whose answer is to come in the end."""
        self.number = number
        self._world = world
        self._random = random.Random(f"{self.name} {world.pause}")
        self._socket: ClientConnection | None = None
        self._is_greeted = False
        self._refused: set[str] = set()
        self._noticed_at = 0.0

    async def run(self) -> None:
        """Attends until the end, and writes."""
        async with asyncio.TaskGroup() as group:
            if self.writes:
                group.create_task(self._write())
            while not self._world.is_over.is_set():
                await self._come()

    def say(self, text: str) -> None:
        """Says a text now, or as soon as there is a connection."""
        text_id = f"id-{text}"
        self.said.append(text)
        self.owed[text_id] = text
        self._world.counts["texts"] += 1

    async def send_owed(self) -> None:
        """Sends all texts without an ack."""
        self._refused.clear()
        for text_id in [*self.owed]:
            await self._send_text(text_id)

    def broke(self, what: str) -> None:
        self._world.broke(f"{self.name}: {what}")

    @property
    def missing(self) -> str:
        """What it has, and what it awaits."""
        return f"{self.name} awaits the answer to {self.awaits}"

    @property
    def has_answer(self) -> bool:
        """It has got the whole answer to what it awaits."""
        raise NotImplementedError

    def path(self) -> str:
        raise NotImplementedError

    async def take(self, frame: Json) -> None:
        raise NotImplementedError

    def text_frame(self, text_id: str, text: str) -> Json:
        raise NotImplementedError

    # ---- its sockets ----

    async def _come(self) -> None:
        counts = self._world.counts
        try:
            port = self._random.choice(self._world.ports or [1])
            async with asyncio.timeout(15):
                socket = await connect(
                    f"ws://127.0.0.1:{port}{self.path()}",
                    subprotocols=[Subprotocol("relay.v1")],
                    proxy=None,
                    compression=None,
                    max_queue=None,
                    ping_interval=None,
                    close_timeout=1,
                )
        except (OSError, InvalidHandshake, InvalidMessage, TimeoutError, ConnectionClosed) as error:
            counts[f"not connected: {type(error).__name__}"] += 1
        else:
            counts["sockets"] += 1
            try:
                await self._attend(socket)
            except ConnectionClosed as closed:
                counts[f"closed {closed.rcvd.code if closed.rcvd else 1006}"] += 1
            except TimeoutError:
                counts["silent sockets"] += 1
                self._world.note(f"{self.name}: its socket is silent")
            finally:
                self._socket = None
                socket.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._random.uniform(0.05, 0.5)):
                await self._world.is_over.wait()

    async def _attend(self, socket: ClientConnection) -> None:
        self._socket, self._is_greeted, silent = socket, False, 0
        self.begin()
        while not self._world.is_over.is_set():
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    frame = await socket.recv()
            except TimeoutError:
                silent += 1
                if silent > _SILENT:
                    raise
                await self.send(type="ping")
                continue
            silent = 0
            if isinstance(frame, str):
                said = json.loads(frame)
                if said["type" if "type" in said else "seq"] == "ping":
                    await self.send(type="pong")
                else:
                    await self.take(said)
            else:
                await self.take({"type": "sound", "seq": int.from_bytes(frame[:4], "big")})
        await socket.close()

    def begin(self) -> None:
        """There is a new socket."""

    async def greeted(self) -> None:
        """Texts may be sent now."""
        self._is_greeted = True
        await self.send_owed()

    async def send(self, **frame: Any) -> None:
        if self._socket:
            with suppress(ConnectionClosed):
                await self._socket.send(json.dumps(frame))

    async def _send_text(self, text_id: str) -> None:
        if self._is_greeted and text_id in self.owed:
            await self.send(**self.text_frame(text_id, self.owed[text_id]))

    async def _write(self) -> None:
        """Says one text after the other, and again what was refused."""
        quiet = asyncio.ensure_future(self._world.is_quiet.wait())
        number = 0
        while not quiet.done():
            await asyncio.wait({quiet}, timeout=self._random.uniform(*self._world.pause))
            if not quiet.done():
                number += 1
                self.say(f"t{self.number}-{number}")
                await self._send_text(f"id-{self.said[-1]}")
            for text_id in [*self._refused]:
                self._refused.discard(text_id)
                await self._send_text(text_id)
        while not self._world.is_over.is_set():  # its last words
            await asyncio.sleep(0.5)
            for text_id in [*self._refused]:
                self._refused.discard(text_id)
                await self._send_text(text_id)

    # ---- what all dialects have ----

    def take_ack(self, frame: Json) -> None:
        if self.owed.pop(frame["id"], None):
            self.acked.append(frame["id"].removeprefix("id-"))
            self._world.counts["acks"] += 1

    def take_error(self, frame: Json) -> None:
        self._world.counts[f"error {frame['code']}"] += 1
        self._world.note(f"{self.name}: error {frame['code']}: {frame.get('message')}")
        if (text_id := frame.get("id")) in self.owed:
            self._refused.add(str(text_id))

    def take_state(self, state: str) -> None:
        now = time.monotonic()
        self._world.counts[f"status {state}"] += 1
        if state in ("reconnecting", "degraded"):
            self._noticed_at = self._noticed_at or now
        elif state == "live" and self._noticed_at:
            # A worker's death is noticed within 3 s.
            before = [at for at in self._world.worker_faults if at <= self._noticed_at < at + 6]
            if before:
                self._world.takeovers.append(now - before[-1])
            self._noticed_at = 0.0


class Live(Client):
    """A client of the live dialect. It checks all numbers, and has the whole conversation in the end."""

    def __init__(
        self, *arguments: Any, user: str, has_sound: bool = False, is_default: bool = False, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.view = View()
        self._user = user
        self._has_sound = has_sound
        self._query = "" if is_default else f"&session_id={self.session_id}"
        self._epoch, self._seq = "0", 0
        """Of its messages."""
        self._now = ""
        """The present epoch."""
        self._gap: Json | None = None
        self._lines: list[Json] = []
        self._is_open = False
        """An answer is."""

    def path(self) -> str:
        sound = str(self._has_sound).lower()
        return f"/ws/{self._user}?is_audio={sound}{self._query}&after={self._epoch}.{self._seq}"

    def text_frame(self, text_id: str, text: str) -> Json:
        return {"mime_type": "text/plain", "data": text, "id": text_id}

    def begin(self) -> None:
        self._gap, self._now = None, ""

    async def take(self, frame: Json) -> None:
        if self._gap:
            self._lines.append(frame)
            if frame.get("type") != "message" or "seq" in frame:
                self.broke(f"{frame} is in between the messages of a gap")
            self._mend()
            return
        match frame.get("type"):
            case "hello":
                self._now = frame["epoch"]
                if self._now == self._epoch and frame["seq"] < self._seq:
                    self.broke(f"hello says {frame['seq']}, and it has got {self._seq}")
                await self.greeted()
            case "gap":
                self._world.counts["gaps"] += 1
                self._world.note(f"{self.name}: a gap {frame}, after {self._epoch}.{self._seq}")
                self._now = frame.get("epoch", self._now)
                self._gap, self._lines = frame, []
                self._mend()
            case "ack":
                self.take_ack(frame)
            case "error":
                self.take_error(frame)
            case "status":
                self.take_state(frame["state"])
            case _ if "seq" in frame:
                self._take_numbered(frame)

    def _take_numbered(self, frame: Json) -> None:
        if self._now != self._epoch:
            self.broke(f"{frame} is of the epoch {self._now}, and it has {self._epoch}")
        elif frame["seq"] <= self._seq:
            self.broke(f"{frame} came after number {self._seq}")
        self._seq = frame["seq"]
        if frame.get("type") == "message":
            self.view.add("user", frame["text"])
        elif frame.get("mime_type") == "text/plain":
            self.view.add("agent", frame["data"])
            self._is_open = True
        elif "turn_complete" in frame:
            self._is_open = False

    @property
    def missing(self) -> str:
        return (
            f"{super().missing}, and has {self.view.lines[-12:]}, {'open' if self._is_open else 'not open'}"
        )

    @property
    def has_answer(self) -> bool:
        words = "".join(text for role, text in self.view.lines[-100:] if role == "agent")
        return not self._is_open and f"re {self.awaits}:" in words

    def _mend(self) -> None:
        assert self._gap
        if len(self._lines) == self._gap["messages"]:
            self.view.replace(self._lines, is_tail="older" in self._gap)
            self._is_open = any(line.get("open") for line in self._lines)
            self._epoch, self._seq, self._gap = self._now, self._gap["to"], None


class Chat(Client):
    """A client of the chat dialect, in a room."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._count = 0
        self._answered: set[str] = set()
        """The ids of the texts whose answers it has got."""
        self._chunks: list[str] | None = None
        """Of the answer under way, from its first one on."""

    def path(self) -> str:
        return "/ws"

    def begin(self) -> None:
        self._chunks = None

    def text_frame(self, text_id: str, text: str) -> Json:
        return {"type": "chat", "message": text, "id": text_id}

    async def take(self, frame: Json) -> None:
        match frame["type"]:
            case "connected":
                await self.send(type="join_session", session_id=self.session_id)
            case "session_joined":
                if frame["message_count"] < self._count:
                    self.broke(f"the room had {self._count} messages, and now {frame['message_count']}")
                self._count = frame["message_count"]
                await self.greeted()
            case "ack":
                self.take_ack(frame)
            case "error":
                self.take_error(frame)
            case "response_start":
                self._chunks = []
            case "chunk":
                if self._chunks is not None and frame["text"]:
                    self._chunks.append(frame["text"])
                    if frame["chunk_number"] != len(self._chunks):
                        self.broke(f"{frame} is chunk {len(self._chunks)}")
            case "response_complete":
                if self._chunks is not None and "".join(self._chunks) != frame["full_response"]:
                    self.broke(f"it got {self._chunks}, and then {frame}")
                self._chunks = None
                self._answered.add(str(frame.get("id")))

    @property
    def has_answer(self) -> bool:
        return f"id-{self.awaits}" in self._answered


class Asker:
    """Asks over HTTP. Each of its requests ends, in one way or another."""

    def __init__(self, world: World, number: int, session_id: str) -> None:
        self.name = f"asker of {session_id}"
        self.session_id = session_id
        self.said: list[str] = []
        self.answered: list[str] = []
        self.is_done = False
        self._world = world
        self._number = number
        self._random = random.Random(self.name)

    async def run(self) -> None:
        while not self._world.is_quiet.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(*self._world.pause)):
                    await self._world.is_quiet.wait()
            if not self._world.is_quiet.is_set():
                await self.ask()
        while not await self.ask():
            await asyncio.sleep(0.5)
        self.is_done = True

    async def ask(self) -> bool:
        """Asks once. Returns whether there was an answer."""
        text = f"t{self._number}-{len(self.said) + 1}"
        self.said.append(text)
        counts = self._world.counts
        counts["requests"] += 1
        url = f"http://127.0.0.1:{self._random.choice(self._world.ports or [1])}/api/v1/chat"
        began = time.monotonic()
        try:
            # A process that stands still is noticed by whoever waits, not by this program.
            async with httpx.AsyncClient(trust_env=False, timeout=120) as http, asyncio.timeout(100):
                response = await http.post(url, json={"session_id": self.session_id, "message": text})
        except httpx.HTTPError as error:
            counts[f"request: {type(error).__name__}"] += 1
            return False
        except TimeoutError:
            self._world.broke(f"{self.name}: {text} got no answer in {time.monotonic() - began:.0f} s")
            return False
        counts[f"request: {response.status_code}"] += 1
        self._world.note(f"{self.name}: {text} {response.status_code} after {time.monotonic() - began:.1f} s")
        if response.status_code == 200:
            self.answered.append(text)
            if f"re {text}:" not in response.json()["content"]:
                self._world.broke(f"{self.name}: {text} got {response.text}")
            return True
        self._world.note(f"{self.name}: {response.status_code} {response.text}")
        return False
