"""What a run still owes when it is lost, and what the session fails to keep."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.sessions import InMemorySessionService, Session
from google.genai import types

from adk_relay.adk.connection import LostConnection
from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.adk.translator import Translator
from adk_relay.adk.turn import Owed
from adk_relay.core.messages import Message, Place, Text, TurnEnd, UserText
from support.client import Json, client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("quick_retries"), pytest.mark.voice]


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


def is_live(said: Json) -> bool:
    return said.get("state") == "live"


# ---- the state of a turn, event by event -----------------------------------------------------


class _Run:
    """A translator and its turn, told of by a run."""

    def __init__(self, inherited: Owed = "") -> None:
        self.translator = Translator(count(1).__next__, lambda of_answer: Place("epoch", 1), owed=inherited)
        self.take, self.take_back = self.translator.turn.take, self.translator.turn.take_back
        self.lost, self.interrupt = self.translator.lose, self.translator.stop


def a_turn(inherited: Owed = "") -> _Run:
    return _Run(inherited)


def owed(turn: _Run) -> Owed:
    return turn.translator.turn.owed


def spoke(text: str) -> Event:
    return Event(author="tester", output_transcription=types.Transcription(text=text), partial=True)


def heard(text: str) -> Event:
    transcription = types.Transcription(text=text, finished=True)
    return Event(author="user", input_transcription=transcription)


def complete() -> Event:
    return Event(author="tester", turn_complete=True)


def interrupted() -> Event:
    return Event(author="tester", interrupted=True)


def tell(turn: _Run, *events: Event) -> list[Message]:
    return [message for event in events for message in turn.translator.messages(event)]


def test_an_answer_is_owed_until_its_end() -> None:
    turn = a_turn()
    assert owed(turn) == ""
    turn.take(UserText("one"))
    assert owed(turn) == "answer"
    tell(turn, spoke("la"))
    assert owed(turn) == "answer"
    tell(turn, complete())
    assert owed(turn) == ""


def test_a_cut_answer_owes_its_rest_unless_more_was_asked() -> None:
    turn = a_turn()
    turn.take(UserText("one"))
    tell(turn, spoke("la"))
    list(turn.lost(goes_on=True))
    assert owed(turn) == "rest"
    turn = a_turn()
    turn.take(UserText("one"))
    tell(turn, spoke("la"))
    turn.take(UserText("two"))
    list(turn.lost(goes_on=True))
    assert owed(turn) == "answer"
    turn.take_back(UserText("two"))
    assert owed(turn) == "rest"


def test_a_transcript_that_comes_late_is_no_new_question() -> None:
    turn = a_turn()
    tell(turn, spoke("hi"), heard("hello"), complete())
    assert owed(turn) == ""


def test_a_question_that_interrupts_is_owed_an_answer() -> None:
    turn = a_turn()
    turn.take(UserText("one"))
    tell(turn, spoke("la"))
    turn.take(UserText("two"))
    tell(turn, interrupted(), interrupted(), complete())
    assert owed(turn) == "answer"
    turn = a_turn()
    tell(turn, spoke("welcome"), heard("wait"), interrupted())
    assert owed(turn) == "answer"
    turn = a_turn()
    tell(turn, spoke("welcome"))
    turn.take(UserText("two"))
    tell(turn, interrupted())
    assert owed(turn) == "answer"


def test_an_empty_turn_is_an_answer() -> None:
    turn = a_turn()
    turn.take(UserText("one"))
    tell(turn, complete())
    assert owed(turn) == ""


def test_an_early_stop_does_not_mute_what_is_spoken_next() -> None:
    turn = a_turn("answer")
    list(turn.interrupt())
    assert any(isinstance(said, Text) for said in tell(turn, heard("a question"), spoke("An answer")))


@pytest.mark.parametrize("is_first_spoken", [False, True])
def test_all_that_was_stopped_before_its_first_word_is_muted(is_first_spoken: bool) -> None:
    turn = a_turn()
    turn.take(UserText("one"))
    turn.take(UserText("two"))
    assert [*turn.interrupt()]
    first = [spoke("An answer to one")] if is_first_spoken else []
    assert not tell(turn, *first, interrupted(), complete(), spoke("An answer to two"), complete())
    turn.take(UserText("three"))
    told = tell(turn, spoke("An answer to three"), complete())
    assert [type(message) for message in told] == [Text, TurnEnd]


def test_what_was_asked_and_stopped_while_the_agent_spoke_is_muted() -> None:
    turn = a_turn()
    turn.take(UserText("one"))
    assert tell(turn, spoke("An answer"))
    turn.take(UserText("two"))
    assert [*turn.interrupt()]
    assert not tell(turn, interrupted(), complete(), spoke("An answer to two"), complete())


def test_the_services_own_words_are_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    error = Event(author="tester", error_code="INTERNAL", error_message="projects/secret-7")
    (said,) = tell(a_turn(), error)
    assert "secret" not in str(said)
    assert "secret" in caplog.text


# ---- through the relay -----------------------------------------------------------------------


class Failing(InMemorySessionService):
    """Fails once, at what is told to it: storing the text, or reading the session."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.text = text
        self.unreadable = False

    async def append_event(self, session: Session, event: Event) -> Event:
        parts = event.content.parts if event.content else None
        if self.text and parts and parts[0].text == self.text:
            self.text = ""
            raise OSError("the disk is full")
        return await super().append_event(session, event)

    async def get_session(self, **which: Any) -> Session | None:
        if self.unreadable:
            self.unreadable = False
            raise OSError("the disk is gone")
        return await super().get_session(**which)


