"""OpenAI's Realtime API, as OpenAI's own Python SDK speaks it: turns in text and voice."""

from __future__ import annotations

import ast
import re
from base64 import b64decode, b64encode
from typing import Any

import pytest

from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.openai_realtime import Client, realtime, types, words
from support.server import ROOT, a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]

ITEM = ["conversation.item.added", "conversation.item.done"]

ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]

SPEECH = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
]


def sound(events: list[Any]) -> bytes:
    return b"".join(b64decode(each.delta) for each in events if each.type == "response.output_audio.delta")


async def test_a_text_is_answered_in_sound_and_its_transcript(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, realtime(port) as client:
        session = client.events[0].session
        assert session.audio.input.turn_detection.type == "server_vad"
        events = await client.ask("hello")
        assert types(events) == ITEM + ANSWER
        assert words(events) == "You said: hello."
        assert sound(events) == gemini.connections[0].sound
        asked, answer = events[0].item, events[-1].response
        assert asked.content[0].text == "hello"
        assert answer.status == "completed"
        (said,) = answer.output
        assert said.content[0].transcript == "You said: hello."
        # The ids hold together.
        assert events[0].previous_item_id is None
        added = next(each for each in events[2:] if each.type == "conversation.item.added")
        assert (added.previous_item_id, added.item.id) == (asked.id, said.id)
        of_part = [each for each in events if hasattr(each, "content_index")]
        assert {(each.response_id, each.item_id) for each in of_part} == {(answer.id, said.id)}
        assert len({each.event_id for each in events}) == len(events)

        # As text, when the client wants that; several items are said together.
        assert (await client.update(output_modalities=["text"])).output_modalities == ["text"]
        await client.write("one", id="mine")
        events = await client.ask("two")
        assert words(events) == "You said: one\ntwo."
        assert [each for each in types(events) if "delta" in each] == ["response.output_text.delta"]
        added = [each for each in events if each.type == "conversation.item.added"]
        assert [each.previous_item_id for each in added] == [said.id, "mine", added[1].item.id]
        assert events[-1].response.output[0].content[0].text == "You said: one\ntwo."
    assert gemini.connections[0].texts == ["hello", "one\ntwo"]


async def test_speech_is_answered(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, realtime(port) as client:
        await client.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
        await client.speak(speech(400, 24_000) + silence(500, 24_000))
        events = await client.response()
        assert types(events)[:5] == SPEECH + ITEM
        assert [each for each in types(events)[5:] if "transcription" not in each] == ANSWER
        assert words(events) == "I heard you."
        heard = next(each for each in events if each.type.endswith("transcription.completed"))
        assert heard.transcript
        assert {each.item_id for each in events[:3]} == {heard.item_id} == {events[3].item.id}
        assert 0 <= events[0].audio_start_ms <= events[1].audio_end_ms <= 900
        await retrieved(client, heard.item_id, heard.transcript)

        # A transcript may also come when the answer has begun.
        gemini.answer = late
        await client.speak(speech(400, 24_000) + silence(500, 24_000))
        events = await client.response()
        assert types(events)[:6] == [*SPEECH, *ITEM, "response.created"]
        heard = next(each for each in events if each.type.endswith("transcription.completed"))
        assert (heard.transcript, heard.item_id) == ("Hello again.", events[0].item_id)
        assert events[5 + 2].previous_item_id == heard.item_id

        # Without one, the next one is not taken for it.
        gemini.answer = unheard
        await client.speak(speech(400, 24_000) + silence(500, 24_000))
        assert types(await client.response())[:6] == [*SPEECH, *ITEM, "response.created"]
        gemini.answer = late
        await client.speak(speech(400, 24_000) + silence(500, 24_000))
        events = await client.response()
        heard = next(each for each in events if each.type.endswith("transcription.completed"))
        assert heard.item_id == events[0].item_id


async def unheard(connection: Connection, turn: UserTurn) -> None:
    await connection.say("What?")


async def late(connection: Connection, turn: UserTurn) -> None:
    await connection.say("I heard", complete=False)
    await connection.heard("Hello again.")
    await connection.say(" you.")


async def test_sound_without_speech_does_not_block_what_follows(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, realtime(port) as client:
        for is_last in (False, True):
            await client.speak(silence(400, 24_000))
            await client.connection.input_audio_buffer.commit()
            await client.connection.response.create()
            await client.until("response.created")
            if not is_last:
                await client.connection.response.cancel()
                await client.until("response.done")
        await client.write("hello")
        await client.connection.response.create()
        response = (await client.response())[-1].response
        assert (response.status, response.output) == ("cancelled", [])
        assert words(await client.response()) == "You said: hello."


async def retrieved(client: Client, item_id: str, transcript: str) -> None:
    await client.connection.conversation.item.retrieve(item_id=item_id)
    item = (await client.until("conversation.item.retrieved")).item
    assert item.content[0].transcript == transcript


async def test_messages_of_images_and_sound(gemini: GeminiLive) -> None:
    picture = bytes(range(256))
    async with serving(a_relay()) as port, realtime(port) as client:
        create = client.connection.conversation.item.create
        image: Any = {
            "type": "input_image",
            "image_url": f"data:image/png;base64,{b64encode(picture).decode()}",
        }
        text: Any = {"type": "input_text", "text": "What is it?"}
        await create(item={"type": "message", "role": "user", "content": [image, text]})
        await client.connection.response.create()
        events = await client.response()
        assert words(events) == "You said: What is it?."
        assert [part.type for part in events[0].item.content] == ["input_image", "input_text"]
        assert gemini.connections[-1].images == [picture]
        await create(item={"type": "message", "role": "user", "content": [image], "id": "seen"})
        await client.connection.response.create()
        assert (await client.until("error")).error.code == "response_create_nothing_to_answer"
        await client.connection.conversation.item.delete(item_id="seen")
        assert (await client.until("error")).error.code == "unsupported"
        audio: Any = {"type": "input_audio", "audio": b64encode(speech(400, 24_000)).decode()}
        await client.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
        await create(item={"id": "spoken", "type": "message", "role": "user", "content": [audio]})
        await client.connection.response.create()
        events = await client.response()
        assert words(events) == "I heard you."
        # Its transcript is told of it, and it is no other item.
        heard = next(each for each in events if each.type.endswith("transcription.completed"))
        assert (heard.item_id, heard.content_index, heard.usage.seconds) == ("spoken", 0, 0.4)
        added = [each.item.id for each in events if each.type == "conversation.item.added"]
        assert added == ["spoken", events[-1].response.output[0].id]
        await retrieved(client, "spoken", heard.transcript)
        # What was created, and not said yet, can be taken back.
        await client.write("never mind", id="mine")
        await client.connection.conversation.item.delete(item_id="mine")
        assert (await client.until("conversation.item.deleted")).item_id == "mine"
        await client.connection.response.create()
        assert (await client.until("error")).error.code == "response_create_nothing_to_answer"
    assert gemini.connections[-1].texts == ["What is it?"]


async def test_the_example_of_the_document(gemini: GeminiLive) -> None:
    document = (ROOT / "docs" / "openai.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    printed: list[str] = []
    async with serving(a_relay()) as port:
        source = example.replace("localhost:8000", f"127.0.0.1:{port}")
        code = compile(source, "docs/openai.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(code, {"print": lambda text, **_: printed.append(text)})
    assert "".join(printed) == "You said: Hello!."
