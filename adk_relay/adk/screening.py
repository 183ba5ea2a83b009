"""What a `before_model_callback` has refused, or has not decided on yet, reaches no model.

ADK stores a user's text before it asks the callbacks about it, and a connection that is made later sends the
model all that is stored. So relay leaves out of that history

- what was refused: the event with which the callback refuses it is marked;
- what nobody has decided on: a text after which nothing has come in its run, or that no run was given. If
  the text is still to be answered, it is given to ADK again, which asks the callbacks anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.workflow import BaseNode
from google.genai import types

from adk_relay.adk.sound import is_overridden
from adk_relay.adk.tree import agents_of, is_a

_REFUSED = "relay_refused"
"""Marks an event, in its metadata, with the text of the user that it refuses."""

_MOST_REFUSED = 600
"""Texts that a run remembers: its session has no more events in memory."""


class Screened(Protocol):
    """What `Plugins` needs from a run, when ADK asks the callbacks."""

    screening: Screening

    def stored(self, text: str) -> None:
        """A user's text is in the session, and the callbacks are asked about it."""


class Screening:
    """What a run knows of the callbacks' decisions.

    Args:
        is_screened: whether there are callbacks that may refuse something.
        allowed: a text of a run before that was sent to the model, and is still to be answered.
    """

    def __init__(self, *, is_screened: bool, allowed: str) -> None:
        self._is_screened = is_screened
        self._allowed = allowed
        self._asked = ""  # what the callbacks are being asked about
        self._refused: dict[str, None] = {}  # in order, the last ones

    def ask(self, text: str) -> None:
        """The callbacks are asked about a text, or about the transcript of speech."""
        self._asked = text

    def allow(self) -> None:
        """They had nothing against it."""
        self._asked = ""

    def note(self, event: Event) -> None:
        """An event of the run is about to be stored: if it refuses something, it is marked."""
        if self._asked and event.turn_complete and event.content and event.author != "user":
            self._refused[self._asked] = None
            if len(self._refused) > _MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
            event.custom_metadata = {**(event.custom_metadata or {}), _REFUSED: self._asked}
            self._asked = ""

    def screened(self, events: Sequence[Event]) -> list[Event]:
        """The events of a session that a model may be told of."""
        kept: list[Event] = []
        for index, event in enumerate(events):
            refused = (event.custom_metadata or {}).get(_REFUSED)
            if refused:
                for back in range(len(kept) - 1, -1, -1):
                    if _said(kept[back]) == refused:
                        del kept[back]
                        break
            after = events[index + 1] if index + 1 < len(events) else None
            if not (self._is_screened and self._is_undecided(event, after)):
                kept.append(event)
        return kept

    def screened_turns(self, turns: list[types.Content]) -> list[types.Content]:
        """The same for a history that ADK has made of events of this run."""
        return [turn for turn in turns if turn.role != "user" or text_of(turn) not in self._refused]

    def _is_undecided(self, event: Event, after: Event | None) -> bool:
        if event.author != "user" or not event.content or text_of(event.content) in ("", self._allowed):
            return False
        # A text that relay itself has stored belongs to no run: no callback was asked.
        return not event.invocation_id or after is None or after.invocation_id != event.invocation_id


def is_screened(root: BaseNode, plugins: Sequence[BasePlugin]) -> bool:
    """Whether an agent or a plugin has a `before_model_callback`, or an agent hides others that may."""
    for agent in agents_of(root):
        if agent.before_model_callback if isinstance(agent, LlmAgent) else not is_a("SequentialAgent", agent):
            return True
    return any(is_overridden(plugin, BasePlugin, "before_model_callback") for plugin in plugins)


def text_of(content: types.Content) -> str:
    return "".join(part.text or "" for part in content.parts or ())


def _said(event: Event) -> str:
    """What a user has written or said in this event."""
    if event.input_transcription:
        return event.input_transcription.text or ""
    return text_of(event.content) if event.author == "user" and event.content else ""
