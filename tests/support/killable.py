"""A relay in a process of its own, which can be killed without a word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

from support.browser import until
from support.server import ROOT
from support.warm import Warm, warm

OWN_AGENT = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="parrot", model=Rehearsal(words_per_second={speed}))
"""

GATED_STORE = """
import asyncio
from pathlib import Path

from google.adk.cli.service_registry import get_service_registry
from adk_relay.adk.sqlite import Sqlite


class Gated(Sqlite):
    async def append_event(self, session, event):
        while Path("held").exists():
            await asyncio.sleep(0.01)
        return await super().append_event(session, event)


get_service_registry().register_session_service("gated", lambda uri, **_: Gated("session.db"))
"""

GATED = {"RELAY_SESSIONS": "gated://", "RELAY_REPLAY_SECONDS": "0"}
"""Settings of `a_process`. What a client has missed is told as a whole."""


class GatedStore:
    """The store of a relay that runs in this folder with `GATED`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "session.db"
        self._held = folder / "held"

    def close(self) -> None:
        """From now on nothing is stored."""
        self._held.touch()

    def open(self) -> None:
        self._held.unlink()

    def texts(self) -> list[str]:
        """The texts of users that are stored, the first one first."""
        with closing(sqlite3.connect(self._file)) as database:
            rows = database.execute("SELECT event_data FROM events ORDER BY timestamp, rowid").fetchall()
        events = [json.loads(data) for (data,) in rows]
        return [event["content"]["parts"][0]["text"] for event in events if event["author"] == "user"]

    async def has(self, words: str) -> None:
        """Waits until an event with these words is stored."""

        async def find() -> bool:
            with closing(sqlite3.connect(self._file)) as database:
                query = "SELECT 1 FROM events WHERE instr(event_data, ?)"
                return database.execute(query, (words,)).fetchone() is not None

        await until(find, bool)


@asynccontextmanager
async def a_process(
    port: int, folder: Path, *, speed: int = 40, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Warm]:
    """A relay that can be killed without a word. With `GATED`, a `GatedStore` can hold up its store."""
    (folder / "parrot.py").write_text(OWN_AGENT.format(speed=speed) + GATED_STORE)
    process = await warm(
        [sys.executable, ROOT / "relay.py", "--port", str(port)],
        folder,
        os.environ | {"RELAY_AGENT": "parrot:root_agent"} | dict(settings or {}),
        is_heard=False,
    )

    async def answers() -> bool:
        assert process.returncode is None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(answers, bool, timeout=120)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
