"""Who has the floor, against a model of it; and what becomes of the sound."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adk_relay.core import floor as floor_module
from adk_relay.core.floor import Floor, is_speech
from adk_relay.core.messages import ActivityStart, AudioEnd, UserAudio
from support.clock import Clock

USERS = ["alice", "bob", "carol"]
SPEECH = array("h", [1_000, -1_000] * 160).tobytes()
"""20 ms at 16 kHz."""
SILENCE = bytes(len(SPEECH))


class FloorMachine(RuleBasedStateMachine):
    """Whoever sends whatever: those are heard, and those are refused, that the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(floor_module, "time", clock := Clock())
        self.clock = clock
        self.heard: list[UserAudio | ActivityStart | AudioEnd] = []
        self.refused: list[str] = []
        self.floor = Floor(mic_ms=20, hear=self.heard.append, refuse=self.refused.append)
        # The model.
        self.speaker = ""
        self.last_speaker = ""
        self.last_spoke = 0.0
        self.refusals: dict[str, float] = {}

    def teardown(self) -> None:
        self.patch.undo()

    @rule(user=st.sampled_from(USERS), speech=st.booleans())
    def send(self, user: str, speech: bool) -> None:
        now, heard, refused = self.clock.now, len(self.heard), len(self.refused)
        self.floor.offer(user, UserAudio(SPEECH if speech else SILENCE))
        is_heard = self.speaker in ("", user) or (speech and now - self.last_spoke >= 1)
        is_refused = not is_heard and speech and now - self.refusals.get(user, 0.0) >= 1
        if is_heard:
            if self.speaker != user:
                self.speaker, self.last_spoke = user, 0.0
            if speech:
                self.last_speaker, self.last_spoke = user, now
        if is_refused:
            self.refusals[user] = now
        expected = UserAudio(SPEECH if speech else SILENCE, is_speech=speech)
        assert self.heard[heard:] == [expected] * is_heard
        assert self.refused[refused:] == [user] * is_refused

    @rule(user=st.sampled_from(USERS))
    def end(self, user: str) -> None:
        heard = len(self.heard)
        self.floor.end(user)
        assert self.heard[heard:] == [AudioEnd()] * (self.speaker == user)
        if self.speaker == user:
            self.speaker = ""
        assert user not in self.floor._microphones

    @rule(seconds=st.sampled_from([0.25, 0.75, 1.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def agrees(self) -> None:
        assert (self.floor.speaker, self.floor.last_speaker) == (self.speaker, self.last_speaker)


TestFloor = FloorMachine.TestCase
TestFloor.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from([8_000, 16_000]))))
def test_merging_conserves_the_sound_and_its_rate(chunks: list[tuple[int, int]]) -> None:
    heard: list[UserAudio | ActivityStart | AudioEnd] = []
    floor = Floor(mic_ms=40, hear=heard.append, refuse=lambda _: None)
    sent = {8_000: b"", 16_000: b""}
    samples = iter(range(1_000_000))
    in_order = b""
    for length, rate in chunks:
        pcm = array("h", [next(samples) % 30_000 for _ in range(length)]).tobytes()
        floor.offer("alice", UserAudio(pcm, rate))
        sent[rate] += pcm
        in_order += pcm
    waiting = len(in_order) - sum(len(sound.pcm) for sound in heard if isinstance(sound, UserAudio))
    assert waiting < 16_000 * 2 * 40 // 1_000
    floor.end("alice")
    *sounds, end = heard or [AudioEnd()]
    assert end == AudioEnd()
    assert b"".join(sound.pcm for sound in sounds if isinstance(sound, UserAudio)) == in_order
    for rate, pcm in sent.items():
        assert b"".join(s.pcm for s in sounds if isinstance(s, UserAudio) and s.rate == rate) == pcm


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([0.0, 20.0, 40.0]),
    st.lists(st.tuples(st.integers(1, 2_000), st.sampled_from([8_000, 16_000, 44_100]))),
)
def test_chunks_are_merged_until_they_are_long_enough_or_the_rate_changes(
    mic_ms: float, chunks: list[tuple[int, int]]
) -> None:
    heard: list[Any] = []
    floor = Floor(mic_ms=mic_ms, hear=heard.append, refuse=lambda _: None)
    expected = []
    waiting, waiting_rate = b"", 16_000
    for number, (length, rate) in enumerate(chunks):
        pcm = number.to_bytes(2, "little") * length
        floor.offer("alice", UserAudio(pcm, rate))
        if waiting and rate != waiting_rate:
            expected.append((waiting, waiting_rate))
            waiting = b""
        waiting, waiting_rate = waiting + pcm, rate
        if len(waiting) / 2 / rate * 1000 >= mic_ms:
            expected.append((waiting, rate))
            waiting = b""
        assert [(sound.pcm, sound.rate) for sound in heard] == expected


