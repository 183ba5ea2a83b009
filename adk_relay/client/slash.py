"""The commands of the terminal: /help lists them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
import webbrowser
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from prompt_toolkit.application import run_in_terminal

from adk_relay.client.http import Json
from adk_relay.client.link import Link
from adk_relay.client.view import Problem, name_of

COMMANDS = {
    "help": "lists the commands",
    "stats": "what this client has done",
    "server": "what the server has done",
    "health": "how the server is",
    "docs": "the server's documentation, in a browser if there is one",
    "demo": "the same conversations in a page, in a browser if there is one",
    "clear": "empties the conversation on the server, for everybody in it",
    "quit": "leaves; Ctrl-D does it too, and Ctrl-C when nothing is typed",
    "connect": "connects, or tries again at once",
    "disconnect": "closes the connection until /connect",
    "ping": "measures the time to the server and back",
    "new": "begins another conversation",
    "answer": "answers the oldest tool call that waits for you, or the one with that id; alone, lists them",
    "join": "goes to that conversation, and shows what was said there last; the id's beginning is enough",
    "info": "about this conversation",
    "sessions": "all conversations",
}
"""Each command, with the text that /help has for it. Its method is named after it; /quit has none."""

_ARGUMENTS = {"answer": " [ID] yes|no|JSON", "join": " ID"}
"""What is typed after a command."""


class Screen(Protocol):
    """Where a command shows its result."""

    def notice(self, text: str) -> None: ...

    def problem(self, text: str) -> None: ...

    def table(self, rows: Iterable[Iterable[Any]], *head: str) -> None: ...


class Commands:
    """Runs the commands. Their results and errors are shown on a screen."""

    def __init__(self, link: Link, screen: Screen) -> None:
        self._link = link
        self._screen = screen

    async def run(self, line: str) -> bool:
        """Runs the command that was typed after the slash. Ctrl-C ends it. False: it is /quit."""
        name, _, argument = line.partition(" ")
        if name == "quit":
            return False
        self._screen.notice(f"/{line}".rstrip())
        if name not in COMMANDS:
            self._screen.problem(f"There is no /{name}: /help lists the commands.")
            return True
        running = asyncio.ensure_future(getattr(self, f"_{name}")(argument.strip()))
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(signal.SIGINT, running.cancel)  # without a prompt, Ctrl-C is a signal
        try:
            await asyncio.wait({running})
            running.result()
        except asyncio.CancelledError:
            if not running.cancelled():  # not the command was canceled, but the program
                raise
            self._screen.problem("Given up.")
        except Problem as problem:
            self._screen.problem(str(problem))
        except (KeyError, TypeError, ValueError):
            self._screen.problem("The server's answer is not one of relay's.")
        finally:
            running.cancel()
            with suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
        return True

    # ---- each command of the table ----

    async def _help(self, _: str) -> None:
        self._screen.table((f"/{name}{_ARGUMENTS.get(name, '')}", text) for name, text in COMMANDS.items())
        self._screen.notice(
            "Anything else is sent to the agent; put a space before a message that begins with /."
        )

    async def _stats(self, _: str) -> None:
        link, stats = self._link, self._link.stats
        streams = stats.succeeded + stats.failed
        self._screen.table(
            [
                ["duration", f"{time.monotonic() - stats.began:.0f} s"],
                ["messages sent", stats.messages],
                ["streams", f"{stats.succeeded} succeeded, {stats.failed} failed"],
                ["chunks", f"{stats.chunks}, {stats.chunks / max(streams, 1):.1f} a stream"],
                ["connection attempts", stats.attempts],
                ["reconnections", stats.reconnections],
                ["sessions created", stats.sessions],
                ["response time", _mean(stats.response_times)],
                ["first-token time", _mean(stats.first_token_times)],
                ["status", f"{link.state}, as {name_of(link.connection_id)}"],
                ["session", link.session_id or "none yet"],
            ]
        )

    async def _server(self, _: str) -> None:
        self._screen.table((await self._link.http.request("GET", "/stats")).items())

    async def _health(self, _: str) -> None:
        self._screen.table((await self._link.http.request("GET", "/health")).items())

    async def _docs(self, _: str) -> None:
        await self._browse("/docs")

    async def _demo(self, _: str) -> None:
        await self._browse("/demo")

    async def _browse(self, path: str) -> None:
        url = self._link.url + path
        self._screen.notice(url)
        if sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ):
            await run_in_terminal(lambda: webbrowser.open(url), in_executor=True)

    async def _clear(self, _: str) -> None:
        await self._link.http.request("POST", f"/sessions/{self._session_id()}/clear")

    async def _connect(self, _: str) -> None:
        self._link.connect()

    async def _disconnect(self, _: str) -> None:
        await self._link.disconnect()
        self._screen.notice("Disconnected.")

    async def _ping(self, _: str) -> None:
        self._screen.notice(f"{await self._link.ping():.1f} ms")

    async def _new(self, _: str) -> None:
        await self._link.new()
        self._screen.notice(f"In the new conversation {self._link.session_id}.")

    async def _join(self, argument: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", argument):
            raise Problem("/join ID: /sessions lists them.")
        await self._link.join(await self._whole_id(argument))

    async def _answer(self, argument: str) -> None:
        calls = [*self._link.calls]
        if not calls:
            raise Problem("No tool call waits for an answer.")
        if not argument:
            self._screen.table(((call.id, call.question) for call in calls), "call", "what it asks")
            return
        first, _, rest = argument.partition(" ")
        call = self._link.calls.find(first) if rest else None
        call, answer = (call, rest.strip()) if call else (calls[0], argument)
        await self._link.answer(call, call.result(answer))

    async def _info(self, _: str) -> None:
        info = await self._link.http.request("GET", f"/sessions/{self._session_id()}")
        del info["history"]
        info["pending"] = ", ".join(call["tool_name"] for call in info.get("pending", ()))
        self._screen.table(info.items())

    async def _sessions(self, _: str) -> None:
        sessions = (await self._link.http.request("GET", "/sessions"))["sessions"]
        names = ["session_id", "message_count", "connected_clients", "last_activity"]
        rows = [
            [*(session[name] for name in names[:3]), str(session[names[3]])[:16], _title(session)]
            for session in sessions
        ]
        self._screen.table(rows, "session", "messages", "clients", "last activity", "about")

    async def _whole_id(self, beginning: str) -> str:
        """The id that begins like this, if only one of the listed ones does; else the text as it is."""
        sessions = (await self._link.http.request("GET", "/sessions", params={"limit": 1000}))["sessions"]
        ids = [str(session["session_id"]) for session in sessions]
        found = [session_id for session_id in ids if session_id.startswith(beginning)]
        if beginning in found or not found:
            return beginning  # it may be older than those that are listed
        if len(found) > 1:
            raise Problem(f"{len(found)} conversations begin with {beginning}.")
        return found[0]

    def _session_id(self) -> str:
        if not self._link.session_id:
            raise Problem("There is no conversation yet: say something, /new or /join ID.")
        return self._link.session_id


def _mean(seconds: list[float]) -> str:
    return f"{sum(seconds) / len(seconds):.2f} s" if seconds else "-"


def _title(session: Json) -> str:
    """What a conversation is called, or how it began."""
    return str(session.get("title") or session.get("first_text", ""))[:40]
