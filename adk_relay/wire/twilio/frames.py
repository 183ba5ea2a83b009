"""The frames of Twilio's Media Streams: JSON objects with an `event`, in both directions.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adk_relay.wire.closing import BAD_FRAMES, Close
from adk_relay.wire.dialects import BadFrameError, Event, is_name, json_object
from adk_relay.wire.dialects.fields import to_json
from adk_relay.wire.dialects.media import decode_base64
from adk_relay.wire.outbox import Frame
from adk_relay.wire.sound import pcm_of_ulaw
from adk_relay.wire.twilio.keys import KEYS

MAX_SOUND_BYTES = 32 * 1024
"""Bytes of sound in one frame. Twilio sends 160 of them, which are 20 ms."""

_MAX_NAME_CHARS = 256
"""Characters of the name of a mark; relay's own have a few."""

_FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}

_MEDIA = re.compile(
    r'\{"event": ?"media", ?"sequenceNumber": ?"\d+", ?"media": ?\{"track": ?"inbound", ?"chunk": ?"\d+",'
    r' ?"timestamp": ?"\d+", ?"payload": ?"([^"\\]*)"\}, ?"streamSid": ?"\w+"\}'
)
"""A frame of sound as Twilio sends it, fifty times a second: to parse it as JSON takes longer."""


@dataclass(slots=True, frozen=True)
class Start(Event):
    """The call begins.

    `params`: what its TwiML says in `<Parameter>`. They may hold a token, so they are not shown.
    """

    stream_sid: str
    call_sid: str
    params: Mapping[str, str] = field(repr=False)


@dataclass(slots=True, frozen=True)
class Media(Event):
    """What the caller says: 16-bit PCM at 8 kHz."""

    pcm: bytes


@dataclass(slots=True, frozen=True)
class Key(Event):
    """The caller has pressed a key."""

    key: str


@dataclass(slots=True, frozen=True)
class Mark(Event):
    """The sound before this mark was played, or was cut."""

    name: str


@dataclass(slots=True, frozen=True)
class Stop(Event):
    """The call is over."""


@dataclass(slots=True, frozen=True)
class Nothing(Event):
    """A frame that asks for nothing."""


def decode(frame: Frame) -> Event:
    """What a frame of Twilio says. Kinds of frames that are not known are nothing: Twilio may add some.

    Raises:
        BadFrameError: the frame is not valid.
        Close: it is a `start` that is not valid. No other one will come, and the caller waits.
    """
    if isinstance(frame, str) and (media := _MEDIA.fullmatch(frame)):
        return _sound(media[1])
    fields = json_object(frame)
    kind = fields.get("event")
    if not isinstance(kind, str):
        raise BadFrameError("bad_message", "A frame needs an event, such as media.")
    inner = fields.get(kind, {})
    if not isinstance(inner, dict):
        raise BadFrameError("bad_data", f"{kind} must be an object.")
    match kind:
        case "media":
            return _media(inner)
        case "mark":
            name = inner.get("name")
            if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS:
                raise BadFrameError("bad_data", "mark.name must be that of a mark that was sent.")
            return Mark(name)
        case "dtmf":
            key = inner.get("digit")
            if not (isinstance(key, str) and len(key) == 1 and key in KEYS):
                raise BadFrameError("bad_data", f"dtmf.digit must be one of {KEYS}.")
            return Key(key)
        case "start":
            try:
                return _start(inner)
            except BadFrameError as bad:
                raise Close(BAD_FRAMES.because(str(bad))) from None
        case "stop":
            return Stop()
    return Nothing()


def _media(media: dict[str, Any]) -> Event:
    if media.get("track", "inbound") != "inbound":
        return Nothing()  # what the caller hears
    payload = media.get("payload")
    if not isinstance(payload, str):
        raise BadFrameError("bad_data", "media.payload must be a string.")
    return _sound(payload)


def _sound(payload: str) -> Media:
    return Media(pcm_of_ulaw(decode_base64(payload, MAX_SOUND_BYTES)))


def _start(start: dict[str, Any]) -> Start:
    stream_sid, call_sid = start.get("streamSid"), start.get("callSid")
    for name, sid in (("streamSid", stream_sid), ("callSid", call_sid)):
        if not (isinstance(sid, str) and is_name(sid) and len(sid) <= 64):
            raise BadFrameError("bad_data", f"start.{name} must be an identifier of Twilio.")
    found = start.get("mediaFormat")
    if not (isinstance(found, dict) and _FORMAT.items() <= found.items()):
        # Short enough for the reason of a close.
        message = f"start.mediaFormat is {to_json(found)[:64]}, not audio/x-mulaw, 8000 Hz, mono."
        raise BadFrameError("bad_data", message)
    params = start.get("customParameters") or {}
    if not (isinstance(params, dict) and all(isinstance(value, str) for value in params.values())):
        raise BadFrameError("bad_data", "start.customParameters must be an object of strings.")
    assert isinstance(stream_sid, str) and isinstance(call_sid, str)
    return Start(stream_sid, call_sid, params)


class Out:
    """Makes the frames that Twilio gets, for one stream."""

    def __init__(self, stream_sid: str) -> None:
        sid = to_json(stream_sid)
        self._media = f'{{"event":"media","streamSid":{sid},"media":{{"payload":"'
        self._mark = f'{{"event":"mark","streamSid":{sid},"mark":{{"name":"'
        self.clear: Frame = f'{{"event":"clear","streamSid":{sid}}}'
        """Twilio forgets the sound that was not played, and sends the marks in it back."""

    def media(self, payload: str) -> Frame:
        """Sound, in base64."""
        return f'{self._media}{payload}"}}}}'

    def mark(self, name: str) -> Frame:
        """Twilio sends the mark back when the sound before it was played; the name needs no escape."""
        return f'{self._mark}{name}"}}}}'
