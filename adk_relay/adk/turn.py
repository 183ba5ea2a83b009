"""Where in a turn the conversation is, and what ADK's events say to the user."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, AnyStr, Literal, Protocol

from google.adk.agents import BaseAgent
from google.adk.events import Event
from google.genai import types

from adk_relay.adk.models import gemini_major, live_model
from adk_relay.adk.tools import jsonable
from adk_relay.core.logs import one_line
from adk_relay.core.messages import (
    Audio,
    Error,
    ForModel,
    Message,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    UserText,
)

log = logging.getLogger("relay.agent")

Owed = Literal["", "answer", "rest"]
"""What the user waits for: nothing, the answer to a question, or the rest of an answer that was cut."""

_FIRST_WORD = 5.0
"""Seconds after which a model that was asked something has begun to answer, if it ever does."""

_AUDIO_PIECE = 24_000
"""Bytes of a message's sound at the most: 500 ms at 24 kHz."""

_TEXT_PIECE = 16 * 1024
"""Characters of a message's text at the most."""


class Host(Protocol):
    """What a run needs of its conversation. Nothing here may wait."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Sends a message to whoever listens."""

    def connected(self) -> None:
        """The model's connection is there."""

    def stored(self, text: UserText) -> None:
        """A text is in the session."""


class Turn:
    """Turns the events of a run into messages, and knows where in a turn the conversation is.

    ADK says everything twice: in pieces as it comes, and once more whole. The pieces are passed on,
    the whole only where there were none.
    """

    def __init__(self, agent: BaseAgent | Any, host: Host, *, owed: Owed) -> None:
        self._number = host.number
        self.open = False
        """The agent has said something and not come to the end."""
        self.given = False
        """The user's input went to the model since the agent last began a turn."""
        self.said = ""
        """What the agent has said of this turn and ADK has not stored yet."""
        self.author = ""
        """Which agent says it."""
        self._asked = 1 if owed else 0  # questions that no turn has answered yet
        self._rest = owed == "rest"  # the answer to the first of them was begun, and cut
        self._asked_meanwhile = 0  # those of them that came after the open turn had begun
        self._heard_meanwhile = False  # speech was told after that; a question only if it interrupts
        self._muted = False  # the user has had enough of this turn
        self._muted_at = 0.0
        self._cut = False  # an interruption was told, and its `turn_complete` is still to come
        self._text = ""  # pieces of text since the last whole
        self._aloud = ""  # the same of what is said aloud
        self._heard = ""  # and of what the user says
        self._tools: dict[str, bool] = {}  # those that have not answered: whether their answer was stopped
        self._tool_answered = False
        model = live_model(agent)
        generation = gemini_major(model.model) if model else None
        # Up to the second generation Gemini ends a turn before tools have answered.
        self._is_early = generation is not None and generation < 3

    @property
    def owed(self) -> Owed:
        """What the user waits for."""
        if not self._asked and (self._muted or not self.open):
            return ""
        return "rest" if self._rest and not self._asked_meanwhile else "answer"

    @property
    def is_stopped_early(self) -> bool:
        """The user has had enough of an answer, and its first word may still come."""
        return self._muted and not self.open and time.monotonic() - self._muted_at < _FIRST_WORD

    def take(self, said: ForModel) -> None:
        """The model was given this."""
        self.given = True
        if isinstance(said, UserText):
            self._ask()
            if said.stopped:
                self._mute()

    def take_back(self) -> None:
        """The model was not given the last text after all."""
        self._asked = max(self._asked - 1, 0)
        self._asked_meanwhile = max(self._asked_meanwhile - 1, 0)

    def messages(self, event: Event) -> Iterator[Message]:
        """What an event says to the user, in order."""
        if (content := event.content) and content.parts and event.author != "user":
            for part in content.parts:
                yield from self._part(part, event)
        elif event.input_transcription:
            yield from self._user_spoke(event.input_transcription)
        elif event.output_transcription:
            yield from self._agent_spoke(event.output_transcription, event.author)
        if event.error_code:
            reported = one_line(f"{event.error_code}: {event.error_message}")
            log.error("the model reported %s", reported)
            yield Error("model_error", "The model reported an error. The server's log says which.")
        if event.interrupted:
            yield from self._interrupted()
        if event.turn_complete:
            yield from self._completed(event)

    def interrupt(self) -> Iterator[Message]:
        """The user has heard enough. The model is not told: the rest of its turn is not passed on."""
        if self.owed:
            self._mute()
            yield TurnEnd(self._number(), interrupted=True)

    def _mute(self) -> None:
        self._muted, self._muted_at = True, time.monotonic()
        self._asked = self._asked_meanwhile = 0
        self._rest = False

    def lost(self, *, goes_on: bool) -> Iterator[Message]:
        """The connection is gone: an open turn ends here. `said` stays, to be stored."""
        if self.open and not self._muted:
            self._rest = True
            self._asked = max(self._asked, 1)
            yield TurnEnd(self._number(), interrupted=True, goes_on=goes_on)
        self.open = False

    def _part(self, part: types.Part, event: Event) -> Iterator[Message]:
        if (blob := part.inline_data) and blob.data:
            self._goes_on(event.author)
            if not self._muted and (blob.mime_type or "").startswith("audio/"):
                for pcm in _pieces(blob.data, _AUDIO_PIECE):
                    yield Audio(self._number(), pcm)
        elif part.text and not part.thought:
            self._goes_on(event.author)
            if event.partial:
                self._text += part.text
                self.said += part.text
                fresh = part.text
            else:
                fresh = "" if self._text else part.text
                self._text = self.said = ""
            if not self._muted:
                for text in _pieces(fresh, _TEXT_PIECE):
                    yield Text(self._number(), text)
        elif call := part.function_call:
            if not event.partial:
                self._goes_on(event.author)
                name, arguments = call.id or "", jsonable(call.args)
                self._tools[name] = self._muted
                yield ToolStart(
                    self._number(), name, call.name or "", arguments, _when(event), late=self._muted
                )
        elif answer := part.function_response:
            late = self._tools.pop(answer.id or "", True)
            self._tool_answered = True
            result = jsonable(answer.response)
            yield ToolComplete(
                self._number(), answer.id or "", answer.name or "", result, _when(event), late=late
            )

    def _user_spoke(self, heard: types.Transcription) -> Iterator[Message]:
        if heard.finished:
            self._heard = ""
            if heard.text:
                if self.open:
                    self._heard_meanwhile = True
                else:
                    self._ask()
                yield Transcript(self._number(), heard.text, final=True)
        elif heard.text:
            self._heard += heard.text
            yield Transcript(self._number(), self._heard, final=False)

    def _agent_spoke(self, spoken: types.Transcription, author: str) -> Iterator[Message]:
        if spoken.finished:
            fresh = "" if self._aloud else spoken.text
            self._aloud = self.said = ""
        else:
            fresh = spoken.text
            self._aloud += fresh or ""
            self.said += fresh or ""
        if fresh:
            self._goes_on(author)
            if not self._muted:
                for text in _pieces(fresh, _TEXT_PIECE):
                    yield Text(self._number(), text, is_transcript=True)

    def _goes_on(self, author: str) -> None:
        if not self.open:
            self.open = True
            self.given = self._rest = self._heard_meanwhile = False
            self._asked_meanwhile = 0
        self.author = author
        self._cut = self._tool_answered = False

    def _interrupted(self) -> Iterator[Message]:
        # A second mark of the same interruption says nothing new.
        if not self._muted and not self._cut:
            yield TurnEnd(self._number(), interrupted=True)
        # What interrupted is still to be answered.
        if self.open:
            self._end(still_asked=self._asked_meanwhile + self._heard_meanwhile)
        else:
            self._end(still_asked=self._asked if self._muted or self._cut else self._asked - 1)
        self._cut = True

    def _completed(self, event: Event) -> Iterator[Message]:
        if self._cut:  # trails the interruption
            self._cut = False
            return
        if self._tools or event.interaction_status == types.InteractionStatus.IN_PROGRESS:
            return
        if self._tool_answered and self._is_early:
            return  # the answer to the tool's answer is still to come
        if not self._muted:
            yield TurnEnd(self._number())
        self._end(still_asked=self._asked_meanwhile if self.open else self._asked - 1)

    def _ask(self) -> None:
        self._asked += 1
        self._asked_meanwhile += 1
        if self._muted and not self.open:
            # The service may take this and what was to be muted as one turn.
            self._muted, self._cut = False, True

    def _end(self, *, still_asked: int) -> None:
        self._asked = max(still_asked, 0)
        self._asked_meanwhile = 0
        self.open = self._rest = self._muted = self._tool_answered = False
        self.said = self._text = self._aloud = ""
        self._tools.clear()


def _pieces(whole: AnyStr, size: int) -> Iterator[AnyStr]:
    """What is said at once, in frames that no client is too small for and that can be recalled."""
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def _when(event: Event) -> str:
    return datetime.fromtimestamp(event.timestamp, UTC).isoformat(timespec="milliseconds")
