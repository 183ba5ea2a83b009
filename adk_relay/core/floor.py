"""The floor: of all microphones that send sound, the model hears one at a time."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import NamedTuple

from adk_relay.core.listener import Member
from adk_relay.core.messages import ActivityStart, AudioEnd, UserAudio
from adk_relay.core.microphone import Merger

_SPEECH_LEVEL = 500
"""Mean |sample| of 16-bit sound from which a chunk counts as speech."""

_QUIET = 1.0
"""Seconds without speech after which another microphone may take the floor."""

_REFUSE_EVERY = 1.0
"""Seconds between two refusals of a microphone that continues to send speech."""

_SHARE = 30.0
"""Seconds that the speaker may have spoken longer than another member, of late, if that wants to speak.
Where nobody signs in, what all connections of an address have spoken counts against those of another one."""

_HALF_LIFE = 60.0
"""Seconds after which half of what somebody has spoken is forgotten."""

_MAX_SPOKEN = 256
"""How many members' and addresses' times are remembered."""

_NEVER = float("-inf")

_MAGNITUDE = bytes(min(high, 255 - high) for high in range(256))
"""For the high byte of a 16-bit sample: m, where |sample| is from 256 * m to 256 * (m + 1)."""


class _Microphone(NamedTuple):
    merger: Merger
    member: Member


class Floor:
    """Takes the sound of several microphones, and passes on the sound of the one that has the floor.

    A microphone is identified by its `connection_id`. The first that sends sound has the floor. Another one
    takes it by speaking when the holder has not spoken for 1 s, or has spoken for half a minute longer than
    its own member, of late: steady noise must not keep the others out. If it speaks earlier it is refused,
    and sound without speech is dropped without a refusal. A member who has spoken for half a minute, of late,
    also gives way to others who have waited as long for an answer, until they have it: speech would interrupt
    it. When the holder mutes or leaves, the floor is free, and the model is told that the sound has ended.

    Invariants:
        `speaker` is empty, or one of the microphones.
        While there is no speaker, no time of speech is kept.

    Args:
        mic_ms: shorter chunks are merged up to so many milliseconds, because each send to the model
            costs the same whatever its size.
        hear: called with the sound for the model.
        refuse: called with the `connection_id` of a microphone that is refused, at most once a second.
        others: returns whether others than a member have waited so many seconds for an answer.
    """

    def __init__(
        self,
        *,
        mic_ms: float,
        hear: Callable[[UserAudio | ActivityStart | AudioEnd], None],
        refuse: Callable[[str], None],
        others: Callable[[Member, float], bool] = lambda member, seconds: False,
    ) -> None:
        self._mic_ms = mic_ms
        self._hear = hear
        self._refuse = refuse
        self._others = others
        self._silent: set[str] = set()
        """The members or addresses that give way."""
        self._microphones: dict[str, _Microphone] = {}
        self._refused_at: dict[str, float] = {}
        self._spoken: dict[str, tuple[float, float]] = {}
        """By member and by address: for how many seconds it has spoken, of late, and when that was so."""
        self._spoke_at = _NEVER
        """`time.monotonic()` of the speaker's last speech since it took the floor."""
        self.speaker = ""
        """The `connection_id` that has the floor; "": none."""
        self.last_speaker = ""
        """The `connection_id` whose speech was passed on last; "": none."""

    def check(self) -> None:
        """Asserts the invariants."""
        if self.speaker:
            assert self.speaker in self._microphones, f"{self.speaker} has the floor, but no microphone"
        else:
            assert self._spoke_at == _NEVER, "nobody has the floor, and a time of speech is kept"

    def offer(self, connection_id: str, sound: UserAudio, member: Member | None = None) -> None:
        """Takes a chunk of a microphone's sound.

        Args:
            member: for whom the time of speech is counted; None: for this microphone alone.
        """
        microphone = self._microphones.get(connection_id)
        if microphone is None:
            microphone = _Microphone(Merger(self._mic_ms), member or Member(connection_id))
            self._microphones[connection_id] = microphone
        for merged in microphone.merger.add(sound):
            self._pass_on(connection_id, merged)

    def begin(self, connection_id: str, member: Member | None = None) -> None:
        """The user of a microphone begins to speak, as the client says: it takes the floor, if it may."""
        member = member or Member(connection_id)
        if self._take(connection_id, member):
            self._microphones.setdefault(connection_id, _Microphone(Merger(self._mic_ms), member))
            self._hear(ActivityStart())

    def end(self, connection_id: str) -> None:
        """A microphone is muted or leaves: its sound that waits to be merged is passed on."""
        if microphone := self._microphones.get(connection_id):
            for merged in microphone.merger.flush():
                self._pass_on(connection_id, merged)
            del self._microphones[connection_id]
        if self.speaker == connection_id:
            self._release()

    def _release(self) -> None:
        self.speaker = ""
        self._spoke_at = _NEVER
        self._hear(AudioEnd())

    def _pass_on(self, connection_id: str, sound: UserAudio) -> None:
        sound = UserAudio(sound.pcm, sound.rate, is_speech(sound.pcm))
        if sound.is_speech:
            member = self._microphones[connection_id].member
            if not self._take(connection_id, member):
                return
            self._count(member, len(sound.pcm) / 2 / sound.rate, time.monotonic())
        elif self.speaker not in ("", connection_id):
            return
        self.speaker = connection_id
        self._hear(sound)

    def _take(self, connection_id: str, member: Member) -> bool:
        """Gives the floor to who speaks. False: somebody else has it, and keeps it."""
        now = time.monotonic()
        if self._gives_way(member, now):
            if self.speaker == connection_id:
                self._release()
            self._refuse_at(connection_id, now)
            return False
        if self.speaker not in ("", connection_id) and self._keeps(member, now):
            self._refuse_at(connection_id, now)
            return False
        self.speaker = self.last_speaker = connection_id
        self._spoke_at = now
        return True

    def _gives_way(self, member: Member, now: float) -> bool:
        """Whether a member may not speak now. That does not change until the others have their answers."""
        who = member.address or member.id
        if who not in self._silent and self._has_spoken(who, now) <= _SHARE:
            return False
        if not self._others(member, _SHARE):
            self._silent.discard(who)
            return False
        if len(self._silent) >= _MAX_SPOKEN:
            self._silent.clear()
        self._silent.add(who)
        return True

    def _keeps(self, other: Member, now: float) -> bool:
        """Whether the speaker keeps the floor, though another member wants it."""
        if now - self._spoke_at >= _QUIET:
            return False
        holder = self._microphones[self.speaker].member
        if holder == other:
            return True
        one, two = holder.id, other.id
        if holder.address and other.address and holder.address != other.address:
            one, two = holder.address, other.address
        return self._has_spoken(one, now) - self._has_spoken(two, now) <= _SHARE

    def _has_spoken(self, who: str, now: float) -> float:
        """Seconds, of late, of a member or of all members of an address."""
        seconds, at = self._spoken.get(who, (0.0, now))
        return float(seconds * 0.5 ** ((now - at) / _HALF_LIFE))

    def _count(self, member: Member, seconds: float, now: float) -> None:
        for who in member:
            if who:
                self._spoken[who] = self._has_spoken(who, now) + seconds, now
        while len(self._spoken) > _MAX_SPOKEN:
            del self._spoken[min(self._spoken, key=lambda each: self._has_spoken(each, now))]

    def _refuse_at(self, connection_id: str, now: float) -> None:
        """Refuses a microphone, unless it was refused less than a second ago.

        The time is kept when the microphone is muted, so muting does not lead to a second refusal.
        """
        self._refused_at = {other: at for other, at in self._refused_at.items() if now - at < _REFUSE_EVERY}
        if connection_id not in self._refused_at:
            self._refused_at[connection_id] = now
            self._refuse(connection_id)


def is_speech(pcm: bytes) -> bool:
    """Whether this 16-bit sound is speech; every eighth sample is enough to tell.

    The high bytes alone give bounds of the sum, in a fourth of the time. Between these bounds, which is
    seldom, all bits of the samples are added up.
    """
    high_bytes = pcm[1::16]
    count = len(high_bytes)
    least = 256 * sum(high_bytes.translate(_MAGNITUDE))
    level = _SPEECH_LEVEL * count
    if least > level:
        return True
    if least + 256 * count <= level:
        return False
    return sum(map(abs, array("h", pcm)[::8])) > level
