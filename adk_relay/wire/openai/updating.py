"""`session.update`: each field, what it may be, and what it means.

What relay can't do is refused by name, and the rest of the event holds. Some fields have no meaning for an
ADK agent and change nothing that it says; they are taken, and the session object shows their real value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from adk_relay.core.shape import ClientTool
from adk_relay.core.voice import Choices
from adk_relay.wire.dialects.fields import to_json
from adk_relay.wire.dialects.shaping import is_number
from adk_relay.wire.openai.formats import BETA, FORMATS, NOT_INSTALLED, Format
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.sound import is_installed

_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer"}
    | {"verse"}
)
"""OpenAI's own voices. No agent here has them, and many clients name one: the agent then keeps its own."""

_TRANSCRIPTION = {
    "model": str,
    "language": str,
    "prompt": str,
    "delay": str,
    "keywords": list,
    "languages": list,
}
"""The fields of `audio.input.transcription`, and their types; lists are of strings."""

_MAX_TRANSCRIPTION = 8 * 1024
"""Characters of that object as JSON: each `session.updated` shows it."""

_MAX_REFUSED = 32
"""Fields that are refused one by one."""

_MAX_NAME = 64
"""Characters of a field's name in errors."""

Detection = Literal["server_vad", "semantic_vad"]


@dataclass(slots=True, frozen=True)
class Local:
    """What concerns this socket alone."""

    has_sound: bool = True
    """Whether the client wants answers as sound and its transcript, and not as text."""
    incoming: Format = "audio/pcm"
    outgoing: Format = "audio/pcm"
    detection: Detection = "server_vad"
    """What the client calls the model's own detection of speech, where that is on."""
    transcription: Mapping[str, Any] | None = None
    """What the client has asked for; None: it wants no transcripts of what its user says."""


class Draft:
    """What one `session.update` sets, field by field. Nothing holds until all fields were looked at."""

    def __init__(self, local: Local, choices: Choices) -> None:
        self.local = local
        self.voice: str | None = None
        self.instructions: str | None = None
        self.tools: tuple[ClientTool, ...] | None = None
        self.is_manual: bool | None = None
        self.temperature: float | None = None
        self.refused: list[RefusedError] = []
        self._choices = choices

    def take(self, fields: Mapping[str, Any], path: str) -> None:
        """Takes the fields of the session, or of an object in it."""
        for name, value in fields.items():
            param = f"{path}.{name[:_MAX_NAME]}"
            field = param.removeprefix("session.")
            if take := FIELDS.get(field) or _FLAT.get(field):
                take(self, value, param)
            else:
                self.refuse("unknown_parameter", f"Unknown parameter: '{param}'.", param)

    def refuse(self, code: str, message: str, param: str) -> None:
        """One field can't be had; the others hold, unless it is one of very many."""
        if len(self.refused) == _MAX_REFUSED:
            raise RefusedError(
                "invalid_value", f"Over {_MAX_REFUSED} fields are wrong: nothing was changed.", "session"
            )
        self.refused.append(RefusedError(code, message, param))


def _wrong(param: str, right: str) -> RefusedError:
    return RefusedError("invalid_type", f"Invalid type for '{param}': expected {right}.", param)


def _type(draft: Draft, value: Any, param: str) -> None:
    if value != "realtime":
        message = "Only sessions of the type realtime are served here: transcription needs no agent."
        raise RefusedError("invalid_value", message, param)


