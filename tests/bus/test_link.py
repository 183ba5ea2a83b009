"""Links and inboxes: what one process sends arrives at another once, in order, whatever Redis does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from adk_relay.bus import inbox as inbox_module
from adk_relay.bus import link as link_module
from adk_relay.bus import server as server_module
from adk_relay.bus.inbox import Inbox
from adk_relay.bus.link import Link
from adk_relay.bus.packs import Item
from adk_relay.bus.server import Server
from adk_relay.core.inbox import InboxFullError
from support.proxy import network
from support.redis_server import RedisServer, running, until


class Receiver:
    """A process that keeps what it gets."""

    def __init__(self, server: Server, name: str = "web") -> None:
        self.items: list[Item] = []
        self.packs = 0
        self.gaps: list[str | None] = []
        self.inbox = Inbox(server, name, self._take, self.gaps.append)

    def _take(self, _: str, items: list[Item]) -> None:
        self.packs += 1
        self.items += items

    @property
    def numbers(self) -> list[int]:
        return [int(item.content.partition(b" ")[0]) for item in self.items]


def numbers() -> Iterator[bytes]:
    for number in range(10**9):
        yield b"%d " % number + bytes(1900)


async def test_many_chunks_are_few_entries(redis: RedisServer, server: Server) -> None:
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    chunks = numbers()
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        for _ in range(50):
            for conversation in "abcdefghij":
                link.send(conversation, 1, "x", next(chunks), is_sound=True)
            await asyncio.sleep(0.002)
        await until(lambda: len(receiver.items) == 500)
    assert receiver.numbers == [*range(500)]
    assert receiver.packs <= 50
    assert receiver.gaps == []
    assert {item.conversation for item in receiver.items} == {*"abcdefghij"}


async def test_one_alone_goes_at_once_and_the_next_waits(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_EVERY", 0.3)
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    times: list[float] = []
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        began = time.monotonic()
        for number in range(3):
            link.send("c", 1, "", b"%d" % number)
            await link.is_idle.wait()
            times.append(time.monotonic() - began)
        await until(lambda: len(receiver.items) == 3)
    assert receiver.packs == 3
    assert times[0] < 0.3 < times[1] and times[2] > 0.6


async def test_several_senders_and_a_sender_that_begins_anew(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(server)
    links = [Link(server, name, "web") for name in ("a", "b")]
    async with running(receiver.inbox.run(), *(link.run() for link in links)):
        await receiver.inbox.is_made.wait()
        for number in range(10):
            for link in links:
                link.send(link._process, 1, "", b"%d" % number)
            await asyncio.sleep(0.012)
        await until(lambda: len(receiver.items) == 20)
    monkeypatch.setattr(time, "time_ns", lambda: 1)  # the clock was set back meanwhile
    again = Link(server, "a", "web")
    async with running(receiver.inbox.run(), again.run()):
        again.send("a", 1, "", b"10")
        await until(lambda: len(receiver.items) == 21)
    for name, count in (("a", 11), ("b", 10)):
        found = [int(item.content) for item in receiver.items if item.conversation == name]
        assert found == [*range(count)]
    assert receiver.gaps in ([], [None])  # its connection was made anew


async def test_a_repeated_entry_is_ignored(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stands still answers too late: the command is sent again, and both are done."""
    monkeypatch.setattr(server_module, "_ANSWER_SECONDS", 0.5)
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        link.send("c", 1, "", b"0")
        await until(lambda: len(receiver.items) == 1)
        redis.pause()
        link.send("c", 1, "", b"1")
        await until(lambda: server.is_away)
        redis.go_on()
        await until(lambda: len(receiver.items) == 2)
        link.send("c", 1, "", b"2")
        await until(lambda: len(receiver.items) == 3)
    assert receiver.numbers == [0, 1, 2]
    assert not server.is_away
    added = await redis.ask("XINFO", "STREAM", "relay:p:{web}")
    assert isinstance(added, dict) and added[b"entries-added"] > 4  # "made" is one


@pytest.mark.parametrize("with_data", [True, False])
async def test_redis_is_killed_and_started(redis: RedisServer, with_data: bool) -> None:
    changes: list[bool] = []
    server = Server(redis.url, changes.append)
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    sent = 0
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()

        def send() -> None:
            nonlocal sent
            link.send("c", 1, "", b"%d" % sent)
            sent += 1

        for _ in range(5):
            send()
            await asyncio.sleep(0.005)
        await until(lambda: len(receiver.items) == 5)
        await redis.kill()
        await until(lambda: server.is_away)
        for _ in range(5):
            send()
        await redis.start(with_data=with_data)
        await until(lambda: len(receiver.items) >= 10)
        await until(lambda: None in receiver.gaps)
        send()
        await until(lambda: len(receiver.items) == 11)
    assert receiver.numbers == [*range(11)]
    assert (changes[0], changes[-1]) == (True, False)
    await receiver.inbox.close()
    await server.close()


async def test_redis_is_flushed(redis: RedisServer, server: Server) -> None:
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        link.send("c", 1, "", b"0")
        await until(lambda: len(receiver.items) == 1)
        await redis.ask("FLUSHALL")
        link.send("c", 1, "", b"1")
        await until(lambda: len(receiver.items) == 2)
    assert receiver.numbers == [0, 1]
    assert receiver.gaps == [None]


