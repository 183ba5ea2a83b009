"""Fixtures that all tests share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from support.gemini import GeminiLive
from support.invariants import collected
from support.server import stand_in


@pytest.fixture(autouse=True)
def invariants() -> Iterator[None]:
    """In every test, relay's objects check their invariants after each call."""
    yield from collected()


@pytest.fixture
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in, in the test's own event loop."""
    async with stand_in(monkeypatch) as service:
        yield service


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """relay tries again at once; how long it waits is the library's affair."""
    monkeypatch.setattr("adk_relay.adk.runs.wait_random_exponential", lambda **_: lambda _state: 0.01)


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is worth an error in the server's log."""
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert [(record.name, record.getMessage(), record.exc_text) for record in errors] == []
