"""The short way of sound takes a frame only if google-genai would find the same sound in it, and no more."""

from __future__ import annotations

import base64
import json
from random import Random
from typing import Any

import pytest
from google.genai import Client, types
from google.genai.live import AsyncSession

from adk_relay.adk.sound import SoundSocket
from adk_relay.core.messages import Message, TurnEnd
from support.gemini import Connection, GeminiLive, UserTurn
from support.sound import Seen, Way, attending, relay_of, timeless
from support.turns import parts, sound_part

PCM = Random(3).randbytes(960)
DATA = base64.b64encode(PCM).decode()
assert {"+", "/"} <= {*DATA}


def with_data(data: Any) -> str:
    return json.dumps(parts({"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": data}}))


def of_type(mime_type: str) -> str:
    return json.dumps(parts(sound_part(PCM, mime_type)))


def nested(depth: int) -> str:
    return '{"serverContent":' + "[" * depth + "]" * depth + "}"


WHOLE = parts(sound_part(PCM))
FRAMES: dict[str, str | bytes] = {
    # Sound, in another form.
    "compact": json.dumps(WHOLE, separators=(",", ":")),
    "pretty": json.dumps(WHOLE, indent=2),
    "binary": json.dumps(WHOLE, indent=2).encode(),
    "tabs and lines at the ends": "\n\t " + json.dumps(WHOLE, indent="\t") + "\r\n",
    "escaped slashes": json.dumps(WHOLE).replace("/", "\\/"),
    "escaped letters": json.dumps(WHOLE).replace("A", "\\u0041"),
    "utf-8 with a mark": b"\xef\xbb\xbf" + json.dumps(WHOLE).encode(),
    "utf-16": json.dumps(WHOLE).encode("utf-16"),
    "another order of keys": json.dumps(parts({"inlineData": {"data": DATA, "mimeType": "audio/pcm"}})),
    "no role": json.dumps({"serverContent": {"modelTurn": {"parts": [sound_part(PCM)]}}}),
    "the user's role": json.dumps(parts(sound_part(PCM), role="user")),
    "snake case": json.dumps(WHOLE).replace("inlineData", "inline_data"),
    "one byte": json.dumps(parts(sound_part(b"x"))),
    "an odd number of bytes": json.dumps(parts(sound_part(PCM + b"x"))),
    "more than a message takes": json.dumps(parts(sound_part(PCM * 60))),
    "no rate": of_type("audio/pcm"),
    "16 kHz": of_type("audio/pcm;rate=16000"),
    "a space in the type": of_type("audio/pcm; rate=24000"),
    "capitals in the type": of_type("AUDIO/PCM;rate=24000"),
    "mp3": of_type("audio/mp3"),
    "no type": json.dumps(parts({"inlineData": {"data": DATA}})),
    # Base64 that is not.
    "url-safe": with_data(base64.urlsafe_b64encode(PCM).decode()),
    "line breaks in the data": with_data(base64.encodebytes(PCM).decode()),
    "no padding": with_data(base64.b64encode(PCM + b"x").decode().rstrip("=")),
    "too much padding": with_data(DATA + "="),
    "padding in the middle": with_data("QUI=" + DATA),
    "bits behind the end": with_data("QUJ="),
    "no base64": with_data("!" * 96),
    "no ascii": with_data("ä" * 96),
    "half a surrogate pair": with_data(DATA + "\ud800"),
    "no data": json.dumps(parts({"inlineData": {"mimeType": "audio/pcm;rate=24000"}})),
    "empty data": with_data(""),
    "null for data": with_data(None),
    "a number for data": with_data(7),
    # Sound, and more.
    "a thought": json.dumps(parts(sound_part(PCM, thought=True))),
    "no thought": json.dumps(parts(sound_part(PCM, thought=False))),
    "a name": json.dumps(parts({"inlineData": {**sound_part(PCM)["inlineData"], "displayName": "x"}})),
    "two parts": json.dumps(parts(sound_part(PCM), sound_part(PCM))),
    "a text": json.dumps(parts(sound_part(PCM), {"text": "hello"})),
    "a transcript": json.dumps(parts(sound_part(PCM), outputTranscription={"text": "hello"})),
    "interrupted": json.dumps(parts(sound_part(PCM), interrupted=True)),
    "usage": json.dumps({**WHOLE, "usageMetadata": {"totalTokenCount": 3}}),
    "a field that nobody knows": json.dumps({**WHOLE, "whatIsThis": 1}),
    "the data twice": json.dumps(WHOLE).replace('"data":', f'"data": "{"QUJD" * 32}", "data":'),
    "the sound twice": json.dumps(WHOLE).replace('"data":', f'"data": "{DATA}", "data":'),
    # No sound.
    "no parts": json.dumps(parts()),
    "an empty part": json.dumps(parts({})),
    "an image": of_type("image/png"),
    "a text alone": json.dumps(parts({"text": "hello"})),
    "no JSON": "hello",
    "half a frame": json.dumps(WHOLE)[:-3],
    "nothing": "",
    "an empty object": "{}",
    "a list": "[]",
    "a number": "7",
    "very deep": nested(100_000),
}


