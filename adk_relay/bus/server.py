"""The Redis server, or the cluster, that carries the bus: its clients, and what happens while it is away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from adk_relay.bus.lines import Lines
from adk_relay.core.logs import one_line

log = logging.getLogger("relay")

T = TypeVar("T")

SCHEMES = (
    *("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
    *("unix",),
)

_CONNECT_SECONDS = 2.0
_SENTINEL_SECONDS = 0.5
"""How long a sentinel may take: then the next one is asked."""

_ANSWER_SECONDS = 3.0
"""How long a command may take. One that took longer may have been done nevertheless."""

_STALLED_SECONDS = 5.0
"""After so long without an answer to a read that waits for less, the connection is made anew: another server
may be the master by now."""

_AT_ONCE = 48
"""Commands that may be under way: a pool of redis-py has 100 connections, and the next command raises."""

_CALM_SECONDS = 1.0
"""A cluster is back when no command has failed for so long: one of its servers may be away alone."""

PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
"""The first pause between two attempts, while Redis is away, and the longest one."""

_NOT_NOW = (
    *("LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "OOM"),
    *("BUSY ", "UNBLOCKED force"),
)
"""How the errors begin that a server answers with when it can't work now. The last ones: somebody's script
takes long; a master becomes a replica while a read waits."""


_AWAY = exceptions.ConnectionError, exceptions.TimeoutError, exceptions.RedisClusterException, OSError
"""The errors of a server that can't be reached. That of `asyncio.timeout` is an OSError."""


class AwayError(Exception):
    """Redis can't be reached, or can't work now. A command that failed so may have been done."""


class Client(Protocol):
    """What is used of redis-py's clients."""

    async def execute_command(self, *args: Any, **options: Any) -> Any: ...

    async def aclose(self) -> None: ...


