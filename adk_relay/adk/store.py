"""Where conversations are kept: the session service that an ADK URI names, and how it is read."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlparse

from google.adk.cli.service_registry import get_service_registry
from google.adk.sessions import BaseSessionService, InMemorySessionService

from adk_relay.adk.database import DatabaseReader
from adk_relay.adk.memory import MemoryReader
from adk_relay.adk.reading import AnyReader, Reader
from adk_relay.adk.sqlite import Sqlite, SqliteReader

_DRIVERS = {"postgresql": "asyncpg", "mysql": "aiomysql", "mariadb": "aiomysql"}
"""A driver that SQLAlchemy can await, by the first word of a scheme."""

_TRIES = 3
"""How often the tables are made at the start: see `make_tables`."""

_PAUSE = 0.2
"""Seconds between two tries."""

_WAIT = 5.0
"""Seconds that the start waits for a database that does not answer."""


def session_service(uri: str) -> BaseSessionService:
    """The session service for an ADK URI such as `memory://` or `sqlite:///folder/file.db`.

    What ADK has no service for is a database that SQLAlchemy knows, as for `adk web`:
    `postgresql+asyncpg://…`, for example. The folder of a sqlite file is created.

    Raises:
        ValueError: ADK knows no such service, or it is not installed here.
        OSError: the folder can't be created.
    """
    scheme = uri.partition(":")[0]
    if scheme == "sqlite" and (path := urlparse(uri).path[1:]):
        return InMemorySessionService() if path == ":memory:" else Sqlite(path)
    database, _, driver = scheme.partition("+")
    if not driver and database in _DRIVERS:  # SQLAlchemy would take one that blocks
        uri = uri.replace(scheme, f"{database}+{_DRIVERS[database]}", 1)
    try:
        if service := get_service_registry().create_session_service(uri):
            return service
        from google.adk.sessions.database_session_service import DatabaseSessionService

        return DatabaseSessionService(uri)
    except (ImportError, ValueError) as error:
        raise ValueError(_what_is_missing(database, driver, error)) from error


def _what_is_missing(database: str, driver: str, error: Exception) -> str:
    """Says why there is no session service."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    if not driver and database not in _DRIVERS:
        return f"ADK knows no session service {database!r}; try sqlite:///file.db"
    missing = next((str(c.name) for c in causes if isinstance(c, ImportError) and c.name), "")
    if missing.startswith(("sqlalchemy", "greenlet")) or "sqlalchemy" in str(error):
        driver = driver or _DRIVERS.get(database, "")
        return (
            f"{database}:// needs ADK's extra `db` and a driver:"
            f" pip install 'google-adk[db]' {driver or 'and the driver'}"
        )
    if missing:
        return f"{database}:// needs the driver {missing}: pip install {missing}"
    return f"{database}:// can't be used: {error}"


def reader_of(service: BaseSessionService) -> Reader:
    """What reads a session service. One that the host has made its own is read as ADK reads it."""
    if isinstance(service, Sqlite):
        return SqliteReader(service, service.path)
    if type(service) is InMemorySessionService:
        return MemoryReader(service)
    engine: Any = getattr(service, "db_engine", None)
    if type(service).__name__ == "DatabaseSessionService" and engine is not None:
        try:
            return DatabaseReader(service, engine)
        except (ImportError, AttributeError):  # this version of ADK has other tables
            pass
    return AnyReader(service)


async def has_sessions(reader: Reader, app_name: str) -> bool:
    """Whether a sqlite file has sessions under this name. Others are not asked: it may take long."""
    return isinstance(reader, SqliteReader) and await reader.has_sessions(app_name)


async def make_tables(service: BaseSessionService) -> None:
    """Makes the tables of a SQL database when the server starts, not before the first conversation.

    If several relays start at once with an empty database, each tries to make them, and all but one fail; the
    next time they find them. What else goes wrong is told later, by what needs the database.
    """
    prepare: Any = getattr(service, "prepare_tables", None)
    if prepare is None:
        return
    for _ in range(_TRIES):
        try:
            async with asyncio.timeout(_WAIT):
                await prepare()
            return
        except TimeoutError:
            return
        except Exception:
            await asyncio.sleep(_PAUSE)
