"""Where an agent's artifacts, memories and credentials are kept: ADK's services, by default in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from google.adk.agents.callback_context import CallbackContext
from google.adk.artifacts import BaseArtifactService, InMemoryArtifactService
from google.adk.auth.auth_credential import AuthCredential
from google.adk.auth.auth_tool import AuthConfig
from google.adk.auth.credential_service.base_credential_service import BaseCredentialService
from google.adk.cli.service_registry import get_service_registry
from google.adk.memory import BaseMemoryService, InMemoryMemoryService
from google.adk.sessions import BaseSessionService, Session
from google.genai import types
from pydantic import PrivateAttr

T = TypeVar("T")

_ARTIFACTS = 64 * 1024 * 1024
"""Bytes of artifacts that are kept in memory."""

_ENVELOPE = 1024
"""Bytes that are counted for each version of an artifact, in addition to its content."""

_EVENTS = 50_000
"""Events that are kept in memory as memories."""

_CREDENTIALS = 10_000
"""Credentials that are kept in memory."""


class Services(NamedTuple):
    """ADK's services of one runner, with the names of its arguments."""

    session_service: BaseSessionService
    artifact_service: BaseArtifactService
    memory_service: BaseMemoryService
    credential_service: BaseCredentialService


def artifact_service(uri: str) -> BaseArtifactService:
    """The artifact service for an ADK URI: `memory://`, `file:///folder`, `gs://bucket` and the like.

    Raises:
        ValueError: ADK knows no such service, or it is not installed here.
    """
    if uri == "memory://":
        return Artifacts()
    return _by_uri("artifact", uri, get_service_registry().create_artifact_service)


def memory_service(uri: str) -> BaseMemoryService:
    """The memory service for an ADK URI: `memory://`, `rag://corpus`, `agentengine://id` and the like.

    Raises:
        ValueError: ADK knows no such service, or it is not installed here.
    """
    if uri == "memory://":
        return Memories()
    return _by_uri("memory", uri, get_service_registry().create_memory_service)


def _by_uri(kind: str, uri: str, create: Callable[..., T | None]) -> T:
    try:
        service = create(uri, agents_dir=str(Path.cwd()))  # where ADK looks for a .env
    except ImportError as error:
        raise ValueError(f"the {kind} service {uri} needs a package that is missing: {error}") from error
    if service is None:
        raise ValueError(f"ADK knows no {kind} service {uri.partition(':')[0]!r}; memory:// is in memory")
    return service


class Artifacts(InMemoryArtifactService):
    """Artifacts in memory, at most 64 MiB. If there are more, those saved longest ago are forgotten.

    Invariants:
        `_bytes` has the size of each artifact, all versions together, the one saved last at the end.
    """

    _bytes: dict[str, int] = PrivateAttr(default_factory=dict)

    async def save_artifact(self, **named: Any) -> int:
        which = {name: named.get(name) for name in ("app_name", "user_id", "filename", "session_id")}
        version = await super().save_artifact(**named)
        path = self._artifact_path(**which)  # type: ignore[arg-type]
        size = _size(self.artifacts[path][-1].data)
        if size > _ARTIFACTS:
            await self.delete_artifact(**which)  # type: ignore[arg-type]
            raise ValueError(f"An artifact in memory has at most {_ARTIFACTS} bytes, not {size}.")
        self._bytes[path] = self._bytes.pop(path, 0) + size
        while sum(self._bytes.values()) > _ARTIFACTS and len(self._bytes) > 1:
            oldest = next(iter(self._bytes))
            del self._bytes[oldest]
            self.artifacts.pop(oldest, None)
        if self._bytes[path] > _ARTIFACTS:  # its own versions: only the newest is kept
            del self.artifacts[path][:-1]
            self.artifacts[path][0].artifact_version.version = version = 0
            self._bytes[path] = size
        return version

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        self._bytes.pop(self._artifact_path(app_name, user_id, filename, session_id), None)
        await super().delete_artifact(
            app_name=app_name, user_id=user_id, filename=filename, session_id=session_id
        )


class Memories(InMemoryMemoryService):
    """Memories in memory, at most 50,000 events. If there are more, sessions added first are forgotten."""

    async def add_session_to_memory(self, session: Session) -> None:
        await super().add_session_to_memory(session)
        self._forget()

    async def add_events_to_memory(self, **named: Any) -> None:
        await super().add_events_to_memory(**named)
        self._forget()

    def _forget(self) -> None:
        sessions = [
            (len(events), of_user, session_id)
            for of_user in self._session_events.values()
            for session_id, events in of_user.items()
        ]
        kept = sum(count for count, _, _ in sessions)
        for count, of_user, session_id in sessions:
            if kept <= _EVENTS:
                return
            del of_user[session_id]
            kept -= count


class Credentials(BaseCredentialService):
    """Credentials in memory, at most 10,000. If there are more, those saved longest ago are forgotten."""

    def __init__(self) -> None:  # ADK's own constructor warns that the class may change
        self._credentials: dict[tuple[str, str, str | None], AuthCredential | None] = {}

    async def load_credential(
        self, auth_config: AuthConfig, callback_context: CallbackContext
    ) -> AuthCredential | None:
        return self._credentials.get(_key(auth_config, callback_context))

    async def save_credential(self, auth_config: AuthConfig, callback_context: CallbackContext) -> None:
        key = _key(auth_config, callback_context)
        self._credentials.pop(key, None)
        self._credentials[key] = auth_config.exchanged_auth_credential
        while len(self._credentials) > _CREDENTIALS:
            del self._credentials[next(iter(self._credentials))]


def _key(auth_config: AuthConfig, context: CallbackContext) -> tuple[str, str, str | None]:
    return context.session.app_name, context.user_id, auth_config.credential_key


def _size(part: types.Part) -> int:
    blob = part.inline_data
    return _ENVELOPE + len((blob and blob.data) or b"") + len((part.text or "").encode())
