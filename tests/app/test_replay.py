"""A dropped socket loses nothing: whatever is cut, wherever, the client ends with all of it, once."""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import json
import logging
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import pytest
from app.test_process import PYTHON, serving_process
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.sessions import InMemorySessionService, Session
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.typing import Subprotocol
from wire.test_http import ask

from adk_relay.core.room import Room
from relay import Relay
from support.chat import chat, created
from support.client import Json, client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, tone
from support.proxy import Cut, Proxy
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("no_errors")

Done = Callable[[Json], Any]

CHUNK = len(tone(0))
"""Bytes of sound in one of the model's messages."""


# ---- a client that comes back ----------------------------------------------------------------


@dataclass
class Traveler:
    """A client on a bad network. It remembers the epoch and the last number it has got, comes back
    after each drop with `after=`, and sends a text again until it is acked.

    It takes nothing on trust: a number that is not above the last one is a failure, whatever it numbers.
    """

    port: int
    user: str = "alice"
    audio: bool = True
    binary: bool = True
    session_id: str = ""
    epoch: str = ""
    seq: int = 0
    said: list[Json] = field(default_factory=list)
    """What is numbered, in order, since the last gap."""
    notices: list[Json] = field(default_factory=list)
    """What is not, but for presence."""
    lines: list[Json] = field(default_factory=list)
    """The whole texts that came with the last gap."""
    gaps: list[Json] = field(default_factory=list)
    hellos: list[Json] = field(default_factory=list)
    acks: list[str] = field(default_factory=list)
    owed: dict[str, str] = field(default_factory=dict)
    """Texts, by id, that were not acked yet."""
    ids: set[str] = field(default_factory=set)
    """Of all texts that were said."""
    frames: int = 0
    """How many have come over this connection."""
    dropped_after: list[str] = field(default_factory=list)
    """What it had got last over each connection that was lost."""
    _last: str = "nothing"
    _socket: ClientConnection | None = None
    _now: str = ""  # the epoch that the server numbers in
    _gap: list[Json] | None = None

    async def __aenter__(self) -> Traveler:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """Closes the socket as one should."""
        if self._socket:
            await self._socket.close()
            self._socket = None

    async def say(self, text: str, name: str) -> None:
        """Says a text with an id, now or as soon as there is a connection."""
        self.ids.add(name)
        self.owed[name] = text
        if self._socket:
            await self._tell(name)

    async def send(self, **said: Any) -> None:
        assert self._socket
        await self._socket.send(json.dumps(said))

    async def until(self, done: Done, timeout: float = 10) -> list[Json]:
        """All frames up to the first that is `done`, over as many connections as it takes."""
        got = []
        async with asyncio.timeout(timeout):
            while True:
                got.append(await self.next())
                if done(got[-1]):
                    return got

    async def next(self) -> Json:
        """The next frame; sound as a message of type `sound`."""
        while True:
            if not self._socket:
                await self._connect()
            assert self._socket
            try:
                frame = await self._socket.recv()
            except ConnectionClosed as closed:
                self._socket = None
                if closed.rcvd:
                    raise
                self.dropped_after.append(self._last)
                continue
            self.frames += 1
            said = _parsed(frame)
            self._last = said.get("type") or ("words" if said.get("mime_type") else "end")
            await self._take(said)
            return said

    async def greeted(self) -> Json:
        """Connects and returns the hello, or what came instead."""
        return (await self.until(lambda said: said.get("type") == "hello"))[-1]

    async def _connect(self) -> None:
        query = f"?is_audio={str(self.audio).lower()}"
        query += f"&session_id={self.session_id}" if self.session_id else ""
        query += f"&after={self.epoch}.{self.seq}" if self.epoch else ""
        subprotocols = [Subprotocol("relay.v1")] if self.binary else None
        self.frames = 0
        self._gap, self._last = None, "nothing"
        while not self._socket:
            with suppress(InvalidMessage, ConnectionError):  # cut in mid handshake
                self._socket = await connect(
                    f"ws://127.0.0.1:{self.port}/ws/{self.user}{query}",
                    subprotocols=subprotocols,
                    proxy=None,
                    compression=None,
                    max_queue=None,  # whoever waits to be asked is not slow
                )

    async def _tell(self, name: str) -> None:
        with suppress(ConnectionClosed):  # it is said again
            await self.send(mime_type="text/plain", data=self.owed[name], id=name)

    async def _take(self, said: Json) -> None:
        if self._gap is not None:
            self._gap.append(said)
            assert said["type"] == "message"
            assert "seq" not in said
            if len(self._gap) == self.gaps[-1]["messages"]:
                self._mend()
            return
        match said.get("type"):
            case "hello":
                assert self.frames == 1
                self.hellos.append(said)
                self._now = said["epoch"]
                if not self.epoch:
                    self.epoch, self.seq = said["epoch"], said["seq"]
                if said["epoch"] == self.epoch:
                    assert said["seq"] >= self.seq
                for name in self.owed:
                    await self._tell(name)
            case "gap":
                assert self.frames == 2, "a gap comes right after hello"
                self.gaps.append(said)
                self._gap = []
                if not said["messages"]:
                    self._mend()
            case "ack":
                self.acks.append(said["id"])
                self.owed.pop(said["id"], None)
            case "cleared" | "deleted":
                self.epoch, self.seq = self._now, _ = said["epoch"], said["seq"]
                self.said, self.lines = [], []
            case "ping":
                await self.send(type="pong")
            case "presence":
                pass
            case _ if "seq" in said:
                assert self._now == self.epoch, "of another epoch, and there was no gap"
                assert said["seq"] > self.seq, f"{said} after {self.seq}"
                self.seq = said["seq"]
                self.said.append(said)
            case _:
                self.notices.append(said)

    def _mend(self) -> None:
        """The gap is over: it takes the place of all there was."""
        assert self._gap is not None
        self.lines, self.said, self._gap = self._gap, [], None
        self.epoch, self.seq = self._now, self.gaps[-1]["to"]

    @property
    def words(self) -> str:
        return words(self.said)

    @property
    def sound(self) -> bytes:
        return b"".join(said["pcm"] for said in self.said if said.get("type") == "sound")

    def count(self, what: str) -> int:
        """How many of what is numbered have a type, or are `turn_complete` or `interrupted`."""
        return sum(said.get("type") == what or bool(said.get(what)) for said in self.said)

    @property
    def story(self) -> list[tuple[str, Any]]:
        """All that was said, in whatever pieces it came. Its own texts, which only come to one who
        was away, are left out; but they must not come twice."""
        own = Counter(said["id"] for said in self.said if said.get("id") in self.ids)
        assert not own or max(own.values()) == 1
        told = (_told(said) for said in self.said if said.get("id") not in self.ids)
        story: list[tuple[str, Any]] = []
        for kind, pieces in itertools.groupby(told, key=lambda one: one[0]):
            values = [value for _, value in pieces]
            if kind == "words":
                story.append((kind, "".join(values)))
            elif kind == "sound":
                story.append((kind, b"".join(values)))
            else:
                story += [(kind, value) for value in values]
        return story


