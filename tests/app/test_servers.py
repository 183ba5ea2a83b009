"""The same relay under each ASGI server: what docs/production.md promises of all of them."""

from __future__ import annotations

import asyncio
import base64
import signal
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.client import client
from support.gemini import CHUNK_MS, Connection, GeminiLive, UserTurn, silence, speech, tone
from support.process import Process
from support.raw import Peer
from support.servers import SERVERS, served_by

pytestmark = pytest.mark.parametrize("server", SERVERS)

QUICK = {"RELAY_SLOW_TIMEOUT": "1", "RELAY_PING_INTERVAL": "1", "RELAY_PONG_TIMEOUT": "1", "RELAY_GRACE": "0"}


async def test_all_that_is_promised(server: str, gemini: GeminiLive, tmp_path: Path) -> None:
    async with served_by(server, tmp_path, **QUICK, **gemini.env) as relay:
        await text_and_pages(relay)
        await sound_both_ways(relay, gemini)
        await a_picture(relay)
        await a_refusal(server, relay)
        await a_stalled_reader(server, relay, gemini)
        await a_stop_in_mid_answer(server, relay, gemini, signal.SIGTERM)


async def test_ctrl_c_in_mid_answer(server: str, gemini: GeminiLive, tmp_path: Path) -> None:
    async with served_by(server, tmp_path, **QUICK, **gemini.env) as relay:
        await a_stop_in_mid_answer(server, relay, gemini, signal.SIGINT)


async def text_and_pages(relay: Process) -> None:
    async with client(relay.port) as alice:
        assert await alice.ask("hello") == "You said: hello."
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{relay.port}", verify=False) as http:
        assert (await http.get("/")).headers["content-type"] == "text/html; charset=utf-8"
        assert (await http.head("/static/app.js")).status_code == 200
        answer = await http.post("/api/v1/chat", json={"session_id": "s", "message": "hello"})
        assert answer.json()["content"] == "You said: hello."


async def sound_both_ways(relay: Process, gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_audio(10)
        await connection.turn_complete()

    gemini.answer = answer
    async with client(relay.port, audio=True) as alice:
        said = speech(400)
        for start in range(0, len(said), 1280):
            await alice.socket.send(said[start : start + 1280])
        await alice.socket.send(silence(600))
        await alice.turn()
        assert alice.audio == b"".join(tone(number) for number in range(10))
    assert said in bytes(gemini.connections[-1].audio)


async def a_picture(relay: Process) -> None:
    """The largest frame that a client may send."""
    picture = base64.b64encode(bytes(4 * 1024 * 1024)).decode()
    async with client(relay.port, ping_interval=None) as alice:
        await alice.send(mime_type="image/png", data=picture)
        await alice.send(type="ping")
        assert await alice.next() == {"type": "pong"}


async def a_refusal(server: str, relay: Process) -> None:
    url = f"ws://127.0.0.1:{relay.port}/nothing"
    async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as refused:
        with pytest.raises(ConnectionClosed) as closed:
            await refused.recv()
    why = "the paths are /ws/{user_id}, /ws, /api/v1/chat/stream, /v1/realtime and /twilio"
    is_daphne = server == "daphne"  # it sends no reasons
    assert closed.value.rcvd
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4404, "" if is_daphne else why)
    with pytest.raises(InvalidStatus) as status:
        await connect(url, proxy=None)
    assert status.value.response.status_code == (403 if is_daphne else 404)


async def a_stalled_reader(server: str, relay: Process, gemini: GeminiLive) -> None:
    """It costs nobody anything but itself: the others are answered, and it is closed."""
    flooded = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "flood":
            await connection.send_audio(60_000 // CHUNK_MS)
            flooded.set()
        await connection.say("Yes.")

    gemini.answer = answer
    async with Peer.upgraded(relay.port, "mallory", audio=True) as mallory:
        await mallory.send(mime_type="text/plain", data="flood")
        await asyncio.wait_for(flooded.wait(), 30)
        async with client(relay.port) as bob:
            assert await bob.ask("hello") == "Yes."
        # daphne's `send` never waits for it: it is closed because it answers no ping.
        why = "4410 no pong" if server == "daphne" else "1013 too slow"
        await relay.says(rf" mallory audio .* closed {why}")
    await gemini.wait_for(lambda: not gemini.open_connections)


CLOSES = {"hypercorn": 1001, "granian": None, "daphne": 4412}
"""The code that a client gets when the server stops; None: no close frame. With uvicorn it is 1012."""


async def a_stop_in_mid_answer(server: str, relay: Process, gemini: GeminiLive, how: signal.Signals) -> None:
    async def endless(connection: Connection, turn: UserTurn) -> None:
        await connection.say("word " * 10_000, delay=0.01)

    gemini.answer = endless
    async with client(relay.port, "carol") as carol:
        await carol.say("hello")
        await carol.until(lambda said: said.get("mime_type"))
        stopping = asyncio.create_task(relay.stop(how))
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await carol.next()
        code = closed.value.rcvd.code if closed.value.rcvd else None
        # daphne either cancels the application, which then sends its close, or tells it nothing.
        assert code == CLOSES.get(server, 1012) or (server, code) == ("daphne", None)
        # uvicorn raises the signal again when it has ended, and then takes Ctrl-C for a normal end.
        is_raised = server.startswith("uvicorn") and how is signal.SIGTERM
        assert await stopping == (-signal.SIGTERM if is_raised else 0)
    await gemini.wait_for(lambda: not gemini.open_connections)
    # daphne does not tell an application that it stops, so nobody closes the connection to the model.
    assert gemini.connections[-1].closed == (1006 if server == "daphne" else 1000)
    ends = sum(" carol text " in line and ", closed " in line for line in relay.log)
    assert ends == 1 or (server, ends) == ("daphne", 0)
