"""Another process goes on with a conversation: each text is said once, and all are told everything once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from adk.test_several import agent_of, by_agent, sequence
from app.test_waiting import agent as with_tools
from app.test_waiting import calling
from google.adk.events import Event

from adk_relay.adk.lines import said_by
from adk_relay.adk.sqlite import Sqlite
from adk_relay.core.messages import (
    Ack,
    Audio,
    Gap,
    Interrupt,
    Line,
    Message,
    Presence,
    Status,
    Text,
    ToolComplete,
    ToolResult,
    ToolStart,
    Transcript,
    TurnEnd,
    UserText,
    Written,
)
from adk_relay.core.recorded import Checkpoint, Over, RequestBegan, TextDone
from adk_relay.core.recording import past_of
from adk_relay.core.room import SEQ_STEP
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.owners import ID, Owner, check_numbers, last_seq
from support.process import HANGS
from support.sound import Attendee

pytestmark = pytest.mark.usefixtures("quick_retries")


@asynccontextmanager
async def an_owner(
    tmp_path: Path, agent: Any = None, *, every_entry: bool = False, **settings: Any
) -> AsyncIterator[Owner]:
    """The first owner. It has taken the conversation."""
    owner = Owner(tmp_path / "sessions.db", agent, settings=settings, every_entry=every_entry)
    await owner.take()
    try:
        yield owner
    finally:
        await owner.aclose()


@asynccontextmanager
async def the_next(owner: Owner) -> AsyncIterator[Owner]:
    """Another process, which has taken the conversation."""
    heir = owner.heir()
    await heir.take()
    try:
        yield heir
    finally:
        await heir.aclose()


def halves(first: str, rest: str) -> Callable[[Connection, UserTurn], Any]:
    """A model that says the first half of its answer, and the rest when it is asked to go on."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Hello there.")
        if connection.number == 1:
            await connection.say(first, complete=False)
        elif connection.history and turn.text == words(connection.history[-1]):
            await connection.say(rest)
        else:
            await connection.say(f"You said: {turn.text}.")

    return answer


def words(content: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in content["parts"])


def text_of(*listeners: Attendee) -> str:
    """What the agent has said, as a client of these listeners was told it."""
    return "".join(each.text for who in listeners for each in who.messages if isinstance(each, Text))


def told(listener: Attendee, *kinds: type) -> list[Message]:
    return [message for message in listener.messages if isinstance(message, kinds)]


def lines(*pairs: str, interrupted: str = "") -> list[Line]:
    """Messages of the user and the agent, in turns, one of which may have been interrupted."""
    return [
        Line("agent" if index % 2 else "user", text, interrupted=text == interrupted)
        for index, text in enumerate(pairs)
    ]


def nothing(connection: Connection) -> bool:
    """The model was given nothing but a history."""
    return not [text for text in connection.texts if text != "."] and not connection.audio


def is_text(text: str) -> Callable[[Message], bool]:
    return lambda message: isinstance(message, Text) and message.text.endswith(text)


def is_at_rest(owner: Owner) -> bool:
    state = past_of(owner.recorded).state
    return bool(state.handle and not state.owed)


async def rested(owner: Owner) -> None:
    """Waits until the model has given a handle that covers all."""
    async with asyncio.timeout(HANGS):
        while not is_at_rest(owner):
            await asyncio.sleep(0.01)


# ---- in the middle of an answer -------------------------------------------------------------------