def _parsed(frame: str | bytes) -> Json:
    if isinstance(frame, bytes):
        return {"type": "sound", "seq": int.from_bytes(frame[:4], "big"), "pcm": frame[4:]}
    said: Json = json.loads(frame)
    if said.get("mime_type") == "audio/pcm":
        return {"type": "sound", "seq": said["seq"], "pcm": base64.b64decode(said["data"])}
    return said


def _told(said: Json) -> tuple[str, Any]:
    match said:
        case {"type": "sound", "pcm": pcm}:
            return "sound", pcm
        case {"mime_type": "text/plain", "data": data}:
            return "words", data
        case {"type": "tool_start", "tool_name": name, "arguments": arguments}:
            return "tool_start", (name, arguments)
        case {"type": "tool_complete", "tool_name": name, "result": result}:
            return "tool_complete", (name, result)
        case {"type": "message", "role": role, "text": text}:
            return "message", (role, text)
        case {"turn_complete": complete, "interrupted": interrupted}:
            return "end", (complete, interrupted)
        case _:
            return "other", {key: said[key] for key in said if key != "seq"}


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


def is_interrupted(said: Json) -> bool:
    return bool(said.get("interrupted"))


def is_type(kind: str) -> Done:
    return lambda said: said.get("type") == kind


def is_ack(name: str) -> Done:
    return lambda said: said.get("type") == "ack" and said["id"] == name


def an_agent(*tools: Callable[..., Any]) -> LlmAgent:
    return LlmAgent(name="tester", model="gemini-3.8-live", tools=[*tools])


async def temperature(city: str) -> dict[str, Any]:
    """How warm it is."""
    return {"city": city, "celsius": 7}


async def long_answer(connection: Connection, turn: UserTurn) -> None:
    """Words, sound and a tool call: some 60 messages."""
    await connection.say(" ".join(f"before{n}" for n in range(10)), complete=False)
    await connection.call_tool("temperature", {"city": "Oslo"})
    await connection.say("".join(f" after{n}" for n in range(10)))


class Kind(TypedDict):
    """Of client."""

    audio: bool
    binary: bool


KINDS: dict[str, Kind] = {
    "binary": {"audio": True, "binary": True},
    "base64": {"audio": True, "binary": False},
    "text": {"audio": False, "binary": True},
}


async def uncut(port: int, *questions: str, audio: bool = True, binary: bool = True) -> list[tuple[str, Any]]:
    """The story of a client that nothing happens to."""
    async with Traveler(port, f"uncut-{audio}-{binary}", audio=audio, binary=binary) as one:
        await one.greeted()
        for text in questions or ("go",):
            await one.say(text, text)
            await one.until(is_end)
        assert len(one.hellos) == 1
        return one.story


async def emitted(
    relay: Relay, done: Callable[[Room], bool], user: str = "alice", timeout: float = 10
) -> None:
    """Until a user's conversation has come to something, whoever hears it."""
    async with asyncio.timeout(timeout):
        while not done((await relay.conversations.open(user)).room):
            await asyncio.sleep(0.002)


def is_over(room: Room) -> bool:
    """The agent has said something, and no answer is open."""
    return room.history.message_count > 1 and not room.history.is_answering


async def gone(relay: Relay) -> None:
    """Until there is no conversation in memory."""
    async with asyncio.timeout(10):
        while relay.conversations.active:
            await asyncio.sleep(0.002)


