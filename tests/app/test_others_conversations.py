"""Nobody reaches the conversations of somebody else."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relay import Relay
from support.api import rehearsal
from support.chat import chat, stored
from support.client import Json, client
from support.guarded import guarded, opened, status_of
from support.server import a_relay, serving
from support.tokens import SECRET, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")

WORD = "marzipan"
"""What alice has said in both of her conversations."""

Way = Callable[[int, str, str], Awaitable[str]]
"""Tries to reach a conversation with a token, and returns all that it was told."""


def ways(session_id: str) -> dict[str, Way]:
    """All ways to reach a conversation by its id."""

    async def live(port: int, of: str, query: str) -> str:
        try:
            async with opened(port, f"/ws/alice?is_audio=false{query}", **with_token(of)) as socket:
                heard = [str(await socket.recv())]
                await socket.send('{"type": "ping"}')
                while "pong" not in heard[-1]:
                    heard.append(str(await socket.recv()))
                return "\n".join(heard)
        except InvalidStatus as refusal:
            return str(refusal)

    async def by_name(port: int, of: str, session: str) -> str:
        return await live(port, of, f"&session_id={session}&after=0.0")

    async def by_number(port: int, of: str, session: str) -> str:
        return await live(port, of, f"&session_id={session}&after=1")

    async def in_chat(port: int, of: str, frame: Json) -> str:
        async with opened(port, "/ws", **with_token(of)) as socket:
            heard = [str(await socket.recv())]
            await socket.send(json.dumps(frame))
            await socket.send('{"type": "ping"}')
            while '"pong"' not in heard[-1]:
                heard.append(str(await socket.recv()))
            if "session_joined" in heard[-2]:
                async with web(port, of) as browser:
                    heard.append((await browser.get(f"/sessions/{session_id}")).text)
            return "\n".join(heard)

    async def join(port: int, of: str, session: str) -> str:
        return await in_chat(port, of, {"type": "join_session", "session_id": session})

    async def write(port: int, of: str, session: str) -> str:
        return await in_chat(port, of, {"type": "chat", "message": WORD, "session_id": session})

    async def turn(port: int, of: str, session: str) -> str:
        heard = []
        async with opened(port, "/api/v1/chat/stream", **with_token(of)) as socket:
            await socket.send(json.dumps({"session_id": session, "message": WORD}))
            try:
                while True:
                    heard.append(str(await socket.recv()))
            except ConnectionClosed:
                return "\n".join(heard)

    def request(method: str, path: str = "", **options: Any) -> Way:
        async def make(port: int, of: str, session: str) -> str:
            async with web(port, of) as browser:
                response = await browser.request(method, f"/sessions/{session}{path}", **options)
                return f"{response.status_code} {response.text}"

        return make

    async def ask(port: int, of: str, session: str) -> str:
        async with web(port, of) as browser:
            body = {"session_id": session, "message": WORD}
            response = await browser.post("/api/v1/chat", json=body)
            return f"{response.status_code} {response.text}"

    async def ask_for_a_stream(port: int, of: str, session: str) -> str:
        async with web(port, of) as browser:
            body, accept = {"session_id": session, "message": WORD}, {"Accept": "text/event-stream"}
            response = await browser.post("/api/v1/chat", json=body, headers=accept)
            return f"{response.status_code} {response.text}"

    return {
        "live": by_name,
        "live, the rest": by_number,
        "join": join,
        "write": write,
        "turn": turn,
        "read": request("GET"),
        "read before": request("GET", "?before=2"),
        "answer a tool": request("POST", "/tool_result", json={"tool_id": "call-1", "result": 1}),
        "ask": ask,
        "ask for a stream": ask_for_a_stream,
        "invite": request("POST", "/invite", json={"ttl": 60, "role": "write"}),
        "clear": request("POST", "/clear"),
        "delete": request("DELETE"),
    }


REFUSALS = re.compile(r"HTTP 404|^404 |unknown_session|There is no conversation|^403 |^401 ", re.MULTILINE)


async def said_by_alice(port: int) -> str:
    """Makes alice's conversations, her default one and one with a name; returns the name."""
    async with client(port, "alice", **with_token(token("alice"))) as alice:
        assert WORD in await alice.ask(WORD)
    async with web(port, token("alice")) as browser:
        session_id: str = (await browser.post("/sessions/new")).json()["session_id"]
        body = {"session_id": session_id, "message": WORD}
        assert WORD in (await browser.post("/api/v1/chat", json=body)).text
    return session_id


async def ended(relay: Relay) -> None:
    """Returns when no conversation is in memory."""
    async with asyncio.timeout(60):
        while relay.conversations.active:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("present", [True, False], ids=["in memory", "stored"])
@pytest.mark.parametrize("default", [True, False], ids=["default", "named"])
async def test_nobody_reaches_the_conversation_of_somebody_else(
    present: bool, default: bool, sessions: str
) -> None:
    relay = a_relay(rehearsal(words_per_second=1000), secret=SECRET, sessions=sessions)
    async with serving(relay) as port:
        named = await said_by_alice(port)
        session_id = "live-alice" if default else named
        for way, reach in ways(session_id).items():  # the last ones empty and delete it
            await ended(relay)  # what alice was told the last way
            before = await stored(relay, session_id, "alice")

            async def attempts(way: str = way, reach: Way = reach, before: Any = before) -> None:
                invited = token("alice", invitation={"session_id": "another", "role": "write"})
                for of in (token("bob"), token("guest"), token("alice~"), token("Alice"), invited):
                    heard = await reach(port, of, session_id)
                    assert REFUSALS.search(heard), (way, heard)
                    assert WORD not in heard.replace(f'"message": "{WORD}"', ""), way
                assert await stored(relay, session_id, "alice") == before, way
                assert await stored(relay, session_id, "bob") is None, way

            if present:
                async with client(port, "alice", query=f"&session_id={session_id}", **with_token(token())):
                    assert relay.conversations.active
                    await attempts()
            else:
                await attempts()
            # Alice herself reaches it.
            heard = await reach(port, token("alice"), session_id)
            if way == "answer a tool":
                assert "No call with this tool_id" in heard
            elif way != "invite":
                assert not REFUSALS.search(heard), (way, heard)


