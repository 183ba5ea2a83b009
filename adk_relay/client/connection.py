"""A WebSocket to the server that is opened again when it breaks, or plain HTTP if none gets through."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import quote

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.http11 import Response

from adk_relay.client.http import Http
from adk_relay.client.state import State
from adk_relay.client.stats import Stats
from adk_relay.client.untrusted import cleaned
from adk_relay.client.view import Problem, View

_PASSING_STATUS = (429, 500, 502, 503, 504)
"""HTTP statuses of a server that is starting, stopping or full."""

_STOPPING = 503
"""The status of a server that is about to stop: over HTTP it takes nothing, either."""

_PASSING_CODES = (1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015)
"""Standard close codes (RFC 6455 section 7.4.1, and IANA's registry) after which another try may succeed.
The others say that this client did something wrong (1002, 1003, 1007 to 1010)."""

_FAILURE_CODES = (1011, 4411)
"""Close codes that follow when the agent has failed for good. Servers and proxies use 1011, too: uvicorn
closes with it when a laptop has slept and answered no ping."""

_PAUSES = wait_random_exponential(multiplier=0.5, max=15)
_WITHOUT_WEBSOCKET = 30.0
"""Seconds between two tries while no WebSocket gets through."""

_SETTLED = 5.0
"""Seconds after which a connection counts as good: when it breaks, the pauses begin small again."""

_GREETING = 10.0
"""Seconds in which the server must send the greeting of a relay."""


class LostError(Problem):
    """There is no connection now, but another try may succeed."""


def comes_back(code: int) -> bool:
    """Whether a client opens another connection by itself after one was closed with `code`.

    The relay's own codes are a contract: 4400 to 4409 say no, 4410 to 4499 say yes.
    """
    return code in _PASSING_CODES or 4410 <= code <= 4499


class Owner(Protocol):
    """The user of a connection: it gets the frames."""

    async def take(self, raw: str | bytes) -> None:
        """A frame has come. The server's greeting, which has to come soon, leads to a greeted state.

        Raises:
            Problem: another connection would not help either.
        """

    def closed(self, *, for_good: bool) -> None:
        """The socket is gone. `for_good`: no other one is opened until a text is sent."""

    async def post(self) -> bool:
        """Sends a waiting text over HTTP. False: none waits."""


class Connection:
    """Keeps a connection open, and has its state.

    Args:
        http: the same server's HTTP interface, which tells whether there is a relay.
        view: gets the events.
        stats: counts the attempts.
        owner: gets the frames.
        once: do not try again after the connection was lost.
        name: what the others are told, unless the token says it; "": nothing.

    Invariants, which `check` asserts. They hold whenever another task runs:
        A task keeps the connection, except in the states DISCONNECTED and ASLEEP.
        There is a socket in the greeted states, and none in DISCONNECTED and ASLEEP. In the others there
        may be one that the server has not greeted on yet.
    """

    def __init__(
        self, http: Http, view: View, stats: Stats, owner: Owner, *, once: bool, name: str = ""
    ) -> None:
        self.state = State.DISCONNECTED
        self._http = http
        self._view = view
        self._stats = stats
        self._owner = owner
        self._once = once
        self._query = f"?name={quote(name)}" if name else ""
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._try_now = False  # the user does not want to wait until the pause ends
        self._agent_failed = False  # the server has said so on this socket
        self._news = asyncio.Event()  # wakes the pause: there is a text, or `_try_now`

    def check(self) -> None:
        """Asserts the invariants."""
        is_kept = self._task is not None and not self._task.done()
        assert is_kept != self.state.is_idle, (self.state, self._task)
        if self.state.is_greeted:
            assert self._socket, self.state
        elif self.state.is_idle:
            assert not self._socket, self.state

    @property
    def has_socket(self) -> bool:
        return self._socket is not None

    async def start(self) -> None:
        await self._group.__aenter__()
        self.open()

    async def end(self, *error: Any) -> None:
        await self.close()
        await self._group.__aexit__(*error)

    def open(self) -> None:
        """Opens a socket, or ends the pause before the next try."""
        if self.state.is_idle:
            self.become(State.CONNECTING)
            self._task = self._group.create_task(self._keep())
        else:
            self._try_now = True
            self._news.set()

    async def close(self) -> None:
        """Closes the socket, and opens no other."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.become(State.DISCONNECTED)

    def become(self, state: State) -> None:
        """Goes to another state.

        Raises:
            StateError: it can't follow the present one.
        """
        self.state = self.state.to(state)
        self._view.changed()

    def send(self, **frame: Any) -> None:
        """Sends a frame, if there is a socket."""
        if self._socket:
            self._group.create_task(_send(self._socket, json.dumps(frame)))

    def wake(self) -> None:
        """Wakes the pause between two tries: there is a text, which may have to go over HTTP."""
        self._news.set()

    def agent_failed(self) -> None:
        """The server has said that the agent failed for good: the close that follows is for good, too."""
        self._agent_failed = True

    # ---- the task ----

    async def _keep(self) -> None:
        """Keeps a connection open until it is closed for good, or until another try would not help."""
        end = State.DISCONNECTED
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(LostError),
                wait=lambda tries: _WITHOUT_WEBSOCKET if self.state is State.HTTP else _PAUSES(tries),
                before_sleep=self._lost,
                sleep=self._pause,
                stop=lambda _: self._once and self.state is not State.HTTP,
                reraise=True,
            ):
                with attempt:
                    await self._attend(attempt.retry_state)
            end = State.ASLEEP
        except Problem as problem:
            self._view.problem(str(problem))
        finally:
            self.become(end)

    async def _attend(self, tries: RetryCallState) -> None:
        """One connection, from its beginning to its end. It returns when the server closed it for good.

        Raises:
            LostError: another try may help.
            Problem: another try would not help.
        """
        self._stats.attempts += 1
        try:
            url = "ws" + self._http.url.removeprefix("http") + "/ws" + self._query
            socket = await connect(
                url, close_timeout=1, max_size=2**24, additional_headers=self._http.headers
            )
        except (OSError, InvalidHandshake) as error:
            raise await self._refused(error, tries.attempt_number) from None
        except (WebSocketException, ImportError) as error:  # some proxies need another library
            raise Problem(str(error)) from None
        opened, for_good = time.monotonic(), False
        self._socket = socket
        self._agent_failed = False
        try:
            async with asyncio.timeout(_GREETING) as limit:
                while True:
                    await self._owner.take(await socket.recv())
                    if self.state.is_greeted:
                        limit.reschedule(None)
        except TimeoutError:
            raise LostError(f"{self._http.url} does not answer as a relay does.") from None
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            why = f"The connection was lost ({f'{code} {cleaned(reason)}'.strip()})."
            if time.monotonic() - opened > _SETTLED:
                tries.attempt_number = 1
            has_failed = self._agent_failed and code in _FAILURE_CODES
            if self._once or (comes_back(code) and not has_failed):
                raise LostError(why) from None
            for_good = True
            self._view.notice(f"{why} Your next message opens another.")
        finally:
            # Nothing may wait between the socket's end and the state that follows it.
            await socket.close()
            self._socket = None
            self._owner.closed(for_good=for_good)

    async def _refused(self, error: OSError | InvalidHandshake, attempt: int) -> Problem:
        """The error that is raised if no WebSocket could be opened."""
        status = error.response.status_code if isinstance(error, InvalidStatus) else 0
        if isinstance(error, InvalidStatus) and (refusal := _refusal(error.response)):
            return Problem(refusal)
        is_final = bool(status) and status not in _PASSING_STATUS
        if status == _STOPPING:
            return LostError(f"{self._http.url} takes no connections now.")
        # Some proxies refuse a WebSocket, others hang up or stay silent. So does a server that restarts.
        if is_final or ((attempt > 2 or self._once) and not isinstance(error, ConnectionError)):
            is_relay = await self._http.is_relay()
            if is_relay and self.state is not State.HTTP:
                self.become(State.HTTP)
                self._view.notice(
                    f"No WebSocket gets through ({cleaned(str(error))}). Going on over plain HTTP: answers"
                    " come whole, and you do not see what others do."
                )
            elif is_final and not is_relay:
                return Problem(f"There is no relay at {self._http.url}: it answers {status}.")
        why = getattr(error, "strerror", "") or str(error) or type(error).__name__
        return LostError(f"{self._http.url} can't be reached: {cleaned(why)}.")

    def _lost(self, tries: RetryCallState) -> None:
        if self.state not in (State.HTTP, State.WAITING):
            self.become(State.WAITING)
            error = tries.outcome.exception() if tries.outcome else None
            self._view.notice(f"{error} Trying again…")

    async def _pause(self, seconds: float) -> None:
        """Waits until the next try. In the state HTTP, texts that are written meanwhile go over HTTP."""
        self._try_now = False
        with suppress(TimeoutError):
            no_limit = self.state is State.HTTP and self._once
            async with asyncio.timeout(None if no_limit else seconds) as limit:
                while not self._try_now:
                    self._news.clear()
                    if self.state is State.HTTP:
                        deadline = limit.when()
                        limit.reschedule(None)  # an answer takes its time
                        while not self._try_now and await self._owner.post():
                            pass
                        limit.reschedule(deadline)
                    if not self._try_now:
                        await self._news.wait()


async def _send(socket: ClientConnection, frame: str) -> None:
    with suppress(ConnectionClosed):  # the task that reads from the socket sees it too
        await socket.send(frame)


def _refusal(response: Response) -> str:
    """Why the relay does not let this user in; "": something else has answered, or it says another thing."""
    if response.status_code not in (401, 403):
        return ""
    try:
        return str(cleaned(json.loads(response.body or b"")["detail"]))
    except (ValueError, LookupError, TypeError):
        return ""
