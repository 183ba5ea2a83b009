"""One WebSocket from accept to close, in any dialect: it reads commands and writes frames."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence

from adk_relay.core.interfaces import (
    Conversation,
    Conversations,
    StoppingError,
    StoreError,
    UnknownConversationError,
)
from adk_relay.core.logs import one_line
from adk_relay.core.messages import Ended, Error, Interrupt, Message, ReadOlder, Reset, TurnEnd, UserAudio
from adk_relay.core.requests import BusyError
from adk_relay.core.room import After
from adk_relay.wire import frame_log
from adk_relay.wire.admission import Admission, NotAllowedError
from adk_relay.wire.asgi import Receive, Send
from adk_relay.wire.closing import (
    BAD_FRAMES,
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
    PeerGone,
)
from adk_relay.wire.dialects import (
    Ask,
    BadFrameError,
    Command,
    Create,
    Dialect,
    Join,
    NewToken,
    Welcome,
    text_id_of,
)
from adk_relay.wire.handshake import send_close
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.limits import Limits
from adk_relay.wire.outbox import Frame, Outbox
from adk_relay.wire.pacing import Pace
from adk_relay.wire.refusals import REFUSALS, refusal_of
from adk_relay.wire.writer import Writer

log = logging.getLogger("relay")

_FRAMES_A_TURN = 32
"""After reading this many frames from one socket, the other sockets get a turn."""

_MAX_BAD_FRAMES = 20
"""This many bad frames in a row close the socket."""


class Socket:
    """One accepted WebSocket, which listens to at most one conversation at a time.

    Three tasks run until one of them finds that the socket is over: one reads frames, one writes frames
    and one watches the heartbeat.

    States: outside (it attends no conversation), attending, over.

    Invariants:
        - While it attends a conversation, it is in that conversation's room, exactly once.
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
        self.name, self.member = admission.visitor.name, admission.visitor.member
        self.is_audio = dialect.is_audio
        self.attends = dialect.attends
        self._conversations = conversations
        self._limits = limits
        self._dialect = dialect
        self._admission = admission
        self._receive = receive
        self._send = send
        self._conversation: Conversation | None = None
        self._is_bound = False
        self._is_over = False
        self._outbox = Outbox(dialect.encoder(""), limits.queue_bytes)
        self._heartbeat = Heartbeat(limits, time.monotonic(), knows_pings=knows_pings)
        self._writer = Writer(self._outbox, send, self._heartbeat, dialect.ping, dialect.name, pace)
        self._label = dialect.name
        """What the socket is called in the log."""
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._frames_in = 0

    def check(self) -> None:
        """Raises AssertionError if an invariant does not hold."""
        if self._conversation:
            assert not self._is_over
            assert sum(listener is self for listener in self._conversation.room.listeners) == 1
        if self._is_over:
            assert not self._outbox.bytes
        self._outbox.check()
        self._heartbeat.check(time.monotonic())

    # ---- for the conversation (adk_relay.core.room.Listener): nothing here waits ----

    def deliver(self, message: Message) -> None:
        """Takes a message of the conversation."""
        if isinstance(message, Ended):
            if self.attends == "own" and message.why != "failed":  # a failure has sent an Error before
                self._outbox.enqueue(Error(message.why, CONVERSATION_ENDED_TEXT[message.why]))
            self._outbox.close(CONVERSATION_ENDED[message.why])
            return
        self._outbox.enqueue(message)
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
        self._outbox.replay(messages)

    def stop(self) -> None:
        """Closes the socket because the server is stopping."""
        self.deliver(Ended("stopping"))

    # ---- from accept to close ----

    async def serve(
        self,
        client: tuple[str, int] | None,
        user_id: str | None = None,
        session_id: str | None = None,
        after: After | None = None,
    ) -> None:
        """Serves the socket until it is over, then closes it if the peer is still there.

        Args:
            client: the peer's address, for the log.
            user_id, session_id: the conversation that its URL names; None: its commands name one.
            after: the last message that the client has got.
        """
        began = time.monotonic()
        end, peer_is_gone = SERVER_STOPPING, False
        if connected := self._dialect.connected(self.connection_id, self._conversations.model):
            self._outbox.enqueue_frame(connected)
        try:
            if user_id is not None:
                self._label = self._writer.label = f"{user_id} {self._label}"
                self._is_bound = True
                try:
                    self._enter(await self._conversations.open(user_id, session_id), after)
                except StoreError:
                    self._fail()
            await self._run()
        except StoppingError:
            pass
        except UnknownConversationError as unknown:  # another user took this id first
            end = NOT_FOUND.because(str(unknown))
        except BusyError as full:
            end = RATE_LIMITED.because(str(full))
        except Close as close:
            end, peer_is_gone = close.frame, isinstance(close, PeerGone)
        except Exception:
            end = INTERNAL_ERROR
            log.exception("%s: the socket failed", self._label)
        finally:
            session = self._conversation.session_id if self._conversation else "no conversation"
            # uvicorn closes with SERVER_RESTARTS when it stops: the run has to end now, while uvicorn waits
            # for its connections. A client that closes with this code only gives up its own grace.
            self._leave(at_once=end.code == SERVER_RESTARTS.code)
            self._outbox.discard(end)
            self._is_over = True
            log.info(
                "%s %s in %s from %s: %.1f s, %d frames in, %d out, %.0f ms of sound dropped, closed %s",
                self._label,
                self.connection_id,
                session,
                client[0] if client else "?",
                time.monotonic() - began,
                self._frames_in,
                self._writer.frames,
                self._outbox.dropped_ms,
                one_line(f"{end.code} {end.reason}"),
            )
            if not peer_is_gone:
                await send_close(self._send, end)  # also if the server cancels this task, as some do

    async def _run(self) -> None:
        """Runs the three tasks until the first one fails, and raises its error.

        An asyncio.TaskGroup would hide the cancellation of this task by the server, if that comes when a task
        has failed already. Starlette's test client cancels right after the disconnect.
        """
        tasks = [asyncio.create_task(work) for work in (self._writer.run(), self._watch(), self._read())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [error for error in ends if isinstance(error, Exception)]
        raise next((error for error in errors if isinstance(error, Close)), errors[0])

    def _enter(self, conversation: Conversation, after: After | None = None, *, is_new: bool = False) -> None:
        """Attends a conversation. There may be no `await` between opening the conversation and this call."""
        is_inside = conversation is self._conversation
        if not is_inside:
            self._leave()
        self._outbox.encode = self._dialect.encoder(conversation.session_id)
        room = conversation.room
        welcome = self._dialect.welcome(
            Welcome(
                session_id=conversation.session_id,
                user_id=conversation.user_id,
                connection_id=self.connection_id,
                connections=len(room.listeners) + (not is_inside),
                model=self._conversations.model,
                is_rehearsal=self._conversations.is_rehearsal,
                is_audio=self.is_audio,
                ping_interval=self._limits.ping_interval,
                epoch=room.epoch,
                seq=room.seq,
                message_count=room.history.message_count,
                is_new=is_new,
                push_to_talk=self._conversations.push_to_talk,
                may_write=self._admission.visitor.may_write,
            )
        )
        if welcome:
            self._outbox.enqueue_frame(welcome)
        if not is_inside:
            conversation.attach(self, after)
            self._conversation = conversation

    def _leave(self, *, at_once: bool = False) -> None:
        """Leaves the conversation, if it attends one; `at_once`: the client will not come back."""
        conversation, self._conversation = self._conversation, None
        if conversation:
            # A conversation without messages ends at once: otherwise one client could create any number of
            # conversations in memory.
            is_empty = not (self._is_bound or conversation.room.history.message_count)
            conversation.detach(self, at_once=at_once or is_empty)
            self._outbox.encode = self._dialect.encoder("")

    # ---- reading ----

    async def _read(self) -> None:
        bad_frames = 0
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise PeerGone(event.get("code", 1005), event.get("reason") or "")
            self._heartbeat.frame_came(time.monotonic())
            self._frames_in += 1
            if self._frames_in % _FRAMES_A_TURN == 0:
                await asyncio.sleep(0)  # `receive` returns at once while frames wait
            text = event.get("text")
            frame: Frame = event["bytes"] if text is None else text
            text_id = ""
            try:
                command = frame_log.decode(self._dialect, frame, self._label if self._debug else None)
                bad_frames = bad_frames if isinstance(command, NewToken) else 0  # it may be a guess
                if isinstance(command, UserAudio):  # the short way, for dozens of frames a second
                    self._heartbeat.content_came()
                    if self._admission.takes_sound(command, self) and self._conversation:
                        self._conversation.handle(command, self)
                        if self._admission.sound_is_early:
                            await self._admission.slow_down(self._heartbeat)
                    continue
                text_id = text_id_of(command)
                if command not in ("ping", "pong"):
                    self._heartbeat.content_came()
                await self._perform(command)
            except BadFrameError as bad:
                self._outbox.enqueue(Error(bad.code, str(bad), bad.id))
                bad_frames += 1
                if bad_frames == _MAX_BAD_FRAMES or self.attends == "own":
                    why = "a bad request" if self.attends == "own" else f"{bad_frames} bad frames in a row"
                    self._outbox.close(BAD_FRAMES.because(why))
                    return
            except StoreError:
                if isinstance(command, Ask):
                    self._conversations.stats.fail_early()
                self._fail()
                return
            except REFUSALS as why:
                refusal = refusal_of(why, text_id)
                self._outbox.enqueue(refusal.error)
                if refusal.is_last or self.attends == "own":
                    self._outbox.close(refusal.close)
                    return

    async def _perform(self, command: Command) -> None:
        """Does what a command asks for."""
        conversation = self._conversation
        visitor = self._admission.visitor
        if isinstance(command, NewToken):
            await self._admission.renew(command.token)
            return
        await self._admission.check(command, self._heartbeat)
        match command:
            case "ping":
                self._outbox.enqueue_first("pong", self._dialect.pong(self.connection_id))
            case "pong":
                self._heartbeat.pong_came()
            case Create():
                if visitor.session_id is not None:
                    raise NotAllowedError("You were invited to one conversation only.")
                session_id = await self._conversations.create(visitor.owner)
                self._enter(await self._open(session_id), is_new=True)
            case Join(session_id):
                self._enter(await self._open(session_id))
            case Ask() if conversation and self.attends == "own":
                pass  # a turn socket makes one request, and this one has made it
            case Ask(text, session_id):
                wanted = session_id or (None if conversation else visitor.session_id)
                if wanted and not (conversation and conversation.session_id == wanted):
                    self._enter(await self._open(wanted))
                elif not conversation:
                    await self._perform(Create())
                if self._conversation:
                    self._conversation.ask(text, self)
            case ReadOlder():
                if conversation:
                    conversation.older.read(command, self)
            case _ if conversation:
                if isinstance(command, Interrupt):  # it also stops an answer that is over but still queued
                    self._outbox.recall_audio()
                conversation.handle(command, self)

    async def _open(self, session_id: str) -> Conversation:
        """The conversation that a command names. Clients of the turn dialect may name a new one."""
        visitor = self._admission.visitor
        if not visitor.reaches(session_id):
            raise UnknownConversationError(session_id)
        opening = self._conversations.open if self.attends == "own" else self._conversations.find
        return await opening(visitor.owner, session_id)

    def _fail(self) -> None:
        """Ends the socket because the session service has failed."""
        self.deliver(Error("agent_failed", "The conversations can't be reached. The server's log says why."))
        self.deliver(Ended("failed"))

    # ---- watching ----

    async def _watch(self) -> None:
        """Pings a quiet client, and closes the socket of one that stalls, is dead, idle or without token."""
        while True:
            now = time.monotonic()
            due = self._heartbeat.look(now, attends=self._conversation is not None)
            token = self._admission.look(time.time())
            if due.close:
                raise Close(due.close)
            # A request that was made in time is answered.
            if token.close and not (self.attends == "own" and self._conversation):
                raise Close(token.close)
            if token.expires_in and (told := self._dialect.expiring(round(token.expires_in))):
                self._outbox.enqueue_frame(told)
            if due.ping and self._dialect.ping:
                self._outbox.enqueue_first("ping", self._dialect.ping)
            await asyncio.sleep(max(min(due.again - now, token.again), 0.001))
