"""Fixtures that all tests share."""

from __future__ import annotations

import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from support.invariants import collected

if TYPE_CHECKING:  # it imports ADK, which takes seconds, and the tests of core need none of it
    from support.gemini import GeminiLive
    from support.redis_server import SharedRedis

# How long one example takes says more about the machine than about the code.
hypothesis.settings.register_profile("relay", deadline=None)
hypothesis.settings.load_profile("relay")


# A shell that starts the tests in the background lets them ignore Ctrl-C, and so all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not look through it again in each test."""
    gc.collect()
    gc.freeze()
    gc.collect()  # of nothing: from now on its work depends on what is made, and not on what was there


@pytest.fixture(autouse=True)
def invariants() -> Iterator[None]:
    """In every test, relay's objects check their invariants after each call."""
    yield from collected()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """An application that a test starts makes relay's log talk: not in the tests that follow."""
    log = logging.getLogger("relay")
    level = log.level
    yield
    log.setLevel(level)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with the mark "voice" run twice: both ways of sound must lead to the same. Those with the mark
    "bus" run once more, with relays that share a Redis."""
    mark = metafunc.definition.get_closest_marker
    ways = [("short", False), ("long", False)] if mark("voice") else [("short", False)]
    names = ["short", "long"] if mark("voice") else ["alone"]
    if mark("bus") and not mark("alone"):
        ways, names = [*ways, ("short", True)], [*names, "bus"]
    if len(ways) > 1:
        metafunc.parametrize(("sound", "over_bus"), ways, ids=names, indirect=True)


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the way of sound; `a_relay` and the processes of a test read it from the environment."""
    monkeypatch.setenv("RELAY_SOUND", getattr(request, "param", "short"))


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[SharedRedis]:
    """A Redis for all tests that run over the bus in this process."""
    from support.redis_server import shared_redis

    with shared_redis() as server:
        yield server


@pytest.fixture(autouse=True)
def over_bus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets `a_relay` start a `support.pods.Spread`. In the end, nothing is left that would stay for ever.

    Its processes soon know what the others count. None is taken for dead because the machine is slow.
    """
    if not getattr(request, "param", False):
        yield
        return
    redis: SharedRedis = request.getfixturevalue("shared_redis")
    redis.empty()
    monkeypatch.setenv("RELAY_TEST_BUS", redis.url)
    monkeypatch.setattr("adk_relay.bus.census._EVERY", 0.05)
    monkeypatch.setattr("adk_relay.bus.lease._LEASE_MS", 60_000)
    yield
    assert redis.stays() == []


@pytest.fixture
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in, in the test's own event loop."""
    from support.server import stand_in

    async with stand_in(monkeypatch) as service:
        yield service


@pytest.fixture(params=["memory", "sqlite"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where sessions are kept: in memory, and in a file."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """relay tries again at once; how long it waits is the library's affair."""
    monkeypatch.setattr("adk_relay.adk.runs.wait_random_exponential", lambda **_: lambda _state: 0.01)


@pytest.fixture
def small_send_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the server's sockets a small send buffer; the kernel's own takes megabytes on the loopback."""
    create_server = socket.create_server

    def create(address: tuple[str, int]) -> socket.socket:
        listener = create_server(address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        return listener

    monkeypatch.setattr("socket.create_server", create)


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a client does is worth an error in the server's log."""
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert [(record.name, record.getMessage(), record.exc_text) for record in errors] == []
