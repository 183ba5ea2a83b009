"""The outbound queue: whatever is put into it, in whatever order."""

from __future__ import annotations

import asyncio
import json
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adk_relay.core.messages import (
    Audio,
    Dropped,
    Error,
    Message,
    Status,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
)
from adk_relay.wire.closing import IDLE, SERVER_STOPPING, TOO_SLOW, Close
from adk_relay.wire.dialects import once
from adk_relay.wire.dialects.live import PING, PONG, live
from adk_relay.wire.outbox import Outbox, size

# ---- the outbound queue ------------------------------------------------------------------------


MS = 48  # bytes of sound in a millisecond

ENCODERS = {
    "words": live(is_audio=False, binary=False, newest=False).encoder(""),
    "base64": live(is_audio=True, binary=False, newest=False).encoder(""),
    "binary": live(is_audio=True, binary=True, newest=False).encoder(""),
}

# What happens to the queue: a message (kind, how much), a read, or a frame that goes first.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(1, 2_000)),
        st.tuples(st.sampled_from(["text", "transcript"]), st.integers(1, 400)),
        st.tuples(st.just("audio"), st.integers(4_000, 13_000)),
        st.tuples(st.just("text"), st.integers(8_000, 17_000)),
        st.tuples(st.sampled_from(["heard", "understood"]), st.integers(1, 40)),
        st.tuples(
            st.sampled_from(
                ["complete", "interrupted", "recall", "tool", "error", "frame", "up", "ping", "pong"]
            ),
            st.just(0),
        ),
        st.tuples(st.just("get"), st.integers(1, 5)),
    ),
    max_size=60,
)


