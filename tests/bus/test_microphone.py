"""The sound of a microphone on its way to an owner in another process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from adk_relay.bus import keys
from adk_relay.bus.attended import Attended
from adk_relay.bus.codec import decode
from adk_relay.bus.commands import Attend, Leave
from adk_relay.bus.hub import Hub
from adk_relay.bus.inbox import Inbox
from adk_relay.bus.ownership import Owner
from adk_relay.bus.packs import Item
from adk_relay.bus.server import Server
from adk_relay.core.messages import ActivityStart, AudioEnd, Dropped, Message, UserAudio
from support.process import HANGS
from support.redis_server import RedisServer, running, until


class Listener:
    """A voice client of this process."""

    connection_id = "alice"
    name = member = address = ""
    is_audio = True
    connects = True
    attends: Literal["all"] = "all"

    def __init__(self) -> None:
        self.told: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.told.append(message)

    def replay(self, messages: Sequence[Message]) -> None:
        self.told += messages


def sound(ms: int, rate: int = 16_000) -> UserAudio:
    return UserAudio(bytes(2 * rate * ms // 1000), rate)


def lengths(got: list[Any]) -> list[Any]:
    """Milliseconds of sound, and the names of what else was sent."""
    return [
        len(each.pcm) * 1000 // (2 * each.rate) if isinstance(each, UserAudio) else type(each).__name__
        for each in got
    ]


@pytest.mark.parametrize("mic_ms", [40, 0])
async def test_sound_is_merged_and_waits_for_an_owner_within_bounds(
    redis: RedisServer, server: Server, mic_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("adk_relay.core.inbox._SOUND_MAX_WAIT", "adk_relay.bus.link._SOUND_SECONDS"):
        monkeypatch.setattr(name, HANGS)  # a loaded machine takes its time
    got: list[Any] = []

    def take(_: str, items: list[Item]) -> None:
        got.extend(decode(item.content) for item in items)

    inbox = Inbox(server, "owner", take, lambda process: None)
    hub, listener = Hub(redis.url), Listener()
    attended = Attended(hub, "alice", "c", mic_ms, lambda attended: None)
    await server.run("SET", keys.lease("owner"), "1")
    async with running(inbox.run()):
        await inbox.is_made.wait()
        hub.start()
        attended.attach(listener)
        attended.handle(sound(100), listener)  # there is no owner yet
        attended.found(Owner(1, "owner"))
        for _ in range(10):
            attended.handle(sound(10), listener)
        attended.handle(AudioEnd(), listener)
        attended.handle(ActivityStart(), listener)
        attended.handle(sound(30), listener)
        attended.handle(sound(30, 8000), listener)
        attended.handle(sound(30, 8000), listener)

        attended.lost(is_told=True)
        for _ in range(70):
            attended.handle(sound(1000), listener)
        attended.found(Owner(2, "owner"))
        attended.handle(sound(10), listener)
        attended.detach(listener)
        await until(lambda: any(isinstance(each, Leave) for each in got))
        await hub.aclose()
    await server.run("DEL", keys.lease("owner"))
    begins = [index for index, each in enumerate(got) if isinstance(each, Attend)]
    before, after = lengths(got[: begins[1]]), lengths(got[begins[1] :])
    if mic_ms:
        assert before == ["Attend", 100, 40, 40, 20, "AudioEnd", "ActivityStart", 30, 60]
    else:
        assert before == ["Attend", 100, *[10] * 10, "AudioEnd", "ActivityStart", 30, 30, 30]
    # The oldest was given up, and its client is told so.
    assert after == ["Attend", *[1000] * 60, 10, "Leave"]
    assert sum(each.audio_ms for each in listener.told if isinstance(each, Dropped)) == 10_000
