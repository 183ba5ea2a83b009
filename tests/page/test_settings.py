"""The dialog with the settings, and what the page remembers of them."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, expect

from support.browser import Tab, control, rehearsal, until, violations, visit
from support.gemini import GeminiLive
from support.rooms import room_of, window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = """() => {
  const get = () => { throw new DOMException("refused", "SecurityError"); };
  for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { get });
}"""
"""A browser that keeps nothing."""

REMEMBER = """async () => {
  const { remember, remembered } = await import("./static/settings.js");
  const before = remembered("tested", "nothing");
  remember("tested", { louder: true });
  remember("gone", 1);
  remember("gone", null);
  return [before, remembered("tested", "nothing"), remembered("gone", "nothing")];
}"""

WORDS = re.compile("You said: ")

READ = "async () => (await import('./static/settings.js')).remembered('tested', 'nothing')"


async def test_the_dialog_is_used_by_keyboard(browser: Browser) -> None:
    async with serving(a_relay(rehearsal(words_per_second=2.0))) as port, visit(browser, port) as tab:
        page = tab.page
        button = page.get_by_role("button", name="Settings")
        dialog = page.get_by_role("dialog", name="Settings")
        await tab.say("hello")
        await expect(page.locator("#stop")).to_be_visible()
        for leave in ("Escape", "Enter"):
            await button.focus()
            await page.keyboard.press("Enter")
            await expect(dialog).to_be_visible()
            await expect(dialog.get_by_role("button", name="Close")).to_be_focused()
            assert await violations(page) == []
            await page.keyboard.press(leave)
            await expect(dialog).to_be_hidden()
            await expect(button).to_be_focused()
        assert control(tab.sent, "interrupt") == []  # Escape was for the dialog
        await expect(page.locator("#stop")).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator("#stop")).to_be_hidden()


async def test_what_was_chosen_is_remembered(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port:
        async with visit(browser, port) as tab:
            louder = {"louder": True}
            assert await tab.page.evaluate(REMEMBER) == ["nothing", louder, "nothing"]
            await tab.page.reload()
            assert await tab.page.evaluate(READ) == louder
        async with visit(browser, port, script=REFUSED) as tab:
            assert await tab.page.evaluate(REMEMBER) == ["nothing", louder, "nothing"]
            await tab.page.reload()
            assert await tab.page.evaluate(READ) == "nothing"


async def test_voice_and_language_are_chosen_where_the_operator_lets_users(
    gemini: GeminiLive, browser: Browser
) -> None:
    async with serving(a_relay(voices="Puck, Charon", languages="de-DE,en-US")) as port:
        async with visit(browser, port, "/?user=alice") as tab:
            page = tab.page
            await page.get_by_role("button", name="Settings").click()
            voice, language = page.get_by_label("Voice", exact=True), page.get_by_label("Language")
            await expect(voice.locator("option")).to_have_text(["Automatic", "Puck", "Charon"])
            languages = ["Automatic", "German (Germany)", "American English"]
            await expect(language.locator("option")).to_have_text(languages)
            await voice.select_option("Charon")
            await until(lambda: page.evaluate("() => 0"), lambda _: control(tab.got, "configured"))
            await language.select_option(label="German (Germany)")
            await until(lambda: page.evaluate("() => 0"), lambda _: len(control(tab.got, "configured")) == 2)
            assert await violations(page) == []
            await page.goto("/?user=alice&session=another")  # a new one begins with it
            await until(lambda: page.evaluate("() => 0"), lambda _: len(control(tab.got, "configured")) == 3)
            await expect(voice).to_have_value("Charon")
            await expect(language).to_have_value("de-DE")
            await tab.say("hello")
            await tab.answered("You said: hello.")
        speech = gemini.connections[-1].setup["generationConfig"]["speechConfig"]
        assert speech["languageCode"] == "de-DE"
        async with visit(browser, port, "/?user=alice&session=another") as other:  # as it is stored
            await expect(other.page.locator("#voice-choice")).to_have_value("Charon")
    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as tab:
        await tab.page.get_by_role("button", name="Settings").click()
        await expect(tab.page.get_by_role("dialog", name="Settings")).to_be_visible()
        await expect(tab.page.locator("#voice-settings")).to_be_hidden()


WATCHED = """() => {
  window.badges = [];
  window.looked = true;
  document.hasFocus = () => window.looked;
  navigator.setAppBadge = async (count) => void window.badges.push(count);
  navigator.clearAppBadge = async () => void window.badges.push(0);
}"""
"""Whether somebody looks at the page, as the test says, and the mark of the app."""


async def looks(tab: Tab, at_it: bool) -> None:
    await tab.page.evaluate("(looked) => void (window.looked = looked)", at_it)
    if at_it:
        await tab.page.evaluate("() => void dispatchEvent(new Event('focus'))")


async def test_an_answer_that_nobody_saw_is_marked_in_the_title(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port:
        async with visit(browser, port, script=WATCHED) as tab:
            await tab.say("one")
            await tab.answered(WORDS)
            assert await tab.page.title() == "relay"
            await looks(tab, False)
            for count in (1, 2):
                await tab.say(f"more {count}")
                await expect(tab.page).to_have_title(f"({count}) relay")
            await looks(tab, True)
            await expect(tab.page).to_have_title("relay")
            await until(lambda: tab.page.evaluate("() => window.badges"), lambda told: told[-3:] == [1, 2, 0])
        async with window(browser, port, script=WATCHED) as tab:
            await looks(tab, False)
            await tab.say("one")
            room = await room_of(tab)
            await expect(tab.page).to_have_title(f"(1) {room} · Rooms · relay")
            await looks(tab, True)
            await expect(tab.page).to_have_title(f"{room} · Rooms · relay")
