"""What a `before_model_callback` has refused, or has not decided on yet, reaches no model.

ADK stores a user's text before it asks the callbacks about it, and a connection that is made later sends the
model all that is stored. So relay leaves out of that history

- what was refused: the event with which the callback refuses it is marked;
- what nobody has decided on: a text after which nothing has come in its run. If the text is still to be
  answered, it is given to ADK again, which asks the callbacks anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from google.adk.agents import LlmAgent
from google.adk.agents.callback_context import CallbackContext
from google.adk.agents.invocation_context import InvocationContext
from google.adk.events import Event
from google.adk.models.llm_request import LlmRequest
from google.adk.plugins.base_plugin import BasePlugin
from google.genai import types

_REFUSED = "relay_refused"
"""Marks an event, in its metadata, with the text of the user that it refuses."""


class Screened(Protocol):
    """What the plugin needs from a run."""

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
        self._refused: set[str] = set()

    def ask(self, text: str) -> None:
        """The callbacks are asked about a text, or about the transcript of speech."""
        self._asked = text

    def allow(self) -> None:
        """They had nothing against it."""
        self._asked = ""

    def note(self, event: Event) -> None:
        """An event of the run is about to be stored: if it refuses something, it is marked."""
        if self._asked and event.turn_complete and event.content and event.author != "user":
            self._refused.add(self._asked)
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
        return [turn for turn in turns if turn.role != "user" or _text(turn) not in self._refused]

    def _is_undecided(self, event: Event, after: Event | None) -> bool:
        if event.author != "user" or not event.content or _text(event.content) in ("", self._allowed):
            return False
        return after is None or after.invocation_id != event.invocation_id


class ScreeningPlugin(BasePlugin):
    """Tells a run what the callbacks are asked about, and gives ADK the screened session.

    Args:
        observer: returns the run of the present context.
    """

    def __init__(self, observer: Callable[[], Screened]) -> None:
        super().__init__("screening")
        self._observer = observer

    async def before_run_callback(self, *, invocation_context: InvocationContext) -> None:
        if invocation_context.live_request_queue is None:
            return  # an agent that is used as a tool: it has a runner of its own, with the same plugins
        session = invocation_context.session
        kept = self._observer().screening.screened(session.events)
        if len(kept) < len(session.events):
            # A copy: the session may be the one that the session service itself keeps.
            invocation_context.session = session.model_copy(update={"events": kept})

    async def before_model_callback(
        self, *, callback_context: CallbackContext, llm_request: LlmRequest
    ) -> None:
        if callback_context._invocation_context.live_request_queue is None:
            return
        if len(llm_request.contents) == 1 and (text := _text(llm_request.contents[0])):
            run = self._observer()
            run.screening.ask(text)
            run.stored(text)


def is_screened(agent: object, plugins: Sequence[BasePlugin]) -> bool:
    """Whether an agent or a plugin has a `before_model_callback`."""
    pending: list[Any] = [agent]
    while pending:
        each = pending.pop()
        pending += each.sub_agents
        if isinstance(each, LlmAgent) and each.before_model_callback:
            return True
    inherited = (BasePlugin.before_model_callback, ScreeningPlugin.before_model_callback)
    return any(type(plugin).before_model_callback not in inherited for plugin in plugins)


def _text(content: types.Content) -> str:
    return "".join(part.text or "" for part in content.parts or ())


def _said(event: Event) -> str:
    """What a user has written or said in this event."""
    if event.input_transcription:
        return event.input_transcription.text or ""
    return _text(event.content) if event.author == "user" and event.content else ""
