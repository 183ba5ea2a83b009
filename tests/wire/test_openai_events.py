"""The events of OpenAI's Realtime API: what is taken, what is told, and that docs/openai.md has all of it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adk_relay.core.credits import Usage
from adk_relay.core.messages import (
    Error,
    Gap,
    Line,
    Message,
    Reset,
    Text,
    ToolResult,
    ToolStart,
    TurnEnd,
    Written,
)
from adk_relay.core.shape import ClientTool, Shape
from adk_relay.core.voice import Configured, Voice
from adk_relay.wire.dialects import Reply
from adk_relay.wire.openai.events import CLIENT_EVENTS, Append, decode
from adk_relay.wire.openai.formats import FORMATS, Incoming, Outgoing
from adk_relay.wire.openai.realtime import Realtime
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.openai.settings import Settings
from adk_relay.wire.openai.updating import FIELDS
from adk_relay.wire.outbox import Sound

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "openai.md").read_text()


_OF_BETA = {"conversation.created", "conversation.item.created"}


def section(title: str) -> str:
    _, _, rest = DOCUMENT.partition(f"\n{title}\n")
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def named(text: str) -> set[str]:
    """What stands in the first cells of the tables, between backticks."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z_.]+)`", cell)}


def test_the_document_has_all_events_and_fields() -> None:
    assert named(section("## What a client sends")) == set(CLIENT_EVENTS)
    written = set[str]()
    for file in (ROOT / "adk_relay" / "wire" / "openai").glob("*.py"):
        kinds = r"session|conversation|response(?!\.metadata)|input_audio_buffer|output_audio_buffer"
        events = rf'"((?:{kinds})\.[a-z_.]+[a-z])"'
        written |= set(re.findall(events, file.read_text()))
    beta = {name for name in written if re.match(r"response\.(audio|text|audio_transcript)\.", name)}
    told = written - beta - set(CLIENT_EVENTS) - _OF_BETA | {"error"}
    assert named(section("## What a client is told")) == told
    fields = {*FIELDS} - {"type", "audio", "audio.input", "audio.output"}
    assert named(section("### `session.update`")) == fields


@given(st.binary(max_size=200), st.booleans())
def test_sound_in_the_usual_form_is_what_parsing_finds(audio: bytes, compact: bool) -> None:
    event = {"type": "input_audio_buffer.append", "audio": b64encode(audio).decode()}
    usual = json.dumps(event, separators=(",", ":") if compact else None)
    other = json.dumps({"event_id": "e", **event})
    if not audio:
        with pytest.raises(RefusedError):
            decode(usual)
        return
    assert decode(usual) == Append(audio)
    assert decode(other) == Append(audio, event_id="e")


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["type", "id", "audio", "name", "x"]), inner)
        ),
    ),
    st.sampled_from([*FIELDS]),
    st.booleans(),
)
def test_any_value_of_any_field_is_taken_or_refused(value: Any, field: str, is_beta: bool) -> None:
    session = Settings(is_beta=is_beta)
    for name in reversed(field.split(".")):
        value = {name: value}
    try:
        change = session.update(value, "e")
    except RefusedError as refused:
        assert refused.param.startswith("session.")
    else:
        assert all(each.param.startswith("session.") for each in change.refused)
    json.dumps(session.object())


@settings(max_examples=50)
@given(
    st.sampled_from(CLIENT_EVENTS),
    st.dictionaries(
        st.sampled_from(
            [
                "item",
                "item_id",
                "audio",
                "session",
                "response",
                "response_id",
                "content_index",
                "previous_item_id",
            ]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["type", "id", "role", "content", "text", "audio"]), inner)
            ),
        ),
    ),
)
def test_any_frame_is_taken_or_refused(event_type: str, fields: dict[str, Any]) -> None:
    try:
        decode(json.dumps({"type": event_type, "event_id": "mine", **fields}))
    except RefusedError as refused:
        assert refused.id == "mine"


def test_what_concerns_the_conversation_is_told_apart() -> None:
    session = Settings(is_beta=False)
    change = session.update({"instructions": "Be brief.", "output_modalities": ["text"]}, "e")
    assert change.configure
    assert (change.configure.instructions, change.configure.tools) == ("Be brief.", None)
    assert not session.has_sound
    # What is so already is no change.
    assert session.update({"instructions": "", "tools": [], "tool_choice": "auto"}, "e").configure is None
    tool = {"type": "function", "name": "paint"}
    change = session.update({"tools": [tool]}, "e")
    assert change.configure
    assert change.configure.tools == (ClientTool("paint"),)


@pytest.mark.parametrize("coded", FORMATS)
def test_sound_keeps_its_length(coded: Any) -> None:
    incoming, outgoing = Incoming(coded), Outgoing(coded)
    pieces = [incoming.decode(bytes(480)) for _ in range(10)] + [incoming.end()]
    seconds = sum(len(piece.pcm) / 2 / piece.rate for piece in pieces if piece)
    assert seconds * 1000 == pytest.approx(incoming.ms(bytes(480)) * 10, abs=0.2)
    told = b"".join(outgoing.encode(bytes(1920)) for _ in range(10)) + outgoing.end()
    assert outgoing.ms(told) == pytest.approx(400, abs=0.2)


def told(realtime: Realtime, *messages: Message) -> list[Any]:
    """The events that messages become."""
    encode = realtime.dialect().encoder("")
    frames = [frame for message in messages for frame in encode(message) or ()]
    return [json.loads(frame.frame if isinstance(frame, Sound) else str(frame)) for frame in frames]


