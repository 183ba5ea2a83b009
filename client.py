"""The terminal client: a person at a terminal, or a pipe, talks with the agent in the chat dialect.

    relay-client [--url http://localhost:8000] [--session ID]
    echo "What time is it?" | relay-client

`Link` knows frames and no terminal. What it has to tell goes to a `View`: a `Terminal` needs rich and
prompt_toolkit (`pip install 'adk-relay[client]'`), a `Pipe` needs neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import signal
import sys
import time
import webbrowser
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from rich.console import RenderableType

Json = dict[str, Any]

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could steer a terminal or turn its text around, and half characters, which nothing can print."""

_PASSING = (429, 500, 502, 503, 504)
"""HTTP statuses of a server that is just starting, stopping or full."""

_STAY_AWAY = (1008, 1011, 4401, 4403, 4404, 4408)
"""Close codes after which one comes back with the next message, not by oneself."""

_BACKOFF = wait_random_exponential(multiplier=0.5, max=15)
_WITHOUT = 30.0
"""Seconds after which a WebSocket is tried again where none got through."""

_SETTLED = 5.0
"""A connection that lived so many seconds was a success: the next backoff starts small again."""

_RECENT = 10
"""Messages that are shown of a conversation one joins."""

_GREETING = 10.0
"""Seconds that a server has to say that it is a relay."""

_TYPING = 3.0
"""Seconds since the last key in which one counts as typing."""


class Problem(Exception):
    """What went wrong, in words for the user."""


class LostError(Problem):
    """There is no connection just now; there may be one later."""


class View(Protocol):
    """Whom a link tells what happens. Nothing here may wait."""

    def notice(self, text: str) -> None:
        """How things stand."""

    def problem(self, text: str) -> None:
        """What went wrong."""

    def line(self, who: str, text: str) -> None:
        """A whole message: of an earlier "user", the "agent", or the connection of that id."""

    def piece(self, text: str, *, mine: bool) -> None:
        """The next piece of an answer; `mine`: to what was said here."""

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        """The end of an answer, with what was not told yet."""

    def typing(self, who: str, typing: bool) -> None:
        """Somebody begins to type, or stops; "": nobody is there any more."""

    def changed(self) -> None:
        """The link's state is another."""


@dataclass(slots=True)
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


@dataclass(slots=True)
class _Ask:
    """A message whose answer is waited for."""

    text: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    at: float = field(default_factory=time.monotonic)
    sent: bool = False
    """By the present socket."""
    stored: bool = False
    """It need not be sent again."""


@dataclass(slots=True)
class _Answer:
    """An answer that is coming."""

    mine: bool = False
    shown: str = ""
    chunks: int = 0
    """So many of its chunks are shown."""
    first_at: float = 0.0


