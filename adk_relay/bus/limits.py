"""Limits across processes: what a user or an address has and takes is counted in Redis, in one script."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from adk_relay.bus import keys
from adk_relay.bus.census import Census
from adk_relay.bus.server import AwayError, Script, Server
from adk_relay.core.shared import Left, Use

_EXPIRY_MS = 2 * 60 * 60 * 1000
"""How long it is known what somebody has. Who counts sockets tells of them again in half of that time."""

_NEW_SECONDS = 5.0
"""So long after it began, a process may be unknown to others."""

_DAY_MS = 24 * 60 * 60 * 1000

_TELL = Script("""
-- ARGV: the process; its sockets, the most, 1: the last one is new; the day, seconds spoken since the last
-- time; ms until it expires, the same if somebody has spoken; how many buckets; seconds in which a process is
-- new; of each bucket: rate, most, taken; the processes that live
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local about = {}
local found = redis.call('HGETALL', KEYS[1])
for i = 1, #found, 2 do about[found[i]] = found[i + 1] end

local own, most, is_new = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local last = 10 + 3 * tonumber(ARGV[9])
local lives = {}
for i = last + 1, #ARGV do lives['s:' .. ARGV[i]] = true end
local sockets = own
for field, value in pairs(about) do
    if string.sub(field, 1, 2) == 's:' then
        local count, at = string.match(value, '^(%d+) (%S+)$')
        -- A process that has just told of itself may be so new that it is not known here.
        local counts = lives[field] or now - tonumber(at) < tonumber(ARGV[10])
        if counts and field ~= 's:' .. ARGV[1] then sockets = sockets + tonumber(count) end
        if now - tonumber(at) > tonumber(ARGV[7]) / 1000 then redis.call('HDEL', KEYS[1], field) end
    end
end
local has_place = not (is_new and most > 0 and sockets > most)
if not has_place then own = own - 1 end
if own > 0 then redis.call('HSET', KEYS[1], 's:' .. ARGV[1], string.format('%d %.6f', own, now))
else redis.call('HDEL', KEYS[1], 's:' .. ARGV[1]) end

local answer = {has_place and 1 or 0}
local spoken = tonumber(ARGV[6])
if about.day == ARGV[5] then spoken = spoken + tonumber(about.spoken) end
answer[2] = tostring(spoken)
if spoken > 0 then redis.call('HSET', KEYS[1], 'day', ARGV[5], 'spoken', spoken) end

for i = 11, last, 3 do
    local rate, full, taken = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    local name = 'b' .. i
    local left = full
    if about[name] then
        local old, at = string.match(about[name], '^(%S+) (%S+)$')
        left = math.min(full, tonumber(old) + (now - tonumber(at)) * rate)
    end
    left = left - taken
    if left < full then redis.call('HSET', KEYS[1], name, string.format('%.6f %.6f', left, now)) end
    answer[#answer + 1] = string.format('%.6f', left)
end
redis.call('PEXPIRE', KEYS[1], spoken > 0 and ARGV[8] or ARGV[7])
return answer
""")


class Limits:
    """Counts in Redis what all processes have: see `core.shared.Shared`.

    Args:
        process: this one.
        census: knows which processes live. The sockets of others do not count.
    """

    def __init__(self, server: Server, process: str, census: Census) -> None:
        self._server = server
        self._process = process
        self._census = census

    @property
    def generation(self) -> int:
        return self._census.generation

    async def tell(self, uses: Sequence[Use]) -> list[Left] | None:
        living = self._census.living
        calls = [([keys.limits(_digest(use.whose))], self._arguments(use, living)) for use in uses]
        if self._server.is_away:
            return None
        try:
            return [_left(answer) for answer in await self._server.scripts(_TELL, calls)]
        except AwayError:
            return None

    async def take_once(self, name: str, seconds: float) -> bool | None:
        if self._server.is_away:
            return None
        try:
            key = keys.once(_digest(name))
            return (
                await self._server.run("SET", key, "1", "NX", "PX", max(1, int(seconds * 1000))) is not None
            )
        except AwayError:
            return None

    def _arguments(self, use: Use, living: list[str]) -> list[str | int | float]:
        numbers = (use.sockets, use.most_sockets, int(use.is_new), use.day, use.spoken, _EXPIRY_MS, _DAY_MS)
        buckets = [each for bucket in use.buckets for each in (bucket.rate, bucket.most, bucket.taken)]
        return [self._process, *numbers, len(use.buckets), _NEW_SECONDS, *buckets, *living]


def _left(answer: list[Any]) -> Left:
    return Left(answer[0] == 1, tuple(float(each) for each in answer[2:]), float(answer[1]))


def _digest(name: str) -> str:
    """Names in few bytes, however long they are, and not to be read in Redis."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
