#!/usr/bin/env bash
# google-genai 2.34.0: sound goes out in URL-safe base64, which Python's decoder cuts short without an error.
#
# Behaviour: `send_realtime_input(audio=...)` writes "-" and "_" where ordinary base64 has "+" and "/". Python's
#   `base64.b64decode` drops characters it does not know and returns what is left.
# Output seen for 12 bytes of sound fb ff fe ff fb ff ...:
#   {"realtime_input": {"audio": {"data": "-__-__v__v_7__7_", "mime_type": "audio/pcm;rate=16000"}}}
#   b64decode: 3 bytes, no error        urlsafe_b64decode: all 12 bytes
#   The setup on the same connection is written in camelCase: {"setup": {"generationConfig": ...
# Why it surprises: "base64" without more means the ordinary alphabet, and one connection has two spellings of names.
#   Digital silence is "AAAA" in either alphabet, so a wrong decoder passes the first test.
# For a relay: whoever stands between google-genai and the service, or plays the service in a test, has to take
#   both alphabets and both spellings of the names, and to decode with `validate=True` to notice.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check google-genai==2.34.0 websockets==15.0.1 trustme==1.2.1

cat >check.py <<'PYTHON'
import asyncio
import base64
import json
import os
import ssl
from importlib.metadata import version

import trustme
from google import genai
from google.genai import types
from websockets.asyncio.server import serve

SOUND = b"\xfb\xff\xfe\xff" * 3  # six samples, all close to zero


async def main():
    authority = trustme.CA()
    authority.cert_pem.write_to_path("ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    os.environ["SSL_CERT_FILE"] = "ca.pem"
    received = []
    both = asyncio.Event()

    async def service(websocket):
        received.append(await websocket.recv())
        await websocket.send(json.dumps({"setupComplete": {}}))
        received.append(await websocket.recv())
        both.set()

    async with serve(service, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = genai.Client(api_key="none", http_options={"base_url": url})
        config = {"response_modalities": ["AUDIO"]}
        async with client.aio.live.connect(model="gemini-3.8-live", config=config) as session:
            await session.send_realtime_input(audio=types.Blob(data=SOUND, mime_type="audio/pcm;rate=16000"))
            await both.wait()
    setup, message = map(json.loads, received)
    data = message["realtime_input"]["audio"]["data"]
    plain, urlsafe = base64.b64decode(data), base64.urlsafe_b64decode(data)
    print("google-genai", version("google-genai"))
    print("first message: ", json.dumps(setup))
    print("second message:", json.dumps(message))
    print("expected:", base64.b64encode(SOUND).decode(), "and one spelling of names")
    print("seen:    ", data)
    print(f"b64decode: {len(plain)} of {len(SOUND)} bytes, no error; urlsafe_b64decode: {len(urlsafe)} bytes")
    assert "generationConfig" in setup["setup"] and "mime_type" in message["realtime_input"]["audio"]
    assert data == base64.urlsafe_b64encode(SOUND).decode() and urlsafe == SOUND, "the behaviour has changed"
    assert len(plain) == 3


asyncio.run(asyncio.wait_for(main(), 30))
PYTHON
timeout 60 venv/bin/python -W ignore check.py
