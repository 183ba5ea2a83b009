"""Who speaks in a conversation, and the way of the sound to the inbox."""

from __future__ import annotations

from adk_relay.adk.home import Home
from adk_relay.adk.meter import Meter
from adk_relay.adk.runs import Runs
from adk_relay.core.floor import Floor
from adk_relay.core.inbox import Inbox
from adk_relay.core.listener import Listener, member_of
from adk_relay.core.messages import ActivityStart, AudioEnd, Dropped, Error, UserAudio
from adk_relay.core.requests import Requests
from adk_relay.core.room import Room


class Speaking:
    """The speakers of one conversation, of whom one has the floor.

    Args:
        room, requests, inbox, runs, meter: those of the conversation.
    """

    def __init__(
        self, home: Home, room: Room, requests: Requests, inbox: Inbox, runs: Runs, meter: Meter
    ) -> None:
        self._room = room
        self._inbox = inbox
        self._runs = runs
        self._meter = meter
        self._floor = Floor(
            mic_ms=home.mic_ms, hear=self._hear, refuse=self._refuse, others=requests.has_others
        )

    @property
    def last_speaker(self) -> str:
        """The connection id of who spoke last; "": nobody has."""
        return self._floor.last_speaker

    @property
    def name(self) -> str:
        """What the user is called who spoke last; "": it is not known."""
        return self._room.name_of(self._floor.last_speaker)

    def take(self, sound: UserAudio, listener: Listener) -> None:
        """Takes the sound of a listener."""
        self._floor.offer(listener.connection_id, sound, member_of(listener))

    def begin(self, listener: Listener) -> None:
        """A listener says that its user begins to speak."""
        self._floor.begin(listener.connection_id, member_of(listener))

    def end(self, listener: Listener) -> None:
        """A listener's microphone is muted, or the listener leaves."""
        self._floor.end(listener.connection_id)

    def dropped(self, ms: float) -> None:
        """Sound on its way to the model was given up."""
        self._meter.stats.dropped_up_ms += ms
        self._room.send_to(self._floor.speaker or self._floor.last_speaker, Dropped("up", ms))

    def lost(self) -> None:
        """The connection to the model broke while somebody spoke."""
        why = "The connection broke while you spoke. Please say it again."
        self._room.send_to(self._floor.last_speaker, Error("speech_lost", why))

    def _hear(self, sound: UserAudio | ActivityStart | AudioEnd) -> None:
        if self._runs.answers_alone:
            return
        self._meter.heard(sound)
        self._inbox.add(sound)
        if not isinstance(sound, AudioEnd):  # its speaker may have left: no reason to connect to the model
            self._runs.want()

    def _refuse(self, connection_id: str) -> None:
        why = "Somebody else is speaking or waits: wait a moment."
        self._room.send_to(connection_id, Error("busy", why))
