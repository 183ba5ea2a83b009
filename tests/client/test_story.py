"""The link against a real relay, whatever its user does and however its sockets are closed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from itertools import count
from typing import Any

from google.adk.agents import LlmAgent
from hypothesis import given, settings
from hypothesis import strategies as st

from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.client.link import Link
from adk_relay.client.state import State
from adk_relay.core.visitor import GUEST
from relay import Relay
from support.linked import Linked, Reports
from support.server import a_relay, serving

Event = MutableMapping[str, Any]

CLOSES = [1001, 1012, 1011, 4408, 4410]
STEPS = st.lists(
    st.sampled_from(["ask", "ask", "new", "disconnect", "connect", "rest", "rest"]) | st.sampled_from(CLOSES),
    max_size=12,
)


class Closer:
    """A relay whose newest WebSocket can be closed from here."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._close: Callable[[int], Awaitable[None]] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_open = False

        async def pass_on(event: Event) -> None:
            nonlocal is_open
            if event["type"] == "websocket.accept":
                is_open = True
            elif event["type"].startswith("websocket.") and not is_open:
                return  # the server takes nothing after a close
            await send(event)

        async def close(code: int) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                with suppress(OSError):  # the client has left already
                    await send({"type": "websocket.close", "code": code, "reason": ""})

        if scope["type"] == "websocket":
            self._close = close
        await self.relay(scope, receive, pass_on)

    async def close(self, code: int) -> None:
        if self._close:
            await self._close(code)


class Story:
    """Does the steps. The model is the number of texts: each of them ends once, answered or given up."""

    def __init__(self, closer: Closer, linked: Linked) -> None:
        self.closer = closer
        self.linked = linked
        self.numbers = count(1)
        self.asked = 0

    async def do(self, step: str | int) -> None:
        link = self.linked.link
        match step:
            case int(code):
                await self.closer.close(code)
            case "ask":
                self.asked += 1
                link.ask(f"text {next(self.numbers)}")
            case "new":
                await link.new()
            case "disconnect":
                await link.disconnect()
                self.linked.stands(State.DISCONNECTED)
            case "connect":
                link.connect()
            case "rest":
                await self.rest()
        await asyncio.sleep(0)

    async def rest(self) -> None:
        """Until all texts have come to an end, and the link is connected."""
        link, stats = self.linked.link, self.linked.link.stats

        def is_at_rest() -> bool:
            return link.state is State.CONNECTED and stats.succeeded + stats.failed == self.asked

        while not is_at_rest():
            link.connect()  # it does not come back by itself after each close
            await self.linked.until(lambda: is_at_rest() or link.state.is_idle)
        assert stats.messages == self.asked


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_each_text_ends_once_and_is_said_at_most_once(steps: list[str | int]) -> None:
    async def tell() -> None:
        agent = LlmAgent(name="tester", model=Rehearsal(words_per_second=5000, pace=1000))
        closer = Closer(a_relay(agent, grace=5))
        async with serving(closer) as port:
            seen = Reports()
            async with Link(f"http://127.0.0.1:{port}", seen) as link:
                story = Story(closer, Linked(link, seen))
                for step in steps:
                    await story.do(step)
                await story.rest()
                said: Counter[str] = Counter()
                for summary in await closer.relay.conversations.list(GUEST, 1000):
                    _, lines, _ = await closer.relay.conversations.read(GUEST, summary.session_id)
                    said.update(line.text for line in lines if line.role == "user")
                assert not said or max(said.values()) == 1
                assert len(said) <= story.asked
                assert story.asked - len(said) <= link.stats.failed
        assert seen.problems == []

    asyncio.run(tell())
