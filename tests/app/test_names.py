"""The names of those who wrote or said the messages of a conversation, in its history and after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.chat import chat
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, serving
from support.tokens import SECRET, token, web, with_token

pytestmark = pytest.mark.bus


async def lines(who: Client) -> list[tuple[str, str]]:
    """The text and the name of each user's message that a client gets when it comes."""
    gap = await who.next()
    assert gap["type"] == "gap", gap
    return of([await who.next() for _ in range(gap["messages"])])


def of(messages: list[Json]) -> list[tuple[str, str]]:
    assert not any("name" in line for line in messages if line["role"] == "agent")
    return [(line["text"], line.get("name", "")) for line in messages if line["role"] == "user"]


async def test_the_history_has_the_names_of_those_who_wrote_or_spoke(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if not turn.text:
            await connection.heard("four")
        await connection.say("Well.")

    gemini.answer = answer
    in_file: dict[str, Any] = {"secret": SECRET, "sessions": f"sqlite:///{tmp_path}/s.db"}
    ann, bob, nameless = token(name="Ann"), token(name="Bob"), token()
    query = "&session_id=kitchen&after=0.0"
    expected = [("one", "Ann"), ("two", "Bob"), ("three", ""), ("four", "Ann")]
    async with (
        serving(a_relay(**in_file)) as port,
        client(port, query=query, audio=True, **with_token(ann)) as live,
    ):
        assert (live.hello["name"], "role" in live.hello) == ("Ann", False)
        await live.say("one")
        await live.turn()
        async with chat(port, **with_token(bob)) as room:
            assert (await room.join("kitchen"))["name"] == "Bob"
            await room.chat("two")
            await room.get("response_complete")
        async with web(port, nameless) as browser:
            body = {"session_id": "kitchen", "message": "three"}
            assert (await browser.post("/api/v1/chat", json=body)).status_code == 200
        await live.turn()
        await live.turn()
        await live.socket.send(speech(400))
        await live.socket.send(silence(800))
        await live.turn()
        async with (
            web(port, nameless) as browser,
            client(port, query=query, **with_token(nameless)) as other,
        ):
            assert await lines(other) == expected
            read = (await browser.get("/sessions/kitchen")).json()
            assert of(read["history"]) == expected
    async with serving(a_relay(**in_file)) as port, web(port, nameless) as browser:
        for path in ("/sessions/kitchen", "/sessions/kitchen?before=9"):
            assert of((await browser.get(path)).json()["history"]) == expected
        async with client(port, query=query, **with_token(nameless)) as other:
            assert await lines(other) == expected
