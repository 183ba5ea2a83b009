"""A stored conversation of many messages, and how long the event loop is held up."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from google.adk.events import Event
from google.genai import types

from adk_relay.adk.reading import CREATED_AT
from adk_relay.adk.store import session_service


def message(number: int) -> str:
    """The text of a message, by its number from 1."""
    return f"message {number} " + "word " * 30


async def write(path: str, session_id: str, messages: int, *, app_name: str, user_id: str = "guest") -> None:
    """Stores a conversation in a sqlite file: questions and answers in turn, one a second until now."""
    service = session_service(f"sqlite:///{path}")
    await service.create_session(
        app_name=app_name, user_id=user_id, session_id=session_id, state={CREATED_AT: 1.0}
    )
    await service.close()  # type: ignore[attr-defined]
    end = time.time() - 3600
    kinds = []
    for role, author in (("user", "user"), ("model", "tester")):
        content = types.Content(role=role, parts=[types.Part(text="TEXT")])
        event = Event(author=author, invocation_id="i", id="ID", timestamp=0.125, content=content)
        kinds.append(event.model_dump_json(exclude_none=True))
    rows = []
    for number in range(1, messages + 1):
        when = end - messages + number
        data = kinds[1 - number % 2].replace("TEXT", message(number)).replace('"ID"', f'"e{number}"')
        data = data.replace("0.125", repr(when))
        rows.append((f"e{number}", app_name, user_id, session_id, "i", when, data))
    database = sqlite3.connect(path)
    database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute("UPDATE sessions SET update_time = ? WHERE id = ?", (end, session_id))
    database.commit()
    database.close()


@contextmanager
def longest_step() -> Iterator[list[float]]:
    """Yields a list of one number: the longest step of the event loop, in seconds of processor time.

    Other processes and threads don't count.
    """
    steps: list[float] = [0.0]
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(handle)
        steps[0] = max(steps[0], time.thread_time() - begun)

    gc.collect()
    gc.freeze()  # as `relay serve` does: to look through all that is loaded takes a tenth of a second
    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield steps
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
