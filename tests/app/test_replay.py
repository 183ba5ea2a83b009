"""A dropped socket loses nothing: whatever is cut, wherever, the client ends with all of it, once."""

from __future__ import annotations

import itertools
import random
import threading
from typing import Any

import pytest

from support.client import client
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.proxy import Cut, Proxy
from support.server import a_relay, over_bus, serving
from support.traveler import (
    CHUNK,
    KINDS,
    Traveler,
    an_agent,
    emitted,
    interruptible,
    is_ack,
    is_end,
    is_interrupted,
    is_over,
    is_type,
    long_answer,
    temperature,
    told,
    uncut,
)

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.voice, pytest.mark.bus]


# ---- cuts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_after_any_message_loses_nothing_and_repeats_nothing(
    gemini: GeminiLive, kind: str
) -> None:
    gemini.answer = long_answer
    seen: set[str] = set()
    kinds = {"nothing", "hello", "ack", "words", "tool_start", "tool_complete"}
    async with serving(a_relay(an_agent(temperature), grace=30)) as port, Proxy(port) as network:
        expected = await uncut(port, **KINDS[kind])
        users = itertools.count()
        # What is sent in one frame differs from answer to answer. So one round may cut after no "tool_start".
        while not seen >= kinds:
            for messages in itertools.count():
                network.cuts.append(Cut(messages=messages))
                at = len(network.lines)
                async with Traveler(network.port, f"user{next(users)}", **KINDS[kind]) as one:
                    await one.say("go", "q")
                    await one.until(is_end)
                    assert one.story == expected
                    assert one.owed.keys() <= {"q"}
                    assert not one.gaps
                    seen.update(one.dropped_after)
                if len(network.lines) == at + 1:
                    break  # the answer was over before the cut
                assert len(network.lines) == at + 2
            if over_bus():
                break
    # These are all boundaries between frames, unless the answer was sent in very few frames. Over the bus,
    # several chunks come at once.
    assert over_bus() or messages > (30 if KINDS[kind]["audio"] else 20)
    assert ("sound" in seen) is KINDS[kind]["audio"] or over_bus()


