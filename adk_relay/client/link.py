"""The link to the server: a conversation in the chat dialect. It knows frames, but no terminal."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import suppress
from typing import Any, Self

from adk_relay.client.calls import Call, Calls
from adk_relay.client.connection import Connection
from adk_relay.client.http import Http, Json
from adk_relay.client.requests import Requests
from adk_relay.client.state import State
from adk_relay.client.stats import Stats
from adk_relay.client.transcript import Transcript, sources
from adk_relay.client.untrusted import cleaned, objects, one_line
from adk_relay.client.view import Problem, View, name_of

_FINAL_ERRORS = ("agent_failed", "model_refused", "model_unavailable")
"""Codes of errors after which the server closes the socket: another try would fail in the same way."""


class Link:
    """A conversation with the agent, over a connection that may break.

    Args:
        url: where the relay is, http or https.
        view: gets the events.
        session_id: the conversation to go on with.
        token, name: say who the user is, to the server and to the others; "": nobody.
        once: only one answer is wanted: do not try again after the connection was lost.

    Raises:
        Problem: the proxy that the environment names can't be used.

    Invariants, which `check` asserts, with those of the connection, the transcript and the calls. They hold
    whenever another task runs:
        JOINING has a `session_id`, CREATING has none.
        In CONNECTED, no text waits to be sent.
        A pong is waited for only while there is a socket.
    """

    def __init__(
        self,
        url: str,
        view: View,
        session_id: str | None = None,
        *,
        token: str = "",
        name: str = "",
        once: bool = False,
    ) -> None:
        self.url = url
        self.session_id = session_id
        self.model = ""
        self.connection_id = ""
        self.stats = Stats()
        self.http = Http(url, token)
        self._view = view
        self._once = once
        self._connection = Connection(self.http, view, self.stats, self, once=once, name=name)
        self._pong: asyncio.Future[None] | None = None
        self._names: dict[str, str] = {}  # the names of others, by connection id
        self._own_ids: set[str] = set()  # the connection ids that this client has had
        self._requests = Requests(self.stats)
        self.calls = Calls(view)
        self._transcript = Transcript(view, self._requests, self.stats, self._own_ids)
        self._transcript.seen = None if session_id else 0
        self._is_typing = self._listens = False  # the user is typing; was invited to listen only

    def check(self) -> None:
        """Asserts the invariants."""
        self._connection.check()
        self._transcript.check()
        self.calls.check()
        if self.state is State.JOINING:
            assert self.session_id
        elif self.state is State.CREATING:
            assert not self.session_id, self.session_id
        elif self.state is State.CONNECTED:
            assert not self._requests.waiting(), self._requests.waiting()
        if self._pong and not self._pong.done():
            assert self._connection.has_socket, self.state

    def name_of(self, connection_id: str) -> str:
        """What to call a user."""
        return self._names.get(connection_id) or name_of(connection_id)

    @property
    def state(self) -> State:
        return self._connection.state

    async def __aenter__(self) -> Self:
        await self._connection.start()
        return self

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._connection.end(*error)
        finally:
            await self.http.close()

    # ---- what the user wants ----

    def connect(self) -> None:
        """Opens a connection, or ends the pause before the next try."""
        self._connection.open()

    async def disconnect(self) -> None:
        """Closes the connection, and opens no other."""
        await self._connection.close()

    def ask(self, text: str) -> None:
        """Sends a text, now or as soon as there is a connection."""
        self.stats.messages += 1
        self._requests.add(text)
        self._connection.wake()
        match self.state:
            case State.CONNECTED:
                self._send_waiting()
            case State.ASLEEP:
                self.connect()
            case State.WAITING | State.DISCONNECTED:
                self._view.notice("It is sent as soon as there is a connection.")

    def typing(self, typing: bool) -> None:
        """Tells the others in the conversation that the user types, or stops."""
        self._is_typing = typing
        if self.state is State.CONNECTED and self.session_id and not self._listens:
            self._connection.send(type="typing_start" if typing else "typing_stop")

    async def ping(self) -> float:
        """Milliseconds to the server and back.

        Raises:
            Problem: there is no connection, or no answer.
        """
        if not self._connection.has_socket:
            raise Problem("There is no WebSocket to measure.")
        self._pong = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._connection.send(type="ping")
        try:
            await asyncio.wait_for(self._pong, 10)
        except TimeoutError:
            raise Problem("No answer within 10 s.") from None
        return (time.monotonic() - began) * 1000

    async def new(self) -> None:
        """Begins another conversation.

        Raises:
            Problem: the server makes none.
        """
        created = await self.http.request("POST", "/sessions/new")
        self.stats.sessions += 1
        await self._enter(str(created.get("session_id")), 0)

    async def join(self, session_id: str) -> None:
        """Goes to another conversation, and shows its last messages.

        Raises:
            Problem: there is no such conversation.
        """
        info = await self.http.request("GET", f"/sessions/{session_id}")
        await self._enter(session_id, int(info.get("message_count", 0)))

    async def answer(self, call: Call, result: Any) -> None:
        """Answers a tool call that waits.

        Raises:
            Problem: it does not wait any more, or its tool can't use this result.
        """
        body = {"tool_id": call.id, "result": result}
        try:
            await self.http.request("POST", f"/sessions/{self.session_id}/tool_result", json=body)
        except Problem:
            self.calls.refused(call)
            raise
        self.calls.complete(call.id, result)
        if self.state is State.HTTP:
            self._view.notice(f"The answer is not shown without a WebSocket: /join {self.session_id}")

    # ---- frames ----

    async def take(self, raw: str | bytes) -> None:
        """Handles a frame. Anything that is not a frame of the chat dialect is ignored.

        Raises:
            Problem: there is no such conversation, and `once` is set.
        """
        try:
            frame = cleaned(json.loads(raw))
        except (ValueError, RecursionError):
            return
        conversation = frame.get("session_id") if isinstance(frame, dict) else None
        if conversation not in (None, self.session_id) and frame.get("type") != "session_created":
            return  # from a conversation that the link has left
        match frame:
            case {"type": "connected", "connection_id": str(me), "server_info": {"model": str(model)}}:
                self._greeted(me, model)
            case {"type": "session_created", "session_id": str(session_id)}:
                if self.state is State.CREATING:  # or the user has joined another one meanwhile
                    self.session_id, self._transcript.seen = session_id, 0
                    self.stats.sessions += 1
                    self._connection.become(State.CONNECTED)
                    self._send_waiting()
            case {"type": "session_joined", "message_count": int(count)}:
                self._entered(frame)
                self.calls.joined()
                if self.state is State.JOINING and await self._catch_up(count):
                    self._go_on()
            case {"type": "ack", "id": str(request_id)}:
                self._requests.store(request_id)
            case {"type": "response_start"}:
                self._transcript.start(frame)
            case {"type": "chunk", "text": str(text), "chunk_number": int(number)}:
                self._transcript.chunk(text, number)
            case {"type": "response_complete", "full_response": str(text), "message_count": int(count)}:
                self._transcript.complete(frame, text, count)
            case {"type": "tool_start"}:
                self.calls.start(frame)
            case {"type": "tool_complete", "tool_id": str(call_id)}:
                self.calls.complete(call_id, frame.get("result"))
            case {"type": "session_update", "update_type": str(update)}:
                self._updated(update, frame)
            case {"type": "status", "message": str(text), "ahead": int(ahead)} if ahead > 0:
                self._view.notice(text)
            case {"type": "ping"}:
                self._connection.send(type="pong")
            case {"type": "pong"} if self._pong and not self._pong.done():
                self._pong.set_result(None)
            case {"type": "token_expiring", "expires_in": int(seconds)}:
                self._view.notice(f"Your token expires in {seconds} s: then the connection ends.")
            case {"type": "going_away"}:
                self._view.notice("The server is about to stop or restart.")
            case {"type": "error", "message": str(text)}:
                self._failed(text, frame)

    def _greeted(self, connection_id: str, model: str) -> None:
        self.connection_id, self.model = connection_id, model
        if self._own_ids:
            self.stats.reconnections += 1
            self._view.notice("Connected again.")
        self._own_ids.add(connection_id)
        if self.session_id:
            self._join()
        else:
            self._go_on()

    def _entered(self, frame: Json) -> None:
        """The server has told who is in the conversation, and what the user may do there."""
        listens, self._listens = self._listens, frame.get("role") == "listen"
        if self._listens and not listens:
            self._view.notice("You were invited to listen only: what you write is refused.")
        if isinstance(names := frame.get("names"), dict):
            self._names |= {connection_id: one_line(str(name)) for connection_id, name in names.items()}

    def _updated(self, update: str, frame: Json) -> None:
        connection_id = str(frame.get("connection_id", ""))
        if name := frame.get("name"):
            self._names[connection_id] = one_line(str(name))
        match update, frame:
            case "message_added", {"message": str(text), "message_count": int(count)}:
                self._transcript.added(connection_id, text, count)
            case "user_typing", {"typing": bool(typing)}:
                self._view.typing(connection_id, typing)
            case "user_joined", _:
                self._view.notice(f"{self.name_of(connection_id)} came.")
            case "user_disconnected", _ if connection_id not in self._own_ids:
                self._view.typing(connection_id, False)
                self._view.notice(f"{self.name_of(connection_id)} left.")
            case "session_rewound", {"message_count": int(count)}:
                self._transcript.rewound(count)
            case (("session_cleared" | "session_deleted"), _):
                self._transcript.enter(0)
                self.calls.forget()
                if update == "session_deleted" and self.state is not State.JOINING:
                    self.session_id = None  # in JOINING, the server's answer to the join decides
                self._view.changed()
                self._view.notice(f"The conversation was {update.removeprefix('session_')}.")

    def _failed(self, text: str, frame: Json) -> None:
        """The server has refused something."""
        if frame.get("code") in _FINAL_ERRORS:
            self._connection.agent_failed()
            self._requests.fail()
        gone = self.state is State.JOINING and frame.get("code") == "unknown_session"
        if request := self._requests.get(frame.get("id")):
            self._requests.give_up(request)
            gone = False
        if gone and self._once:
            raise Problem(text)
        self._view.problem(text)
        if gone:  # it was deleted; or the server had it in memory only, and was restarted
            self.session_id = None
            self._transcript.enter(0)
            self.calls.forget()
            self._view.notice("That conversation is gone. Your next message begins another.")
            self._go_on()

    def closed(self, *, for_good: bool) -> None:
        """The socket is gone. `for_good`: no other one is opened until a text is sent."""
        self._view.typing("", False)
        if self._pong and not self._pong.done():
            self._pong.set_exception(Problem("The connection was lost."))
        if for_good:
            self._requests.give_up_sent()

    # ---- conversations ----

    async def _enter(self, session_id: str, count: int) -> None:
        """Goes to a conversation that has `count` messages."""
        self._requests.give_up_sent()
        self.session_id = session_id
        self._transcript.enter(None)
        self.calls.forget()
        self._view.changed()
        if self.state.is_greeted:
            self._join()
        else:
            await self._catch_up(count)

    def _join(self) -> None:
        self._connection.become(State.JOINING)
        self._connection.send(type="join_session", session_id=self.session_id)

    async def _catch_up(self, count: int) -> bool:
        """Shows what was missed up to message `count`. False: the user has gone to another conversation."""
        session_id = self.session_id
        assert session_id
        try:
            history = await self.http.history(session_id)
        except Problem as problem:
            history, why = None, str(problem)
        if session_id != self.session_id:
            return False
        if history:
            self._transcript.catch_up(history, count)
        else:
            self._view.problem(f"What was said before can't be shown: {why}")
            self._transcript.pass_over(count)
        return True

    def _go_on(self) -> None:
        """Texts may be sent now."""
        self._connection.become(State.CONNECTED)
        if self._is_typing:
            self.typing(True)
        self._requests.send_again()
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Sends what waits. Without a conversation, one is asked for first."""
        waiting = self._requests.waiting()
        if waiting and not self.session_id:
            self._connection.become(State.CREATING)
            self._connection.send(type="create_session")
            return
        for request in waiting:
            request.state, request.has_failed = "sent", False
            frame = {"message": request.text, "session_id": self.session_id, "id": request.id}
            self._connection.send(type="chat", **frame)

    async def post(self) -> bool:
        """Sends a waiting text over HTTP, and waits for the answer. False: no text waits."""
        waiting = self._requests.waiting()
        if not waiting:
            return False
        if not self.session_id:
            self.session_id = secrets.token_hex(16)
            self.stats.sessions += 1
            self._view.changed()
        session_id, request = self.session_id, waiting[0]
        request.state = "sent"
        try:
            answer = await self.http.chat(session_id, request.text)
        except Problem as problem:
            self._view.problem(str(problem))
            return True
        else:
            interrupted = bool(answer.get("interrupted"))
            if self._requests.close(request, succeeded=not interrupted):
                self.stats.response_times.append(time.monotonic() - request.at)
                for call in objects(answer.get("tool_calls")):
                    if call.get("pending") and call.get("result") is None:
                        self.calls.start(call)
                self._view.end(str(answer.get("content", "")), mine=True, interrupted=interrupted)
                if lines := sources(answer):
                    self._view.sources(lines)
        finally:
            self._requests.give_up(request)  # without an answer, it is unknown whether the server has it
        with suppress(Problem):  # so that these messages are not shown again when there is a WebSocket
            history = await self.http.history(session_id)
            if session_id == self.session_id:
                self._transcript.seen = history.count
        return True
