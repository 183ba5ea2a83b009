"""The terminal client: a person at a terminal, or a pipe, talks with the agent in the chat dialect.

    relay-client [--url http://localhost:8000] [--session ID]
    echo "What time is it?" | relay-client

`Link` knows frames and no terminal; `Terminal` shows what comes and reads what is typed. A terminal needs
rich and prompt_toolkit (`pip install 'adk-relay[client]'`), a pipe needs neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import FormattedText
    from rich.console import Console

Json = dict[str, Any]

_TYPING_FOR = 3.0
"""Seconds after the last key in which one counts as typing."""

_SHOWN = 12
"""Lines of an answer that are shown while it comes."""


class Failure(Exception):
    """What went wrong, in words for the user."""


@dataclass
class Stats:
    """What this client has done."""

    began: float = field(default_factory=time.monotonic)
    messages: int = 0
    succeeded: int = 0
    failed: int = 0
    chunks: int = 0
    attempts: int = 0
    reconnections: int = 0
    sessions: int = 0
    response_times: list[float] = field(default_factory=list)
    first_token_times: list[float] = field(default_factory=list)


class Link:
    """The way to the server: a WebSocket that is opened again when it breaks, or else plain HTTP.

    Args:
        url: where relay is, http or https.
        show: takes each frame of the chat dialect, and of its own: `notice {message}`.
        session_id: the conversation to go on with.
    """

    def __init__(self, url: str, show: Callable[[Json], None], session_id: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.session_id = session_id
        self.connection_id = ""
        self.state = "connecting"
        self.stats = Stats()
        self.seen = 0
        """How many messages of the conversation have been shown."""
        self.http = httpx.AsyncClient(base_url=self.url, timeout=10)
        self._show = show
        self._socket: ClientConnection | None = None
        self._unsent: list[str] = []
        self._asked: list[tuple[str, float, bool]] = []  # text, when, and whether it was taken
        self._first: float | None = None
        self._is_others = False
        self.is_mine = True
        """The answer under way is to what was asked here, not by somebody else."""
        self._pong: asyncio.Future[None] | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()

    async def run(self) -> None:
        """Keeps the connection, for as long as it is wanted."""
        while True:
            await self._wanted.wait()
            try:
                self._socket = await self._open()
            except Failure as failure:
                self.state = "http"
                self._notice(str(failure))
                self._wanted.clear()
                await self._flush()
                continue
            if self.connection_id:
                self.stats.reconnections += 1
            self.state = "connected"
            try:
                await self._serve(self._socket)
            except ConnectionClosed:
                pass
            finally:
                self._socket = None
            self._dropped()

    def disconnect(self) -> Awaitable[None]:
        """Closes the connection, and opens no other."""
        self._wanted.clear()
        return self._socket.close() if self._socket else asyncio.sleep(0)

    def connect(self) -> None:
        """Opens a connection if there is none, also after one could not be had."""
        self._wanted.set()

    async def say(self, text: str) -> None:
        """Sends a message, now or when there is a connection."""
        self.stats.messages += 1
        self._unsent.append(text)
        await self._flush()

    async def send(self, kind: str, **fields: Any) -> None:
        """Sends a frame, if there is a connection."""
        if self._socket:
            with suppress(ConnectionClosed):
                await self._socket.send(json.dumps({"type": kind, **fields}))

    async def ping(self) -> float:
        """Milliseconds to the server and back.

        Raises:
            Failure: there is no connection, or no answer.
        """
        if not self._socket:
            raise Failure("There is no WebSocket to measure.")
        self._pong = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        await self.send("ping")
        try:
            await asyncio.wait_for(self._pong, 10)
        except TimeoutError:
            raise Failure("There was no answer within 10 s.") from None
        return (time.monotonic() - began) * 1000

    async def fetch(self, method: str, path: str) -> Json:
        """What the server's HTTP interface answers.

        Raises:
            Failure: the server is not there, or refuses.
        """
        try:
            response = await self.http.request(method, path)
            said: Json = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Failure(f"{self.url} does not answer: {error or type(error).__name__}") from None
        if response.is_error:
            raise Failure(str(said.get("detail", response.status_code)))
        return said

    # ---- the WebSocket ----

    async def open_once(self) -> ClientConnection:
        """A connection.

        Raises:
            OSError, TimeoutError: the server is not there.
            InvalidHandshake: something there answers, and gives no WebSocket.
        """
        self.stats.attempts += 1
        return await connect("ws" + self.url.removeprefix("http") + "/ws", max_size=None)

    async def _open(self) -> ClientConnection:
        """A connection, however long it takes.

        Raises:
            Failure: relay is there, and no WebSocket can be had.
        """
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: not isinstance(error, Failure)),
            wait=wait_random_exponential(multiplier=0.5, max=15),
            before_sleep=self._wait,
        ):
            with attempt:
                try:
                    return await self.open_once()
                except InvalidHandshake as refusal:
                    if await self._is_there():
                        raise NoSocketError(refusal) from None
                    raise
        raise AssertionError("it tries for ever")

    async def _is_there(self) -> bool:
        """Whether it is relay that answers, and no proxy in its place."""
        try:
            return "websocket_connections" in await self.fetch("GET", "/health")
        except Failure:
            return False

    def _wait(self, tries: RetryCallState) -> None:
        if self.state != "waiting":
            error = tries.outcome.exception() if tries.outcome else None
            self._notice(f"The server can't be reached ({error}). Trying again until it can.")
        self.state = "waiting"

    async def _serve(self, socket: ClientConnection) -> None:
        async for frame in socket:
            said = json.loads(frame)
            await self._take(said)

    async def _take(self, said: Json) -> None:
        """Takes note of a frame, and shows it."""
        stats = self.stats
        match said["type"]:
            case "connected":
                self.connection_id = said["connection_id"]
                if self.session_id:
                    await self.send("join_session", session_id=self.session_id)
                else:
                    await self._flush()
            case "session_created":
                self.session_id, self.seen = said["session_id"], 0
                stats.sessions += 1
            case "session_joined":
                self.session_id = said["session_id"]
                await self._catch_up()
                await self._flush()
            case "status" if self._asked:
                text, when, _ = self._asked[0]
                self._asked[0] = text, when, True
            case "response_start":
                self.is_mine, self._is_others = bool(self._asked) and not self._is_others, False
            case "session_update":
                self._is_others |= said["update_type"] == "message_added"
                self.seen = said.get("message_count", self.seen)
                if said["update_type"] == "session_cleared":
                    self.seen = 0
                elif said["update_type"] == "session_deleted":
                    self.session_id = None
            case "chunk":
                stats.chunks += 1
                if self._first is None and self._asked and self.is_mine and said["text"]:
                    self._first = time.monotonic()
                    stats.first_token_times.append(self._first - self._asked[0][1])
            case "response_complete":
                self.seen = said["message_count"]
                if self.is_mine:
                    self._answered(failed=False)
            case "error":
                if said["message"].startswith("There is no conversation") and not self._asked:
                    self.session_id = None  # it was deleted, or kept in the memory of a server that is gone
                    await self._flush()
                self._answered(failed=True)
            case "pong":
                if self._pong and not self._pong.done():
                    self._pong.set_result(None)
        self._show(said)

    def _answered(self, *, failed: bool) -> None:
        if self._asked:
            _, when, _ = self._asked.pop(0)
            if failed:
                self.stats.failed += 1
            else:
                self.stats.succeeded += 1
                self.stats.response_times.append(time.monotonic() - when)
        self._first = None

    def _dropped(self) -> None:
        """What was taken is in the conversation; what was not is sent again."""
        self._unsent[:0] = [text for text, _, taken in self._asked if not taken]
        self.stats.failed += sum(taken for _, _, taken in self._asked)
        self._asked.clear()
        self._first = None
        if self._wanted.is_set():
            self.state = "waiting"
            self._notice("The connection was lost. Reconnecting…")
        else:
            self.state = "disconnected"
            self._notice("Disconnected. /connect opens it again.")

    async def _catch_up(self) -> None:
        """Shows what was said while nobody was here."""
        with suppress(Failure):
            history = (await self.fetch("GET", f"/sessions/{self.session_id}"))["history"]
            if missed := history[self.seen :]:
                self._show({"type": "history", "messages": missed})
            self.seen = len(history)

    async def _flush(self) -> None:
        while self._unsent and (self.state == "http" or (self._socket and self.connection_id)):
            text = self._unsent.pop(0)
            self._asked.append((text, time.monotonic(), False))
            if self.state == "http":
                await self._post(text)
                continue
            if self.session_id:
                await self.send("chat", message=text, session_id=self.session_id)
            else:
                await self.send("chat", message=text)

    # ---- plain HTTP ----

    async def _post(self, text: str) -> None:
        """One message and its answer, whole: shown as the frames that a WebSocket would have brought."""
        if not self.session_id:
            self.session_id = secrets.token_hex(16)
            self.stats.sessions += 1
        body = {"session_id": self.session_id, "message": text}
        await self._take({"type": "response_start"})
        try:
            response = await self.http.post("/api/v1/chat", json=body, timeout=None)
            said: Json = response.json()
        except (httpx.HTTPError, ValueError) as error:
            said = {"detail": f"{self.url} does not answer: {error or type(error).__name__}"}
            response = None
        if response is None or response.is_error:
            await self._take({"type": "error", "message": str(said.get("detail"))})
            return
        await self._take({"type": "chunk", "text": said["content"], "chunk_number": 1, "is_final": True})
        end = {"type": "response_complete", "full_response": said["content"], "message_count": self.seen + 2}
        await self._take(end | ({"interrupted": True} if said.get("interrupted") else {}))

    def _notice(self, message: str) -> None:
        self._show({"type": "notice", "message": message})


class NoSocketError(Failure):
    """relay is there, and something on the way lets no WebSocket through."""

    def __init__(self, refusal: InvalidHandshake) -> None:
        super().__init__(f"No WebSocket can be had here ({refusal}): going on over plain HTTP.")


def printable(text: str) -> str:
    """What others have said, without what could steer the terminal (ECMA-48)."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


