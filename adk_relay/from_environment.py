"""What `uvicorn relay:app` and `relay serve` do: configure a relay, and its process, by the environment."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from adk_relay import memory, settings, tracing
from adk_relay.advice import advice, warning
from adk_relay.core.logs import one_line
from adk_relay.settings import Options, SettingsError
from adk_relay.show_logs import show_logs
from adk_relay.wire.asgi import Event, Receive, Scope, Send

if TYPE_CHECKING:
    from relay import Relay

log = logging.getLogger("relay")

STARTUP_FAILURE = 3
"""The exit code if the server can't start: uvicorn's own."""


def relay_from_environment(make: type[Relay]) -> Relay:
    """Makes a relay of the agent and the settings that the RELAY_… variables name. See `Relay.from_env`.

    Args:
        make: the class `Relay`, or a host's own class derived from it.

    Raises:
        SettingsError: a variable is wrong, or the agent needs credentials and there are none.
    """
    settings.load_env_files(Path.cwd())
    show_logs()
    tracing.export_traces()
    values = settings.from_environment()
    if values.get("role") == "web":
        return _web(make, _arguments(values))
    # Imported here and not at the top: importing ADK is slow, and a web process must start fast.
    from adk_relay.adk.credentials import missing_credentials
    from adk_relay.adk.models import run_config
    from adk_relay.agents import agent_to_serve

    is_chosen = values.get("model") == "rehearsal"
    agent, file, origin = agent_to_serve(values.get("agent"), Path.cwd(), with_rehearsal=is_chosen)
    config = run_config(values.get("voice"), values.get("language"))
    try:
        relay = make(agent, run_config=config, **_arguments(values))
    except (TypeError, ValueError, OSError) as error:
        where = f"{origin}: " if isinstance(error, TypeError) else ""
        raise SettingsError(where + one_line(error)) from error
    log.info("serving the agent %s, from %s", agent.name, file)
    if relay.conversations.is_rehearsal:
        why = "RELAY_MODEL selects it." if is_chosen else missing_credentials()
        why = why or "The agent itself has this model."
        log.warning("This is the rehearsal agent, which only repeats what it hears. %s", why)
    return relay


def _web(make: type[Relay], arguments: Options) -> Relay:
    try:
        relay = make(None, **arguments)
    except (ValueError, OSError) as error:
        raise SettingsError(one_line(error)) from error
    log.info("serving sockets and requests; the agent is run by the workers on the same bus")
    return relay


def _arguments(values: dict[str, Any]) -> Options:
    """Those settings that `Relay` takes as arguments."""
    taken = {name: value for name, value in values.items() if settings.SETTINGS[name].is_argument}
    return cast(Options, taken)


def with_process(scope: Scope, receive: Receive, send: Send) -> Send:
    """The `send` of a lifespan, which also prepares the process at the start and flushes traces at the end.

    If the start fails, hypercorn would show a traceback: there the process ends here, with the message alone.

    For a server whose process is relay's own. In a host's process, this is for the host to decide.
    """

    async def tell(event: Event) -> None:
        if event["type"] == "lifespan.startup.complete":
            memory.settle()
            if sentence := advice(scope, receive):
                log.info("%s", sentence)
            is_guarded = any(map(os.environ.get, ("RELAY_SECRET", "RELAY_JWKS")))
            is_worker = os.environ.get("RELAY_ROLE") == "worker"  # which has nothing to guard
            if sentence := warning(receive, is_guarded=is_guarded or is_worker):
                log.warning("%s", sentence)
        else:
            await tracing.flush()
        if event["type"] == "lifespan.startup.failed" and receive.__module__.startswith("hypercorn."):
            with suppress(SettingsError):
                show_logs()
            log.error("%s", event["message"].removeprefix("relay: "))
            sys.stderr.flush()
            os._exit(STARTUP_FAILURE)
        await send(event)

    return tell
