"""The events of a client: what is in a frame, checked field by field.

It is the same for the protocol that is generally available and for its beta. `session.update` is only taken
apart here: `settings.py` has the meaning of its fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adk_relay.wire.dialects import BadFrameError, Event, json_object
from adk_relay.wire.dialects.media import MAX_AUDIO_BYTES, MAX_IMAGE_BYTES, a2b
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.outbox import Frame

_MAX_EVENT_ID_CHARS = 512
_MAX_ITEM_ID_CHARS = 128
_MAX_PARTS = 64

_APPEND_HEAD = re.compile(r'\{"type": ?"input_audio_buffer\.append", ?"audio": ?"')
"""How a frame of sound begins that JSON.stringify or Python's json.dumps has made of one without an id."""


@dataclass(slots=True, frozen=True)
class ClientEvent(Event):
    """An event of a client. `event_id`: chosen by it, and named in errors; "": it has none."""

    event_id: str = field(default="", kw_only=True)


@dataclass(slots=True, frozen=True)
class Append(ClientEvent):
    """Sound from the microphone, coded as the session says."""

    audio: bytes


@dataclass(slots=True, frozen=True)
class Commit(ClientEvent):
    """The sound so far is what the user has said."""


@dataclass(slots=True, frozen=True)
class Clear(ClientEvent):
    """The sound that is not committed is given up."""


@dataclass(slots=True, frozen=True)
class ClearOutput(ClientEvent):
    """The sound of the answer that is not played yet is given up."""


@dataclass(slots=True, frozen=True)
class UpdateSession(ClientEvent):
    """Changes settings."""

    session: Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class Part:
    """A part of a user's message: a text, sound, or an image of the type `mime_type`."""

    type: str
    text: str = ""
    data: bytes = b""
    mime_type: str = ""


@dataclass(slots=True, frozen=True)
class CreateMessage(ClientEvent):
    """Adds a message of the user."""

    id: str
    parts: tuple[Part, ...]
    previous: str | None
    """The id of the item before it, or "root"; None: it comes last."""


@dataclass(slots=True, frozen=True)
class CreateOutput(ClientEvent):
    """Adds the result of a function that the client has called."""

    id: str
    call_id: str
    output: str


@dataclass(slots=True, frozen=True)
class DeleteItem(ClientEvent):
    """Removes an item."""

    item_id: str


@dataclass(slots=True, frozen=True)
class RetrieveItem(ClientEvent):
    """Asks for an item."""

    item_id: str


@dataclass(slots=True, frozen=True)
class TruncateItem(ClientEvent):
    """Says how much of an answer was played."""

    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(slots=True, frozen=True)
class CreateResponse(ClientEvent):
    """Asks for an answer."""

    response: Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class CancelResponse(ClientEvent):
    """Stops an answer. `response_id` "": the one that is under way."""

    response_id: str


def decode(frame: Frame) -> ClientEvent:
    """The event in a client's frame.

    Raises:
        RefusedError: it is not valid.
    """
    if isinstance(frame, str) and (audio := _plain_audio(frame)):
        return Append(audio)
    try:
        fields = json_object(frame)
    except BadFrameError as bad:
        code = "invalid_json" if bad.code == "bad_message" else bad.code
        raise RefusedError(code, str(bad)) from None
    event_id = fields.get("event_id")
    if event_id is not None and not (isinstance(event_id, str) and len(event_id) <= _MAX_EVENT_ID_CHARS):
        message = f"event_id must be a string of at most {_MAX_EVENT_ID_CHARS} characters."
        raise RefusedError("invalid_value", message, "event_id")
    event_id = event_id or ""
    try:
        return _event(fields, event_id)
    except RefusedError as bad:
        raise bad.about(event_id) from None


