"""The dialog with the settings, and what the page remembers of them."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from support.browser import control, rehearsal, violations, visit
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
