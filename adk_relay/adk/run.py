"""One run: a `run_live` and its connection to the model, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.runners import Runner
from google.adk.sessions import Session
from google.genai import types

from adk_relay.adk.answers import Answers
from adk_relay.adk.connection import LostConnection, WatchedConnection, observer
from adk_relay.adk.models import telemetry
from adk_relay.adk.pulse import SOUND_RATE, Pulse
from adk_relay.adk.queue import RequestQueue
from adk_relay.adk.runner import at_hand
from adk_relay.adk.screening import Screening, is_screened
from adk_relay.adk.sound import ShortWay
from adk_relay.adk.speech import Speech, is_push_to_talk
from adk_relay.adk.translator import Translator
from adk_relay.adk.turn import Owed
from adk_relay.adk.waiting import show_to_model
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ForModel, Message, UserAudio, UserText

log = logging.getLogger("relay.agent")

_PROGRESS_AFTER = 60.0
"""Seconds after which a connection counts as progress, even if no turn was completed on it."""

_GO_AWAY_MARGIN = 2.0
"""Seconds before the service's own deadline: an answer that is unfinished then is given up."""

_ANSWER_WAITS = 60.0
"""Seconds that the answer to a tool call waits for the end of what the agent is saying."""

_SPEECH_FORGOTTEN = 10.0
"""Seconds after which speech without a transcript counts as noise."""

_GO_ON = (
    "(The connection was lost while you were speaking. I have what you said so far."
    " Go on from there, without saying it again.)"
)
_ANSWER_ME = "(The connection was lost before you answered my last message. Answer it now.)"
_NO_ANSWER = "(The conversation was interrupted before I could answer.)"


class Host(Protocol):
    """What a run needs from its conversation. No method may wait."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Sends a message of the conversation to the listeners."""

    def connected(self) -> None:
        """The connection to the model is there."""

    def stored(self, text: UserText) -> None:
        """A text is in the session."""

    def crossed(self) -> None:
        """Two questions are on their way: whose answer comes next is not known."""


