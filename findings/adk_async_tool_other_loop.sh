#!/usr/bin/env bash
# google-adk 2.13.0, google-genai 2.34.0: with a thread pool for blocking tools, `async` tools leave the event loop too.
#
# Behaviour: `RunConfig.tool_thread_pool_config` is there so that a blocking tool does not stop the event loop.
#   In live mode it moves every function tool: an `async def` one runs in a worker thread, in an event loop
#   of its own. What belongs to the program's loop does not work there.
# Output seen for a tool that awaits a future of the program:
#   no thread pool: main thread, the program's loop; the model gets {"answer": 42}
#   thread pool:    thread adk_tool_executor_0, another loop; run_live raises RuntimeError, "got Future <Future
#                   pending> attached to a different loop", and the run is over
# Why it surprises: an `async` tool needs no thread, ADK's own description of the setting speaks of synchronous
#   callables, and the option changes code that it was not meant for.
# For a relay: an asyncio queue, lock, future, HTTP client or database pool made by the server cannot be used in an
#   async tool once the option is set, and without it one blocking tool freezes every socket. Leave it unset and
#   move blocking work away with `asyncio.to_thread` inside the tool.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check google-adk==2.13.0 google-genai==2.34.0 websockets==15.0.1 trustme==1.2.1

cat >check.py <<'PYTHON'
import asyncio
import json
import logging
import os
import ssl
import threading
from importlib.metadata import version

import trustme
from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.agents.run_config import RunConfig, ToolThreadPoolConfig
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from websockets.asyncio.server import serve

logging.disable(logging.CRITICAL)


async def call_tool(context, pool):
    """Where the tool ran, and what the model was told, or what ended the run."""
    program = asyncio.get_running_loop()
    where = []
    told = program.create_future()

    async def ask_the_program() -> dict:
        """Asks the program."""
        where.append((threading.current_thread().name, asyncio.get_running_loop() is program))
        answer = program.create_future()
        program.call_soon_threadsafe(program.call_later, 0.1, answer.set_result, 42)
        return {"answer": await answer}

    async def model(websocket):
        await websocket.recv()
        await websocket.send(json.dumps({"setupComplete": {}}))
        call = {"id": "1", "name": "ask_the_program", "args": {}}
        await websocket.send(json.dumps({"toolCall": {"functionCalls": [call]}}))
        response = json.loads(await websocket.recv())
        told.set_result(str(response["tool_response"]["functionResponses"][0]["response"]))
        await websocket.wait_closed()

    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    agent = LlmAgent(name="agent", model="gemini-3.8-live", tools=[ask_the_program])
    runner = Runner(app_name="app", agent=agent, session_service=sessions)
    config = RunConfig(response_modalities=["AUDIO"], tool_thread_pool_config=pool)

    async def run():
        try:
            async for _ in runner.run_live(
                user_id="user", session_id="session", live_request_queue=LiveRequestQueue(), run_config=config
            ):
                pass
        except Exception as error:
            if not told.done():
                told.set_result(f"run_live raised {error!r}")

    async with serve(model, "127.0.0.1", 0, ssl=context) as server:
        os.environ["GOOGLE_GEMINI_BASE_URL"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running = asyncio.create_task(run())
        result = await asyncio.wait_for(told, 15)
        running.cancel()
        await asyncio.wait([running])
    thread, same = where[0]
    return f"{thread}, {'own' if same else 'another'} loop", result


async def main():
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    os.environ.update(SSL_CERT_FILE="ca.pem", GOOGLE_API_KEY="none", GOOGLE_GENAI_USE_VERTEXAI="false")
    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    plain = await call_tool(context, None)
    print("no thread pool:", *plain, sep=" | ")
    print("thread pool:     expected the same for an async tool")
    pooled = await call_tool(context, ToolThreadPoolConfig())
    print("thread pool:   ", *pooled, sep=" | ")
    assert plain == ("MainThread, own loop", "{'answer': 42}")
    assert pooled[0].startswith("adk_tool_executor") and pooled[0].endswith("another loop"), "the behaviour has changed"
    assert "attached to a different loop" in pooled[1]


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
