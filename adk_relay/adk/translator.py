"""Translates ADK's events into messages.

ADK reports each text and transcript twice: in chunks as they come, and then as a whole. The chunks are passed
on; the whole is passed on only if there were no chunks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import AnyStr

from google.adk.events import Event
from google.genai import types

from adk_relay.adk.calls import when
from adk_relay.adk.credits import Credits
from adk_relay.adk.lines import cut_answer, has_words
from adk_relay.adk.marks import mark, mark_cut
from adk_relay.adk.models import gemini_major
from adk_relay.adk.tools import jsonable
from adk_relay.adk.turn import Owed, Turn
from adk_relay.adk.waiting import is_request
from adk_relay.core.logs import one_line
from adk_relay.core.messages import (
    Audio,
    Error,
    Message,
    Place,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    UserText,
)

log = logging.getLogger("relay.agent")

_AUDIO_CHUNK = 24_000
"""Bytes of sound in one message at most: 500 ms at 24 kHz."""

_TEXT_CHUNK = 16 * 1024
"""Characters of text in one message at most."""


_Reason = types.TurnCompleteReason

_NO_PROBLEM = {_Reason.TURN_COMPLETE_REASON_UNSPECIFIED, _Reason.NEED_MORE_INPUT}

_REASONS = {
    _Reason.MALFORMED_FUNCTION_CALL: "The model called a tool in a wrong way. Please ask again.",
    _Reason.RESPONSE_REJECTED: "The model's answer was rejected by its safety filter.",
    _Reason.PROHIBITED_INPUT_CONTENT: "The model refused the input: its content is prohibited.",
}


class Translator:
    """Makes messages of a run's events, and updates the state of the turn.

    Args:
        number: returns the next message's `seq`.
        place: returns the place of the next message; with True, that of the next words of an answer.
        speaker: returns the name of the user who spoke last; "": it is not known.
        owed: what the user still waits for from the run before.
        text: the question that this is the answer to, if it was a text.
    """

    def __init__(
        self,
        number: Callable[[], int],
        place: Callable[[bool], Place],
        speaker: Callable[[], str] = str,
        *,
        owed: Owed = "",
        text: UserText | None = None,
    ) -> None:
        self.turn = Turn(owed=owed, text=text)
        self.unstored = ""
        """What the agent has said in this turn and ADK has not stored yet."""
        self._author = ""  # the name of the agent that said it
        self._place: Place | None = None  # that of the words of the open answer
        self._number = number
        self._next_place = place
        self._speaker = speaker
        self._credits = Credits()
        self._text = ""  # the chunks of text since the last whole text
        self._aloud = ""  # the same for the transcript of the agent's speech
        self._heard = ""  # the same for the transcript of the user's speech
        self._tools: dict[str, bool] = {}  # the calls without a result, by id: whether their turn was stopped
        self._waiting: dict[str, ToolStart] = {}  # the calls of this run that wait for a user
        self._is_early = False  # the next `turn_complete` comes before the answer to the tools' results
        self._completes_early = False

    def cut_answer(self, *, goes_on: bool) -> Event:
        """What the agent has said and ADK has not stored, as an event: the connection was lost.

        Args:
            goes_on: another run says the rest.
        """
        return cut_answer(self._author, self.unstored, self._place, goes_on=goes_on, is_cut=not goes_on)

    def note_place(self, event: Event) -> None:
        """An event is about to be stored: it is marked with the place of its words, and whose they are."""
        is_of_answer = self.turn.is_open and event.author != "user"
        if has_words(event):
            place = (is_of_answer and self._place) or self._next_place(is_of_answer)
            mark(event, place, self._speaker() if event.input_transcription else "")
            if is_of_answer and self.turn.is_muted:
                mark_cut(event)
        elif is_of_answer and self._place and (event.interrupted or event.get_function_calls()):
            mark(event, self._place)

    def messages(self, event: Event) -> list[Message]:
        """The messages that an event becomes, in order."""
        messages: list[Message] = []
        self._credits.note(event)
        if (content := event.content) and content.parts and event.author != "user":
            for part in content.parts:
                messages += self._part(part, event)
        elif event.input_transcription:
            messages += self._user_spoke(event.input_transcription)
        elif event.output_transcription:
            messages += self._agent_spoke(event.output_transcription, event.author)
        if event.error_code:
            log.error("the model reported %s", one_line(f"{event.error_code}: {event.error_message}"))
            messages.append(Error("model_error", "The model reported an error. The server's log says which."))
        if event.interrupted:
            if self.turn.interrupt():
                messages.append(self._turn_end(interrupted=True))
            self._forget()
        if event.turn_complete and self._is_end(event):
            was_cut, had_words = self.turn.is_cut, self.turn.is_open
            if self.turn.complete():
                messages += self._explain(event, had_words=had_words)
                messages.append(self._turn_end())
            if not was_cut:
                self._forget()
        return messages

    def complete(self) -> list[Message]:
        """Ends the open answer, for which the model sends no `turn_complete`."""
        is_told = self.turn.is_open and self.turn.complete()
        self._forget()
        return [self._turn_end()] if is_told else []

    def pause(self) -> list[TurnEnd]:
        """The model waits for a user to answer a tool call: for now, its turn is over for the users.

        Not yet, if other tools have not answered, or the model is about to complete a part of its turn.
        """
        if self._tools or self._is_early or not self.turn.is_open:
            return []
        self._place = None
        # What the service says of the end of this turn later is not passed on.
        return [self._turn_end()] if self.turn.interrupt() else []

    def stop(self) -> list[TurnEnd]:
        """The user stops the answer. The model is not told; the rest of its turn is not passed on."""
        return [self._turn_end(interrupted=True)] if self.turn.stop() else []

    def lose(self, *, goes_on: bool) -> list[Message]:
        """The connection is gone: an open turn ends here. `unstored` stays, to be stored.

        Args:
            goes_on: another run will say the rest.
        """
        return [self._turn_end(interrupted=True, goes_on=goes_on)] if self.turn.lose() else []

    def _is_end(self, event: Event) -> bool:
        """Whether a `turn_complete` ends the turn for the user."""
        if self.turn.is_cut:
            return True
        if event.interaction_status == types.InteractionStatus.IN_PROGRESS:
            return False
        # Up to the second generation, one `turn_complete` comes right after the tools were called. The answer
        # to their results is still to come, and ends with its own. ADK has the results by now, except for
        # tools that run in the background: the model does not wait for these.
        is_early, self._is_early = self._is_early and not self._tools, False
        return not is_early

    def _explain(self, event: Event, *, had_words: bool) -> list[Message]:
        """Says why there is no answer, or only a part of it."""
        reason = event.turn_complete_reason
        if not reason or reason in _NO_PROBLEM:
            if not had_words:
                log.info("the model completed a turn without an answer")
            return []
        log.warning("the model completed a turn with the reason %s", one_line(reason.value))
        why = _REASONS.get(reason, "The model gave no full answer ({reason}).")
        return [Error("model_error", why.format(reason=reason.value.lower().replace("_", " ")))]

    def _turn_end(self, *, interrupted: bool = False, goes_on: bool = False) -> TurnEnd:
        usage, grounding = self._credits.take()
        return TurnEnd(self._number(), interrupted, goes_on, usage, grounding)

    def _forget(self) -> None:
        self._credits.forget_grounding()
        self.unstored = self._text = self._aloud = ""
        self._place = None
        self._is_early = False
        self._tools.clear()

    def connected(self, model: str) -> None:
        """There is a new connection, to the model of this name: nothing more comes of the one before."""
        self._is_early = False
        generation = gemini_major(model)
        # Up to the second generation Gemini completes a turn before its tools have answered.
        self._completes_early = generation is not None and generation < 3

    @property
    def is_agent_busy(self) -> bool:
        """A tool was called, and has not answered."""
        return bool(self._tools)

    def _speaks(self, author: str, words: str = "") -> bool:
        """The agent says something; returns whether it is passed on."""
        self._author = author
        self._is_early = False
        if words and not self._place:
            self._place = self._next_place(True)
        return self.turn.speak()

    def sound(self, pcm: bytes) -> list[Audio]:
        """The messages that sound becomes which ADK has not seen."""
        self._is_early = False
        if not self.turn.speak():
            return []
        if len(pcm) <= _AUDIO_CHUNK:
            return [Audio(self._number(), pcm)]
        return [Audio(self._number(), chunk) for chunk in _chunks(pcm, _AUDIO_CHUNK)]

    def _part(self, part: types.Part, event: Event) -> Sequence[Message]:
        if (blob := part.inline_data) and blob.data:
            if (blob.mime_type or "").startswith("audio/"):
                return self.sound(blob.data)
            self._speaks(event.author)
        elif part.text and not part.thought:
            is_passed_on = self._speaks(event.author, part.text)
            if event.partial:
                self._text += part.text
                self.unstored += part.text
                fresh = part.text
            else:
                fresh = _rest(part.text, self._text)
                self._text = self.unstored = ""
            if is_passed_on:
                return [Text(self._number(), text) for text in _chunks(fresh, _TEXT_CHUNK)]
        elif call := part.function_call:
            if not event.partial:
                tool_id, arguments = call.id or "", jsonable(call.args)
                is_pending = tool_id in (event.long_running_tool_ids or ())
                if is_request(call.name) and not (self.turn.is_open or self.turn.owed):
                    is_late = True  # the agent says nothing more in this turn
                else:
                    is_late = not self._speaks(event.author)
                self._waiting.pop(tool_id, None)  # some models use an id again
                start = ToolStart(
                    self._number(), tool_id, call.name or "", arguments, when(event), is_late, is_pending
                )
                if is_pending:
                    self._waiting[tool_id] = start
                else:
                    self._tools[tool_id] = is_late
                    self._is_early = self._completes_early
                return [start]
        elif answer := part.function_response:
            is_late = self._tools.pop(answer.id or "", True)
            if waiting := self._waiting.get(answer.id or ""):
                self._is_early = self._completes_early
                return [replace(waiting, seq=self._number(), interim=jsonable(answer.response))]
            if answer.id in {
                *event.actions.requested_tool_confirmations,
                *event.actions.requested_auth_configs,
            }:
                return []  # the tool has not run: the user is asked first
            result = jsonable(answer.response)
            return [
                ToolComplete(
                    self._number(), answer.id or "", answer.name or "", result, when(event), late=is_late
                )
            ]
        return []

    def _user_spoke(self, heard: types.Transcription) -> list[Message]:
        if heard.finished:
            self._heard = ""
            if heard.text:
                self.turn.hear()
                return [Transcript(self._number(), heard.text, final=True)]
        elif heard.text:
            self._heard += heard.text
            return [Transcript(self._number(), self._heard, final=False)]
        return []

    def _agent_spoke(self, spoken: types.Transcription, author: str) -> list[Message]:
        fresh = spoken.text or ""
        if spoken.finished:
            fresh = _rest(fresh, self._aloud)
            self._aloud = self.unstored = ""
        else:
            self._aloud += fresh
            self.unstored += fresh
        if fresh and self._speaks(author, fresh):
            return [Text(self._number(), text, is_transcript=True) for text in _chunks(fresh, _TEXT_CHUNK)]
        return []


def _rest(whole: str, chunks: str) -> str:
    """What a whole text has beyond its chunks: ADK keeps a chunk back if its frame also ends the text."""
    if not chunks or whole.startswith(chunks):
        return whole[len(chunks) :]
    return ""


def _chunks(whole: AnyStr, size: int) -> Iterator[AnyStr]:
    """Splits sound or text into chunks that fit into any client's frames and can be recalled one by one."""
    for start in range(0, len(whole), size):
        yield whole[start : start + size]
