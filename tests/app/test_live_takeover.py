"""The live dialect: the page of ADK's sample, newer sockets that take over, and users who come back."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support.client import Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.live import answered, encoded
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.voice, pytest.mark.bus]


# ---- the sample's own page -----------------------------------------------------------------


class SamplePage:
    """ADK's custom-streaming page as a client.

    It opens `/ws/<digits>?is_audio=…` with no subprotocol, opens a second socket when audio is
    started without closing the first, reconnects whatever is closed, and answers no ping.
    """

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/ws/{1718000000123}?is_audio="
        self.shown = ""
        self.played = b""
        self.turns = 0
        self.opened = 0
        self.changed = asyncio.Event()
        self.sockets: dict[bool, ClientConnection] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, *, is_audio: bool) -> None:
        self._tasks.append(asyncio.create_task(self._live(is_audio)))
        await self.until(lambda: is_audio in self.sockets)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
            await asyncio.wait([task])

    async def _live(self, is_audio: bool) -> None:
        while True:
            async with connect(self.url + str(is_audio).lower(), proxy=None) as socket:
                self.opened += 1
                self.sockets[is_audio] = socket
                self.changed.set()
                try:
                    async for frame in socket:
                        self._on_message(json.loads(frame))
                except ConnectionClosed:
                    pass

    def _on_message(self, message: Json) -> None:
        if message.get("turn_complete") or message.get("interrupted"):
            self.turns += 1
        elif message.get("mime_type") == "audio/pcm":
            self.played += base64.b64decode(message["data"])
        elif message.get("mime_type") == "text/plain":
            self.shown += message["data"]
        self.changed.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def say(self, is_audio: bool, mime_type: str, data: str) -> None:
        await self.sockets[is_audio].send(json.dumps({"mime_type": mime_type, "data": data}))


@asynccontextmanager
async def sample_page(port: int) -> AsyncIterator[SamplePage]:
    page = SamplePage(port)
    try:
        await page.open(is_audio=False)
        yield page
    finally:
        await page.close()


async def test_the_samples_page_says_nothing_twice(gemini: GeminiLive) -> None:
    async with serving(a_relay(ping_interval=0.05, pong_timeout=0.05)) as port, sample_page(port) as page:
        await page.say(False, "text/plain", "hello")
        await page.until(lambda: page.turns == 1)
        assert page.shown == "You said: hello."
        # Start audio: another socket of the same user, the first one stays.
        await page.open(is_audio=True)
        pcm = speech(600) + silence(400)
        for start in range(0, len(pcm), 256):
            await page.say(True, "audio/pcm", encoded(pcm[start : start + 256]))
        await page.until(lambda: page.turns == 2)
        assert page.shown == "You said: hello.I heard you."
        assert page.played == gemini.connections[0].sound[-len(page.played) :]
        assert len(page.played) == 3 * 2 * 1920
        # What is typed now goes over the first socket, and is answered on the second.
        await page.say(False, "text/plain", "more")
        await page.until(lambda: page.turns == 3)
        assert page.shown == "You said: hello.I heard you.You said: more."
        assert page.opened == 2  # no socket was closed: the two do not replace each other again and again
    assert gemini.connects == 1


# ---- takeover, and coming back ---------------------------------------------------------------


async def test_a_newer_socket_takes_the_conversation_over(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            await go_on.wait()
            await connection.say(" three.")
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port, subprotocol=False) as older:
        await older.say("count")
        await older.until(lambda said: said.get("data", "").endswith("two"))
        async with client(port, subprotocol=False) as newer, client(port, "bob") as other:
            assert newer.hello["seq"] >= older.frames[-1]["seq"]  # sound has numbers, too
            assert await older.next() == {"type": "status", "state": "elsewhere"}
            go_on.set()
            assert words(await newer.turn()) == " three."
            # The older socket may still send, and does not get the conversation back by that.
            await older.say("from the older")
            asked, *told = await newer.turn()
            assert (asked["type"], asked["role"], asked["text"]) == ("message", "user", "from the older")
            assert words(told) == "You said: from the older."
            assert await answered(older) == []
            assert await newer.ask("from the newer") == "You said: from the newer."
            assert await answered(older) == []
            assert await other.ask("hi") == "You said: hi."
    assert [connection.texts for connection in gemini.connections] == [
        ["count", "from the older", "from the newer"],
        ["hi"],
    ]


async def test_what_was_queued_for_the_older_socket_still_goes_to_it(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, subprotocol=False, audio=True, max_queue=1) as older:
        await older.say("word " * 500)
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said.count("word") == 500)
        async with client(port, subprotocol=False, audio=True) as newer:
            before = words(await older.until(lambda said: said.get("state") == "elsewhere"))
            rest = words(await newer.turn())
            said, sound = gemini.connections[0].said, bytes(gemini.connections[0].sound)
            # Sockets of two processes may both get what is told just then. Nobody misses anything.
            assert said.startswith(before) and said.endswith(rest) and len(before + rest) >= len(said)
            assert sound.startswith(older.audio) and sound.endswith(newer.audio)
            assert len(older.audio + newer.audio) >= len(sound)


async def test_the_older_socket_may_leave_and_nothing_changes(gemini: GeminiLive) -> None:
    async with (
        serving(a_relay()) as port,
        client(port, subprotocol=False) as older,
        client(port, subprotocol=False) as newer,
    ):
        await older.next()
        await older.socket.close()
        assert await newer.ask("hello") == "You said: hello."
    assert gemini.connects == 1


async def test_the_conversation_is_found_again_after_a_restart(gemini: GeminiLive, tmp_path: Path) -> None:
    sessions = f"sqlite:///{tmp_path}/in/a/folder/session.db"
    async with serving(a_relay(sessions=sessions)) as port, client(port) as alice:
        await alice.ask("my name is Alice")
        first = alice.hello
    async with serving(a_relay(sessions=sessions)) as port:
        async with client(port) as alice:
            assert alice.hello["session_id"] == first["session_id"]
            assert alice.hello["epoch"] != first["epoch"]
            assert alice.hello["seq"] == 0
            await alice.ask("what is my name?")
        async with client(port, "bob") as bob:
            await bob.ask("who am I?")
    known = [(who, said) for who, said in gemini.connections[1].context if who == "user"]
    assert known == [("user", "my name is Alice"), ("user", "what is my name?")]
    assert [said for who, said in gemini.connections[2].context if who == "user"] == ["who am I?"]


async def test_the_conversation_goes_on_when_the_user_comes_back_at_once(gemini: GeminiLive) -> None:
    """Also while the previous run is still ending, here because the model does not close its connection."""
    async with serving(a_relay()) as port:
        async with client(port) as alice:
            await alice.ask("one")
            gemini.connections[0].deafen()
        async with client(port) as alice:
            assert await alice.ask("two") == "You said: two."
        assert [said for who, said in gemini.connections[1].context if who == "user"] == ["one", "two"]