# ---- cuts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_after_any_message_loses_nothing_and_repeats_nothing(
    gemini: GeminiLive, kind: str
) -> None:
    gemini.answer = long_answer
    seen: set[str] = set()
    async with serving(a_relay(an_agent(temperature), grace=30)) as port, Proxy(port) as network:
        expected = await uncut(port, **KINDS[kind])
        for messages in itertools.count():
            network.cuts.append(Cut(messages=messages))
            at = len(network.lines)
            async with Traveler(network.port, f"user{messages}", **KINDS[kind]) as one:
                await one.say("go", "q")
                await one.until(is_end)
                assert one.story == expected
                assert one.owed.keys() <= {"q"}
                assert not one.gaps
                seen.update(one.dropped_after)
            if len(network.lines) == at + 1:
                break  # it was over before the cut
            assert len(network.lines) == at + 2
    # That is every boundary, unless the answer went out in a few frames only.
    assert messages > (60 if KINDS[kind]["audio"] else 20)
    assert seen >= {"nothing", "hello", "ack", "words", "tool_start", "tool_complete"}
    assert ("sound" in seen) is KINDS[kind]["audio"]


async def test_a_hundred_answers_on_a_network_that_fails_anywhere_at_any_time(gemini: GeminiLive) -> None:
    """In mid frame, in mid handshake, in mid question, several times an answer, and not always told."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await long_answer(connection, turn)
        else:
            await connection.say("Goodbye to you, too.")

    gemini.answer = answer
    dice = random.Random(20)
    cuts = 0
    async with serving(a_relay(an_agent(temperature), grace=30)) as port:
        expected = {name: await uncut(port, "go", "bye", **kind) for name, kind in KINDS.items()}
        for number in range(100):
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
    assert cuts > 200
    # Whatever was sent again was said once.
    assert [connection.texts for connection in gemini.connections] == [["go", "bye"]] * 103


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_comes_back_before_its_loss_is_noticed(gemini: GeminiLive, kind: str) -> None:
    """The network was pulled: nobody told the server, which still writes to the socket from before."""
    gemini.answer = long_answer
    async with serving(a_relay(an_agent(temperature))) as port, Proxy(port) as network:
        expected = await uncut(port, **KINDS[kind])
        for messages in (3, 10, 17):
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
            # And one that stays away for long asks for what it has already.
            await one.leave()
            assert await told(port, f"&after={one.epoch}.{one.seq}") == []


# ---- in the middle of something --------------------------------------------------------------


@pytest.mark.parametrize("back", ["while it runs", "when all is over"])
async def test_a_drop_in_mid_tool_call(gemini: GeminiLive, back: str) -> None:
    released = threading.Event()

    def temperature(city: str) -> dict[str, Any]:
        """How warm it is; looked up while the thermometer allows it."""
        assert released.wait(10)
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


async def interruptible(connection: Connection, turn: UserTurn) -> None:
    if turn.text == "go":
        await connection.say("".join(f" {n}" for n in range(20)), complete=False)
        await asyncio.Event().wait()
    else:
        await connection.say("Yes?")


@pytest.mark.parametrize("by", ["itself", "its own words", "another"])
async def test_a_drop_while_the_answer_is_interrupted(gemini: GeminiLive, by: str) -> None:
    """The rest of its words comes, its sound does not, and it is told once that it was interrupted."""
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
    """Nothing is told, since there is nothing left to interrupt; but the sound is not replayed."""
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


# ---- what is no longer kept ------------------------------------------------------------------


def texts(*lines: str) -> list[Json]:
    """Whole texts as they are told after a gap: the user's and the agent's in turn."""
    roles = itertools.cycle(["user", "agent"])
    return [{"type": "message", "role": role, "text": text} for role, text in zip(roles, lines, strict=False)]


ONE_AND_TWO = texts("one", "You said: one.", "two", "You said: two.")
NAMED = [line | ({"id": line["text"]} if line["role"] == "user" else {}) for line in ONE_AND_TWO]
"""The same while it is known what their client has called them."""


def gap(first: int, last: int, lines: list[Json]) -> list[Json]:
    return [{"type": "gap", "from": first, "to": last, "messages": len(lines)}, *lines]


async def one_and_two(port: int) -> tuple[str, list[Json]]:
    """Two questions and their answers; the epoch, and all that others are told of them."""
    async with Traveler(port, audio=False) as one, Traveler(port, audio=False) as witness:
        await one.greeted()
        await witness.greeted()
        for text in ("one", "two"):
            await one.say(text, text)
            await one.until(is_end)
            await witness.until(is_end)
        return witness.epoch, witness.said


@pytest.mark.parametrize("kept", [{"replay_bytes": 2_000}, {"replay_bytes": 0}, {"replay_seconds": 0.2}])
async def test_what_is_no_longer_kept_is_told_in_whole_texts(
    gemini: GeminiLive, kept: dict[str, float]
) -> None:
    async with serving(a_relay(grace=30, **kept)) as port:
        epoch, said = await one_and_two(port)
        last = said[-1]["seq"]
        if "replay_seconds" in kept:
            await asyncio.sleep(0.25)
        for seq in (0, 1, last // 2, last - 1):
            told_ = await told(port, f"&after={epoch}.{seq}")
            if kept == {"replay_bytes": 2_000} and seq == last - 1:
                assert told_ == said[-1:]
            else:
                assert told_ == gap(seq + 1, last, NAMED)
        assert await told(port, f"&after={epoch}.{last}") == []


async def test_what_is_kept_for_some_time_is_replayed_until_then(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=30, replay_seconds=1)) as port:
        epoch, said = await one_and_two(port)
        last = said[-1]["seq"]
        assert await told(port, f"&after={epoch}.{last - 1}") == said[-1:]
        await asyncio.sleep(1)
        assert await told(port, f"&after={epoch}.{last - 1}") == gap(last, last, NAMED)


async def test_numbers_that_mean_nothing_here_are_a_gap(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=30)) as port:
        epoch, said = await one_and_two(port)
        last = said[-1]["seq"]
        everything = gap(1, last, NAMED)
        for after in ("0.0", f"another.{last}", f"{epoch}.{last + 1}", f"{last + 1}", f"{epoch}.{10**14}"):
            assert await told(port, f"&after={after}") == everything, after
        # And these do mean something.
        assert await told(port, "") == []
        for after in (f"{epoch}.{last}", f"{last}"):
            assert await told(port, f"&after={after}") == []
        for seq in (one["seq"] for one in said):
            rest = [one for one in said if one["seq"] > seq]
            for after in (f"{epoch}.{seq}", f"{seq}"):
                assert merged(await told(port, f"&after={after}")) == merged(rest)
        # Somebody else's conversation has another epoch.
        assert await told(port, f"&after={epoch}.{last}", user="bob") == gap(1, 0, [])


async def test_a_conversation_that_has_not_begun_is_an_empty_gap(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, Traveler(port, audio=False, epoch="0") as one:
        await one.say("hello", "q")
        await one.until(is_end)
        assert one.gaps == gap(1, 0, [])
        assert one.lines == []
        assert one.words == "You said: hello."


@pytest.mark.parametrize(
    "after",
    ["", "x", "-1", "1.5.2", ".1", "a.", "a.-1", "a.b", "a%20b.1", "a.1%0a", "1" * 16, "a" * 65 + ".1"],
)
async def test_an_after_that_is_none_is_refused(after: str) -> None:
    async with serving(a_relay()) as port:
        url = f"ws://127.0.0.1:{port}/ws/alice?after={after}"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == 404
        async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 4404
        assert "after" in closed.value.rcvd.reason


async def test_a_life_later_the_whole_texts_are_there(gemini: GeminiLive) -> None:
    """The grace has passed: what the session holds is another epoch."""
    relay = a_relay(grace=0.1)
    async with serving(relay) as port, Traveler(port) as one:
        await one.say("one", "q1")
        await one.until(is_end)
        before = one.epoch
        await one.leave()
        await gone(relay)
        await one.greeted()
        await one.say("two", "q2")
        await one.until(is_end)
        assert one.gaps == [{"type": "gap", "from": 1, "to": 0, "messages": 2}]
        assert one.lines == ONE_AND_TWO[:2]
        assert one.epoch != before
        assert one.words == "You said: two."
        assert one.said[0]["seq"] <= 3  # a new life's numbers begin with 1; its own text was one of them


async def test_a_cleared_conversation_is_another_epoch(gemini: GeminiLive) -> None:
    gemini.answer = interruptible
    async with serving(a_relay(grace=30)) as port:
        room: dict[str, Any] = {"user": "guest", "session_id": "a-room", "audio": False}
        async with Traveler(port, **room) as there, Traveler(port, **room) as away:
            await away.greeted()
            await there.say("go", "q")
            await there.until(lambda said: words([said]) == " 19")
            await away.until(lambda said: words([said]) == " 19")
            await away.leave()
            before = away.epoch
            assert (await ask(port, "/sessions/a-room/clear", "POST", Content_Length="0")).status == 200
            frames = await there.until(is_type("cleared"))
            assert sum(map(is_interrupted, frames)) == 1
            assert frames[-1] == {"type": "cleared", "epoch": there.epoch, "seq": 0}
            assert there.epoch != before
            await away.until(is_type("gap"))
            assert away.gaps == gap(1, 0, [])
            assert away.epoch == there.epoch
            # One goes on talking, and an id of before is none of now.
            await there.say("well", "q")
            await there.until(is_end)
            await away.until(is_end)
            assert there.words == away.words == "Yes?"
            assert [said["text"] for said in away.said if said.get("type") == "message"] == ["well"]
            assert there.owed == {}
            # What is replayed now is of now.
            again = await told(port, f"&session_id=a-room&after={there.epoch}.0", user="guest")
            assert merged(again) == [("message", ("user", "well")), *there.story]
        assert [one.context for one in gemini.connections if one.texts == ["well"]] == [
            [("user", "well"), ("model", "Yes?")]
        ]


async def test_of_what_is_too_long_for_a_gap_the_end_is_told(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            for number in range(80):
                await connection.send_text_parts(f"{number} ß".ljust(16_000, "."))
            await connection.turn_complete()
        else:
            await connection.say("Yes?")

    gemini.answer = answer
    async with serving(a_relay(grace=30)) as port, Traveler(port, audio=False) as one:
        await one.greeted()
        for question in ("go", "well"):
            await one.say(question, question)
            await one.until(is_end)
        whole = one.words.removesuffix("Yes?")
        assert len(whole) > 1024 * 1024
        _, *lines = await told(port, "&after=0.0")
        assert [line["role"] for line in lines] == ["user", "agent", "user", "agent"]
        assert whole.endswith(lines[1]["text"])
        assert 500_000 < len(lines[1]["text"]) < 525_000
        assert [line["text"] for line in lines[2:]] == ["well", "Yes?"]


@pytest.mark.parametrize("kept", [4_000_000, 3_000, 0])
async def test_whoever_comes_in_mid_answer_gets_each_character_once(gemini: GeminiLive, kept: int) -> None:
    """One comes at each moment of the answer, with nothing or with the beginning, and hears it to its end."""
    moments = 25
    step: asyncio.Queue[str] = asyncio.Queue()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        for _ in range(moments):
            await connection.say(await step.get(), complete=False)
        await connection.say(".")

    gemini.answer = answer
    relay = a_relay(grace=30, replay_bytes=kept)
    whole = "".join(f" [{n}]" for n in range(moments)) + "."
    async with serving(relay) as port, Traveler(port) as first, AsyncExitStack() as stack:
        await first.say("go", "q")
        await first.until(is_ack("q"))
        comers: list[Traveler] = []
        for moment in range(moments):
            for epoch in ("0", first.epoch):
                comer = Traveler(port, audio=moment % 2 == 0, epoch=epoch)
                comers.append(await stack.enter_async_context(comer))
                await comer.greeted()
            step.put_nowait(f" [{moment}]")
            await first.until(lambda said: words([said]))
            await first.until(is_type("sound"))
        for comer in [first, *comers]:
            await comer.until(is_end)
            assert everything(comer) == whole
            assert comer.lines[:1] in ([], [texts("go")[0] | {"id": "q"}])
            assert all(line["role"] == "agent" and line["open"] for line in comer.lines[1:])
        assert first.words == whole
        # Of those with the right epoch all, some or none were told of a gap.
        gaps = sum(bool(comer.gaps) for comer in comers[1::2])
        assert gaps == {4_000_000: 0, 0: moments}.get(kept, gaps)
        assert kept != 3_000 or 0 < gaps < moments
        assert all(len(comer.gaps) == 1 for comer in comers[::2])


async def test_many_who_come_while_the_agent_speaks_as_fast_as_it_can(gemini: GeminiLive) -> None:
    whole = "".join(f" [{n}]" for n in range(300))

    one_is_there = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(whole[:600], audio=False, complete=False)
        await one_is_there.wait()
        await connection.say(whole[600:], audio=False)

    gemini.answer = answer
    dice = random.Random(6)
    relay = a_relay(grace=30, replay_bytes=15_000)
    async with serving(relay) as port, Traveler(port, audio=False) as first:
        await first.greeted()

        async def comes(seconds: float, epoch: str) -> Traveler:
            await asyncio.sleep(seconds)
            async with Traveler(port, audio=False, epoch=epoch) as comer:
                await comer.until(lambda said: is_end(said) or _is_closed_answer(said))
                return comer

        await first.say("go", "q")
        coming = [
            asyncio.create_task(comes(dice.uniform(0, 0.2), epoch)) for epoch in ("0", first.epoch) * 30
        ]
        await first.until(lambda said: words([said]))
        coming.append(asyncio.create_task(comes(0, "0")))
        await first.until(is_type("presence"))
        one_is_there.set()
        await first.until(is_end)
        comers = await asyncio.gather(*coming)
    assert first.words == whole
    for comer in comers:
        assert everything(comer) == whole
    assert any(line.get("open") for comer in comers for line in comer.lines)


def _is_closed_answer(said: Json) -> bool:
    return said.get("type") == "message" and said["role"] == "agent" and not said.get("open")


def everything(one: Traveler) -> str:
    """What the agent has said by a client's knowledge, before a gap and after it."""
    return "".join(line["text"] for line in one.lines if line["role"] == "agent") + one.words


