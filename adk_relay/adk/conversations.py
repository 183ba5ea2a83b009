"""All conversations: those in memory, and those that the session service keeps."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.adk.agents import BaseAgent
from google.adk.agents.run_config import RunConfig
from google.adk.sessions import BaseSessionService, Session

from adk_relay.adk.conversation import Conversation
from adk_relay.adk.models import live_model, run_config
from adk_relay.adk.runner import runner
from adk_relay.adk.session import APP_NAME, create_session, created_at, default_id, get_session, lines_of
from adk_relay.adk.speech import is_push_to_talk
from adk_relay.adk.starts import Starts, prepare
from adk_relay.adk.store import owner_of, session_service
from adk_relay.core.interfaces import GUEST, StoppingError, StoreError, Summary, UnknownConversationError
from adk_relay.core.logs import failure
from adk_relay.core.messages import Line
from adk_relay.core.requests import Stats

log = logging.getLogger("relay.agent")

T = TypeVar("T")

_DEFAULT = default_id("")
"""How the ids of default conversations begin, and no others."""


class Conversations:
    """All conversations of one agent.

    Args:
        agent: any ADK agent.
        config: the run configuration; None: `models.run_config()`.
        sessions: an ADK session-service URI, or a session service.
        grace: seconds that a conversation and its run go on after its last listener has left.
        idle_timeout: seconds without content in either direction after which a conversation ends; 0: never.
        mic_ms: milliseconds of sound that are sent to the model at once.
        replay_bytes: bytes of each conversation's messages that are kept for sockets that come back.
        replay_seconds: seconds that they are kept.
        sound: "short": past ADK where nobody in ADK wants to see it; "long": always through ADK.

    Raises:
        ValueError: the URI names no session service that is installed here.
        TypeError: `agent` is no ADK agent.
    """

    def __init__(
        self,
        agent: BaseAgent,
        *,
        config: RunConfig | None = None,
        sessions: str | BaseSessionService,
        grace: float,
        idle_timeout: float,
        mic_ms: float,
        replay_bytes: int,
        replay_seconds: float,
        sound: str,
    ) -> None:
        if not isinstance(agent, BaseAgent):
            raise TypeError(f"agent must be an ADK agent, not {type(agent).__name__}")
        # ADK logs a failure several times, with tracebacks. relay gets it as an exception, and logs it in
        # one line. If the host has set a level for ADK, it is kept.
        if (adk := logging.getLogger("google_adk")).level == logging.NOTSET:
            adk.setLevel(logging.CRITICAL)
        self.config = config or run_config()
        self.push_to_talk = is_push_to_talk(self.config)
        self.service = session_service(sessions) if isinstance(sessions, str) else sessions
        self.runner = runner(agent, self.service, self.config, short_way=sound == "short")
        self.grace = grace
        self.idle_timeout = idle_timeout
        self.mic_ms = mic_ms
        self.replay_bytes = replay_bytes
        self.replay_seconds = replay_seconds
        self.stats = Stats()
        self._starts = Starts()
        model = live_model(agent)
        self.model = model.model if model else agent.name
        self.is_rehearsal = self.model == "rehearsal"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._open: dict[str, Conversation] = {}
        self._counts: dict[str, tuple[float, int, int]] = {}

    def use_loop(self) -> bool:
        """Conversations are opened in the running event loop from now on. True: the loop is another one.

        In tests of an application each test may have its own. The runs of a loop that has ended are gone.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop or (self._loop and self._loop.is_running()):
            return False
        self._loop = loop
        self._closing = None
        self._open.clear()
        self._starts = Starts()
        return True

    async def prepare(self) -> None:
        """Does, when the server starts, what the first conversation would have to wait for.

        Conversations can be opened again, if all were closed before.
        """
        self.use_loop()
        if self._closing and self._closing.done():
            self._closing = None
        agent = self.runner.agent
        if isinstance(agent, BaseAgent):
            await prepare(agent)

    def is_closing(self) -> bool:
        """Whether the server is stopping, so that conversations can't be opened any more."""
        return self._closing is not None

    @property
    def active(self) -> int:
        """How many conversations are in memory."""
        return len(self._open)

    async def open(self, user_id: str, session_id: str | None = None) -> Conversation:
        """Opens a conversation of a user, which begins if there is none with this id.

        The caller must attach a listener at once: a conversation without a listener soon ends.

        Args:
            session_id: None: the user's default conversation.

        Raises:
            UnknownConversationError: the conversation is another user's.
            StoppingError: the server is stopping.
            StoreError: the session could not be read.
        """
        session_id = session_id or default_id(user_id)
        await self.check(user_id, session_id)
        return await self._opened(user_id, session_id)

    async def _opened(self, user_id: str, session_id: str) -> Conversation:
        while True:
            if session_id not in self._open:
                await self._starts.wait()
            if self.is_closing():
                raise StoppingError
            if session_id not in self._open:  # still
                self._open[session_id] = Conversation(self, user_id, session_id)
            conversation = self._open[session_id]
            if conversation.user_id != user_id:
                raise UnknownConversationError(session_id)
            await _of_store(conversation.ready())
            has_ended = self._open.get(session_id) is not conversation  # meanwhile
            if not (has_ended or self.is_closing()):
                return conversation

    async def find(self, session_id: str) -> Conversation:
        """Opens an existing conversation of the guest.

        Raises:
            UnknownConversationError: there is none.
            StoppingError: the server is stopping.
            StoreError: the session could not be read.
        """
        if not self._is_guests(session_id):
            raise UnknownConversationError(session_id)
        if not ((conversation := self._open.get(session_id)) and _exists(conversation)):
            await self._stored(session_id)
        return await self._opened(GUEST, session_id)

    async def check(self, user_id: str, session_id: str) -> None:
        """Checks that an id is not another user's.

        Raises:
            UnknownConversationError: it is another user's.
            StoreError: the session service failed.
        """
        if session_id == default_id(user_id):
            return
        if conversation := self._open.get(session_id):
            owner: str | None = conversation.user_id
        elif session_id.startswith(_DEFAULT):
            owner = session_id.removeprefix(_DEFAULT)
        else:
            owner = await _of_store(owner_of(self.service, APP_NAME, session_id, user_id))
        if owner not in (None, user_id):
            raise UnknownConversationError(session_id)

    async def create(self) -> str:
        """Makes a conversation of the guest, and returns its id.

        Raises:
            StoreError: it could not be stored.
        """
        session_id = secrets.token_hex(16)
        await _of_store(create_session(self.service, GUEST, session_id))
        self.stats.created += 1
        return session_id

    async def reset(self, session_id: str, *, delete: bool) -> None:
        """Empties a conversation of the guest, for all its listeners.

        Raises:
            UnknownConversationError: there is none.
            StoppingError: the server is stopping.
            StoreError: the session could not be deleted.
        """
        await _of_store((await self.find(session_id)).reset(delete=delete))
        self._counts.pop(session_id, None)

    async def read(self, session_id: str) -> tuple[Summary, list[Line]]:
        """The summary and the messages of a conversation of the guest.

        Raises:
            UnknownConversationError: there is none.
            StoreError: the session could not be read.
        """
        if not self._is_guests(session_id):
            raise UnknownConversationError(session_id)
        if (conversation := self._open.get(session_id)) and _exists(conversation):
            return _summary(conversation), conversation.room.history.lines()
        session = await self._stored(session_id)
        lines = lines_of(session)
        by_user = sum(line.role == "user" for line in lines)
        return (
            Summary(
                session_id, created_at(session), session.last_update_time, by_user, len(lines) - by_user, 0
            ),
            lines,
        )

    async def list(self, limit: int) -> list[Summary]:
        """The guest's latest conversations, at most `limit`, the one used last first.

        Raises:
            StoreError: they could not be read.
        """
        stored = await _of_store(self.service.list_sessions(app_name=APP_NAME, user_id=GUEST))
        last_used = {session.id: session.last_update_time for session in stored.sessions}
        in_memory = {
            open_.session_id: open_
            for open_ in self._open.values()
            if open_.user_id == GUEST and _exists(open_)
        }
        last_used |= {session_id: open_.session.last_activity for session_id, open_ in in_memory.items()}
        latest = sorted(last_used, key=lambda session_id: last_used[session_id], reverse=True)[:limit]
        created = {session.id: created_at(session) for session in stored.sessions}
        summaries = []
        for session_id in latest:
            if conversation := in_memory.get(session_id):
                summaries.append(_summary(conversation))
                continue
            used = last_used[session_id]
            try:
                by_user, by_model = await self._count(session_id, used)
            except UnknownConversationError:  # deleted meanwhile
                continue
            summaries.append(Summary(session_id, created[session_id], used, by_user, by_model, 0))
        return summaries

    def forget(self, conversation: Conversation) -> None:
        """Removes a conversation that is over from memory."""
        if self._open.get(conversation.session_id) is conversation:
            del self._open[conversation.session_id]

    async def aclose(self) -> None:
        """Ends every run and awaits it, then closes ADK's runner and the session service."""
        if not self._closing:
            self._closing = asyncio.create_task(self._close(), name="closing all conversations")
        await asyncio.shield(self._closing)  # a second call waits for the same end

    async def _close(self) -> None:
        await asyncio.gather(*(conversation.aclose() for conversation in [*self._open.values()]))
        self._open.clear()
        await self.runner.close()
        close: Callable[[], Awaitable[None]] | None = getattr(self.service, "close", None)
        if close:
            await close()

    async def _stored(self, session_id: str) -> Session:
        session = await _of_store(get_session(self.service, GUEST, session_id))
        if session is None:
            raise UnknownConversationError(session_id)
        return session

    def _is_guests(self, session_id: str) -> bool:
        """Whether an id can belong to the guest. Only the guest's conversations are open to everybody."""
        conversation = self._open.get(session_id)
        if conversation:
            return conversation.user_id == GUEST
        return not session_id.startswith(_DEFAULT) or session_id == default_id(GUEST)

    async def _count(self, session_id: str, updated: float) -> tuple[int, int]:
        """How many messages of each side a stored session has. It is read again only when it has changed."""
        counted = self._counts.get(session_id)
        if not counted or counted[0] != updated:
            summary, _ = await self.read(session_id)
            counted = updated, summary.user_messages, summary.model_messages
            self._counts[session_id] = counted
        return counted[1], counted[2]


async def _of_store(operation: Awaitable[T]) -> T:
    """Awaits the session service. A failure is logged once, here, and raised as StoreError."""
    try:
        return await operation
    except Exception as error:
        log.error("the session service failed: %s", failure(error))
        raise StoreError from error


def _exists(conversation: Conversation) -> bool:
    return conversation.session.is_kept or bool(conversation.room.history.message_count)


def _summary(conversation: Conversation) -> Summary:
    history = conversation.room.history
    return Summary(
        conversation.session_id,
        conversation.session.created_at,
        conversation.session.last_activity,
        history.user_messages,
        history.message_count - history.user_messages,
        len(conversation.room.listeners),
    )
