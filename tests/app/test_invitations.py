"""How long a socket may stay, invitations to one conversation, and names."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.api import rehearsal
from support.chat import chat, end, taken
from support.client import Client, Json, client
from support.server import a_relay, serving
from support.tokens import SECRET, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")


def a_guarded_relay(**settings: Any) -> Any:
    return serving(a_relay(rehearsal(), **({"secret": SECRET} | settings)))


def kinds(frames: list[Json]) -> list[str]:
    return [said.get("type", "") for said in frames]


async def closed(who: Client) -> tuple[list[Json], int, str]:
    """The frames until the socket is closed, and how it is."""
    frames = []
    try:
        while True:
            frames.append(await who.next())
    except ConnectionClosed as gone:
        assert gone.rcvd is not None
        return frames, gone.rcvd.code, gone.rcvd.reason


# ---- until when ------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [client, chat])
async def test_a_socket_is_closed_when_its_token_expires(dialect: Any) -> None:
    expires = time.time() - 2  # it holds three seconds more, by the leeway
    async with a_guarded_relay() as port, dialect(port, **with_token(token(exp=expires))) as alice:
        frames, code, reason = await closed(alice)
        assert kinds(frames) == ["token_expiring"]
        assert 0 <= frames[0]["expires_in"] <= 3
        assert (code, reason) == (4401, "the token has expired")
        assert time.time() >= expires + 5


@pytest.mark.parametrize("dialect", [client, chat])
async def test_a_new_token_keeps_the_socket_open(dialect: Any) -> None:
    expires = time.time() - 1
    async with a_guarded_relay() as port, dialect(port, **with_token(token(exp=expires))) as alice:
        assert (await alice.next())["type"] == "token_expiring"
        await alice.send(type="token", token=token(exp=time.time() + 20))  # it is told of this end, too
        assert 20 < (await alice.next())["expires_in"] <= 30
        await alice.send(type="token", token=token(exp=time.time() + 300))
        while time.time() < expires + 6:
            await alice.send(type="ping")
            assert (await alice.next())["type"] == "pong"
        await alice.ask("still here")


LATER = time.time() + 3600
BAD = {
    "another user's": token("bob", exp=LATER),
    "an invitation": token(exp=LATER, invitation={"session_id": "live-alice", "role": "write"}),
    "forged": token(exp=LATER, secret="another secret of 32 bytes or more"),
    "expired": token(exp=time.time() - 60),
    "shorter": token(exp=time.time() + 20),
    "no token": "",
    "no text": "\ud800",
    "not of this alphabet": "ÄÖÜ €",
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("dialect", [client, chat])
async def test_a_new_token_that_does_not_let_the_client_stay(dialect: Any, case: str) -> None:
    async with a_guarded_relay() as port, dialect(port, **with_token(token())) as alice:
        await alice.send(type="token", token=BAD[case])
        refusal = await alice.next()
        assert (refusal["type"], refusal["code"]) == ("error", "bad_token")
        await alice.send(type="token", token=token(exp=time.time() + 600))
        await alice.send(type="ping")
        assert (await alice.next())["type"] == "pong"


async def test_guessing_tokens_closes_the_socket() -> None:
    async with a_guarded_relay() as port, client(port, **with_token(token())) as alice:
        for n in range(20):
            await alice.send(type="token", token=f"guess {n}")
        frames, code, _ = await closed(alice)
        assert ([said["code"] for said in frames], code) == (["bad_token"] * 20, 1008)


async def test_a_new_token_opens_nothing_twice() -> None:
    async with (
        a_guarded_relay(one_use="true") as port,
        client(port, **with_token(token(jti="1"))) as alice,
    ):
        await alice.send(type="token", token=token(jti="1", exp=time.time() + 600))
        assert (await alice.next())["code"] == "bad_token"
        await alice.send(type="token", token=token(jti="2", exp=time.time() + 600))
        await alice.send(type="ping")
        assert (await alice.next())["type"] == "pong"


async def test_a_request_that_was_made_in_time_is_answered() -> None:
    async with a_guarded_relay() as port:
        url = f"ws://127.0.0.1:{port}/api/v1/chat/stream"
        short = token(exp=time.time() - 2)
        async with connect(url, proxy=None, **with_token(short)) as socket:
            who = Client(socket, {})
            await who.send(session_id="kitchen", message="count slowly " * 40)
            frames, code = await end(who)
            assert (frames[-1], code) == ({"type": "done"}, 1000)
        short = token(exp=time.time() - 2)
        async with connect(url, proxy=None, **with_token(short)) as socket:
            assert await end(Client(socket, {})) == ([], 4401)


# ---- invitations -----------------------------------------------------------------------------


async def invite(port: int, session_id: str, of: str = "alice", **fields: Any) -> httpx.Response:
    async with web(port, token(of)) as browser:
        return await browser.post(f"/sessions/{session_id}/invite", json=fields)


async def invited(port: int, session_id: str, **fields: Any) -> str:
    response = await invite(port, session_id, **fields)
    assert response.status_code == 200, response.text
    made: str = response.json()["token"]
    return made


async def test_somebody_who_was_invited_takes_part_in_this_conversation_only() -> None:
    async with (
        a_guarded_relay() as port,
        client(port, query="&session_id=kitchen", **with_token(token())) as alice,
        client(port, query="&session_id=cellar", **with_token(token())) as elsewhere,
    ):
        await alice.ask("one")
        await elsewhere.ask("two")
        guest = await invited(port, "kitchen", role="write", name="Bob")
        # Without a name of a conversation, and with this one's.
        for query in ("", "&session_id=kitchen"):
            async with client(port, "bob", query=query, **with_token(guest)) as bob:
                assert (bob.hello["session_id"], bob.hello["connections"]) == ("kitchen", 2)
                assert (bob.hello["name"], bob.hello["role"]) == ("Bob", "write")
                assert "You said" in await bob.ask("hello")
        heard = await alice.until(lambda said: said.get("type") == "message")
        assert heard[-1]["name"] == "Bob"
        assert {"elsewhere"}.isdisjoint(said.get("state") for said in alice.frames)

        for session_id in ("cellar", "live-alice", "new1"):
            query, options = f"&session_id={session_id}", with_token(guest)
            with pytest.raises(InvalidStatus, match="HTTP 404"):
                async with client(port, query=query, subprotocol=False, **options):
                    pass
        async with chat(port, **with_token(guest)) as bob_in_chat:
            for frame in ({"type": "join_session", "session_id": "cellar"}, {"type": "create_session"}):
                await bob_in_chat.send(**frame)
                assert (await bob_in_chat.next())["code"] in ("unknown_session", "not_allowed")
            await bob_in_chat.chat("in chat")  # it goes where he was invited
            assert (await bob_in_chat.get("session_joined"))["session_id"] == "kitchen"
        async with web(port, guest) as browser:
            listed = (await browser.get("/sessions")).json()["sessions"]
            assert [summary["session_id"] for summary in listed] == ["kitchen"]
            assert (await browser.get("/sessions/kitchen")).status_code == 200
            assert (await browser.get("/sessions/cellar")).status_code == 404
            body = {"session_id": "kitchen", "message": "by HTTP"}
            assert (await browser.post("/api/v1/chat", json=body)).status_code == 200
            for method, path in (
                ("POST", "/sessions/new"),
                ("DELETE", "/sessions/kitchen"),
                ("POST", "/sessions/kitchen/clear"),
                ("POST", "/sessions/kitchen/invite"),
            ):
                response = await browser.request(method, path, json={})
                assert response.status_code == 403, path


async def test_somebody_who_was_invited_to_listen_only_listens() -> None:
    async with (
        a_guarded_relay() as port,
        client(port, query="&session_id=kitchen", **with_token(token())) as alice,
    ):
        await alice.ask("one")
        ear = await invited(port, "kitchen", role="listen")
        async with client(port, query="&after=0.0", **with_token(ear)) as bob:
            assert bob.hello["role"] == "listen"
            frames: list[Json] = [
                {"mime_type": "text/plain", "data": "hello", "id": "1"},
                {"mime_type": "image/png", "data": "AAAA"},
                *({"type": kind} for kind in ("interrupt", "typing_start", "audio_end", "activity_start")),
                {"type": "tool_result", "tool_id": "1", "result": 1},
            ]
            for frame in frames:
                await bob.send(**frame)
                refusal = (await bob.until(lambda said: said.get("type") == "error"))[-1]
                assert refusal["code"] == "not_allowed"
            for _ in range(30):  # sound is refused once, and ignored
                await bob.send(mime_type="audio/pcm", data="AAAAAAAA")
            await bob.send(type="ping")
            heard = await bob.until(lambda said: said.get("type") == "pong")
            assert kinds(heard).count("error") == 1
            await alice.say("two")
            assert any(said.get("data") for said in await bob.turn())
        async with chat(port, **with_token(ear)) as bob_in_chat:
            joined = await bob_in_chat.join("kitchen")
            assert joined["role"] == "listen"
            for kind in ("typing_start", "create_session"):
                await bob_in_chat.send(type=kind)
                assert (await bob_in_chat.get("error"))["code"] == "not_allowed"
            await bob_in_chat.chat("hello")
            assert (await bob_in_chat.get("error"))["code"] == "not_allowed"
        async with connect(
            f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None, **with_token(ear)
        ) as socket:
            who = Client(socket, {})
            await who.send(session_id="kitchen", message="hello")
            frames, code = await end(who)
            assert (kinds(frames), code) == (["error"], 4403)
        async with web(port, ear) as browser:
            for path, body in (
                ("/api/v1/chat", {"session_id": "kitchen", "message": "hello"}),
                ("/sessions/kitchen/tool_result", {"tool_id": "1", "result": 1}),
            ):
                assert (await browser.post(path, json=body)).status_code == 403
            assert (await browser.get("/sessions/kitchen")).json()["message_count"] == 4


async def test_who_can_clear_and_delete_is_the_users_to_give() -> None:
    async with (
        a_guarded_relay() as port,
        client(port, query="&session_id=kitchen", **with_token(token())) as alice,
        chat(port, **with_token(token())) as reader,
    ):
        await alice.ask("one")
        await reader.join("kitchen")
        roles = {role: await invited(port, "kitchen", role=role) for role in ("write", "listen", "manage")}
        async with client(port, **with_token(roles["manage"])) as bob:
            assert "You said" in await bob.ask("hello")  # it writes, too
        for role, status in (("write", 403), ("listen", 403), ("manage", 200)):
            async with web(port, roles[role]) as browser:
                assert (await browser.post("/sessions/kitchen/clear")).status_code == status
                assert (await browser.delete("/sessions/kitchen")).status_code == status
        async with web(port, roles["manage"]) as browser:
            for method, path, refusal in (
                ("POST", "/sessions/cellar/clear", 404),
                ("DELETE", "/sessions/live-alice", 404),
                ("POST", "/sessions/new", 403),
                ("POST", "/sessions/kitchen/invite", 403),
            ):
                response = await browser.request(method, path, json={})
                assert response.status_code == refusal, path
        await alice.until(lambda said: said.get("type") == "deleted")
        assert [said["type"] for said in alice.frames if "epoch" in said] == ["cleared", "deleted"]
        await reader.get("session_deleted")
        assert [said["update_type"] for said in reader.of("session_cleared", "session_deleted")] == [
            "session_cleared",
            "session_deleted",
        ]


async def test_who_can_invite() -> None:
    async with a_guarded_relay() as port:
        async with client(port, query="&session_id=kitchen", **with_token(token())) as alice:
            await alice.ask("one")
        assert (await invite(port, "kitchen", of="bob")).status_code == 404
        assert (await invite(port, "live-alice", of="bob")).status_code == 404
        assert (await invite(port, "live-alice")).status_code == 200
        for wrong in ({"ttl": 0}, {"ttl": True}, {"ttl": "60"}, {"ttl": 1e9}, {"role": "own"}, {"name": 7}):
            assert (await invite(port, "kitchen", **wrong)).status_code == 400
        # An invitation to what does not exist yet does not lead to what others make there.
        early = await invited(port, "attic")
        async with client(port, query="&session_id=attic", **with_token(token("bob"))) as bob:
            await bob.ask("mine")
            with pytest.raises(InvalidStatus, match="HTTP 404"):
                async with client(port, subprotocol=False, **with_token(early)):
                    pass
    async with a_guarded_relay(secret=None) as port:
        assert (await invite(port, "kitchen")).status_code == 409


# ---- names -----------------------------------------------------------------------------------


async def test_names_are_told_in_both_dialects() -> None:
    async with (
        a_guarded_relay(secret=None) as port,
        client(port, "guest", query="&session_id=kitchen") as nameless,
        client(port, "guest", query="&session_id=kitchen&name=%20Ann%0A%20B.") as ann,
    ):
        await nameless.ask("hello")
        async with chat(port, "kitchen") as reader:
            await ann.send(type="typing_start")
            assert (await reader.get("user_typing"))["name"] == "Ann B."
            typing = await nameless.until(lambda said: said.get("type") == "typing")
            assert typing[-1]["name"] == "Ann B."
            await ann.say("hi")
            assert (await reader.get("message_added"))["name"] == "Ann B."
            message = await nameless.until(lambda said: said.get("type") == "message")
            assert message[-1]["name"] == "Ann B."
            async with asyncio.timeout(60):
                while not (joined := [said for said in nameless.presence if "names" in said]):
                    await taken(nameless)
            assert joined[0]["names"] == {ann.hello["connection_id"]: "Ann B."}
            await nameless.say("you")
            assert "name" not in await reader.get("message_added")
            await ann.socket.close()
            assert (await reader.get("user_disconnected"))["name"] == "Ann B."


async def test_a_name_in_the_token_is_not_chosen() -> None:
    async with (
        a_guarded_relay() as port,
        client(port, **with_token(token())) as one,
        client(port, query="&name=Bob", **with_token(token(name="Ann" * 50))) as other,
    ):
        await other.send(type="typing_start")
        typing = await one.until(lambda said: said.get("type") == "typing")
        assert typing[-1]["name"] == ("Ann" * 50)[:64]
