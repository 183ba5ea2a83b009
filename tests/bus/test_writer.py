"""The writer of the logs: what it keeps while Redis is away, and what a new owner learns of the rest."""

from __future__ import annotations

import pytest

from adk_relay.bus import writer as writer_module
from adk_relay.bus.log import Log
from adk_relay.bus.ownership import Ownership
from adk_relay.bus.server import Server
from adk_relay.bus.writer import Writer, read_past
from adk_relay.core.journal import Journal
from adk_relay.core.messages import Audio, Written
from adk_relay.core.past import Past
from adk_relay.core.recorded import Recorded
from adk_relay.core.recording import Recording
from support.redis_server import RedisServer, running, until


class Owned:
    """A conversation that is recorded."""

    def __init__(self, writer: Writer, name: str, token: int) -> None:
        self._writer = writer
        self.log = Log(name, token, "one", max_bytes=10**8, max_age=600)
        self.recording = Recording(self, every_bytes=10**6, every_seconds=600)
        self.recording.begin("epoch", 0)
        self.seq = 0

    def record(self, entry: Recorded) -> None:
        self._writer.add(self.log, entry)

    def tells(self, text: str = "", *, sound: int = 0) -> None:
        self.seq += 1
        written = Written(self.seq, text, "", "", self.seq)
        self.recording.told(Audio(self.seq, bytes(sound)) if sound else written)


def has_gap(owned: Owned) -> bool:
    return owned.log.has_gap


async def past_of(server: Server, name: str) -> Past:
    past = await read_past(server, Log(name, 1, "heir", max_bytes=10**8, max_age=600))
    past.check()
    return past


async def test_what_waits_while_redis_is_away_is_bounded(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Sound is given up first. A conversation of which more is given up has a gap: a new owner knows."""
    monkeypatch.setattr(writer_module, "_MAX_BYTES", 100_000)
    monkeypatch.setattr(writer_module, "_AT_ONCE_BYTES", 10_000)
    server = Server(redis.url)
    ownership = Ownership(server, "one", lambda *_: None)
    owned: dict[str, Owned] = {}
    writer = Writer(server, ownership.lose, lambda name: owned[name].recording.anew())
    for name in ("much", "little"):
        owned[name] = Owned(writer, name, (await ownership.take(name, 0)).token)
    much, little = owned.values()
    async with running(writer.run()):
        for each in owned.values():
            each.tells("before")
        await writer.flushed()
        await redis.kill()
        little.tells("on its way")  # this is being written all the time
        await until(lambda: server.is_away)

        little.tells("one")
        for _ in range(20):  # 9,600 bytes of sound are one entry
            little.tells(sound=9600)
        assert not has_gap(little)
        for _ in range(9):
            much.tells("x" * 10_000)
        assert not has_gap(much)  # only sound was given up
        for number in range(1000):
            much.tells(f"{number} {'x' * 1000}")
        assert has_gap(much) and not has_gap(little)
        writer.check()
        little.tells("two")

        await redis.start()
        await writer.flushed()
        assert not has_gap(much)
        much.tells("after")
        await writer.flushed()
    assert caplog.text.count("will have gaps") == 1

    past = await past_of(server, "little")
    texts = [message.text for message in past.messages if isinstance(message, Written)]
    assert texts == ["before", "on its way", "one", "two"]
    assert not any(isinstance(message, Audio) for message in past.messages)

    past = await past_of(server, "much")
    assert past.seq == much.seq
    assert past.lines == much.seq  # those in the gap count
    journal = Journal(limit=10**6, max_age=60)
    journal.load(past.messages, past.forgotten)
    assert journal.since(much.seq - 2) is None  # whoever comes back and has got less is told of a gap
    assert [message.seq for message in journal.since(much.seq - 1) or ()] == [much.seq]
    for each in owned.values():
        each.recording.close()
    await server.close()
