"""A conversation that another process owns, as the sockets of this one see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from adk_relay.bus import names
from adk_relay.bus.attendee import Attendee, State
from adk_relay.bus.codec import encode
from adk_relay.bus.commands import Ask, Attend, Leave, Replay
from adk_relay.bus.hub import Hub
from adk_relay.bus.microphone import Microphone
from adk_relay.bus.ownership import Owner
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.listener import Listener
from adk_relay.core.messages import (
    Ack,
    ActivityStart,
    AudioEnd,
    Dropped,
    Error,
    Input,
    Line,
    Message,
    Numbered,
    ReadOlder,
    Reset,
    Status,
    TurnEnd,
    UserAudio,
    UserImage,
    UserText,
    Written,
)
from adk_relay.core.own_ids import is_own, with_id
from adk_relay.core.room import After, Standing
from adk_relay.core.titles import Renamed
from adk_relay.core.voice import Configured

_MAX_UNACKED = 256
_MAX_UNACKED_BYTES = 1024 * 1024
_MAX_HELD = 64
"""Texts of a listener that may wait for their acks, their bytes, and other input that may wait for an
owner."""


class Attended:
    """A conversation that another process owns. It implements `core.interfaces.Conversation`.

    What its listeners send goes to the owner. A text stays here until the owner has acked it, a request until
    it is answered: a new owner gets them again. So each text has an id.

    Args:
        mic_ms: milliseconds of a microphone's sound that are sent at once.
        on_unneeded: called when nobody attends it any more.

    Invariants:
        A listener that is in got all messages up to its own `seq` which were for it.
        Input is held only while there is no owner.
    """

    def __init__(
        self,
        hub: Hub,
        user_id: str,
        session_id: str,
        mic_ms: float,
        on_unneeded: Callable[[Attended], None],
    ) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.older = self
        self.owner: Owner | None = None
        """None: a new one is being looked for."""
        self.has_owner = asyncio.Event()
        self.dead_token = 0
        """Of the last owner that is known to be no owner any more."""
        self.opens = 0
        """How many calls need it now."""
        self._hub = hub
        self._mic_ms = mic_ms
        self._on_unneeded = on_unneeded
        self._standing = Standing("", 0, 0, 0, ())
        self._came_at = 0.0
        self._expected = 0
        """How many listeners the owner expects."""
        self._attending: dict[str, Attendee] = {}
        """By connection id, in the order in which they came."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.has_owner.is_set() == (self.owner is not None)
        for each in self._attending.values():
            assert not (self.owner and each.held), "input is held, and there is an owner"
            each.unsettled.check()

    @property
    def is_needed(self) -> bool:
        """Whether anybody attends it, or is about to."""
        return bool(self.opens or self._attending)

    # ---- for the listeners ----

    def opened(self, standing: Standing, came_at: float) -> None:
        """The owner has said how it stands. A listener attends now, which came at this `time.time()`."""
        self._came_at = came_at
        before = self._standing
        if before.epoch == standing.epoch:  # what was told since then may have been quicker
            standing = replace(standing, seq=max(standing.seq, before.seq))
        self._standing = standing
        self._expected += 1

    def not_coming(self) -> None:
        """Listeners that could have come have not done so: the owner counts them no more."""
        for _ in range(self._expected):
            self._send_quietly("", encode(Leave()))
        self._expected = 0

    def standing(self, listener: Listener | None) -> Standing:
        standing = self._standing
        if listener is None:
            return standing
        own = listener.connection_id
        names = tuple(each for each in standing.names if each[0] != own)
        return replace(standing, others=standing.others - (own in self._attending), names=names)

    def is_attended_by(self, listener: Listener) -> bool:
        attending = self._attending.get(listener.connection_id)
        return attending is not None and attending.listener is listener

    def replay(self, listener: Listener, after: After) -> None:
        attending = self._attending[listener.connection_id]
        attending.after, attending.is_in = after, False
        self._attend(attending)

    def attach(self, listener: Listener, after: After | None = None) -> None:
        epoch, seq = self._standing.epoch, self._standing.seq
        if listener.attends == "own":
            after = None
        else:  # what is told after the answer to `open`, and before this arrives, is not missed
            after = After(after.epoch or epoch, after.seq) if after else After(epoch, seq)
        chosen = Configured(self._standing.voice, self._standing.shape)
        attending = Attendee(listener, after, self._came_at, epoch, seq, self._standing.title, chosen)
        self._attending[listener.connection_id] = attending
        self._expected = max(self._expected - 1, 0)
        self._attend(attending)
        if self._hub.server.is_away:
            attending.tell("degraded")

    def detach(self, listener: Listener, *, at_once: bool = False) -> None:
        if attending := self._attending.pop(listener.connection_id, None):
            if attending.microphone:
                attending.microphone.flush()
                self._send_sound(attending, attending.microphone)
            self._send_quietly(listener.connection_id, encode(Leave(at_once)))
            if not self.is_needed:
                self._on_unneeded(self)

    def handle(self, user_input: Input, listener: Listener) -> None:
        attending = self._attending[listener.connection_id]
        if isinstance(user_input, UserText):
            user_input = with_id(user_input)
            self._say(attending, user_input.id, user_input)
        elif isinstance(user_input, UserAudio | ActivityStart | AudioEnd):
            if not (microphone := attending.microphone):
                microphone = Microphone(self._mic_ms, lambda ms: listener.deliver(Dropped("up", ms)))
                attending.microphone = microphone
            microphone.add(user_input)
            self._send_sound(attending, microphone)
        elif isinstance(user_input, UserImage):
            picture = encode(user_input)
            self._send(listener.connection_id, picture)
            attending.pictures.add(picture)
        elif self.owner:
            self._send(listener.connection_id, encode(user_input))
            attending.unsettled.keep(user_input)
        elif not attending.unsettled.keep(user_input):
            if len(attending.held) >= _MAX_HELD:
                raise InboxFullError
            attending.held.append(encode(user_input))

    def ask(self, text: UserText, listener: Listener) -> None:
        ask = Ask(with_id(text))
        self._say(self._attending[listener.connection_id], ask.text.id, ask)

    def read(self, wanted: ReadOlder, listener: Listener) -> None:
        """Reads older messages: see `core.interfaces.OlderMessages`."""
        if self.owner:
            self._send(listener.connection_id, encode(wanted))
        else:
            listener.deliver(Error("busy", "Older messages can't be read just now."))

    def _say(self, attending: Attendee, text_id: str, text: UserText | Ask) -> None:
        """Sends a text, and keeps it. One that is refused is not kept: it would be said later."""
        connection, data = attending.listener.connection_id, encode(text)
        if text_id in attending.texts:
            self._send_quietly(connection, data)
        elif len(attending.texts) >= _MAX_UNACKED or attending.text_bytes >= _MAX_UNACKED_BYTES:
            raise InboxFullError
        else:
            self._send(connection, data)
        attending.forget(text_id)
        attending.texts[text_id] = text

    # ---- to and from the owner ----

    def lost(self, *, is_told: bool) -> None:
        """The owner owns it no more. `is_told`: the listeners notice."""
        assert self.owner
        self.dead_token = self.owner.token
        self._expected = 0
        self.owner = None
        self.has_owner.clear()
        for attending in self._attending.values():
            if is_told:
                attending.tell("reconnecting")

    def could_have(self, owner: Owner) -> bool:
        """Whether this may be its owner now: a process that this one understands, and not the one before."""
        is_understood = names.understand(owner.process, self._hub.process)
        return bool(owner.process) and is_understood and owner.token > self.dead_token

    def found(self, owner: Owner) -> None:
        """There is an owner: all attend anew, and say again what it may not know."""
        self.owner = owner
        self.has_owner.set()
        for attending in self._attending.values():
            attending.held[:0] = attending.unsettled.again()
        self.attend_anew()

    def attend_anew(self) -> None:
        """All attend again: something from the owner, or to it, may be lost."""
        for attending in self._attending.values():
            if attending.is_in and attending.after:
                # One that gets all messages has a place of its own: an owner that has taken this process for
                # dead does not tell it what it tells others that have come since.
                is_all = attending.listener.attends == "all"
                place = attending if is_all else self._standing
                attending.after = After(place.epoch, place.seq)
            attending.is_in = False
            self._attend(attending)

    def tell(self, state: State | Literal[""]) -> None:
        """Tells all listeners what is the matter here; "": nothing is any more."""
        for attending in self._attending.values():
            attending.tell(state if self.owner or state else "reconnecting")

    def given_up(self, connections: Sequence[str], ms: float) -> None:
        """Sound of these connections was given up on its way to the owner."""
        for connection in connections:
            if attending := self._attending.get(connection):
                attending.listener.deliver(Dropped("up", ms))

    def take(self, connections: Sequence[str], content: Message | Replay) -> None:
        """Takes what the owner tells some of the connections, or all ([])."""
        if isinstance(content, Replay):
            for connection in connections:
                if attending := self._attending.get(connection):
                    self._replayed(attending, content)
            return
        self._note(content)
        for connection in connections or [*self._attending]:
            attending = self._attending.get(connection)
            if attending and attending.is_in:
                self._deliver(attending, content)

    def _replayed(self, attending: Attendee, replay: Replay) -> None:
        is_first = not attending.is_in
        attending.is_in = True
        # It never goes back: what was told meanwhile may have been quicker.
        seq = replay.seq if replay.epoch != self._standing.epoch else max(replay.seq, self._standing.seq)
        has_lines = any(isinstance(message, Line | Written) for message in replay.messages)
        count = self._standing.message_count or int(has_lines)
        self._standing = replace(
            self._standing, epoch=replay.epoch, seq=seq, message_count=count, title=replay.title
        )
        if attending.epoch != replay.epoch and replay.emptied:  # this listener could not be reached then
            attending.epoch, attending.seq = replay.epoch, 0
            if attending.listener.attends != "own":
                attending.listener.deliver(Reset(replay.epoch, replay.emptied == "deleted"))
            if not self.is_attended_by(attending.listener):  # not any more
                return
        if replay.epoch and replay.title != attending.title:
            self._deliver(attending, Renamed(replay.title))
        if replay.chosen and replay.chosen != attending.chosen:
            self._note(replay.chosen)
            self._deliver(attending, replay.chosen)
        if attending.after and is_first:
            own = attending.listener.connection_id
            attending.listener.replay(
                [
                    message
                    for message in replay.missed(attending.after, attending.epoch)
                    if not (isinstance(message, Written) and message.connection_id == own)  # it wrote that
                ]
            )
            for message in replay.messages:
                attending.settle(message)
        attending.seq = replay.seq if attending.epoch != replay.epoch else max(replay.seq, attending.seq)
        attending.epoch = replay.epoch
        if not self._hub.server.is_away:
            attending.state = "live"
            attending.tell("")

    def _note(self, message: Message) -> None:
        """Keeps how the conversation stands, for those who come."""
        if isinstance(message, Configured):
            self._standing = replace(self._standing, voice=message.voice, shape=message.shape)
        elif isinstance(message, Renamed):
            self._standing = replace(self._standing, title=message.title)
        elif isinstance(message, Reset):
            title = "" if message.deleted else self._standing.title
            self._standing = replace(self._standing, epoch=message.epoch, seq=0, message_count=0, title=title)
        elif isinstance(message, Numbered) and message.seq > self._standing.seq:
            has_messages = self._standing.message_count or isinstance(message, Written | TurnEnd)
            self._standing = replace(self._standing, seq=message.seq, message_count=int(has_messages))

    def _deliver(self, attending: Attendee, message: Message) -> None:
        if attending.settle(message):
            return
        match message:
            case Renamed(title):
                attending.title = title
            case Configured(voice, shape):
                attending.chosen = Configured(voice, shape)
            case Ack(text_id):
                text = attending.texts.get(text_id)
                if text is None or text_id in attending.acked:
                    return  # it was sent to the owner more than once
                attending.acked.add(text_id)
                if not isinstance(text, Ask) or text_id in attending.answered:
                    attending.forget(text_id)
                if is_own(text_id):
                    return
            case Status(state):
                attending.state = state
                if attending.told:
                    return
            case Reset(epoch):
                attending.epoch, attending.seq = epoch, 0
            case Dropped() if not attending.listener.is_audio:
                return
            case _:
                if isinstance(message, Numbered):
                    attending.seq = max(attending.seq, message.seq)
        attending.listener.deliver(message)

    def _attend(self, attending: Attendee) -> None:
        """A listener attends, and says what the owner may not know yet."""
        if not self.owner:
            return
        listener = attending.listener
        attend = Attend(
            self.user_id,
            listener.name,
            listener.member,
            listener.address,
            listener.is_audio,
            listener.connects,
            listener.attends,
            attending.came_at,
            attending.after,
        )
        connection = listener.connection_id
        held, attending.held = attending.held, []
        texts = [encode(text) for text in attending.texts.values()]
        for data in (encode(attend), *attending.pictures, *texts, *held):
            self._send_quietly(connection, data)
        if attending.microphone:
            self._send_sound(attending, attending.microphone)

    def _send_sound(self, attending: Attendee, microphone: Microphone) -> None:
        """Sends the sound that waits, if there is an owner."""
        if self.owner:
            for sound in microphone.take():
                connection, is_sound = attending.listener.connection_id, isinstance(sound, UserAudio)
                self._send_quietly(connection, encode(sound), is_sound=is_sound)

    def _send_quietly(self, connection: str, content: bytes, *, is_sound: bool = False) -> None:
        with contextlib.suppress(InboxFullError):  # the owner notices, and lets all attend anew
            self._send(connection, content, is_sound=is_sound)

    def _send(self, connection: str, content: bytes, *, is_sound: bool = False) -> None:
        if self.owner:
            token, process = self.owner
            self._hub.send(process, self.session_id, token, connection, content, is_sound)
