"""Lesson 2: nothing is left behind, neither by a client that leaves nor by a server that stops.

There are three ends. A client leaves: `receive()` gives `websocket.disconnect`, once, and the coroutine has
to return. A client leaves while something is sent to it: `send` raises an OSError (ASGI 2.4). The server
stops: it tells the application so with a third type of scope, the lifespan.

    uvicorn lessons.l2_lifecycle:app
    python -m websockets ws://127.0.0.1:8000/ws/ann     (then press Ctrl-C at the server: it ends at once)

What still breaks: nothing, but there is nobody to talk to. The echo answers a frame with a frame, one
after the other; an agent speaks when it wants to, while the client speaks, too.
In full: relay.py, adk_relay/wire/websocket.py.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

FILES = {f"/{file.name}": file.read_bytes() for file in Path(__file__).parent.iterdir() if file.is_file()}

sockets: set[Any] = set()  # the `send` of each WebSocket that is open


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await http(scope, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    elif scope["type"] == "lifespan":
        await lifespan(receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    """One call for the whole life of the server: it begins before the first connection."""
    await receive()  # lifespan.startup
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    # uvicorn has closed all WebSockets by now. A program that has this application as one of its parts may
    # stop it while they are open. There is a time limit, because a client may have stopped reading.
    close = {"type": "websocket.close", "code": 1001, "reason": "the server is stopping"}
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            for send_to_client in [*sockets]:
                with suppress(OSError):  # this client has left; the others are told
                    await send_to_client(close)
    await send({"type": "lifespan.shutdown.complete"})


async def http(scope: Any, send: Any) -> None:
    """Answers one request. A response is a start, and one or more pieces of a body."""
    status, body = 200, FILES.get(scope["path"])
    if body is None:
        status, body = 404, b"There is nothing here.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    with suppress(OSError):  # the client has left
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def websocket(receive: Any, send: Any) -> None:
    """Sends each frame back, until the socket is closed, whoever closes it."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    sockets.add(send)
    try:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            # A frame is text or binary: one of the two is there.
            text, data = event.get("text"), event.get("bytes")
            await send({"type": "websocket.send", "text": text, "bytes": data})
    except OSError:
        return  # the client has left; there is nobody to tell
    finally:
        sockets.discard(send)
