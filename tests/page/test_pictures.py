"""Pictures that go with a text: chosen, pasted or dropped."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from base64 import b64decode
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from support.browser import NO_SERVER, Tab, rehearsal, until, violations, visit
from support.gemini import Connection, GeminiLive, UserTurn
from support.proxy import Proxy, network
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

GIVE = """async ({ how, type, width, height, name, text }) => {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#c33";
  context.fillRect(0, 0, width, height / 2); // below, it is transparent
  const isPicture = /^image.(png|webp)$/.test(type);
  const blob = isPicture ? await canvas.convertToBlob({ type }) : new Blob(["x"], { type });
  const data = new DataTransfer();
  data.items.add(new File([blob], name, { type }));
  if (text) data.setData("text/plain", text);
  const event =
    how === "paste"
      ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
      : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.getElementById("text").dispatchEvent(event);
  return event.defaultPrevented;
}"""


async def give(tab: Tab, how: str = "paste", type: str = "image/png", **more: object) -> bool:
    given = {"how": how, "type": type, "width": 40, "height": 30, "name": "a.png", "text": ""} | more
    return bool(await tab.page.evaluate(GIVE, given))


def frames(tab: Tab) -> list[tuple[str, str]]:
    """What was sent of content, in order: mime types and data."""
    sent = [json.loads(frame) for frame in tab.sent if isinstance(frame, str)]
    return [(frame["mime_type"], frame["data"]) for frame in sent if "mime_type" in frame]


def size(picture: str) -> tuple[int, int]:
    """Of a JPEG in base64: width and height (its start of frame has them)."""
    data = b64decode(picture)
    at = 2
    while data[at + 1] not in (0xC0, 0xC1, 0xC2):
        at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    height, width = struct.unpack(">HH", data[at + 5 : at + 9])
    return width, height


async def test_pictures_go_before_their_text(gemini: GeminiLive, browser: Browser, tmp_path: Path) -> None:
    gemini.answer = see
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        page = tab.page
        row = page.locator("#pictures li")
        await expect(page.locator("#send")).to_be_disabled()
        assert await give(tab)
        await expect(row).to_have_count(1)
        await expect(page.get_by_placeholder("Ask about it")).to_be_focused()
        await expect(page.locator("#send")).to_be_disabled()  # a picture alone has no answer
        assert await give(tab, "drop", "image/webp", width=4000, height=1000)
        await expect(row).to_have_count(2)
        assert await violations(page) == []
        await page.get_by_role("button", name="Remove picture 1").click()
        await expect(row).to_have_count(1)
        await expect(page.get_by_role("button", name="Remove picture 1")).to_be_focused()
        (tmp_path / "b.png").write_bytes(await page.locator("#picture").screenshot())
        async with page.expect_file_chooser() as choosing:
            await page.get_by_role("button", name="Add a picture").click()
        await (await choosing.value).set_files(tmp_path / "b.png")
        await expect(row).to_have_count(2)
        await tab.say("What is it?")
        await tab.answered("I see 2.")
        await expect(row).to_have_count(0)
        await expect(page.get_by_placeholder("Message")).to_be_focused()
        shown = page.locator(".message.user .bubble img")
        await expect(shown).to_have_count(2)
        await expect(page.get_by_role("img", name="Picture 2")).to_be_visible()
        (jpeg, large), (png, small), text = frames(tab)
        assert (jpeg, png, text) == ("image/jpeg", "image/png", ("text/plain", "What is it?"))
        assert size(large) == (1536, 384)
        assert b64decode(small) == (tmp_path / "b.png").read_bytes()
        # What is no picture, or one too many, is refused in words. A text with a picture of it is a text.
        assert not await give(tab, text="of a table")
        assert await give(tab, "drop", "text/plain", name="a.txt")
        notice = page.locator("#notice [data-kind=picture]")
        await expect(notice).to_contain_text("Only pictures can be sent.")
        assert await give(tab, type="image/x-none", name="a.xyz")
        await expect(notice).to_contain_text("This browser cannot read a.xyz.")
        for count in range(1, 5):
            await give(tab)
            await expect(row).to_have_count(count)
        await expect(notice).to_have_count(0)
        await give(tab)
        await expect(notice).to_contain_text("At most 4 pictures go with a message.")
        await tab.say("And now?")
        await tab.answered("I see 6.")
    assert gemini.connections[0].texts == ["What is it?", "And now?"]


async def see(connection: Connection, turn: UserTurn) -> None:
    await connection.say(f"I see {len(connection.images)}.")


async def test_a_picture_is_not_lost_with_the_connection(gemini: GeminiLive, browser: Browser) -> None:
    gemini.answer = see
    async with (
        serving(a_relay(grace=60)) as port,
        Proxy(port) as proxy,
        visit(browser, proxy.port, noise=NO_SERVER) as tab,
    ):
        # The server has both, and its ack is lost: they come again, and the text is said once.
        proxy.lines[-1].hold()
        await give(tab)
        await expect(tab.page.locator("#pictures li")).to_have_count(1)
        await tab.say("one")
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
        proxy.lines[-1].cut()
        await tab.answered("I see 1.")
        await until(lambda: asyncio.sleep(0, frames(tab)), lambda sent: len(sent) == 4)
        kinds = [kind for kind, _ in frames(tab)]
        assert kinds == ["image/png", "text/plain"] * 2
        await tab.say("two")
        await tab.answered("I see 2.")
        assert gemini.connections[0].texts == ["one", "two"]


async def test_what_is_written_while_the_connection_is_lost_keeps_its_picture(
    gemini: GeminiLive, browser: Browser
) -> None:
    gemini.answer = see
    async with (
        serving(a_relay(grace=60)) as port,
        network(port) as (between, there),
        visit(browser, there, noise=NO_SERVER) as tab,
    ):
        between.cut()
        await tab.shows("waiting")
        await give(tab)
        await expect(tab.page.locator("#pictures li")).to_have_count(1)
        await tab.say("one")
        await expect(tab.page.locator(".message.waiting img")).to_have_count(1)
        between.mend()
        await tab.online()
        await tab.answered("I see 1.")
        assert [kind for kind, _ in frames(tab)] == ["image/png", "text/plain"]
        await expect(tab.page.locator(".message.user img")).to_have_count(1)


async def test_without_a_websocket_nobody_thinks_that_a_picture_was_sent(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(), grace=30)) as port, network(port) as (between, there):
        between.takes_upgrades = False
        patient = {"MAX_UNOPENED": 6}
        async with visit(browser, there, state="waiting", noise=NO_SERVER, constants=patient) as tab:
            await give(tab)
            await expect(tab.page.locator("#pictures li")).to_have_count(1)
            await tab.say("one")  # it is not known yet that none gets through
            await expect(tab.page.locator(".message.waiting img")).to_have_count(1)
            await tab.shows("blocked")
            await tab.answered(re.compile("You said: one$"))
            await expect(tab.page.locator(".message.user .lost")).to_have_text("Sent without its pictures")
            await expect(tab.page.locator(".message.user img")).to_have_count(0)
            button = tab.page.get_by_role("button", name="Add a picture")
            await expect(button).to_be_disabled()
            await give(tab)
            notice = tab.page.locator("#notice [data-kind=picture]")
            await expect(notice).to_contain_text("Pictures need a WebSocket")
            await expect(tab.page.locator("#pictures li")).to_have_count(0)


async def test_pictures_that_come_at_once(gemini: GeminiLive, browser: Browser) -> None:
    """Reading one takes time: a text that is sent meanwhile waits for it, and no more come than may."""
    gemini.answer = see
    async with serving(a_relay()) as port, visit(browser, port) as tab:
        page = tab.page
        await page.get_by_label("Message", exact=True).fill("What is it?")
        await page.evaluate(
            """async () => {
              const canvas = new OffscreenCanvas(5000, 4000);
              canvas.getContext("2d");
              const blob = await canvas.convertToBlob({ type: "image/png" });
              const clipboardData = new DataTransfer();
              clipboardData.items.add(new File([blob], "a.png", { type: blob.type }));
              const box = document.getElementById("text");
              box.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
              box.form.requestSubmit();
            }"""
        )
        await tab.answered("I see 1.")
        await asyncio.gather(*(give(tab) for _ in range(7)))
        await expect(page.locator("#notice")).to_contain_text("At most 4 pictures")
        await tab.say("And now?")
        await tab.answered("I see 5.")  # in all
        await expect(page.locator("#pictures li")).to_have_count(0)
