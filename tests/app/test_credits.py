"""Token usage and sources are told with the end of a turn, in every dialect."""

from __future__ import annotations

from typing import Any

from support.chat import chat, created, guest, http, turn
from support.client import Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

USAGE = {"input_tokens": 30, "output_tokens": 60, "thought_tokens": 0, "total_tokens": 90}
GROUNDING = {
    "sources": [
        {"title": "One", "url": "https://one.example/"},
        {"title": "Two", "url": "javascript:alert(2)"},
    ],
    "searches": ["what is one"],
    "suggestions": "<style>a{}</style><p>Search</p>",
}


async def with_sources(connection: Connection, turn: UserTurn) -> None:
    """An answer in two generations, each with its own tokens; the first source is reported twice."""
    await connection.usage(10, 20)
    await connection.say(f"You said: {turn.text}.", complete=False)
    if "plain" not in turn.text:
        await connection.ground(("One", "https://one.example/"), searches=("what is one",))
        await connection.ground(
            ("One", "https://one.example/"),
            ("Two", "javascript:alert(2)"),
            ("", ""),
            html="<style>a{}</style><p>Search</p>",
        )
    await connection.usage(20, 40)
    await connection.turn_complete()


def credits_of(said: Json) -> tuple[Any, Any]:
    return said.get("usage"), said.get("grounding")


async def test_all_dialects_tell_the_tokens_and_the_sources(gemini: GeminiLive) -> None:
    gemini.answer = with_sources
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as room:
            await live.say("hello")
            assert credits_of((await live.turn())[-1]) == (USAGE, GROUNDING)
            assert credits_of(await room.get("response_complete")) == (USAGE, GROUNDING)
            await room.chat("plain")  # nothing is left of the answer before
            assert credits_of(await room.get("response_complete")) == (USAGE, None)
            assert credits_of(await turn(port, session_id, "turn")) == (USAGE, GROUNDING)
            asked = {"session_id": session_id, "message": "post"}
            assert credits_of((await web.post("/api/v1/chat", json=asked)).json()) == (USAGE, GROUNDING)


async def test_what_is_not_reported_is_not_told(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello")
        assert set((await alice.turn())[-1]) == {"turn_complete", "interrupted", "seq"}


async def test_the_tokens_of_an_answer_that_was_cut_by_a_loss_are_told(
    gemini: GeminiLive, quick_retries: None
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.usage(10, 20)
        await connection.say("One", complete=False)
        if connection.number == 1:
            connection.abort()
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as room:
            await live.say("hello")
            ends = [(await live.turn())[-1] for _ in range(2)]
            assert [end["usage"]["total_tokens"] for end in ends] == [30, 30]
            complete = await room.get("response_complete")
            assert complete["usage"]["total_tokens"] == 60


async def test_each_turn_tells_its_own_tokens(gemini: GeminiLive) -> None:
    gemini.answer = with_sources
    async with serving(a_relay()) as port, client(port) as alice:
        told = 0
        for text in ("one", "two", "three plain"):
            await alice.say(text)
            told += (await alice.turn())[-1]["usage"]["total_tokens"]
        assert told == 3 * 90
