"""What the listeners of a conversation send, on its way to the part that takes it."""

from __future__ import annotations

from adk_relay.adk.home import Home
from adk_relay.adk.idleness import Idleness
from adk_relay.adk.meter import Meter
from adk_relay.adk.playback import Playback
from adk_relay.adk.resets import Resets
from adk_relay.adk.rewinds import Rewinds
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.adk.shaping import Shaping
from adk_relay.adk.speaking import Speaking
from adk_relay.adk.stops import Stop
from adk_relay.adk.turn_ends import TurnEnds
from adk_relay.adk.waiting import Waiting
from adk_relay.core.heard import Heard
from adk_relay.core.inbox import Inbox
from adk_relay.core.listener import Listener
from adk_relay.core.members import Members
from adk_relay.core.messages import (
    ActivityStart,
    AudioEnd,
    Input,
    Interrupt,
    ToolResult,
    UserAudio,
    UserImage,
    UserText,
    UserTyping,
)
from adk_relay.core.moderation import Moderation
from adk_relay.core.requests import Requests
from adk_relay.core.rewind import Rewind
from adk_relay.core.room import Room
from adk_relay.core.voice import Configure
from adk_relay.core.writing import Writing


class Intake:
    """Takes the input of one conversation: first the host may look at it, and resets may hold it.

    Args:
        session, room, requests, inbox, runs, speaking, playback, writing, turn_ends, waiting, shaping, meter,
            idleness: those of the conversation.
    """

    def __init__(
        self,
        home: Home,
        session: StoredSession,
        room: Room,
        requests: Requests,
        inbox: Inbox,
        runs: Runs,
        speaking: Speaking,
        playback: Playback,
        writing: Writing,
        turn_ends: TurnEnds,
        waiting: Waiting,
        shaping: Shaping,
        meter: Meter,
        idleness: Idleness,
    ) -> None:
        self._room = room
        self._inbox = inbox
        self._runs = runs
        self._speaking = speaking
        self._playback = playback
        self._writing = writing
        self._turn_ends = turn_ends
        self._waiting = waiting
        self._shaping = shaping
        self._meter = meter
        self._idleness = idleness
        self._members = Members(requests, writing.is_under_way, room.has_others)
        self.moderation = Moderation(
            home.on_input, session.user_id, session.session_id, room, writing, self._say, turn_ends.interrupt
        )
        rewinds = Rewinds(session, room, inbox, writing, waiting)
        self.resets = Resets(session, room, writing, runs, rewinds, self._say)

    def handle(self, user_input: Input, listener: Listener) -> None:
        """Takes the input of a listener: see `core.interfaces.Conversation`."""
        self._idleness.touch()
        if self._members.may(user_input, listener) and not self.moderation.holds(user_input, listener):
            self._say(user_input, listener)

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a text whose answer `listener` waits for: see `core.interfaces.Conversation`."""
        self._idleness.touch()
        if not self.moderation.holds(text, listener, is_request=True):
            self._writing.ask(text, listener)

    def _say(self, user_input: Input, listener: Listener) -> None:
        """Takes input that has passed the moderation."""
        match user_input:
            case UserAudio() if not self.resets:  # first, because nothing else comes as often
                self._speaking.take(user_input, listener)
            case UserText() | UserImage() | Interrupt() | Rewind() if self.resets:
                self.resets.hold(user_input, listener)
            case Rewind():
                if self.resets.add_rewind(user_input, listener):
                    self._turn_ends.interrupt()
                    self._runs.stop(Stop.RESET)
            case Interrupt():
                self.moderation.stop()
                self._playback.interrupts(listener)
                self._turn_ends.interrupt()
            case Heard():
                self._playback.take(user_input, listener)
            case UserTyping(typing):
                self._room.set_typing(listener, typing)
            case UserText():
                self._meter.wrote()
                self._playback.interrupts(listener)
                self._writing.say(user_input, listener)
            case AudioEnd():
                self._speaking.end(listener)
            case ActivityStart() if self._shaping.push_to_talk and not self.resets:
                self._speaking.begin(listener)
            case ToolResult():
                self._waiting.take(user_input, listener)
            case UserImage():
                self._inbox.add(user_input)
                self._runs.want()
            case Configure():
                self._shaping.take(user_input, listener)
