"""A conversation with a real run, whatever its listeners do, against a model of what was said in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Literal, TypeGuard

import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.sessions import InMemorySessionService, Session
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adk_relay.adk.conversation import Conversation
from adk_relay.adk.conversations import Conversations
from adk_relay.adk.lines import lines_of
from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.core.messages import Ack, Error, Interrupt, Message, Numbered, Reset, TurnEnd, UserText
from adk_relay.core.requests import BusyError
from adk_relay.core.visitor import GUEST
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.server import stand_in

pytestmark = pytest.mark.voice

Attends = Literal["all", "own"]

STEPS = st.lists(
    st.sampled_from(["come", "leave", "say", "say", "ask", "ask", "stop", "clear", "delete", "rest", "rest"]),
    max_size=20,
)


def is_end(message: Message) -> TypeGuard[TurnEnd]:
    return isinstance(message, TurnEnd) and not message.goes_on


class Listener:
    """Remembers what it was told, and can be waited for."""

    name = address = ""
    member = "alice"  # all are hers: their requests are answered in the order in which they come
    is_audio = False
    connects = False

    def __init__(self, connection_id: str, attends: Attends = "all") -> None:
        self.connection_id = connection_id
        self.attends: Attends = attends
        self.told: list[Message] = []
        self.news = asyncio.Event()

    def deliver(self, message: Message) -> None:
        self.told.append(message)
        self.news.set()

    def replay(self, messages: Sequence[Message]) -> None:
        self.told += messages

    async def answered(self) -> TurnEnd:
        """The first end of an answer, when its text is stored, too."""
        async with asyncio.timeout(60):
            while True:
                ends = [*filter(is_end, self.told)]
                if ends and any(isinstance(message, Ack) for message in self.told):
                    return ends[0]
                self.news.clear()
                await self.news.wait()


class Story:
    """Does the steps. The model is what was written since the conversation was emptied last.

    All of it is in the history, but for what its writer was told an error of.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.numbers = count(1)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.is_disturbed = False  # by a live text or an interruption
        self.resets: list[asyncio.Task[None]] = []
        self.writer = self.come()
        self.others: list[Listener] = []

    def come(self, attends: Attends = "all") -> Listener:
        listener = Listener(str(next(self.numbers)), attends)
        self.conversation.attach(listener)
        return listener

    def write(self, texts: list[str]) -> UserText:
        number = next(self.numbers)
        texts.append(f"text {number}")
        return UserText(f"text {number}", f"text {number}")

    async def do(self, step: str) -> None:
        match step:
            case "come":
                self.others.append(self.come())
            case "leave" if self.others:
                self.conversation.detach(self.others.pop())
            case "say":
                self.is_disturbed = True
                self.conversation.handle(self.write(self.said), self.writer)
            case "ask":
                try:
                    self.conversation.ask(self.write(self.asked), self.writer)
                except BusyError:
                    self.asked.pop()
            case "stop":
                self.is_disturbed = True
                self.conversation.handle(Interrupt(), self.writer)
            case "clear" | "delete":
                reset = self.conversation.reset(delete=step == "delete")
                self.resets.append(asyncio.create_task(reset))
                await asyncio.sleep(0)  # it has begun
                self.said.clear()
                self.asked.clear()
            case "rest":
                await self.rest()

    async def rest(self) -> None:
        """Until all that was asked before is answered: requests are, one after the other."""
        await asyncio.gather(*self.resets)
        self.resets.clear()
        last = self.come("own")
        text = self.write(self.asked)
        self.conversation.ask(text, last)
        end = await last.answered()
        # A live text crosses with the model's words: the end of what it has cut can come in a later turn.
        assert not end.interrupted or self.is_disturbed
        self.conversation.detach(last)

        refused = {message.id for message in self.writer.told if isinstance(message, Error)}
        said = [text for text in self.said if text not in refused]
        asked = [text for text in self.asked if text not in refused]
        written = self.written()
        assert [text for text in written if text in said] == said
        assert [text for text in written if text in asked] == asked
        assert len(written) == len(said) + len(asked)

    def written(self) -> list[str]:
        return [line.text for line in self.conversation.room.history.lines() if line.role == "user"]


async def stored(conversations: Conversations) -> list[str]:
    """The user's texts in the session, in order."""
    session = await conversations.service.get_session(
        app_name=conversations.app_name, user_id=GUEST, session_id="the-one"
    )
    return [line.text for line in lines_of(session.events) if line.role == "user"] if session else []


