"""Frames from a client: any frame is a command or is refused, and what is valid comes through as it is."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from adk_relay.core.messages import (
    ActivityStart,
    AudioEnd,
    Interrupt,
    UserAudio,
    UserImage,
    UserText,
)
from adk_relay.wire.dialects import BadFrameError
from adk_relay.wire.dialects.fields import to_json
from adk_relay.wire.dialects.live import _plain_content, decode
from adk_relay.wire.strict_json import JSON_LIMITS

CODES = {"bad_message", "unsupported_mime_type", "bad_data", "too_large"}
any_text = st.text(st.characters(exclude_categories=[]))  # halves of surrogate pairs as well

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
    max_leaves=8,
)

mime_types = st.sampled_from(
    ["text/plain", "audio/pcm", "audio/pcm;rate=24000", "audio/pcm;rate=", "image/png", "image/jpeg", ";", ""]
)

types = st.sampled_from(["audio_end", "interrupt", "ping", "pong", "hello"])
base64 = st.binary().map(lambda data: b64encode(data).decode())

near_misses = st.fixed_dictionaries(
    {},
    optional={
        "mime_type": mime_types | any_json,
        "type": types | any_json,
        "data": base64 | any_json,
        "more": any_json,
    },
)


def check(frame: str | bytes) -> None:
    try:
        command = decode(frame)
    except BadFrameError as bad:
        assert bad.code in CODES
        assert str(bad)
        to_json({"message": str(bad)}).encode()  # can be sent to the client
        return
    match command:
        case UserText(text):
            assert text.strip()
            text.encode()
        case UserAudio(pcm, rate):
            assert len(pcm) >= 2
            assert len(pcm) % 2 == 0
            assert 8_000 <= rate <= 192_000
        case UserImage(data, mime_type):
            assert data
            assert mime_type in ("image/png", "image/jpeg")
        case _:
            assert command in (ActivityStart(), AudioEnd(), Interrupt(), "ping", "pong")


@given(any_text | st.binary())
def test_any_frame_is_a_command_or_a_bad_frame(frame: str | bytes) -> None:
    check(frame)


@given(any_json | near_misses, st.booleans())
def test_any_json_is_a_command_or_a_bad_frame(said: Any, escaped: bool) -> None:
    check(json.dumps(said, ensure_ascii=escaped))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_a_text_comes_through_as_it_is(text: str) -> None:
    assert decode(json.dumps({"mime_type": "text/plain", "data": text})) == UserText(text)


@given(st.binary(min_size=1).map(lambda half: half + half), st.integers(8_000, 192_000))
def test_sound_comes_through_as_it_is(pcm: bytes, rate: int) -> None:
    said = {"mime_type": f"audio/pcm;rate={rate}", "data": b64encode(pcm).decode()}
    assert decode(json.dumps(said)) == UserAudio(pcm, rate)
    assert decode(pcm) == UserAudio(pcm)


# ---- sound in its usual form is decoded without parsing its JSON -------------------------------


def outcome(frame: str) -> Any:
    """The command, or what is wrong."""
    try:
        return decode(frame)
    except BadFrameError as bad:
        return bad.code, str(bad), bad.id


def parsed_outcome(frame: str) -> Any:
    """The outcome of the same fields in another order, in which no form is usual."""
    try:
        fields = json.loads(frame)
    except ValueError:
        return "bad_message", f"A text frame must be JSON{JSON_LIMITS}.", ""
    return outcome(json.dumps({"": 0} | fields) if isinstance(fields, dict) else frame)


usual_frames = st.builds(
    lambda parameter, data, separators: json.dumps(
        {"mime_type": f"audio/pcm{parameter}", "data": data}, separators=separators
    ),
    st.sampled_from(["", "", ";rate=16000", ";rate=48000", ";rate=7999", ";rate=1", ";rate=", "; rate=9000"]),
    base64 | st.binary(max_size=9).map(lambda half: b64encode(half + half).decode()) | any_text,
    st.sampled_from([(",", ":"), (", ", ": "), (", ", ":")]),
)
"""Frames of sound as clients make them, right ones and wrong ones."""

edits = st.lists(
    st.tuples(
        st.integers(-40, 40), st.integers(0, 2), st.text('"{}:,;\\\\/=+-_A \n\u0661\u00c4', max_size=3)
    ),
    max_size=2,
)
"""Each: the place where characters are replaced, how many of them, and by what."""


@given(usual_frames, edits)
@example('{"mime_type":"audio/pcm","data":"AA\\/\\/"}', [])
@example('{"mime_type":"audio/pcm","data":"AAAA","data":"AA=="}', [])
@example('{"mime_type":"audio/pcm","data":"AAAA"}}', [])
@example('{"mime_type":"audio/pcm","data":"AAAAA"', [])
@example('{"mime_type":"audio/pcm","data":"AAAA]}', [])
@example('{"mime_type":"audio/pcm","data":"}', [])
@example('{"mime_type":"audio/pcm","data":"' + b64encode(bytes(2**20 + 2)).decode() + '"}', [])
@example('{"mime_type":"audio/pcm;rate=1","data":"' + b64encode(bytes(2**20 + 2)).decode() + '"}', [])
def test_sound_in_its_usual_form_is_what_its_json_says(frame: str, edits: list[tuple[int, int, str]]) -> None:
    for place, count, text in edits:
        place %= len(frame)
        frame = frame[:place] + text + frame[place + count :]
    assert outcome(frame) == parsed_outcome(frame)


def test_what_common_clients_send_is_in_the_usual_form() -> None:
    """A browser's `JSON.stringify` and Python's `json.dumps`, with a rate and without one."""
    for parameter in ("", ";rate=48000"):
        fields = {"mime_type": f"audio/pcm{parameter}", "data": "AAAAAA=="}
        for separators in ((",", ":"), None):
            assert _plain_content(json.dumps(fields, separators=separators))