class Story:
    """Does steps on a queue, and is a model of what must come out."""

    def __init__(self, dialect: str, limit: int) -> None:
        self.dialect = dialect
        self.outbox = Outbox(ENCODERS[dialect], limit)
        self.limit = limit
        self.seq = 0
        self.turn = 0
        self.turn_of: list[int] = []  # of each sample of sound
        self.muted_before = 0  # sound of turns before this one was recalled
        self.samples = self.recalled = 0
        self.told: list[Any] = []  # all that was put but sound
        self.got: list[Any] = []
        self.got_samples: list[int] = []
        self.got_dropped = 0
        self.notes = 0
        self.last_seq = 0
        self.gave_up = False

    def put(self, kind: str, n: int) -> None:
        if kind == "audio" and len(self.turn_of) + n > 2**16:
            return  # each sample is its own number, in 16 bits
        self.seq += 1
        message: Message
        match kind:
            case "audio":
                message = Audio(self.seq, array("H", [len(self.turn_of) + i for i in range(n)]).tobytes())
                self.turn_of += [self.turn] * n
                self.samples += n if self.dialect != "words" else 0
            case "text" | "transcript":
                text = "".join(chr(0xE0 + (self.seq + i) % 50) for i in range(n))
                message = Text(self.seq, text, is_transcript=kind == "transcript")
                self.told += [(kind, letter) for letter in text]
            case "heard":
                message = Transcript(self.seq, "x" * n, final=False)
            case "understood":
                message = Transcript(self.seq, "x" * n, final=True)
                self.told.append((kind, n))
            case "complete":
                message = TurnEnd(self.seq)
                self.told.append(kind)
                self.turn += 1
            case "interrupted":
                message = TurnEnd(self.seq, interrupted=True)
                self.told.append(kind)
                self.recall()
            case "recall":
                self.recall()
                self.outbox.recall_audio()
                return
            case "frame":
                self.told.append("error")
                self.outbox.enqueue_frame('{"type": "error"}')
                return
            case "tool":
                message = ToolStart(self.seq, str(self.seq), "tool", {"a": "b" * 50}, "now")
                self.told.append((kind, self.seq))
            case "error":
                message = Error("bad_data", "wrong")
                self.told.append(kind)
            case _:
                message = Dropped("up", 1.0)
        self.outbox.enqueue(message)
        assert self.outbox.bytes <= self.limit

    def recall(self) -> None:
        """From now on, the sound that waits must not come any more."""
        self.turn += 1
        self.muted_before = self.turn
        dropped = round(self.outbox.dropped_ms * MS) // 2
        # All samples that were put and neither came nor were dropped.
        self.recalled = self.samples - len(self.got_samples) - dropped

    async def get(self) -> None:
        try:
            frame = await self.outbox.dequeue()
        except Close as close:
            assert (close.frame.code, close.frame.reason) == (1013, "too slow")
            self.gave_up = True
            return
        assert size(frame) <= 36_000  # far below what client libraries refuse
        if frame in (PING, PONG):
            return
        if isinstance(frame, bytes):
            assert self.dialect == "binary"
            said: dict[str, Any] = {"seq": int.from_bytes(frame[:4], "big"), "sound": frame[4:]}
        else:
            said = json.loads(frame)
            if said.get("mime_type") == "audio/pcm":
                said["sound"] = b64decode(said["data"])
        if "seq" in said:
            assert said["seq"] > self.last_seq
            self.last_seq = said["seq"]
        if "sound" in said:
            samples = array("H", said["sound"]).tolist()
            assert len(samples) <= max(500 * MS // 2, 13_000)
            turns = {self.turn_of[sample] for sample in samples}
            assert len(turns) == 1
            assert min(turns) >= self.muted_before
            self.got_samples += samples
        elif said.get("mime_type") == "text/plain":
            assert len(said["data"]) <= max(16 * 1024, 17_000)
            kind = "transcript" if said.get("is_transcript") else "text"
            self.got += [(kind, letter) for letter in said["data"]]
        elif said.get("turn_complete"):
            self.got.append("complete")
        elif said.get("interrupted"):
            self.got.append("interrupted")
        elif said["type"] == "transcript" and said["final"]:
            self.got.append(("understood", len(said["text"])))
        elif said["type"] == "tool_start":
            self.got.append(("tool", int(said["tool_id"])))
        elif said["type"] == "error":
            self.got.append("error")
        elif said["type"] == "dropped" and said["direction"] == "down":
            self.got_dropped += said["audio_ms"]
            self.notes += 1

    def waiting(self) -> bool:
        return bool(self.outbox.bytes) and not self.gave_up


@settings(max_examples=200)
@given(steps, st.integers(100, 3_000) | st.integers(30_000, 100_000), st.sampled_from(sorted(ENCODERS)))
def test_messages_come_out_in_order_and_the_queue_is_bounded(
    what: list[tuple[str, int]], limit: int, dialect: str
) -> None:
    async def tell() -> Story:
        story = Story(dialect, limit)
        for kind, n in what:
            match kind:
                case "get":
                    for _ in range(n):
                        if story.waiting():
                            await story.get()
                case "ping" | "pong":
                    story.outbox.enqueue_first(kind, PING if kind == "ping" else PONG)
                case _:
                    story.put(kind, n)
        while story.waiting():
            await story.get()
        return story

    story = asyncio.run(tell())
    # Sound comes in order and once.
    assert all(a < b for a, b in pairwise(story.got_samples))
    story.outbox.enqueue(Status("live"))
    if not story.outbox.bytes:  # overflowed: the words, or in a small queue the notes, were too much
        assert story.told[: len(story.got)] == story.got
        assert limit <= 3_000 or story.told != story.got
        with pytest.raises(Close):
            asyncio.run(story.outbox.dequeue())
        return
    assert story.told == story.got
    dropped = round(story.outbox.dropped_ms * MS) // 2
    if dialect == "words":
        assert (dropped, story.got_samples) == (0, [])
    else:
        assert len(story.got_samples) + dropped + story.recalled == story.samples
    assert abs(story.got_dropped - story.outbox.dropped_ms) <= story.notes


# ---- by example --------------------------------------------------------------------------------


def a_queue(limit: int = 1_000_000, dialect: str = "base64") -> Outbox:
    return Outbox(ENCODERS[dialect], limit)


async def drained(queue: Outbox) -> list[Any]:
    frames = []
    while queue.bytes:
        frame = await queue.dequeue()
        frames.append(frame if isinstance(frame, bytes) else json.loads(frame))
    return frames


async def test_neighbors_merge_and_have_the_last_number() -> None:
    queue = a_queue()
    for seq in range(1, 4):
        queue.enqueue(Audio(seq, bytes([seq] * 4)))
    for seq in range(4, 7):
        queue.enqueue(Text(seq, f"{seq} ", is_transcript=True))
    queue.enqueue(Text(7, "aside"))
    queue.enqueue(TurnEnd(8))
    queue.enqueue(Text(9, "new"))
    assert await drained(queue) == [
        {
            "mime_type": "audio/pcm",
            "data": b64encode(b"\1" * 4 + b"\2" * 4 + b"\3" * 4).decode(),
            "seq": 3,
        },
        {"mime_type": "text/plain", "data": "4 5 6 ", "is_transcript": True, "seq": 6},
        {"mime_type": "text/plain", "data": "aside", "seq": 7},
        {"turn_complete": True, "interrupted": None, "seq": 8},
        {"mime_type": "text/plain", "data": "new", "seq": 9},
    ]


async def test_an_interruption_recalls_sound_and_nothing_else() -> None:
    queue = a_queue(dialect="binary")
    queue.enqueue(Text(1, "One", is_transcript=True))
    queue.enqueue(Audio(2, bytes(4_000)))
    queue.enqueue(ToolComplete(3, "id", "tool", {"a": 1}, "now"))
    queue.enqueue(Audio(4, bytes(4_000)))
    queue.enqueue(Transcript(5, "stop", final=True))
    queue.enqueue(TurnEnd(6, interrupted=True))
    queue.enqueue(Audio(7, b"\1\1"))
    frames = await drained(queue)
    assert [said["seq"] for said in frames[:-1]] == [1, 3, 5, 6]
    assert frames[-1] == b"\0\0\0\x07\1\1"
    assert queue.dropped_ms == 0


async def test_the_end_of_a_turn_recalls_nothing() -> None:
    queue = a_queue(dialect="binary")
    queue.enqueue(Audio(1, bytes(4_000)))
    queue.enqueue(TurnEnd(2))
    assert len(await drained(queue)) == 2


async def test_the_oldest_sound_goes_first_and_notes_of_it_add_up() -> None:
    queue = a_queue(limit=100_000, dialect="binary")
    for seq in range(1, 11):
        queue.enqueue(Audio(seq, bytes([seq]) * 24_000))
    frames = await drained(queue)
    assert frames[0] == {"type": "dropped", "direction": "down", "audio_ms": 3_500 - 500}
    assert [said[4] for said in frames[1:]] == [7, 8, 9, 10]
    assert queue.dropped_ms == 3_000


async def test_texts_that_do_not_fit_end_the_socket() -> None:
    queue = a_queue(limit=1_000)
    queue.enqueue(Audio(1, bytes(300)))
    queue.enqueue(Text(2, "x" * 990))
    assert queue.bytes == 0
    queue.enqueue(Text(3, "more"))
    queue.enqueue_first("ping", PING)
    queue.enqueue_frame("more")
    assert queue.bytes == 0
    for _ in range(2):
        with pytest.raises(Close) as close:
            await queue.dequeue()
        assert close.value.frame.code == 1013


async def test_frames_that_wait_are_sent_before_the_close_and_none_after() -> None:
    queue = a_queue()
    queue.enqueue(Text(1, "last"))
    queue.close(IDLE)
    queue.close(SERVER_STOPPING)
    queue.enqueue(Text(2, "too late"))
    queue.enqueue_first("ping", PING)
    assert json.loads(await queue.dequeue())["data"] == "last"
    with pytest.raises(Close) as close:
        await queue.dequeue()
    assert (close.value.frame.code, close.value.frame.reason) == (4408, "idle")


async def test_a_reader_that_waits_is_woken() -> None:
    wakes: list[Callable[[Outbox], None]] = [
        lambda queue: queue.enqueue(Status("live")),
        lambda queue: queue.enqueue_first("ping", PING),
        lambda queue: queue.enqueue_frame(PING),
    ]
    for wake in wakes:
        queue = a_queue()
        reader = asyncio.create_task(queue.dequeue())
        await asyncio.sleep(0)
        assert not reader.done()
        wake(queue)
        assert await asyncio.wait_for(reader, 60)
    queue = a_queue(limit=10)
    reader = asyncio.create_task(queue.dequeue())
    await asyncio.sleep(0)
    queue.enqueue(Text(1, "too much for so small a bound"))
    with pytest.raises(Close):
        await asyncio.wait_for(reader, 60)


async def test_an_urgent_frame_goes_first_and_once() -> None:
    queue = a_queue()
    queue.enqueue(Text(1, "One"))
    for number in range(1_000):
        queue.enqueue_first("pong", f'{{"type":"pong","number":{number}}}')
    queue.enqueue_first("ping", PING)
    first, *others = await drained(queue)
    assert first == {"type": "pong", "number": 999}
    assert [said.get("type") for said in others] == ["ping", None]


@pytest.mark.parametrize("dialect", ENCODERS)
async def test_a_large_value_of_a_tool_is_cut(dialect: str) -> None:
    queue = a_queue(dialect=dialect)
    queue.enqueue(ToolComplete(1, "id", "tool", {"a": "ß" * 100_000}, "now"))
    queue.enqueue(ToolStart(2, "id", "tool", {"a": "\ud800" * 20_000}, "now"))
    queue.enqueue(ToolComplete(3, "id", "tool", "x" * 60_000, "now"))
    first, second, third = await drained(queue)
    assert first["truncated"] is True
    assert first["result"].startswith('{"a":"ßßß')
    assert len(first["result"].encode()) <= 64 * 1024
    assert second["truncated"] is True
    assert isinstance(second["arguments"], str)
    assert "truncated" not in third


async def test_a_message_is_encoded_once_for_all_however_many_wait() -> None:
    encoded: list[Message] = []
    dialect = live(is_audio=False, binary=True, newest=False)
    real = dialect.encoder("")

    def counting(message: Message) -> Any:
        encoded.append(message)
        return real(message)

    shared = once(counting)
    queues = [Outbox(shared, 1_000_000) for _ in range(10)]
    for number in range(20):
        text = Text(number + 1, f"{number} ")
        for queue in queues:
            queue.enqueue(text)
    assert len(encoded) == 20
    for queue in queues:
        frames = []
        while queue.bytes:
            frames.append(json.loads(await queue.dequeue()))
        assert "".join(frame["data"] for frame in frames) == "".join(f"{number} " for number in range(20))


async def test_a_replay_may_exceed_the_bound_and_takes_no_room_from_what_follows() -> None:
    queue = a_queue(limit=1_000)
    queue.replay([Text(seq, "x" * 500, is_transcript=seq % 2 == 0) for seq in range(1, 11)])
    assert queue.bytes > 5_000
    queue.enqueue(TurnEnd(11))
    assert queue.bytes > 5_000  # it still fits
    queue.enqueue(Text(12, "x" * 1_000))
    with pytest.raises(Close) as close:
        await queue.dequeue()
    assert close.value.frame == TOO_SLOW
