#!/usr/bin/env bash
# google-adk 2.13.0, google-genai 2.34.0: after a goAway the model does not know what was just said.
#
# Behaviour: a live service announces the end of a connection with goAway (about every ten minutes). Without session
#   resumption, `run_live` opens a new connection by itself and gives the model the history as it was when the
#   run began. The session service has every turn since then; the new connection gets none of them.
# Output seen: stored in the session before goAway: user "My name is Ann.", agent "Hello Ann."
#              the new connection's first message after the setup: "What is my name?"
#              the first message of a new run on the same session: client_content with both earlier turns
# Why it surprises: ADK sends the history at the start of a run, it has the turns, and nothing is reported: to
#   whoever iterates over the events the connection never changed, but the model has lost its memory.
# For a relay: switch session resumption on, or end the run at goAway and start another, which reads the session anew.
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
from websockets.asyncio.server import serve

logging.disable(logging.CRITICAL)
connections = []  # for each connection the messages that the model got after the setup
answered, changed = asyncio.Event(), asyncio.Event()


async def model(websocket):
    """Answers the first text, then says goAway once the answer has been stored."""
    await websocket.recv()
    got = []
    connections.append(got)
    changed.set()
    await websocket.send(json.dumps({"setupComplete": {}}))
    async for message in websocket:
        got.append(json.loads(message))
        changed.set()
        if len(connections) == 1:
            await websocket.send(json.dumps({"serverContent": {"outputTranscription": {"text": "Hello Ann."}}}))
            await websocket.send(json.dumps({"serverContent": {"turnComplete": True}}))
            await answered.wait()
            await websocket.send(json.dumps({"goAway": {"timeLeft": "10s"}}))


async def until(condition):
    while not condition():
        changed.clear()
        await changed.wait()


def said(text):
    return types.Content(role="user", parts=[types.Part(text=text)])


async def main():
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    os.environ.update(SSL_CERT_FILE="ca.pem", GOOGLE_API_KEY="none", GOOGLE_GENAI_USE_VERTEXAI="false")
    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", user_id="user", session_id="session")
    runner = Runner(app_name="app", agent=LlmAgent(name="agent", model="gemini-3.8-live"), session_service=sessions)
    config = RunConfig(response_modalities=["AUDIO"], output_audio_transcription=types.AudioTranscriptionConfig())

    def start():
        queue = LiveRequestQueue()
        events = runner.run_live(user_id="user", session_id="session", live_request_queue=queue, run_config=config)

        async def consume():
            async for event in events:
                if event.turn_complete:
                    answered.set()

        return queue, asyncio.create_task(consume())

    async with serve(model, "127.0.0.1", 0, ssl=context) as server:
        os.environ["GOOGLE_GEMINI_BASE_URL"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        queue, run = start()
        queue.send_content(said("My name is Ann."))
        await until(lambda: len(connections) == 2)
        session = await sessions.get_session(app_name="app", user_id="user", session_id="session")
        stored = [
            (event.author, event.content.parts[0].text if event.content else event.output_transcription.text)
            for event in session.events
            if event.content or event.output_transcription
        ]
        queue.send_content(said("What is my name?"))
        await until(lambda: connections[1])
        run.cancel()
        await asyncio.wait([run])
        _, run = start()
        await until(lambda: len(connections) == 3 and connections[2])
        run.cancel()
        await asyncio.wait([run])

    print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
    print("stored in the session before goAway:", stored)
    print("expected on the new connection: these turns, then the question")
    print("seen on the new connection:    ", json.dumps(connections[1]))
    print("seen by a new run, to compare: ", json.dumps(connections[2]))
    assert stored[:2] == [("user", "My name is Ann."), ("agent", "Hello Ann.")]
    assert "What is my name?" in json.dumps(connections[1])
    assert "Ann" not in json.dumps(connections[1]), "the behaviour has changed"
    assert "My name is Ann." in json.dumps(connections[2]) and "Hello Ann." in json.dumps(connections[2])


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