def merged(frames: list[Json]) -> list[tuple[str, Any]]:
    return Traveler(0, said=frames).story


async def told(port: int, query: str, user: str = "alice") -> list[Json]:
    """What a newcomer in text mode is told at once."""
    async with client(port, user, query=query) as newcomer:
        await newcomer.send(type="nothing that there is")  # the complaint about it waits its turn
        return (await newcomer.until(lambda said: said.get("code") == "bad_message"))[:-1]


# ---- texts with an id ------------------------------------------------------------------------


class Gated(InMemorySessionService):
    """Stores what the user says only when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    async def append_event(self, session: Session, event: Event) -> Event:
        if event.author == "user":
            self.asked.set()
            await self.gate.wait()
        return await super().append_event(session, event)

    async def stored(self) -> list[str]:
        """The user's texts in alice's session."""
        session = await self.get_session(app_name="relay", user_id="alice", session_id="live-alice")
        events = session.events if session else []
        return [_text(event) for event in events if event.author == "user"]


def _text(event: Event) -> str:
    parts = event.content.parts if event.content else None
    return (parts and parts[0].text) or ""


async def test_a_text_is_acked_when_it_is_stored_and_no_sooner(gemini: GeminiLive) -> None:
    sessions = Gated()
    async with serving(a_relay(sessions=sessions)) as port, Traveler(port) as one:
        await one.greeted()
        await one.say("hello", "q")
        await asyncio.wait_for(sessions.asked.wait(), 5)
        await one.send(type="nothing that there is")
        await one.until(lambda said: said.get("code") == "bad_message")
        assert one.acks == []
        assert await sessions.stored() == []
        sessions.gate.set()
        await one.until(is_type("ack"))
        assert await sessions.stored() == ["hello"]
        if not one.count("turn_complete"):
            await one.until(is_end)
        assert one.acks == ["q"]


async def test_a_text_that_comes_again_is_said_once_and_acked_each_time(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, Traveler(port) as one, client(port) as other:
        await one.greeted()
        for again in range(3):
            await one.say("hello", "q")
            await one.until(is_type("ack"))
            assert one.acks == ["q"] * (again + 1)
        # Whoever sends it: it is the name that counts. Another text of that name is not said, nor acked.
        await other.send(mime_type="text/plain", data="hello", id="q")
        await other.until(is_ack("q"))
        await other.send(mime_type="text/plain", data="something else", id="q")
        (error,) = [said for said in await other.until(is_type("error")) if said.get("type") == "error"]
        assert (error["code"], error["id"]) == ("bad_data", "q")
        await one.say("bye", "r")
        await one.until(lambda said: is_end(said) and one.words.endswith("bye."))
        assert gemini.connections[0].texts == ["hello", "bye"]
        await other.until(is_end)
        told_ = [said for said in other.frames if said.get("type") == "message"]
        assert [(said["id"], said["text"]) for said in told_] == [("q", "hello"), ("r", "bye")]


@pytest.mark.parametrize("stored", ["before it comes back", "after it has come back"])
async def test_a_text_whose_ack_was_lost_is_said_once(gemini: GeminiLive, stored: str) -> None:
    sessions = Gated()
    async with (
        serving(a_relay(sessions=sessions, grace=30)) as port,
        Proxy(port) as network,
        Traveler(network.port) as one,
    ):
        await one.greeted()
        await one.say("hello", "q")
        await asyncio.wait_for(sessions.asked.wait(), 5)
        network.lines[0].cut()
        if stored == "before it comes back":
            sessions.gate.set()
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        await one.greeted()  # and it sends it again
        sessions.gate.set()
        await one.until(is_ack("q"))
        if not one.count("turn_complete"):
            await one.until(is_end)
        assert one.words == "You said: hello."
        assert gemini.connections[0].texts == await sessions.stored() == ["hello"]
        # It is told of its own text, for it can't know that it had arrived, and knows it by the id.
        assert [said["id"] for said in one.said if said.get("type") == "message"] == ["q"]


async def test_a_text_that_never_arrived_is_said_when_it_is_sent_again(gemini: GeminiLive) -> None:
    async with serving(a_relay(grace=30)) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.greeted()
        network.lines[0].cut()
        await one.say("hello", "q")
        await one.until(is_end)
        assert one.acks == ["q"]
        assert gemini.connections[0].texts == ["hello"]


async def test_in_a_new_epoch_an_id_is_new(gemini: GeminiLive) -> None:
    relay = a_relay(grace=0)
    async with serving(relay) as port, Traveler(port) as one:
        for _ in range(2):
            await one.greeted()
            await one.say("hello", "q")
            await one.until(is_end)
            await one.leave()
            await gone(relay)
        assert [said for connection in gemini.connections for said in connection.texts] == ["hello"] * 2


@pytest.mark.parametrize("name", ["x" * 65, 5, None, ["q"], {}, True, "a\nb", "\ud800"])
async def test_an_id_that_is_none_is_refused(gemini: GeminiLive, name: Any) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(mime_type="text/plain", data="no", id=name)
        error = await alice.next()
        assert (error["type"], error["code"]) == ("error", "bad_data")
        assert "id" in error["message"]
        await alice.send(mime_type="text/plain", data="yes", id="x" * 64)
        await alice.until(is_ack("x" * 64))
        await alice.until(is_end)
        assert gemini.connections[0].texts == ["yes"]


async def test_many_texts_at_once_are_each_said_once_and_in_order(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.turn_complete()

    gemini.answer = answer
    names = [f"name {n}" for n in range(150)]
    async with serving(a_relay(grace=30)) as port, Proxy(port) as network:
        async with Traveler(network.port) as one:
            await one.greeted()
            for name in names:
                await one.say(f"text of {name}", name)
            await one.until(lambda said: len(one.acks) == 40)
            network.lines[0].cut()
            while one.owed:
                await one.next()
            assert len(one.hellos) == 2
            # An ack says that it is stored; it is sent right after.
            await gemini.wait_for(lambda: len(gemini.connections[0].texts) == len(names))
            assert gemini.connections[0].texts == [f"text of {name}" for name in names]
            # All of them again, as after a drop that took every ack.
            one.acks.clear()
            for name in names:
                await one.say(f"text of {name}", name)
            while one.owed:
                await one.next()
            assert one.acks == names
        assert len(gemini.connections[0].texts) == len(names)


async def test_a_text_that_waited_while_the_model_was_out_of_reach_is_said_when_it_comes_again(
    gemini: GeminiLive, quick_retries: None, caplog: pytest.LogCaptureFixture
) -> None:
    gemini.on_connect = lambda number: Plan(http_status=503) if number <= 5 else None
    async with serving(a_relay(grace=30)) as port, Traveler(port, audio=False) as one:
        await one.greeted()
        await one.say("hello", "q")
        with pytest.raises(ConnectionClosed) as closed:
            await one.until(is_end)
        assert closed.value.rcvd and closed.value.rcvd.code == 1011
        caplog.clear()  # that it was, is an error in the log
        await one.until(is_end)
        assert one.acks == ["q"]
        assert one.words == "You said: hello."
        assert gemini.connections[-1].texts == ["hello"]


class Full(InMemorySessionService):
    """A store that fails to store what the user says, so many times, and says when it begins to."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.storing = asyncio.Event()
        self.may = asyncio.Event()
        self.failures = failures

    async def append_event(self, session: Session, event: Event) -> Event:
        if event.author == "user":
            self.storing.set()
            await self.may.wait()
            if self.failures:
                self.failures -= 1
                raise OSError("the disk is full")
        return await super().append_event(session, event)


