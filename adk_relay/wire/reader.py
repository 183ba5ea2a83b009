"""The reading side of a socket: takes frames, and does what they ask for."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from adk_relay.core.heard import Heard
from adk_relay.core.interfaces import (
    Conversation,
    Conversations,
    StoreError,
    UnknownConversationError,
    UnreachableError,
)
from adk_relay.core.messages import Error, Interrupt, ReadOlder, UserAudio, UserText
from adk_relay.core.rewind import Rewind
from adk_relay.core.stats import Traffic
from adk_relay.wire import frame_log
from adk_relay.wire.admission import Admission, NotAllowedError
from adk_relay.wire.asgi import Receive
from adk_relay.wire.closing import BAD_FRAMES, BUSY, Close, PeerGone
from adk_relay.wire.dialects import (
    Ask,
    Attend,
    BadFrameError,
    Command,
    Create,
    Dialect,
    Event,
    Join,
    NewToken,
    Reply,
    text_id_of,
)
from adk_relay.wire.dialects.state_delta import Allowed, check_state
from adk_relay.wire.guard import Refused
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.outbox import Frame, Outbox, size
from adk_relay.wire.refusals import REFUSALS, refusal_of

if TYPE_CHECKING:
    from adk_relay.wire.websocket import Socket

log = logging.getLogger("relay")

_FRAMES_A_TURN = 32
"""After reading this many frames from one socket, the other sockets get a turn."""

_LONG_FRAME = 64 * 1024
"""A longer frame is decoded in a thread: a picture takes tens of milliseconds."""

_MAX_BAD_FRAMES = 20
"""This many bad frames in a row close the socket."""


class Reader:
    """Reads the frames of one socket, one after the other, and does what each asks for.

    Args:
        socket: enters the conversations that the commands name.
        admission: what the client may do.
        traffic: counts what is read.
        state_delta: which state the client may set.
    """

    def __init__(
        self,
        socket: Socket,
        conversations: Conversations,
        dialect: Dialect,
        admission: Admission,
        receive: Receive,
        outbox: Outbox,
        heartbeat: Heartbeat,
        traffic: Traffic,
        state_delta: Allowed,
    ) -> None:
        self.label = dialect.name
        """What the socket is called in the log."""
        self.frames = 0
        """How many were read."""
        self._socket = socket
        self._conversations = conversations
        self._dialect = dialect
        self._admission = admission
        self._receive = receive
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._traffic = traffic
        self._state_delta = state_delta
        self._is_own = dialect.attends == "own"
        """Whether the socket makes one request only."""
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._text_id = ""
        """The id of the text that the frame is which was read last; "": it is none, or has none."""

    async def run(self) -> None:
        """Reads until the socket is over, or until nothing more is taken from it.

        Raises:
            PeerGone: the peer has closed it, or has gone.
        """
        bad_frames = 0
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise PeerGone(event.get("code", 1005), event.get("reason") or "")
            self._heartbeat.frame_came(time.monotonic())
            text = event.get("text")
            frame: Frame = event["bytes"] if text is None else text
            self.frames += 1
            self._traffic.frames_in += 1
            self._traffic.bytes_in += size(frame)
            if self.frames % _FRAMES_A_TURN == 0:
                await asyncio.sleep(0)  # `receive` returns at once while frames wait
            self._text_id = ""
            label = self.label if self._debug else None
            try:
                if len(frame) <= _LONG_FRAME:
                    command = frame_log.decode(self._dialect, frame, label)
                else:
                    command = await asyncio.to_thread(frame_log.decode, self._dialect, frame, label)
                bad_frames = bad_frames if isinstance(command, NewToken) else 0  # it may be a guess
                if isinstance(command, UserAudio):  # the short way, for dozens of frames a second
                    await self._hear(command)
                elif isinstance(command, Event):
                    await self._act(command)
                else:
                    await self._take(command)
            except BadFrameError as bad:
                self._outbox.enqueue(Error(bad.code, str(bad), bad.id, bad.tool_id))
                bad_frames += 1
                if bad_frames == _MAX_BAD_FRAMES or self._is_own:
                    why = "a bad request" if self._is_own else f"{bad_frames} bad frames in a row"
                    self._outbox.close(BAD_FRAMES.because(why))
                    return
            except StoreError:
                if isinstance(command, Ask):
                    self._conversations.stats.fail_early()
                self._socket.fail()
                return
            except REFUSALS as why:
                if isinstance(why, UnreachableError) and isinstance(command, Create | Join):
                    self._outbox.close(BUSY.because(str(why)))  # its client comes back, and tries again
                    return
                refusal = refusal_of(why, self._text_id)
                self._outbox.enqueue(refusal.error)
                if refusal.is_last or self._is_own:
                    self._outbox.close(refusal.close)
                    return

    async def _hear(self, sound: UserAudio) -> None:
        """Gives sound to the conversation."""
        self._heartbeat.content_came()
        if self._admission.takes_sound(sound, self._socket) and self._socket.conversation:
            self._socket.conversation.handle(sound, self._socket)
            if self._admission.sound_is_early:
                await self._admission.slow_down(self._heartbeat)

    async def _take(self, command: Command) -> None:
        """Does what a command that is no sound asks for."""
        self._text_id = text_id_of(command)
        if command not in ("ping", "pong"):
            self._heartbeat.content_came()
        await self._perform(command)

    async def _act(self, event: Event) -> None:
        """Does what an event means to a dialect with a state."""
        assert self._dialect.act
        for each in self._dialect.act(event):
            if isinstance(each, UserAudio):
                await self._hear(each)
            elif isinstance(each, Reply):
                self._outbox.enqueue_frames(each.frames)
            else:
                await self._take(each)

    async def _perform(self, command: Command) -> None:
        """Does what a command asks for."""
        conversation = self._socket.conversation
        visitor = self._admission.visitor
        if isinstance(command, NewToken):
            await self._admission.renew(command.token)
            return
        if isinstance(command, Attend):
            await self._attend(command)
            return
        await self._admission.check(command, self._heartbeat)
        text = command.text if isinstance(command, Ask) else command
        if isinstance(text, UserText):
            check_state(text, self._state_delta, is_users_own=visitor.may_empty)
        match command:
            case "ping":
                self._outbox.enqueue_first("pong", self._dialect.pong(self._socket.connection_id))
            case "pong":
                self._heartbeat.pong_came()
            case Create():
                if visitor.session_id is not None:
                    raise NotAllowedError("You were invited to one conversation only.")
                session_id = await self._conversations.create(visitor.owner)
                self._socket.enter(await self._open(session_id), is_new=True)
            case Join(session_id):
                self._socket.enter(await self._open(session_id))
            case Ask() if conversation and self._is_own:
                pass  # a turn socket makes one request, and this one has made it
            case Ask(text, session_id):
                wanted = session_id or (None if conversation else visitor.session_id)
                if wanted and not (conversation and conversation.session_id == wanted):
                    self._socket.enter(await self._open(wanted))
                elif not conversation:
                    await self._perform(Create())
                if self._socket.conversation:
                    self._socket.conversation.ask(text, self._socket)
            case ReadOlder():
                if conversation:
                    conversation.older.read(command, self._socket)
            case _ if conversation:
                if isinstance(command, Interrupt | Rewind):  # also an answer that is over but still queued
                    self._outbox.recall_audio()
                if isinstance(command, Rewind):
                    command = replace(command, may_all=visitor.may_empty)
                elif isinstance(command, Heard):
                    command = replace(command, is_users_own=visitor.may_empty)
                conversation.handle(command, self._socket)

    async def _attend(self, command: Attend) -> None:
        """Lets the client say who it is, and attends the conversation that it may."""
        try:
            user_id, session_id = await self._admission.attend(command)
        except Refused as refused:
            raise Close(refused.frame.because(refused.reason)) from None
        await self._socket.bind(user_id, session_id)
        self._socket.note(": said who it is")

    async def _open(self, session_id: str) -> Conversation:
        """The conversation that a command names. Clients of the turn dialect may name a new one."""
        visitor = self._admission.visitor
        if not visitor.reaches(session_id):
            raise UnknownConversationError(session_id)
        opening = self._conversations.open if self._is_own else self._conversations.find
        return await opening(visitor.owner, session_id)
