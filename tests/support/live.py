"""What tests of the live dialect share."""

from __future__ import annotations

import base64

import pytest
from websockets.exceptions import ConnectionClosed

from support.client import Client, Json

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def close_of(who: Client) -> tuple[int, str]:
    """How the server closes the socket; what comes before is in `who.frames`."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await who.next()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def answered(who: Client) -> list[Json]:
    """What comes until the conversation has taken all that `who` has sent."""
    await who.send(type="history", before="0.0")  # of an epoch that never exists
    return (await who.until(lambda said: said.get("type") == "history"))[:-1]
