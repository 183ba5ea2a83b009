"""Texts that cross with answers: each answer goes to whoever asked for it, or to nobody."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from adk_relay.adk.conversation import Conversation
from adk_relay.core.visitor import GUEST
from support.chat import Chat, chat, created, guest, http
from support.client import Client, Json, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.latency import slow_network
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("quick_retries")]


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


def of(frames: list[Json]) -> list[str]:
    """The texts that the answers in some frames name."""
    return re.findall(r"You said: ([\w-]+)\.", words(frames))


def check_own(response: Json, text: str) -> None:
    """A response is the answer to this text, whole or interrupted. After a loss it may begin twice."""
    answer = response["full_response"]
    begun = f"(You( said:( {text}\\.)?)?)*"
    expected = begun if response.get("interrupted") else f"{begun}You said: {text}\\."
    assert re.fullmatch(expected, answer), (text, answer, response)


def turns(frames: list[Json]) -> list[str]:
    """The words of each turn that was complete."""
    complete, begun = [], 0
    for index, said in enumerate(frames):
        if is_end(said) or said.get("interrupted"):
            if is_end(said):
                complete.append(words(frames[begun:index]))
            begun = index
    return complete


async def resting(relay: object, session_id: str) -> Conversation:
    """The conversation, when nothing is left to answer."""
    conversation: Conversation = await relay.conversations.find(GUEST, session_id)  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        while (
            conversation._writing.is_answering
            or conversation._requests.waiting
            or (conversation._runs.run and not conversation._runs.run.is_at_rest)
        ):
            await asyncio.sleep(0.05)  # nothing tells of it
    return conversation


@pytest.mark.parametrize("farewell", ["goAway", "a loss"])
async def test_a_text_that_crosses_with_the_first_word_is_answered(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, farewell: str
) -> None:
    said_two = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number > 1:
            await connection.say("After it: " + connection.context[-1][1])
        elif turn.text == "two":
            said_two.set()
            await asyncio.sleep(60)
        elif turn.text == "zero":
            await connection.say("You said: zero.")
        else:
            await connection.say("You said: one. " + "And so on. " * 20, delay=0.05)

    gemini.answer = answer
    async with slow_network(gemini.port, lambda: 0.05) as slow:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"https://127.0.0.1:{slow}")
        relay = a_relay()
        async with serving(relay) as port:
            session_id = await created(port)
            async with guest(port, session_id) as alice:
                await alice.ask("zero")
                await alice.say("one")
                await asyncio.sleep(0.05)
                await alice.say("two")
                await said_two.wait()
                await alice.until(lambda said: said.get("interrupted"))
                connection = gemini.connections[0]
                if farewell == "goAway":
                    await connection.go_away(2.1)
                else:
                    await connection.die(1011)
                frames = await alice.until(is_end)
                assert "After it:" in words(frames)
                assert (gemini.connections[-1].history or [{}])[-1].get("role") == "user"


@pytest.mark.parametrize("code", [1006, 1011])
async def test_a_text_that_crosses_with_a_loss_is_not_the_rest_of_the_answer_before_it(
    gemini: GeminiLive, quick_retries: None, code: int
) -> None:
    """The model has begun to answer a request, and is lost when it has got a live text, too."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number > 1:
            await connection.say(f"You said: {question(connection, turn)}.")
        else:
            await connection.say("You said: ", complete=False)

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port:
        session_id = await created(port)
        async with chat(port, session_id) as asking, guest(port, session_id) as live:
            await asking.chat("one", id="one")
            await live.until(lambda said: said.get("mime_type"))
            run = (await relay.conversations.find(GUEST, session_id))._runs.run
            assert run
            connection = gemini.connections[0]
            connection.deafen()
            await live.say("two")
            async with asyncio.timeout(30):
                while run.queue.undecided or not run.turn.has_next:  # until it is sent
                    await asyncio.sleep(0.01)
            await connection.die(code)
            response = await asking.get("response_complete")
            assert response["id"] == "one"
            assert (response["full_response"], response.get("interrupted")) == ("You said:", True)
            frames = await live.until(lambda said: is_end(said) and "two" in words(live.frames))
            assert of(frames) == ["two"]


async def test_a_stop_after_the_second_of_two_texts_stops_both(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with slow_network(gemini.port, lambda: 0.05) as slow:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"https://127.0.0.1:{slow}")
        async with serving(a_relay()) as port:
            session_id = await created(port)
            async with guest(port, session_id) as alice:
                assert of([{"mime_type": "text/plain", "data": await alice.ask("zero")}]) == ["zero"]
                await alice.say("one")
                await asyncio.sleep(0.05)
                await alice.say("two")
                await asyncio.sleep(0.07)  # the answer to the first has begun, and the second is on its way
                await alice.send(type="interrupt")
                await asyncio.sleep(1)
                async with chat(port, session_id) as bob:
                    assert await bob.ask("three") == "You said: three."
                frames = await alice.until(lambda said: is_end(said) and "three" in words(alice.frames))
                assert "two" not in of(frames)


