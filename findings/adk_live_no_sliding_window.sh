#!/usr/bin/env bash
# google-adk 2.13.0: in live mode a session is compacted by its tokens, and never by its number of invocations.
#
# Behaviour: `EventsCompactionConfig` of an `App` has two triggers. `run_async` obeys both. `run_live` looks at
#   `token_threshold` when a run begins, and never at `compaction_interval`, although each live run is an invocation.
# Output seen after four invocations with the same texts, answers and summarizer:
#   compaction_interval=2, run_async: 2 summaries in the session; the fifth request has 3 contents
#   compaction_interval=2, run_live:  0 summaries; the fifth connection gets all 9 contents
#   token_threshold=50,    run_live:  3 summaries; the fifth connection gets 3 contents
#   Then one run_async on the session of the live runs with the interval: 1 summary
# Why it surprises: the documentation says that this compaction runs in the `Runner` "after each invocation completes".
#   The two triggers stand in one configuration, half of it works in live mode, and nothing is logged.
# For a relay: with the interval alone, each run without a resumption handle sends the whole history, for as long as the
#   session lives. Use `token_threshold` with `event_retention_size`, which begins a run with a summary.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check google-adk==2.13.0 google-genai==2.34.0

cat >check.py <<'PYTHON'
import asyncio
import logging
from contextlib import aclosing, asynccontextmanager
from importlib.metadata import version

from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.apps.app import App, EventsCompactionConfig
from google.adk.apps.base_events_summarizer import BaseEventsSummarizer
from google.adk.events import Event, EventActions
from google.adk.events.event_actions import EventCompaction
from google.adk.models.base_llm import BaseLlm
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

logging.disable(logging.CRITICAL)
given = []  # how many contents each request or connection had


def content(role, text):
    return types.Content(role=role, parts=[types.Part(text=text)])


def answer():
    return LlmResponse(content=content("model", "An answer, and more of it. " * 10), turn_complete=True)


class Connection(BaseLlmConnection):
    def __init__(self):
        self.responses = asyncio.Queue()

    async def send_history(self, history):
        pass

    async def send_content(self, content):
        given[-1] += 1
        self.responses.put_nowait(answer())

    async def send_realtime(self, blob):
        raise AssertionError("no sound is sent")

    async def receive(self):
        if response := await self.responses.get():
            yield response

    async def close(self):
        self.responses.put_nowait(None)


class Model(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        given.append(len(llm_request.contents))
        yield answer()

    @asynccontextmanager
    async def connect(self, llm_request):
        given.append(len(llm_request.contents))
        yield Connection()


class Summarizer(BaseEventsSummarizer):
    async def maybe_summarize_events(self, *, events):
        compaction = EventCompaction(
            start_timestamp=events[0].timestamp,
            end_timestamp=events[-1].timestamp,
            compacted_content=content("model", "A summary."),
        )
        return Event(author="user", invocation_id=Event.new_id(), actions=EventActions(compaction=compaction))


async def invoke(runner, live):
    text = content("user", "A question, and more of it. " * 10)
    if live:
        queue = LiveRequestQueue()
        queue.send_content(text)
        events = runner.run_live(user_id="user", session_id="session", live_request_queue=queue)
    else:
        events = runner.run_async(user_id="user", session_id="session", new_message=text)
    async with aclosing(events):
        async for event in events:
            if live and event.turn_complete:
                queue.close()


async def measure(live, **trigger):
    """The numbers of summaries after four invocations, and of contents given with the fifth; the runner."""
    given.clear()
    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    app = App(
        name="app",
        root_agent=LlmAgent(name="agent", model=Model(model="model")),
        events_compaction_config=EventsCompactionConfig(summarizer=Summarizer(), **trigger),
    )
    runner = Runner(app=app, session_service=sessions)
    for _ in range(4):
        await invoke(runner, live)
    made = len(await summaries(sessions))
    await invoke(runner, live)
    return made, given[-1], runner


async def summaries(sessions):
    session = await sessions.get_session(app_name="app", user_id="user", session_id="session")
    return [event for event in session.events if event.actions.compaction]


async def main():
    interval = {"compaction_interval": 2, "overlap_size": 0}
    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    print("summaries after 4 invocations, and contents that are given to the model with the fifth:")
    made, contents, _ = await measure(live=False, **interval)
    print(f"compaction_interval=2, run_async: {made}, {contents}")
    print(f"compaction_interval=2, run_live:  expected: {made}, {contents}")
    live_made, live_contents, runner = await measure(live=True, **interval)
    print(f"compaction_interval=2, run_live:  {live_made}, {live_contents}")
    token_made, token_contents, _ = await measure(live=True, token_threshold=50, event_retention_size=1)
    print(f"token_threshold=50,    run_live:  {token_made}, {token_contents}")
    await invoke(runner, live=False)
    later = len(await summaries(runner.session_service))
    print(f"then run_async once on the session of run_live with the interval: {later} summary")
    assert (made, contents) == (2, 3)
    assert (live_made, live_contents) == (0, 9), "the behaviour has changed"
    assert (token_made, token_contents) == (3, 3)
    assert later == 1


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
