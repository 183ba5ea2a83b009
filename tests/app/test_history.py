"""What a history tells besides the words: times, tools, what was interrupted and what was not answered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.tools.long_running_tool import LongRunningFunctionTool

from support.api import get, stats_when, untimed
from support.chat import http
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

GUEST = "/sessions/live-guest"


def clock(zone: str) -> dict[str, Any]:
    """Tells the time."""
    return {"time": "noon", "zone": zone, "more": "x" * 10_000 if zone == "long" else ""}


def ask_manager(amount: int) -> None:
    """Asks the manager."""


def an_agent() -> LlmAgent:
    return LlmAgent(
        name="tester", model="gemini-3.8-live", tools=[clock, LongRunningFunctionTool(ask_manager)]
    )


async def answer(connection: Connection, turn: UserTurn) -> None:
    match turn.text:
        case "time":
            await connection.call_tool("clock", {"zone": "Tokyo"})
            await connection.say("It is noon.")
        case "times":
            await connection.say("Let me see.", complete=False)
            await connection.call_tool("clock", {"zone": "long"})
            await connection.say(" It is late.")
        case "nothing":
            await connection.call_tool("clock", {"zone": "lost"})
            await asyncio.Event().wait()
        case "count":
            await connection.say("One two", complete=False)
            await asyncio.Event().wait()
        case "manager":
            await connection.call_tool("ask_manager", {"amount": 5})
            await connection.say("I have asked.")
        case text:
            await connection.say(f"You said: {text}.")


async def whole(alice: Client) -> list[Json]:
    """The messages that a client gets when it comes."""
    gap = await alice.next()
    assert gap["type"] == "gap", gap
    return [await alice.next() for _ in range(gap["messages"])]


def used(tool_id: str, zone: str, **more: Any) -> Json:
    result = {"time": "noon", "zone": zone, "more": ""}
    call = {"tool_id": tool_id, "tool_name": "clock", "arguments": {"zone": zone}, "result": result}
    return call | more


def is_two(said: Json) -> bool:
    return str(said.get("data", "")).endswith("two")


async def say(guest: Client, text: str) -> None:
    """Says a text, which interrupts the answer before, and waits for the end of its own."""
    await guest.say(text)
    await guest.until(lambda said: bool(said.get("turn_complete")))


async def converse(guest: Client) -> None:
    for text in ("time", "times"):
        await guest.ask(text)
    await guest.say("nothing")
    await guest.until(lambda said: said.get("type") == "tool_complete")
    await guest.say("count")
    await guest.until(is_two)
    await say(guest, "stop")
    await guest.say("count")
    await guest.until(is_two)
    await guest.send(type="interrupt")
    await guest.until(lambda said: bool(said.get("interrupted")))
    await say(guest, "manager")
    (asked,) = [said for said in guest.frames if said.get("pending")]
    await guest.send(type="tool_result", tool_id=asked["tool_id"], result={"approved": True})
    await guest.until(lambda said: bool(said.get("turn_complete")))


@pytest.mark.bus
@pytest.mark.usefixtures("no_errors")
async def test_a_history_has_times_tools_and_what_was_interrupted(
    gemini: GeminiLive, sessions: str, tmp_path: Path
) -> None:
    """In memory and, afterwards, from the session."""
    gemini.answer = answer
    began = datetime.now(UTC)
    async with serving(a_relay(an_agent(), sessions=sessions)) as port, http(port) as web:
        async with client(port, "guest") as guest:
            await converse(guest)
            in_memory = (await get(web, GUEST))["history"]
            async with client(port, "guest", query="&after=0.0") as second:
                on_the_wire = await whole(second)
        await stats_when(web, active_sessions=0)
        kept = (await get(web, GUEST))["history"]
    assert [line["text"] for line in kept] == [
        *("time", "It is noon.", "times", "Let me see. It is late.", "nothing", "count", "One two"),
        *("stop", "You said: stop.", "count", "One two", "manager", "I have asked."),
    ]
    assert untimed(kept) == untimed(in_memory)
    assert [{key: line[key] for key in line.keys() - {"type"}} for line in on_the_wire] == in_memory
    for line in [*kept, *in_memory]:
        assert began - timedelta(seconds=1) < datetime.fromisoformat(line["timestamp"]) < datetime.now(UTC)
    noon, late, manager = (line["tools"] for line in kept if "tools" in line)
    assert noon == [used(noon[0]["tool_id"], "Tokyo")]
    (long,) = late
    assert long["truncated"] and len(long["result"]) == 4096 and long["arguments"] == {"zone": "long"}
    assert [(call["tool_name"], call["result"]) for call in manager] == [("ask_manager", {"approved": True})]
    assert "pending" not in manager[0]
    assert [line["text"] for line in kept if "interrupted" in line] == ["One two", "One two"]
    assert not [line for line in kept if "unanswered" in line]


async def test_an_answer_that_a_user_has_stopped_is_marked_though_the_model_goes_on(
    gemini: GeminiLive,
) -> None:
    stopped = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "count":
            return await connection.say(f"You said: {turn.text}.")
        await connection.say("One two", complete=False)
        await stopped.wait()
        await connection.say(" three.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        async with client(port, "guest") as guest:
            await guest.say("count")
            await guest.until(is_two)
            await guest.send(type="interrupt")
            await guest.until(lambda said: bool(said.get("interrupted")))
            stopped.set()
            await gemini.wait_for(lambda: not gemini.connections[0].turn_open)
            await say(guest, "more")
        await stats_when(web, active_sessions=0)
        kept = (await get(web, GUEST))["history"]
    assert ["interrupted" in line for line in kept] == [False, True, False, False]
