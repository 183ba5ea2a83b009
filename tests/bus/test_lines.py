"""Connections that are held, and what is written over them together."""

from __future__ import annotations

import asyncio

import pytest

from adk_relay.bus import keys
from adk_relay.bus import lines as lines_module
from adk_relay.bus.log import Log
from adk_relay.bus.ownership import Ownership
from adk_relay.bus.server import AwayError, Server
from adk_relay.bus.writer import Writer, read_past
from adk_relay.core.messages import Audio, Text
from adk_relay.core.recorded import Told
from support.redis_server import RedisServer, running


async def test_a_command_that_is_cancelled_leaves_no_answer_for_the_next_one(
    redis: RedisServer, server: Server
) -> None:
    for _ in range(3):
        waiting = asyncio.create_task(server.ask(("BLPOP", "nothing", 0), ("ECHO", "an answer")))
        await asyncio.sleep(0.05)  # it has gone
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        answers = [server.ask(("ECHO", f"{number}"), ("ECHO", "more")) for number in range(4)]
        assert await asyncio.gather(*answers) == [[f"{number}".encode(), b"more"] for number in range(4)]
    assert not server.is_away


async def test_connections_that_the_server_has_closed(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_many() -> list[list[bytes]]:
        return [*await asyncio.gather(*(server.ask(("ECHO", "x")) for _ in range(10)))]

    assert await ask_many() == [[b"x"]] * 10
    await redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(AwayError):  # nobody could know
        await server.ask(("ECHO", "x"))
    assert await ask_many() == [[b"x"]] * 10, "one has failed: the others are not used either"
    monkeypatch.setattr(lines_module, "_FRESH_SECONDS", 0)
    await redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await ask_many() == [[b"x"]] * 10, "they were made anew"


async def test_sound_is_told_before_it_is_written_and_content_after(
    redis: RedisServer, server: Server
) -> None:
    owner = await Ownership(server, "worker", lambda *_: None).take("c", 0)
    log = Log("c", owner.token, owner.process, max_bytes=10**6, max_age=60)
    writer = Writer(server, lambda *_: None)
    for seq in range(1, 4):
        writer.add(log, Told(Audio(seq, b"sound")))
    await writer.flushed()  # there is no task yet that could write
    writer.add(log, Told(Text(4, "content")))
    flushed = asyncio.create_task(writer.flushed())
    await asyncio.sleep(0)
    assert not flushed.done()
    async with running(writer.run()):
        await flushed
        assert await server.run("XLEN", keys.log("c")) == 1, "all in one entry"
        writer.add(log, Told(Audio(5, b"sound")))
        writer.check()
        while await server.run("XLEN", keys.log("c")) == 1:  # alone it is written a little later
            await asyncio.sleep(0.01)
    past = await read_past(server, Log("c", owner.token, owner.process, max_bytes=10**6, max_age=60))
    assert [message.seq for message in past.messages] == [1, 2, 3, 4, 5]
    writer.check()
