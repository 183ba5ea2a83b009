"""A conversation: its listeners, its input, and the one task that drives it from beginning to end."""

from __future__ import annotations

import asyncio
import logging

from adk_relay.adk.failures import explain
from adk_relay.adk.home import Home
from adk_relay.adk.idleness import Idleness
from adk_relay.adk.keeping import keep_unsaid
from adk_relay.adk.meter import Meter
from adk_relay.adk.older import OlderReader
from adk_relay.adk.resets import Resets
from adk_relay.adk.runs import Runs, Stop
from adk_relay.adk.session import StoredSession, default_id
from adk_relay.adk.waiting import Waiting
from adk_relay.core.floor import Floor
from adk_relay.core.inbox import Inbox
from adk_relay.core.listener import Listener, member_of
from adk_relay.core.members import Members
from adk_relay.core.messages import (
    ActivityStart,
    Audio,
    AudioEnd,
    Dropped,
    Ended,
    Error,
    Input,
    Interrupt,
    Message,
    Numbered,
    Status,
    Text,
    ToolResult,
    ToolStart,
    Transcript,
    TurnEnd,
    UserAudio,
    UserImage,
    UserText,
    UserTyping,
)
from adk_relay.core.moderation import Moderation
from adk_relay.core.requests import Requests
from adk_relay.core.room import After, Room
from adk_relay.core.writing import Writing

log = logging.getLogger("relay.agent")

_CLOSE_WAIT = 5.0
"""Seconds after which `aclose` no longer waits for a run that ignores its cancellation."""

_UNATTENDED = 5.0
"""Seconds that a conversation waits for its first listener."""


