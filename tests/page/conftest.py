"""A browser with a microphone, for all tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from support.browser import chromium
from support.gemini import GeminiLive
from support.microphone import Microphone
from support.server import stand_in


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("microphone") / "heard.wav"


@pytest.fixture(autouse=True)
def microphone(wav: Path) -> Microphone:
    return Microphone(wav)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(wav: Path) -> AsyncIterator[Browser]:
    """Chromium with that microphone. It is given to whoever may have it, and to others refused."""
    source = f"--use-file-for-fake-audio-capture={wav}%noloop"  # after the file, silence
    async with chromium("--use-fake-device-for-media-stream", source) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in that all tests have, in the browser's event loop."""
    async with stand_in(monkeypatch) as service:
        yield service