async def test_a_text_that_could_not_be_stored_at_the_end_is_said_when_it_comes_again(
    gemini: GeminiLive,
    quick_retries: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody comes back while it is tried, so the conversation lives on, and then the next run fails to."""
    monkeypatch.setattr("adk_relay.adk.runs._END_WAIT", 0.1)
    monkeypatch.setattr("adk_relay.adk.runs._LOOK_EVERY", 0.05)
    monkeypatch.setattr("adk_relay.adk.run._DEAF_AFTER", 0.5)
    gemini.on_connect = {1: Plan(hang="setup")}.get
    store = Full(failures=2)
    async with serving(a_relay(sessions=store)) as port:
        async with client(port) as alice:
            await alice.send(mime_type="text/plain", data="hello", id="q")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].setup)
            epoch = alice.hello["epoch"]
        await asyncio.wait_for(store.storing.wait(), 5)
        async with client(port) as alice:
            assert alice.hello["epoch"] == epoch
            store.may.set()
            await alice.send(mime_type="text/plain", data="hello", id="q")
            await alice.until(is_ack("q"))
            await alice.until(is_end)
            assert words(alice.frames) == "You said: hello."
            await alice.send(mime_type="text/plain", data="hello", id="q")
            await alice.until(is_ack("q"))
    assert [text for one in gemini.connections for text in one.texts] == ["hello"]
    gc.collect()  # asyncio complains of a failure that nobody has looked at when it is forgotten
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["alice: 1 texts could not be stored: the disk is full"]
    caplog.clear()


# ---- chat messages with an id ----------------------------------------------------------------


async def test_a_chat_message_is_acked_when_it_is_stored_and_no_sooner(gemini: GeminiLive) -> None:
    sessions = Gated()
    async with serving(a_relay(sessions=sessions)) as port:
        session_id = await created(port)
        async with chat(port, session_id) as one:
            await one.chat("hello", id="q")
            await asyncio.wait_for(sessions.asked.wait(), 5)
            await one.send(type="ping")
            await one.get("pong")
            assert [said["id"] for said in one.of("status")] == ["q"]
            assert not one.of("ack")
            sessions.gate.set()
            assert (await one.get("ack"))["id"] == "q"
            complete = await one.get("response_complete")
            assert (complete["id"], complete["full_response"]) == ("q", "You said: hello.")
            assert [said["id"] for said in one.of("response_start")] == ["q"]
            assert len(one.of("ack")) == 1


@pytest.mark.parametrize("when", ["while it waits", "before its first word", "in mid answer", "afterwards"])
async def test_a_chat_message_that_comes_again_through_another_socket_is_said_once(
    gemini: GeminiLive, when: str
) -> None:
    begin, go_on = asyncio.Event(), asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await begin.wait()
        await connection.say("You", complete=False)
        await go_on.wait()
        await connection.say(f" said: {turn.text}.")

    gemini.answer = answer
    relay = a_relay(grace=30)
    async with serving(relay) as port:
        session_id = await created(port)
        async with chat(port, session_id) as first, chat(port, session_id) as second:
            if when == "while it waits":
                await first.chat("before")
                await first.get("status")
            await first.chat("hello", id="q")
            assert (await first.get("status"))["id"] == "q"
            if when != "while it waits":
                await first.get("ack")
            if when in ("in mid answer", "afterwards"):
                begin.set()
                await second.until(lambda said: said.get("text") == "You")
            if when == "afterwards":
                go_on.set()
                assert (await second.get("response_complete"))["id"] == "q"

            at = len(second.frames)
            await second.chat("hello", id="q")
            if when == "while it waits":
                waits = await second.get("status")
                assert (waits["id"], "1 before" in waits["message"]) == ("q", True)
            else:
                assert (await second.get("ack"))["id"] == "q"
            await first.socket.close()
            await second.get("user_disconnected")
            begin.set()
            go_on.set()
            if when == "while it waits":
                assert "id" not in await second.get("response_complete")
                assert (await second.get("ack"))["id"] == "q"
            if when != "afterwards":
                complete = await second.get("response_complete")
                assert (complete["id"], complete["full_response"]) == ("q", "You said: hello.")
                assert second.of("response_start")[-1]["id"] == "q"
            if when in ("while it waits", "before its first word"):
                assert complete["connection_id"] == second.hello["connection_id"]
            await second.chat("bye", id="r")
            assert (await second.get("response_complete"))["full_response"] == "You said: bye."
            told_ = [said for said in second.frames[at:] if said["type"] == "response_complete"]
            assert [said.get("id") for said in told_] == {
                "while it waits": [None, "q", "r"],
                "afterwards": ["r"],
            }.get(when, ["q", "r"])
            before = ["before"] if when == "while it waits" else []
            assert gemini.connections[0].texts == [*before, "hello", "bye"]


# ---- the process is killed -------------------------------------------------------------------


async def test_killed_in_mid_answer_and_started_again(gemini: GeminiLive, tmp_path: Path) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go on":
            await connection.say("word " * 10_000, delay=0.01)
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    environment = {"RELAY_SESSIONS": f"sqlite:///{tmp_path}/kept/session.db", **gemini.env}
    async with Traveler(0) as one:
        async with serving_process(PYTHON, tmp_path, **environment) as relay:
            one.port = relay.port
            await one.greeted()
            for text in ("one", "two"):
                await one.say(text, f"id of {text}")
                await one.until(is_end)
            await one.say("go on", "id of go on")
            await one.until(is_ack("id of go on"))
            await one.until(is_type("sound"))
            assert await relay.stop(signal.SIGKILL) == -signal.SIGKILL
        before = one.epoch
        (tmp_path / "log").unlink()
        async with serving_process(PYTHON, tmp_path, **environment) as relay:
            one.port = relay.port
            while not one.gaps or len(one.lines) < one.gaps[-1]["messages"]:
                await one.next()
            assert one.gaps == [{"type": "gap", "from": 1, "to": 0, "messages": 5}]
            assert one.lines == [*ONE_AND_TWO, *texts("go on")]
            assert one.epoch != before
            await one.say("three", "id of three")
            await one.until(is_end)
            assert one.words == "You said: three."
            await one.leave()
            assert relay.problems() == []
    context = gemini.connections[-1].context
    assert context[:5] == [
        ("user", "one"),
        ("model", "You said: one."),
        ("user", "two"),
        ("model", "You said: two."),
        ("user", "go on"),
    ]
    assert context[-2:] == [("user", "three"), ("model", "You said: three.")]
    assert Counter(text for who, text in context if who == "user").most_common(1)[0][1] == 1


# ---- slow clients ----------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the server's sockets a small send buffer; the kernel's own takes megabytes on the loopback."""

    def create(address: tuple[str, int]) -> socket.socket:
        listener = create_server(address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        return listener

    create_server = socket.create_server
    monkeypatch.setattr("socket.create_server", create)


async def much_sound(connection: Connection, turn: UserTurn) -> None:
    await connection.say("Listen.", complete=False)
    await connection.send_audio(600)
    await connection.say(" That was it.")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "base64"])
