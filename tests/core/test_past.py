"""What a new owner makes of what was recorded, of which the beginning may be missing."""

from __future__ import annotations

from adk_relay.core.answer import Asked
from adk_relay.core.listener import Member
from adk_relay.core.messages import (
    Audio,
    Place,
    Text,
    TurnEnd,
    TurnStart,
    UserText,
    Written,
)
from adk_relay.core.past import past_of
from adk_relay.core.recorded import (
    AgentState,
    Came,
    Checkpoint,
    Left,
    OpenAnswer,
    Over,
    Owing,
    Recorded,
    RequestBegan,
    Requested,
    TextDone,
    TextSaid,
    Told,
)
from adk_relay.core.recording import Recording
from support.clock import TimedLoop


def said(seq: int, text: str = "text") -> TextSaid:
    return TextSaid(UserText(text, place=Place("epoch", seq)), "alice")


def a_checkpoint(seq: int, is_new: bool = False) -> Checkpoint:
    return Checkpoint("epoch", seq, is_new)


class Kept(list[Recorded]):
    def record(self, entry: Recorded) -> None:
        self.append(entry)


def test_without_a_checkpoint_nothing_is_known() -> None:
    past = past_of([Told(Text(5, "five"))])
    assert past.epoch == ""


def test_messages_before_the_first_checkpoint_can_be_replayed() -> None:
    past = past_of([Told(Text(5, "five")), a_checkpoint(5), Told(Text(6, "six"))])
    assert (past.epoch, past.seq, past.forgotten) == ("epoch", 6, 4)
    assert past.messages == [Text(5, "five"), Text(6, "six")]


def test_after_a_checkpoint_alone_it_is_known_what_is_missing() -> None:
    past = past_of([a_checkpoint(5), Told(Audio(9, b"merged"))])
    assert (past.seq, past.forgotten) == (9, 5)
    assert past_of([a_checkpoint(0, is_new=True)]).forgotten == 0


def test_a_new_epoch_begins_with_nothing() -> None:
    new = Checkpoint("other", 0, True)
    past = past_of([a_checkpoint(0, is_new=True), said(1), Told(Text(2, "two")), new, Told(Text(1, "one"))])
    past.check()
    assert (past.epoch, past.seq, past.messages, past.texts) == ("other", 1, [Text(1, "one")], {})


def test_texts_are_known_while_they_wait_or_are_owed() -> None:
    past = past_of([a_checkpoint(0, is_new=True), said(1), said(2)])
    past.apply(AgentState((Owing(1, False),)))
    past.apply(TextDone(1))
    past.check()
    assert [*past.texts] == [1, 2] and [*past.waiting] == [2]
    past.apply(AgentState())
    past.check()
    assert [*past.texts] == [2]


def test_an_answer_is_open_until_its_end() -> None:
    asked = Asked("alice", "a")
    past = past_of(
        [a_checkpoint(0, is_new=True), Told(TurnStart(asked)), Told(Text(1, "one")), Told(Text(2, "two"))]
    )
    assert past.answer == OpenAnswer(1, "onetwo", 2, asked)
    again = past_of([past.checkpoint()])
    assert again.answer == past.answer and again.lines == past.lines == 1
    cut = past_of([past.checkpoint(), Told(TurnEnd(3, interrupted=True, goes_on=True))])
    assert cut.answer and cut.is_cut
    ended = past_of([cut.checkpoint(), Told(TurnEnd(4, interrupted=True))])
    assert ended.answer is None and not ended.is_cut
    assert [*ended.ended] == [OpenAnswer(1, "onetwo", 2, asked, interrupted=True)]


def test_sound_of_an_answer_that_was_interrupted_is_not_replayed() -> None:
    told = [Told(Audio(1, b"1")), Told(Text(2, "two")), Told(TurnEnd(3, interrupted=True))]
    past = past_of([a_checkpoint(0, is_new=True), *told])
    assert [message.seq for message in past.messages] == [2, 3]


def test_requests_and_listeners() -> None:
    asked = [
        Requested(number, UserText(f"{number}"), "alice", "", Member("alice"), False, before)
        for number, before in [(1, 0), (2, 1), (3, 0)]
    ]
    past = past_of(
        [a_checkpoint(0, is_new=True), *asked, RequestBegan(3), Came("a", "A"), Came("b", ""), Left("a")]
    )
    past.check()
    assert past.current == asked[2] and past.requests == asked[:2]
    assert past.present == {"b": ""}
    again = past_of([past.checkpoint()])
    assert (again.current, again.requests, again.present) == (past.current, past.requests, past.present)


def test_a_conversation_that_is_over_is_not_known_any_more() -> None:
    past = past_of([a_checkpoint(0, is_new=True), Told(Written(1, "one", "alice", "", 1)), Over()])
    past.check()
    assert (past.epoch, past.messages) == ("", [])


def test_sound_is_merged_and_everything_is_recorded_again_in_time() -> None:
    loop, kept = TimedLoop(), Kept()
    recording = Recording(kept, every_bytes=100_000, every_seconds=20)
    loop.call(lambda: recording.begin("epoch", 0))
    for seq in range(1, 13):  # 40 ms each
        loop.call(lambda: recording.told(Audio(seq, bytes([seq]) * 1920)))  # noqa: B023
    recording.told(Written(13, "text", "alice", "", 1))
    *sound, written = [entry.message for entry in kept if isinstance(entry, Told)]
    assert [message.seq for message in sound if isinstance(message, Audio)] == [5, 10, 12]
    pcm = b"".join(message.pcm for message in sound if isinstance(message, Audio))
    assert pcm == b"".join(bytes([seq]) * 1920 for seq in range(1, 13))
    recording.told(Audio(14, b"stale"))
    recording.told(TurnEnd(15, interrupted=True))
    assert kept[-2:] == [Told(written), Told(TurnEnd(15, interrupted=True))]
    count = len(kept)
    loop.wait(20)
    loop.wait(20)
    assert [type(entry) for entry in kept[count:]] == [Checkpoint, Checkpoint]
    recording.close()
    loop.wait(50)
    assert len(kept) == count + 2
    loop.close()
