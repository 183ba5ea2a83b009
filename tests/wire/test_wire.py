"""What goes over the wire, from both sides, on a real socket."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.adk.agents import LlmAgent
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, serving

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


pytestmark = pytest.mark.usefixtures("no_errors")


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def close_of(who: Client) -> tuple[int, str]:
    """How the server closes the socket; what comes before is in `who.frames`."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await who.next()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def answered(who: Client) -> list[Json]:
    """All that was sent before the answer to a ping; so the relay has taken all that `who` said."""
    await who.send(type="ping")
    return (await who.until(lambda said: said.get("type") == "pong"))[:-1]


# ---- what the server says ------------------------------------------------------------------


@pytest.mark.parametrize("audio", [False, True])
async def test_hello_comes_first_and_says_where_one_is(gemini: GeminiLive, audio: bool) -> None:
    async with serving(a_relay(ping_interval=7)) as port, client(port, "al.i-c_e~1", audio=audio) as alice:
        epoch = alice.hello.pop("epoch")
        assert isinstance(epoch, str) and epoch
        assert isinstance(alice.hello.pop("session_id"), str)
        assert alice.hello.pop("connection_id")
        assert alice.hello.pop("connections") == 1
        assert alice.hello == {
            "type": "hello",
            "user_id": "al.i-c_e~1",
            "model": "gemini-3.8-live",
            "rehearsal": False,
            "is_audio": audio,
            "ping_interval": 7,
            "seq": 0,
        }
        assert alice.socket.subprotocol == "relay.v1"


async def test_a_text_turn_has_words_and_no_sound(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello, Zoë 👋")
        frames = await alice.turn()
        assert words(frames) == "You said: hello, Zoë 👋."
        assert {said["mime_type"] for said in frames[:-1]} == {"text/plain"}
        assert all(said["is_transcript"] is True for said in frames[:-1])
        numbers = [said["seq"] for said in frames]
        assert numbers == sorted(set(numbers))
        assert frames[-1] == {"turn_complete": True, "interrupted": None, "seq": numbers[-1]}
        async with client(port) as later:
            assert later.hello["seq"] == numbers[-1]
            assert later.hello["epoch"] == alice.hello["epoch"]
    assert len(gemini.connections[0].sound) > 0


async def test_a_binary_voice_turn_brings_the_very_same_sound(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(400) + silence(400))
        frames = await alice.turn()
        numbers = [said["seq"] for said in frames]
        assert numbers == sorted(set(numbers))
        assert any(said.get("type") == "binary" for said in frames)
        assert not any(said.get("mime_type") == "audio/pcm" for said in frames)
        assert alice.audio == bytes(gemini.connections[0].sound)
        assert words(frames) == "I heard you."


async def test_a_client_without_the_subprotocol_gets_base64(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True, subprotocol=False) as alice:
        assert alice.socket.subprotocol is None
        await alice.send(mime_type="audio/pcm", data=encoded(speech(400) + silence(400)))
        frames = await alice.turn()
        sound = [said for said in frames if said.get("mime_type") == "audio/pcm"]
        assert b"".join(base64.b64decode(said["data"]) for said in sound) == gemini.connections[0].sound
        assert not any(said.get("type") == "binary" for said in frames)
        numbers = [said["seq"] for said in frames]
        assert numbers == sorted(set(numbers))


async def test_of_several_subprotocols_ours_is_chosen(gemini: GeminiLive) -> None:
    offered = [Subprotocol("relay.v9"), Subprotocol("relay.v1")]
    async with serving(a_relay()) as port:
        async with connect(f"ws://127.0.0.1:{port}/ws/a", subprotocols=offered, proxy=None) as socket:
            assert socket.subprotocol == "relay.v1"
        async with connect(f"ws://127.0.0.1:{port}/ws/a", subprotocols=offered[:1], proxy=None) as socket:
            assert socket.subprotocol is None
            assert json.loads(await socket.recv())["is_audio"] is False


async def test_the_users_words_are_told_in_pieces_and_whole(gemini: GeminiLive) -> None:
    agent = LlmAgent(name="tester", model="gemini-2.5-flash-native-audio-preview-12-2025")
    async with serving(a_relay(agent)) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(400) + silence(400))
        frames = await alice.turn()
    heard = [said for said in frames if said.get("type") == "transcript"]
    assert all(said["role"] == "user" for said in heard)
    assert [said["final"] for said in heard] == [False] * (len(heard) - 1) + [True]
    assert heard[-1]["text"] == "Hello there."
    # Each piece holds all that was heard so far.
    assert all(later["text"].startswith(said["text"]) for said, later in itertools.pairwise(heard))


