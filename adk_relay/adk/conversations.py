"""All conversations: those in memory, and those that the session service keeps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from google.adk.agents.run_config import RunConfig
from google.adk.artifacts import BaseArtifactService
from google.adk.auth.credential_service.base_credential_service import BaseCredentialService
from google.adk.memory import BaseMemoryService
from google.adk.sessions import BaseSessionService

from adk_relay.adk.catalog import Catalog
from adk_relay.adk.conversation import Conversation
from adk_relay.adk.failing import Failing
from adk_relay.adk.fence import Check, Fence
from adk_relay.adk.ids import new_id
from adk_relay.adk.lock import lock_of
from adk_relay.adk.models import run_config, voice_of
from adk_relay.adk.probe import Probe
from adk_relay.adk.runner import WatchedRunner
from adk_relay.adk.services import Credentials, Services, artifact_service, memory_service
from adk_relay.adk.session import OLD_APP_NAME, create_session
from adk_relay.adk.starts import Starts, prepare
from adk_relay.adk.store import has_sessions, make_tables, reader_of, session_service
from adk_relay.adk.summaries import exists, newest, of_store, read
from adk_relay.adk.tree import app_of, live_models, what_is_not_watched
from adk_relay.core.interfaces import (
    FullError,
    StoppingError,
    Summary,
    UnknownConversationError,
    default_id,
)
from adk_relay.core.messages import Line, ToolResult
from adk_relay.core.moderation import OnInput
from adk_relay.core.recording import Past, Recorder
from adk_relay.core.stats import Stats
from adk_relay.core.voice import choices_of

log = logging.getLogger("relay.agent")

_DEFAULT = default_id("")
"""How the ids of default conversations begin, and no others."""


class Conversations:
    """All conversations of one agent.

    Args:
        agent: any ADK agent, or an App.
        app_name: the name under which its sessions are kept; None: the App's name, or the agent's.
        config: the run configuration; None: `models.run_config()`.
        sessions: an ADK session-service URI, or a session service.
        artifacts, memory: the same for artifacts and for memories.
        credentials: a credential service; None: in memory.
        grace: seconds that a conversation and its run go on after its last listener has left.
        idle_timeout: seconds without content in either direction after which a conversation ends; 0: never.
        mic_ms: milliseconds of sound that are sent to the model at once.
        replay_bytes, replay_seconds: how much of each conversation is kept for sockets that come back.
        sound: "short": past ADK where nobody in ADK wants to see it; "long": always through ADK.
        voices, languages: those that users may choose, separated by commas; None: they have no choice.
        client_tools: whether clients may have instructions and tools in any conversation.
        most: how many may be in memory; 0: any number.
        on_input: a host's function that is asked about the input of users.
        may_write: asked before each write whether this process owns the conversation; None: it owns all.
        lock_wait: seconds that a start waits for the end of another process with the same sessions; None:
            others may serve them, too. With `may_write`, those that have it may.

    Raises:
        ValueError: the URI names no session service that is installed here.
        TypeError: `agent` is no ADK agent or App, or one that ADK cannot run live.
    """

    def __init__(
        self,
        agent: Any,
        *,
        app_name: str | None = None,
        config: RunConfig | None = None,
        sessions: str | BaseSessionService,
        artifacts: str | BaseArtifactService = "memory://",
        memory: str | BaseMemoryService = "memory://",
        credentials: BaseCredentialService | None = None,
        grace: float,
        idle_timeout: float,
        mic_ms: float,
        replay_bytes: int,
        replay_seconds: float,
        sound: str,
        voices: str | None = None,
        languages: str | None = None,
        client_tools: bool = True,
        most: int = 0,
        on_input: OnInput | None = None,
        may_write: Check | None = None,
        lock_wait: float | None = None,
    ) -> None:
        app = app_of(agent)
        # ADK logs a failure several times, with tracebacks. relay gets it as an exception, and logs it in
        # one line. If the host has set a level for ADK, it is kept.
        if (adk := logging.getLogger("google_adk")).level == logging.NOTSET:
            adk.setLevel(logging.CRITICAL)
        self.config = config or run_config()
        self.choices = choices_of(voices, languages, voice_of(self.config))
        self.service = session_service(sessions) if isinstance(sessions, str) else sessions
        self._lost = set[str]()  # those that still end
        self.writer = Fence(self.service, may_write, self.lose, self._lost)
        self.reader = reader_of(self.service)
        self.app_name = app_name or app.name
        services = Services(
            self.writer,
            artifact_service(artifacts) if isinstance(artifacts, str) else artifacts,
            memory_service(memory) if isinstance(memory, str) else memory,
            credentials or Credentials(),
        )
        self.runner = WatchedRunner(app, self.app_name, services, self.config, short_way=sound == "short")
        self.client_tools = client_tools
        for line in what_is_not_watched(self.runner.agent):
            log.warning("%s", line)
        self.grace = grace
        self.idle_timeout = idle_timeout
        self.mic_ms = mic_ms
        self.replay_bytes = replay_bytes
        self.replay_seconds = replay_seconds
        self._most = most
        self.on_input = on_input
        self.on_end: Callable[[Conversation], None] = lambda _: None
        self.stats = Stats()
        self.failing = Failing()
        self._starts = Starts()
        models = live_models(self.runner.agent)
        self.model = models[0].model if models else app.name
        self.is_rehearsal = self.model == "rehearsal"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._open: dict[str, Conversation] = {}
        self._catalog = Catalog(self.reader, self.app_name)
        self._probe = Probe(self.service, self.app_name)
        self._lock = lock_of(self.service, self.app_name, lock_wait, self._end_all, is_shared=bool(may_write))

    def use_loop(self) -> bool:
        """Conversations are opened in the running event loop from now on. True: the loop is another one."""
        # In tests of an application each test may have its own. The runs of a loop that has ended are gone.
        loop = asyncio.get_running_loop()
        if loop is self._loop or (self._loop and self._loop.is_running()):
            return False
        if self._loop:
            self.reader.change_loop()
            self._lock.change_loop()
        self._loop = loop
        self._closing = None
        self._open.clear()
        self._starts = Starts()
        self._catalog = Catalog(self.reader, self.app_name)
        self._probe = Probe(self.service, self.app_name)
        return True

    async def prepare(self) -> None:
        """Does, when the server starts, what the first conversation would have to wait for.

        Conversations can be opened again, if all were closed before.

        Raises:
            StoreInUseError: another process serves the same sessions.
        """
        self.use_loop()
        await self._lock.take(patiently=True)
        if self._closing and self._closing.done():
            self._closing = None
        await prepare(self.runner.plugin_manager.models())
        await make_tables(self.service)
        if self.app_name != OLD_APP_NAME and await has_sessions(self.reader, OLD_APP_NAME):
            log.warning(
                "the session store has conversations of an earlier relay, which this one does not show:"
                " RELAY_APP_NAME=%s shows them, and keeps new ones there, too",
                OLD_APP_NAME,
            )

    def is_closing(self) -> bool:
        """Whether the server is stopping, so that conversations can't be opened any more."""
        return self._closing is not None

    async def is_ready(self) -> bool:
        """Whether conversations can be opened and stored now."""
        may_open = not self.is_closing() and not self.failing
        return may_open and await self._lock.is_ours() and await self._probe.works()

    def is_answering(self) -> bool:
        """Whether an answer is under way in any conversation, or something waits for one."""
        return any(conversation.is_answering() for conversation in self._open.values())

    @property
    def active(self) -> int:
        """How many conversations are in memory."""
        return len(self._open)

    def has_place(self, user_id: str, session_id: str | None) -> bool:
        """Whether a conversation is in memory, or there is a place for it."""
        is_full = 0 < self._most <= len(self._open)
        return not is_full or (session_id or default_id(user_id)) in self._open

    async def open(self, user_id: str, session_id: str | None = None) -> Conversation:
        """Opens a conversation of a user, which begins if there is none with this id.

        The caller must attach a listener at once: a conversation without a listener soon ends.

        Args:
            session_id: None: the user's default conversation.

        Raises:
            UnknownConversationError: the conversation is another user's.
            FullError: too many are in memory already.
            StoppingError: the server is stopping.
            StoreError: the session could not be read.
        """
        session_id = session_id or default_id(user_id)
        await self.check(user_id, session_id)
        return await self._opened(user_id, session_id, counted=False)

    async def _opened(
        self,
        user_id: str,
        session_id: str,
        *,
        counted: bool,
        past: Past | None = None,
        recorder: Recorder | None = None,
    ) -> Conversation:
        """A conversation in memory; `counted`: it knows how many messages it has."""
        while True:
            if session_id not in self._open:
                await of_store(self._lock.take())
                await self._starts.wait()
            if self.is_closing():
                raise StoppingError
            if not self.has_place(user_id, session_id):
                raise FullError
            if session_id not in self._open:  # still
                self._open[session_id] = Conversation(self, user_id, session_id, past, recorder)
                past = None  # if it has to be opened once more, it was over
            conversation = self._open[session_id]
            if conversation.user_id != user_id:
                raise UnknownConversationError(session_id)
            await of_store(conversation.ready())
            if counted:
                await of_store(conversation.session.counted())
            has_ended = self._open.get(session_id) is not conversation  # meanwhile
            if not (has_ended or self.is_closing()):
                return conversation

    async def find(self, user_id: str, session_id: str) -> Conversation:
        """Opens an existing conversation of a user, which knows how many messages it has.

        Raises:
            UnknownConversationError: there is none.
            StoppingError: the server is stopping.
            StoreError: the session could not be read.
        """
        if not self._may_be_of(user_id, session_id):
            raise UnknownConversationError(session_id)
        is_open = (conversation := self._open.get(session_id)) and exists(conversation)
        if not (is_open or await of_store(self._catalog.has(user_id, session_id))):
            raise UnknownConversationError(session_id)
        return await self._opened(user_id, session_id, counted=True)

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
            owner = await of_store(self.reader.owner(self.app_name, session_id, user_id))
        if owner not in (None, user_id):
            raise UnknownConversationError(session_id)

    async def create(self, user_id: str) -> str:
        """Makes a conversation of a user, and returns its id: see `core.interfaces.Conversations`."""
        session_id = await of_store(new_id(self.reader, self.app_name, user_id, self._open))
        await of_store(create_session(self.service, self.app_name, user_id, session_id))
        self.stats.created += 1
        return session_id

    async def reset(self, user_id: str, session_id: str, *, delete: bool) -> None:
        """Empties a conversation of a user, for all its listeners.

        Raises:
            UnknownConversationError: there is none.
            StoppingError: the server is stopping.
            StoreError: the session could not be deleted.
        """
        await (await self.find(user_id, session_id)).reset(delete=delete)

    async def rename(self, user_id: str, session_id: str, title: str) -> None:
        """Names a conversation of a user: see `core.interfaces.Conversations`."""
        await (await self.find(user_id, session_id)).rename(title)

    async def answer(self, user_id: str, session_id: str, answer: ToolResult) -> None:
        """Takes the answer to a tool call: see `core.interfaces.Conversations`."""
        (await self.find(user_id, session_id)).answer(answer)

    async def read(
        self, user_id: str, session_id: str, before: int | None = None
    ) -> tuple[Summary, list[Line], int]:
        """The summary of a conversation of a user, some of its messages, and the number of the first one.

        Args:
            before: the number of the message before which they are; None: the last messages.

        Raises:
            UnknownConversationError: there is none.
            StoreError: the session could not be read.
        """
        if not self._may_be_of(user_id, session_id):
            raise UnknownConversationError(session_id)
        return await read(self._catalog, self._open, user_id, session_id, before)

    async def list(self, user_id: str, limit: int) -> list[Summary]:
        """A user's latest conversations, at most `limit`, the one used last first.

        Raises:
            StoreError: they could not be read.
        """
        return await newest(self._catalog, self._open, user_id, limit)

    def lose(self, session_id: str) -> None:
        """Another process owns a conversation: it ends here."""
        if conversation := self._open.get(session_id):
            self._lost.add(session_id)
            conversation.lose()

    def forget(self, conversation: Conversation) -> None:
        """Removes a conversation that is over from memory."""
        if self._open.get(conversation.session_id) is conversation:
            del self._open[conversation.session_id]
            self._lost.discard(conversation.session_id)
        self.on_end(conversation)

    def drain(self) -> None:
        """The process is about to stop. There is nobody to whom conversations could be given."""

    @property
    def replay_limits(self) -> tuple[int, float]:
        """Bytes of messages, and seconds, that a conversation keeps to be replayed."""
        return self.replay_bytes, self.replay_seconds

    async def take(
        self, user_id: str, session_id: str, past: Past, recorder: Recorder, *, must_exist: bool
    ) -> Conversation:
        """Opens a conversation where another process has left it; it begins anew if `past` has no epoch."""
        await self.check(user_id, session_id)
        if lost := self._open.get(session_id):  # this process has had it before, and has lost it
            self.lose(session_id)
            await lost.ended()
            self.forget(lost)
        if must_exist and not (past.lines or await of_store(self._catalog.has(user_id, session_id))):
            raise UnknownConversationError(session_id)
        return await self._opened(user_id, session_id, counted=must_exist, past=past, recorder=recorder)

    async def give(self, conversation: Conversation) -> None:
        """Gives a conversation away, between two turns if there is one soon. See `Conversation.give`."""
        await conversation.give()

    async def aclose(self) -> None:
        """Ends every run and awaits it, then closes ADK's runner and the session service."""
        self.use_loop()  # also if nothing was opened in it: what comes later in this loop comes after the end
        if not self._closing:
            self._closing = asyncio.create_task(self._close(), name="closing all conversations")
        await asyncio.shield(self._closing)  # a second call waits for the same end

    async def _end_all(self) -> None:
        await asyncio.gather(*(conversation.aclose() for conversation in [*self._open.values()]))
        self._open.clear()

    async def _close(self) -> None:
        await self._end_all()
        await self.runner.close()
        await self.reader.close()
        close: Callable[[], Awaitable[None]] | None = getattr(self.service, "close", None)
        if close:
            await close()
        await self._lock.give_up()

    def _may_be_of(self, user_id: str, session_id: str) -> bool:
        """Whether an id can belong to a user, as far as can be told without the session service."""
        conversation = self._open.get(session_id)
        if conversation:
            return conversation.user_id == user_id
        return not session_id.startswith(_DEFAULT) or session_id == default_id(user_id)
