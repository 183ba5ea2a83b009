"""Messages as frames, where the dialects differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adk_relay.core.answer import Asked
from adk_relay.core.messages import Audio, Error, Presence, Taken, Text, TurnStart, UserText
from adk_relay.wire.dialects.chat import encoder
from adk_relay.wire.dialects.live import live
from adk_relay.wire.outbox import Frames


def chat(frames: Frames) -> list[dict[str, Any]]:
    """The frames of the chat dialect, without their times."""
    assert isinstance(frames, tuple)
    decoded = [json.loads(frame) for frame in frames if isinstance(frame, str)]
    for frame in decoded:
        del frame["timestamp"]
    return decoded


@pytest.mark.parametrize(("ahead", "state"), [(0, "thinking"), (1, "waits for 1"), (15, "waits for 15")])
def test_the_status_of_a_request_counts_those_ahead(ahead: int, state: str) -> None:
    (status,) = chat(encoder("room")(Taken(UserText("hello", "c0ffee"), ahead, 7)))
    assert state in status.pop("message")
    assert status == {
        "type": "status",
        "ahead": ahead,
        "context_messages": 7,
        "session_id": "room",
        "id": "c0ffee",
    }


def test_a_text_without_an_id_has_no_id_in_its_frames() -> None:
    (status,) = chat(encoder("room")(Taken(UserText("hello"), 0, 0)))
    (start,) = chat(encoder("room")(TurnStart(Asked("somebody", ""))))
    (error,) = chat(encoder("room")(Error("busy", "Too much.")))
    assert all("id" not in frame for frame in (status, start, error))


def test_frames_outside_a_room_have_no_session_id() -> None:
    (error,) = chat(encoder("")(Error("unknown_session", "There is none.")))
    assert error == {"type": "error", "code": "unknown_session", "message": "There is none."}


def test_an_answer_without_a_request_has_no_connection_id() -> None:
    (start,) = chat(encoder("room")(TurnStart(None)))
    assert start == {
        "type": "response_start",
        "total_length": None,
        "connection_id": None,
        "session_id": "room",
    }


def test_presence_is_a_frame_for_each_connection_in_chat_and_one_frame_in_live() -> None:
    presence = Presence(("a", "b"), ("c",), 2)
    updates = [(frame["update_type"], frame["connection_id"]) for frame in chat(encoder("room")(presence))]
    assert updates == [("user_joined", "a"), ("user_joined", "b"), ("user_disconnected", "c")]
    frame = live(is_audio=False, binary=False, newest=False).encoder("room")(presence)
    assert isinstance(frame, str)
    assert json.loads(frame) == {"type": "presence", "joined": ["a", "b"], "left": ["c"], "connections": 2}


def test_sound_is_base64_or_binary_or_left_out() -> None:
    sound = Audio(258, b"\1\2")
    assert live(is_audio=True, binary=True, newest=False).encoder("")(sound) == b"\0\0\1\2\1\2"
    frame = live(is_audio=True, binary=False, newest=False).encoder("")(sound)
    assert isinstance(frame, str)
    assert json.loads(frame) == {"mime_type": "audio/pcm", "data": "AQI=", "seq": 258}
    assert live(is_audio=False, binary=True, newest=False).encoder("")(sound) is None


def test_only_a_transcript_is_marked_as_one() -> None:
    encode = live(is_audio=False, binary=False, newest=False).encoder("")
    assert encode(Text(1, "Hello")) == '{"mime_type":"text/plain","data":"Hello","seq":1}'
    assert (
        encode(Text(2, "Hello", is_transcript=True))
        == '{"mime_type":"text/plain","data":"Hello","is_transcript":true,"seq":2}'
    )
