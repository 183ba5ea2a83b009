"""Frames of Twilio's Media Streams: sound is read in a short way, and means the same as JSON."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from adk_relay.wire.closing import Close
from adk_relay.wire.dialects import BadFrameError
from adk_relay.wire.sound import pcm_of_ulaw
from adk_relay.wire.twilio import frames
from support.caller import started

ULAW = bytes(range(160))


def frame(payload: object, track: str = "inbound") -> dict[str, object]:
    media = {"track": track, "chunk": "44", "timestamp": "880", "payload": payload}
    return {"event": "media", "sequenceNumber": "45", "media": media, "streamSid": "MZ0123456789abcdef"}


def test_sound_means_the_same_in_any_form() -> None:
    fields = frame(b64encode(ULAW).decode())
    usual = [json.dumps(fields, separators=(",", ":")), json.dumps(fields)]
    assert all(frames._MEDIA.fullmatch(each) for each in usual)
    others = [json.dumps(fields, sort_keys=True), json.dumps(fields, indent=1), usual[0].replace("/", "\\/")]
    for each in usual + others:
        assert frames.decode(each) == frames.Media(pcm_of_ulaw(ULAW))
    assert isinstance(frames.decode(json.dumps(frame("/w==", "outbound"))), frames.Nothing)
    for payload, code in (
        ("", "bad_data"),
        ("====", "bad_data"),
        ("A" * 65_536, "too_large"),
        (7, "bad_data"),
    ):
        for form in (json.dumps(frame(payload)), json.dumps(frame(payload), sort_keys=True)):
            with pytest.raises(BadFrameError) as bad:
                frames.decode(form)
            assert bad.value.code == code, payload


def test_a_start_that_is_wrong_closes_the_call_and_says_why() -> None:
    start = frames.decode(json.dumps(started()))
    more = started(token="t")
    more["start"]["mediaFormat"]["bitRate"] = 64_000  # Twilio may add something
    assert frames.decode(json.dumps(more)) == frames.Start(start.stream_sid, start.call_sid, {"token": "t"})  # type: ignore[attr-defined]
    for field, value, why in (
        ("callSid", "../new", "start.callSid must be an identifier of Twilio."),
        ("streamSid", None, "start.streamSid must be an identifier of Twilio."),
        ("mediaFormat", None, "start.mediaFormat is null, not audio/x-mulaw, 8000 Hz, mono."),
        ("mediaFormat", {"encoding": "audio/x-l16", "sampleRate": 16000, "channels": 1}, "not audio/x-mulaw"),
        ("customParameters", {"user_id": 7}, "start.customParameters must be an object of strings."),
    ):
        wrong = started()
        wrong["start"][field] = value
        with pytest.raises(Close) as closed:
            frames.decode(json.dumps(wrong))
        assert closed.value.frame.code == 1008
        assert why in closed.value.frame.reason
