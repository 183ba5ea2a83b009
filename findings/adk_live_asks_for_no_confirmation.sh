#!/usr/bin/env bash
# google-adk 2.13.0: in live mode a tool that needs a confirmation is refused, and nobody is asked.
#
# Behaviour: a tool with `require_confirmation=True` waits for a user. `run_async` yields an event that asks (a call of
#   `adk_request_confirmation`) and does not call the model before the answer is there. `run_live` yields no such
#   event and gives the model the tool's interim error as the result of the call.
# Output seen, for the same agent and the same call of the model:
#   run_async: yields delete_file, adk_request_confirmation; the model is told nothing
#   run_live:  yields delete_file; the model is told {"error": "This tool call requires confirmation, please approve or
#              reject."}
#   both:      the event with the response has the request in `actions.requested_tool_confirmations`
# Why it surprises: the option belongs to the tool, not to a mode. Live mode keeps the tool from running, but nobody is
#   asked: the program has no call to answer, and the model takes the call for one that has failed.
# For a relay: look for `actions.requested_tool_confirmations` in each event of a live run, and ask the user yourself.
#   Store the request in the session, and give the answer to a new run.
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
from google.adk.models.base_llm import BaseLlm
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.adk.tools import FunctionTool
from google.genai import types

logging.disable(logging.CRITICAL)
ASKED = types.Content(role="user", parts=[types.Part(text="Delete a.txt.")])
CALL = types.FunctionCall(id="1", name="delete_file", args={"name": "a.txt"})
told, ran = [], []


def answer(content):
    """The model's next response: it calls the tool once, and keeps what it is told of it."""
    results = [part.function_response for part in content.parts if part.function_response]
    told.extend(result.response for result in results)
    part = types.Part(text="Well.") if results else types.Part(function_call=CALL)
    return LlmResponse(content=types.Content(role="model", parts=[part]), turn_complete=bool(results))


class Connection(BaseLlmConnection):
    def __init__(self):
        self.responses = asyncio.Queue()

    async def send_history(self, history):
        raise AssertionError("the session is new")

    async def send_content(self, content):
        self.responses.put_nowait(answer(content))

    async def send_realtime(self, blob):
        raise AssertionError("no sound is sent")

    async def receive(self):
        yield await self.responses.get()

    async def close(self):
        pass


class Model(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        yield answer(llm_request.contents[-1])

    @asynccontextmanager
    async def connect(self, llm_request):
        yield Connection()


def delete_file(name: str) -> dict:
    """Deletes a file."""
    ran.append(name)
    return {"deleted": name}


async def call_tool(live):
    """The calls in the events, what the model was told, and whether an event holds the request."""
    told.clear()
    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    agent = LlmAgent(
        name="agent", model=Model(model="model"), tools=[FunctionTool(delete_file, require_confirmation=True)]
    )
    runner = Runner(app_name="app", agent=agent, session_service=sessions)
    if live:
        queue = LiveRequestQueue()
        queue.send_content(ASKED)
        events = runner.run_live(user_id="user", session_id="session", live_request_queue=queue)
    else:
        events = runner.run_async(user_id="user", session_id="session", new_message=ASKED)
    calls, requests = [], []
    async with aclosing(events):
        async for event in events:
            calls += [call.name for call in event.get_function_calls()]
            requests += event.actions.requested_tool_confirmations
            if event.turn_complete:
                break
    return calls, list(told), requests


async def main():
    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    calls, results, requests = await call_tool(live=False)
    print("run_async: the calls yielded:", calls, "the model is told:", results)
    live_calls, live_results, live_requests = await call_tool(live=True)
    print("run_live:  expected: the same")
    print("run_live:  the calls yielded:", live_calls, "the model is told:", live_results)
    print("the request in the actions of the event, run_async:", requests, "run_live:", live_requests)
    assert calls == ["delete_file", "adk_request_confirmation"] and results == []
    assert live_calls == ["delete_file"], "the behaviour has changed"
    assert "requires confirmation" in live_results[0]["error"], "the behaviour has changed"
    assert requests == live_requests == ["1"]
    assert not ran


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
