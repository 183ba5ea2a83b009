"""OpenAI's Realtime API: who may come in, which conversation it is, and what is told of errors."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.websocket_reconnection import ReconnectingEvent, ReconnectingOverrides
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.api import rehearsal
from support.chat import http
from support.client import client as live_client
from support.client import words as live_words
from support.gemini import GeminiLive, silence
from support.openai_realtime import Client, connecting, realtime, types, words
from support.server import a_relay, serving
from support.tokens import SECRET, token

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


async def refused(client: Client, event: Any) -> Any:
    """The error that an event leads to."""
    await client.connection.send_raw(event if isinstance(event, str) else json.dumps(event))
    return (await client.until("error")).error


def message(*content: Any, **more: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [*content], **more}
    return {"type": "conversation.item.create", "event_id": "e", "item": item}


TEXT = {"type": "input_text", "text": "hi"}
UPDATE = {"type": "session.update", "event_id": "e"}
CREATE = {"type": "response.create", "event_id": "e"}

BAD: list[tuple[Any, str, str | None]] = [
    ("{", "invalid_json", None),
    ("[]", "invalid_json", None),
    ({"type": "response.make", "event_id": "e"}, "invalid_value", "type"),
    ({"event_id": "e"}, "missing_required_parameter", "type"),
    ({"type": "response.cancel", "event_id": 1}, "invalid_value", "event_id"),
    ({"type": "session.update", "event_id": "e"}, "missing_required_parameter", "session"),
    ({"type": "input_audio_buffer.append", "event_id": "e", "audio": "?"}, "invalid_value", "audio"),
    ({"type": "input_audio_buffer.append", "event_id": "e", "audio": "AAAA"}, "invalid_value", "audio"),
    (message(), "invalid_type", "item.content"),
    (message({"type": "input_text", "text": " "}), "invalid_value", "item.content[0].text"),
    (message({"type": "input_audio", "audio": "AAAA"}), "invalid_value", "item.content[0].audio"),
    (message(*[TEXT] * 65), "too_large", "item.content"),
    (message(TEXT, {"type": "output_text"}), "invalid_value", "item.content[1].type"),
    (message(TEXT, role="system"), "invalid_value", "item.role"),
    (message(TEXT, type="mcp_call"), "invalid_value", "item.type"),
    (message(TEXT, id=""), "invalid_value", "item.id"),
    (message(TEXT) | {"previous_item_id": "item_x"}, "unsupported", "previous_item_id"),
    (message({"type": "input_image", "image_url": "http://x"}), "invalid_value", "item.content[0].image_url"),
    (message({"type": "input_text", "text": "x" * 40_000}), "too_large", "item.content"),
    ({"type": "conversation.item.delete", "event_id": "e", "item_id": "x"}, "item_not_found", "item_id"),
    ({"type": "conversation.item.retrieve", "event_id": "e"}, "missing_required_parameter", "item_id"),
    (CREATE, "response_create_nothing_to_answer", None),
    (CREATE | {"response": {"conversation": "none"}}, "unsupported", "response.conversation"),
    (CREATE | {"response": {"output_modalities": ["text"]}}, "unsupported", "response.output_modalities"),
    (CREATE | {"response": {"audio": {"output": {"speed": 2}}}}, "unsupported", "response.audio"),
    (CREATE | {"response": {"instructions": "Greet."}}, "unsupported", "response.instructions"),
    (CREATE | {"response": {"colour": 1}}, "unknown_parameter", "response.colour"),
    (CREATE | {"response": {"x" * 99: 1}}, "unknown_parameter", "response." + "x" * 64),
    (CREATE | {"response": {"metadata": {"a": 1}}}, "invalid_type", "response.metadata"),
    (UPDATE | {"session": {"instructions": 1}}, "invalid_type", "session.instructions"),
    (UPDATE | {"session": {"temperature": "1"}}, "invalid_type", "session.temperature"),
    (UPDATE | {"session": {str(name): 1 for name in range(33)}}, "invalid_value", "session"),
    (UPDATE | {"session": {"tools": [{"type": "mcp"}] * 33}}, "invalid_value", "session"),
    (
        UPDATE | {"session": {"audio": {"input": {"transcription": {"model": 1}}}}},
        "invalid_type",
        "session.audio.input.transcription.model",
    ),
    (
        UPDATE | {"session": {"audio": {"input": {"transcription": {"keywords": ["a", 1]}}}}},
        "invalid_type",
        "session.audio.input.transcription.keywords",
    ),
    (
        UPDATE | {"session": {"audio": {"input": {"transcription": {"prompt": "a" * 9000}}}}},
        "too_large",
        "session.audio.input.transcription",
    ),
    (UPDATE | {"session": {"type": "transcription"}}, "invalid_value", "session.type"),
    (
        UPDATE | {"session": {"audio": {"input": {"format": {"type": "audio/opus"}}}}},
        "invalid_value",
        "session.audio.input.format",
    ),
]

HALF: list[tuple[dict[str, Any], str, str]] = [
    ({"tool_choice": "required"}, "unsupported", "session.tool_choice"),
    ({"max_output_tokens": 100}, "unsupported", "session.max_output_tokens"),
    ({"audio": {"output": {"speed": 1.5}}}, "unsupported", "session.audio.output.speed"),
    ({"audio": {"output": {"voice": "Zoe"}}}, "invalid_value", "session.audio.output.voice"),
    (
        {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}},
        "unsupported",
        "session.audio.input.turn_detection.create_response",
    ),
    ({"tools": [{"type": "mcp", "server_label": "x"}]}, "unsupported", "session.tools[0].type"),
    ({"colour": 1}, "unknown_parameter", "session.colour"),
    ({"x" * 99: 1}, "unknown_parameter", "session." + "x" * 64),
    (
        {"audio": {"input": {"transcription": {"model": "whisper-1", "colour": 1}}}},
        "unknown_parameter",
        "session.audio.input.transcription.colour",
    ),
]


async def test_errors_name_the_event_and_the_field(gemini: GeminiLive) -> None:
    async with serving(a_relay(voices="Puck")) as port, realtime(port) as client:
        for number, (event, code, param) in enumerate(BAD):
            error = await refused(client, event)
            assert (error.code, error.param) == (code, param), event
            event_id = event.get("event_id") if isinstance(event, dict) else None
            assert error.event_id == (event_id if isinstance(event_id, str) else None)
            assert error.type == "invalid_request_error"
            if number % 10 == 9:
                await client.connection.input_audio_buffer.clear()
                await client.until("input_audio_buffer.cleared")
        for session, code, param in HALF:  # the rest of such an event holds
            name = f"say {param}"
            session = session | {"instructions": name}
            await client.connection.send_raw(json.dumps(UPDATE | {"session": session}))
            updated = await client.until("session.updated")
            assert updated.session.instructions == name
            error = (await client.until("error")).error
            assert (error.code, error.param, error.event_id) == (code, param, "e")
        # Each holds, although the next one is sent before it is confirmed.
        for instructions, manual in (("first", True), ("", False), ("last", True), (name, False)):
            detection = None if manual else {"type": "server_vad"}
            session = {"instructions": instructions, "audio": {"input": {"turn_detection": detection}}}
            await client.connection.send_raw(json.dumps(UPDATE | {"session": session}))
        for instructions in ("first", "", "last", name):
            updated = await client.until("session.updated")
            assert updated.session.instructions == instructions
        assert updated.session.audio.input.turn_detection
        # What changes nothing is no error, and shown as it is.
        quiet: Any = {
            "model": "gpt-realtime",
            "tracing": "auto",
            "truncation": "auto",
            "audio": {
                "input": {"noise_reduction": {"type": "near_field"}},
                "output": {"voice": "marin", "speed": 1},
            },
        }
        session = await client.update(**quiet)
        assert session.audio.input.noise_reduction is None
        assert (await client.update(audio={"output": {"voice": "Puck"}})).audio.output.voice == "Puck"
        # A response may ask for what is so already.
        so: Any = {
            "output_modalities": ["audio"],
            "instructions": name,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "audio": {"output": {"voice": "Puck", "format": {"type": "audio/pcm", "rate": 24_000}}},
            "metadata": {"a": "b"},
        }
        assert words(await client.ask("hello", response=so)) == "You said: hello."
        assert client.events[-1].response.metadata == {"a": "b"}
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(20):
                await client.connection.send_raw("{")
            while True:
                await client.next()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1008


@pytest.mark.parametrize("way", ["header", "subprotocol"])
async def test_the_names_of_the_beta(gemini: GeminiLive, way: str) -> None:
    async with serving(a_relay()) as port:
        url = f"ws://127.0.0.1:{port}/v1/realtime?model=gpt-4o-realtime-preview"
        beta = Subprotocol("openai-beta.realtime-v1")
        options: dict[str, Any] = {"additional_headers": {"OpenAI-Beta": "realtime=v1"}}
        if way == "subprotocol":
            offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.sk-x"), beta]
            options = {"subprotocols": offered}
        async with connect(url, proxy=None, **options) as socket:
            assert socket.subprotocol == ("realtime" if way == "subprotocol" else None)

            async def until(event_type: str) -> list[dict[str, Any]]:
                got: list[dict[str, Any]] = []
                while not got or got[-1]["type"] != event_type:
                    got.append(json.loads(await socket.recv()))
                return got

            created, _ = await until("conversation.created")
            session = created["session"]
            assert (session["modalities"], session["input_audio_format"]) == (["text", "audio"], "pcm16")
            update = {"modalities": ["text", "audio"], "voice": "alloy", "input_audio_format": "g711_ulaw"}
            update |= {"turn_detection": None, "temperature": 0.7}  # type: ignore[dict-item]
            await socket.send(json.dumps({"type": "session.update", "session": update}))
            session = (await until("session.updated"))[-1]["session"]
            assert (session["input_audio_format"], session["turn_detection"]) == ("g711_ulaw", None)
            assert session["temperature"] == 0.7
            await socket.send(json.dumps(message({"type": "input_text", "text": "hi"})))
            await socket.send(json.dumps({"type": "response.create", "response": {"modalities": None}}))
            events = await until("response.done")
        told = [event["type"] for event in events]
        assert [*dict.fromkeys(told)] == [
            "conversation.item.created",
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.audio_transcript.delta",
            "response.audio.delta",
            "response.audio.done",
            "response.audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
        ]
        assert events[-1]["response"]["output"][0]["content"][0]["type"] == "audio"


async def test_a_conversation_is_one_like_all_others(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=60)) as port:
        async with realtime(port, user_id="ann") as client:
            session_id = client.events[0].session.id
            await client.ask("hello")
            # Somebody else in the same conversation, in the live dialect, and what each is told of the other.
            await client.speak(silence(100, 24_000))  # its microphone is open, and nobody speaks
            async with live_client(port, "ann", query=f"&session_id={session_id}") as page:
                await page.ask("from the page")
                added = await client.until("conversation.item.added")
                assert (added.item.role, added.item.content[0].text) == ("user", "from the page")
                events = await client.response()
                assert words(events) == "You said: from the page."
                assert "input_audio_buffer.committed" not in types(events)
                await client.ask("from the SDK")
                assert live_words(await page.turn()) == "You said: from the SDK."
            # It is taken back with all that came after it.
            items = [each.item.id for each in client.events if each.type == "conversation.item.added"]
            await client.connection.conversation.item.delete(item_id=items[0], event_id="mine")
            error = (await client.until("error")).error
            assert (error.code, error.event_id) == ("unsupported", "mine")
            await client.connection.conversation.item.delete(item_id=items[-2])
            gone = [(await client.until("conversation.item.deleted")).item_id for _ in range(2)]
            assert gone == items[-2:]
        async with http(port) as web:
            listed = (await web.get("/sessions?user_id=ann")).json()
            assert session_id in str(listed)
        # Who comes back gets the whole conversation first.
        async with realtime(port, user_id="ann", session_id=session_id) as client:
            assert client.events[0].session.id == session_id
            for _ in range(8):
                await client.next()
            items = [each.item for each in client.events if each.type == "conversation.item.done"]
            assert [(item.role, item.content[0].text) for item in items] == [
                ("user", "hello"),
                ("assistant", "You said: hello."),
                ("user", "from the page"),
                ("assistant", "You said: from the page."),
            ]
            added = [each for each in client.events if each.type == "conversation.item.added"]
            assert [each.previous_item_id for each in added] == [None, *[item.id for item in items[:-1]]]
            assert words(await client.ask("again")) == "You said: again."
        # Another one is another conversation; and another user's is not found.
        async with realtime(port, user_id="ann") as client:
            assert client.events[0].session.id != session_id
        with pytest.raises(InvalidStatus) as no:
            async with connecting(port, query={"user_id": "ben", "session_id": session_id}):
                pass
        assert no.value.response.status_code == 404


async def test_the_key_is_a_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(a_relay(rehearsal(), secret=SECRET), log_level="debug") as port:
        with pytest.raises(InvalidStatus) as no:
            async with connecting(port, key="sk-anything"):
                pass
        assert no.value.response.status_code == 401
        async with connecting(port, key=token("ann"), query={"user_id": "ben"}) as client:
            assert (await client.next()).type == "session.created"
            assert types(await client.ask("hello"))[-1] == "response.done"
        url, key = f"ws://127.0.0.1:{port}/v1/realtime?model=x", token("ann")
        offered = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{key}")]
        async with connect(url, subprotocols=offered, proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            assert socket.subprotocol == "realtime"
        offered[1] = Subprotocol("openai-insecure-api-key.sk-secret")
        with pytest.raises(InvalidStatus):
            await connect(url, subprotocols=offered, proxy=None)
        async with http(port) as web:
            bearer = {"authorization": f"Bearer {key}"}
            assert len((await web.get("/sessions", headers=bearer)).json()["sessions"]) >= 1
    logged = [each.getMessage() for each in caplog.records if each.name.startswith(("relay", "uvicorn"))]
    assert any("openai-insecure-api-key" in line for line in logged)
    assert not any(secret in line for line in logged for secret in (key.split(".")[2], "sk-secret"))


async def test_the_sdk_comes_back_by_itself(gemini: GeminiLive) -> None:
    """It asks for the same conversation, and gets what was said in it."""
    ids: list[str] = []

    def again(event: ReconnectingEvent) -> ReconnectingOverrides:
        return {"extra_query": {"session_id": ids[0]}}

    async with serving(a_relay(grace=60)) as port:
        sdk = AsyncOpenAI(api_key="sk-x", websocket_base_url=f"ws://127.0.0.1:{port}/v1")
        connecting = sdk.realtime.connect(model="x", on_reconnecting=again, initial_delay=0.01)
        async with connecting as connection:
            said: list[str] = []
            async for event in connection:
                if event.type == "session.created":
                    assert event.session.id in (ids or [event.session.id])  # type: ignore[union-attr]
                    ids.append(event.session.id)  # type: ignore[union-attr]
                    if len(ids) == 1:
                        await Client(connection).write("hello")
                        await connection.response.create()
                elif event.type == "response.done":
                    connection._connection.transport.abort()
                elif event.type == "conversation.item.done" and len(ids) == 2:
                    said.append(event.item.content[0].text)  # type: ignore[union-attr,arg-type]
                    if len(said) == 2:
                        break
    assert said == ["hello", "You said: hello."]
