"""One text in, one answer out: the client in a pipe."""

from __future__ import annotations

import asyncio
import sys

from adk_relay.client.link import Link
from adk_relay.client.view import Problem


class Pipe:
    """A view that prints the answer to one text as it comes, and nothing else, on stdout."""

    def __init__(self, prog: str) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._prog = prog
        self._line_is_open = False
        self.question = ""  # what a tool call asks that waits for the user
        self.has_answer = False

    def notice(self, text: str) -> None:
        print(f"{self._prog}: {text}", file=sys.stderr)

    def problem(self, text: str) -> None:
        if self._line_is_open:
            self.chunk("\n", mine=True)  # so that the error on stderr begins a new line
        self._finish(Problem(text))

    def line(self, speaker: str, text: str, name: str = "") -> None:
        pass

    def chunk(self, text: str, *, mine: bool) -> None:
        if mine and not self.done.done():
            self.has_answer = True
            try:
                print(text, end="", flush=True)
                self._line_is_open = not text.endswith("\n")
            except OSError as error:  # nobody reads stdout any more
                self._finish(error)

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        if rest or self.has_answer or not self.question:
            self.chunk(f"{rest}\n", mine=mine)
        if mine:
            self._finish(Problem("The answer was interrupted.") if interrupted else None)

    def sources(self, lines: list[str]) -> None:
        pass

    def call(self, question: str, how: str) -> None:
        self.question = question

    def typing(self, connection_id: str, typing: bool) -> None:
        pass

    def changed(self) -> None:
        pass

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)


async def pipe(
    url: str,
    session_id: str | None,
    text: str,
    prog: str = "relay-client",
    token: str = "",
    name: str = "",
) -> int:
    """Sends `text` and prints the answer; returns the exit code.

    Raises:
        Problem: there is no answer, or not the whole of it.
        OSError: nobody reads stdout any more.
    """
    view = Pipe(prog)
    async with Link(url, view, session_id, token=token, name=name, once=True) as link:
        link.ask(text)
        await asyncio.wait([view.done])
    view.done.result()
    if view.question:
        here = f"{prog} --url {url} --session {link.session_id}"
        waits = f"{view.question} Answer at a terminal: {here}"
        if not view.has_answer:
            raise Problem(waits)
        view.notice(waits)
    return 0
