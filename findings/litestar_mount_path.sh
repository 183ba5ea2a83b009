#!/usr/bin/env bash
# litestar 2.25.0: a mounted ASGI application gets paths that no client has sent.
#
# Behaviour: what is mounted with `@asgi("/talk", is_mount=True)` gets the path below the mount point with a slash at
#   its end, and an empty `root_path`.
# Output seen for GET /talk/static/app.js:
#   expected (starlette 1.10.0)   path '/talk/static/app.js'   root_path '/talk'
#   litestar                      path '/static/app.js/'       root_path ''
#   and /talk and /talk/ are the same: path '/'
# Why it surprises: two paths with and without a slash at the end are two resources, and a page's relative URLs depend
#   on it. Without `root_path` an application cannot know its own address.
# For a relay: `raw_path` still is what the client sent. Remove the slash if that has none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check litestar==2.25.0 starlette==1.10.0 httpx==0.28.1

cat >check.py <<'PYTHON'
import asyncio
import logging
from importlib.metadata import version

import httpx
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send
from starlette.applications import Starlette
from starlette.routing import Mount


logging.disable()  # of the requests


async def tell(scope, receive, send):
    body = f"path {scope['path']!r}, root_path {scope['root_path']!r}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asgi("/talk", is_mount=True, copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    await tell(scope, receive, send)


async def get(app, path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return (await client.get(path)).text


async def main():
    litestar, starlette = Litestar([mounted]), Starlette(routes=[Mount("/talk", tell)])
    for path in ("/talk/static/app.js", "/talk/"):
        print(f"GET {path}\n    expected (starlette {version('starlette')}): {await get(starlette, path)}")
        print(f"    litestar {version('litestar')}: {await get(litestar, path)}")
    assert await get(starlette, "/talk/static/app.js") == "path '/talk/static/app.js', root_path '/talk'"
    assert await get(litestar, "/talk/static/app.js") == "path '/static/app.js/', root_path ''", "it has changed"
    assert await get(litestar, "/talk") == await get(litestar, "/talk/") == "path '/', root_path ''"


asyncio.run(main())
PYTHON
timeout 60 venv/bin/python check.py
