#!/usr/bin/env bash
# google-adk 2.13.0, google-genai 2.34.0: in live mode, taking back the last question takes back the whole run.
#
# Behaviour: `Runner.rewind_async(rewind_before_invocation_id=…)` takes back an invocation and all after it. A live run
#   is one invocation from its first question to its last: all its events have one id.
# Output seen: three questions of one `run_live` have one invocation id. After a rewind to before the third one, the
#   next connection is told nothing of the first two either.
# Why it surprises: without live mode each question is an invocation, and a rewind takes back what its name says. A
#   user who edits the last message of a live conversation loses all that was said since the model was connected.
# For a relay: mark in the session from which event on nothing counts, and give the model the history without it.
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

WHOSE = {"user_id": "user", "session_id": "session"}


def turns_of(message):
    """The turns in a client's message, as (role, text)."""
    content = message.get("client_content", {})
    turns = [(turn["role"], part["text"]) for turn in content.get("turns", []) for part in turn["parts"]]
    text = message.get("realtime_input", {}).get("text")
    return turns + ([("user", text)] if text else [])


async def main():
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    os.environ.update(SSL_CERT_FILE="ca.pem", GOOGLE_API_KEY="none", GOOGLE_GENAI_USE_VERTEXAI="false")
    histories = []  # of each connection: the turns that came with its first message

    async def model(websocket):
        await websocket.recv()
        await websocket.send(json.dumps({"setupComplete": {}}))
        told = []
        histories.append(told)
        async for message in websocket:
            if turns := turns_of(json.loads(message)):
                told += turns
                content = {"outputTranscription": {"text": f"Answer to {turns[-1][1]}.", "finished": True}}
                await websocket.send(json.dumps({"serverContent": content}))
                await websocket.send(json.dumps({"serverContent": {"turnComplete": True}}))

    sessions = InMemorySessionService()
    await sessions.create_session(app_name="app", **WHOSE)
    runner = Runner(
        app_name="app", agent=LlmAgent(name="agent", model="gemini-3.8-live"), session_service=sessions
    )
    config = RunConfig(response_modalities=["AUDIO"], output_audio_transcription=types.AudioTranscriptionConfig())

    async def ask(*questions):
        """One run with these questions, each asked when the one before is answered."""
        queue = LiveRequestQueue()
        waiting = list(questions)

        def next_one():
            text = waiting.pop(0)
            queue.send_content(types.Content(role="user", parts=[types.Part(text=text)]))

        next_one()
        async for event in runner.run_live(**WHOSE, live_request_queue=queue, run_config=config):
            if event.turn_complete:
                if not waiting:
                    break
                next_one()

    async with serve(model, "127.0.0.1", 0, ssl=context) as server:
        os.environ["GOOGLE_GEMINI_BASE_URL"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        print("google-adk", version("google-adk"), "google-genai", version("google-genai"))
        await ask("one", "two", "three")
        session = await sessions.get_session(app_name="app", **WHOSE)
        asked = {e.content.parts[0].text: e.invocation_id for e in session.events if e.author == "user" and e.content}
        print("questions:", *asked, "| different invocation ids:", len(set(asked.values())))
        await runner.rewind_async(**WHOSE, rewind_before_invocation_id=asked["three"])
        await ask("four")
        print("after the third question was taken back, the next connection is told:")
        print("  expected: one and two with their answers, then four")
        print("  seen:    ", histories[-1])
        assert list(asked) == ["one", "two", "three"]
        assert len(set(asked.values())) == 1, "the behaviour has changed"
        assert histories[-1] == [("user", "four")], "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 50))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
