"""The view for a person at a terminal: messages appear above the input line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from adk_relay.client.link import Link
from adk_relay.client.slash import COMMANDS, Commands

_WIDTH = 11
"""Columns for the name of the speaker."""

_TYPING = 3.0
"""Seconds after the last key until the user counts as not typing any more."""


class Terminal:
    """Shows messages above the input line.

    Complete lines are printed, and scroll away. The last line of an answer that is coming is part of the
    prompt, so that it can grow while the user types below it.
    """

    def __init__(self, url: str, session_id: str | None, token: str = "", name: str = "") -> None:
        self._console = Console(highlight=False, file=sys.stdout)
        self._link = Link(url, self, session_id, token=token, name=name)
        self._open: str | None = None  # the last line of the answer that is coming
        self._speaker = ""  # the name before it, if it is the answer's first line
        self._typists: dict[str, None] = {}
        self._is_typing = False
        self._stop_typing: asyncio.TimerHandle | None = None
        self._lines: list[RenderableType] = []
        self._news = asyncio.Event()
        self._commands = Commands(self._link, self)
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            bottom_toolbar=self._toolbar,
            completer=WordCompleter([f"/{name}" for name in COMMANDS], sentence=True),
            complete_while_typing=False,
            erase_when_done=True,
            history=_history(),
        )
        self._session.default_buffer.on_text_changed += self._typed

    async def run(self) -> int:
        """Talks until the user leaves; returns the exit code."""
        task = asyncio.current_task()
        assert task
        with suppress(NotImplementedError, AttributeError):  # on Windows
            for ending in (signal.SIGTERM, signal.SIGHUP):  # so that the terminal is restored
                asyncio.get_running_loop().add_signal_handler(ending, task.cancel)
        with patch_stdout():
            printing = asyncio.create_task(self._print())
            try:
                async with self._link:
                    self.notice(f"Talking with {self._link.url}. /help lists the commands.")
                    return await self._read()
            finally:
                printing.cancel()
                await asyncio.wait([printing])
                self._break()  # the part of an answer that was shown stays
                for line in self._lines:
                    self._console.print(line)

    async def _read(self) -> int:
        while True:
            try:
                text = await self._session.prompt_async()
            except EOFError:
                return 0
            except KeyboardInterrupt:  # takes back what was typed, or leaves
                if self._session.default_buffer.text:
                    continue
                return 130
            finally:
                self._tell_typing(False)  # `on_text_changed` is not called when a line was entered
            if text.startswith("/"):
                if not await self._commands.run(text[1:]):
                    return 0
            elif text.strip():
                self._say("you", text.strip(), "bold cyan")
                self._link.ask(text.strip())

    # ---- output ----

    def notice(self, text: str) -> None:
        self._say("", text, "dim")

    def problem(self, text: str) -> None:
        self._say("", text, "red")

    def line(self, speaker: str, text: str, name: str = "") -> None:
        if speaker == "agent":
            self._say("agent", text, "bold green")
        else:
            name = name or ("user" if speaker == "user" else self._link.name_of(speaker))
            self._say(name, text, "bold magenta")

    def chunk(self, text: str, *, mine: bool) -> None:
        if self._open is None:
            self._open, self._speaker = "", "agent"
        self._open += text.replace("\t", "    ")
        width = max(self._console.width - _WIDTH - 1, 20)
        while (cut := _cut(self._open, width)) is not None:
            done, self._open = self._open[:cut], self._open[cut:]
            self._put(self._speaker, done.rstrip(), "bold green")
            self._speaker = ""
        self._news.set()

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        if rest or interrupted:
            self.chunk(f"{rest}{' … (cut off)' * interrupted}", mine=mine)
        self._break()

    def sources(self, lines: list[str]) -> None:
        for line in lines:
            self.notice(line)

    def call(self, question: str, how: str) -> None:
        self._say("", question, "yellow")
        self.notice(how)

    def typing(self, connection_id: str, typing: bool) -> None:
        if typing:
            self._typists[connection_id] = None
        elif connection_id:
            self._typists.pop(connection_id, None)
        else:
            self._typists.clear()
        self._news.set()

    def changed(self) -> None:
        self._news.set()

    def _say(self, speaker: str, text: str, style: str) -> None:
        self._break()
        self._put(speaker, text, style)

    def _break(self) -> None:
        """Prints the part of the answer that is in the prompt."""
        if self._open and self._open.strip():
            self._put(self._speaker, self._open.rstrip(), "bold green")
        self._open = None

    def _put(self, speaker: str, text: str, style: str) -> None:
        if not speaker and style in ("dim", "red", "yellow"):
            self._lines.append(Padding(Text(text, style), (0, 0, 0, _WIDTH)))
        else:
            line = Table.grid(expand=False)
            line.add_column(width=_WIDTH, no_wrap=True)
            line.add_column(overflow="fold")
            line.add_row(Text(speaker, style), Text(text))
            self._lines.append(line)
        self._news.set()

    def table(self, rows: Iterable[Iterable[Any]], *head: str) -> None:
        table = Table(*head, box=None, show_header=bool(head), pad_edge=False)
        if table.columns:
            table.columns[0].no_wrap = True  # the others get narrower: an id must not be broken
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._break()
        self._lines.append(table)
        self._news.set()

    async def _print(self) -> None:
        """Prints the lines that wait above the prompt, and draws the prompt again."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._lines:
                lines, self._lines = self._lines, []
                async with in_terminal():
                    for line in lines:
                        self._console.print(line)
            elif self._session.app.is_running:
                self._session.app.invalidate()

    def _prompt(self) -> StyleAndTextTuples:
        growing: StyleAndTextTuples = []
        if self._open or (self._open is not None and self._speaker):
            growing = [("bold ansigreen", f"{self._speaker:{_WIDTH}}"), ("", f"{self._open}\n")]
        return [*growing, ("bold ansicyan", f"{'you':{_WIDTH - 2}}> ")]

    def _toolbar(self) -> StyleAndTextTuples:
        link = self._link
        parts = [link.state, link.model, link.session_id or "no conversation yet"]
        if self._typists:
            names = ", ".join(self._link.name_of(typist) for typist in self._typists)
            parts.append(f"{names} {'is' if len(self._typists) == 1 else 'are'} typing…")
        return [("", " " + " · ".join(part for part in parts if part))]

    # ---- input ----

    def _typed(self, buffer: Buffer) -> None:
        """Tells the others that the user types, until some seconds after the last key."""
        is_typing = bool(buffer.text.strip()) and not buffer.text.startswith("/")
        if self._stop_typing:
            self._stop_typing.cancel()
        if is_typing:
            self._stop_typing = asyncio.get_running_loop().call_later(_TYPING, self._tell_typing, False)
        self._tell_typing(is_typing)

    def _tell_typing(self, typing: bool) -> None:
        if typing != self._is_typing:
            self._is_typing = typing
            self._link.typing(typing)


def _history() -> History:
    """The input history, in a file that only the user can read; in memory if no file can be made."""
    file = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "relay" / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.open("ab").close()
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return FileHistory(str(file))


def _cut(text: str, width: int) -> int | None:
    """Where to break a text whose first line is complete or wider than `width` columns; None: nowhere."""
    if 0 <= (newline := text.find("\n")) <= width and cell_len(text[:newline]) <= width:
        return newline + 1
    beyond = next((at for at in range(len(text)) if cell_len(text[: at + 1]) > width), None)
    if beyond is None:
        return None
    space = text.rfind(" ", 1, beyond + 1)
    return space + 1 if space > 0 else beyond
