"""What clients are told, whichever processes their sockets and their conversation are in."""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from adk_relay.bus import keys
from adk_relay.bus.link import Link
from support.chat import chat
from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn, speech
from support.pods import Pod, pods, worker
from support.process import SERVE, warm_relay
from support.redis_server import RedisServer, until


def link(pod: Pod, to: Pod) -> Link:
    """The link from a process to another."""
    hub, other = pod.relay.served._hub, to.relay.served._hub  # type: ignore[attr-defined]
    found: Link = hub._links[other.process][0]
    return found


async def test_who_comes_with_many_others_is_told_how_many_there_are(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    async with (
        pods(redis, tmp_path, "web", "web", "worker") as (web, other, _),
        client(web.port) as first,
        AsyncExitStack() as stack,
    ):
        ports = [web.port, other.port] * 10
        coming = [stack.enter_async_context(client(port)) for port in ports]
        several = await asyncio.gather(*coming)
        assert first.hello["connections"] == 1
        assert sorted(who.hello["connections"] for who in several) == [*range(2, 22)]


async def test_an_id_that_relay_gives_a_text_is_shown_to_nobody(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """Also where a socket is in the process that has the conversation, and the text came to another one."""
    async with (
        pods(redis, tmp_path, "both", "both") as (here, there),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{here.port}", verify=False) as web,
        chat(here.port) as reader,
    ):
        await reader.send(type="create_session")
        session_id = (await reader.get("session_created"))["session_id"]
        async with (
            client(here.port, "guest", query=f"&session_id={session_id}") as live,
            client(there.port, "guest", query=f"&session_id={session_id}") as writer,
            chat(there.port, session_id) as asker,
        ):
            await writer.say("hello")
            await live.turn()
            await asker.ask("again")
            await live.turn()
            await reader.until(lambda said: said["type"] == "response_complete")
            await reader.get("response_complete")
            path = f"&session_id={session_id}&after=0.0"
            async with client(here.port, "guest", query=path) as newcomer:
                gap = await newcomer.next()
                lines = [await newcomer.next() for _ in range(gap["messages"])]
            history = (await web.get(f"/sessions/{session_id}")).json()["history"]
            told = [*live.frames, *writer.frames, *reader.frames, *asker.frames, *lines, *history]
            assert len(lines) == len(history) == 4
            assert [said for said in told if "id" in said] == []


async def test_sound_that_is_given_up_between_processes_is_told(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis stands still, what is said and heard waits in its process, and is stale soon."""
    monkeypatch.setattr("adk_relay.bus.link._SOUND_SECONDS", 0.2)
    monkeypatch.setattr("adk_relay.bus.given_up._EVERY", 0.1)
    monkeypatch.setattr("adk_relay.bus.lease._LEASE_MS", 60_000)
    may_go_on, may_end = asyncio.Event(), asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        await may_go_on.wait()
        await connection.say(" two", complete=False)
        await may_end.wait()
        await connection.say(" three" * 20)

    gemini.answer = answer
    async with (
        pods(redis, tmp_path, "web", "worker") as (web, owner),
        client(web.port, audio=True) as alice,
        client(web.port) as reader,
    ):
        await alice.say("hello")
        await alice.until(lambda said: said.get("type") == "binary")
        up, down = link(web, owner), link(owner, web)
        redis.pause()
        try:
            may_go_on.set()
            await alice.socket.send(speech(100))
            await until(lambda: bool(up._sending and down._sending))  # what comes now has to wait
            may_end.set()
            await alice.socket.send(speech(1000))
            (room,) = [each.room for each in owner.relay.conversations._open.values()]

            def is_told_at_home() -> bool:
                answer = room.recording._now.answer
                return answer is not None and answer.text.count("three") == 20

            await until(is_told_at_home)  # the session gets it when Redis is back
            await asyncio.sleep(0.3)  # so much older is the sound now
        finally:
            redis.go_on()
        await alice.turn()

        def notes() -> list[Any]:
            return [said for said in alice.frames if said.get("type") == "dropped"]

        def is_told() -> bool:
            lost = sum(said["audio_ms"] for said in notes() if said["direction"] == "down")
            heard = len(alice.audio) / 48
            # It is rounded. Some of it may be replayed, if Redis was away for long.
            is_all = heard + lost > len(gemini.connections[0].sound) / 48 - 5
            return is_all and {said["direction"] for said in notes()} == {"up", "down"}

        while not is_told():
            await alice.next()
        await reader.turn()
        # Who hears nothing misses nothing.
        assert not any(said.get("type") == "dropped" for said in reader.frames)


@pytest.mark.parametrize("how", ["clear", "delete"])
async def test_a_conversation_is_emptied_while_a_process_hears_nothing(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, how: str
) -> None:
    """Its clients are told afterwards, before anything of the new epoch."""
    async with (
        pods(redis, tmp_path, "web", "worker") as (web, owner),
        warm_relay(SERVE, tmp_path, RELAY_ROLE="web", RELAY_BUS=redis.url) as other,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}", verify=False) as http,
    ):
        await other.started()
        session_id = (await http.post("/sessions/new")).json()["session_id"]
        async with (
            client(other.port, "guest", query=f"&session_id={session_id}") as live,
            chat(other.port, session_id) as room,
        ):
            await live.ask("before")
            await room.get("response_complete")
            links = owner.relay.served._hub._links  # type: ignore[attr-defined]
            (key,) = links.keys() - {web.relay.served._hub.process}  # type: ignore[attr-defined]
            other.pause()
            await redis.ask("XADD", keys.inbox(key), "*", "x", "")  # it waits for one entry: it has that
            try:
                if how == "clear":
                    assert (await http.post(f"/sessions/{session_id}/clear")).status_code == 200
                else:
                    assert (await http.delete(f"/sessions/{session_id}")).status_code == 200
                await links[key][0].is_idle.wait()  # all that it was told is there
                await redis.ask("XTRIM", keys.inbox(key), "MAXLEN", 0)
                await http.post("/api/v1/chat", json={"session_id": session_id, "message": "after"})
            finally:
                other.go_on()
            told = await live.until(lambda said: said.get("text") == "You said: after.", 20)
            kinds = [said["type"] for said in told if said.get("type") != "status"]
            assert kinds == [f"{how.removesuffix('e')}ed", "gap", "message", "message"]
            assert live.hello["epoch"] != told[0]["epoch"]
            await room.get("session_cleared" if how == "clear" else "session_deleted")
            await live.say("again")
            await live.turn()
            if how == "delete":  # as in one process, it has left the room
                await room.send(type="ping")
                assert (await room.next())["type"] == "pong"


async def test_a_picture_is_given_to_the_next_owner(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    """The process that had it was killed before the answer had ended."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("I see", complete=False)
        else:
            await connection.say(" a dot.")

    gemini.answer = answer
    picture = b"\xff\xd8 a picture"
    async with (
        worker(redis, gemini, tmp_path) as owner,
        pods(redis, tmp_path, "web") as (web,),
        client(web.port) as alice,
    ):
        await alice.send(mime_type="image/jpeg", data=base64.b64encode(picture).decode())
        await alice.say("What is this?")
        await alice.until(lambda said: "see" in str(said))
        async with worker(redis, gemini, tmp_path):
            owner.kill()
            await alice.until(lambda said: said.get("turn_complete"))
    assert [each.images for each in gemini.connections] == [[picture], [picture]]
