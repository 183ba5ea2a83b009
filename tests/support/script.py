"""A model that answers step by step, and the frames that tests count."""

from __future__ import annotations

import asyncio

from support.client import Json
from support.gemini import Connection, GeminiLive, UserTurn


def typed(frames: list[Json]) -> list[tuple[str, bool]]:
    """Whose typing was told, and whether they began or stopped."""
    return [(said["connection_id"], said["typing"]) for said in frames if "typing" in said]


def busy(frames: list[Json]) -> int:
    return sum(said.get("code") == "busy" for said in frames)


class Script:
    """A model that says "a", and then "b" when `go_on` allows it; `until` waits for the "a" to a text."""

    def __init__(self, gemini: GeminiLive) -> None:
        self._gemini = gemini
        self._may: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []
        gemini.answer = self

    async def __call__(self, connection: Connection, turn: UserTurn) -> None:
        name = turn.text or "speech"
        if turn.audio:
            await connection.heard("speech")
        await connection.say(f"{name}: a", complete=False, audio=False)
        self.begun.append(name)
        self._gemini.changed()
        await self._event(name).wait()
        await connection.say(" b.", audio=False)

    def _event(self, name: str) -> asyncio.Event:
        return self._may.setdefault(name, asyncio.Event())

    def go_on(self, *names: str) -> None:
        for name in names:
            self._event(name).set()

    async def until(self, name: str) -> None:
        """Waits until the answer to a text has begun."""
        await self._gemini.wait_for(lambda: name in self.begun)
