#!/usr/bin/env bash
# google-adk 2.13.0: in live mode the late result of a long-running tool reaches the model and no session.
#
# Behaviour: a `LongRunningFunctionTool` that returns None answers its call later: the program sends a `function_response`
#   with the call's id. In both modes the model is told nothing before. `run_async` stores the response in the session.
#   `run_live`, which gets it through its queue, passes it to the model and does not store it.
# Output seen, for a question, a call, its late result and the model's answer:
#   run_async: the session has text, call, result, text; the next request begins with all four
#   run_live:  the session has text, call, text; the next run's history has a call without a result
# Why it surprises: the docstring of `run_live` says of function calls and responses "Always saved", and a text that is
#   sent through the same queue is stored. The model has used the result: its answer stands in the session.
# For a relay: after the next reconnection without a handle the call looks open, and the model does not know what it was
#   told. Store the result as an event of the user, and let a new run begin with it.
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
from google.adk.tools import LongRunningFunctionTool
from google.genai import types

logging.disable(logging.CRITICAL)
told, histories = [], []  # the results that the model was told; what each request or connection began with


def kind(part):
    return "call" if part.function_call else "result" if part.function_response else "text"


def content(role, **part):
    return types.Content(role=role, parts=[types.Part(**part)])


QUESTION = content("user", text="May I have a day off?")
CALL = types.FunctionCall(id="1", name="ask_the_boss", args={})
RESULT = content(
    "user", function_response=types.FunctionResponse(id="1", name="ask_the_boss", response={"answer": "yes"})
)


def answer(given):
    """The model's next response. It calls the tool for the question, and answers everything else."""
    results = [part.function_response.response for part in given.parts if part.function_response]
    told.extend(results)
    if given.parts[0].text == QUESTION.parts[0].text:
        return LlmResponse(content=content("model", function_call=CALL))
    return LlmResponse(content=content("model", text="Yes."), turn_complete=True)


class Connection(BaseLlmConnection):
    def __init__(self):
        self.responses = asyncio.Queue()

    async def send_history(self, history):
        pass

    async def send_content(self, content):
        self.responses.put_nowait(answer(content))

    async def send_realtime(self, blob):
        raise AssertionError("no sound is sent")

    async def receive(self):
        if response := await self.responses.get():
            yield response

    async def close(self):
        self.responses.put_nowait(None)


class Model(BaseLlm):
    async def generate_content_async(self, llm_request, stream=False):
        histories.append([kind(part) for content in llm_request.contents for part in content.parts])
        yield answer(llm_request.contents[-1])

    @asynccontextmanager
    async def connect(self, llm_request):
        histories.append([kind(part) for content in llm_request.contents for part in content.parts])
        yield Connection()


def ask_the_boss() -> None:
    """Asks the boss, who answers later."""


async def converse(live):
    told.clear()
    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    agent = LlmAgent(name="agent", model=Model(model="model"), tools=[LongRunningFunctionTool(ask_the_boss)])
    runner = Runner(app_name="app", agent=agent, session_service=sessions)

    async def live_run(*contents):
        queue = LiveRequestQueue()
        contents = list(contents)
        queue.send_content(contents.pop(0))
        events = runner.run_live(user_id="user", session_id="session", live_request_queue=queue)
        async with aclosing(events):
            async for event in events:
                if event.get_function_calls():
                    queue.send_content(contents.pop(0))
                elif event.turn_complete:
                    queue.close()

    async def turn(content):
        async for _ in runner.run_async(user_id="user", session_id="session", new_message=content):
            pass

    if live:
        await live_run(QUESTION, RESULT)
    else:
        await turn(QUESTION)
        await turn(RESULT)
    session = await sessions.get_session(app_name="app", user_id="user", session_id="session")
    stored = [kind(part) for event in session.events if event.content for part in event.content.parts]
    thanks = content("user", text="Thank you.")
    await (live_run(thanks) if live else turn(thanks))
    return list(told), stored, histories[-1]


async def main():
    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    results, stored, history = await converse(live=False)
    print("run_async: the model is told:", results)
    print("run_async: in the session:", stored, "in the next request:", history)
    live_results, live_stored, live_history = await converse(live=True)
    print("run_live:  the model is told:", live_results)
    print("run_live:  expected in the session:", stored)
    print("run_live:  in the session:", live_stored, "in the next run's history:", live_history)
    assert results == live_results == [{"answer": "yes"}]
    assert stored == ["text", "call", "result", "text"] and history == [*stored, "text"]
    assert live_stored == ["text", "call", "text"], "the behaviour has changed"
    assert live_history == live_stored


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