@pytest.mark.parametrize("every_entry", [False, True])
@pytest.mark.parametrize("question", ["text", "speech"])
async def test_an_answer_that_was_cut_goes_on(
    gemini: GeminiLive, tmp_path: Path, question: str, every_entry: bool
) -> None:
    gemini.answer = halves("one two", " three four.")
    asked = "Count." if question == "text" else "Hello there."
    async with an_owner(tmp_path, every_entry=every_entry) as first:
        alice, bob = first.attend(is_audio=True), first.attend("bob")
        if question == "text":
            alice.say(UserText("Count.", id="a"))
        else:
            alice.speak(speech(400) + silence(600))
        await bob.until(is_text("two"))
        await bob.until(lambda message: isinstance(message, Audio), 4)
        await first.kill()
        epoch, last = first.conversation.room.epoch, last_seq(bob)  # type: ignore[union-attr]
        async with the_next(first) as second:
            new, bobs = second.attend(after=alice, is_audio=True), second.attend("bob", after=bob)
            assert second.conversation and second.conversation.room.epoch == epoch
            await bobs.turn(2)
            await new.turn(2)
            assert told(bobs, Gap) == []
            assert text_of(bob, bobs) == text_of(alice, new) == "one two three four."
            check_numbers(alice, new)
            check_numbers(bob, bobs)
            cut, end = told(bobs, TurnEnd)
            assert isinstance(cut, TurnEnd) and cut.goes_on and cut.interrupted
            assert cut.seq > last + SEQ_STEP / 2
            assert isinstance(end, TurnEnd) and not end.interrupted
            assert end.answer and end.answer.text == "one two three four."
            assert end.answer.message_count == 2
            assert [each.state for each in told(bobs, Status) if isinstance(each, Status)] == [
                "reconnecting",
                "live",
            ]
            assert told(bobs, Written, Transcript, Presence) == []
            assert await second.stored() == lines(asked, "one two three four.")
            connection = gemini.connections[1]
            assert nothing(connection)
            texts = [words(content) for content in connection.history]
            assert texts[:2] == [asked, "one two"] and "Go on from there" in texts[2]
            assert second.conversation.room.history.lines() == [
                Line("user", asked, id="a" if question == "text" else ""),
                Line("agent", "one two three four."),
            ]
            # The next question is one of the same conversation.
            new.ask("More?")
            await new.turn(3)
            assert await second.stored() == lines(asked, "one two three four.", "More?", "You said: More?.")
    assert len(gemini.connections) == 2


