"""Browsers with a microphone, each for all tests of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from support.browser import Chromium
from support.firefox import Firefox, firefox
from support.gemini import GeminiLive
from support.microphone import Microphone
from support.pulse import Pulse
from support.pulse import pulse as started_pulse
from support.server import stand_in
from support.webkit import WebKit, webkit


@pytest.fixture(scope="session")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("microphone") / "heard.wav"


@pytest.fixture(autouse=True)
def microphone(wav: Path) -> Microphone:
    return Microphone(wav)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kept_browser(wav: Path) -> AsyncIterator[Chromium]:
    """To start a browser takes seconds: it is kept for the tests that follow, of other files too."""
    source = f"--use-file-for-fake-audio-capture={wav}%noloop"  # after the file, silence
    given = ("--use-fake-device-for-media-stream=device-count=2", "--use-fake-ui-for-media-stream")
    async with Chromium(*given, source) as kept:
        yield kept


@pytest_asyncio.fixture(loop_scope="session")
async def browser(kept_browser: Chromium) -> Browser:
    """Chromium with that microphone, and a user who lets every page have it.

    Each test opens contexts of its own in it, and closes them.
    """
    return await kept_browser.running()


@pytest_asyncio.fixture(loop_scope="session")
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in that all tests have, in the browser's event loop."""
    async with stand_in(monkeypatch) as service:
        yield service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pulse(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pulse]:
    """The microphone and the loudspeaker of the browsers that are not Chromium."""
    async with started_pulse(tmp_path_factory.mktemp("pulse")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["firefox", "webkit"])
async def other(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pulse: Pulse
) -> AsyncIterator[Firefox | WebKit]:
    """A browser that is not Chromium."""
    folder = tmp_path_factory.mktemp(request.param)
    start = firefox if request.param == "firefox" else webkit
    async with start(folder, pulse.environment) as running:
        yield running
