"""A text that all were told of before it was stored is neither lost with the server nor said twice."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, visit
from support.chat import created, guest
from support.killable import GATED, GatedStore, a_process
from support.ports import free_port
from support.proxy import network

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("is_stored", [False, True], ids=["never stored", "stored, but not acked"])
@pytest.mark.parametrize("page", ["/?user=guest&session=", "/demo#"])
async def test_an_unstored_text_was_seen_in_a_gap_before_the_server_was_killed(
    page: str, is_stored: bool, tmp_path: Path, browser: Browser
) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with a_process(port, tmp_path, settings=GATED):
            store = GatedStore(tmp_path)
            room = await created(port)
            between, there = await stack.enter_async_context(network(port))
            tab = await stack.enter_async_context(visit(browser, there, page + room, noise=NO_SERVER))
            texts = tab.page.locator(".message.user .text")
            waiting = tab.page.get_by_text("Waiting to be sent")
            async with guest(port, room) as other:
                await tab.say("before")
                await other.turn()
                await store.has("You said: before")
                store.close()
                await tab.say("precious")
                await other.until(lambda said: said.get("text") == "precious")
            between.cut()
            await tab.shows("waiting")
            await expect(waiting).to_have_count(1)
            between.mend()
            await tab.online()
            await expect(waiting).to_have_count(0)  # the history has it
            await expect(texts).to_have_text(["before", "precious"])
            if is_stored:
                between.down.clear()  # so there is no ack
                store.open()
                await store.has("precious")
        between.cut()
        await tab.shows("waiting")
        await expect(waiting).to_have_count(1)
        if not is_stored:
            store.open()
        async with a_process(port, tmp_path, settings=GATED):
            between.mend()
            await tab.online()
            await expect(waiting).to_have_count(0)
            if not is_stored:
                await expect(tab.page.locator(".message.agent .text").last).to_contain_text("precious")
            await expect(texts).to_have_text(["before", "precious"])
            await tab.say("after")
            await store.has("You said: after")
            await expect(texts).to_have_text(["before", "precious", "after"])
            assert store.texts() == ["before", "precious", "after"]
            await stack.aclose()  # before the server goes
