"""Tokens, good and bad ones, and the keys that sign them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from websockets.typing import Subprotocol

from support.chat import http

SECRET = "a secret of a test, which has 32 bytes and more"


def token(user: str = "alice", *, secret: str = SECRET, **claims: Any) -> str:
    """A token that lets its bearer in, unless a claim says otherwise; a claim that is None is left out."""
    given = {"sub": user, "exp": time.time() + 300, **claims}
    return jwt.encode({name: value for name, value in given.items() if value is not None}, secret, "HS256")


def bearer(of: str) -> dict[str, str]:
    """The header that has a token."""
    return {"Authorization": f"Bearer {of}"}


def with_token(of: str) -> dict[str, Any]:
    """Options of a WebSocket client that sends a token in a header."""
    return {"additional_headers": bearer(of)}


def as_subprotocols(of: str) -> list[Subprotocol]:
    """What a browser sends."""
    return [Subprotocol("relay.v1"), Subprotocol(f"bearer.{of}")]


def web(port: int, of: str | None) -> httpx.AsyncClient:
    """A client of the HTTP interface, with a token or without one."""
    client = http(port)
    if of is not None:
        client.headers.update(bearer(of))
    return client


@cache
def rsa_key(name: str = "", bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str = "") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, **fields: Any) -> dict[str, Any]:
    """The public half of a key, for a key set."""
    if isinstance(key, rsa.RSAPrivateKey):
        made: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    else:
        made = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    return made | fields


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


class KeyServer:
    """Serves a key set over HTTP.

    Attributes:
        body: what it answers.
        requests: how many it has had.
        open: it answers while this is set.
    """

    def __init__(self, body: str) -> None:
        self.body = body
        self.requests = 0
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            self.asked.set()
            await self.open.wait()
            body = self.body.encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
            )
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def serving_keys(body: str) -> AsyncIterator[KeyServer]:
    keys = KeyServer(body)
    server = await asyncio.start_server(keys.answer, "127.0.0.1", 0)
    async with server:
        keys.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        yield keys
