"""The live dialect: bad frames, and addresses that are refused."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.client import Json, client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.live import close_of, encoded
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("no_errors")


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
    "nested deeper than is stored": (
        '{"type": "configure", "tools": [{"name": "a", "parameters": {"b": ' + "[" * 500 + "]" * 500 + "}}]}",
        "bad_message",
    ),
    "a number that no float holds": (
        '{"type": "configure", "temperature": 1' + "0" * 400 + "}",
        "bad_message",
    ),
    "a number that is infinite": ('{"type": "tool_result", "tool_id": "a", "result": 1e400}', "bad_message"),
    "no number": ('{"type": "tool_result", "tool_id": "a", "result": NaN}', "bad_message"),
    "a huge number in the state": (
        '{"mime_type": "text/plain", "data": "a", "state_delta": {"a": ' + "9" * 400 + "}}",
        "bad_message",
    ),
    "a huge number": ('{"type": ' + "9" * 10_000 + "}", "bad_message"),
    "an unknown mime_type": ('{"mime_type": "text/html", "data": "hello"}', "unsupported_mime_type"),
    "a mime_type that is no string": ('{"mime_type": ["text/plain"], "data": "a"}', "unsupported_mime_type"),
    "another sound": ('{"mime_type": "audio/ogg", "data": "AAAA"}', "unsupported_mime_type"),
    "an odd rate": ('{"mime_type": "audio/pcm;rate=1", "data": "AAA="}', "unsupported_mime_type"),
    "no data": ('{"mime_type": "text/plain"}', "bad_data"),
    "data null": ('{"mime_type": "text/plain", "data": null}', "bad_data"),
    "data a number": ('{"mime_type": "audio/pcm", "data": 1e40}', "bad_data"),
    "milliseconds that are none": ('{"type": "heard", "audio_ms": true}', "bad_data"),
    "milliseconds below zero": ('{"type": "heard", "audio_ms": -1}', "bad_data"),
    "a seq that is none": ('{"type": "heard", "audio_ms": 0, "seq": true}', "bad_data"),
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
        assert words(await alice.turn()) == f"You said: {said['data']}."
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
        while sum("code" in said for said in alice.frames) < 38:  # a pong overtakes errors that wait
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
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # uvicorn logs a 1007 with a traceback

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
        # A browser can't see a status; clients of relay.v1 get a close code.
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
