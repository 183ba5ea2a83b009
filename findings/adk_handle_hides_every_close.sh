#!/usr/bin/env bash
# google-adk 2.13.0, google-genai 2.34.0: with a resumption handle no close of the service ends or reports anything.
#
# Behaviour: without a handle `run_live` ends quietly when the service closes with 1000, and raises APIError for
#   1011. Once the service has given a handle, both are swallowed and a new connection is opened at once: no pause,
#   no limit, no event that tells of it.
# Output seen (two seconds each, a service that closes each connection after the setup):
#   1000, no handle:   run_live ended, 1 connection        1000, with a handle: still running, 549 connections
#   1011, no handle:   APIError, 1 connection              1011, with a handle: still running, 524 connections
#   (the numbers of connections differ with the machine; more than 20 are asserted)
# Why it surprises: the same close is an end, an error or nothing at all, depending on a small message that the
#   service sent earlier. A client that retries is expected to wait longer each time and to give up.
# For a relay: during an outage each conversation calls the service without a break, and pays a TLS handshake and
#   a setup for each call. Count the connections of a run yourself and end it when they come too fast.
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
from importlib.metadata import version

import trustme
from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types
from google.genai.errors import APIError
from websockets.asyncio.server import serve

logging.disable(logging.CRITICAL)


async def try_for_two_seconds(context, code, handle):
    connections = 0

    async def closes(websocket):
        nonlocal connections
        connections += 1
        await websocket.recv()
        await websocket.send(json.dumps({"setupComplete": {}}))
        if handle:
            update = {"newHandle": "a-handle", "resumable": True}
            await websocket.send(json.dumps({"sessionResumptionUpdate": update}))
        await websocket.close(code)

    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    runner = Runner(app_name="app", agent=LlmAgent(name="agent", model="gemini-3.8-live"), session_service=sessions)
    config = RunConfig(response_modalities=["AUDIO"], session_resumption=types.SessionResumptionConfig())
    other_events = 0
    async with serve(closes, "127.0.0.1", 0, ssl=context) as server:
        os.environ["GOOGLE_GEMINI_BASE_URL"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            async with asyncio.timeout(2):
                async for event in runner.run_live(
                    user_id="user", session_id="session", live_request_queue=LiveRequestQueue(), run_config=config
                ):
                    other_events += not event.live_session_resumption_update
            outcome = "run_live ended"
        except TimeoutError:
            outcome = "still running"
        except APIError:
            outcome = "APIError"
    print(f"{code}, {'with a' if handle else 'no'} handle: {outcome}, {connections} connections, "
          f"{other_events} events besides the service's own updates")
    return outcome, connections, other_events


async def main():
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    os.environ.update(SSL_CERT_FILE="ca.pem", GOOGLE_API_KEY="none", GOOGLE_GENAI_USE_VERTEXAI="false")
    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    print("expected: the same outcome with and without a handle, or a few attempts with growing pauses")
    assert await try_for_two_seconds(context, 1000, False) == ("run_live ended", 1, 0)
    assert await try_for_two_seconds(context, 1011, False) == ("APIError", 1, 0)
    for code in (1000, 1011):
        outcome, connections, events = await try_for_two_seconds(context, code, True)
        assert outcome == "still running" and connections > 20 and events == 0, "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