def _plain_audio(frame: str) -> bytes:
    """The sound in a frame of the usual form; b"": the frame has another form.

    This finds what parsing the JSON would find, and takes half the time.
    """
    head = _APPEND_HEAD.match(frame)
    if not (head and frame.endswith('"}', head.end())):
        return b""
    try:
        audio = a2b(frame[head.end() : -2])
    except ValueError:  # it may be base64 all the same: JSON allows "/" to be escaped
        return b""
    return audio if len(audio) <= MAX_AUDIO_BYTES else b""


def _event(fields: dict[str, Any], event_id: str) -> ClientEvent:
    event_type = fields.get("type")
    if not isinstance(event_type, str):
        raise RefusedError("missing_required_parameter", "An event needs a type, a string.", "type")
    if make := _EVENTS.get(event_type):
        return make(fields, event_id)
    message = f"The type {event_type[:64]!r} is not known here. Known types: {', '.join(sorted(_EVENTS))}."
    raise RefusedError("invalid_value", message, "type")


def _append(fields: dict[str, Any], event_id: str) -> Append:
    return Append(_base64(fields, "audio", "audio", MAX_AUDIO_BYTES), event_id=event_id)


def _update(fields: dict[str, Any], event_id: str) -> UpdateSession:
    return UpdateSession(_object(fields, "session"), event_id=event_id)


def _create(fields: dict[str, Any], event_id: str) -> ClientEvent:
    item = _object(fields, "item")
    item_id = _id(item, "id", "item.id") if item.get("id") is not None else ""
    previous = _string(fields, "previous_item_id") if fields.get("previous_item_id") is not None else None
    match item.get("type"):
        case "message":
            role = item.get("role")
            if role != "user":
                raise RefusedError("invalid_value", _ROLES, "item.role")
            return CreateMessage(item_id, _parts(item), previous, event_id=event_id)
        case "function_call_output":
            call_id, output = _string(item, "call_id", "item."), _string(item, "output", "item.")
            return CreateOutput(item_id, call_id, output, event_id=event_id)
        case _:
            message = "Only items of the types message and function_call_output can be created here."
            raise RefusedError("invalid_value", message, "item.type")


_ROLES = (
    "Only messages of the role user can be created here: what the agent has said, and what it is told before,"
    " is the agent's own. Instructions belong to session.update."
)


def _parts(item: dict[str, Any]) -> tuple[Part, ...]:
    content = item.get("content")
    if not isinstance(content, list) or not content:
        raise RefusedError("invalid_type", "content must be a list of one part or more.", "item.content")
    if len(content) > _MAX_PARTS:
        message = f"A message may have {_MAX_PARTS} parts, and this one has {len(content)}."
        raise RefusedError("too_large", message, "item.content")
    return tuple(_part(part, f"item.content[{index}]") for index, part in enumerate(content))


def _part(part: Any, param: str) -> Part:
    if not isinstance(part, dict):
        raise RefusedError("invalid_type", "A part must be an object.", param)
    match part.get("type"):
        case "input_text" | "text":
            text = _string(part, "text", f"{param}.")
            if not text.strip():
                raise RefusedError("invalid_value", "The text is empty.", f"{param}.text")
            if "\0" in text or not _is_unicode(text):
                raise RefusedError("invalid_value", "The text is not valid Unicode.", f"{param}.text")
            return Part("input_text", text)
        case "input_audio":
            return Part("input_audio", data=_base64(part, "audio", f"{param}.audio", MAX_AUDIO_BYTES))
        case "input_image":
            return _image(part, f"{param}.image_url")
        case _:
            message = "The parts of a user's message are input_text, input_audio and input_image."
            raise RefusedError("invalid_value", message, f"{param}.type")


def _image(part: dict[str, Any], param: str) -> Part:
    url = part.get("image_url")
    found = re.match(r"data:(image/(?:jpeg|png));base64,", url) if isinstance(url, str) else None
    if not (found and isinstance(url, str)):
        message = "image_url must be a data URL: data:image/jpeg;base64,… or data:image/png;base64,…"
        raise RefusedError("invalid_value", message, param)
    return Part("input_image", data=_decoded(url[found.end() :], param, MAX_IMAGE_BYTES), mime_type=found[1])


