"""What was recorded of a conversation is lost, or is not what its owner has recorded last."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from adk_relay.bus.fence import Fence
from adk_relay.bus.hub import Hub
from support.chat import chat, created, end, http
from support.client import Client, client, words
from support.gemini import Connection, GeminiLive, UserTurn, default_answer
from support.pods import pods
from support.process import SERVE, Process, warm_relay
from support.proxy import network
from support.redis_server import RedisServer, until


@asynccontextmanager
async def worker(port: int, gemini: GeminiLive, folder: Path) -> AsyncIterator[Process]:
    """A worker that is a process of its own, with its Redis at a port."""
    settings = {
        "RELAY_ROLE": "worker",
        "RELAY_BUS": f"redis://127.0.0.1:{port}",
        "RELAY_SESSIONS": f"sqlite:///{folder}/sessions.db",
        "RELAY_APP_NAME": "tester",
    }
    async with warm_relay(SERVE, folder, **gemini.env, **settings) as process:
        await process.started()
        yield process


def numbers(who: Client) -> list[int]:
    return [said["seq"] for said in who.frames if "seq" in said]


async def test_an_owner_records_anew_what_may_be_lost(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """It was taken for dead, and takes its conversation back; then Redis is emptied; then it is killed."""
    async with (
        network(redis.port, is_http=False) as (between, port),
        worker(port, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web") as (web,),
        client(web.port) as alice,
    ):
        await alice.ask("one")
        between.cut()
        await alice.until(lambda said: said.get("state") == "reconnecting")
        between.mend()
        await alice.ask("two")
        await redis.ask("FLUSHALL")

        async def is_recorded() -> bool:
            return await redis.ask("EXISTS", "relay:c:{live-alice}:log") == 1

        await until(is_recorded)  # by itself: nothing happens in the conversation
        async with worker(redis.port, gemini, tmp_path):
            owner.kill()
            await alice.until(lambda said: said.get("state") == "reconnecting")
            await alice.ask("three")
    assert words(alice.frames) == "You said: one.You said: two.You said: three."
    assert not any(said.get("type") in ("gap", "error") for said in alice.frames)
    assert numbers(alice) == sorted({*numbers(alice)})


async def test_redis_and_the_owner_are_lost_at_once(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """The conversations go on from their sessions: that is told, and what is in them is not said again."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "wait":
            await asyncio.Event().wait()
        await default_answer(connection, turn)

    def is_stored() -> bool:
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
            query = "SELECT 1 FROM events WHERE instr(event_data, '\"wait\"')"
            return database.execute(query).fetchone() is not None

    gemini.answer = answer
    async with (
        worker(redis.port, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web") as (web,),
        client(web.port) as alice,
        http(web.port) as requests,
    ):
        await alice.send(mime_type="text/plain", data="one", id="1")
        await alice.turn()
        room = await created(web.port)
        async with chat(web.port, room) as bob:
            await bob.ask("hello")
            body = {"session_id": "s", "message": "wait"}
            asking = asyncio.create_task(requests.post("/api/v1/chat", json=body))
            await until(is_stored)
            owner.pause()
            await redis.ask("FLUSHALL")
            async with worker(redis.port, gemini, tmp_path):
                owner.kill()
                told = await alice.until(lambda said: said.get("type") == "gap")
                gap = told[-1]
                assert gap["epoch"] != alice.hello["epoch"]
                lines = [(await alice.next())["text"] for _ in range(gap["messages"])]
                assert lines == ["one", "You said: one."]

                await alice.send(mime_type="text/plain", data="one", id="1")
                await alice.until(lambda said: said.get("type") == "ack")
                assert await alice.ask("two") == "You said: two."
                later = [said["seq"] for said in alice.frames[alice.frames.index(gap) :] if "seq" in said]
                assert gap["to"] < min(later)
                assert later == sorted({*later})
                query = f"&after={gap['epoch']}.{later[-1]}"
                async with client(web.port, query=query) as again:  # which knows the epoch only from the gap
                    await again.send(type="nothing that there is")
                    assert (await again.next())["code"] == "bad_message"

                assert (await end(bob))[1] == 1012
                response = await asking
                assert response.status_code == 502, response.text
    texts = [text for connection in gemini.connections for text in connection.texts]
    assert sorted(text for text in texts if text != "wait") == ["hello", "one", "two"]


async def test_an_owner_that_was_replaced_and_comes_back_to_an_empty_redis_stores_nothing(
    redis: RedisServer,
) -> None:
    """Nothing in Redis says that there is another one, until that has said so again."""

    async def flushed() -> None:
        pass

    old, new = hubs = [Hub(redis.url) for _ in range(2)]
    for hub in hubs:
        hub.start()
        await hub.is_up.wait()
    await old.ownership.take("c", 0)
    await new.ownership.take("c", old.ownership.held["c"])
    old.lease._lasts_until = 0.0  # it was cut off for long
    await redis.ask("FLUSHALL")
    fences = [Fence(hub, {}, flushed) for hub in hubs]
    assert await asyncio.gather(*(fence.may_write("c") for fence in fences)) == [False, True]
    for hub in hubs:
        await hub.aclose()
