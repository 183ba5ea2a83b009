"""What this process counts together with all others: limits, and what `/stats` tells of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adk_relay.bus.census import Census
from adk_relay.bus.hub import Hub
from adk_relay.bus.limits import Limits
from adk_relay.core.shared import Left, Use
from adk_relay.core.whole import About, Agent


class Together:
    """Implements `core.shared.Shared` and `core.whole.Whole`, also while there is no hub: then alone.

    Args:
        about: what this process tells of itself.

    Invariants:
        It has a census and limits if, and only if, it has a hub.
    """

    def __init__(self, about: Callable[[], About]) -> None:
        self._about = about
        self._hub: Hub | None = None
        self._census: Census | None = None
        self._limits: Limits | None = None
        self._generation = 0

    def check(self) -> None:
        """Asserts the invariants."""
        assert (self._census is None) == (self._limits is None) == (self._hub is None)

    def begin(self, hub: Hub) -> None:
        """A hub is about to start."""
        self._generation = self.generation + 1
        self._hub = hub
        self._census = Census(hub.server, hub.process, self._about)
        self._limits = Limits(hub.server, hub.process, self._census)
        hub.run_also(self._census)

    async def leave(self) -> None:
        """This process ends. The hub has not ended yet."""
        census, hub, self._census, self._limits, self._hub = self._census, self._hub, None, None, None
        if census and hub:
            async with hub.patience.at_last():  # after a while it is taken to be gone
                await census.leave()

    @property
    def is_reached(self) -> bool:
        return self._hub is not None and self._hub.works

    @property
    def agent(self) -> Agent | None:
        """What the agent is; None: no process that this one understands runs it."""
        return self._census.agent if self._census else self._about().agent

    @property
    def has_failed(self) -> bool:
        return self._hub is not None and self._hub.has_failed

    @property
    def processes(self) -> list[About]:
        return self._census.processes if self._census else [self._about()]

    @property
    def generation(self) -> int:
        return self._generation + (self._census.generation if self._census else 0)

    async def tell(self, uses: Sequence[Use]) -> list[Left] | None:
        return await self._limits.tell(uses) if self._limits else None

    async def take_once(self, name: str, seconds: float) -> bool | None:
        return await self._limits.take_once(name, seconds) if self._limits else None
