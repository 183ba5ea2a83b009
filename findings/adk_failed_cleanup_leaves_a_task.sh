#!/usr/bin/env bash
# google-adk 2.13.0, google-genai 2.34.0: if the clean-up of a live run raises, the run leaves a task that never ends.
#
# Behaviour: `run_live` merges two streams of events with two tasks. Closing it early cancels and awaits the one,
#   then the other. If the first raises (here the agent's own `finally`), the second is neither canceled nor
#   awaited: it waits to put its last item into a queue that nobody reads any more.
# Output seen (two events wait behind the one that was read, then the run is closed):
#   the clean-up succeeds:   aclose() returns               0 tasks are left
#   the clean-up raises:     aclose() raises RuntimeError   1 task is left: _pump_queued_events
#   after gc.collect():      the event loop is told "Task was destroyed but it is pending!"
# Why it surprises: the exception arrives as it should, so everything looks cleaned up. The message about the task
#   comes later, from the garbage collector, and names neither the run nor the exception.
# For a relay: each of these runs keeps its session, its agent and its last events until the garbage collector finds
#   them, and a check that a stop leaves no task fails. Let no agent, tool or connection raise in its clean-up.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check google-adk==2.13.0 google-genai==2.34.0

cat >check.py <<'PYTHON'
import asyncio
import gc
import logging
from importlib.metadata import version

from google.adk.agents import BaseAgent, LiveRequestQueue
from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

logging.disable(logging.CRITICAL)


class Agent(BaseAgent):
    fails: bool

    async def _run_live_impl(self, ctx):
        content = types.Content(role="model", parts=[types.Part(text="hello")])
        try:
            for _ in range(3):
                yield Event(author=self.name, invocation_id=ctx.invocation_id, content=content)
            await asyncio.sleep(3600)
        finally:
            if self.fails:
                raise RuntimeError("the clean-up failed")


async def close_early(fails):
    """What closing the run raised, and the names of the tasks that it left."""
    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    runner = Runner(app_name="app", agent=Agent(name="agent", fails=fails), session_service=sessions)
    run = runner.run_live(
        user_id="user", session_id="session", live_request_queue=LiveRequestQueue(), run_config=RunConfig()
    )
    await anext(run)
    await asyncio.sleep(0.5)  # the work on this event; the next ones come meanwhile
    raised = None
    try:
        await run.aclose()
    except RuntimeError as error:
        raised = str(error)
    await asyncio.sleep(1)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return raised, [task.get_coro().__name__ for task in others]


async def main():
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
    gc.disable()  # so that the collection comes when this script asks for it
    succeeded, failed = await close_early(False), await close_early(True)
    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    print("the clean-up succeeds: raised and left", succeeded)
    print("the clean-up raises:   expected ('the clean-up failed', [])")
    print("                       seen    ", failed)
    gc.collect()
    print("after gc.collect(): expected [], seen", told)
    assert succeeded == (None, [])
    assert failed == ("the clean-up failed", ["_pump_queued_events"]), "the behaviour has changed"
    assert told == ["Task was destroyed but it is pending!"], "the behaviour has changed"


asyncio.run(main())
PYTHON
timeout 60 venv/bin/python -W ignore check.py
