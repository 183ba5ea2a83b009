"""Workers that are killed, stopped or drained, while clients talk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.pods import pods
from support.process import SERVE, Process, relay_process
from support.redis_server import RedisServer


@asynccontextmanager
async def worker(redis: RedisServer, gemini: GeminiLive, folder: Path) -> AsyncIterator[Process]:
    """A worker that is a process of its own."""
    settings = {
        "RELAY_ROLE": "worker",
        "RELAY_BUS": redis.url,
        "RELAY_SESSIONS": f"sqlite:///{folder}/sessions.db",
        "RELAY_APP_NAME": "tester",
        "RELAY_DRAIN": "5",
    }
    async with relay_process(SERVE, folder, **gemini.env, **settings) as process:
        await process.started()
        yield process


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
