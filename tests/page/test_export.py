"""The whole conversation as a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from adk_relay.adk.archive import Archive
from support.browser import Tab, rehearsal, violations, visit
from support.long import message, write
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def exported(tab: Tab, kind: str) -> tuple[str, str]:
    """The name of the file, and what is in it."""
    async with tab.page.expect_download() as downloading:
        await tab.page.get_by_role("button", name=f"Export as {kind}").click()
    download = await downloading.value
    return download.suggested_filename, (Path(await download.path())).read_text()


async def test_all_of_it_is_exported(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "live-alice", 330, app_name="tester", user_id="alice")
    relay = a_relay(rehearsal(), grace=60, sessions=f"sqlite:///{path}")
    async with serving(relay) as port, visit(browser, port, "/?user=alice") as tab:
        await tab.say("What time is it in Tokyo?")
        await tab.answered(re.compile(r"in Asia/Tokyo\."))
        await tab.page.get_by_role("button", name="Settings").click()
        assert await violations(tab.page) == []
        state = tab.page.locator("#export-state")
        with monkeypatch.context() as broken:
            broken.setattr(Archive, "count", _fail)
            await tab.page.get_by_role("button", name="Export as Markdown").click()
            await expect(state).to_have_text("Older messages can't be read just now.")
        name, text = await exported(tab, "Markdown")
        await expect(state).to_have_text("332 messages were exported.")
        assert re.fullmatch(r"Conversation \d{4}-\d\d-\d\d\.md", name)
        assert text.startswith("# Conversation\n\n## ")
        said = re.findall(r"^## (You|User|Agent)", text, re.MULTILINE)
        assert len(said) == 332
        assert said[-1] == "Agent"
        places = [text.index(message(number).strip()) for number in range(1, 331)]
        assert places == sorted(places)
        assert '- used `get_current_time`: `{"timezone":"Asia/Tokyo"}` → `{' in text
        name, text = await exported(tab, "JSON")
        assert re.fullmatch(r"Conversation \d{4}-\d\d-\d\d\.json", name)
        whole = json.loads(text)
        assert whole["session_id"] == "live-alice"
        assert [line["text"].strip() for line in whole["messages"][:330]] == [
            message(number).strip() for number in range(1, 331)
        ]
        assert whole["messages"][-2]["mine"] is True
        assert whole["messages"][-1]["tools"][0]["tool_name"] == "get_current_time"
        await expect(tab.page.locator(".message")).to_have_count(332)  # the page shows what was read


async def _fail(*_: object, **__: object) -> None:
    raise OSError("No space left on device")
