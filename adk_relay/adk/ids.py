"""The ids of conversations that the server makes."""

from __future__ import annotations

import secrets
from collections.abc import Container

from adk_relay.adk.reading import Reader
from adk_relay.core.sayable import sayable

_TRIES = 16


async def new_id(reader: Reader, app_name: str, user_id: str, in_memory: Container[str]) -> str:
    """An id that nobody has, and that people can say.

    No two users may have the same. Where it takes long to find that out, the id is one that nobody can guess.

    Args:
        in_memory: the ids of conversations that may not be stored.
    """
    for _ in range(_TRIES if reader.finds_owners else 0):
        session_id = sayable()
        if session_id not in in_memory and await reader.owner(app_name, session_id, user_id) is None:
            return session_id
    return secrets.token_hex(16)
