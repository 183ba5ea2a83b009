"""Clients and checks of the HTTP interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from google.adk.agents import LlmAgent

from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time
from support.client import Json

STATIC = Path(__file__).parent.parent.parent / "static"
API: Json = json.loads((STATIC / "openapi.json").read_text())

SUMMARY = {
    *("session_id", "model", "message_count", "duration_minutes", "connected_clients"),
    *("created_at", "last_activity"),
}

SESSION = {
    *("session_id", "model", "message_count", "session_duration_seconds", "user_messages", "model_messages"),
    *("created_at", "first", "history", "pending", "state"),
}

COUNTS = {
    *("model", "uptime_seconds", "total_requests", "successful_requests", "failed_requests"),
    *("active_sessions", "websocket_connections"),
}

SHARED = {"process", "processes"}
"""There are these, too, where several processes share conversations."""

STATS = COUNTS | {"average_response_time", "start_time", "total_sessions_created"}


def rehearsal(words_per_second: float = 40) -> LlmAgent:
    """The rehearsal agent, with a high speed."""
    model = Rehearsal(pace=50, words_per_second=words_per_second)
    return LlmAgent(name="tester", model=model, tools=[get_current_time])


def is_now(timestamp: str) -> bool:
    """Whether a timestamp is ISO 8601, in UTC, and not older than this test."""
    when = datetime.fromisoformat(timestamp)
    return when.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - when) < timedelta(minutes=2)


def refused(response: httpx.Response, status: int) -> str:
    """The detail of an error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    said = response.json()
    assert said.keys() == {"detail"}
    detail: str = said["detail"]
    assert detail
    return detail


async def say(web: httpx.AsyncClient, session_id: str, message: str) -> Json:
    response = await web.post("/api/v1/chat", json={"session_id": session_id, "message": message})
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


async def get(web: httpx.AsyncClient, path: str) -> Json:
    response = await web.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    said: Json = response.json()
    return said


async def stats_when(web: httpx.AsyncClient, **counts: int) -> Json:
    """The statistics, as soon as they have these values."""
    async with asyncio.timeout(60):
        while True:
            stats = await get(web, "/stats")
            if counts.items() <= stats.items():
                return stats
            await asyncio.sleep(0.01)


async def all_ended(web: httpx.AsyncClient, requests: int) -> tuple[int, int]:
    """Waits until so many requests are over; returns how many were successful, and how many failed."""
    async with asyncio.timeout(60):
        while True:
            stats = await get(web, "/stats")
            ended = stats["successful_requests"], stats["failed_requests"]
            assert stats["total_requests"] <= requests
            if sum(ended) == requests:
                return ended
            await asyncio.sleep(0.01)


def untimed(history: list[Json]) -> list[Json]:
    """Messages without their times, which ADK and relay do not note at the same moment."""
    return [{name: value for name, value in line.items() if name != "timestamp"} for line in history]


@asynccontextmanager
async def events(web: httpx.AsyncClient, session_id: str, message: str) -> AsyncIterator[AsyncIterator[Json]]:
    """The answer as it is streamed."""
    body = {"session_id": session_id, "message": message}
    headers = {"accept": "text/event-stream"}
    async with web.stream("POST", "/api/v1/chat", json=body, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"

        async def read() -> AsyncIterator[Json]:
            name = data = ""
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif line == "" and data:
                    event = json.loads(data)
                    assert event["type"] == name
                    yield event
                    name = data = ""
            assert data == ""  # a stream that is cut in the middle of an event has failed

        yield read()


CHAT = "/api/v1/chat"
