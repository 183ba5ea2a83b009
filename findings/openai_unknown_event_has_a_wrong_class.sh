#!/usr/bin/env bash
# openai 3.57.0 (Python): an event that the SDK does not know arrives as a `ConversationCreatedEvent`.
#
# Behaviour: the SDK makes an event of an unknown `type` with the first class of its union, without checks. What came is
#   in it, and what the class promises besides is None.
# Output seen with `client.realtime.connect()`:
#   session.created                   SessionCreatedEvent
#   response.output_text.delta        ResponseTextDeltaEvent
#   response.text.delta (beta name)   ConversationCreatedEvent, event.conversation is None
#   example.news                      ConversationCreatedEvent, event.conversation is None
# Why it surprises: a client that tells events apart with `isinstance` or `match`, as the type hints suggest, takes each
#   unknown event for the begin of a conversation. By those hints `conversation` is never None, and `type` is a literal.
# For a relay: clients that look at the class go wrong at events that the API does not have, and at the beta's names:
#   send neither unasked. A relay that reads a service with this SDK has to look at `event.type`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check openai==3.57.0 websockets==17.4

cat >check.py <<'PYTHON'
import asyncio
import json
from importlib.metadata import version

from openai import AsyncOpenAI
from openai.types.realtime import ConversationCreatedEvent
from websockets.asyncio.server import serve

DELTA = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0, "delta": "Hello"}
EVENTS = [
    {"type": "session.created", "session": {"type": "realtime"}},
    {"type": "response.output_text.delta", **DELTA},
    {"type": "response.text.delta", **DELTA},
    {"type": "example.news", "text": "Hello"},
]


async def service(websocket):
    for event in EVENTS:
        await websocket.send(json.dumps({"event_id": "event", **event}))


async def main():
    print("openai", version("openai"))
    print("expected: a ConversationCreatedEvent only for conversation.created")
    classes = []
    async with serve(service, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = AsyncOpenAI(api_key="none", websocket_base_url=url)
        async with client.realtime.connect(model="model") as connection:
            async for event in connection:
                classes.append(type(event).__name__)
                print(f"seen:     {classes[-1]} for {event.type}")
                if isinstance(event, ConversationCreatedEvent):
                    assert event.conversation is None, "the behaviour has changed"
    unknown = ["ConversationCreatedEvent"] * 2
    assert classes == ["SessionCreatedEvent", "ResponseTextDeltaEvent", *unknown], "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 30))
PYTHON
timeout 60 venv/bin/python check.py