def _delete(fields: dict[str, Any], event_id: str) -> DeleteItem:
    return DeleteItem(_string(fields, "item_id"), event_id=event_id)


def _retrieve(fields: dict[str, Any], event_id: str) -> RetrieveItem:
    return RetrieveItem(_string(fields, "item_id"), event_id=event_id)


def _truncate(fields: dict[str, Any], event_id: str) -> TruncateItem:
    item_id = _string(fields, "item_id")
    index, end = _count(fields, "content_index"), _count(fields, "audio_end_ms")
    return TruncateItem(item_id, index, end, event_id=event_id)


def _response(fields: dict[str, Any], event_id: str) -> CreateResponse:
    asked = _object(fields, "response") if fields.get("response") is not None else {}
    return CreateResponse(asked, event_id=event_id)


def _cancel(fields: dict[str, Any], event_id: str) -> CancelResponse:
    response_id = _string(fields, "response_id") if fields.get("response_id") is not None else ""
    return CancelResponse(response_id, event_id=event_id)


_EVENTS: dict[str, Callable[[dict[str, Any], str], ClientEvent]] = {
    "session.update": _update,
    "input_audio_buffer.append": _append,
    "input_audio_buffer.commit": lambda fields, event_id: Commit(event_id=event_id),
    "input_audio_buffer.clear": lambda fields, event_id: Clear(event_id=event_id),
    "output_audio_buffer.clear": lambda fields, event_id: ClearOutput(event_id=event_id),
    "conversation.item.create": _create,
    "conversation.item.delete": _delete,
    "conversation.item.retrieve": _retrieve,
    "conversation.item.truncate": _truncate,
    "response.create": _response,
    "response.cancel": _cancel,
}

CLIENT_EVENTS = (*_EVENTS,)
"""The types of the events that are known."""


# ---- fields ------------------------------------------------------------------------------------


def _missing(param: str) -> RefusedError:
    return RefusedError("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if value is None:
        raise _missing(name)
    if not isinstance(value, dict):
        raise RefusedError("invalid_type", f"{name} must be an object.", name)
    return value


def _string(fields: Mapping[str, Any], name: str, before: str = "") -> str:
    value, param = fields.get(name), before + name
    if value is None:
        raise _missing(param)
    if not isinstance(value, str):
        raise RefusedError("invalid_type", f"{param} must be a string.", param)
    return value


def _id(fields: Mapping[str, Any], name: str, param: str) -> str:
    value = fields.get(name)
    if isinstance(value, str) and 0 < len(value) <= _MAX_ITEM_ID_CHARS and value.isprintable():
        return value
    message = f"{param} must be a string of 1 to {_MAX_ITEM_ID_CHARS} characters."
    raise RefusedError("invalid_value", message, param)


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if value is None:
        raise _missing(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise RefusedError("invalid_type", f"{name} must be an integer that is not negative.", name)
    return value


def _base64(fields: Mapping[str, Any], name: str, param: str, limit: int) -> bytes:
    value = fields.get(name)
    if value is None:
        raise _missing(param)
    if not isinstance(value, str):
        raise RefusedError("invalid_type", f"{param} must be a string.", param)
    return _decoded(value, param, limit)


def _decoded(data: str, param: str, limit: int) -> bytes:
    try:
        decoded = a2b(data)
    except ValueError:
        raise RefusedError("invalid_value", f"{param} must be base64.", param) from None
    if not decoded:
        raise RefusedError("invalid_value", f"{param} is empty.", param)
    if len(decoded) > limit:
        message = f"{param} has {len(decoded)} bytes; at most {limit} are allowed."
        raise RefusedError("too_large", message, param)
    return decoded


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)