async def tell(steps: list[str], agent: LlmAgent, service: Losing | None = None) -> None:
    """Does the steps, with a rest after the last of them, and ends the conversation."""
    conversations = Conversations(
        agent,
        sessions=service or "memory://",
        grace=0.0,
        idle_timeout=0.0,
        mic_ms=40.0,
        replay_bytes=0,
        replay_seconds=0.0,
        sound=os.environ["RELAY_SOUND"],
    )
    conversation = await conversations.open(GUEST, "the-one")
    story = Story(conversation)
    for step in [*steps, "rest"]:
        if service and step.startswith("lose"):
            service.do(step)
            continue
        await story.do(step)
        if step == "rest":
            assert await stored(conversations) == story.written()
            if service:
                last = story.written()[-1]
                await service.gemini.wait_for(lambda: last in service.told())  # noqa: B023
                assert service.told() == story.written()
                service.left = MOST_LOSSES

    stats = conversations.stats
    assert stats.requests == stats.successful + stats.failed
    # One stream, in order and without a hole in what was told to the listener that saw all of it.
    numbered: list[int] = []
    for message in story.writer.told:
        if isinstance(message, Reset):
            numbered.clear()
        elif isinstance(message, Numbered):
            numbered.append(message.seq)
    assert all(before < after for before, after in pairwise(numbered))

    for listener in [story.writer, *story.others]:
        conversation.detach(listener)
    await asyncio.wait_for(asyncio.shield(conversation._task), 60)
    assert conversations.active == 0
    await conversations.aclose()


@settings(max_examples=40)
@example(["say", "rest", "delete", "clear", "say", "delete", "rest"])  # what is held is emptied, too
@given(STEPS)
def test_whatever_happens_each_text_is_said_once_and_each_request_ends(steps: list[str]) -> None:
    agent = LlmAgent(name="tester", model=Rehearsal(words_per_second=5000, pace=1000))
    asyncio.run(tell(steps, agent))


# ---- the same, with a model whose connections are lost ---------------------------------------

MOST_LOSSES = 3
"""Losses without a completed turn between them. After five relay would give up."""

LOSSES = ["now", "at once", "before it is stored", "before it is sent", "asked", "begun", "said"]

LOSING_STEPS = st.lists(
    st.sampled_from(
        ["say", "ask", "stop", "clear", "rest", *(f"lose {moment}" for moment in LOSSES)],
    ),
    max_size=20,
)


class Losing(InMemorySessionService):
    """Has the stand-in lose its connections: now, or at a moment of the next text, answer or connection."""

    def __init__(self, gemini: GeminiLive) -> None:
        super().__init__()
        self.gemini = gemini
        self.left = MOST_LOSSES
        self.at_once = 0
        self.in_store: list[str] = []
        self.in_answers: list[str] = []
        gemini.answer = self.answer
        gemini.on_connect = self.plan

    def do(self, step: str) -> None:
        if not self.left:
            return
        self.left -= 1
        match step.removeprefix("lose "):
            case "now":
                self.lose()
            case "at once":
                self.at_once += 1
            case "before it is stored" | "before it is sent" as moment:
                self.in_store.append(moment)
            case moment:
                self.in_answers.append(moment)

    def lose(self) -> None:
        for connection in self.gemini.connections:
            if connection.open:
                connection.abort()

    def plan(self, number: int) -> Plan | None:
        if not self.at_once:
            return None
        self.at_once -= 1
        return Plan(close_after_setup=(1006, ""))

    async def append_event(self, session: Session, event: Event) -> Event:
        moment = self.in_store.pop(0) if self.in_store and event.author == "user" else ""
        if moment != "before it is stored":
            await super().append_event(session, event)
        if moment:
            self.lose()
            await asyncio.Event().wait()  # until the run is given up
        return event

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        lost_when = self.in_answers.pop(0) if self.in_answers else ""
        for moment, text in (("asked", "You"), ("begun", " said:"), ("said", f" {turn.text}")):
            if moment == lost_when:
                connection.abort()
                return
            await connection.say(text, complete=False)
        await connection.turn_complete()

    def told(self) -> list[str]:
        """The user's texts that the model knows, without relay's own notes."""
        known = self.gemini.connections[-1].context if self.gemini.connections else []
        return [text for who, text in known if who == "user" and text.startswith("text ")]


@settings(max_examples=25)
@example(["lose before it is stored", "say", "say", "ask"])
@example(["lose begun"])
@example(["lose before it is sent", "ask", "say"])
@example(["rest", "lose now", "say", "lose asked", "lose begun", "ask"])
@example(["lose at once", "lose said", "ask", "stop", "say"])
@given(LOSING_STEPS)
def test_whatever_is_lost_each_text_is_said_once_and_each_request_ends(steps: list[str]) -> None:
    async def with_losses() -> None:
        async with stand_in(monkeypatch) as gemini:
            await tell(steps, LlmAgent(name="tester", model="gemini-3.8-live"), Losing(gemini))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("adk_relay.adk.runs.wait_random_exponential", lambda **_: lambda _state: 0.0)
        monkeypatch.setattr("adk_relay.core.writing._LOOK_EVERY", 0.01)
        asyncio.run(with_losses())