# ---- a pipe ----------------------------------------------------------------------------------


async def ask(url: str, session_id: str | None, text: str) -> None:
    """Asks one thing and prints the answer as it comes.

    Raises:
        Failure: there is no answer, or not the whole of it.
    """
    out = printable if sys.stdout.isatty() else str
    done: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

    def show(said: Json) -> None:
        match said["type"]:
            case "chunk" if link.is_mine:
                print(out(said["text"]), end="", flush=True)
            case "response_complete" if link.is_mine and not done.done():
                done.set_result(said)
            case "error" if not done.done():
                done.set_result(said)

    link = Link(url, show, session_id)
    try:
        link._socket = await link.open_once()
    except InvalidHandshake as refusal:
        print(NoSocketError(refusal), file=sys.stderr)
        link.state = "http"
        await link.say(text)
    except (OSError, InvalidURI) as error:
        raise Failure(f"{url} can't be reached: {error or type(error).__name__}") from None
    else:
        async with link._socket:
            await link.say(text)
            serving = asyncio.create_task(link._serve(link._socket))
            done.add_done_callback(lambda _: serving.cancel())
            await asyncio.wait({serving})
    await link.http.aclose()
    if not done.done():
        raise Failure("The connection was lost before the end of the answer.")
    end = done.result()
    if end["type"] == "error":
        raise Failure(end["message"])
    print(flush=True)
    if end.get("interrupted"):
        raise Failure("The answer was interrupted.")


