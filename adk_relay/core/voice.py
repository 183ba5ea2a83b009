"""The agent's voice and its language, which users may choose if the operator lets them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


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
    """A user chooses how the agent speaks in this conversation."""

    voice: str | None = None
    """None: it stays; "": the operator's own choice."""
    language: str | None = None
    """None: it stays; "": the operator's own choice."""


@dataclass(slots=True, frozen=True)
class Configured:
    """How the agent speaks from its next turn on."""

    voice: Voice


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
