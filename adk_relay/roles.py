"""The role of a process: whether it has sockets (`web`), runs the agent (`worker`), or does both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from adk_relay.core import interfaces
from adk_relay.core.moderation import OnInput
from adk_relay.core.shared import Shared
from adk_relay.core.whole import Whole
from adk_relay.wire.api import OPEN
from adk_relay.wire.draining import ENDING

if TYPE_CHECKING:
    from google.adk.agents.run_config import RunConfig
    from google.adk.auth.credential_service.base_credential_service import BaseCredentialService

    from adk_relay.adk.conversations import Conversations as OwnConversations
    from adk_relay.adk.fence import Check

WATCHED = (*OPEN, "/metrics")
"""The paths that a worker serves: they are for what watches it."""


class Conversations(interfaces.Conversations, Protocol):
    """The conversations that a process serves, whoever runs them."""

    @property
    def app_name(self) -> str: ...

    def use_loop(self) -> bool:
        """Everything happens in the running event loop from now on. True: the loop is another one."""

    async def prepare(self) -> None:
        """Does, when the server starts, what the first conversation would have to wait for.

        Raises:
            StoreInUseError: another process serves the same sessions.
        """

    def is_answering(self) -> bool:
        """Whether an answer is under way in any conversation that runs here."""

    def drain(self) -> None:
        """The process is about to stop: begins to give conversations to other processes, if there are any."""

    async def aclose(self) -> None:
        """Ends all that happens here."""


class Together(Shared, Whole, Protocol):
    """What the processes on a bus count together."""


class Parts(NamedTuple):
    """What a process has, by its role.

    Attributes:
        served: the conversations that its sockets attend.
        own: those of them that run in it; None: it is a web process.
        together: None: there is no bus.
    """

    served: Conversations
    own: OwnConversations | None
    together: Together | None = None


def check(values: Mapping[str, Any]) -> None:
    """Checks the settings that say how processes work together.

    Raises:
        ValueError: they contradict each other, or can't be used.
    """
    url = values["bus"]
    if not url:
        if values["role"] != "both":
            raise ValueError(
                f"role is {values['role']!r}, but without a bus a process does both:"
                " set RELAY_BUS to the URL of a Redis"
            )
        return
    # The URL may have a password, so no error shows it.
    try:
        from adk_relay.bus.server import SCHEMES, Server
    except ImportError as error:
        raise ValueError(
            f"bus is set, but {error.name} is not installed: pip install 'adk-relay[redis]'"
        ) from None
    if url.partition("://")[0] not in SCHEMES:
        raise ValueError(f"bus must be a URL that begins with {'://, '.join(SCHEMES)}://")
    try:
        Server(url)  # it connects with its first command
    except ValueError as error:
        raise ValueError(f"bus can't be used: {error}") from None
    if values["role"] != "web" and values["sessions"] == "memory://":
        raise ValueError(
            "sessions is 'memory://', which other processes can't read: with a bus, set RELAY_SESSIONS to a"
            " database, or on one machine to a sqlite file"
        )


def conversations_of(
    agent: Any,
    values: Mapping[str, Any],
    run_config: RunConfig | None,
    credentials: BaseCredentialService | None,
    on_input: OnInput | None,
    sockets: Callable[[], int],
) -> Parts:
    """The conversations that a process with these settings serves.

    Args:
        agent, run_config, credentials, on_input: see `relay.Relay`.
        sockets: returns how many are open in this process.

    Raises:
        TypeError: `agent` is not an ADK agent or App, or one that ADK cannot run live.
        ValueError: a setting can't be used.
    """
    check(values)
    if not values["bus"]:
        own = _own(agent, values, run_config, credentials, on_input, None)
        return Parts(own, own)
    from adk_relay.bus import conversations as bus

    app_name, role = values["app_name"] or "relay", values["role"]
    of_all = bus.Conversations(values["bus"], app_name, role, values["mic_ms"], sockets)
    if role == "web":
        return Parts(of_all, None, of_all.together)
    own = _own(agent, values, run_config, credentials, on_input, of_all.may_write)
    of_all.run_here(own)
    return Parts(of_all, own, of_all.together)


def _own(
    agent: Any,
    values: Mapping[str, Any],
    run_config: RunConfig | None,
    credentials: BaseCredentialService | None,
    on_input: OnInput | None,
    may_write: Check | None,
) -> OwnConversations:
    """The conversations that run in this process."""
    # Imported here and not at the top: importing ADK is slow, and `import relay` must be fast.
    from adk_relay.adk.conversations import Conversations

    is_locked = values["shared_store"] == "false"  # with a bus, against processes without it
    return Conversations(
        agent,
        config=run_config,
        credentials=credentials,
        sessions=values["sessions"],
        app_name=values["app_name"],
        artifacts=values["artifacts"],
        memory=values["memory"],
        grace=values["grace"],
        idle_timeout=values["idle_timeout"],
        mic_ms=values["mic_ms"],
        replay_bytes=values["replay_bytes"],
        replay_seconds=values["replay_seconds"],
        sound=values["sound"],
        voices=values["voices"],
        languages=values["languages"],
        client_tools=values["client_tools"] != "off",
        most=values["max_conversations"],
        on_input=on_input,
        may_write=may_write,
        lock_wait=values["drain"] + ENDING if is_locked else None,
    )