class Script:
    """A Lua script: Redis runs it as a whole, and nothing else meanwhile."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


Call = tuple[Sequence[str], Sequence[Any]]
"""The keys and the arguments of a script."""

Entry = tuple[bytes, dict[bytes, bytes]]
"""The id and the fields of an entry of a stream."""

Read = Callable[..., Awaitable[list[Entry]]]
Ask = Callable[..., Awaitable[list[Any]]]


class Server:
    """The clients of one Redis.

    Args:
        url: `redis://[user:password@]host:port[/db]`, `rediss://` for TLS;
            `redis+sentinel://host:port,host:port/service[/db]` with
            `?sentinel_username=…&sentinel_password=…` where the sentinels want them;
            `redis+cluster://host:port,host:port`.
        on_change: called with True when Redis is away, and with False when it is back.

    Invariants:
        At most `_AT_ONCE` commands are under way, not counting those of `reader`s.

    Raises:
        ValueError: the URL can't be used; the text says why.
    """

    def __init__(self, url: str, on_change: Callable[[bool], None] = lambda _: None) -> None:
        self.is_away = False
        self.is_there = asyncio.Event()
        """Set while it is not away."""
        self.is_there.set()
        self._failed_at = 0.0
        """When a command last failed, as `time.monotonic()`."""
        self._calm = _CALM_SECONDS if "+cluster:" in url else 0.0
        self._url = url
        self._on_change = on_change
        self._client = _connect(url)
        self._ask = _asking(self._client)
        self._places = asyncio.Semaphore(_AT_ONCE)

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.is_there.is_set() != self.is_away
        assert 0 <= self._places._value <= _AT_ONCE, f"{self._places._value} places are free"

    @contextlib.asynccontextmanager
    async def reader(self) -> AsyncIterator[Read]:
        """Reads a stream with XREAD or XREADGROUP, and may wait for what comes; with a connection of its own.

        What it yields takes the command, and returns the entries. It raises AwayError if Redis is away.
        """
        client = _connect(self._url)
        ask = _asking(client)

        async def read(*command: Any) -> list[Entry]:
            with self.watched():
                async with asyncio.timeout(_STALLED_SECONDS):
                    [answer] = await ask(command)
                if isinstance(answer, Exception):
                    raise answer
            return _entries(answer)

        try:
            yield read
        finally:
            await _close(client)

    async def close(self) -> None:
        """Closes its connections."""
        await _close(self._client)

    async def run(self, *command: Any, **options: Any) -> Any:
        """Runs a command once.

        Args:
            options: what redis-py has to know in order to read the answer.

        Raises:
            AwayError: Redis is away.
        """
        async with self._places:
            with self.watched():
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return await self._client.execute_command(*command, **options)

    async def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Runs commands once, in order, in one round trip; returns their answers as Redis sends them.

        A `NoScriptError` may be among the answers. In a cluster, the keys of each command must share a slot.

        Raises:
            AwayError: Redis is away. Some may have run.
        """
        async with self._places:
            with self.watched():
                async with asyncio.timeout(_ANSWER_SECONDS):
                    answers = await self._ask(*commands)
                for answer in answers:
                    if isinstance(answer, Exception) and not isinstance(answer, NoScriptError):
                        raise answer
        return answers

    async def script(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Runs a script once; its keys must share a slot.

        Raises:
            AwayError: Redis is away.
        """
        return (await self.scripts(script, [(keys, arguments)]))[0]

    async def scripts(self, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Runs a script once for each of these keys and arguments, in order, in one round trip.

        Raises:
            AwayError: Redis is away. Some may have run.
        """
        if not calls:
            return []
        answers = await self.ask(
            *(("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls)
        )
        for number, (keys, arguments) in enumerate(calls):
            if isinstance(answers[number], NoScriptError):
                command = ("EVAL", script.text, len(keys), *keys, *arguments)
                answers[number] = (await self.ask(command))[0]
        return answers

    async def attempt(self, do: Callable[[], Awaitable[T]]) -> T:
        """Does something until Redis is there for it. It may be done more than once."""
        pause = PAUSE_SECONDS
        while True:
            try:
                return await do()
            except AwayError:
                # All processes come back at once: not in step.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Around a command: whether it works shows whether Redis is away.

        Raises:
            AwayError: it does not work now.
        """
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            try:
                yield
            finally:
                # `asyncio.wait_for`, which redis-py uses, loses a cancellation in Python 3.11.
                if task and task.cancelling() > cancelled:
                    raise asyncio.CancelledError
        except _AWAY as error:
            raise self._away(error) from None
        except ResponseError as error:
            # Some of these errors have a class of their own, whose text lacks the first word.
            name = type(error).__name__.removesuffix("Error").upper()
            if not str(error).startswith(_NOT_NOW) and name not in ("READONLY", "OUTOFMEMORY", "CLUSTERDOWN"):
                self._note_back()  # it has answered
                raise
            raise self._away(error) from None
        else:
            self._note_back()

    def _away(self, error: Exception) -> AwayError:
        why = f"{type(error).__name__}: {one_line(str(error), 200)}" if str(error) else "no answer"
        self._failed_at = time.monotonic()
        if not self.is_away:
            self.is_away = True
            self.is_there.clear()
            log.warning("Redis is away: %s", why)
            self._on_change(True)
        return AwayError(why)

    def _note_back(self) -> None:
        if self.is_away and time.monotonic() - self._failed_at >= self._calm:
            self.is_away = False
            self.is_there.set()
            log.info("Redis is back")
            self._on_change(False)


def _asking(client: Client) -> Ask:
    """What sends commands at once, and returns their answers as the server sends them, errors too."""
    if pool := getattr(client, "connection_pool", None):
        return Lines(pool).ask
    cluster: Any = client  # it has a pool for each server
    for command in ("XREAD", "XREADGROUP"):
        cluster.set_response_callback(command, lambda answer, **_: answer)

    async def ask(*commands: Sequence[Any]) -> list[Any]:
        pipeline = cluster.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    return ask


def _entries(answer: dict[bytes, list[tuple[bytes, list[bytes]]]] | None) -> list[Entry]:
    """The entries of the one stream that was read."""
    found = next(iter(answer.values())) if answer else []
    return [(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in found]


async def _close(client: Client) -> None:
    with contextlib.suppress(RedisError, OSError):  # the other side need not answer
        await asyncio.shield(client.aclose())


class _SentinelClient:
    """A client of the master that sentinels name."""

    def __init__(self, sentinel: Sentinel, client: Any) -> None:
        self._sentinel = sentinel
        self._client = client
        self.execute_command = client.execute_command
        self.connection_pool = client.connection_pool

    async def aclose(self) -> None:
        try:
            await self._client.aclose()
        finally:
            await self._sentinel.aclose()


def _connect(url: str) -> Client:
    """A client that connects with its first command."""
    # Commands have time limits of ours: with one of redis-py's, each would be a task of its own, and a server
    # that has nothing to say to a read would be taken for one that is away.
    options: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": _CONNECT_SECONDS}
    # While redis-py waits for news of a maintenance, it does not look whether a connection of its pool
    # was closed meanwhile: each of them would be a Redis that is away, long after that is back.
    options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"a bus begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if "+" not in parts.scheme:
        # The bus has its own attempts: those of redis-py would hide for seconds that Redis is away.
        return cast(Client, Redis.from_url(url, retry=Retry(NoBackoff(), 0), max_connections=100, **options))
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    options |= {"username": unquote(user) or None, "password": unquote(password) or None}
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    kind = parts.scheme.partition("+")[2]
    nodes = [_host(each, 26379 if kind == "sentinel" else 6379) for each in hosts.split(",")]
    if kind == "cluster":
        startup_nodes = [ClusterNode(host, port) for host, port in nodes]
        # With one more attempt it looks for the master that a slot has after a failover.
        return cast(Client, RedisCluster(startup_nodes=startup_nodes, retry=Retry(NoBackoff(), 1), **options))
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not (database or "0").isdecimal():
        raise ValueError("a bus with sentinels is redis+sentinel://host:port,host:port/service[/db]")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    sentinel_options = {
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        "username": query.get("sentinel_username"),
        "password": query.get("sentinel_password"),
        "retry": Retry(NoBackoff(), 0),
    }
    sentinel = cast(Any, Sentinel)(nodes, sentinel_kwargs=sentinel_options)
    options |= {"db": int(database or 0), "retry": Retry(NoBackoff(), 0)}
    return cast(Client, _SentinelClient(sentinel, sentinel.master_for(service, **options)))


def _host(text: str, port: int) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise ValueError(f"{text!r} is no host")
    return found.hostname, found.port or port
