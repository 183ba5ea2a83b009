"""A user hears less than the model has sent: the rest is not in the conversation as said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.api import get, stats_when
from support.chat import http
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, serving
from support.tokens import SECRET, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")

LONG = "One two three four five six seven eight nine ten."
WORD_MS = 80
"""How long the stand-in speaks each word."""


class Model:
    """Counts, and answers what interrupts it when it may."""

    def __init__(self, gemini: GeminiLive) -> None:
        self.may = asyncio.Event()
        gemini.answer = self.answer

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Stop.")
            await self.may.wait()
            await connection.say("I heard you.")
        elif turn.text == "count":
            await connection.say(LONG, complete=False)
            await asyncio.Event().wait()
        else:
            if turn.text == "stop":
                await self.may.wait()
            await connection.say(f"You said: {turn.text}.")


def is_heard(said: Json) -> bool:
    return said.get("type") == "heard"


async def counted(guest: Client) -> None:
    """The model has sent the whole answer."""
    sound = len(guest.audio)
    await guest.say("count")
    await guest.until(lambda said: len(guest.audio) - sound >= 48 * WORD_MS * 10)


async def stop(guest: Client, how: str) -> int:
    """The answer is interrupted; returns the number of its end."""
    if how == "speech":
        await guest.socket.send(speech(400) + silence(400))
    elif how == "text":
        await guest.say("stop")
    elif how == "interrupt":
        await guest.send(type="interrupt")
    (*_, end) = await guest.until(lambda said: bool(said.get("interrupted")))
    return int(end["seq"])


def told(line: Json) -> tuple[Any, ...]:
    return line["role"], line["text"], line.get("interrupted", False)


@pytest.mark.bus
async def test_only_what_was_heard_is_kept(gemini: GeminiLive, sessions: str, tmp_path: Path) -> None:
    """In memory, for all who attend, in the session, and for the next connection to the model."""
    model = Model(gemini)
    async with serving(a_relay(sessions=sessions)) as port, http(port) as web:
        for how in ("speech", "text", "interrupt", "others"):
            path, model.may = f"/sessions/live-{how}?user_id={how}", asyncio.Event()
            async with (
                client(port, how, audio=True) as alice,
                client(port, how) as other,
                client(port, how, audio=True) as another,
            ):
                await alice.ask("hello")
                before = alice.frames[-1]["seq"]
                await counted(alice)
                if how == "others":  # it gets no sound, so the first one counts that does and says something
                    await other.say("stop")
                end = await stop(alice, how)
                await other.send(type="heard", audio_ms=0, seq=end)  # it gets no sound
                if how != "others":
                    await another.send(type="heard", audio_ms=0, seq=end)  # it has not interrupted
                await alice.send(type="heard", audio_ms=3.5 * WORD_MS, seq=end)
                (*_, first) = await alice.until(is_heard)
                await another.send(type="heard", audio_ms=0, seq=end)
                await alice.send(type="heard", audio_ms=0, seq=before)  # of the answer before
                await alice.send(type="heard", audio_ms=700, seq=end)  # it was less
                await alice.send(type="heard", audio_ms=2 * WORD_MS, seq=end)
                (*_, shorter) = await alice.until(is_heard)
                assert (first["text"], shorter["text"]) == ("One two three", "One two")
                for listener in (other, another):
                    await listener.until(lambda said: is_heard(said) and said["text"] == "One two")
                    assert [said for said in listener.frames if is_heard(said)] == [first, shorter]
                model.may.set()
                if how == "interrupt":
                    await alice.say("stop")
                await alice.until(lambda said: bool(said.get("turn_complete")))
                in_memory = (await get(web, path))["history"]
                async with client(port, how, query="&after=0.0") as late:
                    gap = await late.next()
                    lines = [await late.next() for _ in range(gap["messages"])]
            await stats_when(web, active_sessions=0)
            kept = (await get(web, path))["history"]
            async with client(port, how) as alice:
                assert await alice.ask("more") == "You said: more."
            assert [*map(told, in_memory)] == [*map(told, lines)] == [*map(told, kept)]
            assert [*map(told, kept)] == [
                ("user", "hello", False),
                ("agent", "You said: hello.", False),
                ("user", "count", False),
                ("agent", "One two", True),
                ("user", "Stop." if how == "speech" else "stop", False),
                ("agent", "I heard you." if how == "speech" else "You said: stop.", False),
            ]
            known = "".join(text for role, text in gemini.connections[-1].context if role == "model")
            assert "One two" in known and "three" not in known


async def test_who_was_invited_takes_no_words_away_that_others_have_heard(gemini: GeminiLive) -> None:
    Model(gemini)
    owner = token("alice")
    invited = token("alice", invitation={"session_id": "live-alice", "role": "write"}, name="Bob")
    async with (
        serving(a_relay(secret=SECRET)) as port,
        client(port, audio=True, **with_token(owner)) as alice,
        client(port, audio=True, **with_token(invited)) as bob,
        web(port, owner) as mine,
    ):
        await alice.ask("hello")
        end = alice.frames[-1]["seq"]
        await bob.send(type="heard", audio_ms=0, seq=end)
        await bob.send(type="ping")
        await bob.until(lambda said: said.get("type") == "pong")
        assert (await get(mine, "/sessions/live-alice"))["history"][-1]["text"] == "You said: hello."
        await alice.send(type="heard", audio_ms=WORD_MS, seq=end)
        (*_, shorter) = await bob.until(is_heard)
        assert shorter["text"] == "You"
