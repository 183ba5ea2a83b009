"""The inbox against a model of it: two lists."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adk_relay.core import inbox as inbox_module
from adk_relay.core.inbox import Inbox, InboxFullError
from adk_relay.core.messages import AudioEnd, ForModel, UserAudio, UserImage, UserText
from support.clock import Clock

MAX_BYTES, MAX_MS, MAX_CHUNKS, MAX_WAIT = 2_000, 1_000, 4, 5.0


def cost(content: ForModel) -> int:
    match content:
        case UserText():
            return 256 + len(content.text.encode())
        case UserImage():
            return 256 + len(content.data)
    return 0


def ms(sound: ForModel) -> float:
    return len(sound.pcm) / 2 / sound.rate * 1000 if isinstance(sound, UserAudio) else 0.0


class InboxMachine(RuleBasedStateMachine):
    """Whatever comes in whatever order: what is taken, refused and given up is what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(inbox_module, "time", clock := Clock())
        self.patch.setattr(inbox_module, "_CONTENT_MAX_BYTES", MAX_BYTES)
        self.patch.setattr(inbox_module, "_SOUND_MAX_MS", MAX_MS)
        self.patch.setattr(inbox_module, "_SOUND_MAX_CHUNKS", MAX_CHUNKS)
        self.clock = clock
        self.dropped: list[float] = []
        self.inbox = Inbox(on_dropped=self.dropped.append)
        self.taken: list[UserText] = []
        # The model.
        self.content: list[UserText | UserImage] = []
        self.sound: list[tuple[float, UserAudio | AudioEnd]] = []
        self.dropped_ms = 0.0

    def teardown(self) -> None:
        self.patch.undo()

    # ---- the model ----

    def fits(self, sound: list[tuple[float, UserAudio | AudioEnd]], others: int) -> bool:
        if not sound:
            return True
        (came_at, first), *_ = sound
        total = sum(ms(chunk) for _, chunk in sound)
        return (
            isinstance(first, UserAudio)
            and self.clock.now - came_at <= MAX_WAIT
            and total <= MAX_MS
            and len(sound) + others <= MAX_CHUNKS
        )

    def give_up(self) -> None:
        """Of the sound, the longest end of it that fits is kept, after the end of what was taken before."""
        ended = [entry for entry in self.sound[:1] if isinstance(entry[1], AudioEnd)]
        rest = self.sound[len(ended) :]
        kept = next(rest[i:] for i in range(len(rest) + 1) if self.fits(rest[i:], len(ended)))
        self.dropped_ms += sum(ms(chunk) for _, chunk in rest[: len(rest) - len(kept)])
        self.sound = ended + kept

    # ---- what may happen ----

    @rule(text=st.text(max_size=4) | st.just("x" * 700), stopped=st.booleans())
    def add_text(self, text: str, stopped: bool) -> None:
        self.add_content(UserText(text, stopped=stopped))

    @rule(size=st.integers(0, 900) | st.just(MAX_BYTES - 256))
    def add_image(self, size: int) -> None:
        self.add_content(UserImage(bytes(size), "image/png"))

    def add_content(self, content: UserText | UserImage) -> None:
        if sum(map(cost, [*self.content, content])) > MAX_BYTES:
            with pytest.raises(InboxFullError):
                self.inbox.add(content)
        else:
            self.inbox.add(content)
            self.content.append(content)

    @rule(length=st.integers(0, 400) | st.sampled_from([1_000, 1_200]), rate=st.sampled_from([8_000, 16_000]))
    def add_sound(self, length: int, rate: int) -> None:
        sound = UserAudio(bytes(length * rate // 1_000 * 2), rate)
        self.inbox.add(sound)
        self.sound.append((self.clock.now, sound))
        self.give_up()

    @rule()
    def add_end(self) -> None:
        self.inbox.add(AudioEnd())
        if not (self.sound and isinstance(self.sound[-1][1], AudioEnd)):
            self.sound.append((self.clock.now, AudioEnd()))

    @rule()
    def take(self) -> None:
        taken = self.inbox.take()
        if self.content:
            assert taken == self.content[0]
            if isinstance(content := self.content.pop(0), UserText):
                self.taken.append(content)
            return
        self.give_up()
        assert taken == (self.sound.pop(0)[1] if self.sound else None)
        if taken is None:
            self.inbox.ready.clear()  # as its reader does

    @precondition(lambda self: self.taken)
    @rule()
    def give_back(self) -> None:
        text = self.taken.pop()
        self.inbox.give_back(text)
        self.content.insert(0, text)

    @rule()
    def stop(self) -> None:
        texts = [content for content in self.content if isinstance(content, UserText)]
        assert self.inbox.stop() == any(not text.stopped for text in texts)
        self.content = [
            UserText(content.text, content.id, stopped=True) if isinstance(content, UserText) else content
            for content in self.content
        ]

    @rule()
    def clear(self) -> None:
        assert self.inbox.clear() == [content for content in self.content if isinstance(content, UserText)]
        self.content, self.sound = [], []

    @rule(seconds=st.sampled_from([2.5, 5.0, 5.5]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    # ---- what always holds ----

    @invariant()
    def agrees(self) -> None:
        assert bool(self.inbox) == bool(self.content or self.sound)
        assert self.inbox.has_text == any(isinstance(content, UserText) for content in self.content)
        assert self.inbox.has_content == bool(self.content)
        assert sum(self.dropped) == pytest.approx(self.dropped_ms)


TestInbox = InboxMachine.TestCase
TestInbox.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


async def test_sound_is_bounded_whatever_is_muted() -> None:
    dropped: list[float] = []
    inbox = Inbox(on_dropped=dropped.append)
    for _ in range(100):
        inbox.add(AudioEnd())
        inbox.add(UserAudio(bytes(1_000_000)))
    kept = 0
    while (taken := inbox.take()) is not None:
        kept += len(taken.pcm) if isinstance(taken, UserAudio) else 0
    assert kept <= 60 * 32_000
    assert kept + sum(dropped) * 32 == 100 * 1_000_000
