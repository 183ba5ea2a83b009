"""Workers that are killed, stopped or drained, while clients talk."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx

from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.pods import pods, worker
from support.process import SERVE, warm_relay
from support.redis_server import RedisServer, until


class Script:
    """A model that begins to answer, and goes on only with its second connection."""

    def __init__(self, gemini: GeminiLive) -> None:
        gemini.answer = self.answer

    async def answer(self, connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("The beginning", complete=False)
        else:
            await connection.say(" and the end.")


async def test_a_worker_is_killed_in_the_middle_of_an_answer(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    Script(gemini)
    async with (
        worker(redis, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web", "web") as (web, other),
        client(web.port) as writer,
        client(other.port) as reader,
    ):
        await writer.send(mime_type="text/plain", data="hello", id="1")
        for who in (writer, reader):
            await who.until(lambda said: "beginning" in str(said))
        async with worker(redis, gemini, tmp_path):
            owner.kill()
            for who in (writer, reader):
                await who.until(lambda said: said.get("state") == "reconnecting", 5)
            for who in (writer, reader):
                told = await who.until(lambda said: said.get("turn_complete"), 20)
                assert {"type": "status", "state": "live"} in told
                assert not any(said.get("type") in ("gap", "error") for said in told)
                numbers = [said["seq"] for said in who.frames if "seq" in said]
                assert numbers == sorted({*numbers})
            assert words(reader.frames).endswith("and the end.")
            await writer.say("again")
            for who in (writer, reader):
                await who.until(lambda said: said.get("turn_complete"))


async def test_a_worker_that_is_drained_gives_its_conversations_away(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """Nobody is told anything, and an answer under way comes to its end first."""
    may_go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"{turn.text}:", complete=False)
        await may_go_on.wait()
        await connection.say(" done.")

    gemini.answer = answer
    async with (
        worker(redis, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web", "web") as (web, other),
        client(web.port) as writer,
        client(other.port) as reader,
    ):
        await writer.say("first")
        await reader.until(lambda said: "first:" in str(said))
        async with worker(redis, gemini, tmp_path) as heir:
            stopping = asyncio.create_task(owner.stop())
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{owner.port}", verify=False) as http:

                async def is_draining() -> bool:
                    return (await http.get("/ready")).status_code == 503

                await until(is_draining)
            may_go_on.set()
            for who in (writer, reader):
                await who.until(lambda said: said.get("turn_complete"))
            assert await stopping == 0
            await writer.say("second")
            for who in (writer, reader):
                await who.until(lambda said: said.get("turn_complete"))
                kinds = {said.get("type") for said in who.frames}
                assert not kinds & {"status", "gap", "error"}, who.frames
                numbers = [said["seq"] for said in who.frames if "seq" in said]
                assert numbers == sorted({*numbers})
            assert heir.problems() == []
    assert gemini.connections[-1].texts[-1] == "second"


async def test_a_worker_that_stood_still_comes_back_late(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """Its conversation has another owner by then, and nobody hears of the first one."""
    Script(gemini)
    async with (
        worker(redis, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web") as (web,),
        client(web.port) as alice,
    ):
        await alice.say("hello")
        await alice.until(lambda said: "beginning" in str(said))
        async with worker(redis, gemini, tmp_path):
            owner.pause()
            await alice.until(lambda said: said.get("turn_complete"), 20)
            owner.go_on()
            await owner.says("has another owner")
            await alice.say("again")
            told = await alice.until(lambda said: said.get("turn_complete"))
            assert words(told) == " and the end."
            numbers = [said["seq"] for said in alice.frames if "seq" in said]
            assert numbers == sorted({*numbers})


async def test_redis_is_away_for_a_while(redis: RedisServer, gemini: GeminiLive, tmp_path: Path) -> None:
    """Clients are told; what they write waits, and is answered later. Also by a Redis that has lost all."""
    async with (
        worker(redis, gemini, tmp_path),
        pods(redis, tmp_path, "web") as (web,),
        client(web.port) as alice,
    ):
        await alice.ask("before")
        for with_data in (True, False):
            await redis.kill()
            await alice.until(lambda said: said.get("state") == "degraded")
            await alice.send(mime_type="text/plain", data=f"while {with_data}", id=f"{with_data}")
            await redis.start(with_data=with_data)
            told = await alice.until(lambda said: said.get("turn_complete"))
            assert {"type": "status", "state": "live"} in told
            assert words(told) == f"You said: while {with_data}."
            acks = [said for said in alice.frames if said.get("id") == f"{with_data}"]
            if not acks:  # it is told when the text is stored, which the answer does not wait for
                acks = (await alice.until(lambda said: said.get("type") == "ack"))[-1:]
            assert [ack["type"] for ack in acks] == ["ack"]
    texts = [text for connection in gemini.connections for text in connection.texts]
    assert texts == ["before", "while True", "while False"]


async def test_a_request_is_answered_though_its_worker_is_killed(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """Whoever waits for an answer over HTTP gets it from another worker."""
    Script(gemini)
    async with (
        worker(redis, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web") as (web,),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", verify=False, timeout=30) as http,
    ):
        asking = asyncio.create_task(http.post("/api/v1/chat", json={"message": "hello", "session_id": "s"}))
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        async with worker(redis, gemini, tmp_path):
            owner.kill()
            response = await asking
            assert response.status_code == 200, response.text
            assert "and the end." in response.text
            await http.delete("/sessions/s")


async def test_a_web_process_is_killed(redis: RedisServer, gemini: GeminiLive, tmp_path: Path) -> None:
    """Its client comes back to another one, and has missed nothing."""
    settings = {"RELAY_ROLE": "web", "RELAY_BUS": redis.url}
    async with (
        pods(redis, tmp_path, "web", "worker", grace=30) as (web, _),
        warm_relay(SERVE, tmp_path, **settings) as other,
        client(web.port) as stays,
    ):
        await other.started()
        async with client(other.port) as alice:
            hello = alice.hello
            assert hello["connections"] == 2
            await alice.ask("hello")
            last = alice.frames[-1]["seq"]
            other.kill()
        async with asyncio.timeout(10):
            while not any(hello["connection_id"] in told["left"] for told in stays.presence):
                with contextlib.suppress(TimeoutError):
                    await stays.next(0.1)
        await stays.ask("meanwhile")
        async with client(web.port, query=f"&after={hello['epoch']}.{last}") as alice:
            told = await alice.turn()
            assert words(told) == "You said: meanwhile."
            assert told[0]["text"] == "meanwhile"


async def test_one_process_with_everything_goes_on_without_redis(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """A conversation that has sockets elsewhere, too, waits: it could have another owner by now."""
    async with (
        pods(redis, tmp_path, "both", "both") as (here, there),
        client(here.port, "bob") as bob,
        client(here.port) as alice,
        client(there.port) as guest,
    ):
        assert (here.active, there.active) == (2, 0)
        await guest.ask("before")
        await alice.turn()
        await redis.kill()
        for who in (alice, guest):
            await who.until(lambda said: said.get("state") == "degraded")
        assert await bob.ask("hello") == "You said: hello."
        async with client(here.port, "bob", query="&after=0.0") as again:
            await again.until(lambda said: said.get("text") == "You said: hello.")
        await alice.say("hello")
        await asyncio.sleep(3)
        assert await bob.ask("again") == "You said: again."
        await guest.say("and I")
        await redis.start()
        for who in (alice, guest):
            told = [*await who.turn(), *await who.turn()]
            assert {"type": "status", "state": "live"} in told
            assert words(told) == "You said: hello.You said: and I.", (who is alice, told, gemini.connections)
        assert not any(said.get("type") in ("status", "gap") for said in bob.frames)
