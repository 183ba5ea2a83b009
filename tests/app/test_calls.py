"""Telephone calls: what a caller hears, and what happens when the caller interrupts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.api import get
from support.caller import MS, RATE, Caller, calling, tones_in
from support.chat import http
from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech, tone
from support.server import a_relay, need_module, serving

need_module("soxr")

pytestmark = [pytest.mark.usefixtures("no_errors")]

CALL = "call-CA" + "2" * 32
"""The user and the conversation of a call of which nothing else is known."""


def words(count: int) -> str:
    """So many words. Each takes 80 ms to say, and the model makes the sound of all at once."""
    return " ".join(f"w{number:02}" for number in range(count))  # all of one length


async def answer(connection: Connection, turn: UserTurn) -> None:
    """The first answer is long, those that follow are short."""
    if turn.audio:
        await connection.heard("Hello.")
    await connection.say(words(30) if not connection.said else "I see.")


async def heard(caller: Caller, ms: float) -> None:
    """Waits until the caller has heard so much in all."""
    await caller.until(lambda: caller.heard_ms >= ms)


async def history(port: int, session_id: str = CALL, user: str = CALL) -> list[tuple[str, str, bool]]:
    """What is in a conversation: who said it, the words, and whether it was interrupted."""
    async with http(port) as web:
        found = await get(web, f"/sessions/{session_id}?user_id={user}")
    return [(one["role"], one["text"], one.get("interrupted", False)) for one in found["history"]]


@pytest.mark.bus
async def test_an_answer_is_heard_in_order_without_a_gap_and_never_a_second_ahead(gemini: GeminiLive) -> None:
    gemini.answer = answer
    async with serving(a_relay(grace=5)) as port, calling(port) as caller:
        caller.says(speech(600, RATE))
        await heard(caller, 2400)
        assert [*tones_in(caller.heard)] == [number % 40 for number in range(60)]
        assert len(caller.stretches) == 1
        assert 500 < caller.most_ms <= 1000
        model = gemini.connections[0]
        assert model.rates == {RATE}
        caller.says(speech(400, RATE))
        await heard(caller, 2560)
        assert [*tones_in(caller.heard)][60:] == [20, 21, 22, 23]
        async with client(port, CALL, query=f"&session_id={CALL}") as page:  # a page can follow the call
            await caller.hangs_up()
            assert await caller.until_closed() == (1000, "done")
            await page.say("Are you there?")
            await page.turn()
        assert await history(port) == [
            *(("user", "Hello.", False), ("agent", words(30), False)),
            *(("user", "Hello.", False), ("agent", "I see.", False)),
            *(("user", "Are you there?", False), ("agent", "I see.", False)),
        ]


@pytest.mark.bus
@pytest.mark.parametrize("has_finished", [False, True])
async def test_a_caller_who_interrupts_hears_no_more_of_the_answer_and_the_next_one_at_once(
    gemini: GeminiLive, has_finished: bool
) -> None:
    """Also an answer that is over for the model, which then knows nothing of the interruption."""
    turns: list[UserTurn] = []

    async def answer(connection: Connection, turn: UserTurn) -> None:
        turns.append(turn)
        if len(turns) == 1:
            await connection.heard("Hello.")
            await connection.say(words(50), complete=has_finished)
            if not has_finished:
                await asyncio.Event().wait()
        elif not (has_finished and len(turns) == 2):  # the model makes nothing of knocks
            await connection.heard("Stop.")
            await connection.say("I see.")

    gemini.answer = answer
    async with serving(a_relay(grace=5)) as port, calling(port) as caller:
        caller.says(speech(600, RATE))
        await caller.until(lambda: caller.heard_ms > 500)
        if has_finished:  # a knock, and one more, and a third
            await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
            caller.says(3 * (speech(60, RATE) + silence(200, RATE)))
            await caller.until(lambda: caller.heard_ms > 1500)
        assert not caller.events("clear")
        caller.says(speech(600, RATE))
        await caller.until(lambda: caller.events("clear"))
        before = caller.heard_ms
        assert before < 3500
        assert caller.cleared_ms > 100
        await heard(caller, before + 160)
        said = len(gemini.connections[0].sound) // len(tone(0))
        assert [*tones_in(caller.heard[round(before * MS) :])] == [
            each % 40 for each in range(said - 4, said)
        ]
        assert caller.most_ms <= 1000
        lines = await history(port)
    role, text, is_interrupted = lines[1]
    assert (role, is_interrupted) == ("agent", True)
    told = len(text.split()) * 80
    assert before - 450 <= told <= before + 40, (before, told)  # a piece, and the way of a mark
    assert lines[-1] == ("agent", "I see.", False)


@pytest.mark.bus
async def test_what_was_heard_is_told_when_the_answer_is_cut_and_when_the_call_ends(
    gemini: GeminiLive,
) -> None:
    told = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text:
            await told.wait()
            await connection.say("I see.")
        else:
            await connection.say(words(50), complete=False)
            await asyncio.Event().wait()

    async def is_short(port: int, line: int, session_id: str, heard_ms: float) -> None:
        async with asyncio.timeout(60):
            while len((lines := await history(port, session_id, session_id))[line][1].split()) == 50:
                await asyncio.sleep(0.01)
        assert len(lines[line][1].split()) * 80 <= heard_ms + 80
        assert lines[line][2]

    gemini.answer = answer
    dropped = "CA" + "3" * 32
    async with serving(a_relay(grace=1)) as port, calling(port) as caller:
        async with calling(port, call_sid=dropped) as other:
            for each in (caller, other):
                each.says(speech(400, RATE))
            await other.until(lambda: other.heard_ms > 600)
            other.socket.transport.abort()
        async with client(port, CALL, query=f"&session_id={CALL}") as page:
            await caller.until(lambda: caller.heard_ms > 600)
            caller.sends_sound = caller.answers_marks = False  # nothing comes over the network for a while
            heard = caller.heard_ms
            await page.say("Are you there?")
            await page.until(lambda said: said.get("type") == "heard")
            told.set()
            await is_short(port, 0, CALL, heard)
            await caller.until(lambda: caller.heard_ms > heard and caller.is_quiet)
        caller.sends_sound = caller.answers_marks = True
        heard = caller.heard_ms
        caller.says(speech(400, RATE))
        await caller.until(lambda: caller.heard_ms > heard + 600)
        await caller.hangs_up()
        await caller.until_closed()
        await is_short(port, 3, CALL, caller.heard_ms - heard)
        await is_short(port, 0, f"call-{dropped}", other.heard_ms)


async def test_keys_reach_the_agent_as_texts_and_interrupt_what_is_still_heard(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(words(25) if turn.audio else "Thanks.")

    gemini.answer = answer
    async with serving(a_relay(grace=5)) as port, calling(port) as caller:
        await caller.presses("12")
        model = await gemini.connection()
        await gemini.wait_for(lambda: model.texts == ["The caller pressed 1 2 on the telephone."])
        await heard(caller, 80)
        caller.says(speech(400, RATE))
        await caller.until(lambda: caller.heard_ms > 1000)
        await caller.presses("4*#")
        await caller.until(lambda: caller.events("clear"))
        await gemini.wait_for(lambda: model.texts[1:] == ["The caller pressed 4 * # on the telephone."])
        await caller.until(lambda: len(caller.stretches) >= 3)


async def test_two_calls_are_two_conversations_and_frames_that_are_wrong_change_nothing(
    gemini: GeminiLive,
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(words(10 if connection.said else 30))

    gemini.answer = answer
    relay = a_relay(grace=5)
    other = "CA" + "3" * 32
    async with (
        serving(relay) as port,
        calling(port) as one,
        calling(port, call_sid=other) as two,
    ):
        for wrong in (
            "no JSON",
            "[]",
            "{}",
            '{"event":"media","media":{"payload":"?"}}',
            '{"event":"media","media":{"payload":""}}',
            '{"event":"media","media":[]}',
            '{"event":"mark","mark":{}}',
            '{"event":"dtmf","dtmf":{"digit":"12"}}',
        ):
            await one.socket.send(wrong)
        for nothing in (
            '{"event":"news"}',
            '{"event":"mark","mark":{"name":"4711"}}',
            '{"event":"media","media":{"track":"outbound","payload":"AAAA"}}',
        ):
            await one.socket.send(nothing)
        one.says(speech(400, RATE))
        two.says(silence(300, RATE) + speech(400, RATE))
        await heard(one, 2400)
        await heard(two, 2400)
        for caller in (one, two):
            assert [*tones_in(caller.heard)] == [number % 40 for number in range(60)]
        assert len(gemini.connections) == 2
        for _ in range(20):
            await one.socket.send("no JSON", text=True)
            await one.socket.send(b"\0")
        assert await one.until_closed() == (1008, "20 bad frames in a row")
        # While the server drains, a caller hears the answer to its end.
        two.says(speech(400, RATE))
        await two.until(lambda: two.heard_ms > 2400)
        await relay.drain()
        assert await two.until_closed() == (1012, "service restart")
        assert two.heard_ms == 3200


async def test_a_peer_that_returns_no_marks_or_never_begins_is_not_waited_for(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.wire.twilio.playout._WAIT", 0.3)
    monkeypatch.setattr("adk_relay.wire.twilio.call._START_WITHIN", 0.3)
    monkeypatch.setattr("adk_relay.wire.websocket._LOOK_EVERY", 0.05)
    gemini.answer = answer
    async with serving(a_relay(grace=5)) as port, calling(port) as caller:
        caller.answers_marks = False
        caller.says(speech(400, RATE))
        assert await caller.until_closed() == (1013, "no marks come back")
        assert caller.heard_ms <= 1000
        async with calling(port, begins=False) as silent:
            assert await silent.until_closed() == (1008, "no start within 0.3 s")
        async with calling(port, begins=False) as early:
            await early.send("media", {"payload": "//8="})
            await early.presses("1")
            assert (await early.until_closed())[0] == 1008
    assert len(gemini.connections) == 1


async def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(gemini: GeminiLive) -> None:
    gemini.answer = answer
    relay: Any = a_relay(grace=5, queue_bytes=4000)  # less than 0.4 s of sound
    async with serving(relay) as port, calling(port) as caller:
        caller.says(speech(400, RATE))
        traffic = relay.served.stats.traffic_of("twilio")
        await caller.until(lambda: caller.heard_ms + traffic.dropped_ms >= 2399)
        assert traffic.dropped_ms > 0
        assert [*tones_in(caller.heard)][-1] == 59 % 40  # the oldest was dropped
