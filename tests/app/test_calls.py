"""Telephone calls: what a caller hears, and what happens when the caller interrupts."""

from __future__ import annotations

import asyncio

import pytest

from support.api import sessions
from support.caller import RATE, Caller, calling, tones_in
from support.chat import http
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, need_module, serving

need_module("soxr")

pytestmark = [pytest.mark.usefixtures("no_errors")]

CALL = "call-CA" + "2" * 32


def words(count: int) -> str:
    """So many words. Each takes 80 ms to say, and the model makes their sound at once."""
    return " ".join(f"w{number}" for number in range(count))


async def answer(connection: Connection, turn: UserTurn) -> None:
    """The first answer is long, those that follow are short."""
    await connection.heard("Hello.")
    await connection.say(words(50) if not connection.said else " I see.")


async def heard_all(caller: Caller, more_than: float = 0) -> None:
    """Waits until the caller has heard something, and all of it."""
    await caller.until(lambda: caller.heard_ms > more_than and caller.is_quiet)


@pytest.mark.bus
async def test_an_answer_is_heard_in_order_without_a_gap_and_never_a_second_ahead(gemini: GeminiLive) -> None:
    gemini.answer = answer
    async with serving(a_relay(grace=5)) as port, calling(port) as caller:
        said = speech(600, RATE)
        caller.says(said)
        await heard_all(caller, 3900)
        assert [*tones_in(caller.heard)] == [number % 40 for number in range(100)]
        assert len(caller.stretches) == 1
        assert 500 < caller.most_ms <= 1000
        model = gemini.connections[0]
        assert model.rates == {RATE}
        assert (
            abs(model.audio.count(said[:320]) - len(said) / 320) <= 30
        )  # the sound of the microphone, unchanged
        caller.says(speech(400, RATE))
        await heard_all(caller, 4001)
        assert [*tones_in(caller.heard)][100:] == [20, 21, 22, 23]
        await caller.hangs_up()
        assert await caller.until_closed() == (1000, "done")
        async with http(port) as web:
            (found,) = [one for one in await sessions(web, CALL) if one["session_id"] == CALL]
            assert found["model_messages"] == 2
