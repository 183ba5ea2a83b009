#!/usr/bin/env bash
# ws4py 0.6.0 with uvicorn 0.54.0: the code of a server that restarts is a protocol error to the client.
#
# Behaviour: uvicorn ends its WebSockets with close code 1012 (service restart) when it is told to stop. ws4py
#   knows the codes of RFC 6455 only. It calls 1012 invalid and reports 1005.
# Output seen: uvicorn sent: 1012; ws4py told its application: 1005 Invalid Closing Frame Code: 1012
#              application sent: 3001; ws4py told its application: 3001 try again
# Why it surprises: 1012 to 1014 have been registered with IANA for years, and a client that meets a code it does
#   not know needs no more than to pass it on. An orderly restart reads like a broken server.
# For a relay: a client may decide by the code whether to come back. A code from 3000 to 4999 passes everywhere;
#   1012 and 1013 do not, and on a restart the server, not the application, picks the code.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ws4py==0.6.0 uvicorn==0.54.0 websockets==15.0.1

cat >check.py <<'PYTHON'
import asyncio
import threading
from importlib.metadata import version

import uvicorn
from ws4py.client.threadedclient import WebSocketClient


async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})
    while (await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.close", "code": 3001, "reason": "try again"})


class Client(WebSocketClient):
    def __init__(self, url):
        super().__init__(url)
        self.greeted = threading.Event()
        self.told = None

    def received_message(self, message):
        self.greeted.set()

    def closed(self, code, reason=None):
        self.told = code, reason.decode() if isinstance(reason, bytes) else reason


async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    url = f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def told(end):
        client = Client(url)
        client.connect()
        assert client.greeted.wait(10)
        end(client)
        client.run_forever()
        return client.told

    by_application = await asyncio.to_thread(told, lambda client: client.send("close, please"))
    by_server = await asyncio.to_thread(told, lambda client: setattr(server, "should_exit", True))
    await serving
    print("ws4py", version("ws4py"), "uvicorn", version("uvicorn"))
    print("the application sent 3001, the client was told:", *by_application)
    print("uvicorn stopped; expected at the client: 1012")
    print("                 the client was told:   ", *by_server)
    assert by_application == (3001, "try again")
    assert by_server == (1005, "Invalid Closing Frame Code: 1012"), "the behaviour has changed"


asyncio.run(asyncio.wait_for(main(), 40))
PYTHON
timeout 60 venv/bin/python check.py
