"""Lesson 1: an ASGI application is a callable. It serves files and an echo, without a framework.

The server (uvicorn) accepts connections and parses HTTP and WebSocket frames. For each connection it
calls `app(scope, receive, send)`: `scope` is a dict that says what the connection is, `receive()` waits
for the next event from the client, and `send(event)` gives one to the client. Events are dicts, too.
The names of their fields come from the ASGI specification: https://asgi.readthedocs.io.

    uvicorn lessons.l1_asgi:app
    curl -i http://127.0.0.1:8000/README.md
    python -m websockets ws://127.0.0.1:8000/ws/ann     (type a line: it comes back)

What still breaks: the application never notices that a client has left. Its coroutine waits in
`receive()` for ever, one for each client that was ever there. Press Ctrl-C after a client has left: the
server waits for that coroutine, and you have to press it again.
In full: relay.py, adk_relay/wire/http.py.
"""

from pathlib import Path
from typing import Any

# Each file by the path at which it is served. They are found by their whole path, so that no request,
# whatever dots and slashes it has, can name a file that is not in this dict.
FILES = {f"/{file.name}": file.read_bytes() for file in Path(__file__).parent.iterdir() if file.is_file()}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await http(scope, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        # Servers ask with a scope of type "lifespan" whether the application wants to know when the
        # server starts and stops. This exception is the answer no.
        raise ValueError(f"there is no {scope['type']} here")


async def http(scope: Any, send: Any) -> None:
    """Answers one request. A response is a start, and one or more pieces of a body."""
    status, body = 200, FILES.get(scope["path"])
    if body is None:
        status, body = 404, b"There is nothing here.\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def websocket(receive: Any, send: Any) -> None:
    """Sends each frame back."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.receive":
            # A frame is text or binary: one of the two is there.
            text, data = event.get("text"), event.get("bytes")
            await send({"type": "websocket.send", "text": text, "bytes": data})
