"""One WebSocket from accept to close, in any dialect: it reads commands and writes frames."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import (
    Conversation,
    Conversations,
    StoppingError,
    StoreError,
    UnknownConversationError,
    UnreachableError,
)
from adk_relay.core.logs import connection_id, conversation_id, one_line
from adk_relay.core.messages import Ended, Error, Gap, Message, Reset, TurnEnd
from adk_relay.core.requests import BusyError
from adk_relay.core.room import After
from adk_relay.wire.admission import Admission
from adk_relay.wire.asgi import Receive, Send
from adk_relay.wire.closing import (
    BUSY,
    CONVERSATION_ENDED,
    CONVERSATION_ENDED_TEXT,
    DONE,
    FORBIDDEN,
    INTERNAL_ERROR,
    NOT_FOUND,
    RATE_LIMITED,
    SERVER_RESTARTS,
    SERVER_STOPPING,
    Close,
    CloseFrame,
    PeerGone,
)
from adk_relay.wire.dialects import Dialect, Welcome
from adk_relay.wire.handshake import send_close
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.limits import Limits
from adk_relay.wire.outbox import Outbox
from adk_relay.wire.pacing import Pace
from adk_relay.wire.reader import Reader
from adk_relay.wire.writer import Writer

log = logging.getLogger("relay")

_LOOK_EVERY = 1.0
"""Seconds until a dialect with a `look` is asked again."""


class Socket:
    """One accepted WebSocket, which listens to at most one conversation at a time.

    Three tasks run until one of them finds that the socket is over: one reads frames, one writes frames
    and one watches the heartbeat.

    States: outside (it attends no conversation), attending, over.

    Invariants:
        - While it attends a conversation, it is in that conversation's room, exactly once. Only while it is
          being closed may the conversation be in another process already.
        - A socket whose URL names a conversation (`_is_bound`) attends it until the socket is over.
          Any other socket enters and leaves conversations by its commands.
        - When it is over, it attends nothing, nothing waits in its outbox and nothing is added there.
        - The outbox and the heartbeat keep their own invariants.

    Args:
        admission: what its client may do, and until when.
        knows_pings: the client has said that it answers pings.
        pace: holds back what is sent, because `send` never waits; None: `send` waits for a slow peer.
    """

    def __init__(
        self,
        conversations: Conversations,
        limits: Limits,
        dialect: Dialect,
        admission: Admission,
        receive: Receive,
        send: Send,
        *,
        knows_pings: bool = False,
        pace: Pace | None = None,
    ) -> None:
        self.connection_id = secrets.token_urlsafe(9)
        visitor = admission.visitor
        self.name, self.member, self.address = visitor.name, visitor.member, visitor.address
        self.is_audio = dialect.is_audio
        self.connects = dialect.is_audio and not dialect.configures_first
        self.attends = dialect.attends
        self.dialect = dialect.name
        self._conversations = conversations
        self._limits = limits
        self._dialect = dialect
        self._admission = admission
        self._send = send
        self.conversation: Conversation | None = None
        self.session_id = ""  # of the conversation that it attends, or attended last
        self._is_bound = False
        self._comes_back = False
        self._is_over = False
        self.end = SERVER_STOPPING  # how it is closed, when it is over
        self._traffic = traffic = conversations.stats.traffic_of(dialect.name)
        self._outbox = Outbox(dialect.encoder(""), limits.queue_bytes, traffic)
        self._heartbeat = Heartbeat(limits, time.monotonic(), knows_pings=knows_pings)
        self._writer = Writer(self._outbox, send, self._heartbeat, dialect.name, pace, traffic)
        parts = self._outbox, self._heartbeat, traffic, limits.state_delta
        self._reader = Reader(self, conversations, dialect, admission, receive, *parts)
        self._label = dialect.name
        """What the socket is called in the log."""

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        if self.conversation:
            assert not self._is_over
            assert self.conversation.is_attended_by(self) or self._outbox.is_closing
        if self._is_over:
            assert not self._outbox.bytes
        self._outbox.check()
        self._heartbeat.check(time.monotonic())

    @property
    def gauges(self) -> tuple[Conversation | None, int]:
        """For the metrics: the conversation that it attends, and the bytes that wait to be sent."""
        return self.conversation, self._outbox.bytes

    @property
    def is_playing(self) -> bool:
        """Whether its client still has to hear something that was said, as far as its dialect knows."""
        return bool(self._dialect.is_playing and self._dialect.is_playing())

    # ---- for the conversation (adk_relay.core.room.Listener): nothing here waits ----

    def deliver(self, message: Message) -> None:
        """Takes a message of the conversation."""
        if isinstance(message, Ended):
            self._end(message.why, CONVERSATION_ENDED[message.why])
            return
        self._outbox.enqueue(message)
        if self._dialect.heard and isinstance(message, TurnEnd):
            # Before the next answer is over, but after all listeners know that this one is.
            asyncio.get_running_loop().call_soon(self._tell_heard)
        if self._is_bound:
            return
        match message:
            case Reset(deleted=True):
                self._leave()
            case TurnEnd(goes_on=False) if self.attends == "own":
                self._outbox.close(DONE)
            case Error("busy" | "refused" as code) if self.attends == "own":
                self._outbox.close(BUSY if code == "busy" else FORBIDDEN.because("refused"))

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes the messages that the client has missed."""
        self._traffic.returned += self._comes_back
        has_gap = bool(messages) and isinstance(messages[0], Gap)
        self._traffic.gaps += self._comes_back and has_gap
        if has_gap and not self._is_bound:  # such a client reads the history when it comes back
            self._outbox.close(SERVER_RESTARTS)
        else:
            self._outbox.replay(messages)

    def stop(self, frame: CloseFrame = SERVER_STOPPING) -> None:
        """Closes the socket with `frame` because the server is stopping. What waits is still sent."""
        self._tell_heard(is_over=True)  # before the conversation ends
        self._end("stopping", frame)

    def _end(self, why: str, frame: CloseFrame) -> None:
        if self.attends == "own" and why != "failed":  # a failure has sent an Error before
            self._outbox.enqueue(Error(why, CONVERSATION_ENDED_TEXT[why]))
        self._outbox.close(frame)

    # ---- from accept to close ----

    async def serve(
        self,
        client: tuple[str, int] | None,
        user_id: str | None = None,
        session_id: str | None = None,
        after: After | None = None,
        *,
        is_new: bool = False,
    ) -> None:
        """Serves the socket until it is over, then closes it if the peer is still there.

        Args:
            client: the peer's address, for the log.
            user_id, session_id: the conversation that its URL names; None: its commands name one.
            after: the last message that the client has got.
            is_new: a conversation of this user is made for it.
        """
        began, address = time.monotonic(), client[0] if client else "?"
        self._traffic.opened += 1
        connection_id.set(self.connection_id)
        peer_is_gone = False
        model, limits = self._conversations.model, self._admission.limits
        if connected := self._dialect.connected(self.connection_id, model, limits):
            self._outbox.enqueue_frame(connected)
        try:
            if user_id is not None:
                await self.bind(user_id, session_id, after, is_new=is_new)
            self.note(f": opened from {address}")
            await self._run()
        except StoppingError:
            pass
        except Close as close:
            self.end, peer_is_gone = close.frame, isinstance(close, PeerGone)
        except Exception:
            self.end = INTERNAL_ERROR
            log.exception("%s: the socket failed", self._label)
        finally:
            self.note(
                f" from {address}: {time.monotonic() - began:.1f} s, {self._reader.frames} frames in,"
                f" {self._writer.frames} out, {self._outbox.dropped_ms:.0f} ms of sound dropped,"
                f" closed {one_line(f'{self.end.code} {self.end.reason}')}"
            )
            # uvicorn closes with SERVER_RESTARTS when it stops: the run has to end now, while uvicorn waits
            # for its connections. A client that closes with this code only gives up its own grace.
            self._leave(at_once=self.end.code == SERVER_RESTARTS.code)
            self._outbox.discard(self.end)
            self._is_over = True
            if not peer_is_gone:  # also if the server cancels this task: some do when they stop
                await send_close(self._send, self.end)

    async def bind(
        self, user_id: str, session_id: str | None, after: After | None = None, *, is_new: bool = False
    ) -> None:
        """Attends a conversation until the socket is over. The arguments are those of `serve`.

        Raises:
            Close: the conversation can't be attended.
        """
        began = time.monotonic()
        self._label = self._writer.label = self._reader.label = f"{user_id} {self._label}"
        self._is_bound = True
        self._comes_back = bool(after and not after.is_first)
        visitor = self._admission.visitor
        self.name, self.member, self.address = visitor.name, visitor.member, visitor.address
        try:
            if is_new:
                session_id = await self._conversations.create(user_id)
            self.enter(await self._conversations.open(user_id, session_id), after, is_new=is_new)
            self._conversations.stats.opening.observe(time.monotonic() - began)
        except StoreError:
            self.fail()
        except UnknownConversationError as unknown:  # another user took this id first
            raise Close(NOT_FOUND.because(str(unknown))) from None
        except UnreachableError as away:
            raise Close(BUSY.because(str(away))) from None
        except BusyError as full:
            raise Close(RATE_LIMITED.because(str(full))) from None

    def note(self, what: str) -> None:
        """Writes a line about the socket."""
        session = self.conversation.session_id if self.conversation else ""
        where = session or "no conversation"
        log.info(
            "%s %s in %s%s", self._label, self.connection_id, where, what, extra={"conversation": session}
        )

    async def _run(self) -> None:
        """Runs the three tasks until the first one fails, and raises its error.

        An asyncio.TaskGroup would hide the cancellation of this task by the server, if that comes when a task
        has failed already. Starlette's test client cancels right after the disconnect.
        """
        works = (self._writer.run(), self._watch(), self._reader.run())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [error for error in ends if isinstance(error, Exception)]
        raise next((error for error in errors if isinstance(error, Close)), errors[0])

    def enter(self, conversation: Conversation, after: After | None = None, *, is_new: bool = False) -> None:
        """Attends a conversation. There may be no `await` between opening the conversation and this call."""
        is_inside = conversation is self.conversation
        if not is_inside:
            self._leave()
        self._outbox.encode = self._dialect.encoder(conversation.session_id)
        standing = conversation.standing(self)
        welcome = self._dialect.welcome(
            Welcome(
                session_id=conversation.session_id,
                user_id=conversation.user_id,
                connection_id=self.connection_id,
                connections=standing.others + 1,
                model=self._conversations.model,
                is_rehearsal=self._conversations.is_rehearsal,
                is_audio=self.is_audio,
                ping_interval=self._limits.ping_interval,
                epoch=standing.epoch,
                seq=standing.seq,
                message_count=standing.message_count,
                is_new=is_new,
                name=self.name,
                role=self._admission.visitor.role,
                names=dict(standing.names),
                title=standing.title,
                limits=self._admission.limits,
                choices=self._conversations.choices,
                voice=standing.voice,
                shape=standing.shape,
            )
        )
        self._outbox.enqueue_frames(welcome)
        self.session_id = conversation.session_id
        conversation_id.set(self.session_id)
        if not is_inside:
            conversation.attach(self, after)
            self.conversation = conversation

    def _leave(self, *, at_once: bool = False) -> None:
        """Leaves the conversation, if it attends one; `at_once`: the client will not come back."""
        self._tell_heard(is_over=True)
        conversation, self.conversation = self.conversation, None
        if conversation:
            # A conversation without messages ends at once: otherwise one client could create any number of
            # conversations in memory.
            is_empty = not (self._is_bound or conversation.standing(self).message_count)
            conversation.detach(self, at_once=at_once or is_empty)
            self._outbox.encode = self._dialect.encoder("")

    def _tell_heard(self, *, is_over: bool = False) -> None:
        """Tells the conversation what the client has heard of an answer that was cut.

        Args:
            is_over: the socket leaves.
        """
        conversation, heard = self.conversation, self._dialect.heard and self._dialect.heard(is_over)
        if heard and conversation and conversation.is_attended_by(self):
            with suppress(InboxFullError):  # the way to the conversation is blocked
                conversation.handle(replace(heard, is_users_own=self._admission.visitor.may_empty), self)

    def fail(self) -> None:
        """Ends the socket because the session service has failed."""
        self.deliver(Error("agent_failed", "The conversations can't be reached. The server's log says why."))
        self.deliver(Ended("failed"))

    # ---- watching ----

    async def _watch(self) -> None:
        """Pings a quiet client, and closes the socket of one that stalls, is dead, idle or without token."""
        while True:
            now = time.monotonic()
            due = self._heartbeat.look(now, attends=self.conversation is not None)
            token = self._admission.look(time.time())
            if due.close:
                raise Close(due.close)
            again = due.again
            if look := self._dialect.look:
                again = min(again, now + _LOOK_EVERY)
                if over := look(now):
                    raise Close(over)
            # A request that was made in time is answered.
            if token.close and not (self.attends == "own" and self.conversation):
                raise Close(token.close)
            if token.expires_in and (told := self._dialect.expiring(round(token.expires_in))):
                self._outbox.enqueue_frame(told)
            if due.ping and self._dialect.ping:
                self._writer.ping = self._dialect.ping()
                self._outbox.enqueue_first("ping", self._writer.ping)
            await asyncio.sleep(max(min(again - now, token.again), 0.001))
