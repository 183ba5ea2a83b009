"""What conversations are called: the titles that users give them, and how they began."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from support.api import get, refused, rehearsal, say, stats_when
from support.chat import chat, guest, http
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving
from support.tokens import SECRET, token, web

ALICE = "/sessions/live-alice?user_id=alice"

pytestmark = pytest.mark.usefixtures("no_errors")


async def listed(web: httpx.AsyncClient, user: str) -> list[Json]:
    found: list[Json] = (await get(web, f"/sessions?user_id={user}"))["sessions"]
    return found


async def called(web: httpx.AsyncClient, user: str = "alice") -> list[tuple[str, str]]:
    """The title and the first text of each of a user's conversations."""
    return [(one.get("title", ""), one.get("first_text", "")) for one in await listed(web, user)]


async def rename(web: httpx.AsyncClient, title: object, path: str = ALICE) -> Json:
    response = await web.patch(path, json={"title": title})
    assert response.status_code == 200, response.text
    told: Json = response.json()
    return told


async def renamed(who: Client) -> str:
    title: str = (await who.until(lambda said: said.get("type") == "renamed"))[-1]["title"]
    return title


@pytest.mark.bus
async def test_a_conversation_has_a_title_as_long_as_it_is_there(gemini: GeminiLive, tmp_path: Path) -> None:
    """Given while a run has the session, in the middle of an answer, and while nobody is there."""
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        await go_on.wait()
        await connection.say(" two.")

    gemini.answer = answer
    sessions = f"sqlite:///{tmp_path}/s.db"
    long = "a long\n text " * 20
    async with serving(a_relay(sessions=sessions)) as port, http(port) as web:
        async with (
            client(port, query="&after=0.0") as first,
            client(port, query="&session_id=live-alice") as other,
        ):
            assert "title" not in first.hello
            refused(await web.patch(ALICE, json={"title": "too early"}), 404)
            await first.say(long)
            await first.until(lambda said: said.get("data") == "One")
            [(title, text)] = await called(web)
            assert (title, text) == ("", "a long text " * 6 + "a long…")
            assert await rename(web, " On\nnumbers ") == {"session_id": "live-alice", "title": "On numbers"}
            assert [await renamed(first), await renamed(other)] == ["On numbers"] * 2
            go_on.set()
            assert (await first.turn())[-1]["turn_complete"]
            await other.ask("again")  # the run still has the session
            async with client(port) as late:
                assert late.hello["title"] == "On numbers"
        await stats_when(web, active_sessions=0)
        used = (await listed(web, "alice"))[0]["last_activity"]
        assert await rename(web, "Numbers")  # nobody is there
        await stats_when(web, active_sessions=0)
        assert (await listed(web, "alice"))[0]["last_activity"] == used
        assert (await get(web, ALICE))["title"] == "Numbers"
    async with serving(a_relay(sessions=sessions)) as port, http(port) as web:
        assert await called(web) == [("Numbers", text)]
        async with client(port, query="&after=0.0") as who:
            assert who.hello["title"] == "Numbers"
            assert await who.ask("and") == "One two."
            assert (await web.post(ALICE.replace("?", "/clear?"))).status_code == 200
            await who.until(lambda said: said.get("type") == "cleared")
            await who.ask("after")
            assert await called(web) == [("Numbers", "after")]
        await stats_when(web, active_sessions=0)
        async with client(port) as who:
            assert await called(web) == [("Numbers", "after")]
            await rename(web, "")
            assert await renamed(who) == ""
            assert await called(web) == [("", "after")]
            await rename(web, "Last")
        async with client(port) as who:
            assert who.hello["title"] == "Last"
            assert (await web.delete(ALICE)).status_code == 200
            await who.until(lambda said: said.get("type") == "deleted")
            await who.ask("begun anew")
            assert await called(web) == [("", "begun anew")]


