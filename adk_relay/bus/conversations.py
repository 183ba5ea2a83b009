"""All conversations of all processes on one bus, for the sockets and requests of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from adk_relay.bus.attending import Attending
from adk_relay.bus.hub import Hub
from adk_relay.bus.owned import Conversations as OwnConversations
from adk_relay.bus.owning import Owning
from adk_relay.bus.together import Together
from adk_relay.core.interfaces import Conversation, StoppingError, Summary
from adk_relay.core.messages import Line, ToolResult
from adk_relay.core.stats import Stats
from adk_relay.core.voice import Choices
from adk_relay.core.whole import About, Agent, Role, counts_of

_GIVING_SECONDS = 3.0
"""So long, in the end, conversations that are still here have to be given away."""


class Conversations:
    """All conversations. It implements `core.interfaces.Conversations`.

    It begins with the first event loop that it is used in. In another one it begins anew.

    Args:
        url: that of Redis: see `bus.server.Server`.
        app_name: that of the agent, in a process that does not run it.
        mic_ms: milliseconds of a microphone's sound that are sent to another process at once.
        sockets: returns how many are open in this process.

    Invariants:
        While it is open, it belongs to one event loop.
    """

    def __init__(
        self, url: str, app_name: str, role: Role, mic_ms: float, sockets: Callable[[], int]
    ) -> None:
        self.app_name = app_name
        self.stats = Stats()
        self._role = role
        self._mic_ms = mic_ms
        self._sockets = sockets
        self._url = url
        self._own: OwnConversations | None = None
        self._hub: Hub | None = None
        self._owning: Owning | None = None
        self._attending: Attending | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_agent = Agent()
        self._is_closing = False
        self._giving: asyncio.Task[None] | None = None
        self.together = Together(self._about)

    def check_state(self) -> None:
        """Asserts the invariants."""
        assert (self._hub is None) == (self._attending is None)

    # ---- its life ----

    def run_here(self, own: OwnConversations) -> None:
        """Conversations run in this process, too. To be called before anything else."""
        self._own = own
        self.stats, self.app_name = own.stats, own.app_name

    def use_loop(self) -> bool:
        """Everything happens in the running event loop from now on. True: the loop is another one."""
        is_new = self._own.use_loop() if self._own else False
        loop = asyncio.get_running_loop()
        if loop is self._loop or (self._loop and self._loop.is_running()):
            return is_new
        self._loop = loop
        self._hub = self._owning = self._attending = self._giving = None
        self._is_closing = False
        return True

    async def prepare(self) -> None:
        """Begins, when the server starts. Redis may be away: then it goes on when that is back."""
        self.use_loop()
        if self._is_closing:
            self._hub = self._owning = self._attending = self._giving = None
            self._is_closing = False
        if self._own:
            await self._own.prepare()
        self._begun()

    def _begun(self) -> Attending:
        if self._is_closing:
            raise StoppingError
        if not self._attending:
            self.use_loop()
            self._hub = Hub(self._url)
            self._owning = Owning(self._hub, self._own) if self._own else None
            self._attending = Attending(self._hub, self._owning, self._mic_ms)
            self.together.begin(self._hub)
            self._hub.start()
        return self._attending

    async def may_write(self, session_id: str) -> bool:
        """Whether this process still owns a conversation: asked before its session is written."""
        return self._owning is None or await self._owning.fence.may_write(session_id)

    def is_answering(self) -> bool:
        """Whether an answer is under way in any conversation that runs here, or one is being given away."""
        if self._giving:
            return not self._giving.done()
        return self._own is not None and self._own.is_answering()

    def drain(self) -> None:
        """Begins to give all conversations that run here away. Their listeners elsewhere notice nothing."""
        if self._owning and not self._giving:
            self._giving = asyncio.create_task(self._owning.drain(), name="giving conversations away")

    async def aclose(self) -> None:
        """Ends all that happens here."""
        self.use_loop()
        self.drain()
        self._is_closing = True
        if self._giving:
            await asyncio.wait({self._giving}, timeout=_GIVING_SECONDS)
            self._giving.cancel()
        if self._owning:
            self._owning.abandon()
        if self._own:
            await self._own.aclose()
        if self._owning:
            await self._owning.aclose()
        await self.together.leave()
        if self._hub:
            await self._hub.aclose()

    # ---- core.interfaces.Conversations ----

    @property
    def model(self) -> str:
        return self._known_agent().model

    @property
    def is_rehearsal(self) -> bool:
        return self._known_agent().is_rehearsal

    @property
    def choices(self) -> Choices:
        agent = self._known_agent()
        return Choices(agent.voices, agent.languages)

    def _agent(self) -> Agent | None:
        """What the agent is; None: no process is known that runs it."""
        if own := self._own:
            choices = tuple(own.choices.voices), tuple(own.choices.languages)
            return Agent(own.app_name, own.model, own.is_rehearsal, *choices)
        return self.together.agent

    def _known_agent(self) -> Agent:
        """The same, or what was known last."""
        self._last_agent = self._agent() or self._last_agent
        return self._last_agent

    def is_closing(self) -> bool:
        return self._is_closing or bool(self._own and self._own.is_closing())

    async def is_ready(self) -> bool:
        if self.is_closing() or not (self._hub and self._hub.works):
            return False
        if self._own:
            return await self._own.is_ready()
        return self._agent() is not None

    @property
    def active(self) -> int:
        """How many conversations run in this process."""
        return self._own.active if self._own else 0

    def _about(self) -> About:
        """What the other processes are told of this one."""
        agent = self._agent() if self._own else None
        return About(self._role, counts_of(self.stats, self.active, self._sockets()), agent)

    def has_place(self, user_id: str, session_id: str | None) -> bool:
        return True  # some process may have one

    async def open(self, user_id: str, session_id: str | None = None) -> Conversation:
        return await self._begun().open(user_id, session_id)

    async def find(self, user_id: str, session_id: str) -> Conversation:
        return await self._begun().open(user_id, session_id, must_exist=True)

    async def check(self, user_id: str, session_id: str) -> None:
        await self._begun().check_user(user_id, session_id)

    async def create(self, user_id: str) -> str:
        return await self._begun().create(user_id)

    async def reset(self, user_id: str, session_id: str, *, delete: bool) -> None:
        await self._begun().reset(user_id, session_id, delete=delete)

    async def rename(self, user_id: str, session_id: str, title: str) -> None:
        await self._begun().rename(user_id, session_id, title)

    async def answer(self, user_id: str, session_id: str, answer: ToolResult) -> None:
        await self._begun().answer(user_id, session_id, answer)

    async def read(
        self, user_id: str, session_id: str, before: int | None = None
    ) -> tuple[Summary, list[Line], int]:
        return await self._begun().read(user_id, session_id, before)

    async def list(self, user_id: str, limit: int) -> list[Summary]:
        return await self._begun().list(user_id, limit)