async def test_a_slow_client_that_is_cut_between_merged_frames_goes_on_exactly(
    gemini: GeminiLive, narrow: None, binary: bool
) -> None:
    gemini.answer = much_sound
    relay = a_relay(grace=30, slow_timeout=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port, binary=binary) as one:
        expected = await uncut(port, binary=binary)
        network.cuts += [Cut(messages=40), *(Cut(messages=4) for _ in range(5))]
        await one.say("go", "q")
        await one.until(is_type("sound"))
        line = network.lines[0]
        line.hold()
        await emitted(relay, is_over)
        line.flow()
        await one.until(is_end)
        assert one.story == expected
        assert len(one.hellos) == 7
        # What waited went out merged, and what was replayed, too.
        sizes = [len(said["pcm"]) for said in one.said if said.get("type") == "sound"]
        assert max(sizes) > 2 * CHUNK


async def test_a_client_that_was_given_up_as_too_slow_comes_back_for_the_rest(
    gemini: GeminiLive, narrow: None
) -> None:
    gemini.answer = much_sound
    relay = a_relay(grace=30, slow_timeout=0.5)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.greeted()
        line = network.lines[0]
        line.hold()
        await one.say("go", "q")
        await emitted(relay, lambda room: is_over(room) and not room.listeners)
        line.flow()
        with pytest.raises(ConnectionClosed) as closed:
            await one.until(is_end)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "too slow")
        connection = gemini.connections[0]
        assert len(one.sound) < len(connection.sound)
        await one.until(is_end)
        assert one.sound == connection.sound
        assert one.words == connection.context[-1][1]
        assert not one.gaps
        assert not any(said.get("type") == "dropped" for said in one.notices)


