"""The settings of a socket and of its conversation, and the session object that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from adk_relay.core.shape import PLAIN, ClientTool, Shape
from adk_relay.core.voice import MODELS_OWN, NO_CHOICES, Choices, Configure, Voice
from adk_relay.wire.dialects import Welcome
from adk_relay.wire.openai.formats import FORMATS, NAMES_IN_BETA
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.openai.updating import Draft, Local


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
        self.wanted: bool | None = None
        """Whether the client wants manual turns, until the conversation has confirmed it; None: it has."""

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
        return bool(self.shape.push_to_talk) if self.wanted is None else self.wanted

    @property
    def tools(self) -> frozenset[str]:
        """The names of the functions that clients have."""
        return frozenset(tool.name for tool in self.shape.tools)

    def update(self, session: Mapping[str, Any], event_id: str, *, is_settled: bool = True) -> Change:
        """Takes the `session` of a `session.update`. What concerns the conversation is not changed yet.

        Args:
            is_settled: the conversation has answered all changes so far. Otherwise what it told last may be
                over, and so any value may be a change.

        Raises:
            RefusedError: something is of the wrong type; nothing is changed.
        """
        draft = Draft(self.local, self._choices)
        draft.take(session, "session")
        self.local = draft.local
        changes = self._changes(draft, is_settled=is_settled)
        self.wanted = changes.get("push_to_talk", self.wanted)
        return Change(Configure(id=event_id, **changes) if changes else None, draft.refused)

    def has(self, name: str, value: Any) -> bool:
        """Whether a field of a response asks for what the session is already."""
        draft = Draft(self.local, self._choices)
        try:
            draft.take({name: value}, "session")
        except RefusedError:
            return False
        return not (draft.refused or draft.local != self.local or self._changes(draft, is_settled=True))

    def _changes(self, draft: Draft, *, is_settled: bool) -> dict[str, Any]:
        """What a draft changes of the conversation, by the fields of `Configure`."""
        wanted = {
            "voice": (draft.voice, self.voice.name),
            "instructions": (draft.instructions, self.shape.instructions),
            "tools": (draft.tools, self.shape.tools),
            "push_to_talk": (draft.is_manual, self.is_manual),
            "temperature": (draft.temperature, self.shape.temperature),
        }
        return {
            name: new
            for name, (new, now) in wanted.items()
            if new is not None and not (is_settled and new == now)
        }

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
