"""A WebSocket from its beginning to its end: it reads, writes and watches, whatever dialect it speaks."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import (
    GUEST,
    BusyError,
    Conversation,
    Conversations,
    StoppingError,
    StoreError,
    UnknownConversationError,
)
from adk_relay.core.logs import one_line
from adk_relay.core.messages import Ended, Error, Interrupt, Message, Reset, TurnEnd, UserText
from adk_relay.core.room import After
from adk_relay.wire.asgi import Receive, Send
from adk_relay.wire.dialects import Ask, BadFrameError, Command, Create, Dialect, Join, Welcome
from adk_relay.wire.outbox import Close, Frame, Outbox

log = logging.getLogger("relay")

_CLOSE_WAIT = 1.0
"""Seconds a stalled peer has to take the close frame: `send` waits for it to read."""

_FRAMES_A_TURN = 32
"""So many frames are read from one socket before all others have a turn."""

_MAX_BAD_FRAMES = 20
"""So many in a row are no mistakes any more."""


@dataclass(slots=True, frozen=True)
class Limits:
    """What a socket is granted: bytes in its queue, and seconds (see `relay.Relay`)."""

    queue_bytes: int
    slow_timeout: float
    ping_interval: float
    pong_timeout: float
    idle_timeout: float


class Socket:
    """One accepted WebSocket: reads, writes and watches, until one of the three finds that it is over."""

    def __init__(
        self,
        conversations: Conversations,
        limits: Limits,
        dialect: Dialect,
        receive: Receive,
        send: Send,
    ) -> None:
        self.connection_id = secrets.token_urlsafe(9)
        self.is_audio = dialect.is_audio
        self.attends = dialect.attends
        self._conversations = conversations
        self._limits = limits
        self._dialect = dialect
        self._receive = receive
        self._send = send
        self._conversation: Conversation | None = None
        self._stays = False
        """It is for one conversation, and stays in it even when that is deleted."""
        self._outbox = Outbox(dialect.encoder(""), limits.queue_bytes)
        self._name = dialect.name
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._last_frame = self._last_content = time.monotonic()
        self._sending_since: float | None = None
        self._pinged = 0.0
        """When the last ping was queued; 0: never."""
        self._ping_sent = 0.0
        """When `send` returned of the first one that no frame has followed."""
        self._has_ponged = False
        self._frames_in = self._frames_out = 0

    # ---- for the conversation (adk_relay.core.room.Listener): nothing here waits ----

    def put(self, message: Message) -> None:
        """Takes a message of the conversation's."""
        if isinstance(message, Ended):
            if self.attends == "own" and message.why != "failed":  # of which an Error has told already
                self._outbox.put(Error(message.why, ENDS[message.why]))
            self._outbox.close(*_CLOSES[message.why])
            return
        self._outbox.put(message)
        if self._stays:
            return
        match message:
            case Reset(deleted=True):
                self._leave()
            case TurnEnd(goes_on=False) if self.attends == "own":
                self._outbox.close(1000, "done")
            case Error("busy") if self.attends == "own":
                self._outbox.close(1013, "busy")

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes what was said before it came."""
        self._outbox.replay(messages)

    def stop(self) -> None:
        """The server is going."""
        self.put(Ended("stopping"))

    # ---- its life ----

    async def serve(
        self,
        client: tuple[str, int] | None,
        user_id: str | None = None,
        session_id: str | None = None,
        after: After | None = None,
    ) -> None:
        """Serves the socket until its end, then closes it if it is still there.

        Args:
            client: the peer's address, for the log.
            user_id, session_id: the conversation that it is for; None: it says so itself.
            after: the last message that its client has got.
        """
        began = time.monotonic()
        end = Close(1001, "the server is going")
        if connected := self._dialect.connected(self.connection_id, self._conversations.model):
            self._outbox.put_frame(connected)
        try:
            if user_id is not None:
                self._name = f"{user_id} {self._name}"
                self._stays = True
                try:
                    self._enter(await self._conversations.open(user_id, session_id), after)
                except StoreError:
                    self._fail()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._watch())
                group.create_task(self._read())
        except* StoppingError:
            pass
        except* UnknownConversationError as unknown:  # another user was quicker
            end = Close(4404, str(unknown.exceptions[0]))
        except* Close as ends:
            end = next(e for e in ends.exceptions if isinstance(e, Close))
        except* Exception as errors:
            end = Close(1011, "an internal error")
            log.exception("%s: the socket failed", self._name, exc_info=errors.exceptions[0])
        finally:
            # 1012: the server is going. Runs are ended while it still waits for its connections to go.
            # A client may close with it too, and only gives up its own grace.
            where = self._conversation.session_id if self._conversation else "no conversation"
            self._leave(at_once=end.code == 1012)
            self._outbox.give_up()
            log.info(
                "%s %s in %s from %s: %.1f s, %d frames in, %d out, %.0f ms of sound dropped, closed %s",
                self._name,
                self.connection_id,
                where,
                client[0] if client else "?",
                time.monotonic() - began,
                self._frames_in,
                self._frames_out,
                self._outbox.dropped_ms,
                one_line(f"{end.code} {end.reason}"),
            )
        if not isinstance(end, _Gone):
            try:
                async with asyncio.timeout(_CLOSE_WAIT):
                    await self._send({"type": "websocket.close", "code": end.code, "reason": end.reason})
            except (OSError, RuntimeError):  # a TimeoutError is the first
                pass  # it stalls, or has gone meanwhile: the server ends what is left of it

    def _enter(self, conversation: Conversation, after: After | None = None, *, is_new: bool = False) -> None:
        """Attends a conversation. Nothing may be awaited since it was opened."""
        is_there = conversation is self._conversation
        if not is_there:
            self._leave()
        self._conversation = conversation
        self._outbox.encode = self._dialect.encoder(conversation.session_id)
        room = conversation.room
        welcome = self._dialect.welcome(
            Welcome(
                session_id=conversation.session_id,
                user_id=conversation.user_id,
                connection_id=self.connection_id,
                connections=len(room.listeners) + (not is_there),
                model=self._conversations.model,
                is_rehearsal=self._conversations.is_rehearsal,
                is_audio=self.is_audio,
                ping_interval=self._limits.ping_interval,
                epoch=room.epoch,
                seq=room.seq,
                message_count=room.history.message_count,
                is_new=is_new,
            )
        )
        if welcome:
            self._outbox.put_frame(welcome)
        if not is_there:
            conversation.attach(self, after)

    def _leave(self, *, at_once: bool = False) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation:
            # Nobody comes back to a room in which nothing was said: rooms without end could be made.
            is_empty = not (self._stays or conversation.room.history.message_count)
            conversation.detach(self, at_once=at_once or is_empty)
            self._outbox.encode = self._dialect.encoder("")

    async def _read(self) -> None:
        bad_frames = 0
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise _Gone(event.get("code", 1005), event.get("reason") or "")
            self._last_frame = time.monotonic()
            self._frames_in += 1
            if self._frames_in % _FRAMES_A_TURN == 0:
                await asyncio.sleep(0)  # `receive` does not wait while frames wait
            text = event.get("text")
            frame: Frame = event["bytes"] if text is None else text
            if self._debug:
                log.debug("[CLIENT TO AGENT] %s: %s", self._name, _brief(frame))
            name = ""
            try:
                said = self._dialect.decode(frame)
                bad_frames = 0
                name = _id(said)
                if said not in ("ping", "pong"):
                    self._last_content = self._last_frame
                await self._perform(said)
            except BadFrameError as bad:
                self._outbox.put(Error(bad.code, str(bad), bad.id))
                bad_frames += 1
                if bad_frames == _MAX_BAD_FRAMES or self.attends == "own":
                    self._outbox.close(1008, f"{bad_frames} bad frames in a row")
                    return
            except StoreError:
                self._fail()
                return
            except UnknownConversationError as unknown:
                self._refuse("unknown_session", unknown, name, 1008)
            except (BusyError, InboxFullError) as busy:
                self._refuse("busy", busy, name, 1013)

    async def _perform(self, said: Command) -> None:
        """Does what a frame says."""
        conversation = self._conversation
        match said:
            case "ping":
                self._outbox.put_first("pong", self._dialect.pong(self.connection_id))
            case "pong":
                self._has_ponged = True
            case Create():
                session_id = await self._conversations.create()
                self._enter(await self._conversations.find(session_id), is_new=True)
            case Join(session_id):
                self._enter(await self._conversations.find(session_id))
            case Ask() if conversation and self.attends == "own":
                pass  # it has made its one request
            case Ask(text, session_id):
                if session_id and not (conversation and conversation.session_id == session_id):
                    if self.attends == "own":  # whose clients invent their ids
                        self._enter(await self._conversations.open(GUEST, session_id))
                    else:
                        self._enter(await self._conversations.find(session_id))
                elif not conversation:
                    await self._perform(Create())
                if self._conversation:
                    self._conversation.ask(text, self)
            case _ if conversation:
                if isinstance(said, Interrupt):  # also of an answer that is over and still queued
                    self._outbox.recall_audio()
                conversation.handle(said, self)

    def _fail(self) -> None:
        """The session service has failed."""
        self.put(Error("agent_failed", "The conversations can't be reached. The server's log says why."))
        self.put(Ended("failed"))

    def _refuse(self, code: str, why: Exception, name: str, close_code: int) -> None:
        self._outbox.put(Error(code, str(why), name))
        if self.attends == "own":
            self._outbox.close(close_code, code)

    async def _write(self) -> None:
        while True:
            frame = await self._outbox.get()
            if self._debug:
                log.debug("[AGENT TO CLIENT] %s: %s", self._name, _brief(frame))
            self._sending_since = time.monotonic()
            try:
                if isinstance(frame, bytes):
                    await self._send({"type": "websocket.send", "bytes": frame})
                else:
                    await self._send({"type": "websocket.send", "text": frame})
            except (OSError, RuntimeError):
                # A peer that has gone is an OSError (ASGI spec 2.4). Where the server itself has closed,
                # for a broken frame, uvicorn calls it a misuse until `receive` has told. What that tells
                # is the code, so it goes first.
                await asyncio.sleep(_CLOSE_WAIT)
                raise _Gone(1006, "") from None
            self._sending_since = None
            self._frames_out += 1
            if frame is self._dialect.ping and self._ping_sent <= self._last_frame:
                self._ping_sent = time.monotonic()

    async def _watch(self) -> None:
        """Pings a client that is quiet, and gives up one that is dead or has stalled.

        Deadlines are looked at when they may have come; nothing is armed or canceled a frame.
        """
        limits = self._limits
        while True:
            now = time.monotonic()
            stalled_at = (self._sending_since or now) + limits.slow_timeout
            if self._sending_since and now >= stalled_at:
                raise Close(1013, "too slow")
            dead_at = float("inf")
            if self._has_ponged and self._ping_sent > self._last_frame:
                dead_at = self._ping_sent + limits.pong_timeout
                if now >= dead_at:
                    raise Close(4408, "no pong")
            ping_at = max(self._last_frame, self._pinged) + limits.ping_interval
            if now >= ping_at:
                if self._dialect.ping:
                    self._outbox.put_first("ping", self._dialect.ping)
                self._pinged = now
                ping_at = now + min(limits.ping_interval, limits.pong_timeout)
            idle_at = float("inf")
            if limits.idle_timeout and not self._conversation:  # the others are told by theirs
                idle_at = self._last_content + limits.idle_timeout
                if now >= idle_at:
                    raise Close(4408, "idle")
            # One that leaves its conversation is looked at again within that time.
            look_at = now + (limits.idle_timeout or float("inf"))
            await asyncio.sleep(max(min(stalled_at, dead_at, ping_at, idle_at, look_at) - now, 0.001))


_CLOSES: dict[str, tuple[int, str]] = {
    "idle": (4408, "idle"),
    "failed": (1011, "the agent failed"),
    "stopping": (1001, "the server is going"),
}
"""How a socket is closed whose conversation has ended."""

ENDS = {
    "idle": "The agent has said nothing for too long.",
    "failed": "The agent failed. The server's log says why.",
    "stopping": "The server is going.",
}
"""What that means for who waits for an answer."""


def _id(said: Command) -> str:
    """The name that a client has given a text, if it is one."""
    text = said.text if isinstance(said, Ask) else said
    return text.id if isinstance(text, UserText) else ""


class _Gone(Close):
    """The peer has closed the socket: there is nothing left to close."""


def _brief(frame: Frame) -> str:
    """A frame for the log: sound and pictures are not worth a line of base64."""
    if isinstance(frame, bytes):
        return f"{len(frame)} bytes of sound"
    return one_line(frame, 300) + (f"… ({len(frame)} characters)" if len(frame) > 300 else "")
