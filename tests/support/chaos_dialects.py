"""Clients of the dialects in `support.chaos`, and what each checks."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

import httpx

from support.chaos_clients import Client, Json, View, World


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
                if not self._is_greeted:
                    await asyncio.sleep(0.5)
                    await self.send(type="join_session", session_id=self.session_id)
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
            async with (
                httpx.AsyncClient(trust_env=False, verify=False, timeout=120) as http,
                asyncio.timeout(100),
            ):
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
            if not response.json()["content"]:  # a part of it may be lost with an owner
                self._world.broke(f"{self.name}: {text} got {response.text}")
            return True
        self._world.note(f"{self.name}: {response.status_code} {response.text}")
        return False
