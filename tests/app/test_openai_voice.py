"""Voice over OpenAI's Realtime API: who interrupts whom, manual turns, and what was heard."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from typing import Any

import pytest

from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.openai_realtime import realtime, types, words
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]

MANUAL: Any = {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}


async def test_barge_in_and_what_was_heard(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Stop!")
            await connection.say("Yes?")
        else:
            await connection.say("one two three four", complete=False)
            await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, realtime(port) as client:
        await client.write("count")
        await client.connection.response.create()
        delta = await client.until("response.output_audio.delta")
        began = len(client.events)
        await client.speak(speech(400, 24_000))
        cut = await client.response()
        assert "input_audio_buffer.speech_started" in types(cut)
        response = cut[-1].response
        assert (response.status, response.status_details.reason) == ("cancelled", "turn_detected")
        (item,) = response.output
        assert (item.id, item.status) == (delta.item_id, "incomplete")
        # The client tells how much of it was played, as the SDK for agents does at once.
        await client.connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=80)
        await client.until("conversation.item.truncated")
        await client.speak(silence(500, 24_000))
        events = await client.response()
        assert words(events) == "Yes?"
        assert [each for each in types(client.events[began:]) if "committed" in each]

        # So nobody knows of the rest.
        await client.connection.conversation.item.retrieve(item_id=item.id)
        left = (await client.until("conversation.item.retrieved")).item
        assert (left.content[0].transcript, left.status) == ("one", "incomplete")
        async with realtime(port, session_id=client.events[0].session.id) as other:
            for _ in range(8):
                await other.next()
            done = [each.item for each in other.events if each.type == "conversation.item.done"]
            assert [(each.content[0].text, each.status) for each in done[:2]] == [
                ("count", "completed"),
                ("one", "incomplete"),
            ]

        # What can't be truncated.
        truncate = client.connection.conversation.item.truncate
        for item_id, end, param in (
            (item.id, 90_000, "audio_end_ms"),
            ("item_x", 1, "item_id"),
            (client.events[1].item.id, 0, "content_index"),
        ):
            await truncate(item_id=item_id, content_index=0, audio_end_ms=end, event_id="mine")
            error = (await client.until("error")).error
            assert (error.param, error.event_id, error.type) == (param, "mine", "invalid_request_error")


async def test_manual_turns(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, realtime(port) as client:
        await client.speak(silence(100, 24_000))
        # It holds at once: nobody has to wait for session.updated.
        await client.connection.session.update(session={"type": "realtime", "audio": MANUAL})
        await client.connection.input_audio_buffer.clear()
        for commits in (1, 2):
            for _ in range(commits):
                await client.speak(speech(200, 24_000) + silence(800, 24_000) + speech(200, 24_000))
                await client.connection.input_audio_buffer.commit()
                committed = await client.until("input_audio_buffer.committed")
            await client.connection.response.create()
            events = await client.response()
            assert words(events) == "I heard you."
            heard = [each for each in events if each.type.endswith("transcription.completed")]
            assert [each.item_id for each in heard] == [committed.item_id]
        assert not [each for each in types(client.events) if "speech_st" in each]
        assert "input_audio_buffer.cleared" in types(client.events)
        [updated] = [each for each in client.events if each.type == "session.updated"]
        assert updated.session.audio.input.turn_detection is None
        await client.connection.input_audio_buffer.commit(event_id="empty")
        error = (await client.until("error")).error
        assert (error.code, error.event_id) == ("input_audio_buffer_commit_empty", "empty")
        # Back to the model's own detection.
        session = await client.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
        assert session.audio.input.turn_detection.type == "semantic_vad"
        await client.speak(speech(400, 24_000) + silence(500, 24_000))
        assert words(await client.response()) == "I heard you."
    connection = gemini.connections[-2]
    assert [len(each) // 32 for each in connection.activities] == pytest.approx([1300, 2400], abs=20)


async def test_an_answer_is_canceled(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "wait":
            await connection.say("one two", complete=False)
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, realtime(port) as client:
        await client.connection.response.cancel(event_id="nothing")
        error = (await client.until("error")).error
        assert (error.code, error.event_id) == ("response_cancel_not_active", "nothing")
        for text, output in (("count", 1), ("wait", 0)):
            await client.write(text)
            await client.connection.response.create()
            await client.until("response.output_audio.delta" if output else "response.created")
            await client.connection.response.create(event_id="second")
            error = (await client.until("error")).error
            assert (error.code, error.event_id) == ("conversation_already_has_active_response", "second")
            await client.connection.response.cancel()
            response = (await client.response())[-1].response
            assert (response.status, response.status_details.reason) == ("cancelled", "client_cancelled")
            assert len(response.output) == output


@pytest.mark.parametrize("coded", ["audio/pcmu", "audio/pcma"])
async def test_g711(gemini: GeminiLive, coded: str) -> None:
    from adk_relay.wire.sound import alaw_of, pcm_of_alaw, pcm_of_ulaw, ulaw_of

    code, decode = (ulaw_of, pcm_of_ulaw) if coded == "audio/pcmu" else (alaw_of, pcm_of_alaw)
    async with serving(a_relay()) as port, realtime(port) as client:
        audio: Any = {"input": {"format": {"type": coded}}, "output": {"format": {"type": coded}}}
        session = await client.update(audio=audio)
        assert (session.audio.input.format.type, session.audio.output.format.type) == (coded, coded)
        await client.speak(code(speech(400, 8_000) + silence(500, 8_000)), 160)
        events = await client.response()
        deltas = [b64decode(each.delta) for each in events if each.type == "response.output_audio.delta"]
        said = gemini.connections[-1].sound
        assert len(decode(b"".join(deltas))) == pytest.approx(len(said) // 3, abs=100)
    assert gemini.connections[-1].rates == {8_000}