# ---- a terminal ------------------------------------------------------------------------------

HELP = """\
/help             this
/stats            what this client has done
/server /health   what the server has done, and how it is
/docs /demo       the server's pages
/clear            empties the conversation, for all that are in it
/new              begins another conversation
/join ID          goes to another, and shows what was said there
/info             about this conversation
/sessions         all conversations
/connect /disconnect /ping
/quit             or Ctrl-D"""


class Terminal:
    """Shows what comes and reads what is typed."""

    def __init__(self, url: str, session_id: str | None, console: Console) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, History, InMemoryHistory

        self._console = console
        self._link = Link(url, self._show, session_id)
        self._answer: str | None = None
        self._typing: set[str] = set()
        self._typed_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        history: History = InMemoryHistory()
        with suppress(OSError):
            (state / "relay").mkdir(parents=True, exist_ok=True)
            history = FileHistory(str(state / "relay" / "history"))
        self._session: PromptSession[str] = PromptSession(
            self._prompt, history=history, erase_when_done=True, refresh_interval=0.5
        )
        self._session.default_buffer.on_text_changed += lambda buffer: self._types(buffer.text)

    async def run(self) -> None:
        """Talks until the user has had enough."""
        from prompt_toolkit.patch_stdout import patch_stdout

        with patch_stdout(raw=True):
            self._say(f"[dim]{self._link.url}. /help tells what there is.[/dim]")
            keeping = asyncio.create_task(self._link.run())
            try:
                while await self._read_one():
                    pass
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, *self._tasks, return_exceptions=True)
                await self._link.disconnect()
                await self._link.http.aclose()

    async def _read_one(self) -> bool:
        """Reads a line and does what it says; whether there is to be another."""
        try:
            text = (await self._session.prompt_async()).strip()
        except KeyboardInterrupt:
            return True  # takes back what was typed
        except EOFError:
            return False
        self._typed_until = 0.0
        if text in ("/quit", "/exit"):
            return False
        if text.startswith("/"):
            try:
                await self._command(*text[1:].split(maxsplit=1))
            except Failure as failure:
                self._say("[red]", str(failure))
        elif text:
            self._say("[bold cyan]You[/] ", text)
            # Not awaited: over plain HTTP it takes as long as the answer.
            task = asyncio.create_task(self._link.say(text))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return True

    # ---- what is shown ----

    def _say(self, markup: str, text: str = "") -> None:
        """Prints a line: our own markup, and what others have said as nothing but text."""
        from rich.text import Text

        line = Text.from_markup(markup)
        line.append(printable(text))
        self._console.print(line)

    def _prompt(self) -> FormattedText:
        """The answer that is coming, who is typing, and where one types oneself."""
        from prompt_toolkit.formatted_text import FormattedText

        parts = []
        if self._answer is not None:
            shown = printable(self._answer).split("\n")[-_SHOWN:]
            parts += [("bold ansigreen", "Agent "), ("", "\n".join(shown) + " …\n")]
        if self._typing:
            who = "Somebody is" if len(self._typing) == 1 else f"{len(self._typing)} people are"
            parts.append(("ansibrightblack", f"{who} typing…\n"))
        mark = {"connected": ">", "http": "http>"}.get(self._link.state, f"({self._link.state}) >")
        return FormattedText([*parts, ("bold", f"{mark} ")])

    def _show(self, said: Json) -> None:
        match said["type"]:
            case "session_created":
                self._say("[dim]Conversation ", said["session_id"])
            case "session_joined":
                self._say("[dim]In conversation ", said["session_id"])
            case "history":
                self._answer = None
                for line in said["messages"]:
                    who = "[bold green]Agent[/] " if line["role"] == "agent" else "[bold]User[/] "
                    self._say(who, line["text"])
            case "response_start":
                self._answer = ""
            case "chunk":
                self._answer = (self._answer or "") + said["text"]
            case "response_complete":
                self._answer = None
                self._say("[bold green]Agent[/] ", said["full_response"])
                if said.get("interrupted"):
                    self._say("[dim](interrupted)")
            case "session_update":
                self._update(said)
            case "error":
                self._answer = None
                self._say("[red]", said["message"])
            case "notice":
                self._answer = None
                self._typing.clear()
                self._say("[yellow]", said["message"])
        if self._session.app.is_running:
            self._session.app.invalidate()

    def _update(self, said: Json) -> None:
        who = str(said.get("connection_id", ""))
        match said["update_type"]:
            case "message_added":
                self._say("[bold magenta]Somebody[/] ", said["message"])
            case "user_typing":
                (self._typing.add if said["typing"] else self._typing.discard)(who)
            case "user_joined" if who != self._link.connection_id:
                self._say("[dim]Somebody came.")
            case "user_disconnected":
                self._typing.discard(who)
                self._say("[dim]Somebody left.")
            case "session_cleared":
                self._say("[yellow]The conversation was cleared.")
            case "session_deleted":
                self._say("[yellow]The conversation was deleted. What you write begins another.")

    def _table(self, rows: Json) -> None:
        from rich.table import Table

        table = Table(box=None, show_header=False)
        for name, value in rows.items():
            table.add_row(f"[dim]{name}[/]", printable(str(value)).replace("[", r"\["))
        self._console.print(table)

    # ---- what is typed ----

    def _types(self, text: str) -> None:
        """Tells the others that somebody types, and 3 s after the last key that nobody does."""
        if not text or text.startswith("/"):
            return
        was_typing = time.monotonic() < self._typed_until
        self._typed_until = time.monotonic() + _TYPING_FOR
        if not was_typing:
            task = asyncio.create_task(self._tell_typing())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_typing(self) -> None:
        await self._link.send("typing_start")
        while (left := self._typed_until - time.monotonic()) > 0:
            await asyncio.sleep(left)
        await self._link.send("typing_stop")

    async def _command(self, name: str = "", argument: str = "") -> None:
        link = self._link
        match name:
            case "help":
                self._console.print(HELP, highlight=False)
            case "stats":
                self._table(self._own_stats())
            case "server":
                self._table(await link.fetch("GET", "/stats"))
            case "health":
                self._table(await link.fetch("GET", "/health"))
            case "docs" | "demo":
                page = f"{link.url}/{name}"
                self._say("", page)
                if os.environ.get("DISPLAY") or sys.platform in ("darwin", "win32"):
                    await asyncio.to_thread(webbrowser.open, page)
            case "clear":
                await link.fetch("POST", f"/sessions/{self._here()}/clear")
            case "new":
                await link.send("create_session")
            case "join" if argument:
                await self._join(argument)
            case "info":
                info = await link.fetch("GET", f"/sessions/{self._here()}")
                del info["history"]
                self._table(info)
            case "sessions":
                for one in (await link.fetch("GET", "/sessions"))["sessions"]:
                    said = f"{one['message_count']} messages, {one['connected_clients']} here now"
                    self._say("", f"{one['session_id']}  {said}, last {one['last_activity']}")
            case "connect":
                link.connect()
            case "disconnect":
                await link.disconnect()
            case "ping":
                self._say("", f"{await link.ping():.1f} ms")
            case _:
                raise Failure("/help tells what there is.")

    async def _join(self, session_id: str) -> None:
        await self._link.fetch("GET", f"/sessions/{session_id}")  # is it there?
        self._link.session_id, self._link.seen = session_id, 0
        await self._link.send("join_session", session_id=session_id)

    def _here(self) -> str:
        if not self._link.session_id:
            raise Failure("You are in no conversation yet: write something, or /join ID.")
        return self._link.session_id

    def _own_stats(self) -> Json:
        stats = self._link.stats
        streams = stats.succeeded + stats.failed
        return {
            "duration": f"{time.monotonic() - stats.began:.0f} s",
            "messages sent": stats.messages,
            "streams succeeded": stats.succeeded,
            "streams failed": stats.failed,
            "chunks": stats.chunks,
            "chunks a stream": f"{stats.chunks / streams:.1f}" if streams else "-",
            "connection attempts": stats.attempts,
            "reconnections": stats.reconnections,
            "sessions created": stats.sessions,
            "response time": _mean(stats.response_times),
            "first-token time": _mean(stats.first_token_times),
            "status": self._link.state,
            "session": self._link.session_id or "-",
        }