async def test_a_text_that_could_not_be_stored_is_said_again(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._STALLED_AFTER", 0.5)
    async with serving(a_relay(sessions=Failing("two"))) as port, client(port) as alice:
        await alice.ask("one")
        await alice.say("two")
        assert words(await alice.until(is_end)) == "You said: two."


async def test_texts_that_were_stopped_before_the_model_had_them_are_not_answered(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"You said: {turn.text}.")
        if turn.text == "three":
            await connection.heard("The last.")

    gemini.answer = answer
    gemini.on_connect = {1: Plan(delay=0.5)}.get
    async with serving(a_relay()) as port, client(port) as alice:
        for text in ("one", "two", "three"):
            await alice.say(text)
        await alice.send(type="interrupt")
        frames = await alice.until(lambda said: "The last." in str(said))
        assert words(frames) == ""
        assert sum(bool(said.get("interrupted")) for said in frames) == 1
        assert await alice.ask("four") == "You said: four."


async def test_a_session_that_cannot_be_read_loses_no_answer(gemini: GeminiLive) -> None:
    sessions = Failing()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False)
            sessions.unreadable = True
            await connection.die(1011)
        await connection.say(" three four.")

    gemini.answer = answer
    async with serving(a_relay(sessions=sessions)) as port, client(port) as alice:
        await alice.say("count")
        assert words(await alice.until(is_end)).endswith(" three four.")


async def test_a_loss_after_an_empty_turn_asks_nothing_again(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.turn_complete()
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("one")
        await alice.until(is_end)
        await gemini.connections[0].die(1011)
        await alice.until(is_live)
        assert await alice.ask("two") == "You said: two."
    assert gemini.connections[1].handle or gemini.connections[1].history[-1]["role"] == "model"


async def test_speech_after_a_stop_while_reconnecting_is_answered(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False)
            await connection.die(1011)
        await connection.heard("A question.")
        await connection.say("An answer.")

    gemini.answer = answer
    gemini.on_connect = {2: Plan(delay=0.5)}.get
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.say("count")
        await alice.until(lambda said: said.get("state") == "reconnecting")
        await gemini.wait_for(lambda: gemini.connects >= 2)
        await alice.send(type="interrupt")
        await alice.until(is_live)
        await alice.socket.send(speech(400) + silence(600))
        assert words(await alice.until(is_end)) == "An answer."


@pytest.mark.parametrize("farewell", ["goAway", "goodbye"])
async def test_speech_that_a_normal_close_cuts_off_is_reported(gemini: GeminiLive, farewell: str) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.ask("one")
        await alice.socket.send(speech(400))
        await gemini.wait_for(lambda: gemini.connections[0].audio)
        if farewell == "goAway":
            await gemini.connections[0].go_away(2.1)
        else:
            await gemini.connections[0].die(1000)
        await alice.until(lambda said: said.get("code") == "speech_lost")


async def test_a_handshake_that_breaks_off_is_tried_again(gemini: GeminiLive) -> None:
    from websockets.asyncio.client import connect

    from adk_relay.adk.connection import _lost

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Exception) as broken:
            await connect(f"ws://127.0.0.1:{port}/", proxy=None)
    lost = _lost(broken.value)
    assert isinstance(lost, LostConnection)
    assert not lost.permanent


async def test_a_socket_accepted_while_all_is_closed_leaves_nothing_behind() -> None:
    relay = a_relay(LlmAgent(name="tester", model=Rehearsal()))
    accepted, closed = asyncio.Event(), asyncio.Event()
    events: asyncio.Queue[Json] = asyncio.Queue()
    events.put_nowait({"type": "websocket.connect"})
    sent: list[str] = []

    async def send(event: Any) -> None:
        sent.append(event["type"])
        if event["type"] == "websocket.accept":
            accepted.set()
            await closed.wait()

    scope = {"type": "websocket", "path": "/ws/alice", "query_string": b"is_audio=true", "headers": []}
    serving_it = asyncio.create_task(relay(scope, events.get, send))
    await accepted.wait()
    await relay.aclose()
    closed.set()
    await serving_it
    assert sent == ["websocket.accept", "websocket.close"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