class Conversation:
    """A user's conversation: one ADK session and, while it is in use, one run.

    One task drives it: it reads the session, waits until a run is needed, drives the runs one after the
    other, and empties the session. So there is never a second run, and none writes into a deleted session.

    Invariants:
        The grace timer is set only while there is no listener.
        Input is held only while the session is being emptied. The parts have invariants of their own.
    """

    def __init__(self, home: Home, user_id: str, session_id: str) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.session = StoredSession(
            home.service, home.reader, home.stats, home.app_name, user_id, session_id
        )
        self.meter = Meter(home.stats, session_id)
        self._requests = Requests(home.stats)
        self.room = Room(self._requests, replay_bytes=home.replay_bytes, replay_seconds=home.replay_seconds)
        self._home = home
        self._label = user_id if session_id == default_id(user_id) else f"{user_id}/{session_id}"
        self._inbox = Inbox(on_dropped=self._dropped_up)
        others = self._requests.has_others
        self._floor = Floor(mic_ms=home.mic_ms, hear=self._hear, refuse=self._refuse_speech, others=others)
        self._runs = Runs(home.runner, home.config, self.session, self._inbox, self, self._label)
        self._writing = Writing(
            self.room,
            self._requests,
            self._inbox,
            is_owed=lambda: bool(self._runs.owed),
            would_cut_in=self._would_cut_in,
            want=self._runs.want,
        )
        self._members = Members(self._requests, self._writing.is_under_way, self.room.has_others)
        self.tell = self.room.broadcast
        self.waiting = Waiting(self.room, self, self._runs)
        self.older = OlderReader(self.room, self.session)
        self._moderation = Moderation(
            home.on_input, user_id, session_id, self.room, self._writing, self._say, self._interrupt
        )
        self._resets = Resets(self.session, self.room, self._writing, self._runs, self._say)
        self._idleness = Idleness(home.idle_timeout, self._end_idle)
        self._back_by = 0.0  # when, in the event loop's time, the grace of the listener that left last ends
        self._grace: asyncio.TimerHandle | None = None  # set while there is no listener
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

    def attach(self, listener: Listener, after: After | None = None) -> None:
        """Adds a listener to the room. With `after`, it first gets the messages that it missed."""
        if self._grace:
            self._grace.cancel()
            self._grace = None
        self.meter.came()
        self.room.enter(listener, after)
        self.waiting.tell(listener)
        self._idleness.watch()
        if self._runs.is_reconnecting:
            listener.deliver(Status("reconnecting"))
        if listener.is_audio:
            self._runs.want()

    def detach(self, listener: Listener, *, at_once: bool = False) -> None:
        """Removes a listener. When it was the last, the conversation ends after the grace, or `at_once`."""
        is_alone, is_given_up = self.room.listeners == [listener], False
        if listener.attends == "own":  # nobody else waits for the answers to its requests
            is_given_up = self._writing.withdraw(listener) and is_alone
        self._floor.end(listener.connection_id)
        self.room.leave(listener, is_live=not self._runs.is_reconnecting)
        if is_alone:
            loop = asyncio.get_running_loop()
            if is_given_up:
                self._interrupt()
            elif not at_once:
                self._back_by = loop.time() + self._home.grace
            # A listener that left before may still come back within its own grace.
            self._grace = loop.call_at(0 if at_once else self._back_by, self._runs.stop, Stop.LEFT)

    def handle(self, user_input: Input, listener: Listener) -> None:
        """Takes the input of a listener: see `core.interfaces.Conversation`."""
        self._idleness.touch()
        is_taken = not self._is_closing and self._members.may(user_input, listener)
        if is_taken and not self._moderation.holds(user_input, listener):
            self._say(user_input, listener)

    def _say(self, user_input: Input, listener: Listener) -> None:
        """Takes input that has passed the moderation."""
        match user_input:
            case UserAudio() if not self._resets:  # first, because nothing else comes as often
                self._floor.offer(listener.connection_id, user_input, member_of(listener))
            case UserText() | UserImage() | Interrupt() if self._resets:
                self._resets.hold(user_input, listener)
            case Interrupt():
                self._moderation.stop()
                self._interrupt()
            case UserTyping(typing):
                self.room.set_typing(listener, typing)
            case UserText():
                self.meter.wrote()
                self._writing.say(user_input, listener)
            case AudioEnd():
                self._floor.end(listener.connection_id)
            case ActivityStart() if self._home.push_to_talk and not self._resets:
                self._floor.begin(listener.connection_id, member_of(listener))
            case ToolResult():
                self.waiting.take(user_input, listener)
            case UserImage():
                self._inbox.add(user_input)
                self._runs.want()

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a text whose answer `listener` waits for: see `core.interfaces.Conversation`."""
        self._idleness.touch()
        if not self._moderation.holds(text, listener, is_request=True):
            self._writing.ask(text, listener)

    async def reset(self, *, delete: bool) -> None:
        """Empties the conversation for all listeners; `delete`: no session is made until something is said.

        Input that comes meanwhile is handled afterwards.
        """
        why = "The conversation was emptied before it was your turn."
        done = self._resets.add(delete=delete, why=why)
        self._interrupt()
        self._writing.drop(why)
        self._writing.drop_unsaid(why)
        self._runs.stop(Stop.RESET)
        await asyncio.shield(done)

    async def aclose(self) -> None:
        """Ends the run, tells the listeners that the server stops, and awaits the conversation's task."""
        self._runs.stop(Stop.CLOSING)
        self._writing.keep_waiting()
        self._dismiss(Ended("stopping"))
        self._loading.cancel()
        _, late = await asyncio.wait({self._task}, timeout=_CLOSE_WAIT)
        if late:
            log.error("%s: the run did not end within %g s", self._label, _CLOSE_WAIT)

    def is_answering(self) -> bool:
        """Whether an answer is under way, or a text or speech waits for one."""
        return self._moderation.is_under_way() or self._runs.is_speech_pending

    def check(self) -> None:
        """Asserts the invariants."""
        assert not (self._grace and self.room.listeners), "the grace timer is set, and there are listeners"

    # ---- for the runs (hosts.RunsHost) ----

    def number(self) -> int:
        return self.room.number()

    def speaker(self) -> str:
        return self.room.name_of(self._floor.last_speaker)

    def emit(self, message: Message) -> None:
        self._idleness.touch()
        if isinstance(message, Text | Audio | ToolStart | TurnEnd) and not self.room.history.is_answering:
            self._note_whose()
        self.meter.note(message, self._requests)
        if isinstance(message, ToolStart) and message.is_pending:
            self.waiting.note(message)
        match message:
            case Transcript():
                self.room.publish(signed := self.room.signed(message, self._floor.last_speaker))
                self._moderation.hear(signed, self._floor.last_speaker)
            case TurnEnd(goes_on=False):
                self._end_turn(message)
            case _ if isinstance(message, Numbered):
                self.room.publish(message)
            case _:
                self.room.broadcast(message)

    def connected(self) -> None:
        self._runs.connected()

    def stored(self, text: UserText) -> None:
        self.session.touch()
        self._writing.stored(text)

    def crossed(self) -> None:
        run, current = self._runs.run, self._requests.current
        if run and current and run.turn.waits_for(current.text):
            self._end_turn(TurnEnd(self.number(), interrupted=True))

    def lost_speech(self) -> None:
        why = "The connection broke while you spoke. Please say it again."
        self.room.send_to(self._floor.last_speaker, Error("speech_lost", why))

    # ---- input ----

    def _interrupt(self) -> None:
        self.room.recall_audio()
        has_stopped = self._inbox.stop()
        ends = self._runs.stop_answer()
        # Without a run the model may have got nothing yet, or the next run would have said the rest.
        is_to_come = not self._runs.run and (self.room.history.is_answering or self._requests.current)
        if not ends and (has_stopped or is_to_come):
            ends = [TurnEnd(self.number(), interrupted=True)]
        for message in ends:
            self._end_turn(message)
        if self._requests.current:  # its text waited while another answer was given
            self._end_turn(TurnEnd(self.number(), interrupted=True))

    def _end_turn(self, end: TurnEnd) -> None:
        self.session.touch()
        self.meter.ended(end)
        self.room.publish(end)
        self._home.failing.ended(end)
        self._writing.answered()

    def _note_whose(self) -> None:
        """An answer opens: it may be another than that of the current request."""
        run, current = self._runs.run, self._requests.current
        is_aside = bool(run and current and not run.turn.is_about(current.text))
        if is_aside != self._requests.is_aside:
            self._requests.is_aside = is_aside
            self.room.update_audience()

    def _hear(self, sound: UserAudio | ActivityStart | AudioEnd) -> None:
        if self._runs.answers_alone:
            return
        self.meter.heard(sound)
        self._inbox.add(sound)
        if not isinstance(sound, AudioEnd):  # its speaker may have left: no reason to connect to the model
            self._runs.want()

    def _refuse_speech(self, connection_id: str) -> None:
        self.room.send_to(connection_id, Error("busy", "Somebody else is speaking or waits: wait a moment."))

    def _dropped_up(self, ms: float) -> None:
        self.meter.stats.dropped_up_ms += ms
        self.room.send_to(self._floor.speaker or self._floor.last_speaker, Dropped("up", ms))

    def _would_cut_in(self) -> bool:
        """Whether the model could take a new request for a part of something else."""
        run = self._runs.run
        if self._resets or self._runs.stop_reason is not None:
            return True
        if run and run.is_at_rest and run.turn.is_uncertain:
            run.renew()  # only a new connection knows the order again
        return bool(run and (run.is_speech_pending or run.turn.is_stopped_early or run.turn.is_uncertain))

    # ---- the life of a conversation ----

    async def _main(self) -> None:
        try:
            await asyncio.wait({self._loading})
            if not self.room.listeners:
                self._grace = asyncio.get_running_loop().call_later(_UNATTENDED, self._runs.stop, Stop.LEFT)
            while True:
                reason = await self._runs.needed()
                if reason is None:
                    try:
                        await self._runs.converse()
                    except Exception as error:
                        self._fail(error)
                elif await self._come_to_rest(reason):
                    return
        finally:
            if self._grace:
                self._grace.cancel()
            self._loading.cancel()
            parts = (self._idleness, self.older, self.session, self._writing, self._moderation, self.room)
            for part in (*parts, self.meter):
                part.close()
            self._home.forget(self)

    async def _come_to_rest(self, reason: Stop) -> bool:
        """Does what the run was stopped for. Returns whether the conversation is over."""
        while self._resets:
            await self._resets.perform()
        if not self.room.listeners:
            self._writing.keep_waiting()
        if self._is_closing or not self.room.listeners:
            await self._keep_unsaid()
        if self._resets:  # added meanwhile
            return False
        if self._is_closing or reason is Stop.UNREADABLE or not self.room.listeners:
            self._dismiss()
            return True
        self._runs.go_on()
        # A listener came while the run was ending: the answer under way is over all the same.
        is_owed = self._runs.owed or self._inbox.has_text
        if not is_owed and (self._requests.current or self.room.history.is_answering):
            self._end_turn(TurnEnd(self.number(), interrupted=True))
        if not self._runs.is_wanted:
            self._runs.end_reconnecting()
        self._writing.begin_next()
        return False

    async def _load(self) -> None:
        """Reads the session, before any run can add to it."""
        try:
            await self.session.load(self.room.history)
            self.waiting.load(self.session.waiting)
        except Exception:
            self._home.forget(self)  # so that the next `open` tries again
            self._runs.stop(Stop.UNREADABLE)
            raise

    async def _keep_unsaid(self) -> None:
        """Stores the texts that no model could be given before the conversation ended."""
        await self._runs.keep_answers()
        texts = await keep_unsaid(self._inbox, self.session, self.stored, self._label)
        if self.room.listeners or not all(text.is_stored for text in texts):
            for text in reversed(texts):  # a listener has come back meanwhile: the next run answers them
                self._inbox.give_back(text)

    @property
    def _is_closing(self) -> bool:
        return self._runs.stop_reason is Stop.CLOSING

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