def did(realtime: Realtime, **event: Any) -> list[Any]:
    """What an event leads to: commands, and events."""
    done: list[Any] = []
    for each in realtime.act(decode(json.dumps(event))):
        frames = each.frames if isinstance(each, Reply) else ()
        done += [json.loads(str(frame)) for frame in frames or ()] or [each]
    return done


def test_after_a_gap_the_conversation_is_told_anew() -> None:
    realtime = Realtime(is_beta=False)
    told(realtime, Written(1, "hello", "b", "", 1), Text(2, "I am", is_transcript=True))
    part = {"type": "input_text", "text": "not said yet"}
    item = {"id": "mine", "type": "message", "role": "user", "content": [part]}
    did(realtime, type="conversation.item.create", item=item)
    events = told(realtime, Gap(1, 5, 2), Line("user", "hello"), Line("agent", "I am here", open=True))
    kinds = [event["type"] for event in events]
    done = events[kinds.index("response.done")]["response"]
    assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "connection_lost")
    assert kinds.count("conversation.item.deleted") == 2
    said = [event["item"]["role"] for event in events if event["type"] == "conversation.item.added"]
    assert said == ["user", "assistant"]
    more = told(realtime, Text(6, ".", is_transcript=True), TurnEnd(7))
    assert more[-1]["response"]["output"][0]["content"][0]["transcript"] == "I am here."
    text, created = did(realtime, type="response.create")
    assert (text.text, created["type"]) == ("not said yet", "response.created")


def test_a_lost_connection_does_not_end_a_response() -> None:
    realtime = Realtime(is_beta=False)
    events = told(
        realtime,
        Text(1, "I", is_transcript=True),
        TurnEnd(2, interrupted=True, goes_on=True),
        Text(3, " am", is_transcript=True),
        TurnEnd(4),
    )
    assert [event["type"] for event in events].count("response.done") == 1
    assert events[-1]["response"]["output"][0]["content"][0]["transcript"] == "I am"


def test_how_a_response_ends() -> None:
    realtime = Realtime(is_beta=False)
    end = told(realtime, Text(1, "I"), TurnEnd(2, usage=Usage(10, 20, 5, 35)))[-1]["response"]
    assert (end["status"], end["status_details"]) == ("completed", None)
    assert (end["usage"]["input_tokens"], end["usage"]["output_tokens"]) == (10, 25)
    assert end["usage"]["total_tokens"] == 35
    events = told(realtime, Text(3, "I"), Error("model_error", "It failed."), TurnEnd(4))
    error = next(event["error"] for event in events if event["type"] == "error")
    assert (error["type"], error["code"], error["event_id"]) == ("server_error", "model_error", None)
    assert (events[-1]["response"]["status"], events[-1]["response"]["usage"]) == ("failed", None)
    # A text that the conversation refuses is not answered.
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    did(realtime, type="conversation.item.create", item=item)
    text, _ = did(realtime, type="response.create", event_id="mine")
    events = told(realtime, Error("refused", "Not that.", text.id))
    assert [event["type"] for event in events] == ["error", "response.done"]
    assert (events[0]["error"]["code"], events[0]["error"]["event_id"]) == ("refused", "mine")
    assert events[1]["response"]["status"] == "failed"


def test_an_emptied_conversation_has_no_items() -> None:
    realtime = Realtime(is_beta=False)
    told(realtime, Written(1, "hello", "b", "", 1), Text(2, "I am"))
    events = told(realtime, Reset("e", deleted=False))
    deleted = [event for event in events if event["type"] == "conversation.item.deleted"]
    assert (len(deleted), events.index(deleted[0])) == (2, len(events) - 2)
    added = told(realtime, Written(1, "hello", "b", "", 1))[0]
    assert added["previous_item_id"] is None


def test_a_call_is_told_once_and_its_output_may_be_refused() -> None:
    realtime = Realtime(is_beta=False)
    told(realtime, Configured(Voice(), Shape(tools=(ClientTool("paint"),), push_to_talk=False)))
    call = ToolStart(1, "call-1", "paint", {"color": "red"}, "", is_pending=True)
    kinds = [event["type"] for event in told(realtime, call, replace(call, interim="soon"), TurnEnd(2))]
    assert kinds.count("response.function_call_arguments.done") == kinds.count("response.done") == 1
    again = told(realtime, Gap(1, 5, 0), replace(call, seq=0))
    assert [event["type"] for event in again] == []
    output = {"type": "function_call_output", "call_id": "call-1", "output": '{"done": true}'}
    added, _, result = did(realtime, type="conversation.item.create", item=output, event_id="mine")
    assert (added["item"]["output"], result) == (output["output"], ToolResult("call-1", {"done": True}))
    [error] = told(realtime, Error("bad_data", "It is of no use.", tool_id="call-1"))
    assert error["error"]["event_id"] == "mine"
    with pytest.raises(RefusedError, match="nothing to answer"):
        did(realtime, type="response.create")


@pytest.mark.parametrize("code", ["agent_failed", "model_refused", "model_unavailable"])
def test_a_response_has_failed_before_the_socket_is_closed(code: str) -> None:
    encode = Realtime(is_beta=False).dialect().encoder("")
    encode(Text(1, "half"))
    frames = encode(Error(code, "Later."))
    assert isinstance(frames, tuple)
    told = [json.loads(str(frame)) for frame in frames]
    assert (told[0]["type"], told[0]["error"]["type"]) == ("error", "server_error")
    response = told[-1]["response"]
    assert (response["status"], response["status_details"]["error"]["code"]) == ("failed", code)
    assert response["output"][0]["content"][0]["text"] == "half"