async def test_a_hundred_answers_on_a_network_that_fails_anywhere_at_any_time(gemini: GeminiLive) -> None:
    """Cuts in frames, handshakes and questions, several in each answer, and some without a notice."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await long_answer(connection, turn)
        else:
            await connection.say("Goodbye to you, too.")

    gemini.answer = answer
    dice = random.Random(20)
    cuts, rounds = 0, 20 if over_bus() else 100
    async with serving(a_relay(an_agent(temperature), grace=30)) as port:
        expected = {name: await uncut(port, "go", "bye", **kind) for name, kind in KINDS.items()}
        for number in range(rounds):
            kind = dice.choice([*KINDS])
            async with (
                Proxy(port) as network,
                Traveler(network.port, f"user{number}", **KINDS[kind]) as one,
            ):
                for _ in range(dice.randint(1, 8)):
                    silent = dice.random() < 0.3
                    if dice.random() < 0.7:
                        cut = Cut(bytes=int(dice.expovariate(1 / 15_000)), silent=silent)
                    else:
                        cut = Cut(seconds=dice.uniform(0, 0.03), silent=silent)
                    network.cuts.append(cut)
                await one.say("go", "first")
                await one.until(is_end)
                await one.say("bye", "second")
                await one.until(is_end)
                assert one.story == expected[kind]
                assert not one.gaps
                cuts += sum(line.was_cut for line in network.lines)
    assert cuts > 2 * rounds
    # Texts that were sent again were still said once.
    assert [connection.texts for connection in gemini.connections] == [["go", "bye"]] * (rounds + 3)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_comes_back_before_its_loss_is_noticed(gemini: GeminiLive, kind: str) -> None:
    """The network cable was pulled: the server does not know it, and still writes to the old socket."""
    gemini.answer = long_answer
    async with serving(a_relay(an_agent(temperature))) as port, Proxy(port) as network:
        expected = await uncut(port, **KINDS[kind])
        for messages in (2, 3, 5) if over_bus() else (3, 10, 17):
            network.cuts += [Cut(messages=messages, silent=True), Cut(messages=4, silent=True)]
            async with Traveler(network.port, f"user{messages}", **KINDS[kind]) as one:
                await one.say("go", "q")
                await one.until(is_end)
                assert one.story == expected
                assert [hello["connections"] for hello in one.hellos][:2] == [1, 2]


async def test_an_answer_that_nobody_was_there_for(gemini: GeminiLive) -> None:
    gemini.answer = long_answer
    relay = a_relay(an_agent(temperature), grace=30)
    async with serving(relay) as port, Proxy(port) as network:
        expected = await uncut(port)
        async with Traveler(network.port) as one:
            await one.greeted()
            await one.say("go", "q")
            await one.until(is_ack("q"))
            network.lines[0].cut()
            await emitted(relay, is_over)
            await one.until(is_end)
            assert one.story == expected
            # A client that was away for long and has everything gets nothing again.
            await one.leave()
            assert await told(port, f"&after={one.epoch}.{one.seq}") == []


# ---- in the middle of something --------------------------------------------------------------


@pytest.mark.parametrize("back", ["while it runs", "when all is over"])
async def test_a_drop_in_mid_tool_call(gemini: GeminiLive, back: str) -> None:
    released = threading.Event()

    def temperature(city: str) -> dict[str, Any]:
        """How warm it is; returns when `released` is set."""
        assert released.wait(60)
        return {"city": city, "celsius": 7}

    gemini.answer = long_answer
    relay = a_relay(an_agent(temperature), grace=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        released.set()
        expected = await uncut(port)
        released.clear()
        await one.say("go", "q")
        await one.until(is_type("tool_start"))
        network.lines[-1].cut()
        if back == "while it runs":
            await one.greeted()
        released.set()
        if back == "when all is over":
            await emitted(relay, is_over)
        await one.until(is_end)
        assert one.story == expected
        assert (one.count("tool_start"), one.count("tool_complete")) == (1, 1)
        assert len(one.hellos) == 2


@pytest.mark.parametrize("by", ["itself", "its own words", "another"])
async def test_a_drop_while_the_answer_is_interrupted(gemini: GeminiLive, by: str) -> None:
    """The client gets the rest of the words but not of the sound, and one notice of the interruption."""
    gemini.answer = interruptible
    relay = a_relay(grace=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.say("go", "q1")
        await one.until(is_type("sound"))
        line = network.lines[0]
        line.hold()
        await emitted(relay, lambda room: room.seq == 61)  # the question, 20 words, 40 chunks
        match by:
            case "itself":
                await one.send(type="interrupt")
            case "its own words":
                await one.say("wait", "q2")
            case "another":
                async with client(port) as another:
                    await another.say("wait")
                    await another.until(is_end)
        await emitted(relay, is_over)
        while one.frames < line.messages:
            await one.next()
        assert not one.count("interrupted")
        heard = one.sound
        assert 0 < len(heard) < 40 * CHUNK
        line.cut()
        await one.until(is_interrupted)
        assert one.words == "".join(f" {n}" for n in range(20))
        assert one.sound == heard
        if by == "itself":
            await one.say("wait", "q2")
        await one.until(is_end)
        assert one.count("interrupted") == 1
        assert one.story[-3:-1] == [("words", "Yes?"), ("sound", gemini.connections[0].sound[40 * CHUNK :])]
        assert one.sound == heard + gemini.connections[0].sound[40 * CHUNK :]
        assert gemini.connections[0].texts == ["go", "wait"]
        messages = [value for kind, value in one.story if kind == "message"]
        assert messages == ([("user", "wait")] if by == "another" else [])


async def test_a_stop_of_what_was_over_but_not_heard_yet_is_a_stop(gemini: GeminiLive) -> None:
    """There is nothing left to interrupt, so no message says so; but the sound is not replayed."""
    relay = a_relay(grace=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.say("".join(f" {n}" for n in range(20)), "q1")
        await one.until(is_type("sound"))
        line = network.lines[0]
        line.hold()
        await emitted(relay, is_over)
        over = len(gemini.connections[0].sound)
        await one.send(type="interrupt")
        await one.say("wait", "q2")
        await emitted(relay, lambda room: room.history.message_count == 4 and is_over(room))
        while one.frames < line.messages:
            await one.next()
        heard = one.sound
        assert 0 < len(heard) < over
        line.cut()
        await one.until(is_end)
        assert one.sound == heard
        assert one.words == gemini.connections[0].context[1][1]
        await one.until(is_end)
        assert one.sound == heard + gemini.connections[0].sound[over:]
        assert (one.count("interrupted"), one.count("turn_complete")) == (0, 2)


async def test_a_stop_sent_twice_because_of_a_drop_is_one_stop(gemini: GeminiLive) -> None:
    gemini.answer = interruptible
    relay = a_relay(grace=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.say("go", "q1")
        await one.until(is_type("sound"))
        await one.send(type="interrupt")
        await emitted(relay, is_over)
        network.lines[0].cut()
        await one.greeted()
        await one.send(type="interrupt")
        await one.say("wait", "q2")
        await one.until(is_end)
        assert one.count("interrupted") == 1
        assert one.count("turn_complete") == 1
        assert one.words.endswith("Yes?")


async def test_a_drop_while_the_models_connection_is_remade(gemini: GeminiLive, quick_retries: None) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False)
            await connection.die(1011)
        else:
            await connection.say(" three four.")

    gemini.answer = answer
    gemini.on_connect = {2: Plan(delay=1.0)}.get
    async with (
        serving(a_relay(grace=30)) as port,
        Proxy(port) as network,
        Traveler(network.port, audio=False) as one,
    ):
        await one.say("count", "q")
        await one.greeted()
        await gemini.wait_for(lambda: gemini.connects == 2)
        network.lines[0].cut()
        await one.greeted()
        frames = await one.until(lambda said: said.get("state") == "live")
        states = [said["state"] for said in frames if said.get("type") == "status"]
        assert states == ["reconnecting", "live"]
        await one.until(is_end)
        assert one.words == "One two three four."
        assert (one.count("interrupted"), one.count("turn_complete")) == (1, 1)