class Link:
    """The way to the server: a WebSocket that is opened again when it breaks, or plain HTTP without one.

    Args:
        url: where relay is, http or https.
        view: is told what happens.
        session_id: the conversation to go on with.
        once: give up where a person would wait.
    """

    def __init__(self, url: str, view: View, session_id: str | None = None, *, once: bool = False) -> None:
        self.url = url
        self.session_id = session_id
        self.state = "connecting"
        self.model = ""
        self.connection_id = ""
        self.stats = Stats()
        self._view = view
        self._once = once
        try:
            self._http = httpx.AsyncClient(base_url=url, timeout=10)
        except (ImportError, ValueError) as error:  # of the proxy that the environment names
            raise Problem(str(error)) from None
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._ready = False  # messages may be sent
        self._is_typing = False
        self._joining = self._creating = False
        self._hurry = False
        self._news = asyncio.Event()
        self._ids: set[str] = set()  # all that this client has had
        self._pong: asyncio.Future[None] | None = None
        self._pending: dict[str, _Ask] = {}  # by id, in order
        self._answer: _Answer | None = None
        self._seen = 0  # messages of the conversation that are shown or were passed over
        self._recent = session_id is not None  # only the last ones are to be shown

    async def __aenter__(self) -> Link:
        await self._group.__aenter__()
        self.connect()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.disconnect()
        await self._http.aclose()
        await self._group.__aexit__(*error)

    # ---- what the user wants ----

    def connect(self) -> None:
        """Opens a connection, or tries again at once."""
        self._hurry = True
        self._news.set()
        if not self._task or self._task.done():
            self._become("connecting")
            self._task = self._group.create_task(self._keep())

    async def disconnect(self) -> None:
        """Closes the connection, and opens no other."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._become("disconnected")

    def ask(self, text: str) -> None:
        """Says something, now or as soon as there is a connection."""
        self.stats.messages += 1
        ask = _Ask(text)
        self._pending[ask.id] = ask
        self._news.set()
        if self._ready:
            self._send_pending()
        elif self.state == "asleep":
            self.connect()
        elif self.state in ("waiting", "disconnected"):
            self._view.notice("It is sent as soon as there is a connection.")

    def typing(self, typing: bool) -> None:
        """Tells the others that one types, or does no more."""
        self._is_typing = typing
        if self._ready and self.session_id:
            self._send(type="typing_start" if typing else "typing_stop")

    async def ping(self) -> float:
        """Milliseconds to the server and back.

        Raises:
            Problem: there is no connection, or no answer.
        """
        if not self._socket:
            raise Problem("There is no WebSocket to measure.")
        self._pong = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._send(type="ping")
        try:
            await asyncio.wait_for(self._pong, 10)
        except TimeoutError:
            raise Problem("No answer within 10 s.") from None
        return (time.monotonic() - began) * 1000

    async def new(self) -> None:
        """Begins another conversation."""
        created = await self.request("POST", "/sessions/new")
        self.stats.sessions += 1
        await self._enter(str(created.get("session_id")), 0)

    async def join(self, session_id: str) -> None:
        """Goes to another conversation, and shows what was said there last."""
        told = await self.request("GET", f"/sessions/{session_id}")
        await self._enter(session_id, int(told.get("message_count", 0)))

    async def request(self, method: str, path: str, **options: Any) -> Json:
        """What the server answers over HTTP.

        Raises:
            Problem: it is not there, or refuses.
        """
        try:
            response = await self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Problem(f"{self.url} gives no answer: {error or type(error).__name__}") from None
        try:
            said = cleaned(response.json())
        except ValueError:
            said = None
        if not isinstance(said, dict) or response.is_error:
            detail = said.get("detail") if isinstance(said, dict) else None
            raise Problem(str(detail or f"The server answers {response.status_code}."))
        return said

    # ---- the connection ----

    async def _keep(self) -> None:
        """Keeps a connection until one is not wanted, or trying again would not help."""
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(LostError),
                wait=lambda tries: _WITHOUT if self.state == "http" else _BACKOFF(tries),
                before_sleep=self._tell,
                sleep=self._pause,
                stop=lambda _: self._once and self.state != "http",
                reraise=True,
            ):
                with attempt:
                    await self._attend(attempt.retry_state)
        except Problem as problem:
            self._become("disconnected")
            self._view.problem(str(problem))

    async def _attend(self, tries: RetryCallState) -> None:
        """One connection, from its beginning to its end.

        Raises:
            LostError: it is worth another try.
            Problem: it is not.
        """
        self.stats.attempts += 1
        try:
            url = "ws" + self.url.removeprefix("http") + "/ws"
            socket = await connect(url, close_timeout=1, max_size=2**24)
        except (OSError, InvalidHandshake) as error:
            raise await self._refused(error, tries.attempt_number) from None
        except (WebSocketException, ImportError) as error:  # a proxy may need another library
            raise Problem(str(error)) from None
        opened = time.monotonic()
        self._socket = socket
        try:
            async with asyncio.timeout(_GREETING) as limit:
                while True:
                    await self._take(await socket.recv())
                    if self.state == "connected":
                        limit.reschedule(None)
        except TimeoutError:
            raise LostError(f"{self.url} does not greet as a relay does.") from None
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            why = f"The connection was lost ({f'{code} {cleaned(reason)}'.strip()})."
            if time.monotonic() - opened > _SETTLED:
                tries.attempt_number = 1
            if code not in _STAY_AWAY or self._once:
                raise LostError(why) from None
            self._become("asleep")
            self._give_up_said()
            self._view.notice(f"{why} Your next message opens another.")
        finally:
            self._socket = None
            self._ready = self._joining = self._creating = False
            self._view.typing("", False)
            if self._pong and not self._pong.done():
                self._pong.set_exception(Problem("The connection was lost."))
            await socket.close()

    async def _refused(self, error: OSError | InvalidHandshake, attempt: int) -> Problem:
        """Finds out what it means that no WebSocket was to be had."""
        status = error.response.status_code if isinstance(error, InvalidStatus) else 0
        is_final = bool(status) and status not in _PASSING
        # Some proxies say no, others just hang up or say nothing; a server that restarts does that, too.
        if is_final or ((attempt > 2 or self._once) and not isinstance(error, ConnectionError)):
            try:
                is_relay = "websocket_connections" in await self.request("GET", "/health")
            except Problem:
                is_relay = False
            if is_relay and self.state != "http":
                self._become("http")
                self._view.notice(
                    f"No WebSocket gets through ({cleaned(str(error))}). Going on over plain HTTP: answers"
                    " come whole, and what others do is not seen."
                )
            elif is_final and not is_relay:
                return Problem(f"There is no relay at {self.url}: it answers {status}.")
        said = getattr(error, "strerror", "") or str(error) or type(error).__name__
        return LostError(f"{self.url} can't be reached: {cleaned(said)}.")

    def _tell(self, tries: RetryCallState) -> None:
        if self.state not in ("http", "waiting"):
            self._become("waiting")
            error = tries.outcome.exception() if tries.outcome else None
            self._view.notice(f"{error} Trying again…")

    async def _pause(self, seconds: float) -> None:
        """Waits until the next try; without a WebSocket, what is said meanwhile goes over HTTP."""
        self._hurry = False
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self.state == "http" and self._once else seconds) as limit:
                while not self._hurry:
                    unsaid = (ask for ask in self._pending.values() if not ask.stored)
                    if self.state == "http" and (ask := next(unsaid, None)):
                        deadline = limit.when()
                        limit.reschedule(None)  # an answer takes its time
                        await self._post(ask)
                        limit.reschedule(deadline)
                        continue
                    self._news.clear()
                    await self._news.wait()

    def _become(self, state: str) -> None:
        self.state = state
        self._view.changed()

    def _send(self, **frame: Any) -> None:
        if self._socket:
            self._group.create_task(self._send_on(self._socket, json.dumps(frame)))

    async def _send_on(self, socket: ClientConnection, frame: str) -> None:
        with suppress(ConnectionClosed):  # whoever reads is told
            await socket.send(frame)

    # ---- frames ----

    async def _take(self, raw: str | bytes) -> None:
        try:
            frame = cleaned(json.loads(raw))
        except (ValueError, RecursionError):
            return
        where = frame.get("session_id") if isinstance(frame, dict) else None
        if where not in (None, self.session_id) and frame.get("type") != "session_created":
            return  # of a conversation that was left
        match frame:
            case {"type": "connected", "connection_id": str(me), "server_info": {"model": str(model)}}:
                self.connection_id, self.model = me, model
                if self._ids:
                    self.stats.reconnections += 1
                    self._view.notice("Connected again.")
                self._ids.add(me)
                self._become("connected")
                if self.session_id:
                    self._join()
                else:
                    self._go_on()
            case {"type": "session_created", "session_id": str(session_id)}:
                self.session_id, self._seen, self._creating = session_id, 0, False
                self.stats.sessions += 1
                self._become("connected")
                self._send_pending()
            case {"type": "session_joined", "message_count": int(count)}:
                self._joining = False
                await self._catch_up(count)
                self._go_on()
            case {"type": "ack", "id": str(name)} if name in self._pending:
                self._pending[name].stored = True
            case {"type": "response_start"}:
                self._end(interrupted=True)
                self._answer = _Answer(self._is_mine(frame))
            case {"type": "chunk", "text": str(text), "chunk_number": int(number)}:
                self._chunk(text, number)
            case {"type": "response_complete", "full_response": str(text), "message_count": int(count)}:
                self._complete(frame, text, count)
            case {"type": "session_update", "update_type": str(update)}:
                self._update(update, frame)
            case {"type": "status", "message": str(text)} if "waits" in text:
                self._view.notice(text)
            case {"type": "pong"} if self._pong and not self._pong.done():
                self._pong.set_result(None)
            case {"type": "error", "message": str(text)}:
                self._error(text, str(frame.get("code")), str(frame.get("id")))

    def _update(self, update: str, frame: Json) -> None:
        who = str(frame.get("connection_id", ""))
        match update, frame:
            case "message_added", {"message": str(text), "message_count": int(count)} if count > self._seen:
                self._seen = count
                self._view.typing(who, False)
                if who not in self._ids:
                    self._view.line(who, text)
            case "user_typing", {"typing": bool(typing)}:
                self._view.typing(who, typing)
            case "user_joined", _:
                self._view.notice(f"{name_of(who)} came.")
            case "user_disconnected", _ if who not in self._ids:
                self._view.typing(who, False)
                self._view.notice(f"{name_of(who)} left.")
            case (("session_cleared" | "session_deleted"), _):
                self._forget()
                if update == "session_deleted":
                    self.session_id = None
                self._become(self.state)
                self._view.notice(f"The conversation was {update.removeprefix('session_')}.")
                self._send_pending()

    def _error(self, text: str, code: str, name: str) -> None:
        self._view.problem(text)
        if ask := self._pending.get(name):
            self._give_up(ask)
        elif self._joining and code == "unknown_session":  # it was deleted, or memory was all it was kept in
            self._joining = False
            self._seen, self.session_id = 0, None
            self._end(interrupted=True)
            if not self._once:
                self._view.notice("That conversation is gone. Your next message begins another.")
                self._go_on()

    # ---- what is said ----

    def _go_on(self) -> None:
        self._ready = True
        if self._is_typing:
            self.typing(True)
        for ask in self._pending.values():
            ask.sent = False
        self._send_pending()

    def _send_pending(self) -> None:
        """Sends what has to be sent: what is not known to be stored, in a conversation that there is."""
        unsent = [ask for ask in self._pending.values() if not (ask.sent or ask.stored)]
        if unsent and not self.session_id:
            if not self._creating:
                self._creating = True
                self._send(type="create_session")
            return
        for ask in unsent:
            ask.sent = True
            self._send(type="chat", message=ask.text, session_id=self.session_id, id=ask.id)

    def _give_up(self, ask: _Ask) -> None:
        """A message gets no answer."""
        del self._pending[ask.id]
        self.stats.failed += 1

    def _give_up_said(self) -> None:
        """Nobody waits for the answers to what was said so far."""
        for ask in [ask for ask in self._pending.values() if ask.sent or ask.stored]:
            self._give_up(ask)

    def _is_mine(self, frame: Json) -> bool:
        return str(frame.get("id")) in self._pending or str(frame.get("connection_id")) in self._ids

    def _chunk(self, text: str, number: int) -> None:
        self.stats.chunks += 1
        if not self._answer and number == 1:  # it had no words yet when one came
            self._answer = _Answer()
        if not self._answer or number != self._answer.chunks + 1:
            return  # the history had it; or one is missing, and the whole will come
        self._answer.chunks = number
        self._answer.first_at = self._answer.first_at or time.monotonic()
        self._show(self._answer, self._answer.shown + text)

    def _show(self, answer: _Answer, text: str) -> None:
        if len(text) > len(answer.shown):
            self._view.piece(text[len(answer.shown) :], mine=answer.mine)
            answer.shown = text

    def _complete(self, frame: Json, text: str, count: int) -> None:
        interrupted = bool(frame.get("interrupted"))
        if not self._answer and count <= self._seen:
            return  # the history had it
        answer = self._answer or _Answer()
        if not text.startswith(answer.shown):  # it is not what was shown of it
            self._end(interrupted=True)
            answer.shown = ""
        answer.mine |= self._is_mine(frame)
        self._seen, self._answer = count, answer
        if ask := self._pending.pop(str(frame.get("id")), None):
            self._answered(ask, interrupted)
            if answer.first_at:
                self.stats.first_token_times.append(answer.first_at - ask.at)
        self._end(text[len(answer.shown) :], interrupted=interrupted)

    def _answered(self, ask: _Ask, interrupted: bool) -> None:
        self.stats.response_times.append(time.monotonic() - ask.at)
        self.stats.failed += interrupted
        self.stats.succeeded += not interrupted

    def _end(self, rest: str = "", *, interrupted: bool) -> None:
        answer, self._answer = self._answer, None
        if answer:
            self._view.end(rest, mine=answer.mine, interrupted=interrupted)

    # ---- conversations ----

    async def _enter(self, session_id: str, count: int) -> None:
        """Goes to a conversation that has so many messages."""
        self._forget()
        self._give_up_said()
        self.session_id, self._recent = session_id, True
        self._become(self.state)
        if self._socket:
            self._ready = False
            self._join()
        else:
            await self._catch_up(count)

    def _join(self) -> None:
        self._joining = True
        self._send(type="join_session", session_id=self.session_id)

    def _forget(self) -> None:
        """What is shown so far is of another conversation than what comes."""
        self._end(interrupted=True)
        self._seen = 0
        self._view.typing("", False)

    async def _catch_up(self, count: int) -> None:
        """Shows what was said before: up to message `count`, what follows is told as it is said."""
        try:
            told = await self.request("GET", f"/sessions/{self.session_id}")
            lines, total = list(told["history"]), int(told["message_count"])
        except (Problem, KeyError, TypeError, ValueError) as error:
            self._view.problem(f"What was said before can't be shown: {error}")
            self._seen = max(0, count - 1)  # the last message may be an answer that is still coming
            return
        if self._recent:
            self._recent, self._seen = False, max(0, count - _RECENT)
        first = total - len(lines)  # of a long conversation, only the end is told
        missed = lines[max(self._seen - first, 0) : max(count - first, 0)]
        cut, self._answer, self._seen = self._answer, None, count
        asked: _Ask | None = None
        forgotten: list[_Ask] = []
        for line in missed:
            text = str(line.get("text"))
            if line.get("role") == "user":
                asked = self._own(line, text)
                if not asked:
                    self._view.line("user", text)
                elif not line.get("id"):
                    forgotten.append(asked)
                continue
            self._answer, cut = cut or _Answer(), None
            self._answer.mine = asked is not None
            if not text.startswith(self._answer.shown):
                self._end(interrupted=True)
                self._answer = _Answer(asked is not None)
            self._show(self._answer, text)
            if line.get("open"):  # always the last
                self._answer.chunks = int(line.get("chunks", 0))
                self._seen = count - 1
            else:
                self._end(interrupted=False)
                if asked and self._pending.pop(asked.id, None):
                    self.stats.succeeded += 1
        if cut:
            self._answer = cut
            self._end(interrupted=True)
        for ask in forgotten:
            if ask.id in self._pending:  # the server that was asked is no more
                self._give_up(ask)

    def _own(self, line: Json, text: str) -> _Ask | None:
        """The message of one's own that a line is; a server that was started again knows no ids of before."""
        if line.get("id"):
            ask = self._pending.get(str(line["id"]))
        else:
            said = (ask for ask in self._pending.values() if ask.sent or ask.stored)
            ask = next((ask for ask in said if cleaned(ask.text) == text), None)
        if ask:
            ask.stored = True
        return ask

    async def _post(self, ask: _Ask) -> None:
        """Says one thing over HTTP, and waits for the answer."""
        if not self.session_id:
            self.session_id = secrets.token_hex(16)
            self.stats.sessions += 1
            self._become(self.state)
        body = {"session_id": self.session_id, "message": ask.text}
        # A proxy that the answer takes too long has its own limit; this end waits.
        timeout = httpx.Timeout(10, read=600)
        self._give_up(ask)  # should this be canceled: it can't be known whether it was said
        try:
            said = await self.request("POST", "/api/v1/chat", json=body, timeout=timeout)
        except Problem as problem:
            self._view.problem(str(problem))
            return
        self.stats.failed -= 1
        interrupted = bool(said.get("interrupted"))
        self._answered(ask, interrupted)
        self._view.end(str(said.get("content", "")), mine=True, interrupted=interrupted)
        with suppress(Problem, ValueError):  # so that it is not shown again when there is a WebSocket
            told = await self.request("GET", f"/sessions/{self.session_id}")
            self._seen = int(told.get("message_count", 0))


