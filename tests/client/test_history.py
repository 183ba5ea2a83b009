"""What the client shows of a conversation that it joins, besides the words."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.client import Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving
from support.terminal import connected


def is_two(said: Json) -> bool:
    return str(said.get("data", "")).endswith("two")


async def test_what_was_interrupted_and_not_answered_is_told(gemini: GeminiLive, tmp_path: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
        await asyncio.Event().wait()

    gemini.answer = answer
    store = f"sqlite:///{tmp_path}/sessions.db"
    async with serving(a_relay(sessions=store)) as port, client(port, "guest") as guest:
        await guest.say("count")
        await guest.until(is_two)
        await guest.send(mime_type="text/plain", data="more", id="two")
        await guest.until(lambda said: said == {"type": "ack", "id": "two"})
    async with serving(a_relay(sessions=store)) as port, connected(port, tmp_path) as person:
        await person.says("/join live-guest")
        await person.sees(r"(?m)^agent +One two … \(cut off\)")
        await person.sees(r"more \(not answered\)")
        assert await person.leaves() == 0
