"""Whether the session store can be written."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.sessions import BaseSessionService

from adk_relay.core.logs import failure

log = logging.getLogger("relay.agent")

_KNOWN_FOR = 5.0
"""Seconds in which the store is not tried again: load balancers ask often."""

_WAIT = 5.0
"""Seconds after which a store that does not answer counts as failing."""

_NOBODY: dict[str, Any] = {"user_id": "relay-ready-probe", "session_id": "relay-ready-probe"}


class Probe:
    """Makes a session that is nobody's, and deletes it: a store on a full disk can still be read."""

    def __init__(self, service: BaseSessionService, app_name: str) -> None:
        self._service = service
        self._app_name = app_name
        self._works = True
        self._tried_at = -_KNOWN_FOR
        self._trying: asyncio.Task[None] | None = None

    async def works(self) -> bool:
        """Whether the store could be written at most some seconds ago."""
        if not self._trying and time.monotonic() - self._tried_at >= _KNOWN_FOR:
            self._trying = asyncio.create_task(self._try(), name="probe of the session store")
        if self._trying:
            await asyncio.shield(self._trying)
        return self._works

    async def _try(self) -> None:
        try:
            async with asyncio.timeout(_WAIT):
                try:
                    await self._write()
                except Exception:
                    # In a new database the first sessions of two relays can collide, in MariaDB for example.
                    await self._write()
        except Exception as error:
            if self._works:
                log.error("the session service failed: %s", failure(error))
            self._works = False
        else:
            self._works = True
        finally:
            self._tried_at = time.monotonic()
            self._trying = None

    async def _write(self) -> None:
        with suppress(AlreadyExistsError):
            await self._service.create_session(app_name=self._app_name, **_NOBODY)
        await self._service.delete_session(app_name=self._app_name, **_NOBODY)
