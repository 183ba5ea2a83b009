"""The model of the soak: a stand-in for the Gemini Live service that answers speech, and fails at random.

It runs in a process of its own. What it knows of a connection is thrown away, or half an hour of the sound of
100 microphones would be gigabytes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection as Pipe

from benchmarks.soaking.loops import run
from support.gemini import Connection, GeminiLive, Plan, UserTurn

_KEPT_HANDLES = 5_000
"""Sessions that can be resumed: of the last minutes."""

_WORDS = "The answer to that takes me a few seconds to say aloud"

_CONNECTING: dict[str, tuple[float, Plan]] = {
    "refused": (0.03, Plan(http_status=503)),
    "closed before the setup": (0.02, Plan(close_before_setup=(1011, "Internal error encountered."))),
    "closed after the setup": (0.02, Plan(close_after_setup=(1011, "Internal error encountered."))),
    "no answer to the upgrade": (0.005, Plan(hang="handshake")),
    "no answer to the setup": (0.005, Plan(hang="setup")),
    "slow": (0.05, Plan(delay=2)),
}
"""What goes wrong with a connection, and how often."""

_ANSWERING = {
    "silence": 0.03,  # no answer at all
    "stops in the middle": 0.02,  # and says nothing more in this turn
    "closed": 0.03,
    "lost": 0.03,
    "go away": 0.03,
    "tool": 0.1,
}
"""The same of an answer."""


def _one_of(chances: dict[str, float]) -> str:
    """One of the names, by their chances; empty: none."""
    chance = random.random()
    for name, share in chances.items():
        chance -= share
        if chance < 0:
            return name
    return ""


class _Model(GeminiLive):
    def __init__(self) -> None:
        super().__init__(self._answer, on_connect=self._plan)
        self.failures = Counter[str]()

    def _plan(self, number: int) -> Plan | None:
        if not (what := _one_of({name: share for name, (share, _) in _CONNECTING.items()})):
            return None
        self.failures[what] += 1
        return _CONNECTING[what][1]

    async def _answer(self, connection: Connection, turn: UserTurn) -> None:
        what = _one_of(_ANSWERING)
        self.failures[what] += bool(what)
        if what == "silence":
            return
        if turn.audio:
            await connection.heard("What do you say to that?")
        if what == "tool":
            await connection.call_tool("get_current_time", {"timezone": "Asia/Tokyo"})
        first = random.randrange(2, 8)
        # Two chunks of 40 ms with each word: sound in real time.
        await connection.say(" ".join(_WORDS.split()[:first]), delay=0.08, complete=False)
        match what:
            case "stops in the middle":
                return
            case "closed":
                await connection.die(1011, "Internal error encountered.")
            case "lost":
                connection.abort()
            case "go away":
                await connection.go_away(5)
        await connection.usage()
        rest = " " + " ".join(random.choices(_WORDS.split(), k=random.randrange(5, 30)))
        await connection.say(rest, delay=0.08)
        if what == "go away":
            await asyncio.sleep(5)
            await connection.die(1000)

    def break_all(self) -> None:
        """All connections are lost at once."""
        for connection in self.connections:
            connection.abort()

    async def forget(self) -> None:
        """Throws away what a test would want to know."""
        while True:
            await asyncio.sleep(1)
            self.connections[:] = [connection for connection in self.connections if connection.open]
            for connection in self.connections:
                for known in (connection.received, connection.audio, connection.sound, connection.texts):
                    known.clear()
                connection.tool_responses.clear()
                del connection.context[:-50]
            for handle in [*islice(self.handles, max(0, len(self.handles) - _KEPT_HANDLES))]:
                del self.handles[handle]


class Model:
    """The process, seen from outside."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.env: dict[str, str] = pipe.recv()

    def open_connections(self) -> int:
        self._pipe.send("open")
        return int(self._pipe.recv())

    def break_all(self) -> None:
        self._pipe.send("break")
        self._pipe.recv()

    def failures(self) -> dict[str, int]:
        """What went wrong on purpose, and how often; and breaches of the protocol, which are relay's."""
        self._pipe.send("failures")
        return dict(self._pipe.recv())


@contextmanager
def run_model() -> Iterator[Model]:
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(its,), daemon=True)
    process.start()
    its.close()
    try:
        yield Model(ours)
    finally:
        process.terminate()
        process.join(10)


def _serve(pipe: Pipe) -> None:
    async def serving() -> None:
        async with _Model() as model:
            forgetting = asyncio.create_task(model.forget())
            pipe.send(model.env)
            while not forgetting.done():
                match await asyncio.to_thread(pipe.recv):
                    case "open":
                        pipe.send(model.open_connections)
                    case "failures":
                        pipe.send({**model.failures, "breaches": len(model.violations)})
                    case "break":
                        model.break_all()
                        pipe.send(None)

    os.setsid()  # where the system shares the time by sessions, the model has its own part
    run(serving())
