"""An update: processes of two versions of relay are on one bus for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from adk_relay.bus import attending, names
from adk_relay.bus.codec import PROTOCOL
from support.client import client
from support.gemini import GeminiLive
from support.pods import pods
from support.redis_server import RedisServer, until


async def test_versions_with_other_messages_share_conversations_one_after_the_other(
    redis: RedisServer,
    gemini: GeminiLive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """New processes work with each other at once. What old ones own they get when these give it away."""
    async with pods(redis, tmp_path, "web", "worker", grace=30) as (web, worker):
        old: Any = worker.relay.served
        async with client(web.port) as alice:
            assert await alice.ask("hello") == "You said: hello."
            monkeypatch.setattr(names, "PROTOCOL", "newer")
            async with pods(redis, tmp_path, "web", "worker", grace=30) as (new_web, new_worker):
                async with client(new_web.port, "bob") as bob:
                    assert await bob.ask("hi") == "You said: hi."
                    assert (worker.active, new_worker.active) == (1, 1)
                with monkeypatch.context() as patched:
                    patched.setattr(attending, "_OPEN_SECONDS", 1.5)
                    for _ in range(2):
                        with pytest.raises(ConnectionClosed):
                            async with client(new_web.port, "alice"):
                                pass
                assert await alice.ask("again") == "You said: again."
                old.drain()
                await until(lambda: not old.is_answering())
                async with client(new_web.port, "alice", query="&after=0.0") as again:
                    await again.until(lambda said: said.get("text") == "You said: again.")
                    assert await again.ask("and again") == "You said: and again."
                # The other socket can only wait for its process to be stopped, and is told so.
                await alice.until(lambda said: said.get("state") == "reconnecting")
    lines = [line for line in caplog.text.splitlines() if "another version" in line]
    assert len(lines) == len({*lines}) == 2, lines


def test_the_name_of_a_process_says_what_it_understands() -> None:
    one, other = names.new_name(), names.new_name()
    assert one != other and names.protocol_of(one) == PROTOCOL
    assert names.understand(one, other) and not names.understand(one, "host-1-2+ffffff")
