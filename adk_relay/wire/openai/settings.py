"""The session object: what a client may set by `session.update`, and how it is shown.

What relay can't do is refused by name, and the rest of the event holds. Some fields have no meaning for an
ADK agent and change nothing that it says; they are taken, and the session object shows their real value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from adk_relay.core.shape import PLAIN, ClientTool, Shape
from adk_relay.core.voice import MODELS_OWN, NO_CHOICES, Choices, Configure, Voice
from adk_relay.wire.dialects import Welcome
from adk_relay.wire.openai.formats import (
    BETA,
    FORMATS,
    NAMES_IN_BETA,
    NOT_INSTALLED,
    Format,
)
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.sound import is_installed

_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer"}
    | {"verse"}
)
"""OpenAI's own voices. No agent here has them, and many clients name one: the agent then keeps its own."""

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


class Change(NamedTuple):
    """What a `session.update` means.

    `configure`: what concerns the conversation; None: nothing does. `refused`: what can't be done.
    """

    configure: Configure | None
    refused: list[RefusedError]


class Settings:
    """The settings of one socket and of its conversation.

    `local` is what the client has set. `voice` and `shape` are what the conversation has told.
    """

    def __init__(self, *, is_beta: bool) -> None:
        self._is_beta = is_beta
        self.session_id = ""
        self._model = ""
        self._choices: Choices = NO_CHOICES
        self.local = Local()
        self.voice: Voice = MODELS_OWN
        self.shape: Shape = PLAIN

    def enter(self, welcome: Welcome) -> None:
        """The socket attends a conversation."""
        self.session_id, self._model = welcome.session_id, welcome.model
        self._choices, self.voice = welcome.choices, welcome.voice
        self.shape = welcome.shape

    @property
    def conversation_id(self) -> str:
        """What the API calls the conversation."""
        return f"conv_{self.session_id}"

    @property
    def has_sound(self) -> bool:
        """Whether answers are told as sound."""
        return self.local.has_sound

    @property
    def is_manual(self) -> bool:
        """Whether the client says where its user's speech begins and ends."""
        return bool(self.shape.push_to_talk)

    @property
    def tools(self) -> frozenset[str]:
        """The names of the functions that clients have."""
        return frozenset(tool.name for tool in self.shape.tools)

    def update(self, session: Mapping[str, Any], event_id: str) -> Change:
        """Takes the `session` of a `session.update`. What concerns the conversation is not changed yet.

        Raises:
            RefusedError: something is of the wrong type; nothing is changed.
        """
        draft = _Draft(self.local, self._choices)
        draft.take(session, "session")
        self.local = draft.local
        now, configure = self.shape, Configure(id=event_id)
        if draft.voice is not None and draft.voice != self.voice.name:
            configure = replace(configure, voice=draft.voice)
        if draft.instructions is not None and draft.instructions != now.instructions:
            configure = replace(configure, instructions=draft.instructions)
        if draft.tools is not None and draft.tools != now.tools:
            configure = replace(configure, tools=draft.tools)
        if draft.is_manual is not None and draft.is_manual != self.is_manual:
            configure = replace(configure, push_to_talk=draft.is_manual)
        if draft.temperature is not None and draft.temperature != now.temperature:
            configure = replace(configure, temperature=draft.temperature)
        return Change(None if configure == Configure(id=event_id) else configure, draft.refused)

    # ---- how they are shown ----

    def object(self) -> dict[str, Any]:
        """The session as the API shows it."""
        fields = {
            "type": "realtime",
            "object": "realtime.session",
            "id": self.session_id,
            "model": self._model,
            "instructions": self.shape.instructions,
            "tools": [_shown(tool) for tool in self.shape.tools],
            "tool_choice": "auto",
        }
        return fields | (self._flat() if self._is_beta else self._nested())

    def of_response(self) -> dict[str, Any]:
        """The settings that a response shows."""
        if self._is_beta:
            return {
                "modalities": self._beta_modalities(),
                "voice": self.voice.name or None,
                "output_audio_format": NAMES_IN_BETA[self.local.outgoing],
                "max_output_tokens": "inf",
            }
        output = {"format": FORMATS[self.local.outgoing], "voice": self.voice.name or None}
        return {
            "output_modalities": ["audio" if self.has_sound else "text"],
            "audio": {"output": output},
            "max_output_tokens": "inf",
        }

    def _nested(self) -> dict[str, Any]:
        local = self.local
        return {
            "output_modalities": ["audio" if self.has_sound else "text"],
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "include": None,
            "audio": {
                "input": {
                    "format": FORMATS[local.incoming],
                    "transcription": local.transcription,
                    "noise_reduction": None,
                    "turn_detection": self._detection(),
                },
                "output": {
                    "format": FORMATS[local.outgoing],
                    "voice": self.voice.name or None,
                    "speed": 1.0,
                },
            },
        }

    def _flat(self) -> dict[str, Any]:
        local = self.local
        return {
            "modalities": self._beta_modalities(),
            "voice": self.voice.name or None,
            "speed": 1.0,
            "input_audio_format": NAMES_IN_BETA[local.incoming],
            "output_audio_format": NAMES_IN_BETA[local.outgoing],
            "input_audio_transcription": local.transcription,
            "input_audio_noise_reduction": None,
            "turn_detection": self._detection(),
            "temperature": 0.8 if self.shape.temperature is None else self.shape.temperature,
            "max_response_output_tokens": "inf",
            "tracing": None,
        }

    def _detection(self) -> dict[str, Any] | None:
        if self.is_manual:
            return None
        return {"type": self.local.detection, "create_response": True, "interrupt_response": True}

    def _beta_modalities(self) -> list[str]:
        return ["text", "audio"] if self.has_sound else ["text"]


