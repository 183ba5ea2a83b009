"""The model that talks in `support.chaos`, and what is checked while it does, and in the end."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from adk_relay.adk.lines import Lines, said_in
from adk_relay.bus import keys
from support.chaos_clients import TEXT, WORD, Client, World
from support.chaos_dialects import Asker, Live
from support.gemini import Connection, GeminiLive, UserTurn
from support.redis_server import RedisServer

_EXPIRY_MS = 61 * 60 * 1000
"""What is left in Redis in the end is gone after this time."""

_AT_ONCE = 100


class Model:
    """What the model says: `re TEXT:`, and some words. Each word has a number, and the numbers rise."""

    def __init__(self) -> None:
        self.gemini: GeminiLive
        self.said: Counter[str] = Counter()
        """How often each text was told a connection by its user, and not as a part of the history."""
        self.known: set[str] = set()
        """All texts that some connection knows."""
        self._words = count(1)
        self._checked: set[Connection] = set()

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        words = [f" w{next(self._words)}" for _ in range(2 + len(turn.text) * 31 % 7)]
        begin = "and" if connection.triggered and not connection.texts else f"re {turn.text}:"
        await connection.say(f" {begin}{''.join(words)}", delay=0.07, audio=turn.text.endswith("7"))

    def check(self, world: World) -> None:
        """Looks at what the connections know, which have ended and were not looked at before."""
        for connection in self.gemini.connections:
            if connection.open or connection in self._checked:
                continue
            self._checked.add(connection)
            self._check(connection, world)
            connection.context.clear()
            connection.received.clear()
            connection.history.clear()

    def _check(self, connection: Connection, world: World) -> None:
        found = Counter[str]()
        for role, words in connection.context:
            if role == "user":
                found.update(TEXT.findall(words))
        self.known.update(found)
        self.said.update(connection.texts)
        for text, times in found.items():
            if times > 1:
                world.broke(
                    f"connection {connection.number} to the model knows {text} {times} times:"
                    f" {connection.context}, it was told {connection.texts}, resumed {connection.handle}"
                )


def events_of(database: Path, mentioned: str, began: float) -> list[str]:
    """The events of the sessions that a text mentions by their ids or their texts: one line for each.

    They are in the order in which they are read; the number at the beginning is that in which they were
    stored.

    Args:
        began: the `time.time()` from which seconds are counted.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as opened:
        rows = opened.execute(
            "SELECT session_id, rowid, timestamp, event_data FROM events ORDER BY timestamp, rowid"
        ).fetchall()
        words = {*re.findall(r"[\w-]+", mentioned)}
        meant = {name for name, _, _, data in rows if name in words or words & {*TEXT.findall(data)}}
        return [
            f"{name} #{number} {timestamp - began:.3f} {_shown(json.loads(data))}"
            for name, number, timestamp, data in rows
            if name in meant
        ]
    return []


def _shown(event: dict[str, Any]) -> str:
    """The author of an event, its place, its words and its marks."""
    said = said_in(event)
    place = f"{said.place.epoch}:{said.place.seq}" if said.place else "no place"
    marks = {
        "goes on": said.goes_on,
        "cut": said.is_cut,
        "interrupted": said.interrupted,
        "turn complete": said.completes,
        "unheard": said.unheard is not None,
    }
    words = [each for each in (said.text, said.heard, said.spoken) if each]
    return f"{event.get('author')} at {place}: {words} {[name for name, is_it in marks.items() if is_it]}"


class Ended(Protocol):
    """A place whose processes have ended."""

    name: str
    logs: list[list[str]]


