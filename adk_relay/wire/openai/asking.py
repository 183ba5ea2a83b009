"""What a client has asked for, and the model was not given or has not answered yet."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from adk_relay.wire.dialects import MAX_TEXT_BYTES
from adk_relay.wire.dialects.media import MAX_AUDIO_BYTES
from adk_relay.wire.openai.events import Part
from adk_relay.wire.openai.items import Item
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.openai.settings import Settings

_MAX_HELD = 64
"""Messages of the user that may wait for a `response.create`."""

_MAX_ABOUT = 64


class _Held(NamedTuple):
    item: Item
    text: str
    audio: bytes


class Asking:
    """What a client has asked for.

    Invariants:
        What is held was not said to the model. Together it has at most `MAX_TEXT_BYTES` of text and
        `MAX_AUDIO_BYTES` of sound.
    """

    def __init__(self) -> None:
        self._held: list[_Held] = []
        self.is_committed = False
        """Sound was committed, and no answer to it has begun."""
        self.goes_on: Literal["", "waiting", "answered"] = ""
        """Whether a function's result was given, which the model goes on with by itself, and whether it has;
        "": no, or the client has asked for the answer since."""
        self.is_canceled = False
        """The client has stopped the answer that is under way."""
        self.is_sure = False
        """The response that is under way was asked for with a text, so an answer will come. A model may find
        that nothing was said in the sound."""
        self._about: dict[str, str] = {}

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._held) <= _MAX_HELD, "too much is held"
        assert sum(len(held.text.encode()) for held in self._held) <= MAX_TEXT_BYTES, "too much text is held"
        assert sum(len(held.audio) for held in self._held) <= MAX_AUDIO_BYTES, "too much sound is held"
        assert not any(held.item.text_id for held in self._held), "something held was said"

    @property
    def has_held(self) -> bool:
        """Whether anything waits for a `response.create`."""
        return bool(self._held)

    def hold(self, item: Item, parts: tuple[Part, ...]) -> None:
        """Keeps what a user's message says, until the client asks for an answer.

        Raises:
            RefusedError: that is too much.
        """
        text = "\n".join(part.text for part in parts if part.text)
        audio = b"".join(part.data for part in parts if part.type == "input_audio")
        if not (text or audio):
            return
        texts = sum(len(held.text.encode()) for held in self._held) + len(text.encode())
        if len(self._held) == _MAX_HELD or texts + len(self._held) > MAX_TEXT_BYTES:
            message = f"At most {_MAX_HELD} messages with {MAX_TEXT_BYTES} bytes can wait for an answer."
            raise RefusedError("too_large", message, "item.content")
        if sum(len(held.audio) for held in self._held) + len(audio) > MAX_AUDIO_BYTES:
            message = f"At most {MAX_AUDIO_BYTES} bytes of sound can wait for an answer."
            raise RefusedError("too_large", message, "item.content")
        self._held.append(_Held(item, text, audio))

    def holds(self, item: Item) -> bool:
        """Whether an item waits for a `response.create`."""
        return any(held.item is item for held in self._held)

    def drop(self, item: Item) -> None:
        """Gives up what is held of an item."""
        self._held = [held for held in self._held if held.item is not item]

    def drop_all(self) -> None:
        """Gives up all that is held."""
        self._held = []

    @property
    def held(self) -> tuple[str, bytes, Item | None]:
        """The text of all that is held, the sound, and the last item that has some."""
        text = "\n".join(each.text for each in self._held if each.text)
        spoken = next((each.item for each in reversed(self._held) if each.audio), None)
        return text, b"".join(each.audio for each in self._held), spoken

    def said(self, text_id: str) -> None:
        """What was held is said, as the text with this id."""
        for held in self._held:
            held.item.text_id = text_id
        self._held = []

    # ---- which event an error is about ----

    def note(self, event_id: str, key: str = "") -> str:
        """Remembers the id of a client's event; returns what errors about it will name."""
        key = key or secrets.token_urlsafe(9)
        self._about[key] = event_id
        if len(self._about) > _MAX_ABOUT:
            del self._about[next(iter(self._about))]
        return key

    def event_of(self, key: str) -> str | None:
        """The id of the client's event that an error names; None: it names none that is remembered."""
        return self._about.get(key)


def check_response(asked: Mapping[str, Any], settings: Settings) -> None:
    """Checks that a `response.create` asks for what an answer of the agent can be.

    Raises:
        RefusedError: it does not.
    """
    for name, value in asked.items():
        param = f"response.{name[:64]}"
        if value is None or name == "metadata" or (name, value) == ("conversation", "auto"):
            continue
        if not (why := _WHY_NOT.get(name)):
            raise RefusedError("unknown_parameter", f"Unknown parameter: '{param}'.", param)
        if not settings.has(name, value):
            raise RefusedError("unsupported", why, param)
    metadata = asked.get("metadata")
    if not isinstance(metadata, dict | None) or not all(
        isinstance(v, str) for v in (metadata or {}).values()
    ):
        raise RefusedError("invalid_type", "metadata must be an object of strings.", "response.metadata")
    if metadata and sum(len(key) + len(value) for key, value in metadata.items()) > 16 * 1024:
        raise RefusedError("too_large", "metadata must be shorter.", "response.metadata")


_SESSION = "It can't be changed for one response: use session.update."

_WHY_NOT = {
    "conversation": "Each answer is part of the conversation: only auto is possible.",
    "input": "The agent answers the whole conversation: create items in it.",
    "instructions": "A response has no instructions of its own: use session.update, or create an item.",
    "tools": _SESSION,
    "tool_choice": "The model chooses its tools by itself: only auto is possible.",
    "parallel_tool_calls": "The model may call several tools at once.",
    "output_modalities": _SESSION,
    "modalities": _SESSION,
    "audio": _SESSION,
    "voice": _SESSION,
    "output_audio_format": _SESSION,
    "temperature": _SESSION,
    "max_output_tokens": "The length of answers can't be limited here.",
    "prompt": "Stored prompts are OpenAI's: use instructions in session.update.",
    "reasoning": "How much the model thinks can't be set here.",
}