def _mean(seconds: list[float]) -> str:
    return f"{sum(seconds) / len(seconds):.2f} s" if seconds else "-"


def main() -> None:
    """`relay-client`: exits with 0, or says on stderr why not and exits with 1."""
    parser = argparse.ArgumentParser(
        description="Talk with the agent of a relay server. What is piped in is one message: its answer is"
        " printed, and nothing else."
    )
    parser.add_argument(
        "--url", default="http://localhost:8000", help="where relay is (default: %(default)s)"
    )
    parser.add_argument("--session", metavar="ID", help="the conversation to go on with")
    arguments = parser.parse_args()
    try:
        if not arguments.url.startswith(("http://", "https://")):
            raise Failure("--url begins with http:// or https://")
        if not sys.stdin.isatty():
            if not (text := sys.stdin.read().strip()):
                raise Failure("There is nothing to ask: the input is empty.")
            asyncio.run(ask(arguments.url, arguments.session, text))
            return
        try:
            import prompt_toolkit  # noqa: F401
            from rich.console import Console
        except ImportError as error:
            raise Failure(f"A terminal needs pip install 'adk-relay[client]' ({error}).") from None
        asyncio.run(Terminal(arguments.url, arguments.session, Console(highlight=False)).run())
    except Failure as failure:
        sys.exit(f"relay-client: {printable(str(failure))}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