class Run:
    """One `run_live` and its connection to the model. The user's input goes in, messages come out.

    Args:
        runner: from `runner()`.
        config: the run configuration; the run works on a copy.
        user_id, session_id: the ADK session, which must exist.
        inbox: where the user's input comes from.
        host: the conversation.
        handle: resumes the service's own session; None: the history is sent instead.
        owed: what the user still waits for from the run before.
        owed_text: the question that this is the answer to, if it was a text.
        answers: those of users to tool calls that are not stored yet.
        session: the ADK session, if it was just read and not changed since; None: ADK reads it.

    Invariants:
        A resumption handle covers all input that the model was given: taking input removes the handle.
    """

    def __init__(
        self,
        runner: Runner,
        config: RunConfig,
        user_id: str,
        session_id: str,
        inbox: Inbox,
        host: Host,
        *,
        handle: str | None = None,
        owed: Owed = "",
        owed_text: UserText | None = None,
        session: Session | None = None,
        answers: list[types.Part],
    ) -> None:
        self._runner = runner
        # Without resumption in the configuration there is none: the history is sent instead.
        resumption = config.session_resumption
        self._config = config.model_copy(
            update={
                "session_resumption": resumption and resumption.model_copy(update={"handle": handle}),
                "telemetry": config.telemetry or telemetry(),
            }
        )
        self._user_id = user_id
        self._session_id = session_id
        # A configuration that limits what ADK reads is ADK's to obey.
        self._at_hand = [session] if session and not config.get_session_config else []
        self._inbox = inbox
        self._host = host
        self._speech = Speech(push_to_talk=is_push_to_talk(config))
        self.translator = Translator(runner.agent, host.number, owed=owed, text=owed_text)
        self.answers = Answers(answers, self.translator, host.emit, lambda: self.under_way > 0)
        self._queue = RequestQueue(
            inbox, self._taken, host.stored, self._sender_failed, self._speech, self.answers.result
        )
        self.turn = self.translator.turn
        self.screening = Screening(
            is_screened=is_screened(runner.agent, runner.plugin_manager.plugins),
            allowed=owed_text.text if owed_text else "",
        )
        self.handle: str | None = None
        """A resumption handle that covers all input that the model was given."""
        self._completed_turn = False
        self._spoke_at: float | None = None  # when the user spoke last, if no final transcript has come
        self._connected_at: float | None = None
        self._pulse = Pulse()
        self._is_renewed = False  # the next run is to begin with a new connection
        self._release: asyncio.TimerHandle | None = None  # set while texts are held
        self._failure: Exception | None = None  # of ADK's sending task
        self._leave_by: float | None = None  # the deadline, after the service has sent goAway
        self._is_listened_to = False  # a tool reads the user's sound, and gets it from ADK
        self.answered_alone: UserText | None = None
        """The text that the agent has answered without a model, and that is not stored yet."""
        self.under_way = 0
        """Events that ADK has let go, and that were not translated yet."""
        self._caught_up = asyncio.Event()  # set when there are none

    async def drive(self) -> None:
        """Runs until the model ends it or `close()` is called.

        Raises:
            LostConnection: the connection failed.
            Exception: the agent's own code raised it.
        """
        observer.set(self)
        at_hand.set(self._at_hand)
        events = self._runner.run_live(
            user_id=self._user_id,
            session_id=self._session_id,
            live_request_queue=self._queue,
            run_config=self._config,
        )
        self.hold()
        try:
            await self._translate(events)
        finally:
            if self._release:
                self._release.cancel()
            self._inbox.hold(False)

    async def _translate(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                self._pulse.heard(_seconds_of_sound(event), is_first=not self.turn.is_open)
                if self.is_unconnected:
                    self._take_unasked(event)
                for message in self.translator.messages(event):
                    self._host.emit(message)
                if event.interrupted:
                    self.answers.forget_open()  # the service has canceled them
                await self.answers.ask(event)
                self._changed()
                if event.turn_complete and not self.turn.is_open:
                    self._completed_turn = True
                    self._spoke_at = None
                    if self.is_leaving:
                        self._close_if_at_rest()
                elif event.input_transcription and event.input_transcription.finished:
                    self._spoke_at = None
                self.under_way = max(self.under_way - 1, 0)
                if not self.under_way:
                    self._caught_up.set()
                    self.answers.pause()

    def answer(self, answer: types.Part) -> None:
        """Gives the model a user's answer to a tool call, or leaves it to the next run, which follows."""
        if answer.function_response and self.answers.is_open(answer.function_response.id or ""):
            self._queue.results.append(answer)
            self._inbox.ready.set()
        else:
            self._leave_by = time.monotonic() + _ANSWER_WAITS
            self._close_if_at_rest()

    def close(self) -> None:
        """Asks the run to end: `drive()` returns when the connection is closed."""
        self._queue.close()

    def renew(self) -> None:
        """Ends the run; the next one makes a new connection, and sends the history."""
        self._is_renewed = True
        self.handle = None
        self.close()

    def hold(self) -> None:
        """Lets texts wait, or lets them go on: to be called whenever the turn has changed."""
        seconds = self.turn.holds()
        self._inbox.hold(seconds > 0)
        if self._release:
            self._release.cancel()
        loop = asyncio.get_running_loop()
        self._release = loop.call_later(seconds, self.hold) if seconds else None

    def _changed(self) -> None:
        self.hold()
        if self.turn.crosses():
            self._host.crossed()

    @property
    def is_leaving(self) -> bool:
        """The service has sent goAway, or the run is renewed: the next run continues where this one ends."""
        return self._leave_by is not None or self._is_renewed

    @property
    def is_unconnected(self) -> bool:
        """The run has not reached the model."""
        return self._connected_at is None

    @property
    def has_progressed(self) -> bool:
        """A turn was completed, or the connection lasted: if it is lost now, that is a new failure."""
        lasted = self._connected_at and time.monotonic() - self._connected_at > _PROGRESS_AFTER
        return self._completed_turn or bool(lasted)

    @property
    def is_at_rest(self) -> bool:
        """Nobody speaks, and nobody waits for an answer."""
        return not (self.turn.is_open or self.turn.owed or self.is_speech_pending)

    @property
    def undecided(self) -> UserText | None:
        """A text that ADK has taken, and has neither sent nor refused."""
        return self._queue.undecided

    @property
    def unsettled(self) -> tuple[UserText, float] | None:
        """A text that ADK has taken and may not have stored, and the `time.time()` it was taken."""
        return self._queue.unsettled

    @property
    def is_speech_pending(self) -> bool:
        """The user has just spoken, and the final transcript has not come yet."""
        return self._spoke_at is not None and time.monotonic() - self._spoke_at < _SPEECH_FORGOTTEN

    def overdue(self) -> Exception | None:
        """Why the connection counts as lost although it has reported no error; None: it does not.

        It also closes the run if its deadline has passed and no answer is under way.
        """
        now = time.monotonic()
        if self._failure:
            return self._failure
        if self._leave_by is not None and now >= self._leave_by:
            if self.turn.is_open or self.turn.owed:
                return LostConnection(None, "the service went away in the middle of an answer")
            self.close()
        if self._connected_at is None:
            return None
        if self._pulse.is_stalled(text_waits=self._inbox.has_content):
            return LostConnection(None, "a text was not sent in time")
        self.turn.forget_unanswered()
        self.hold()
        if self._queue.undecided or self.translator.is_agent_busy:  # it is the agent's time
            return None
        # Every answer ends within a bound.
        is_asked = self.turn.answered or not self.turn.is_open
        if is_asked and self.turn.owed and self._pulse.is_silent:
            return LostConnection(None, "the model owed an answer, and was silent for too long")
        if not is_asked and self._pulse.is_over:
            for message in self.translator.complete():
                self._host.emit(message)
        return None

    def check(self) -> None:
        """Asserts the invariants."""
        assert not (self.handle and self.turn.given), "a handle is kept that does not cover all input"
        self.answers.check()

    # ---- told by the short way (sound.Hearer) ----

    def hear(self, pcm: bytes) -> None:
        was_open = self.turn.is_open
        self._pulse.heard(len(pcm) / SOUND_RATE, is_first=not was_open)
        for message in self.translator.sound(pcm):
            self._host.emit(message)
        if not was_open:
            self.hold()

    def entered(self, event: Event) -> None:
        self.screening.note(event)
        if self.is_unconnected:
            show_to_model(event)
        self.under_way += 1
        self._caught_up.clear()

    def is_listened_to(self) -> None:
        self._is_listened_to = True
        self._queue.send_sound = None

    async def caught_up(self) -> None:
        await self._caught_up.wait()

    # ---- told by the plugin (screening.Screened) ----

    def stored(self, text: str) -> None:
        if self.unsettled and self.unsettled[0].text == text:
            self._queue.settle()

    # ---- told by the connection (connection.Observer) ----

    def connected(self, connection: WatchedConnection) -> None:
        # Not only at the start: a sub-agent that takes over opens its own connection.
        self.handle = self._leave_by = None
        self.answers.forget_open()
        self._connected_at = time.monotonic()
        self._speech.restart()
        self._pulse.connected()
        self.turn.sent()
        self.translator.connected()
        self.hold()
        short_way = self._runner.plugin_manager.get_plugin("short_way")
        assert isinstance(short_way, ShortWay)
        connection.short_way = short_way.shorten(connection.inner, self, self._runner.plugin_manager.plugins)
        is_open = connection.short_way and not self._is_listened_to
        self._queue.send_sound = connection.send_sound if is_open else None
        self._host.connected()

    def history(self, turns: list[types.Content]) -> list[types.Content]:
        """The history, with an end that makes the model answer if, and only if, it owes an answer.

        A model answers a history whose last turn is the user's, and is silent if the last turn is its
        own. The note that is added here is sent to the model only; it is not stored.
        """
        turns = self.screening.screened_turns(turns)
        for text in self._inbox.stored_texts:  # they are given to ADK again
            for turn in reversed(turns):
                if turn.role == "user" and turn.parts and turn.parts[0].text == text:
                    turns.remove(turn)
                    break
        owed = self.turn.owed
        if not turns or (turns[-1].role == "user") == bool(owed):
            return turns
        note = {"": _NO_ANSWER, "answer": _ANSWER_ME, "rest": _GO_ON}[owed]
        return [*turns, types.Content(role="user" if owed else "model", parts=[types.Part(text=note)])]

    def sending(self, content: types.Content | None) -> None:
        if content:
            self._queue.decided()  # ADK stores a text before it sends it
            self.screening.allow()
        self._pulse.sending(is_text=content is not None)

    def sent(self) -> None:
        if self._pulse.sent():
            self.turn.sent()
            self.hold()

    def resumable(self, handle: str) -> None:
        # The service may have made this handle before the model got the input of this turn.
        if not self.turn.given:
            self.handle = handle

    def going_away(self, time_left: float) -> None:
        self._leave_by = time.monotonic() + max(0.0, time_left - _GO_AWAY_MARGIN)
        log.info("%s: the model's connection is to be renewed, %g s left", self._user_id, time_left)
        self._close_if_at_rest()

    def _close_if_at_rest(self) -> None:
        if self.is_at_rest:
            self.close()

    def _take_unasked(self, event: Event) -> None:
        """The agent answers without a model (`before_agent_callback`): to the first text that waits."""
        is_answer = event.content and event.author != "user" and not self.turn.is_open
        if is_answer and not self.turn.owed and self._inbox.has_text:
            while not isinstance(user_input := self._inbox.take(), UserText | None):
                pass  # images: nobody will look at them
            if user_input:
                self.turn.take(user_input)
                self.answered_alone = user_input

    def _sender_failed(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._failure = error

    def _taken(self, user_input: ForModel) -> None:
        self.handle = None  # it no longer covers all that the model was given
        self.turn.take(user_input)
        self._changed()
        is_speech = isinstance(user_input, UserAudio) and user_input.is_speech
        if is_speech:
            self._spoke_at = time.monotonic()
        if is_speech or isinstance(user_input, UserText):
            self.answers.forget_open()


def _seconds_of_sound(event: Event) -> float:
    parts = (event.content and event.content.parts) or []
    return sum(len((part.inline_data and part.inline_data.data) or b"") for part in parts) / SOUND_RATE
