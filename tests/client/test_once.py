"""What could be said twice, or shown twice, or not at all, when a connection breaks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from support.client import client
from support.process import HANGS
from support.proxy import Cut, Proxy, network
from support.server import serving
from support.terminal import connected, said_in, talkative


async def test_what_waits_on_a_line_that_dies_in_silence_is_said_once(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    async with serving(relay) as port, Proxy(port) as between:
        between.cuts.append(Cut(silent=True))  # the server is not told
        async with connected(between.port, tmp_path) as person:
            await person.says(" ".join(f"w{n}" for n in range(40)))
            await person.sees("You said: w0")
            await person.says("second")
            await person.sees("waits for 1")
            between.lines[0].cut()
            await person.sees("Connected again")
            await person.sees(r"You said: second\n")
            await person.says("third")
            await person.sees(r"You said: third\n")
            assert [said[1:] for said in said_in(relay)] == [["second", "third"]]
            assert "cut off" not in person.sight
            await person.tallies("streams +3 succeeded, 0 failed")
            assert await person.leaves() == 0


async def test_a_first_message_that_is_cut_makes_one_conversation(tmp_path: Path) -> None:
    relay = talkative()
    async with serving(relay) as port, Proxy(port) as between, connected(between.port, tmp_path) as person:
        between.lines[-1].hold()
        await person.says("hello there")
        async with asyncio.timeout(HANGS):
            while relay.conversations.active == 0:  # it is made, and the client is not told
                await asyncio.sleep(0.01)
        between.lines[-1].cut()
        await person.sees("You said: hello there")
        assert said_in(relay) == [["hello there"]]
        assert await person.leaves() == 0


async def test_a_history_that_can_not_be_read_makes_nobody_say_anything_again(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    fails = False

    async def host(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if fails and scope["type"] == "http" and scope["path"].startswith("/sessions/"):
            await send({"type": "http.response.start", "status": 502})
            await send({"type": "http.response.body", "body": b"no"})
        else:
            await relay(scope, receive, send)

    text = " ".join(f"w{n}" for n in range(40))
    async with (
        serving(host) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says(text)
        await person.sees("You said: w0")
        fails = True
        between.cut()
        await person.sees("The connection was lost")
        between.mend()
        await person.sees("What was said before can't be shown")
        await person.sees(r"w39(?s:.*)w39\n")
        fails = False
        await person.says("and now")
        await person.sees(r"You said: and now\n")
        assert said_in(relay) == [[text, "and now"]]
        assert await person.leaves() == 0


async def test_a_message_that_is_refused_in_mid_answer_is_given_up_and_no_other(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    long = "\x1b[200~" + "語" * 11_000 + "\x1b[201~"  # pasted
    async with (
        serving(relay) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says(" ".join(f"w{n}" for n in range(30)))
        await person.sees("You said: w0")
        person.types(f"{long}\r")
        await person.sees("The text has 33000 bytes; at most 32768 are allowed.")
        await person.says("after it")
        await person.sees("You said: after it")
        between.cut()
        await person.sees("The connection was lost")
        between.mend()
        await person.sees("Connected again")
        await person.says("at last")
        await person.sees("You said: at last\n")
        await person.tallies("streams +3 succeeded, 1 failed")
        assert [said[1:] for said in said_in(relay)] == [["after it", "at last"]]


async def test_what_is_said_in_a_conversation_that_one_joins_is_not_cut_off(tmp_path: Path) -> None:
    async with serving(talkative()) as port, client(port, "guest", query="&session_id=room") as other:
        await other.ask("before")
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees(r"(?m)^agent +This is .* You said: before$")
            await person.says("after")
            await person.sees(r"You said: after\n")
            assert "cut off" not in person.sight


async def test_who_joins_in_mid_answer_sees_each_word_once(tmp_path: Path) -> None:
    relay = talkative(words_per_second=20)
    async with serving(relay) as port, client(port, "guest", query="&session_id=room") as other:
        await other.say(" ".join(f"w{n}" for n in range(60)))
        await other.until(lambda said: "w9" in said.get("data", ""))
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees(r"(?m)^agent +This is a rehearsal(?s:.*)w59\n")
            answer = person.sight.partition("agent")[2]
            assert [len(re.findall(rf"\bw{n}\b", answer)) for n in range(60)] == [1] * 60


async def test_a_session_service_that_fails_for_a_moment_throws_nobody_out(tmp_path: Path) -> None:
    relay = talkative(grace=0)
    service, fails = relay.conversations.service, False
    get_session = service.get_session

    async def failing(**named: Any) -> Any:
        if fails:
            raise OSError("the disk is busy")
        return await get_session(**named)

    service.get_session = failing  # type: ignore[method-assign]
    async with (
        serving(relay) as port,
        network(port) as (between, there),
        connected(there, tmp_path) as person,
    ):
        await person.says("hello")
        await person.sees("You said: hello")
        room = (await person.sees(r"rehearsal · ([\w-]+)"))[1]
        fails = True
        between.cut()
        await person.sees("The connection was lost")
        async with asyncio.timeout(HANGS):
            while relay.conversations.active:
                await asyncio.sleep(0.01)
        between.mend()
        await person.sees("The conversations can't be reached")
        await person.sees(r"\(1011 the agent failed\)\. Your next message opens another")
        fails = False
        await person.says("again")
        await person.sees(r"(?m)^agent +.*You said: again\b")
        await person.sees(f"connected · rehearsal · {room}")
        assert "is gone" not in person.sight