async def test_it_is_killed_twice(gemini: GeminiLive, tmp_path: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        say = {1: "one", 2: " two", 3: " three."}[connection.number]
        await connection.say(say, complete=connection.number == 3)

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.ask("Count.")
        await alice.until(is_text("one"))
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            await new.until(is_text("two"))
            await second.kill()
            async with the_next(second) as third:
                newest = third.attend(after=new)
                await newest.turn(2)
                assert text_of(alice, new, newest) == "one two three."
                check_numbers(alice, new, newest)
                assert await third.stored() == lines("Count.", "one two three.")
                texts = [words(content) for content in gemini.connections[2].history]
                assert texts[:2] == ["Count.", "one two"] or texts[:3] == ["Count.", "one", " two"]


async def test_a_stopped_answer_is_not_gone_on_with(gemini: GeminiLive, tmp_path: Path) -> None:
    gemini.answer = halves("one two", " three.")
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.ask("Count.")
        await alice.until(is_text("two"))
        alice.say(Interrupt())
        await alice.turn()
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            assert new.messages == []
            assert await second.stored() == lines("Count.", "one two", interrupted="one two")
            new.ask("And now?")
            await new.turn()
            assert text_of(alice, new) == "one twoYou said: And now?."
            after = lines("Count.", "one two", "And now?", "You said: And now?.", interrupted="one two")
            assert await second.stored() == after
            history = [words(content) for content in gemini.connections[1].history]
            assert history == ["Count.", "one two"]
    assert len(gemini.connections) == 2


async def test_a_second_question_while_the_answer_to_the_first_is_given(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    """The model has got both. It owes the answer to the second one."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "first":
            await connection.say("one two", complete=False)
            await asyncio.Event().wait()
        elif connection.number > 1:
            await connection.say("Answered.")

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.say(UserText("first", id="1"))
        await alice.until(is_text("two"))
        alice.say(UserText("second", id="2"))
        await alice.until(lambda message: message == Ack("2"))
        await alice.turn()  # of the first, which the second interrupts
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            await new.turn()
            assert text_of(alice, new) == "one twoAnswered."
            answered = lines("first", "one two", "second", "Answered.", interrupted="one two")
            assert await second.stored() == answered
            assert nothing(gemini.connections[1])


# ---- between two turns ------------------------------------------------------------------------------


async def test_between_two_turns_nobody_is_told(gemini: GeminiLive, tmp_path: Path) -> None:
    async with an_owner(tmp_path) as first:
        alice, bob = first.attend(), first.attend("bob", name="Bob")
        alice.say(UserText("one", id="a"))
        await bob.turn()
        await rested(first)
        await first.kill()
        async with the_next(first) as second:
            assert second.conversation
            assert second.conversation.standing(alice).others == 1
            assert second.conversation.standing(alice).names == (("bob", "Bob"),)
            new, bobs = second.attend(after=alice), second.attend("bob", after=bob, name="Bob")
            new.say(UserText("one", id="a"))  # its client does not know that it was stored
            assert new.messages == [Ack("a")]
            assert bobs.messages == []
            new.ask("two")
            await bobs.turn()
            assert [each.text for each in told(bobs, Written) if isinstance(each, Written)] == ["two"]
            assert told(bobs, Presence, Status, Gap) == []
            assert await second.stored() == lines("one", "You said: one.", "two", "You said: two.")
            # The model still knows everything.
            connection = gemini.connections[1]
            assert connection.handle and connection.history == []
            assert [text for _, text in connection.context][::2] == ["one", "two"]


async def test_what_was_missed_is_replayed(gemini: GeminiLive, tmp_path: Path) -> None:
    """Alice had lost her socket before."""
    async with an_owner(tmp_path) as first:
        alice, bob = first.attend(), first.attend("bob")
        alice.ask("one")
        await alice.turn()
        assert first.conversation
        first.conversation.detach(alice)
        bob.ask("two")
        await bob.turn(2)
        await first.kill()
        async with the_next(first) as second:
            new = second.attend("alice again", after=alice)
            assert told(new, Gap) == []
            assert [each.text for each in told(new, Written) if isinstance(each, Written)] == ["two"]
            assert text_of(alice, new) == "You said: one.You said: two."
            check_numbers(alice, new)


async def test_who_does_not_come_again_has_left(gemini: GeminiLive, tmp_path: Path) -> None:
    async with an_owner(tmp_path, grace=0.1) as first:
        alice = first.attend()
        first.attend("bob", name="Bob")
        alice.ask("one")
        await alice.turn()
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            second.attend("carol")
            await new.until(lambda message: isinstance(message, Presence), 2)
            assert told(new, Presence) == [
                Presence(("carol",), (), 3),
                Presence((), ("bob",), 2, (("bob", "Bob"),)),
            ]


# ---- texts ------------------------------------------------------------------------------------------


async def test_texts_that_the_model_was_not_given_are_said_once(gemini: GeminiLive, tmp_path: Path) -> None:
    gate = asyncio.Event()
    gemini.on_connect = {1: Plan(gate=gate)}.get
    async with an_owner(tmp_path) as first:
        alice, bob = first.attend(), first.attend("bob", member="bob")
        alice.say(UserText("one", id="a"))
        bob.say(UserText("two", id="a"))  # an id is one of its member
        await gemini.wait_for(lambda: gemini.connects == 1)
        await first.kill()
        gate.set()
        async with the_next(first) as second:
            new, bobs = second.attend(after=alice), second.attend("bob", after=bob, member="bob")
            new.say(UserText("one", id="a"))
            bobs.say(UserText("two", id="a"))
            await new.turn(2)
            await bobs.turn(2)
            one, first_answer, two, second_answer = lines("one", "You said: one.", "two", "You said: two.")
            assert await second.stored() == [one, two, first_answer, second_answer]  # as all were told
            assert gemini.connections[0].texts == ["one", "two"]
            assert told(new, Ack) == told(bobs, Ack) == [Ack("a")]
            assert [each.text for each in told(alice, Written) if isinstance(each, Written)] == ["two"]
            assert told(new, Written) == []
            assert [each.text for each in told(bobs, Written) if isinstance(each, Written)] == ["two"]  # own
            assert second.conversation and second.conversation.room.history.message_count == 4
            ids = [line.id for line in second.conversation.room.history.lines() if line.role == "user"]
            assert ids == ["a", "a"]


async def test_a_text_that_the_model_took_and_nobody_stored(gemini: GeminiLive, tmp_path: Path) -> None:
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        taken = asyncio.Event()

        async def never(*_: Any, **__: Any) -> Event:
            taken.set()
            await asyncio.Event().wait()
            raise AssertionError

        first.service.append_event = never  # type: ignore[method-assign]
        alice.say(UserText("one", id="a"))
        async with asyncio.timeout(HANGS):
            await taken.wait()
        assert past_of(first.recorded).state.owed
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            await new.turn()
            assert told(new, Status) == []
            assert await second.stored() == lines("one", "You said: one.")
            assert gemini.connections[-1].texts == ["one"]


@pytest.mark.parametrize("what", ["text", "answer"])
async def test_it_is_killed_as_soon_as_something_is_stored(
    gemini: GeminiLive, tmp_path: Path, what: str
) -> None:
    """Nothing was recorded of that, and nobody was told."""
    held = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if what == "text" and connection.number == 1:
            await held.wait()
        elif connection.number == 1:
            await connection.say("Well.", words=False, complete=False)
            await connection.send_text_parts("Well.")
            await connection.turn_complete()
        else:
            await connection.say("Answered.")

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        dead = first.cut_when(
            lambda event: bool(said_by(event).text) and (event.author == "user") == (what == "text")
        )
        alice.say(UserText("one", id="a"))
        async with asyncio.timeout(HANGS):
            await dead.wait()
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            new.say(UserText("one", id="a"))
            await new.until(lambda message: isinstance(message, TurnEnd) and not message.goes_on)
            assert told(new, Ack) == [Ack("a")]
            assert not past_of(second.recorded).waiting
            answered = "Answered." if what == "text" else "Well.Answered."
            assert text_of(alice, new) == answered
            assert await second.stored() == lines("one", answered)
            assert nothing(gemini.connections[1])


async def test_speech_that_was_stored_and_nobody_was_told_of(gemini: GeminiLive, tmp_path: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.audio:
            await connection.heard("Hello there.")
        await connection.say("I heard you.")

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = first.attend(is_audio=True)
        dead = first.cut_when(lambda event: bool(event.input_transcription))
        alice.speak(speech(400) + silence(600))
        async with asyncio.timeout(HANGS):
            await dead.wait()
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice, is_audio=True)
            await new.turn()
            spoken = [each for each in told(new, Transcript) if isinstance(each, Transcript) and each.final]
            assert [each.text for each in spoken] == ["Hello there."]
            assert text_of(new) == "I heard you."
            assert await second.stored() == lines("Hello there.", "I heard you.")
            check_numbers(alice, new)


async def test_a_text_that_was_stopped_stays_stopped(gemini: GeminiLive, tmp_path: Path) -> None:
    gate = asyncio.Event()
    gemini.on_connect = {1: Plan(gate=gate)}.get
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.say(UserText("one", id="a"))
        await gemini.wait_for(lambda: gemini.connects == 1)
        alice.say(Interrupt())
        await alice.turn()
        await first.kill()
        gate.set()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            alice.say(UserText("one", id="a"))
            async with asyncio.timeout(HANGS):
                while len(await second.stored()) < 2:
                    await asyncio.sleep(0.05)
            new.ask("two")
            await new.turn()
            assert text_of(new) == "You said: two."
            assert [line.text for line in await second.stored()] == [
                "one",
                "You said: one.",
                "two",
                "You said: two.",
            ]


# ---- requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [True, False])
async def test_requests_wait_for_their_turns(
    gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """One of them is being answered. Those of listeners that only want their answers are given up if these
    don't come again."""
    monkeypatch.setattr("adk_relay.adk.attendance._UNATTENDED", 1.0)
    gemini.answer = halves("one", " two.")
    async with an_owner(tmp_path, grace=0.1) as first:
        watcher = first.attend("watcher")
        asking = [first.attend(f"asking {number}", attends="own") for number in range(3)]
        chat = first.attend("chat")
        assert first.conversation
        for number, who in enumerate(asking):
            first.conversation.ask(UserText(f"question {number}", id=f"{number}"), who)
        first.conversation.ask(UserText("in the chat", id="chat"), chat)
        await watcher.until(is_text("one"))
        await first.kill()
        requests = past_of(first.recorded).requests
        assert [each.text.text for each in requests] == ["question 1", "in the chat", "question 2"]
        async with the_next(first) as second:
            assert second.conversation
            watching = second.attend("watcher", after=watcher)
            if again:
                asked = [second.attend(f"asking {number}", attends="own") for number in range(3)]
                for number, who in enumerate(asked):
                    second.conversation.ask(UserText(f"question {number}", id=f"{number}"), who)
            answers = ["one two.", "You said: question 1.", "You said: in the chat.", "You said: question 2."]
            expected = answers if again else [answers[0], answers[2]]
            await watching.turn(1 + len(expected))
            whole = "".join(expected)
            assert text_of(watcher, watching) == whole
            written = [
                each.text
                for who in (watcher, watching)
                for each in told(who, Written)
                if isinstance(each, Written)
            ]
            assert written == [
                "question 0",
                *(["question 1", "in the chat", "question 2"] if again else ["in the chat"]),
            ]
            if again:
                assert [text_of(who) for who in asked] == [" two.", answers[1], answers[3]]
            assert [line.text for line in await second.stored() if line.role == "agent"] == expected
            assert sum(isinstance(entry, RequestBegan) for entry in second.recorded) == len(expected)
            async with asyncio.timeout(HANGS):
                while past_of(second.recorded).requests:
                    await asyncio.sleep(0.05)


# ---- resets -----------------------------------------------------------------------------------------


async def test_after_a_reset(gemini: GeminiLive, tmp_path: Path) -> None:
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.ask("old")
        await alice.turn()
        assert first.conversation
        await first.conversations.reset("alice", ID, delete=False)
        epoch = first.conversation.room.epoch
        alice.messages.clear()
        alice.ask("new")
        await alice.turn()
        await first.kill()
        async with the_next(first) as second:
            assert second.conversation
            new = second.attend(after=alice)
            assert new.messages == []
            assert second.conversation.room.epoch == epoch
            assert await second.stored() == lines("new", "You said: new.")
            assert second.conversation.room.history.message_count == 2


async def test_a_reset_that_was_under_way_is_done(
    gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is deleted already. What was told of it is not stored again."""
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.ask("old")
        await alice.turn()
        assert first.conversation
        epoch, delete = first.conversation.room.epoch, Sqlite.delete_session

        async def deleted(self: Sqlite, **named: Any) -> None:
            await delete(self, **named)
            if not first.is_dead:
                first.cut()

        with monkeypatch.context() as patch:
            patch.setattr(Sqlite, "delete_session", deleted)
            with pytest.raises(Exception, match=r".*"):
                await first.conversations.reset("alice", ID, delete=False)
        await first.kill()
        async with the_next(first) as second:
            assert second.conversation and second.conversation.room.epoch != epoch
            new = second.attend()
            assert second.conversation.room.history.message_count == 0
            assert await second.stored() == []
            assert second.conversation.session.is_kept
            new.ask("new")
            await new.turn()
            assert await second.stored() == lines("new", "You said: new.")


# ---- tools ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["waits", "answered"])
async def test_a_tool_call_waits_for_a_user(gemini: GeminiLive, tmp_path: Path, when: str) -> None:
    """The user answers the new owner, or has answered the old one, which could not reach the model."""
    gate = asyncio.Event()
    gemini.answer = calling("ask_manager", {"amount": 5})
    gemini.on_connect = {2: Plan(gate=gate)}.get if when == "answered" else lambda number: None
    answer = ToolResult("call-1", {"approved": True})
    async with an_owner(tmp_path, with_tools()) as first:
        alice = first.attend()
        alice.ask("go")
        await alice.turn()
        if when == "answered":
            await gemini.connections[0].die(1011)
            await gemini.wait_for(lambda: gemini.connects == 2 or not gemini.connections[0].open)

            async def never(*_: Any, **__: Any) -> Event:
                await asyncio.Event().wait()
                raise AssertionError

            first.service.append_event = never  # type: ignore[method-assign]
            alice.say(answer)
            await alice.until(lambda message: isinstance(message, ToolComplete))
        await first.kill()
        gate.set()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            if when == "waits":
                (start,) = told(new, ToolStart)
                assert isinstance(start, ToolStart) and start.is_pending and start.tool_id == "call-1"
                new.say(answer)
            else:
                assert told(new, ToolStart) == []
            await new.turn()
            completed = told(alice, ToolComplete) + told(new, ToolComplete)
            assert len(completed) == 1
            assert any("approved" in str(content) for content in gemini.connections[-1].history)
            new.say(answer)
            await new.until(lambda message: getattr(message, "code", "") == "unknown_tool")


@pytest.mark.filterwarnings("ignore:SequentialAgent is deprecated:DeprecationWarning")
async def test_a_sequence_goes_on_with_the_agent_that_spoke(gemini: GeminiLive, tmp_path: Path) -> None:
    gemini.answer = by_agent
    async with an_owner(tmp_path, sequence()) as first:
        alice = first.attend()
        alice.ask("hand over")
        await alice.until(is_text("hello"))
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            new.ask("Who is it?")
            await new.until(lambda message: isinstance(message, TurnEnd) and not message.goes_on)
            assert agent_of(gemini.connections[-1]) == "second"


# ---- given away --------------------------------------------------------------------------------------


async def test_a_conversation_is_given_away_between_two_turns(gemini: GeminiLive, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("You said:", complete=False)
        await gate.wait()
        await connection.say(f" {turn.text}.")

    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice, bob = first.attend(), first.attend("bob")
        alice.say(UserText("one", id="a"))
        await alice.until(is_text("said:"))
        assert first.conversation
        giving = asyncio.create_task(first.conversations.give(first.conversation))
        assert not (await asyncio.wait({giving}, timeout=0.3))[0]
        gate.set()
        await giving
        assert first.conversations.active == 0
        last = first.recorded[-1]
        assert isinstance(last, Checkpoint) and last.is_given and last.state.handle and not last.state.owed
        assert not first.conversation.is_attended_by(bob)
        first.conversation.detach(alice)  # its socket may end at just this moment
        async with the_next(first) as second:
            new, bobs = second.attend(after=alice), second.attend("bob", after=bob)
            assert new.messages == bobs.messages == []
            assert told(alice, Status) == told(bob, Status) == []
            assert text_of(bob) == "You said: one."
            new.ask("two")
            await bobs.turn()
            assert gemini.connections[1].handle == last.state.handle
            assert await second.stored() == lines("one", "You said: one.", "two", "You said: two.")


async def test_it_is_given_away_in_the_middle_of_an_answer_that_takes_too_long(
    gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.handover._WAIT", 0.1)
    gemini.answer = halves("one two", " three.")
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.say(UserText("Count.", id="a"))
        await alice.until(is_text("two"))
        assert first.conversation
        giving = asyncio.create_task(first.conversations.give(first.conversation))
        await alice.turn()
        alice.say(UserText("And then?", id="b"))  # it is taken until the end
        await giving
        async with the_next(first) as second:
            new = second.attend(after=alice)
            await new.turn(2)
            assert text_of(alice, new) == "one two three.You said: And then?."
            statuses = [
                each.state for each in (*told(alice, Status), *told(new, Status)) if isinstance(each, Status)
            ]
            assert statuses == ["reconnecting", "reconnecting", "live"]
            assert await second.stored() == lines(
                "Count.", "one two three.", "And then?", "You said: And then?."
            )
            check_numbers(alice, new)


async def test_without_listeners_it_is_not_given_to_anybody(gemini: GeminiLive, tmp_path: Path) -> None:
    """What waits is stored here: nobody else would do it."""
    gate = asyncio.Event()
    gemini.on_connect = {1: Plan(gate=gate)}.get
    async with an_owner(tmp_path) as first:
        alice = first.attend()
        alice.ask("one")
        assert first.conversation
        first.conversation.detach(alice)
        await gemini.wait_for(lambda: gemini.connects == 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("adk_relay.adk.handover._WAIT", 0.1)
            await first.conversations.give(first.conversation)
        gate.set()
        assert await first.stored() == lines("one")
        assert first.recorded[-1] == Over() and isinstance(first.recorded[-2], TextDone)
        assert past_of(first.recorded).epoch == ""


async def test_a_conversation_that_is_over_begins_anew(gemini: GeminiLive, tmp_path: Path) -> None:
    async with an_owner(tmp_path, grace=0) as first:
        alice = first.attend()
        alice.say(UserText("one", id="a"))
        await alice.turn()
        assert first.conversation
        epoch = first.conversation.room.epoch
        first.conversation.detach(alice)
        async with asyncio.timeout(HANGS):
            while first.conversations.active:
                await asyncio.sleep(0.01)
        async with the_next(first) as second:
            assert second.conversation and second.conversation.room.epoch != epoch
            assert [line.text for line in second.conversation.room.history.lines()] == [
                "one",
                "You said: one.",
            ]
