"""Starts: conversations that start at once take turns, so that nobody else waits for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.models import Gemini
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

from adk_relay.adk.credentials import missing_credentials
from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.core.logs import failure

log = logging.getLogger("relay.agent")

_APART = 4
"""Turns of the event loop between two starts. The work of one start is spread over some more."""


class Starts:
    """Lets conversations start one by one.

    A start is some milliseconds of work in a few pieces: the session is read, ADK makes the model's request,
    and google-genai connects. Between two pieces the event loop serves others, but only if thirty starts do
    not all have their pieces in the same turn of the loop.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def wait(self) -> None:
        """Waits for a start's turn; that of the first comes at once."""
        async with self._turn:
            for _ in range(_APART):
                await asyncio.sleep(0)


async def prepare(agent: BaseAgent) -> None:
    """Does, when the server starts, what the first conversation would have to wait for.

    In its first run ADK imports 360 modules: a fifth of a second without the event loop. So there is a run
    of the offline model. google-genai makes its validators when they are first used. And each model of Gemini
    makes its client for this event loop, with a TLS context.
    What fails here fails again in the first conversation, and is told there.
    """
    try:
        await _rehearse()
        for kind in (types.LiveServerMessage, types.LiveConnectParameters, types.LiveClientContent):
            kind.model_rebuild()
        for model in _models(agent):
            # Without a key, google-genai would also leave a task behind that fails.
            if model.client or model.client_kwargs or not missing_credentials():
                getattr(model, "_live_api_client", None)
    except Exception as error:
        log.debug("the first conversation will start late: %s", failure(error))


async def _rehearse() -> None:
    sessions = InMemorySessionService()
    runner = Runner(
        app_name="rehearsal", agent=LlmAgent(name="rehearsal", model=Rehearsal()), session_service=sessions
    )
    session = await sessions.create_session(app_name=runner.app_name, user_id="nobody")
    queue = LiveRequestQueue()
    queue.close()
    run = runner.run_live(user_id="nobody", session_id=session.id, live_request_queue=queue)
    async with aclosing(run):
        async for _ in run:
            pass


def _models(agent: BaseAgent) -> Iterator[Gemini]:
    pending = [agent]
    while pending:
        each = pending.pop()
        pending += each.sub_agents
        if isinstance(each, LlmAgent) and isinstance(each.model, Gemini):
            yield each.model