async def test_a_client_whose_words_did_not_fit_comes_back_for_the_rest(
    gemini: GeminiLive, narrow: None
) -> None:
    pieces = [f"{n} ".ljust(8_000, ".") for n in range(200)]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        for piece in pieces:
            await connection.send_text_parts(piece)
        await connection.turn_complete()

    gemini.answer = answer
    relay = a_relay(grace=30, queue_bytes=50_000, slow_timeout=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.greeted()
        line = network.lines[0]
        line.hold()
        await one.say("go", "q")
        await emitted(relay, is_over)
        line.flow()
        with pytest.raises(ConnectionClosed) as closed:
            await one.until(is_end)
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "too slow")
        await one.until(is_end)
        assert one.words == "".join(pieces)
        assert not one.gaps


async def test_a_replay_is_larger_than_the_queue(gemini: GeminiLive, narrow: None) -> None:
    """It arrives whole, and what is said while it goes out does, too."""
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("Listen.", complete=False)
        await connection.send_audio(600)
        await go_on.wait()
        await connection.send_audio(10)
        await connection.say(" That was it.")

    gemini.answer = answer
    relay = a_relay(grace=30, queue_bytes=100_000, slow_timeout=30)
    async with serving(relay) as port, Proxy(port) as network, Traveler(network.port) as one:
        await one.say("go", "q")
        await one.until(is_ack("q"))
        network.lines[0].cut()
        await emitted(relay, lambda room: room.seq == 604)
        await one.greeted()
        network.lines[1].hold()
        go_on.set()
        await emitted(relay, is_over)
        network.lines[1].flow()
        await one.until(is_end)
        assert one.sound == gemini.connections[0].sound
        assert len(one.sound) > 10 * 100_000
        assert one.words == gemini.connections[0].said
        assert not any(said.get("type") == "dropped" for said in one.notices)
