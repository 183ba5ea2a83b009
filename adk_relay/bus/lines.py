"""Connections to Redis that are held: taking one for each command costs more than the command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

_FRESH_SECONDS = 30.0
"""A connection that was not used for so long is made anew: the server, or a proxy, may have closed it."""


class Lines:
    """Connections of one of redis-py's pools. A connection that has failed is not used again.

    Args:
        pool: that of a client. When the client is closed, so are these connections.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._free: list[tuple[float, Any]] = []
        """Since when, and the connection."""

    async def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Sends commands at once, and returns their answers, as the server sends them.

        Errors of the server are among the answers.

        Raises:
            RedisError, OSError: the server can't be reached. Some commands may have been done.
        """
        connection = await self._take()
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers = [await _answer(connection) for _ in commands]
        except BaseException:  # also if it is cancelled: what was not read would answer the next command
            await self._close(connection, *(each for _, each in self._free))  # the others may not work either
            raise
        self._free.append((time.monotonic(), connection))
        return answers

    async def _take(self) -> Any:
        if self._free:
            since, connection = self._free.pop()
            if time.monotonic() - since < _FRESH_SECONDS:
                return connection
            await self._close(connection)
        return await self._pool.get_connection()

    async def _close(self, *connections: Any) -> None:
        """Gives connections back to the pool, which connects them again when it has to."""
        self._free = [each for each in self._free if each[1] not in connections]
        for connection in connections:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