def test_a_frame_that_is_long_enough_is_not_copied() -> None:
    heard: list[Any] = []
    floor = Floor(mic_ms=40, hear=heard.append, refuse=heard.append)
    frames = [bytes(1280), bytes(1282)]
    for frame in frames:
        floor.offer("alice", UserAudio(frame))
    assert [sound.pcm is frame for sound, frame in zip(heard, frames, strict=True)] == [True, True]


loudness = st.integers(0, 11).map(lambda power: 2**power) | st.integers(490, 510) | st.just(32_767)


@st.composite
def pcms(draw: st.DrawFn) -> bytes:
    """Sound of any length whose samples are of about one size: any size, and often the level of speech."""
    level = draw(loudness)
    sample = st.integers(level - 3, level) | st.integers(-level - 1, 3 - level) | st.integers(-level, level)
    return array("h", draw(st.lists(sample, min_size=1, max_size=60))).tobytes()


@settings(max_examples=1_000, deadline=None)
@given(pcms())
def test_speech_is_what_is_loud_on_average(pcm: bytes) -> None:
    samples = array("h", pcm)[::8]
    assert is_speech(pcm) == (sum(map(abs, samples)) > 500 * len(samples))


@pytest.mark.parametrize("sample", [0, 255, 256, 499, 500, -500, 511, 512, -512, -513])
def test_500_is_not_yet_speech(sample: int) -> None:
    assert is_speech(array("h", [sample] * 320).tobytes()) == (abs(sample) > 500)


def test_samples_may_be_as_loud_as_their_high_bytes_allow() -> None:
    """|-256 * (m + 1)| is the most: 256 more than the least for this high byte."""
    samples = array("h", [-512] * 191 + [-256] * 9)
    assert sum(map(abs, samples)) > 500 * len(samples)
    assert is_speech(array("h", [sample for sample in samples for _ in range(8)]).tobytes())


async def test_a_short_frame_waits_for_the_next() -> None:
    heard: list[Any] = []
    floor = Floor(mic_ms=40, hear=heard.append, refuse=heard.append)
    floor.offer("alice", UserAudio(bytes(320)))
    assert heard == []
    floor.offer("alice", UserAudio(bytes(1280)))
    assert heard == [UserAudio(bytes(1600))]
    floor.offer("alice", UserAudio(bytes(320)))
    floor.end("alice")
    assert heard[1:] == [UserAudio(bytes(320)), AudioEnd()]


def test_a_microphone_that_goes_on_is_refused_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor_module, "time", clock := Clock())
    refused: list[tuple[str, float]] = []
    floor = Floor(mic_ms=20, hear=lambda _: None, refuse=lambda user: refused.append((user, clock.now)))
    began = clock.now
    for _ in range(9):
        for user in USERS:
            floor.offer(user, UserAudio(SPEECH))
        floor.end("bob")  # muting brings no second refusal
        clock.now += 0.25
    assert [at - began for user, at in refused if user == "bob"] == [0.0, 1.0, 2.0]
    assert [at - began for user, at in refused if user == "carol"] == [0.0, 1.0, 2.0]