@pytest.mark.bus
async def test_rooms_are_told_and_long_conversations_know_how_they_began(
    sessions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.session._RECENT", 4)
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        await say(web, "kitchen", "The first")
        for number in range(3):
            await say(web, "kitchen", f"{number}")
        async with chat(port, "kitchen") as room, guest(port, "kitchen") as live:
            await rename(web, "Kitchen", "/sessions/kitchen")
            assert (await room.get("session_renamed"))["title"] == "Kitchen"
            assert await renamed(live) == "Kitchen"
            async with chat(port) as other:
                assert (await other.join("kitchen"))["title"] == "Kitchen"
            assert await called(web, "guest") == [("Kitchen", "The first")]
        assert await called(web, "guest") == [("Kitchen", "The first")]


@pytest.mark.bus
async def test_the_user_is_named_where_nobody_signs_in() -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        for user in ("alice", "bob"):
            async with client(port, user, query="&session_id=" + f"of-{user}") as who:
                await who.ask(f"I am {user}")
        assert [one["session_id"] for one in await listed(web, "alice")] == ["of-alice"]
        assert (await get(web, "/sessions"))["sessions"] == []
        for path in ("/sessions/of-bob?user_id=alice", "/sessions/of-bob"):
            refused(await web.get(path), 404)
            refused(await web.patch(path, json={"title": "mine"}), 404)
            refused(await web.delete(path), 404)
        assert (await web.delete("/sessions/of-bob?user_id=bob")).status_code == 200
        assert await listed(web, "bob") == []
        assert "user_id" in refused(await web.get("/sessions?user_id=a/b"), 400)


async def test_the_user_of_a_token_is_the_one_in_it() -> None:
    async with (
        serving(a_relay(rehearsal(), secret=SECRET)) as port,
        web(port, token("alice")) as alice,
        web(port, token("bob")) as bob,
    ):
        await say(alice, "hers", "Hello")
        assert [one["session_id"] for one in await listed(alice, "bob")] == ["hers"]
        assert await listed(bob, "alice") == []
        refused(await bob.patch("/sessions/hers?user_id=alice", json={"title": "mine"}), 404)
        invitation = (await alice.post("/sessions/hers/invite", json={})).json()["token"]
        async with web(port, invitation) as invited:
            refused(await invited.patch("/sessions/hers", json={"title": "mine"}), 403)
        assert await rename(alice, "Hers", "/sessions/hers")


@pytest.mark.parametrize("body", [{}, {"title": 1}, {"title": None}, {"title": "x" * 81}, {"name": "x"}])
async def test_a_title_that_is_none(body: Json) -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        await say(web, "kitchen", "Hello")
        assert "title" in refused(await web.patch("/sessions/kitchen", json=body), 400)


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "sqlite+aiosqlite"])
async def test_titles_are_given_while_runs_begin_and_end(scheme: str, tmp_path: Path) -> None:
    """Whoever writes into the session meanwhile, nothing is lost, and the last title counts."""
    sessions = "memory://" if scheme == "memory" else f"{scheme}:///{tmp_path}/s.db"
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        titles = [f"title {number}" for number in range(15)]

        async def name_it() -> None:
            for title in titles:
                await rename(web, title)

        async with client(port) as who:
            await who.ask("first")
        naming = asyncio.create_task(name_it())
        said = ["first"]
        while not naming.done():
            async with client(port) as who:
                said.append(f"text {len(said)}")
                await who.ask(said[-1])
        await naming
        read = await get(web, ALICE)
        assert [line["text"] for line in read["history"] if line["role"] == "user"] == said
        assert read["title"] == titles[-1]
        assert datetime.fromisoformat(read["created_at"])


async def test_ids_that_the_server_makes_can_be_said(monkeypatch: pytest.MonkeyPatch, sessions: str) -> None:
    told = iter(["calm-owl-10", "calm-owl-10", "calm-owl-10", "calm-owl-11"])
    async with (
        serving(a_relay(rehearsal(), secret=SECRET, sessions=sessions)) as port,
        web(port, token("alice")) as alice,
        web(port, token("bob")) as bob,
    ):
        made = (await alice.post("/sessions/new")).json()["session_id"]
        assert re.fullmatch("[a-z]+-[a-z]+-[0-9]{2}", made)
        monkeypatch.setattr("adk_relay.adk.ids.sayable", lambda: next(told, "calm-owl-10"))
        made = [(await who.post("/sessions/new")).json()["session_id"] for who in (alice, bob, bob)]
        assert made[:2] == ["calm-owl-10", "calm-owl-11"]  # no two users have the same
        assert re.fullmatch("[0-9a-f]{32}", made[2])  # none was left


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "sqlite+aiosqlite"])
async def test_titles_are_given_while_a_conversation_is_emptied(scheme: str, tmp_path: Path) -> None:
    """One comes after the other, and no session is made in between."""
    sessions = "memory://" if scheme == "memory" else f"{scheme}:///{tmp_path}/s.db"
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        async with client(port) as who:
            for number in range(6):
                await who.ask("before")
                clearing = asyncio.create_task(web.post(ALICE.replace("?", "/clear?")))
                naming = [asyncio.create_task(rename(web, f"title {number}.{each}")) for each in range(6)]
                assert (await clearing).status_code == 200
                told = [await each for each in naming]
                assert {each["title"] for each in told} == {f"title {number}.{each}" for each in range(6)}
                read = await get(web, ALICE)
                assert read["history"] == []
                assert re.fullmatch(rf"title {number}\.\d", read["title"])
            await who.ask("after")
            title = (await get(web, ALICE))["title"]
        await stats_when(web, active_sessions=0)
        assert await called(web) == [(title, "after")]
