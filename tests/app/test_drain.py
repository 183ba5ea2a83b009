"""The stop of `relay serve`: answers under way come to their end, nothing begins, and clients come back."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from support.chat import chat
from support.client import Client, client, words
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.metrics import scraped_when
from support.ports import free_port
from support.process import PYTHON, SERVE, UVICORN, serving_warm
from support.raw import Peer
from support.terminal import connected

LONG = {"RELAY_DRAIN": "60"}


@pytest.fixture
def gate(gemini: GeminiLive) -> asyncio.Event:
    """The model says "One" and then waits for this before it goes on."""
    gate = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        await gate.wait()
        await connection.say(" two.")

    gemini.answer = answer
    return gate


async def closed(who: Client) -> int:
    """The code that a socket is closed with, after what still comes."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await who.next()
    assert closed.value.rcvd
    return closed.value.rcvd.code


async def test_an_answer_comes_to_its_end_and_nothing_begins(
    gemini: GeminiLive, gate: asyncio.Event, tmp_path: Path
) -> None:
    async with (
        serving_warm(SERVE, tmp_path, **gemini.env, **LONG) as relay,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{relay.port}", verify=False, timeout=60) as web,
    ):
        assert (await web.get("/ready")).status_code == 200
        async with client(relay.port) as alice, chat(relay.port) as bob:
            await alice.say("count")
            await alice.until(lambda said: said.get("mime_type"))
            stopping = asyncio.create_task(relay.stop())
            [*_, going] = await alice.until(lambda said: said.get("type") == "going_away")
            assert 0 < going["after"] <= 60
            await bob.get("going_away")

            body = {"session_id": "s", "message": "hello"}
            for refused in (await web.get("/ready"), await web.post("/api/v1/chat", json=body)):
                assert refused.status_code == 503
                assert 1 <= int(refused.headers["retry-after"]) <= 60
            for path, protocols in (("/ws", None), ("/ws/carol", [Subprotocol("relay.v1")])):
                with pytest.raises(InvalidStatus) as no:
                    async with connect(
                        f"ws://127.0.0.1:{relay.port}{path}", subprotocols=protocols, proxy=None
                    ):
                        pass
                assert no.value.response.status_code == 503
                assert "retry-after" in no.value.response.headers
            for path in ("/health", "/"):
                assert (await web.get(path)).status_code == 200

            gate.set()
            assert words(await alice.turn()) == " two."
            assert [await closed(alice), await closed(bob)] == [1012, 1012]
            assert await stopping == 0
        assert relay.problems() == []
    assert [connection.closed for connection in gemini.connections] == [1000]


async def test_an_answer_that_does_not_end_is_cut_after_the_time(
    gemini: GeminiLive, gate: asyncio.Event, tmp_path: Path
) -> None:
    """Also one over HTTP, which is told so."""
    async with (
        serving_warm(PYTHON, tmp_path, **gemini.env, RELAY_DRAIN="1") as relay,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{relay.port}", verify=False, timeout=60) as web,
        client(relay.port) as alice,
    ):
        body = {"session_id": "s", "message": "count"}
        asking = asyncio.create_task(web.post("/api/v1/chat", json=body))
        await alice.say("count")
        await alice.until(lambda said: said.get("mime_type"))
        await gemini.wait_for(lambda: sum(len(each.texts) for each in gemini.connections) == 2)
        began = time.monotonic()
        stopping = asyncio.create_task(relay.stop())
        assert await closed(alice) == 1012
        assert time.monotonic() - began >= 0.9
        cut = await asking
        assert (cut.status_code, cut.headers["retry-after"]) == (503, "1")
        assert await stopping == 0
        assert relay.problems() == []


async def test_speech_and_a_slow_reader_are_waited_for_and_an_upload_is_dropped(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        for _ in range(40 if turn.text else 0):
            await connection.say("x" * 20_000, complete=False)
        await connection.say("The end.")

    gemini.answer = answer
    set_ = {**LONG, "RELAY_QUEUE_BYTES": "4000000", "RELAY_METRICS_PORT": str(metrics := free_port())}
    async with (
        serving_warm(SERVE, tmp_path, **gemini.env, **set_) as relay,
        client(relay.port, audio=True) as alice,
        Peer.upgraded(relay.port, "bob") as slow,
        Peer.connected(relay.port) as upload,
    ):
        await upload.send_raw(
            b"POST /api/v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nhalf"
        )
        await slow.send(mime_type="text/plain", data="go")
        await scraped_when(metrics, lambda now: now['relay_turns_total{end="complete"}'] == 1)
        await alice.socket.send(speech(400))
        await gemini.wait_for(lambda: any(each.audio for each in gemini.connections))
        stopping = asyncio.create_task(relay.stop())
        await alice.until(lambda said: said.get("type") == "going_away")
        await alice.socket.send(speech(400) + silence(900))
        assert words(await alice.turn()) == "The end."
        assert await closed(alice) == 1012
        await asyncio.sleep(0.5)  # uvicorn's own stop looks every 0.1 s whether it may begin
        *_, last, end = [frame for frame in await slow.rest() if frame.get("type") != "going_away"]
        assert last["turn_complete"]
        assert (end["type"], end["code"]) == ("close", 1012)
        assert await upload.ended() == b""
        assert await stopping == 0
        assert relay.problems() == []


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_a_second_signal_ends_it_at_once(
    gemini: GeminiLive, gate: asyncio.Event, tmp_path: Path, again: signal.Signals
) -> None:
    async with (
        serving_warm(SERVE, tmp_path, **gemini.env, **LONG) as relay,
        client(relay.port) as alice,
    ):
        await alice.say("count")
        await alice.until(lambda said: said.get("mime_type"))
        stopping = asyncio.create_task(relay.stop())
        await alice.until(lambda said: said.get("type") == "going_away")
        assert await relay.stop(again) == 0  # it waits for 20 s, not for 60
        assert await stopping == 0
        assert await closed(alice) == 1012
        assert relay.problems() == []


async def test_the_terminal_client_comes_back_with_nothing_missing(tmp_path: Path) -> None:
    port = free_port()
    command = [*SERVE[:-1], str(port)]
    folder = tmp_path / "server"
    folder.mkdir()
    async with serving_warm(command, folder, **LONG) as relay:
        async with connected(port, tmp_path) as person:
            text = " ".join(f"w{n}" for n in range(12))
            await person.says(text)
            await person.sees("You said: w0")
            assert await relay.stop() == 0
            await person.sees("The server is about to stop")
            await person.sees("w11(?s:.*)w11")  # the question, and the answer
            await person.sees(r"The connection was lost \(1012")
            await person.says("and now?")
            async with serving_warm(command, folder):
                await person.sees("Connected again")
                await person.sees(r"You said: and now\?")
                assert len(re.findall(r"\bw5\b", person.sight)) == 2
                assert await person.leaves() == 0
        assert [line for line in relay.problems() if "rehearsal agent" not in line] == []


async def test_plain_uvicorn_cuts_the_answer_and_clients_come_back(
    gemini: GeminiLive, gate: asyncio.Event, tmp_path: Path
) -> None:
    """What docs/production.md says is lost."""
    async with (
        serving_warm(UVICORN, tmp_path, **gemini.env, **LONG) as relay,
        client(relay.port) as alice,
    ):
        await alice.say("count")
        await alice.until(lambda said: said.get("mime_type"))
        await relay.stop()
        assert await closed(alice) == 1012
        assert not any(said.get("type") == "going_away" for said in alice.frames)
        assert relay.problems() == []
