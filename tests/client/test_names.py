"""Names at a terminal, and somebody who was invited to listen only."""

from __future__ import annotations

import time
from pathlib import Path

from support.server import serving
from support.terminal import at_terminal, connected, talkative
from support.tokens import SECRET, token, web


async def test_names_are_shown_in_history_messages_typing_and_presence(tmp_path: Path) -> None:
    async with serving(talkative()) as port, connected(port, tmp_path, "--name", "Ann Lee") as ann:
        await ann.says("hello")
        await ann.sees("You said: hello")
        async with web(port, None) as browser:
            room = (await browser.get("/sessions")).json()["sessions"][0]["session_id"]
        async with connected(port, tmp_path, "--session", room, "--name", "Bob") as bob:
            await bob.sees("(?m)^Ann Lee +hello$")
            await ann.sees("Bob came")
            ann.types("and")
            await bob.sees("Ann Lee is typing…")  # although she came before him
            ann.types(" you?\r")
            await bob.sees(r"(?m)^Ann Lee +and you\?$")
        await ann.sees("Bob left")


async def test_who_was_invited_to_listen_goes_there_and_is_told(tmp_path: Path) -> None:
    async with serving(talkative(secret=SECRET)) as port, web(port, token(name="Ann")) as alice:
        body = {"session_id": "kitchen", "message": "hello"}
        assert (await alice.post("/api/v1/chat", json=body)).status_code == 200
        made = await alice.post("/sessions/kitchen/invite", json={"role": "listen"})
        async with at_terminal(port, tmp_path, RELAY_TOKEN=made.json()["token"]) as eve:
            await eve.sees("(?m)^Ann +hello$")
            await eve.sees("You were invited to listen only: what you write is refused")
            eve.types("typing is told to nobody")
            await eve.sees(r"(?m)^you +> typing is told to nobody$")
            eve.types("\r")
            await eve.sees("You were invited to listen only\\.")
            assert eve.sight.count("You were invited") == 2
            assert await eve.leaves() == 0
        soon = token(exp=time.time() + 2)
        async with at_terminal(port, tmp_path, "--session", "kitchen", RELAY_TOKEN=soon) as late:
            await late.sees(r"Your token expires in \d s: then the connection ends\.")
