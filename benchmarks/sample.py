"""What ADK's custom-streaming sample does, written anew: JSON texts with base64, one task for each direction.

The page of that sample sends what its recorder gives it, frames of 8 ms.
"""

from __future__ import annotations

import asyncio
import base64
import json
from uuid import uuid4

from google.adk.agents import LlmAgent
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.agents.run_config import RunConfig
from google.adk.runners import InMemoryRunner
from google.genai import types
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

PAGE_MS = 8

_NAME = "sample"


def sample(agent: LlmAgent) -> Starlette:
    """The application; its clients connect to /sample/USER."""
    runner = InMemoryRunner(agent, app_name=_NAME)

    async def serve(websocket: WebSocket) -> None:
        await websocket.accept()
        user, session = websocket.path_params["user"], str(uuid4())
        await runner.session_service.create_session(app_name=_NAME, user_id=user, session_id=session)
        queue = LiveRequestQueue()
        config = RunConfig(
            response_modalities=[types.Modality.AUDIO], session_resumption=types.SessionResumptionConfig()
        )
        down = asyncio.create_task(_down(websocket, runner, queue, config, user, session))
        up = asyncio.create_task(_up(websocket, queue))
        await asyncio.wait([down, up], return_when=asyncio.FIRST_COMPLETED)
        queue.close()
        down.cancel()
        up.cancel()
        await asyncio.gather(down, up, return_exceptions=True)

    return Starlette(routes=[WebSocketRoute("/sample/{user}", serve)])


async def _down(
    websocket: WebSocket,
    runner: InMemoryRunner,
    queue: LiveRequestQueue,
    config: RunConfig,
    user: str,
    session: str,
) -> None:
    """What the agent says, to the client."""
    events = runner.run_live(user_id=user, session_id=session, live_request_queue=queue, run_config=config)
    async for event in events:
        if event.turn_complete or event.interrupted:
            ends = {"turn_complete": bool(event.turn_complete), "interrupted": bool(event.interrupted)}
            await websocket.send_text(json.dumps(ends, separators=(",", ":")))
            continue
        part = event.content.parts[0] if event.content and event.content.parts else None
        if part and part.inline_data and part.inline_data.data:
            data = base64.b64encode(part.inline_data.data).decode("ascii")
            await websocket.send_text(json.dumps({"mime_type": "audio/pcm", "data": data}))
        elif part and part.text and event.partial:
            await websocket.send_text(json.dumps({"mime_type": "text/plain", "data": part.text}))


async def _up(websocket: WebSocket, queue: LiveRequestQueue) -> None:
    """What the client says, to the agent."""
    try:
        while True:
            message = json.loads(await websocket.receive_text())
            if message["mime_type"] == "text/plain":
                part = types.Part(text=message["data"])
                queue.send_content(types.Content(role="user", parts=[part]))
            else:
                pcm = base64.b64decode(message["data"])
                queue.send_realtime(types.Blob(data=pcm, mime_type="audio/pcm;rate=16000"))
    except WebSocketDisconnect:
        pass