def cleaned(value: Any) -> Any:
    """What somebody else has said, all strings in it, without what a terminal would obey (ECMA-48)."""
    match value:
        case str():
            return _UNSAFE.sub("", value)
        case list():
            return [cleaned(one) for one in value]
        case dict():
            return {cleaned(name): cleaned(one) for name, one in value.items()}
    return value


def joined(base: str, since: str) -> str:
    """`base` and what `since` adds to it, which begins somewhere in `base` or right after it."""
    for start in range(max(0, len(base) - 4096), len(base)):
        size = min(len(since), len(base) - start)
        if base.startswith(since[:size], start):
            return base + since[size:]
    return base + since


def name_of(connection_id: str) -> str:
    """How somebody is called whose name nobody knows."""
    return f"Guest {connection_id[:4]}" if connection_id else "Somebody"


# ---- a pipe ----------------------------------------------------------------------------------


class Pipe:
    """Prints the answer to one message as it comes, and nothing else."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_open = False  # a line is printed in part

    def notice(self, text: str) -> None:
        print(f"relay-client: {text}", file=sys.stderr)

    def problem(self, text: str) -> None:
        if self._is_open:
            self.piece("\n", mine=True)  # what is said on stderr is a line of its own
        self._finish(Problem(text))

    def line(self, who: str, text: str) -> None:
        pass

    def piece(self, text: str, *, mine: bool) -> None:
        if mine and not self.done.done():
            try:
                print(text, end="", flush=True)
                self._is_open = not text.endswith("\n")
            except OSError as error:  # whoever read has gone
                self._finish(error)

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        self.piece(f"{rest}\n", mine=mine)
        if mine:
            self._finish(Problem("The answer was interrupted.") if interrupted else None)

    def typing(self, who: str, typing: bool) -> None:
        pass

    def changed(self) -> None:
        pass

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)


async def pipe(url: str, session_id: str | None, text: str) -> int:
    """Says `text` and prints the answer.

    Raises:
        Problem: there is none, or not the whole of it.
        OSError: nobody reads it.
    """
    view = Pipe()
    async with Link(url, view, session_id, once=True) as link:
        link.ask(text)
        await asyncio.wait([view.done])
    view.done.result()
    return 0


# ---- a terminal ------------------------------------------------------------------------------


class Terminal:
    """Shows what comes above a line in which one types.

    Lines that are complete are printed, and scroll away; the last line of an answer that is coming
    belongs to the prompt, so that it can grow while one types below it.
    """

    _WIDTH = 11  # of the column that tells who speaks

    def __init__(self, url: str, session_id: str | None) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from rich.console import Console

        self._console = Console(highlight=False, file=sys.stdout)
        self._link = Link(url, self, session_id)
        self._open: str | None = None  # the last line of the answer that is coming
        self._speaker = ""  # what stands before it, if it is the first one
        self._typists: dict[str, None] = {}
        self._is_typing = False
        self._stop_typing: asyncio.TimerHandle | None = None
        self._lines: list[RenderableType] = []
        self._news = asyncio.Event()
        self._commands = {name[4:]: name for name in dir(self) if name.startswith("_do_")}
        self._session: PromptSession[str] = PromptSession(
            self._prompt,
            bottom_toolbar=self._toolbar,
            completer=WordCompleter([f"/{name}" for name in self._commands], sentence=True),
            complete_while_typing=False,
            erase_when_done=True,
            history=_history(),
        )
        self._session.default_buffer.on_text_changed += self._typed

    async def run(self) -> int:
        """Talks until the user leaves; the exit code."""
        from prompt_toolkit.patch_stdout import patch_stdout

        task = asyncio.current_task()
        assert task
        with suppress(NotImplementedError, AttributeError):  # on Windows
            for ending in (signal.SIGTERM, signal.SIGHUP):  # the terminal is to be left as it was
                asyncio.get_running_loop().add_signal_handler(ending, task.cancel)
        with patch_stdout():
            printing = asyncio.create_task(self._print())
            try:
                async with self._link:
                    self.notice(f"Talking with {self._link.url}. /help tells what there is.")
                    return await self._read()
            finally:
                printing.cancel()
                await asyncio.wait([printing])
                self._break()  # what was seen of an answer stays
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
                self._tell_typing(False)  # a line that is taken is no change of its text
            if text.startswith("/"):
                name, _, argument = text[1:].partition(" ")
                if name == "quit":
                    return 0
                await self._command(name, argument.strip())
            elif text.strip():
                self._say("you", text.strip(), "bold cyan")
                self._link.ask(text.strip())

    # ---- what is shown ----

    def notice(self, text: str) -> None:
        self._say("", text, "dim")

    def problem(self, text: str) -> None:
        self._say("", text, "red")

    def line(self, who: str, text: str) -> None:
        if who == "agent":
            self._say("agent", text, "bold green")
        else:
            self._say("user" if who == "user" else name_of(who), text, "bold magenta")

    def piece(self, text: str, *, mine: bool) -> None:
        if self._open is None:
            self._open, self._speaker = "", "agent"
        self._open += text.replace("\t", "    ")
        width = max(self._console.width - self._WIDTH - 1, 20)
        while (cut := _cut(self._open, width)) is not None:
            done, self._open = self._open[:cut], self._open[cut:]
            self._put(self._speaker, done.rstrip(), "bold green")
            self._speaker = ""
        self._news.set()

    def end(self, rest: str, *, mine: bool, interrupted: bool) -> None:
        if rest or interrupted:
            self.piece(f"{rest}{' … (cut off)' * interrupted}", mine=mine)
        self._break()

    def typing(self, who: str, typing: bool) -> None:
        if typing:
            self._typists[who] = None
        elif who:
            self._typists.pop(who, None)
        else:
            self._typists.clear()
        self._news.set()

    def changed(self) -> None:
        self._news.set()

    def _say(self, who: str, text: str, style: str) -> None:
        self._break()
        self._put(who, text, style)

    def _break(self) -> None:
        """What is shown of the answer so far stays where it is."""
        if self._open and self._open.strip():
            self._put(self._speaker, self._open.rstrip(), "bold green")
        self._open = None

    def _put(self, who: str, text: str, style: str) -> None:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        if not who and style in ("dim", "red"):
            self._lines.append(Padding(Text(text, style), (0, 0, 0, self._WIDTH)))
        else:
            line = Table.grid(expand=False)
            line.add_column(width=self._WIDTH, no_wrap=True)
            line.add_column(overflow="fold")
            line.add_row(Text(who, style), Text(text))
            self._lines.append(line)
        self._news.set()

    def _table(self, rows: list[list[Any]], *head: str) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(*head, box=None, show_header=bool(head), pad_edge=False)
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._break()
        self._lines.append(table)
        self._news.set()

    async def _print(self) -> None:
        """Prints what there is above the prompt, and draws that again."""
        from prompt_toolkit.application import in_terminal

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
            growing = [("bold ansigreen", f"{self._speaker:{self._WIDTH}}"), ("", f"{self._open}\n")]
        return [*growing, ("bold ansicyan", f"{'you':{self._WIDTH - 2}}> ")]

    def _toolbar(self) -> StyleAndTextTuples:
        link = self._link
        parts = [link.state, link.model, link.session_id or "no conversation yet"]
        if self._typists:
            who = ", ".join(name_of(one) for one in self._typists)
            parts.append(f"{who} {'is' if len(self._typists) == 1 else 'are'} typing…")
        return [("", " " + " · ".join(part for part in parts if part))]

    # ---- what is typed ----

    def _typed(self, buffer: Buffer) -> None:
        """Tells the others that somebody types, and no more 3 s after the last key."""
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

    # ---- commands: each is told of in /help by its docstring ----

    async def _command(self, name: str, argument: str) -> None:
        self._say("", f"/{name} {argument}".rstrip(), "dim")
        if name not in self._commands:
            self.problem(f"There is no /{name}: /help tells what there is.")
            return
        # Without a prompt, Ctrl-C is a signal: it ends what takes too long, and not the program.
        doing = asyncio.ensure_future(getattr(self, self._commands[name])(argument))
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # on Windows
            loop.add_signal_handler(signal.SIGINT, doing.cancel)
        try:
            await asyncio.wait({doing})
            doing.result()
        except asyncio.CancelledError:
            if not doing.cancelled():  # it is the program that is ended
                raise
            self.problem("Given up.")
        except Problem as problem:
            self.problem(str(problem))
        except (KeyError, TypeError, ValueError):
            self.problem("The server's answer is not one of relay's.")
        finally:
            doing.cancel()
            with suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)

    async def _do_help(self, _: str) -> None:
        """what there is"""
        names = "help stats server health docs demo clear quit connect disconnect ping new join info sessions"
        self._table(
            [
                [f"/{name}{' ID' * (name == 'join')}", getattr(self, self._commands[name]).__doc__]
                for name in names.split()
            ]
        )
        self.notice("Anything else is said to the agent; put a space before a message that begins with /.")

    async def _do_stats(self, _: str) -> None:
        """what this client has done"""
        link, stats = self._link, self._link.stats
        streams = stats.succeeded + stats.failed
        self._table(
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

    async def _do_server(self, _: str) -> None:
        """what the server has done"""
        self._table([*map(list, (await self._link.request("GET", "/stats")).items())])

    async def _do_health(self, _: str) -> None:
        """how the server is"""
        self._table([*map(list, (await self._link.request("GET", "/health")).items())])

    async def _do_docs(self, _: str) -> None:
        """the server's documentation, in a browser if there is one"""
        await self._browse("/docs")

    async def _do_demo(self, _: str) -> None:
        """the same conversations in a page, in a browser if there is one"""
        await self._browse("/demo")

    async def _browse(self, path: str) -> None:
        from prompt_toolkit.application import run_in_terminal

        url = self._link.url + path
        self._say("", url, "dim")
        if sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & set(os.environ):
            await run_in_terminal(lambda: webbrowser.open(url), in_executor=True)

    async def _do_clear(self, _: str) -> None:
        """empties the conversation on the server, for everybody in it"""
        session_id = self._here()
        await self._link.request("POST", f"/sessions/{session_id}/clear")

    async def _do_quit(self, _: str) -> None:
        """leaves; Ctrl-D and, with nothing typed, Ctrl-C do it too"""

    async def _do_connect(self, _: str) -> None:
        """connects, or tries again at once"""
        self._link.connect()

    async def _do_disconnect(self, _: str) -> None:
        """closes the connection until /connect"""
        await self._link.disconnect()
        self.notice("Disconnected.")

    async def _do_ping(self, _: str) -> None:
        """measures the way to the server and back"""
        self.notice(f"{await self._link.ping():.1f} ms")

    async def _do_new(self, _: str) -> None:
        """begins another conversation"""
        await self._link.new()
        self.notice(f"In the new conversation {self._link.session_id}.")

    async def _do_join(self, argument: str) -> None:
        """goes to that conversation, and shows what was said there last"""
        if not re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", argument):
            raise Problem("/join ID: /sessions lists them.")
        await self._link.join(argument)

    async def _do_info(self, _: str) -> None:
        """about this conversation"""
        told = await self._link.request("GET", f"/sessions/{self._here()}")
        self._table([[name, value] for name, value in told.items() if name != "history"])

    async def _do_sessions(self, _: str) -> None:
        """all conversations"""
        told = (await self._link.request("GET", "/sessions"))["sessions"]
        names = ["session_id", "message_count", "connected_clients", "last_activity"]
        rows = [[one[name] for name in names[:3]] + [str(one[names[3]])[:16]] for one in told]
        self._table(rows, "session", "messages", "clients", "last activity")

    def _here(self) -> str:
        if not self._link.session_id:
            raise Problem("There is no conversation yet: say something, /new or /join ID.")
        return self._link.session_id


