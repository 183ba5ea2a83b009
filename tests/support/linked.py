"""A link of the terminal client without a terminal: what it reports, and its state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from adk_relay.client.link import Link
from adk_relay.client.state import State
from support.process import HANGS


class Reports:
    """A view that keeps what it was told."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.problems: list[str] = []
        self.lines: list[tuple[str, str]] = []
        self.answers: list[str] = []
        self.sources_shown: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self._answer = ""
        self._news = asyncio.Event()

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self._news.set()

    def problem(self, text: str) -> None:
        self.problems.append(text)
        self._news.set()

    def line(self, who: str, text: str, name: str = "") -> None:
        self.lines.append((who, text))
        self._news.set()

    def chunk(self, text: str, *, mine: bool) -> None:
        self._answer += text
        self._news.set()

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        self.answers.append(self._answer + rest)
        self._answer = ""
        self._news.set()

    def sources(self, lines: list[str]) -> None:
        self.sources_shown += lines
        self._news.set()

    def call(self, question: str, how: str) -> None:
        self.calls.append((question, how))
        self._news.set()

    def typing(self, who: str, typing: bool) -> None:
        self._news.set()

    def changed(self) -> None:
        self._news.set()

    async def news(self) -> None:
        self._news.clear()
        await self._news.wait()


class Linked:
    """A link, and what it has reported. After each event that is waited for, the link is checked."""

    def __init__(self, link: Link, seen: Reports) -> None:
        self.link = link
        self.seen = seen

    async def until(self, happened: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(HANGS):
                while not happened():
                    await self.seen.news()
        except TimeoutError:
            raise AssertionError((self.link.state, vars(self.seen))) from None
        await asyncio.sleep(0)  # what was reported in the middle of a step: the step ends first
        self.link.check()

    def stands(self, state: State) -> None:
        """The link is in that state now."""
        assert self.link.state is state
        self.link.check()

    async def becomes(self, state: State) -> None:
        await self.until(lambda: self.link.state is state)