# ---- what the client says ------------------------------------------------------------------


async def test_pictures_reach_the_service(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(mime_type="image/png", data=encoded(PNG))
        await alice.send(mime_type="image/jpeg", data=encoded(b"\xff\xd8 jpeg"))
        assert await alice.ask("what is this?") == "You said: what is this?."
    assert gemini.connections[0].images == [PNG, b"\xff\xd8 jpeg"]


async def test_the_end_of_sound_is_told_to_the_model(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(410))
        await alice.send(type="audio_end")
        assert words(await alice.turn()) == "I heard you."
    assert gemini.connections[0].audio_stream_ends == 1
    assert bytes(gemini.connections[0].audio) == speech(410)


async def test_another_rate_is_told_to_the_model(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        for mime_type in ("audio/pcm;rate=48000", "audio/pcm; rate=48000"):
            await alice.send(mime_type=mime_type, data=encoded(speech(200, 48_000)))
        await alice.send(type="audio_end")
        await alice.turn()
    assert gemini.connections[0].rates == {48_000}
    assert bytes(gemini.connections[0].audio) == speech(200, 48_000) * 2


async def test_a_binary_frame_is_sound_also_without_the_subprotocol(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port, audio=True, subprotocol=False) as alice:
        await alice.socket.send(speech(400))
        await alice.send(type="audio_end")
        assert words(await alice.turn()) == "I heard you."
    assert bytes(gemini.connections[0].audio) == speech(400)


async def test_short_frames_of_the_microphone_are_merged(gemini: GeminiLive) -> None:
    frames = 0

    async def counting(connection: Connection, body: Any) -> None:
        nonlocal frames
        frames += "audio" in body
        await take(connection, body)

    take = Connection._take_realtime
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "_take_realtime", counting)
        async with serving(a_relay()) as port, client(port, audio=True, subprotocol=False) as alice:
            pcm = speech(800) + silence(400)
            await gemini.connection()
            for start in range(0, len(pcm), 256):  # 8 ms
                await alice.send(mime_type="audio/pcm", data=encoded(pcm[start : start + 256]))
            await alice.turn()
    assert bytes(gemini.connections[0].audio) == pcm
    assert frames == 1200 // 40


async def test_a_ping_is_answered_with_a_pong(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(type="ping")
        assert await alice.next() == {"type": "pong"}
        await alice.send(type="pong")  # nobody asked
        assert await answered(alice) == []
    assert gemini.connects == 0


# ---- interrupt -----------------------------------------------------------------------------


@pytest.mark.parametrize("audio", [False, True])
async def test_an_interrupted_answer_is_not_delivered_any_more(gemini: GeminiLive, audio: bool) -> None:
    go_on = asyncio.Event()

    def look(where: str) -> str:
        """Looks."""
        return f"a cat in the {where}"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "again":
            await connection.say("Here I am.")
            return
        await connection.say("One two", complete=False)
        await go_on.wait()
        await connection.say(" three", complete=False)
        await connection.call_tool("look", {"where": "garden"})
        await connection.say(" four.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[look])
    async with serving(a_relay(agent)) as port, client(port, audio=audio) as alice:
        await alice.say("count")
        await alice.until(lambda said: said.get("data") == " two")
        await alice.send(type="interrupt")
        await alice.send(type="interrupt")
        before = await alice.turn()
        assert before[-1]["interrupted"] is True
        assert before[-1]["turn_complete"] is None
        go_on.set()
        await gemini.wait_for(lambda: "four" in gemini.connections[0].said)
        await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
        await alice.say("again")
        after = await alice.turn()
        assert words(after) == "Here I am."
        assert [said["type"] for said in after if "tool_id" in said] == ["tool_start", "tool_complete"]
        assert sum(bool(said.get("interrupted")) for said in alice.frames) == 1
        if audio:
            told = alice.audio
            assert len(told) < len(gemini.connections[0].sound)
            assert gemini.connections[0].sound.endswith(told[-2 * 3 * 1920 :])  # the next answer, whole
    assert gemini.connects == 1


async def test_an_interrupt_with_nothing_to_interrupt_says_nothing(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(type="interrupt")
        assert await alice.ask("hello") == "You said: hello."
        await alice.send(type="interrupt")
        assert await answered(alice) == []
        assert await alice.ask("hello") == "You said: hello."
        assert not any(said.get("interrupted") for said in alice.frames)


# ---- tools ---------------------------------------------------------------------------------


class Unfriendly:
    """No JSON, and not even a text."""

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


def _cycle() -> Json:
    cycle: Json = {"name": "cycle"}
    cycle["self"] = cycle
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    return deep


RESULTS: dict[str, Any] = {
    "a date": {"when": datetime(2024, 5, 1, tzinfo=UTC), "what": {1, 2}},
    "bytes": {"raw": b"\xff\x00", "text": b"abc"},
    "protobuf": {"at": Timestamp(seconds=1)},
    "bare protobuf": Timestamp(seconds=1),
    "no number": {"n": float("nan"), "m": float("inf")},
    "half a surrogate pair": {"s": "\ud800"},
    "cycle": _cycle(),
    "strange keys": {(1, 2): 3, None: 4, b"\xff": 5},
    "unfriendly": {"o": Unfriendly()},
    "deep": {"deep": _deep()},
    "class": {"class": object},
    "nothing": None,
}


@pytest.mark.parametrize("kind", RESULTS)
async def test_any_result_of_a_tool_is_shown(gemini: GeminiLive, kind: str) -> None:
    def anything(kind: str) -> Any:
        """Anything at all."""
        return RESULTS[kind]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await connection.call_tool("anything", {"kind": kind})
        await connection.say("Done.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[anything])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.say("go")
        start, complete, *rest = await alice.turn()
        assert start["type"] == "tool_start"
        assert start["tool_name"] == "anything"
        assert start["arguments"] == {"kind": kind}
        assert datetime.fromisoformat(start["timestamp"]).tzinfo
        assert complete["type"] == "tool_complete"
        assert complete["tool_id"] == start["tool_id"]
        assert "result" in complete
        assert words(rest) == "Done."
        assert await alice.ask("and now?") == "Done."
    assert gemini.connects == 1


async def test_a_large_result_is_cut_on_the_wire_only(gemini: GeminiLive) -> None:
    def read() -> str:
        """A book."""
        return "ß" * 200_000

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("read", {})
        await connection.say(f"{len(result['result'])} letters.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[read])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        assert await alice.ask("read it") == "200000 letters."
        complete = next(said for said in alice.frames if said.get("type") == "tool_complete")
        assert complete["truncated"] is True
        assert isinstance(complete["result"], str)
        assert 60_000 < len(complete["result"].encode()) <= 64 * 1024
        assert complete["result"].strip('{"result:').startswith("ßßß")
        assert "truncated" not in next(said for said in alice.frames if said.get("type") == "tool_start")


# ---- bad input -----------------------------------------------------------------------------

BIG_TEXT = "x" * (32 * 1024 + 1)

BAD_FRAMES: dict[str, tuple[str | bytes, str]] = {
    "not JSON": ("hello", "bad_message"),
    "empty": ("", "bad_message"),
    "half": ('{"type": "ping"', "bad_message"),
    "two": ('{"type":"ping"}{"type":"ping"}', "bad_message"),
    "a list": ('["type"]', "bad_message"),
    "a number": ("42", "bad_message"),
    "null": ("null", "bad_message"),
    "neither mime_type nor type": ('{"data": "hello"}', "bad_message"),
    "an unknown type": ('{"type": "dance"}', "bad_message"),
    "a type that is no string": ('{"type": {"ping": []}}', "bad_message"),
    "type null": ('{"type": null}', "bad_message"),
    "nested too deep": ('{"type": ' + "[" * 100_000 + "]" * 100_000 + "}", "bad_message"),
    "millions of little values": ('{"type": [' + "[]," * 1_000_000 + "[]]}", "too_large"),
    "objects nested too deep": ('{"a":' * 100_000 + "1" + "}" * 100_000, "bad_message"),
    "a huge number": ('{"type": ' + "9" * 10_000 + "}", "bad_message"),
    "an unknown mime_type": ('{"mime_type": "text/html", "data": "hello"}', "unsupported_mime_type"),
    "a mime_type that is no string": ('{"mime_type": ["text/plain"], "data": "a"}', "unsupported_mime_type"),
    "another sound": ('{"mime_type": "audio/ogg", "data": "AAAA"}', "unsupported_mime_type"),
    "an odd rate": ('{"mime_type": "audio/pcm;rate=1", "data": "AAA="}', "unsupported_mime_type"),
    "no data": ('{"mime_type": "text/plain"}', "bad_data"),
    "data null": ('{"mime_type": "text/plain", "data": null}', "bad_data"),
    "data a number": ('{"mime_type": "audio/pcm", "data": 1e400}', "bad_data"),
    "empty text": ('{"mime_type": "text/plain", "data": " \\n"}', "bad_data"),
    "half a surrogate pair": ('{"mime_type": "text/plain", "data": "\\ud800"}', "bad_data"),
    "not base64": ('{"mime_type": "audio/pcm", "data": "!!!!"}', "bad_data"),
    "base64 of another planet": ('{"mime_type": "audio/pcm", "data": "ÄÄÄÄ"}', "bad_data"),
    "base64 with a surrogate": ('{"mime_type": "audio/pcm", "data": "\\udfff"}', "bad_data"),
    "base64 without its end": ('{"mime_type": "audio/pcm", "data": "AAA"}', "bad_data"),
    "half a sample": ('{"mime_type": "audio/pcm", "data": "AAAA"}', "bad_data"),
    "no sound": ('{"mime_type": "audio/pcm", "data": ""}', "bad_data"),
    "no picture": ('{"mime_type": "image/png", "data": ""}', "bad_data"),
    "half a binary sample": (b"\0\0\0", "bad_data"),
    "an empty binary frame": (b"", "bad_data"),
    "too much text": (json.dumps({"mime_type": "text/plain", "data": BIG_TEXT}), "too_large"),
    "too many bytes of text": (
        json.dumps({"mime_type": "text/plain", "data": "ß" * (16 * 1024 + 1)}, ensure_ascii=False),
        "too_large",
    ),
    "too much sound": (
        json.dumps({"mime_type": "audio/pcm", "data": encoded(bytes(2**20 + 2))}),
        "too_large",
    ),
    "too much binary sound": (bytes(2**20 + 2), "too_large"),
    "too large a picture": (
        json.dumps({"mime_type": "image/png", "data": encoded(bytes(4 * 2**20 + 1))}),
        "too_large",
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_gets_an_error_and_the_conversation_goes_on(gemini: GeminiLive, name: str) -> None:
    frame, code = BAD_FRAMES[name]
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.socket.send(frame)
        error = await alice.next()
        assert error["type"] == "error"
        assert error["code"] == code
        assert 10 < len(error["message"]) < 200
        if code == "unsupported_mime_type":
            assert "audio/pcm" in error["message"]
        assert await alice.ask("still there?") == "You said: still there?."
    assert gemini.connections[0].texts == ["still there?"]


@pytest.mark.parametrize(
    "said",
    [
        {"mime_type": "text/plain", "data": "x" * (32 * 1024)},
        {"mime_type": "text/plain", "data": "a\u0000b"},
        {"mime_type": "text/plain", "data": "one", "more": 1, "type": "interrupt"},
        {"mime_type": "text/plain; charset=utf-8", "data": "one"},
    ],
)
async def test_what_is_just_good_is_taken(gemini: GeminiLive, said: Json) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.send(**said)
        assert words(await alice.turn(20)) == f"You said: {said['data']}."
    assert gemini.connections[0].texts == [said["data"]]


async def test_twenty_bad_frames_in_a_row_are_too_many(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        for _ in range(25):
            await alice.socket.send("nonsense")
        code, reason = await close_of(alice)
        assert code == 1008
        assert "bad frames" in reason
        assert [said["code"] for said in alice.frames] == ["bad_message"] * 20
        async with client(port) as again:
            assert await again.ask("hello") == "You said: hello."


async def test_a_good_frame_between_bad_ones_makes_up_for_them(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        for _ in range(2):
            for _ in range(19):
                await alice.socket.send("nonsense")
            await alice.send(type="ping")
            await alice.until(lambda said: said.get("type") == "pong")
        while sum("code" in said for said in alice.frames) < 38:  # a pong overtakes
            await alice.next()
        assert await alice.ask("hello") == "You said: hello."


async def test_a_frame_over_the_servers_own_limit_ends_the_socket(gemini: GeminiLive) -> None:
    async with serving(a_relay(), ws_max_size=100_000) as port, client(port) as alice:
        await alice.socket.send("x" * 100_001)
        assert (await close_of(alice))[0] == 1009


@pytest.mark.parametrize("code", [1007, 1009])
async def test_a_broken_frame_in_mid_answer_is_a_clean_end(
    gemini: GeminiLive, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it tells the 1007 by a traceback

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("word " * 20_000, words=False)

    gemini.answer = answer
    try:
        async with serving(a_relay(), ws_max_size=100_000) as port, client(port, audio=True) as alice:
            await alice.say("go")
            await alice.until(lambda said: said.get("type") == "binary")
            if code == 1009:
                await alice.socket.send("x" * 100_001)
            else:
                await alice.socket.send(b"\xff\xfe\xff", text=True)
            assert (await close_of(alice))[0] == code
            await gemini.wait_for(lambda: not gemini.open_connections)
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)


# ---- refusals ------------------------------------------------------------------------------

REFUSED = {
    "/ws/": "user_id",
    "/wss": "/ws/{user_id}",
    "/ws/alice?session_id=": "session_id",
    "/ws/alice?session_id=live-bob": "live-bob",
    "/ws/alice?after=": "after",
    "/ws/alice?after=x.y": "after",
    "/": "/ws/{user_id}",
    "/other/alice": "/ws/{user_id}",
    "/ws/alice/": "/ws/{user_id}",
    "/ws/a/b": "/ws/{user_id}",
    "/ws/" + "a" * 129: "user_id",
    "/ws/" + quote("../x", safe=""): "/ws/{user_id}",
    "/ws/" + quote("a b"): "user_id",
    "/ws/" + quote("a\n"): "user_id",
    "/ws/" + quote("é"): "user_id",
    "/ws/alice?is_audio=yes": "is_audio",
    "/ws/alice?is_audio=": "is_audio",
    "/ws/alice?is_audio=True": "is_audio",
    "/ws/alice?is_audio=%ff": "is_audio",
}


@pytest.mark.parametrize("path", REFUSED)
async def test_what_does_not_exist_is_refused_with_a_reason(gemini: GeminiLive, path: str) -> None:
    async with serving(a_relay()) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}{path}", proxy=None)
        assert refused.value.response.status_code == 404
        assert REFUSED[path] in refused.value.response.body.decode()
        # A browser could not see that; our own clients are told over the socket.
        async with connect(
            f"ws://127.0.0.1:{port}{path}", subprotocols=[Subprotocol("relay.v1")], proxy=None
        ) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4404
            assert REFUSED[path] in closed.value.rcvd.reason
    assert gemini.connects == 0


@pytest.mark.parametrize("user", ["a", "0", "a" * 128, "A-Z.a_z~9", "..", "%61lice"])
async def test_any_url_safe_user_is_taken(gemini: GeminiLive, user: str) -> None:
    async with serving(a_relay()) as port:
        url = f"ws://127.0.0.1:{port}/ws/{user}?other=1&is_audio=true&is_audio=false"
        async with connect(url, proxy=None) as socket:
            hello = json.loads(await socket.recv())
            assert hello["user_id"] == user.replace("%61", "a")
            assert hello["is_audio"] is False


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
        async with asyncio.timeout(10):
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
        assert page.opened == 2  # nobody was closed: the two do not fight
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
            assert newer.hello["seq"] >= older.frames[-1]["seq"]  # sound is counted, and not for it
            assert await older.next() == {"type": "status", "state": "elsewhere"}
            go_on.set()
            assert words(await newer.turn()) == " three."
            # The older one is still heard, and does not get the conversation back by that.
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
            frames = await older.until(lambda said: said.get("state") == "elsewhere")
            frames += await newer.turn()
            assert words(frames) == gemini.connections[0].said
            assert older.audio + newer.audio == bytes(gemini.connections[0].sound)


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
    """Also while the run of the time before still ends: here it takes its time to say goodbye."""
    async with serving(a_relay()) as port:
        async with client(port) as alice:
            await alice.ask("one")
            gemini.connections[0].deafen()
        async with client(port) as alice:
            assert await alice.ask("two") == "You said: two."
        assert [said for who, said in gemini.connections[1].context if who == "user"] == ["one", "two"]