def _nested(draft: Draft, value: Any, param: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _wrong(param, "an object")
    draft.take(value, param)


def _instructions(draft: Draft, value: Any, param: str) -> None:
    if not isinstance(value, str | None):
        raise _wrong(param, "a string")
    draft.instructions = value or ""


def _voice(draft: Draft, value: Any, param: str) -> None:
    name = value.get("id") if isinstance(value, dict) else value
    if not isinstance(name, str | None):
        raise _wrong(param, "a string")
    if name in draft._choices.voices:
        draft.voice = name
    elif name and name not in _VOICES:
        voices = ", ".join(draft._choices.voices)
        which = f"choose one of these: {voices}" if voices else "voices can't be chosen here"
        draft.refuse("invalid_value", f"The agent has no voice {name[:64]!r}: {which}.", param)


def _modalities(draft: Draft, value: Any, param: str) -> None:
    if not isinstance(value, list) or not value or not {*map(str, value)} <= {"text", "audio"}:
        raise _wrong(param, '["audio"] or ["text"]')
    draft.local = replace(draft.local, has_sound="audio" in value)


def _format_of(value: Any, param: str) -> Format | None:
    """The format that a client names; None: it leaves it as it is."""
    name, rate = (value.get("type"), value.get("rate")) if isinstance(value, dict) else (value, None)
    if name is None and not rate:
        return None
    found: Format | None = BETA.get(name) if isinstance(name, str) else None
    found = found or next((each for each in FORMATS if each == name), None)
    if found is None:
        raise RefusedError("invalid_value", f"{param} must be one of: {', '.join(FORMATS)}.", param)
    if found == "audio/pcm" and rate not in (None, 24_000):
        raise RefusedError("invalid_value", "The rate of audio/pcm is 24000.", param)
    return found


def _incoming(draft: Draft, value: Any, param: str) -> None:
    if (found := _format_of(value, param)) and _can_code(draft, found, param):
        draft.local = replace(draft.local, incoming=found)


def _outgoing(draft: Draft, value: Any, param: str) -> None:
    if (found := _format_of(value, param)) and _can_code(draft, found, param):
        draft.local = replace(draft.local, outgoing=found)


def _can_code(draft: Draft, wanted: Format, param: str) -> bool:
    if wanted == "audio/pcm" or is_installed():
        return True
    draft.refuse("unsupported", NOT_INSTALLED, param)
    return False


def _transcription(draft: Draft, value: Any, param: str) -> None:
    if not isinstance(value, dict | None):
        raise _wrong(param, "an object or null")
    known = dict[str, Any]()
    for name, each in (value or {}).items():
        where, kind = f"{param}.{name[:_MAX_NAME]}", _TRANSCRIPTION.get(name)
        if kind is None:
            draft.refuse("unknown_parameter", f"Unknown parameter: '{where}'.", where)
            continue
        strings = each if kind is list and isinstance(each, list) else [each]
        if each is not None and not all(isinstance(word, str) for word in strings):
            raise _wrong(where, "a string" if kind is str else "a list of strings")
        known[name] = each
    if len(to_json(known)) > _MAX_TRANSCRIPTION:
        raise RefusedError("too_large", f"At most {_MAX_TRANSCRIPTION} characters are allowed.", param)
    draft.local = replace(draft.local, transcription=None if value is None else known)


def _detection(draft: Draft, value: Any, param: str) -> None:
    if value is None:
        draft.is_manual = True
        return
    if not isinstance(value, dict):
        raise _wrong(param, "an object or null")
    kind = value.get("type", "server_vad")
    if kind not in ("server_vad", "semantic_vad"):
        raise RefusedError("invalid_value", f"{param}.type must be server_vad or semantic_vad.", param)
    draft.is_manual = False
    draft.local = replace(draft.local, detection=kind)
    for name in ("create_response", "interrupt_response"):
        if value.get(name) is False:
            message = f"{name} can't be false: the model answers, and is interrupted, by itself."
            draft.refuse("unsupported", message, f"{param}.{name}")


def _tools(draft: Draft, value: Any, param: str) -> None:
    if not isinstance(value, list | None):
        raise _wrong(param, "a list")
    tools = list[ClientTool]()
    for index, fields in enumerate(value or ()):
        where = f"{param}[{index}]"
        if not isinstance(fields, dict):
            raise _wrong(where, "an object")
        if fields.get("type", "function") != "function":
            draft.refuse("unsupported", "Only tools of the type function can be added here.", f"{where}.type")
            continue
        tools.append(_tool(fields, where))
    draft.tools = tuple(tools)


def _tool(fields: dict[str, Any], param: str) -> ClientTool:
    name, description, parameters = (fields.get(each) for each in ("name", "description", "parameters"))
    if not isinstance(name, str):
        raise _wrong(f"{param}.name", "a string")
    if not isinstance(description, str | None):
        raise _wrong(f"{param}.description", "a string")
    if not isinstance(parameters, dict | None):
        raise _wrong(f"{param}.parameters", "a JSON schema, an object")
    return ClientTool(name, description or "", parameters)


def _temperature(draft: Draft, value: Any, param: str) -> None:
    if value is None:
        return
    if not is_number(value):
        raise _wrong(param, "a number")
    draft.temperature = float(value)


def _only(*allowed: Any, why: str) -> Callable[[Draft, Any, str], None]:
    """A field that can have these values only, because others can't be had from an ADK agent."""

    def take(draft: Draft, value: Any, param: str) -> None:
        is_bool = isinstance(value, bool)
        if not any(value == each and isinstance(each, bool) == is_bool for each in allowed):
            draft.refuse("unsupported", why, param)

    return take


def _ignored(draft: Draft, value: Any, param: str) -> None:
    """A field that changes nothing of what the agent says: the session object shows it as it is."""


_MAX_TOKENS = _only(None, "inf", why="The length of answers can't be limited here.")
_SPEED = _only(None, 1, why="The agent speaks at its own speed.")

FIELDS: dict[str, Callable[[Draft, Any, str], None]] = {
    "type": _type,
    "instructions": _instructions,
    "tools": _tools,
    "tool_choice": _only(None, "auto", why="The model chooses its tools by itself: only auto is possible."),
    "parallel_tool_calls": _only(None, True, why="The model may call several tools at once."),
    "temperature": _temperature,
    "output_modalities": _modalities,
    "max_output_tokens": _MAX_TOKENS,
    "prompt": _only(None, why="Stored prompts are OpenAI's: use instructions."),
    "reasoning": _only(None, why="How much the model thinks can't be set here."),
    "include": _only(None, [], why="There are no log probabilities here."),
    "audio": _nested,
    "audio.input": _nested,
    "audio.input.format": _incoming,
    "audio.input.transcription": _transcription,
    "audio.input.turn_detection": _detection,
    "audio.output": _nested,
    "audio.output.format": _outgoing,
    "audio.output.voice": _voice,
    "audio.output.speed": _SPEED,
    # Without effect: the model is the server's, it hears the sound as it comes, and its context is ADK's.
    "model": _ignored,
    "audio.input.noise_reduction": _ignored,
    "tracing": _ignored,
    "truncation": _ignored,
}
"""The fields by their path in the session."""

_FLAT: dict[str, Callable[[Draft, Any, str], None]] = {
    "modalities": _modalities,
    "voice": _voice,
    "speed": _SPEED,
    "input_audio_format": _incoming,
    "output_audio_format": _outgoing,
    "input_audio_transcription": _transcription,
    "input_audio_noise_reduction": _ignored,
    "turn_detection": _detection,
    "max_response_output_tokens": _MAX_TOKENS,
}
"""Those of the beta besides, in which all is flat."""
