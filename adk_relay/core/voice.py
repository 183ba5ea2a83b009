"""How the agent answers in one conversation, as its clients choose it: voice, language and shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adk_relay.core.shape import PLAIN, ClientTool, Shape


class ChoiceError(ValueError):
    """A voice or a language can't be chosen. The text says which ones can."""


class Voice(NamedTuple):
    """How the agent speaks. Everything is "" where the model chooses."""

    name: str = ""
    """A prebuilt voice's name."""
    language: str = ""
    """A BCP-47 code."""


MODELS_OWN = Voice()
"""The model chooses."""


@dataclass(slots=True, frozen=True)
class Configure:
    """A user chooses how the agent answers in this conversation. What is None stays as it is."""

    voice: str | None = None
    """"": the operator's own choice."""
    language: str | None = None
    """"": the operator's own choice."""
    instructions: str | None = None
    """"": none besides the agent's own."""
    tools: tuple[ClientTool, ...] | None = None
    """All that clients have in this conversation; (): none."""
    push_to_talk: bool | None = None
    """Whether the clients tell when their users begin and stop to speak."""
    temperature: float | None = None
    id: str = ""
    """Chosen by the client: an error about it, and the `Configured` that follows, have it, too."""

    @property
    def shapes_agent(self) -> bool:
        """Whether it changes what the agent is told, and what it can call: not everybody may."""
        return self.instructions is not None or self.tools is not None


@dataclass(slots=True, frozen=True)
class Configured:
    """How the agent answers from its next turn on."""

    voice: Voice
    shape: Shape = PLAIN
    """Its `push_to_talk` is never None."""
    by: str = ""
    """The connection id of who has chosen it; "": that is not known."""
    id: str = ""
    """That of the `Configure`."""


@dataclass(slots=True, frozen=True)
class Choices:
    """What users may choose.

    Attributes:
        voices, languages: their names; empty: there is no choice.
    """

    voices: Sequence[str] = ()
    languages: Sequence[str] = ()

    def check(self, configure: Configure) -> None:
        """Raises ChoiceError if a user may not choose this."""
        _check("voice", configure.voice, self.voices)
        _check("language", configure.language, self.languages)


NO_CHOICES = Choices()


def choices_of(voices: str | None, languages: str | None, default: Voice) -> Choices:
    """The choices that the settings allow. What the operator has chosen is one of them.

    Args:
        voices, languages: separated by commas.
    """
    return Choices(_names(voices, default.name), _names(languages, default.language))


def _names(listed: str | None, default: str) -> tuple[str, ...]:
    names = [name for each in (listed or "").split(",") if (name := each.strip())]
    return (*dict.fromkeys([*([default] if default and names else []), *names]),)


def _check(kind: str, chosen: str | None, allowed: Sequence[str]) -> None:
    if chosen is None or (allowed and chosen in ("", *allowed)):
        return
    if not allowed:
        raise ChoiceError(f"The {kind} can't be chosen here.")
    raise ChoiceError(f"The {kind} must be one of these: {', '.join(allowed)}.")