async def told(gemini: GeminiLive, way: Way, frame: str | bytes) -> list[Message]:
    """What a listener gets of a frame between two chunks of sound."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection is gemini.connections[first]:
            await connection.send_audio(2)
            await connection.send_raw(frame)
        await connection.send_audio(1)
        await connection.send({"serverContent": {"outputTranscription": {"text": "end"}}})
        await connection.turn_complete()

    first = len(gemini.connections)
    gemini.answer = answer
    async with attending(relay_of(way)) as alice:
        alice.ask("hello")
        await alice.until(lambda message: isinstance(message, TurnEnd) and not message.goes_on)
        return timeless(alice.messages)


@pytest.mark.parametrize("name", FRAMES)
async def test_any_frame_is_the_same_on_both_ways(
    gemini: GeminiLive, quick_retries: None, seen: Seen, name: str
) -> None:
    assert await told(gemini, "short", FRAMES[name]) == await told(gemini, "long", FRAMES[name])


class Wire:
    """A socket that receives these frames."""

    def __init__(self, *frames: bytes) -> None:
        self._frames = [*frames]

    async def recv(self, **options: Any) -> bytes:
        return self._frames.pop(0)


class Ear:
    """Gets the sound that takes the short way."""

    under_way = 0

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def hear(self, pcm: bytes) -> None:
        self.heard.append(pcm)


def changed(random: Random, frame: bytes) -> bytes:
    """A frame with some random changes."""
    pieces = [b'"', b"=", b"A", b",", b"}", b"{", b"\\", b"\n", b"/", b"null", b'"text": "a", ', b"\xff"]
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(frame))
        if random.random() < 0.5:  # near the ends, where the keys are
            at = random.choice([at % 120, len(frame) - 1 - at % 40])
        cut = random.choice([0, 0, 1, 1, 2, 7])
        frame = frame[:at] + random.choice([b"", *pieces]) + frame[at + cut :]
    return frame


@pytest.mark.parametrize("vertex", [False, True])
async def test_what_takes_the_short_way_is_what_google_genai_finds(vertex: bool) -> None:
    """Thousands of frames with random changes, each after a frame whose form it may share."""
    client: Any = Client(vertexai=vertex, api_key="a-key")._api_client
    random = Random(5)
    taken = 0
    for _ in range(4000):
        pcm = random.randbytes(random.choice([30, 48, 49, 50]))
        before = json.dumps(parts(sound_part(pcm)), indent=random.choice([None, 2])).encode()
        frame = changed(random, before)
        ear = Ear()
        socket: Any = SoundSocket(Wire(before, frame, b"end"), _never, ear, _never)  # type: ignore[arg-type]
        await socket.recv()
        assert ear.heard[0] == pcm
        if len(ear.heard) == 2:
            taken += 1
            session = AsyncSession(client, Wire(frame))  # type: ignore[arg-type]
            message = await session._receive()
            blob = types.Blob(data=ear.heard[1], mime_type="audio/pcm;rate=24000")
            assert blob.data
            assert message.model_dump(exclude_none=True) == _only(blob).model_dump(exclude_none=True)
    assert 100 < taken < 4000


def _never(*_: Any) -> Any:
    raise AssertionError


def _only(blob: types.Blob) -> types.LiveServerMessage:
    content = types.Content(role="model", parts=[types.Part(inline_data=blob)])
    return types.LiveServerMessage(server_content=types.LiveServerContent(model_turn=content))