async def test_the_user_in_the_path_is_not_looked_at() -> None:
    async with guarded() as port:
        await said_by_alice(port)
        async with client(port, "alice", query="&after=0.0", **with_token(token("bob"))) as bob:
            assert (bob.hello["user_id"], bob.hello["session_id"]) == ("bob", "live-bob")
            assert bob.hello["connections"] == 1
            await bob.send(type="ping")
            assert [
                said.get("type") for said in await bob.until(lambda said: said.get("type") == "pong")
            ] == [
                "gap",
                "pong",
            ]
            assert bob.frames[0]["messages"] == 0


async def test_a_list_has_only_the_conversations_of_the_user() -> None:
    async with guarded() as port:
        session_id = await said_by_alice(port)
        for user, expected in (("alice", {session_id, "live-alice"}), ("bob", set()), ("guest", set())):
            async with web(port, token(user)) as browser:
                listed = (await browser.get("/sessions")).json()["sessions"]
            assert {summary["session_id"] for summary in listed} == expected
            assert all(summary["message_count"] == 2 for summary in listed)


async def test_two_users_do_not_share_the_id_of_a_conversation() -> None:
    async with guarded() as port:
        async with client(port, "x", query="&session_id=same", **with_token(token("alice"))) as alice:
            await alice.ask("one")
            assert await status_of(port, "/ws/x?session_id=same", **with_token(token("bob"))) == 404
        assert await status_of(port, "/ws/x?session_id=live-alice", **with_token(token("bob"))) == 404


async def test_a_chat_user_has_rooms_of_its_own() -> None:
    async with guarded() as port, chat(port, **with_token(token("alice"))) as alice:
        await alice.chat("one")
        session_id = (await alice.get("session_created"))["session_id"]
        await alice.get("response_complete")
        async with (
            client(port, "x", query=f"&session_id={session_id}", **with_token(token("alice"))) as live,
            chat(port, session_id, **with_token(token("alice"))) as second,
        ):
            await live.say("two")
            assert (await second.get("message_added"))["message"] == "two"


async def test_what_is_of_another_conversation_does_nothing_in_ones_own() -> None:
    async with guarded() as port:
        await said_by_alice(port)
        async with (
            client(port, "x", query="&after=0.0", **with_token(token("alice"))) as alice,
            client(port, "x", **with_token(token("bob"))) as bob,
        ):
            epoch = alice.hello["epoch"]
            await alice.send(type="typing_start")
            await alice.ask(WORD)
            for before in (f"{epoch}.2", f"{epoch}.3", f"{bob.hello['epoch']}.3"):
                await bob.send(type="history", before=before)
            await bob.send(type="tool_result", tool_id=alice.hello["connection_id"], result=WORD)
            await bob.send(type="interrupt")
            await bob.send(type="ping")
            heard = await bob.until(lambda said: said.get("type") == "pong")
            assert WORD not in json.dumps(heard)
            assert not any(said.get("type") in ("typing", "message", "presence") for said in heard)
            assert all(said["connections"] == 1 for said in (bob.hello, *bob.presence))
            await alice.send(type="ping")
            assert not any(
                "interrupted" in said for said in await alice.until(lambda said: "pong" in str(said))
            )


async def test_an_invitation_is_not_renewed_to_anything_else() -> None:
    async with guarded() as port:
        session_id = await said_by_alice(port)
        later = time.time() + 3600
        invited = token("alice", invitation={"session_id": session_id, "role": "listen"})
        async with client(port, "x", **with_token(invited)) as bob:
            for of, claim in (
                ("alice", None),
                ("alice", {"session_id": "live-alice", "role": "write"}),
                ("bob", {"session_id": session_id, "role": "write"}),
            ):
                await bob.send(type="token", token=token(of, exp=later, invitation=claim))
                refusal = await bob.until(lambda said: said.get("type") == "error")
                assert refusal[-1]["code"] == "bad_token"
            await bob.say("hello")
            assert (await bob.until(lambda said: said.get("type") == "error"))[-1]["code"] == "not_allowed"


async def test_one_of_many_gets_an_id_that_is_free() -> None:
    """Also if all ask for it at once, in all ways that make a conversation."""
    async with guarded() as port:

        async def live(user: str) -> bool:
            try:
                async with client(port, "x", query="&session_id=free", **with_token(token(user))) as who:
                    await who.ask("hello")
                    await over.wait()
                    return True
            except (InvalidStatus, ConnectionClosed):
                return False

        async def post(user: str) -> bool:
            async with web(port, token(user)) as browser:
                body = {"session_id": "free", "message": "hello"}
                return (await browser.post("/api/v1/chat", json=body)).status_code == 200

        over = asyncio.Event()
        users = [f"user{number}" for number in range(8)]
        tries = [asyncio.create_task((live if user in users[:4] else post)(user)) for user in users]
        async with asyncio.timeout(60):
            while sum(task.done() for task in tries) < len(users) - 1:
                await asyncio.sleep(0.01)
                if any(task.done() and task.result() for task in tries[4:]):
                    break
        over.set()
        assert sum(await asyncio.gather(*tries)) == 1
        owners = 0
        for user in users:
            async with web(port, token(user)) as browser:
                owners += (await browser.get("/sessions/free")).status_code == 200
        assert owners == 1