async def test_requests_and_a_live_text_get_their_own_answers(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"You said: {turn.text}.", delay=0.05)

    gemini.answer = answer
    async with slow_network(gemini.port, lambda: 0.05) as slow:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"https://127.0.0.1:{slow}")
        relay = a_relay()
        async with serving(relay) as port:
            session_id = await created(port)
            async with chat(port, session_id) as asking, guest(port, session_id) as live:
                await asking.ask("zero")
                for text in ("one", "two", "three", "four", "five"):
                    await asking.chat(text, id=text)
                await asyncio.sleep(0.05)
                await live.say("live")
                for text in ("one", "two", "three", "four", "five"):
                    response = await asking.get("response_complete")
                    while response.get("id") != text:
                        response = await asking.get("response_complete")
                    check_own(response, text)
                await resting(relay, session_id)


# ---- the storm -------------------------------------------------------------------------------


async def ask_by_chat(who: Chat, texts: list[str], rng: random.Random) -> None:
    """Sends requests, some at once, and checks that each ends, with its own answer or none."""
    open_ids = set()
    for text in texts:
        await who.chat(text, id=text)
        open_ids.add(text)
        await asyncio.sleep(rng.choice([0, 0, 0.05, 0.3]))
    answered = {}
    while open_ids:
        said = await who.next()
        if said["type"] == "response_complete" and said.get("id") in open_ids:
            answered[said["id"]] = said
            open_ids.remove(said["id"])
        elif said["type"] == "error" and said.get("id") in open_ids:
            open_ids.remove(said["id"])
    for text, said in answered.items():
        check_own(said, text)


async def ask_by_http(port: int, session_id: str, texts: list[str], rng: random.Random) -> None:
    async with http(port) as web:
        for text in texts:
            response = await web.post("/api/v1/chat", json={"session_id": session_id, "message": text})
            if response.status_code == 200:
                check_own({"full_response": response.json()["content"], "interrupted": True}, text)
            await asyncio.sleep(rng.choice([0, 0.05, 0.2]))


async def live(who: Client, texts: list[str], stops: bool, rng: random.Random) -> None:
    for text in texts:
        await who.say(text)
        await asyncio.sleep(rng.choice([0, 0.05, 0.1, 0.5]))
        if stops and rng.random() < 0.4:
            await who.send(type="interrupt")
        await asyncio.sleep(rng.choice([0, 0.05, 0.1, 0.7]))


def question(connection: Connection, turn: UserTurn) -> str:
    """What is to be answered. After a loss, relay's own note asks for the answer to what is before it."""
    if not turn.text.startswith("("):
        return turn.text
    asked = [text for role, text in connection.context if role == "user" and not text.startswith("(")]
    return asked[-1]


async def trouble(gemini: GeminiLive, rng: random.Random) -> None:
    """Connections to the model that are lost, or are to be renewed; not five in a row without an answer."""
    in_a_row = 0
    while True:
        await asyncio.sleep(rng.uniform(0.5, 2))
        newest = gemini.connections[-1] if gemini.connections else None
        in_a_row = 0 if newest and newest.said.endswith(".") else in_a_row
        if newest and newest.open and newest.ready and in_a_row < 3:
            in_a_row += 1
            with suppress(ConnectionClosed):
                code = rng.choice([1011, 1006, None])
                await (newest.die(code) if code else newest.go_away(rng.uniform(2, 3)))


@pytest.mark.parametrize("is_troubled", [False, True], ids=["calm", "troubled"])
@pytest.mark.parametrize("seed", range(2))
async def test_in_a_storm_everybody_gets_their_own_answer_or_none(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seed: int, is_troubled: bool
) -> None:
    rng = random.Random(seed)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.sleep(rng.choice([0, 0, 0.05, 0.2]))
        text = question(connection, turn)
        await connection.say(f"You said: {text}.", delay=rng.choice([0, 0, 0.02, 0.1]))

    gemini.answer = answer
    async with slow_network(gemini.port, lambda: rng.uniform(0, 0.2)) as slow:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"https://127.0.0.1:{slow}")
        relay = a_relay(grace=30)
        async with serving(relay) as port:
            session_id = await created(port)
            async with (
                chat(port, session_id) as one,
                chat(port, session_id) as two,
                guest(port, session_id) as talking,
                guest(port, session_id) as stopping,
                asyncio.timeout(120),
            ):
                troubling = asyncio.create_task(trouble(gemini, rng)) if is_troubled else None
                async with asyncio.TaskGroup() as group:
                    for index, who in enumerate((one, two)):
                        texts = [f"c{index}-{number}" for number in range(6)]
                        group.create_task(ask_by_chat(who, texts, rng))
                    group.create_task(
                        ask_by_http(port, session_id, [f"h-{number}" for number in range(4)], rng)
                    )
                    group.create_task(live(talking, [f"l-{number}" for number in range(6)], False, rng))
                    group.create_task(live(stopping, [f"s-{number}" for number in range(3)], True, rng))
                if troubling:
                    troubling.cancel()
                conversation = await resting(relay, session_id)
                assert not conversation.room.history.is_answering
                assert not conversation._runs.owed
                await talking.say("at-rest")
                await talking.until(lambda said: is_end(said) and "at-rest" in words(talking.frames))
                for complete in turns(talking.frames):
                    assert re.fullmatch(r"((You( said:( [\w-]+\.)?)?)*You said: [\w-]+\.)?", complete), (
                        complete
                    )
