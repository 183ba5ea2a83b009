"""What `uvicorn relay:app` and `relay serve` do: configure a relay, and its process, by the environment."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from adk_relay import memory, settings, tracing
from adk_relay.advice import advice, warning
from adk_relay.core.logs import one_line
from adk_relay.settings import SettingsError
from adk_relay.show_logs import show_logs
from adk_relay.wire.asgi import Event, Receive, Scope, Send

if TYPE_CHECKING:
    from relay import Relay

log = logging.getLogger("relay")


def relay_from_environment(make: type[Relay]) -> Relay:
    """Makes a relay of the agent and the settings that the RELAY_… variables name. See `Relay.from_env`.

    Args:
        make: the class `Relay`, or a host's own class derived from it.

    Raises:
        SettingsError: a variable is wrong, or the agent needs credentials and there are none.
    """
    # Imported here and not at the top: importing ADK is slow, and `import relay` must be fast.
    from adk_relay.adk.credentials import missing_credentials
    from adk_relay.adk.models import run_config
    from adk_relay.agents import agent_to_serve

    settings.load_env_files(Path.cwd())
    show_logs()
    tracing.export_traces()
    values = settings.from_environment()
    is_chosen = values.get("model") == "rehearsal"
    agent, file, origin = agent_to_serve(values.get("agent"), Path.cwd(), with_rehearsal=is_chosen)
    arguments = {name: value for name, value in values.items() if settings.SETTINGS[name].is_argument}
    config = run_config(values.get("voice"), values.get("language"))
    try:
        relay = make(agent, run_config=config, **arguments)
    except (TypeError, ValueError, OSError) as error:
        where = f"{origin}: " if isinstance(error, TypeError) else ""
        raise SettingsError(where + one_line(error)) from error
    log.info("serving the agent %s, from %s", agent.name, file)
    if relay.conversations.is_rehearsal:
        why = "RELAY_MODEL selects it." if is_chosen else missing_credentials()
        why = why or "The agent itself has this model."
        log.warning("This is the rehearsal agent, which only repeats what it hears. %s", why)
    return relay


def with_process(scope: Scope, receive: Receive, send: Send) -> Send:
    """The `send` of a lifespan, which also prepares the process at the start and flushes traces at the end.

    For a server whose process is relay's own. In a host's process, this is for the host to decide.
    """

    async def tell(event: Event) -> None:
        if event["type"] == "lifespan.startup.complete":
            memory.settle()
            if sentence := advice(scope, receive):
                log.info("%s", sentence)
            guard = ("RELAY_SECRET", "RELAY_JWKS")
            if sentence := warning(receive, is_guarded=any(map(os.environ.get, guard))):
                log.warning("%s", sentence)
        else:
            await tracing.flush()
        await send(event)

    return tell
