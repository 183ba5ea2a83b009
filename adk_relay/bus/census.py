"""The census: each process tells all others of itself, and so knows which there are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from adk_relay.bus import keys
from adk_relay.bus.names import understand
from adk_relay.bus.server import AwayError, Script, Server
from adk_relay.core.logs import one_line
from adk_relay.core.whole import About, Agent, Counts

log = logging.getLogger("relay")

_EVERY = 2.0
"""Seconds between two times that a process tells of itself."""

_FIRST_EVERY = 0.2
"""The same while it knows of no process that runs the agent."""

_GONE_MS = 7000
"""A process that has told nothing for so long is gone."""

_EXPIRY_MS = 60_000

_TELL = Script("""
-- ARGV: this process, what it tells, ms after which one is gone, ms until all is
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local found = redis.call('HGETALL', KEYS[1])
local there = {before and 1 or 0}
for i = 1, #found, 2 do
    local at, told = string.match(found[i + 1], '^(%d+) (.*)$')
    if now - tonumber(at) > tonumber(ARGV[3]) then
        redis.call('HDEL', KEYS[1], found[i])
    else
        there[#there + 1] = found[i]
        there[#there + 1] = told
    end
end
return there
""")


class Census:
    """What each process tells of itself.

    Invariants:
        This process is among those that are known.

    Args:
        process: this one.
        about: what it has to tell.
    """

    def __init__(self, server: Server, process: str, about: Callable[[], About]) -> None:
        self._server = server
        self._process = process
        self._about = about
        self.generation = 0
        """Rises if the others did not know of this process: see `core.shared.Shared`."""
        self._others: dict[str, About] = {}
        self._warned: set[str] = set()
        """The other apps of which the log tells."""
        self._has_left = False

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._process in self.living
        assert self._process not in self._others

    @property
    def living(self) -> list[str]:
        """The processes that there are, as far as is known, with this one."""
        return [self._process, *self._others]

    @property
    def processes(self) -> list[About]:
        """What they have told of themselves: see `core.whole.Whole`."""
        return [self._about(), *self._others.values()]

    @property
    def agent(self) -> Agent | None:
        """What the agent is; None: no process that this one understands runs it."""
        known = {self._process: self._about()} | self._others
        agents = (about.agent for name, about in known.items() if understand(name, self._process))
        return next(filter(None, agents), None)

    async def run(self) -> None:
        """Tells and reads until it is cancelled."""
        while not self._has_left:
            with contextlib.suppress(AwayError):
                await self._tell()
            await asyncio.sleep(_EVERY if self.agent else _FIRST_EVERY)

    async def leave(self) -> None:
        """This process ends, and tells nothing more.

        Raises:
            AwayError: Redis is away: after a while the others take this process to be gone.
        """
        self._has_left = True
        await self._server.run("HDEL", keys.CENSUS, self._process)

    async def _tell(self) -> None:
        told = json.dumps(asdict(self._about()))
        was_there, *found = await self._server.script(
            _TELL, [keys.CENSUS], self._process, told, _GONE_MS, _EXPIRY_MS
        )
        self.generation += not was_there
        there = {
            name.decode(): _about(json.loads(text)) for name, text in zip(*[iter(found)] * 2, strict=True)
        }
        self._others = {name: each for name, each in there.items() if each and name != self._process}
        self._warn()

    def _warn(self) -> None:
        """The workers of two apps would take each other's conversations."""
        own = self._about().agent
        others = {each.agent.app_name for each in self._others.values() if each.agent}
        if own and (strange := others - {own.app_name} - self._warned):
            self._warned |= strange
            log.error(
                "processes that serve the app %s are on the bus of %s: give each app a Redis of its own,"
                " or another database of it",
                ", ".join(one_line(repr(each)) for each in sorted(strange)),
                repr(own.app_name),
            )


def _about(told: Any) -> About | None:
    """What a process has told; None: it runs another version of relay, and tells something else."""
    try:
        agent = _known(Agent, told["agent"]) if told["agent"] else None
        return About(told["role"], _known(Counts, told["counts"]), agent)
    except (TypeError, KeyError):
        return None


def _known(kind: Any, told: dict[str, Any]) -> Any:
    """An object with those of its fields that were told: another version of relay may have more, or fewer."""
    values = {each.name: told[each.name] for each in fields(kind) if each.name in told}
    return kind(**{name: tuple(it) if isinstance(it, list) else it for name, it in values.items()})
