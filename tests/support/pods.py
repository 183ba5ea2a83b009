"""Several relays on one bus, each with sockets, conversations, or both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.sessions import InMemorySessionService

from adk_relay.adk.conversation import Conversation
from adk_relay.core.interfaces import default_id
from adk_relay.wire.asgi import Receive, Scope, Send
from relay import Relay
from support.gemini import GeminiLive
from support.process import SERVE, Process, warm_relay
from support.redis_server import RedisServer, until
from support.server import serving


class Pod:
    """One of them."""

    def __init__(self, relay: Relay, port: int) -> None:
        self.relay = relay
        self.port = port

    @property
    def active(self) -> int:
        """How many conversations run here."""
        return self.relay.conversations.active


class All:
    """The conversations of several relays, for tests that look into them."""

    def __init__(self, relays: list[Relay]) -> None:
        self._relays = relays
        self.app_name = relays[0].conversations.app_name
        self.service = relays[0].conversations.service
        """All have the same sessions."""

    @property
    def active(self) -> int:
        """How many run."""
        return sum(relay.conversations.active for relay in self._relays)

    async def open(self, user_id: str) -> Conversation:
        """The default conversation of a user, as soon as it runs."""

        def running() -> list[Conversation]:
            found = (relay.conversations._open.get(default_id(user_id)) for relay in self._relays)
            return [each for each in found if each]

        await until(lambda: bool(running()))
        return running()[0]


class Spread:
    """Two relays with sockets and two with conversations, as one application: each request, and each socket,
    goes to another of the first two."""

    def __init__(self, url: str, agent: Any, **settings: Any) -> None:
        if settings.get("sessions", "memory://") == "memory://":
            settings["sessions"] = InMemorySessionService()
        options: dict[str, Any] = {"bus": url, "app_name": "tester"} | settings
        self.web = [Relay(None, role="web", **options) for _ in range(2)]
        self.workers = [Relay(agent, role="worker", **options) for _ in range(2)]
        self._turns = cycle(self.web)
        self.conversations = All(self.workers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await next(self._turns)(scope, receive, send)
            return
        await receive()
        async with AsyncExitStack() as stack:
            for relay in (*self.workers, *self.web):
                await stack.enter_async_context(relay)
            for relay in (*self.workers, *self.web):
                await until(relay.served.is_ready)
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def pods(
    redis: RedisServer, folder: Path, *roles: str, agent: Any = None, **settings: Any
) -> AsyncIterator[list[Pod]]:
    """Relays of these roles, in this process, on one store. They are ready."""
    options: dict[str, Any] = {
        "sessions": f"sqlite:///{folder}/sessions.db",
        "grace": 0,
        "bus": redis.url,
        "app_name": "tester",
        "drain": 0.5,
    }
    options |= settings
    async with AsyncExitStack() as stack:
        found = []
        for role in roles:
            model = agent or LlmAgent(name="tester", model="gemini-3.8-live")
            relay = Relay(None if role == "web" else model, role=role, **options)
            found.append(Pod(relay, await stack.enter_async_context(serving(relay))))
        for pod in found:
            await until(pod.relay.served.is_ready)
        yield found


@asynccontextmanager
async def worker(redis: RedisServer, gemini: GeminiLive, folder: Path) -> AsyncIterator[Process]:
    """A worker that is a process of its own."""
    settings = {
        "RELAY_ROLE": "worker",
        "RELAY_BUS": redis.url,
        "RELAY_SESSIONS": f"sqlite:///{folder}/sessions.db",
        "RELAY_APP_NAME": "tester",
        "RELAY_DRAIN": "5",
    }
    async with warm_relay(SERVE, folder, **gemini.env, **settings) as process:
        await process.started()
        yield process
