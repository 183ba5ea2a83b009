"""What is said at the start of a server that others can reach."""

from __future__ import annotations

import socket
from typing import cast

import pytest
import uvicorn
from uvicorn.lifespan.on import LifespanOn

from adk_relay.advice import warning
from adk_relay.wire.asgi import Receive
from relay import app


def said(host: str, *, is_guarded: bool = False, fd: int | None = None) -> str:
    config = uvicorn.Config(app, host=host, fd=fd)
    config.load()
    return warning(cast(Receive, LifespanOn(config).receive), is_guarded=is_guarded)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "relay.example.com"])
async def test_a_server_that_others_reach_says_that_it_needs_no_token(host: str) -> None:
    assert "RELAY_SECRET" in said(host)
    assert said(host, is_guarded=True) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
async def test_a_server_on_the_loopback_does_not(host: str) -> None:
    assert said(host) == ""


async def test_a_socket_that_was_handed_over_may_be_anything() -> None:
    with socket.socket() as handed:
        assert said("0.0.0.0", fd=handed.fileno()) == ""


async def test_other_servers_do_not_tell_where_they_listen() -> None:
    async def receive() -> dict[str, object]:
        return {}

    assert warning(receive, is_guarded=False) == ""
