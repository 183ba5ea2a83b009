"""A voice and a language that users choose for their conversation."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from adk_relay.adk.models import run_config
from support.chat import chat, http
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]

FIELDS = "voice, language, instructions, tools, push_to_talk, temperature"
CHOICE = {"voices": "Puck, Charon", "languages": "de-DE,en-US"}


def voice(connection: Connection) -> tuple[str, str]:
    """The voice and the language that the model was asked for; "": it chooses."""
    speech: Json = connection.setup["generationConfig"].get("speechConfig", {})
    name = speech.get("voiceConfig", {}).get("prebuiltVoiceConfig", {}).get("voiceName", "")
    return name, speech.get("languageCode", "")


async def told(who: Client, kind: str = "configured") -> Json:
    return (await who.until(lambda said: said.get("type") == kind))[-1]


async def test_a_voice_for_all_from_the_next_turn_on(gemini: GeminiLive) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(a_relay(run_config=run_config("Kore"), **CHOICE)))
        async with client(port, "ann") as ann, client(port, "ann") as again, chat(port):
            assert (ann.hello["voices"], ann.hello["voice"]) == (["Kore", "Puck", "Charon"], "Kore")
            assert (ann.hello["languages"], ann.hello["language"]) == (["de-DE", "en-US"], "")
            await ann.ask("one")
            await again.turn()
            await ann.send(type="configure", voice="Puck")
            for who in (ann, again):
                assert await told(who) == {"type": "configured", "voice": "Puck", "language": ""}
            await gemini.connection(1)  # it is made at once, as the agent is at rest
            await again.ask("two")
            await ann.turn()
            assert [*map(voice, gemini.connections)] == [("Kore", ""), ("Puck", "")]
            assert [connection.texts for connection in gemini.connections] == [["one"], ["two"]]
            async with client(port, "ann") as late:
                assert late.hello["voice"] == "Puck"
            await again.send(type="configure", language="de-DE", voice="")
            assert await told(ann) == {"type": "configured", "voice": "Kore", "language": "de-DE"}
            await ann.ask("three")
            assert voice(gemini.connections[2]) == ("Kore", "de-DE")
            # It is so already: no new connection.
            await ann.send(type="configure", language="de-DE")
            await told(ann)
            await ann.ask("four")
            assert len(gemini.connections) == 3
    assert gemini.violations == []


async def test_during_an_answer(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One,", complete=False)
        if turn.text != "interrupted":
            await go_on.wait()
            await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay(**CHOICE)) as port, client(port, "ann") as ann:
        await ann.say("count")
        await ann.until(lambda said: said.get("data") == "One,")
        await ann.send(type="configure", voice="Puck")
        await told(ann)
        assert len(gemini.connections) == 1  # the answer is not cut
        go_on.set()
        assert not (await ann.turn())[-1]["interrupted"]
        await gemini.connection(1)
        await ann.say("interrupted")
        await ann.until(lambda said: said.get("data") == "One,")
        await ann.send(type="configure", voice="Charon")
        await told(ann)
        await ann.say("again")  # in the new voice, so it needs the new connection
        assert (await ann.turn())[-1]["interrupted"]
        await ann.turn()
        assert [*map(voice, gemini.connections)] == [("", ""), ("Puck", ""), ("Charon", "")]
        assert gemini.connections[2].texts == ["again"]


async def test_it_survives_a_restart_and_an_emptied_conversation(gemini: GeminiLive, tmp_path: Any) -> None:
    settings = {"sessions": f"sqlite:///{tmp_path}/sessions.db", **CHOICE}
    async with serving(a_relay(**settings)) as port, client(port, "guest") as who:
        await who.ask("one")
        await who.send(type="configure", voice="Puck", language="en-US")
        await told(who)
    async with serving(a_relay(**settings)) as port, client(port, "guest") as who:
        assert (who.hello["voice"], who.hello["language"]) == ("Puck", "en-US")
        await who.ask("two")
        assert voice(gemini.connections[-1]) == ("Puck", "en-US")
        async with http(port) as web:
            assert (await web.post("/sessions/live-guest/clear")).status_code == 200
        await told(who, "cleared")
        await who.ask("three")
        assert voice(gemini.connections[-1]) == ("Puck", "en-US")
    async with serving(a_relay(**settings)) as port, client(port, "guest") as who:
        assert who.hello["voice"] == "Puck"
        async with http(port) as web:
            found = (await web.get("/sessions/live-guest")).json()
        assert found["history"][0]["text"] == "three"
        assert found["state"] == {}
    # What is not allowed any more is not chosen any more.
    settings = {"sessions": settings["sessions"], "voices": "Charon"}
    async with serving(a_relay(**settings)) as port, client(port, "guest") as who:
        assert (who.hello["voice"], who.hello["voices"]) == ("", ["Charon"])
        assert "languages" not in who.hello


async def test_what_can_not_be_chosen(gemini: GeminiLive) -> None:
    async with serving(a_relay(**CHOICE)) as port, client(port, "ann") as who:
        for frame, why in (
            ({"voice": "Zoe"}, "The voice must be one of these: Puck, Charon."),
            ({"voice": "Puck", "language": "xx"}, "The language must be one of these: de-DE, en-US."),
            ({"voice": 1}, "voice must be a string."),
            ({}, f"configure needs at least one of: {FIELDS}."),
        ):
            await who.send(type="configure", **frame)
            error = await told(who, "error")
            assert (error["code"], error["message"]) == ("bad_data", why)
        await who.ask("hello")
        assert voice(gemini.connections[0]) == ("", "")
    async with serving(a_relay(languages="de-DE")) as port, client(port, "ann") as who:
        assert "voices" not in who.hello
        await who.send(type="configure", voice="Puck")
        assert (await told(who, "error"))["message"] == "The voice can't be chosen here."


async def test_not_without_end(gemini: GeminiLive) -> None:
    async with serving(a_relay(**CHOICE)) as port, client(port, "ann") as who:
        for number in range(30):
            await who.send(type="configure", voice="Puck" if number % 2 else "Charon")
        error = await told(who, "error")
        assert error["code"] == "rate_limited"
        assert error["retry_after"] > 0
