"""A conversation: its listeners, its input, and the one task that drives it from beginning to end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from adk_relay.adk.attendance import Attendance
from adk_relay.adk.failures import explain
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.handover import Handover
from adk_relay.adk.home import Home
from adk_relay.adk.idleness import Idleness
from adk_relay.adk.intake import Intake
from adk_relay.adk.keeping import keep_unsaid
from adk_relay.adk.meter import Meter
from adk_relay.adk.older import OlderReader
from adk_relay.adk.playback import Playback
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.adk.shaping import Shaping
from adk_relay.adk.speaking import Speaking
from adk_relay.adk.stops import Stop
from adk_relay.adk.summaries import of_store, summary_of
from adk_relay.adk.takeover import Takeover
from adk_relay.adk.titles import Title
from adk_relay.adk.turn_ends import TurnEnds
from adk_relay.adk.waiting import Waiting
from adk_relay.core.inbox import Inbox
from adk_relay.core.interfaces import Summary, default_id
from adk_relay.core.listener import Listener
from adk_relay.core.messages import (
    Audio,
    Ended,
    Input,
    Message,
    Numbered,
    Text,
    ToolResult,
    ToolStart,
    Transcript,
    TurnEnd,
    UserText,
)
from adk_relay.core.past import Past
from adk_relay.core.recording import Recorder, Recording
from adk_relay.core.requests import Requests
from adk_relay.core.room import After, Room, Standing
from adk_relay.core.writing import Writing

log = logging.getLogger("relay.agent")

_CLOSE_WAIT = 5.0
"""Seconds after which `aclose` no longer waits for a run that ignores its cancellation."""


class Conversation:
    """A user's conversation: one ADK session and, while it is in use, one run.

    One task drives it: it reads the session, waits until a run is needed, drives the runs one after the
    other, and empties the session. So there is never a second run, and none writes into a deleted session.

    The parts have the invariants.

    Args:
        past: what was recorded by the process that had it before; None: nothing.
        recorder: keeps what another process needs in order to go on; None: there is none.
    """

    def __init__(
        self,
        home: Home,
        user_id: str,
        session_id: str,
        past: Past | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.session = StoredSession(home.writer, home.reader, home.stats, home.app_name, user_id, session_id)
        self.meter = meter = Meter(home.stats, session_id)
        recording = Recording(
            recorder, every_bytes=home.replay_bytes // 4, every_seconds=home.replay_seconds / 3
        )
        self._requests = requests = Requests(home.stats, recording)
        self.room = room = Room(
            requests, recording, replay_bytes=home.replay_bytes, replay_seconds=home.replay_seconds
        )
        self._home = home
        self._past = past if past and past.epoch else None
        self._label = user_id if session_id == default_id(user_id) else f"{user_id}/{session_id}"
        self._inbox = inbox = Inbox(on_dropped=self._dropped_up)
        self._shaping = shaping = Shaping(home, self.session, room, self._label, self._refresh)
        self._runs = runs = Runs(home.runner, shaping, self.session, inbox, self, self._label)
        self._speaking = Speaking(home, room, requests, inbox, runs, meter)
        self._writing = writing = Writing(
            room,
            requests,
            inbox,
            is_owed=lambda: bool(runs.owed),
            would_cut_in=self._would_cut_in,
            want=runs.want,
            sets_state=lambda delta: self.session.set_state.added(delta),
        )
        self._playback = playback = Playback(self.session, room, runs, self._speaking, self._label)
        self._turn_ends = ends = TurnEnds(
            home, self.session, room, requests, inbox, runs, writing, meter, playback
        )
        self.tell = room.broadcast
        self.crossed = ends.crossed
        self.lost_speech = self._speaking.lost
        self.waiting = Waiting(room, self, runs)
        self.older = OlderReader(room, self.session)
        self.title = Title(self.session, room)
        self.rename = self.title.set
        self._idleness = Idleness(home.idle_timeout, self._end_idle)
        parts = self._speaking, playback, writing, ends, self.waiting, shaping, meter, self._idleness
        self._intake = Intake(home, self.session, room, requests, inbox, runs, *parts)
        self._moderation, self._resets = self._intake.moderation, self._intake.resets
        self._attendance = Attendance(
            home, room, runs, writing, self.waiting, self._speaking, meter, self._idleness, ends.interrupt
        )
        self._handover = Handover(room, runs, recording, self._is_busy)
        self._loading = asyncio.create_task(self._load(), name=f"history {self._label}")
        self._task = asyncio.create_task(self.meter.own(self._main()), name=f"conversation {self._label}")

    # ---- for the listeners ----

    async def ready(self) -> None:
        """Waits until the session was read, or until the conversation ends before that.

        Raises:
            Exception: the session could not be read.
        """
        await asyncio.wait({self._loading})
        if not self._loading.cancelled():
            self._loading.result()

    def standing(self, listener: Listener | None) -> Standing:
        """How the conversation stands, for a listener that is about to come, or is there."""
        voice, shape = self._shaping.present_voice, self._shaping.present_shape
        return replace(self.room.standing(listener), title=self.title.text, voice=voice, shape=shape)

    def is_attended_by(self, listener: Listener) -> bool:
        """Whether a listener is in the room."""
        return any(each is listener for each in self.room.listeners)

    def replay(self, listener: Listener, after: After) -> None:
        """Gives a listener in the room the messages that it has missed."""
        self.room.replay(listener, after)

    def attach(self, listener: Listener, after: After | None = None) -> None:
        """Adds a listener to the room. With `after`, it first gets the messages that it missed."""
        self._attendance.attach(listener, after)

    def detach(self, listener: Listener, *, at_once: bool = False) -> None:
        """Removes a listener. When it was the last, the conversation ends after the grace, or `at_once`."""
        if self.is_attended_by(listener):  # not if the conversation was given away meanwhile
            self._attendance.detach(listener, at_once=at_once)

    def handle(self, user_input: Input, listener: Listener) -> None:
        """Takes the input of a listener: see `core.interfaces.Conversation`."""
        if not self._is_closing:
            self._intake.handle(user_input, listener)

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a text whose answer `listener` waits for: see `core.interfaces.Conversation`."""
        self._intake.ask(text, listener)

    async def summary(self) -> Summary:
        """What is told of it in lists."""
        return await summary_of(self.session, self.room)

    async def reset(self, *, delete: bool) -> None:
        """Empties it for all listeners; `delete`: no session is made until something is said. Input that
        comes meanwhile is handled afterwards."""
        why = "The conversation was emptied before it was your turn."
        done = self._resets.add(delete=delete, why=why)
        self._turn_ends.interrupt()
        self._writing.drop(why)
        self._writing.drop_unsaid(why)
        self._runs.stop(Stop.RESET)
        await of_store(asyncio.shield(done))

    def answer(self, answer: ToolResult) -> None:
        """Takes the answer to a tool call: see `core.interfaces.Conversations`."""
        self.waiting.answer(answer)

    async def aclose(self) -> None:
        """Ends the run, tells the listeners that the server stops, and awaits the conversation's task."""
        self._runs.stop(Stop.CLOSING)
        self._writing.keep_waiting()
        self._dismiss(Ended("stopping"))
        self._loading.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Awaits the end of the conversation's task."""
        _, late = await asyncio.wait({self._task}, timeout=_CLOSE_WAIT)
        if late:
            log.error("%s: the run did not end within %g s", self._label, _CLOSE_WAIT)

    def is_answering(self) -> bool:
        """Whether an answer is under way, or a text or speech waits for one."""
        return self._moderation.is_under_way() or self._runs.is_speech_pending

    async def give(self) -> None:
        """Gives the conversation away, between two turns: another process goes on with it.

        Listeners in other processes notice nothing, those in this one are told to come back. If an answer
        takes too long, the listeners are told that the connection is lost. What they send is taken until this
        returns.
        """
        await self._handover.begin()
        await self.ended()

    def lose(self) -> None:
        """Another process has the conversation already: it ends here."""
        self._handover.lose()

    # ---- for the runs (hosts.RunsHost) ----

    def number(self) -> int:
        return self.room.number()

    def speaker(self) -> str:
        return self._speaking.name

    def emit(self, message: Message) -> None:
        self._idleness.touch()
        is_answering = self.room.history.is_answering
        if isinstance(message, Text | Audio | ToolStart | TurnEnd) and not is_answering:
            self._turn_ends.note_whose()
        self.meter.note(message, self._requests)
        if isinstance(message, ToolStart) and message.is_pending:
            self.waiting.note(message)
        match message:
            case Transcript():
                by = self._speaking.last_speaker
                self.room.publish(signed := self.room.signed(message, by))
                self._moderation.hear(signed, by)
            case TurnEnd(goes_on=False):
                self._turn_ends.end(message)
            case _ if isinstance(message, Numbered):
                self.room.publish(message)
            case _:
                self.room.broadcast(message)
        if not (is_answering and isinstance(message, Audio)):
            self.changed()

    def changed(self) -> None:
        self._handover.changed()

    def connected(self) -> None:
        if run := self._runs.run:
            self._shaping.works(run.shape)
        self._runs.connected()

    def stored(self, text: UserText) -> None:
        self.session.touch()
        self._writing.stored(text)

    # ---- for the other parts ----

    def _dropped_up(self, ms: float) -> None:
        self._speaking.dropped(ms)

    def _refresh(self) -> None:
        self._runs.refresh()

    def _would_cut_in(self) -> bool:
        return bool(self._resets) or self._turn_ends.would_cut_in()

    def _is_busy(self) -> bool:
        return bool(self.is_answering() or self._resets or not self._loading.done())

    # ---- the life of a conversation ----

    async def _main(self) -> None:
        try:
            await asyncio.wait({self._loading})
            self._attendance.begin()
            while True:
                reason = await self._runs.needed()
                if reason is None:
                    try:
                        await self._runs.converse()
                    except NotOwnerError:
                        pass  # `lose` was called
                    except Exception as error:
                        self._fail(error)
                elif await self._come_to_rest(reason):
                    return
        finally:
            self._handover.close()  # first: what the others give up now is not recorded
            self._loading.cancel()
            parts = self._attendance, self._idleness, self.older, self.session, self._writing
            for part in (*parts, self._moderation, self.room, self.meter):
                part.close()
            self._home.forget(self)

    async def _come_to_rest(self, reason: Stop) -> bool:
        """Does what the run was stopped for. Returns whether the conversation is over."""
        while self._resets:
            await self._resets.perform()
        await self._playback.settle()
        if self._handover.is_given:
            return True
        if not self.room.listeners:
            self._writing.keep_waiting()
        if self._is_closing or not self.room.listeners:
            await self._keep_unsaid()
        if self._resets:  # added meanwhile
            return False
        if (self._runs.stop_reason or reason) >= Stop.UNREADABLE or not self.room.listeners:
            self._dismiss()
            return True
        self._runs.go_on()
        self._turn_ends.end_unowed()  # a listener may have come while the run was ending
        if not self._runs.is_wanted:
            self._runs.end_reconnecting()
        self._writing.begin_next()
        return False

    async def _load(self) -> None:
        """Reads the session, before any run can add to it."""
        try:
            await self.session.take_over()
            if self._past:
                self._attendance.expect(self._past.present)
                agent = self._home.runner.agent.name
                takeover = Takeover(self._past, self.session, self.room, self._writing, self._runs, agent)
                await takeover.perform(self)
                self._shaping.load(self.session.loaded_state)
                self._shaping.restore(self._past.state.voice, self._past.shape)
                self._turn_ends.end_unowed()
                self._writing.begin_next()
            else:
                self._writing.load(await self.session.load(self.room.history))
                self._shaping.load(self.session.loaded_state)
                self.room.recording.begin(self.room.epoch, self.room.history.next_place)
                self._shaping.recorded()
            answered = {each.tool_id for each in self._runs.state.answers}
            self.waiting.load(call for call in self.session.waiting if call.tool_id not in answered)
        except Exception:
            self._home.forget(self)  # so that the next `open` tries again
            self._runs.stop(Stop.UNREADABLE)
            raise

    async def _keep_unsaid(self) -> None:
        """Stores the texts that no model could be given before the conversation ended."""
        await self._runs.answers.keep()
        parts = self._inbox, self.session, self.stored, lambda: bool(self.room.listeners)
        await keep_unsaid(*parts, self._label)
        await self._shaping.keep()
        await self._playback.keep()

    @property
    def _is_closing(self) -> bool:
        return self._runs.stop_reason in (Stop.CLOSING, Stop.LOST)

    def _fail(self, error: Exception) -> None:
        self._home.failing.failed(self._label, error)
        if self._writing.fail_current():
            self._runs.begin_with("")
        self._runs.give_up()
        self.room.history.interrupt()
        self._dismiss(self.meter.failed(explain(error, self._home.model)), Ended("failed"))

    def _dismiss(self, *last_messages: Message) -> None:
        """Gives up all requests, and sends these messages to every listener."""
        self._writing.drop()
        for listener in [*self.room.listeners]:
            for message in last_messages:
                listener.deliver(message)

    def _end_idle(self) -> None:
        self._dismiss(Ended("idle"))
        self._runs.stop(Stop.IDLE)
