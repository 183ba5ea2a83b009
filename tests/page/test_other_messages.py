"""What Firefox and WebKitGTK make of messages: Markdown, copying, pictures, editing."""

from __future__ import annotations

import json

import pytest
from page.test_markdown import ANSWER
from page.test_pictures import GIVE

from support.browser import until
from support.firefox import Firefox
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving
from support.webkit import WebKit
from support.window import ENTER, visited

# One browser of a kind for all tests, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_messages(other: Firefox | WebKit, gemini: GeminiLive) -> None:
    answered = []

    async def answer(connection: Connection, turn: UserTurn) -> None:
        seen = f"I see {len(connection.images)} with {turn.text}."
        await connection.say(ANSWER if turn.text == "plan" else seen)
        answered.append(turn.text)

    gemini.answer = answer
    async with serving(a_relay(grace=60)) as port, other.window() as window, visited(window, port):
        await window.say("plan")
        await window.sees(".message.agent h3", "^Deep$")
        await window.sees(".message.agent li > ol > li", "^inner$")
        await window.sees(".message.agent td.right strong", "^b$")
        await window.click(".code .action")
        await window.sees("#announcer p", "^Copied$")
        given = {"how": "drop", "type": "image/webp", "width": 3000, "height": 30, "name": "a", "text": ""}
        assert await window.evaluate(f"({GIVE})({json.dumps(given)})")
        await until(lambda: window.all("#pictures li"), lambda pictures: len(pictures) == 1)
        await window.say("what")
        await window.answered("I see 1 with what")
        await window.click("[aria-label='Edit this message']")
        await until(lambda: window.evaluate("document.activeElement.value"), lambda text: text == "what")
        await window.type("ever" + ENTER)
        await window.answered("with whatever")
        assert await window.all(".message.user .text") == ["plan", "whatever"]
        await window.click("[aria-label='Answer this again']")
        await gemini.wait_for(lambda: answered == ["plan", "what", "whatever", "whatever"])
        await window.answered("with whatever")
        assert await window.all(".message.user .text") == ["plan", "whatever"]