def _shown(tool: ClientTool) -> dict[str, Any]:
    fields = {"type": "function", "name": tool.name, "description": tool.description}
    return fields | {"parameters": tool.parameters or {"type": "object", "properties": {}}}


# ---- session.update ------------------------------------------------------------------------------


class _Draft:
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
            param = f"{path}.{name}"
            if take := _FIELDS.get(param.removeprefix("session.")):
                take(self, value, param)
            else:
                self.refuse("unknown_parameter", f"Unknown parameter: '{param}'.", param)

    def refuse(self, code: str, message: str, param: str) -> None:
        """One field can't be had; the others hold."""
        self.refused.append(RefusedError(code, message, param))


def _wrong(param: str, right: str) -> RefusedError:
    return RefusedError("invalid_type", f"Invalid type for '{param}': expected {right}.", param)


def _type(draft: _Draft, value: Any, param: str) -> None:
    if value != "realtime":
        message = "Only sessions of the type realtime are served here: transcription needs no agent."
        raise RefusedError("invalid_value", message, param)


def _nested(draft: _Draft, value: Any, param: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise _wrong(param, "an object")
    draft.take(value, param)


def _instructions(draft: _Draft, value: Any, param: str) -> None:
    if not isinstance(value, str | None):
        raise _wrong(param, "a string")
    draft.instructions = value or ""


def _voice(draft: _Draft, value: Any, param: str) -> None:
    name = value.get("id") if isinstance(value, dict) else value
    if not isinstance(name, str | None):
        raise _wrong(param, "a string")
    if name in draft._choices.voices:
        draft.voice = name
    elif name and name not in _VOICES:
        voices = ", ".join(draft._choices.voices)
        which = f"choose one of these: {voices}" if voices else "voices can't be chosen here"
        draft.refuse("invalid_value", f"The agent has no voice {name[:64]!r}: {which}.", param)


def _modalities(draft: _Draft, value: Any, param: str) -> None:
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


def _incoming(draft: _Draft, value: Any, param: str) -> None:
    if (found := _format_of(value, param)) and _can_code(draft, found, param):
        draft.local = replace(draft.local, incoming=found)


def _outgoing(draft: _Draft, value: Any, param: str) -> None:
    if (found := _format_of(value, param)) and _can_code(draft, found, param):
        draft.local = replace(draft.local, outgoing=found)


def _can_code(draft: _Draft, wanted: Format, param: str) -> bool:
    if wanted == "audio/pcm" or is_installed():
        return True
    draft.refuse("unsupported", NOT_INSTALLED, param)
    return False


def _transcription(draft: _Draft, value: Any, param: str) -> None:
    if not isinstance(value, dict | None):
        raise _wrong(param, "an object or null")
    draft.local = replace(draft.local, transcription=value)


def _detection(draft: _Draft, value: Any, param: str) -> None:
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


def _tools(draft: _Draft, value: Any, param: str) -> None:
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


def _temperature(draft: _Draft, value: Any, param: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(param, "a number")
    draft.temperature = float(value)


def _only(*allowed: Any, why: str) -> Callable[[_Draft, Any, str], None]:
    """A field that can have these values only, because others can't be had from an ADK agent."""

    def take(draft: _Draft, value: Any, param: str) -> None:
        is_bool = isinstance(value, bool)
        if not any(value == each and isinstance(each, bool) == is_bool for each in allowed):
            draft.refuse("unsupported", why, param)

    return take


def _ignored(draft: _Draft, value: Any, param: str) -> None:
    """A field that changes nothing of what the agent says: the session object shows it as it is."""


_MAX_TOKENS = _only(None, "inf", why="The length of answers can't be limited here.")
_SPEED = _only(None, 1, why="The agent speaks at its own speed.")

_FIELDS: dict[str, Callable[[_Draft, Any, str], None]] = {
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
    # Of the beta, in which all is flat.
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