async def test_the_network_is_cut(redis: RedisServer, server: Server) -> None:
    async with network(redis.port, is_http=False) as (between, port):
        far = Server(f"redis://127.0.0.1:{port}")
        receiver = Receiver(far)
        link, back = Link(server, "worker", "web"), Link(far, "web", "worker")
        worker = Receiver(server, "worker")
        async with running(receiver.inbox.run(), worker.inbox.run(), link.run(), back.run()):
            await receiver.inbox.is_made.wait()
            await worker.inbox.is_made.wait()
            between.cut()
            for number in range(5):
                link.send("c", 1, "", b"%d" % number)
                back.send("c", 1, "", b"%d" % number)
            await link.is_idle.wait()
            await until(lambda: far.is_away)
            assert not server.is_away
            between.mend()
            await until(lambda: len(receiver.items) == len(worker.items) == 5)
        assert receiver.numbers == worker.numbers == [*range(5)]
        await far.close()


async def test_the_network_carries_nothing_for_a_while(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection breaks: each side has to give up by itself what it waits for."""
    monkeypatch.setattr(server_module, "_ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(server_module, "_STALLED_SECONDS", 0.8)
    monkeypatch.setattr(inbox_module, "_BLOCK_SECONDS", 0.2)
    async with network(redis.port, is_http=False) as (between, port):
        far = Server(f"redis://127.0.0.1:{port}")
        receiver, worker = Receiver(far), Receiver(server, "worker")
        link, back = Link(server, "worker", "web"), Link(far, "web", "worker")
        async with running(receiver.inbox.run(), worker.inbox.run(), link.run(), back.run()):
            await receiver.inbox.is_made.wait()
            await worker.inbox.is_made.wait()
            between.up.clear()
            between.down.clear()
            for number in range(5):
                link.send("c", 1, "", b"%d" % number)
                back.send("c", 1, "", b"%d" % number)
                await asyncio.sleep(0.2)
            await until(lambda: far.is_away)
            between.mend()
            await until(lambda: len(receiver.items) == len(worker.items) == 5)
            assert None in receiver.gaps
        assert receiver.numbers == worker.numbers == [*range(5)]
        await far.close()


async def test_while_redis_is_away_content_waits_and_sound_is_given_up(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_CONTENT_BYTES", 2000)
    monkeypatch.setattr(link_module, "_SOUND_BYTES", 1000)
    dropped: list[Item] = []
    receiver = Receiver(server)
    link = Link(server, "worker", "web", on_dropped=dropped.append)
    async with running(link.run()):
        for number in range(1000):  # nobody has made the inbox yet
            link.send("c", 1, "", b"%d" % number, is_sound=True)
        with pytest.raises(InboxFullError):
            while True:
                link.send("c", 1, "", b"1000")
        async with running(receiver.inbox.run()):
            await link.is_idle.wait()
            await until(lambda: 1000 in receiver.numbers)
    numbers = receiver.numbers
    assert numbers == sorted(numbers) and len(numbers) + len(dropped) == 1000 + numbers.count(1000)
    assert len(dropped) > 900 and numbers.count(1000) > 20


async def test_a_process_that_does_not_read_sees_a_gap(
    redis: RedisServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_MAX_PACKS", 10)
    monkeypatch.setattr(link_module, "_EVERY", 0.0)
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    async with running(receiver.inbox.run()):
        await receiver.inbox.is_made.wait()
    async with running(link.run()):
        for number in range(250):  # MAXLEN ~ removes entries by the hundred
            link.send("c", 1, "", b"%d" % number)
            await link.is_idle.wait()
    async with running(receiver.inbox.run()):
        await until(lambda: 249 in receiver.numbers)
    assert receiver.gaps[-1] == "worker"
    assert receiver.numbers == [*range(receiver.numbers[0], 250)]


async def test_what_was_read_is_removed(redis: RedisServer, server: Server) -> None:
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        for _ in range(20):
            link.send("c", 1, "", b"0")
            await link.is_idle.wait()

        async def is_short() -> bool:
            return bool(await redis.ask("XLEN", "relay:p:{web}") == 1)

        await until(is_short)
    assert len(receiver.items) == 20


async def test_what_is_no_pack_is_told_and_passed_over(
    redis: RedisServer, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(server)
    link = Link(server, "worker", "web")
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        await redis.ask("XADD", "relay:p:{web}", "*", "p", b"nonsense")
        link.send("c", 1, "", b"0")
        await until(lambda: len(receiver.items) == 1)
    assert "these bytes" in caplog.text


async def test_a_link_that_is_cancelled_while_it_sends_leaves_no_broken_connection(
    redis: RedisServer, server: Server
) -> None:
    for _ in range(20):
        link = Link(server, "worker", "web")
        task = asyncio.create_task(link.run())
        link.send("c", 1, "", b"0")
        while not link._sending:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await server.run("ECHO", "hello") == b"hello"


async def test_what_an_owner_has_told_that_was_replaced_is_not_sent(
    redis: RedisServer, server: Server
) -> None:
    """It is noticed while a pack waits for the log."""
    receiver = Receiver(server)
    may_go = asyncio.Event()

    async def before_pack() -> None:
        await may_go.wait()

    link = Link(server, "worker", "web", before_pack)
    async with running(receiver.inbox.run(), link.run()):
        await receiver.inbox.is_made.wait()
        for number, (conversation, token) in enumerate([("c", 1), ("d", 1), ("c", 2)]):
            link.send(conversation, token, "", b"%d" % number)
        await until(lambda: bool(link._sending))
        link.send("c", 1, "", b"3")
        link.drop("c", 1)
        link.check()
        may_go.set()
        await until(lambda: len(receiver.items) == 2)
        link.send("e", 1, "", b"4")
        await until(lambda: len(receiver.items) == 3)
    assert receiver.numbers == [1, 2, 4]
    assert receiver.gaps == []
