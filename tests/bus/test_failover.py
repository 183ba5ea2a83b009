"""Conversations over Redis servers that take each other's place."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from adk_relay.bus.server import AwayError, Server
from support.client import Client, client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.pods import pods
from support.redis_many import cluster, sentinel


class Slow:
    """A model that begins to answer, and goes on when it may."""

    def __init__(self, gemini: GeminiLive) -> None:
        self.may_go_on = asyncio.Event()
        gemini.answer = self._answer

    async def _answer(self, connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"{turn.text}:", complete=False)
        await self.may_go_on.wait()
        await connection.say(" done.")


async def begun(writer: Client, *readers: Client) -> None:
    """Returns when all of them have got the beginning of an answer."""
    await writer.send(mime_type="text/plain", data="one", id="1")
    for who in (writer, *readers):
        await who.until(lambda said: "one:" in str(said))


def all_came(who: Client, *answers: str) -> None:
    """It was told all of these answers, once, and of no gap."""
    assert words(who.frames) == "".join(answers), who.frames
    assert not any(said.get("type") in ("gap", "error") for said in who.frames), who.frames
    numbers = [said["seq"] for said in who.frames if "seq" in said]
    assert numbers == sorted({*numbers})


async def test_a_failover_in_the_middle_of_an_answer(gemini: GeminiLive, tmp_path: Path) -> None:
    slow = Slow(gemini)
    async with (
        sentinel(tmp_path, "p@ss") as servers,
        pods(servers.master, tmp_path, "worker", "web", "web", bus=servers.url) as (_, web, other),
        client(web.port) as writer,
        client(other.port) as reader,
    ):
        await begun(writer, reader)
        await servers.master.kill()
        for who in (writer, reader):
            await who.until(lambda said: said.get("state") == "degraded")
        await writer.send(mime_type="text/plain", data="two", id="2")
        slow.may_go_on.set()
        for who in (writer, reader):
            await who.turn()
            await who.turn()
            assert [said["state"] for said in who.frames if said.get("type") == "status"][-1] == "live"
            all_came(who, "one: done.", "two: done.")
    assert [text for connection in gemini.connections for text in connection.texts] == ["one", "two"]


async def test_slots_of_a_cluster_move_in_the_middle_of_an_answer(gemini: GeminiLive, tmp_path: Path) -> None:
    slow = Slow(gemini)
    async with cluster() as servers:
        async with (
            pods(servers.nodes[0], tmp_path, "worker", "web", "web", bus=servers.url) as (_, web, other),
            client(web.port) as writer,
            client(other.port) as reader,
        ):
            await begun(writer, reader)
            found = await servers.keys()
            assert len({number for number, _, _ in found}) > 1, "all keys are in one node"
            assert len({slot for _, slot, key in found if key.startswith(b"relay:c:{live-alice}")}) == 1
            slow.may_go_on.set()
            for node, slot in {each[:2] for each in found}:  # of the conversation, inboxes, leases, queues
                await servers.move(slot, node)
            for who in (writer, reader):
                await who.turn()
            await writer.say("two")
            for who in (writer, reader):
                await who.turn()
                all_came(who, "one: done.", "two: done.")
        # One of the servers dies. The others answer, but that is no reason to say that all is well again.
        changes: list[bool] = []
        server = Server(servers.url, changes.append)
        await servers.nodes[2].kill()
        for number in range(60):
            with suppress(AwayError):
                await server.run("GET", f"{number}")
        await server.close()
        assert len(changes) < 6, changes  # of 60 commands, every third one fails
    assert [text for connection in gemini.connections for text in connection.texts] == ["one", "two"]
