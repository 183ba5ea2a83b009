"""All that is real: nginx that knows no affinity, web processes, workers, Redis and PostgreSQL."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from adk_relay.bus import keys
from support.client import client, words
from support.databases import database
from support.gemini import Connection, GeminiLive, UserTurn
from support.process import SERVE, Process, warm_relay
from support.proxies import nginx
from support.redis_server import RedisServer

STORED = """SELECT event_data ->> 'author',
    coalesce(event_data #>> '{content,parts,0,text}', event_data #>> '{output_transcription,text}')
    FROM events WHERE session_id = 'live-guest' ORDER BY timestamp"""


async def stored(uri: str) -> list[tuple[str, str]]:
    """Who has said what, as the session in PostgreSQL has it."""
    engine = create_async_engine(uri, poolclass=NullPool)
    async with engine.connect() as connection:
        rows = (await connection.execute(text(STORED))).all()
    await engine.dispose()
    return [(author, said) for author, said in rows if said]


async def test_an_owner_stands_still_and_comes_back_behind_nginx_and_before_postgresql(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """Each time that a client comes, it reaches another web process, and it misses nothing."""
    late = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One", complete=False)
            await late.wait()
        is_rest = turn.text == "count" or "Go on from there" in turn.text
        await connection.say(" two." if is_rest else f"You said: {turn.text}.")

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(database("postgresql"))
        settings = {"RELAY_BUS": redis.url, "RELAY_SESSIONS": store.uri, **gemini.env}

        async def started(role: str) -> Process:
            relay = await stack.enter_async_context(
                warm_relay(SERVE, tmp_path, RELAY_ROLE=role, RELAY_APP_NAME="tester", **settings)
            )
            await relay.started()
            return relay

        *webs, one, other = await asyncio.gather(*map(started, ("web", "web", "worker", "worker")))
        front = await stack.enter_async_context(nginx(tmp_path, *(web.port for web in webs), affinity=False))
        guest, after = "guest", ""
        seen: list[int] = []
        for number in range(4):
            async with client(front.port, guest, query=after, ssl=front.tls) as alice:
                if number:
                    assert words(await alice.turn()) == f"You said: {number}."
                epoch = alice.hello["epoch"]
                await alice.ask("while here")
                seen += [said["seq"] for said in alice.frames if "seq" in said]
                async with client(front.port, guest, ssl=front.tls) as bob:  # it talks on, elsewhere
                    after = f"&after={epoch}.{seen[-1]}"
                    await alice.socket.close()
                    await bob.ask(f"{number + 1}")
        assert all(a < b for a, b in pairwise(seen)), seen
        for web in webs:
            assert [line for line in web.log if ": opened from " in line]
        assert len(gemini.connections) == 1

        # The owner stands still in the middle of an answer, and comes back when another one has given it.
        gemini.answer = answer
        async with client(front.port, guest, query=after, ssl=front.tls) as alice:
            await alice.turn()
            before = await stored(store.uri)
            await alice.say("count")
            await alice.until(lambda said: "One" in str(said))
            owned_by = str(await redis.ask("GET", keys.owner("live-guest")))
            [owner] = [worker for worker in (one, other) if f"-{worker.pid}-" in owned_by]
            owner.pause()
            told = await alice.until(lambda said: said.get("turn_complete"), 30)
            assert {"type": "status", "state": "reconnecting"} in told
            assert words(told).endswith(" two.")
            late.set()
            owner.go_on()
            await owner.says("live-guest has another owner: it ends here")
            await alice.ask("and now")
        now = (await stored(store.uri))[len(before) :]
        assert [said for author, said in now if author == "user"] == ["count", "and now"], now
        answers = "".join(said for author, said in now if author != "user")
        assert answers == "One two.You said: and now.", now
        assert [line for relay in (*webs, one, other) for line in relay.log if "Traceback" in line] == []