def _history() -> Any:
    """What was typed before: in a file that is the user's alone, or nowhere if there can be none."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    file = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "relay" / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.open("ab").close()
    except (OSError, RuntimeError):
        return InMemoryHistory()
    return FileHistory(str(file))


def _cut(text: str, width: int) -> int | None:
    """Where a line ends that would be wider than so many columns; None: it fits."""
    from rich.cells import cell_len

    if 0 <= (newline := text.find("\n")) <= width and cell_len(text[:newline]) <= width:
        return newline + 1
    beyond = next((at for at in range(len(text)) if cell_len(text[: at + 1]) > width), None)
    if beyond is None:
        return None
    space = text.rfind(" ", 1, beyond + 1)
    return space + 1 if space > 0 else beyond


def _mean(seconds: list[float]) -> str:
    return f"{sum(seconds) / len(seconds):.2f} s" if seconds else "-"


def _url(text: str) -> str:
    """An address as people write it, as one to which paths can be added.

    Raises:
        Problem: it is none.
    """
    url = re.sub("^ws", "http", text if "://" in text else f"http://{text}").rstrip("/")
    try:
        if re.match("https?://[^/]", url) and httpx.URL(url).host:
            return url
    except httpx.InvalidURL:
        pass
    raise Problem(f"{text!r} is no http:// or https:// URL.")


def main() -> int:
    """`relay-client`; the exit code is 0, or 1 and stderr says why."""
    parser = argparse.ArgumentParser(
        description="Talk with the agent of a relay server. All that is piped in is one message: the answer"
        " is printed, and nothing else."
    )
    parser.add_argument("--url", default="http://localhost:8000", help="the server (%(default)s)")
    parser.add_argument("--session", metavar="ID", help="the conversation to go on with")
    arguments = parser.parse_args()
    try:
        url = _url(arguments.url)
        if sys.stdin and sys.stdin.isatty() and sys.stdout.isatty():
            try:
                terminal = Terminal(url, arguments.session)
            except ImportError as error:
                raise Problem(f"A terminal needs: pip install 'adk-relay[client]' ({error})") from None
            return asyncio.run(terminal.run())
        text = sys.stdin.buffer.read().decode(errors="replace").strip() if sys.stdin else ""
        if not text:
            raise Problem("There is nothing to ask: the input is empty.")
        return asyncio.run(pipe(url, arguments.session, text))
    except Problem as problem:
        print(f"relay-client: {problem}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main())