class Checks:
    """What must hold."""

    def __init__(
        self,
        world: World,
        database: Path,
        redis: RedisServer,
        model: Model,
        clients: Sequence[Client],
        askers: Sequence[Asker],
    ) -> None:
        self._world = world
        self._database = database
        self._redis = redis
        self._model = model
        self._clients = clients
        self._askers = askers
        self._sessions = sorted({client.session_id for client in clients})  # each has one
        self._cursors: dict[str, str] = {}
        self._tokens: dict[str, int] = {}

    # ---- all the time ----

    def emptied(self) -> None:
        """Redis has lost all it had, the tokens too: the highest one that comes back decides."""
        self._cursors.clear()
        self._tokens.clear()

    async def watch(self) -> None:
        """Reads the logs as they are written: no owner writes after a newer one."""
        while True:
            await asyncio.sleep(0.5)
            for start in range(0, len(self._sessions), _AT_ONCE):
                with suppress(RedisError, OSError, TimeoutError):  # it is away
                    await self._read_logs(self._sessions[start : start + _AT_ONCE])
            self._model.check(self._world)

    async def _read_logs(self, sessions: Sequence[str]) -> None:
        async with Redis(port=self._redis.port, socket_timeout=2) as redis:
            pipeline: Any = redis.pipeline(transaction=False)
            cursors = dict(self._cursors)
            for name in sessions:
                after = f"({cursors[name]}" if name in cursors else "-"
                pipeline.xrange(keys.log(name), after, "+")
            for name, entries in zip(sessions, await pipeline.execute(), strict=True):
                for raw_id, _ in entries:
                    entry_id = raw_id.decode()
                    token = int(entry_id.partition("-")[0])
                    if token < self._tokens.get(name, 0):
                        self._world.broke(f"{name}: {entry_id} was written after one of {self._tokens[name]}")
                    self._tokens[name] = token
                    self._cursors[name] = entry_id

    # ---- in the end, while all are there ----

    async def in_the_end(self) -> None:
        """Every client has what the session has: at once, or soon."""
        differences: list[str] = []

        def is_same() -> bool:
            stored = self._stored()
            differences[:] = [
                f"{client.name} has other {difference}"
                for client in self._clients
                if isinstance(client, Live)
                and (difference := client.view.differs(stored.get(client.session_id, []), {*client.said}))
            ]
            return not differences

        try:
            async with asyncio.timeout(15):
                while not is_same():
                    await asyncio.sleep(0.5)
        except TimeoutError:
            for difference in differences:
                self._world.broke(difference)

    def _stored(self) -> dict[str, list[tuple[str, str]]]:
        """The messages of each session."""
        with closing(sqlite3.connect(self._database)) as database:
            rows = database.execute(
                "SELECT session_id, event_data FROM events ORDER BY timestamp, rowid"
            ).fetchall()
        lines: dict[str, Lines] = {}
        for session_id, data in rows:
            lines.setdefault(session_id, Lines()).add(said_in(json.loads(data)))
        return {name: [(line.role, line.text) for line in found.kept] for name, found in lines.items()}

    # ---- when all is over ----

    async def after(self, places: Iterable[Ended]) -> None:
        """What the sessions, the model, Redis and the logs have."""
        world = self._world
        stored = self._stored()
        texts = Counter[str]()
        for session_id, lines in stored.items():
            texts.update(text for role, text in lines if role == "user")
            words = [int(word) for role, text in lines if role == "agent" for word in WORD.findall(text)]
            for before, after in pairwise(words):
                if after <= before:
                    world.broke(f"the session of {session_id} has w{after} after w{before}")
        for text, times in texts.items():
            if times > 1:
                world.broke(f"the session has {text} {times} times")
        must_be = [text for client in self._clients for text in client.acked]
        must_be += [text for asker in self._askers for text in asker.answered]
        for text in must_be:
            if not texts[text]:
                world.broke(f"no session has {text}, which was acked or answered")
        self._model.check(world)
        for text in must_be:
            if text not in self._model.known:
                world.broke(f"no model was told {text}")
        world.counts["texts said again"] = sum(times > 1 for times in self._model.said.values())
        if stays := await self._redis.stays():
            world.broke(f"this stays in Redis: {stays}")
        async with Redis(port=self._redis.port, socket_timeout=30) as redis:
            async for key in redis.scan_iter():
                if await redis.pttl(key) > _EXPIRY_MS:
                    world.broke(f"{key!r} stays for {await redis.pttl(key)} ms")
        for place in places:
            for log in place.logs:
                self._read_process_log(place.name, log)

    def _read_process_log(self, name: str, log: Sequence[str]) -> None:
        for line in log:
            level = line.partition(":")[0]
            self._world.counts[f"log {level}" if level in ("INFO", "WARNING", "ERROR") else "log other"] += 1
            if line.startswith("ERROR"):
                self._world.note(f"{name}: {line}")
            elif level not in ("INFO", "WARNING"):
                self._world.broke(f"{name} has logged {line}")
