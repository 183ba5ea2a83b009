"""One run: a `run_live` and its connection to the model, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.sessions import Session
from google.genai import types

from adk_relay.adk.answers import Answers
from adk_relay.adk.connection import LostConnection, WatchedConnection, observer
from adk_relay.adk.holding import Holding
from adk_relay.adk.hosts import RunHost
from adk_relay.adk.instruction import Instruction
from adk_relay.adk.leaving import Leaving
from adk_relay.adk.marks import marks_of
from adk_relay.adk.models import telemetry
from adk_relay.adk.notes import with_an_end, without
from adk_relay.adk.pulse import SOUND_RATE, Pulse, seconds_of_sound
from adk_relay.adk.queue import RequestQueue, hands_over
from adk_relay.adk.runner import WatchedRunner, at_hand, begin_with
from adk_relay.adk.screening import Screening, is_screened
from adk_relay.adk.speech import Speech, is_push_to_talk
from adk_relay.adk.state import delta_of
from adk_relay.adk.tools import in_their_own_loop
from adk_relay.adk.translator import Translator
from adk_relay.adk.turn import Owed
from adk_relay.adk.waiting import show_to_model
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ForModel, UserAudio, UserText
from adk_relay.core.shape import Shape

log = logging.getLogger("relay.agent")

_PROGRESS_AFTER = 60.0
"""Seconds after which a connection counts as progress, even if no turn was completed on it."""


class Run:
    """One `run_live` and its connection to the model. The user's input goes in, messages come out.

    Args:
        runner: runs the agent.
        config: the run configuration; the run works on a copy.
        shape: what clients have set.
        user_id, session_id: the ADK session, which must exist.
        inbox: where the user's input comes from.
        host: the conversation.
        handle: resumes the service's own session; None: the history is sent instead.
        owed: what the user still waits for from the run before.
        owed_text: the question that this is the answer to, if it was a text.
        agent: the name of the agent that the run begins with; "": ADK decides.
        read: reads the ADK session, with the events that the model is to be given.
        answers: those of users to tool calls that are not stored yet.

    Invariants:
        A resumption handle covers all input that the model was given: taking input removes the handle.
    """

    def __init__(
        self,
        runner: WatchedRunner,
        config: RunConfig,
        shape: Shape,
        user_id: str,
        session_id: str,
        inbox: Inbox,
        host: RunHost,
        *,
        handle: str | None = None,
        owed: Owed = "",
        owed_text: UserText | None = None,
        agent: str = "",
        read: Callable[[], Awaitable[Session]],
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
        self._user_id, self._session_id, self.shape = user_id, session_id, shape
        self._read, self._inbox = read, inbox
        self._host, self.meter = host, host.meter
        self._speech = Speech(push_to_talk=is_push_to_talk(config))
        self.translator = Translator(host.number, host.room.place, host.speaker, owed=owed, text=owed_text)
        self.answers = Answers(answers, self.translator, host.emit, lambda: self.under_way > 0)
        self.instruction = Instruction()
        self.queue = RequestQueue(
            inbox,
            self._taken,
            host.stored,
            self._sender_failed,
            self._speech,
            self.answers.result,
            self._must_wait,
            lambda text: marks_of(text) | delta_of(text, self.instruction.state),
        )
        self.agent = agent
        """The name of the agent that speaks."""
        self._agents = 0  # how many have begun
        self.turn = self.translator.turn
        self.screening = Screening(
            is_screened=is_screened(runner.agent, runner.plugin_manager.plugins),
            allowed=owed_text.text if owed_text else "",
        )
        self.handle: str | None = None
        """A resumption handle that covers all input that the model was given."""
        self._completed_turn = False
        self._connection: WatchedConnection | None = None
        self._connected_at: float | None = None
        self._pulse = Pulse(host.meter.stats.sound_down)
        self._failure: Exception | None = None  # of ADK's sending task
        self.leaving = Leaving()
        self._holding = Holding(self.turn, inbox)
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
        begin_with.set(self.agent)
        config, tools = in_their_own_loop(self._config)
        whose: dict[str, Any] = {"user_id": self._user_id, "session_id": self._session_id}
        try:
            # A configuration that limits what ADK reads is ADK's to obey.
            at_hand.set([] if self._config.get_session_config else [await self._read()])
            events = self._runner.run_live(**whose, live_request_queue=self.queue, run_config=config)
            self._holding.update()
            with tools:
                await self._translate(events)
        finally:
            self._holding.end()

    async def _translate(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                if hands_over(event):
                    self.queue.begin_handover()
                self._pulse.heard(seconds_of_sound(event), is_first=not self.turn.is_open)
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
                    self._speech.settled()
                    if self.leaving:
                        self._close_if_at_rest()
                elif event.input_transcription and event.input_transcription.finished:
                    self._speech.settled()
                self.under_way = max(self.under_way - 1, 0)
                if not self.under_way:
                    self._caught_up.set()
                    self.answers.pause()

    def answer(self, answer: types.Part) -> None:
        """Gives the model a user's answer to a tool call, or leaves it to the next run, which follows."""
        if answer.function_response and self.answers.is_open(answer.function_response.id or ""):
            self.queue.results.append(answer)
            self._inbox.ready.set()
        else:
            self.leaving.answered()
            self._close_if_at_rest()

    def close(self) -> None:
        """Asks the run to end: `drive()` returns when the connection is closed."""
        self.queue.close()

    def renew(self) -> None:
        """Ends the run. The next one makes a new connection, and sends the history."""
        self.leaving.is_renewed = True
        self.handle = None
        self.close()

    def refresh(self) -> None:
        """The next turn needs a new connection: this run ends at its next rest, and the next one follows."""
        self.leaving.is_stale = True
        self.handle = None
        self._close_if_at_rest()

    def shorten(self, unheard: Event) -> None:
        """The users have not heard all that the model has said."""
        self.leaving.unheard.append(unheard)
        if self._runner.can_begin_with(self.agent):  # a program of another kind can only be resumed
            self.handle, self.leaving.needs_history = None, True

    def _changed(self) -> None:
        self._holding.update()
        self._host.changed()
        if self.turn.crosses():
            self._host.crossed()

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
    def is_speech_pending(self) -> bool:
        """The user has just spoken, and the final transcript has not come yet."""
        return self._speech.is_pending

    def overdue(self) -> Exception | None:
        """Why the connection counts as lost although it has reported no error; None: it does not.

        It also closes a run that is to end, if no answer is under way.
        """
        if self._failure:
            return self._failure
        if self.leaving.is_due:
            if self.turn.is_open or self.turn.owed:
                return LostConnection(None, "the service went away in the middle of an answer")
            self.close()
        if self._connected_at is None:
            return None
        if self._pulse.is_stalled(text_waits=self._inbox.has_content):
            return LostConnection(None, "a text was not sent in time")
        self.turn.forget_unanswered()
        self._changed()
        if self.leaving.is_stale:
            self._close_if_at_rest()
        if self.queue.undecided or self.translator.is_agent_busy:  # it is the agent's time
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

    # ---- told by ADK (plugins.Plugins) ----

    def begins(self, agent: str) -> bool:
        is_the_same = self._agents == 0 and agent == self.agent
        self.agent, self._agents = agent, self._agents + 1
        self._connected_at = None
        self.leaving.connected()
        return is_the_same

    def entered(self, event: Event) -> None:
        self.screening.note(event)
        self.translator.note_place(event)
        if self.is_unconnected:
            show_to_model(event)
        self.under_way += 1
        self._caught_up.clear()

    def stored(self, text: str) -> None:
        if self.queue.unsettled and self.queue.unsettled[0].text == text:
            self.queue.settle()

    # ---- told by the short way (sound.Hearer) ----

    def hear(self, pcm: bytes) -> None:
        was_open = self.turn.is_open
        self._pulse.heard(len(pcm) / SOUND_RATE, is_first=not was_open, is_short=True)
        for message in self.translator.sound(pcm):
            self._host.emit(message)
        if not was_open:
            self._holding.update()

    def is_listened_to(self) -> None:
        self._is_listened_to = True
        self.queue.send_sound = None

    async def caught_up(self) -> None:
        await self._caught_up.wait()

    # ---- told by the connection (connection.Observer) ----

    def connected(self, connection: WatchedConnection) -> None:
        # Not only at the start: a sub-agent that takes over opens its own connection.
        self.handle = None
        self.leaving.connected()
        self.answers.forget_open()
        self.queue.connected()
        self._connection, self._connected_at = connection, time.monotonic()
        self._pulse.connected()
        self.turn.sent()
        self.translator.connected(connection.model)
        self._holding.update()
        plugins = self._runner.plugin_manager
        connection.short_way = plugins.sound.shorten(connection.inner, self, plugins.plugins)
        is_open = connection.short_way and not self._is_listened_to
        self.queue.send_sound = connection.send_sound if is_open else None
        self._host.connected()

    def history(self, turns: list[types.Content]) -> list[types.Content]:
        turns = self.screening.screened_turns(turns)
        return with_an_end(without(turns, [text.text for text in self._inbox.stored_texts]), self.turn.owed)

    def sending(self, content: types.Content | None) -> None:
        if content:
            self.queue.decided()  # ADK stores a text before it sends it
            self.screening.allow()
        self._pulse.sending(is_text=content is not None)

    def sent(self) -> None:
        if self._pulse.sent():
            self.turn.sent()
            self._holding.update()

    def resumable(self, handle: str) -> None:
        # The service may have made this handle before the model got the input of this turn.
        if not (self.turn.given or self.leaving.is_stale or self.leaving.needs_history):
            self.handle = handle
            self._host.changed()
            if self.leaving:
                self._close_if_at_rest()

    def going_away(self, time_left: float) -> None:
        self.leaving.going_away(time_left)
        log.info("%s: the model's connection is to be renewed, %g s left", self._user_id, time_left)
        self._close_if_at_rest()

    def ended(self) -> None:
        self.close()  # otherwise a workflow agent would begin its next agent

    def _close_if_at_rest(self) -> None:
        if not self.is_at_rest:
            return
        if self.leaving.is_stale:
            self.renew()
        if self.leaving.needs_run or self._runner.can_begin_with(self.agent):
            self.close()
        elif self.handle and self._connection:
            self.queue.begin_handover()
            self._connection.renew(self.handle)  # in this run: the next one would begin the program anew

    def _take_unasked(self, event: Event) -> None:
        """The agent answers without a model (`before_agent_callback`): to the first text that waits."""
        is_answer = event.content and event.author != "user" and not self.turn.is_open
        if is_answer and not self.turn.owed and (text := self._inbox.take_text()):
            self.turn.take(text)
            self.answered_alone = text

    def _sender_failed(self, error: BaseException) -> None:
        self._failure = error if isinstance(error, Exception) else self._failure

    async def _must_wait(self, text: UserText) -> bool:
        """Whether a text needs a new connection. If so, this run ends, and the open answer is interrupted."""
        delta = None if text.is_stored else text.state_delta
        if not (self.leaving.is_stale or (delta and await self.instruction.changes(delta))):
            return False
        for message in self.translator.stop():
            self._host.emit(message)
        self.renew()
        return True

    def _taken(self, user_input: ForModel) -> None:
        if isinstance(user_input, UserAudio) and not user_input.is_speech and self.turn.given:
            return  # most input is this, and nothing is new
        self.handle = None  # it no longer covers all that the model was given
        self.turn.take(user_input)
        self._changed()
        if isinstance(user_input, UserText) or (isinstance(user_input, UserAudio) and user_input.is_speech):
            self.answers.forget_open()
