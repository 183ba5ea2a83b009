"""Older messages than those that a client of the live dialect gets when it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adk_relay.adk.archive import Archive
from adk_relay.core.history import KEPT
from support.api import rehearsal
from support.chat import guest, http
from support.client import Client, Json, client
from support.long import message, write
from support.server import a_relay, serving


async def history(alice: Client, before: str) -> tuple[Json, list[str]]:
    """The older messages that a client asks for."""
    await alice.send(type="history", before=before)
    head = await alice.next()
    assert head["type"] == "history", head
    return head, [(await alice.next())["text"] for _ in range(head["messages"])]


async def last(alice: Client) -> tuple[Json, list[str]]:
    """The messages that a client gets when it comes."""
    gap = await alice.next()
    assert gap["type"] == "gap", gap
    return gap, [(await alice.next())["text"] for _ in range(gap["messages"])]


@pytest.mark.bus
@pytest.mark.parametrize("user", ["alice", "guest"])
async def test_all_messages_can_be_read_one_part_after_the_other(user: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, f"live-{user}", 501, app_name="tester", user_id=user)
    relay = a_relay(rehearsal(), grace=60, sessions=f"sqlite:///{path}")
    async with serving(relay) as port, client(port, user, query="&after=0.0") as alice:
        head, texts = await last(alice)
        assert texts == [message(n) for n in range(502 - KEPT, 502)]
        await alice.ask("Hello.")  # what is said meanwhile moves nothing
        while older := head.get("older"):
            head, more = await history(alice, older)
            assert 0 < len(more) <= 50
            texts = [*more, *texts]
        assert texts == [message(n) for n in range(1, 502)]
        async with client(port, user, query="&after=0.0") as second:
            head, texts = await last(second)
            assert (len(texts), texts[-2]) == (KEPT, "Hello.")
            _, more = await history(second, head["older"])
            assert more[-1] == message(501 - KEPT + 2)


async def test_a_short_conversation_has_no_older_messages(tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "live-alice", KEPT, app_name="tester", user_id="alice")
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{path}")
    async with serving(relay) as port, client(port, query="&after=0.0") as alice:
        gap, texts = await last(alice)
        assert "older" not in gap
        assert len(texts) == KEPT


@pytest.mark.bus
async def test_an_emptied_conversation_has_none(tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "long", 400, app_name="tester")
    relay = a_relay(rehearsal(), grace=60, sessions=f"sqlite:///{path}")
    async with serving(relay) as port, guest(port, "long", query="&after=0.0") as live, http(port) as web:
        gap, _ = await last(live)
        (await web.post("/sessions/long/clear")).raise_for_status()
        assert (await live.next())["type"] == "cleared"
        assert await history(live, gap["older"]) == ({"type": "history", "messages": 0}, [])


@pytest.mark.parametrize("before", [None, 7, "", "x", "x.y", "x.1.5", f"{'x' * 65}.1", "x.9999999999", ".1"])
async def test_a_bad_place_is_refused(before: Any) -> None:
    async with serving(a_relay(rehearsal())) as port, client(port) as alice:
        await alice.send(type="history", before=before)
        assert (await alice.next())["code"] == "bad_data"


async def test_a_store_that_fails_is_told_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "live-alice", 400, app_name="tester", user_id="alice")
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{path}")
    async with serving(relay) as port, client(port, query="&after=0.0") as alice:
        gap, _ = await last(alice)
        with monkeypatch.context() as broken:
            broken.setattr(Archive, "count", _fail)
            await alice.send(type="history", before=gap["older"])
            assert (await alice.next())["code"] == "history_failed"
        assert (await history(alice, gap["older"]))[1][-1] == message(400 - KEPT)


async def test_a_count_that_failed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "long", 400, app_name="tester")
    async with serving(a_relay(rehearsal(), sessions=f"sqlite:///{path}")) as port, http(port) as web:
        hello = {"session_id": "long", "message": "Hello."}
        with monkeypatch.context() as broken:
            broken.setattr(Archive, "count", _fail)
            assert (await web.post("/api/v1/chat", json=hello)).status_code == 500
        (await web.post("/api/v1/chat", json=hello)).raise_for_status()
        assert (await web.get("/sessions/long")).json()["message_count"] == 402


async def test_a_conversation_may_take_long_to_be_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody attends it until it is counted, but somebody is about to."""
    monkeypatch.setattr("adk_relay.adk.attendance._UNATTENDED", 0.0)
    path = f"{tmp_path}/s.db"
    await write(path, "long", 20_000, app_name="tester")
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{path}")
    async with serving(relay) as port, guest(port, "long", query="&after=0.0") as live:
        assert (await last(live))[1][-1] == message(20_000)


async def _fail(*_: object, **__: object) -> None:
    raise OSError("No space left on device")
