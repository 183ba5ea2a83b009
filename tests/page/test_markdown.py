"""Answers are Markdown: what of it is drawn, and what is not."""

from __future__ import annotations

import hashlib
import re

import pytest
from playwright.async_api import Browser, Page, expect

from support.api import STATIC
from support.browser import Tab, rehearsal, until, violations, visit
from support.chat import created, guest
from support.gemini import Connection, GeminiLive, UserTurn
from support.rooms import window
from support.server import a_relay, serving

# One browser for all tests of a worker, and so one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = """\
### Plan

Go to [the site](https://one.example/a?b=1&amp;c), or write to ann@one.example. Never ~~this~~:
[run](javascript:xss()), ![a cat](https://two.example/cat.png), <img src=x onerror=xss()> &lt;b&gt;

- **one**
  1. inner
- [x] two

> said `twice`

```python
if a < b:
    print("**no bold**")
```

| left | right |
|:-----|------:|
| a | **b** |

##### Deep

The [end][1].

[1]: https://three.example/
"""

GROW = """async ({ text, seed }) => {
  const { AnswerText } = await import("/static/answer.js");
  const random = () => ((seed = (seed * 1103515245 + 12345) % 2147483648), seed / 2147483648);
  const whole = new AnswerText();
  whole.finish(text);
  const grown = new AnswerText();
  const flickers = [];
  const different = []; // from the same that is drawn at once
  const frame = window.requestAnimationFrame;
  window.requestAnimationFrame = (draw) => (draw(1e12), 0); // no frame is waited for
  try {
    for (let at = 0; at < text.length; ) {
      const size = 1 + Math.floor(random() * 9);
      grown.append(text.slice(at, at + size));
      at += size;
      if (/^\\[1\\]/m.test(text.slice(0, at))) continue; // the address of a link comes last, and counts then
      const anew = new AnswerText();
      anew.append(text.slice(0, at));
      if (anew.element.innerHTML !== grown.element.innerHTML) different.push(text.slice(0, at));
      const shown = grown.element.cloneNode(true);
      for (const code of shown.querySelectorAll("pre")) code.remove();
      const found = /\\*\\*|\\]\\(|```|\\|:?-/.exec(shown.textContent);
      if (found) flickers.push([text.slice(Math.max(at - 20, 0), at), found[0]]);
    }
  } finally {
    window.requestAnimationFrame = frame;
  }
  grown.finish();
  const [one, other] = [whole.element.innerHTML, grown.element.innerHTML];
  return { whole: one, grown: other, flickers, different, source: grown.source };
}"""
"""Lets a text grow in random chunks, and draws it after each."""


async def test_a_text_that_grows_is_drawn_as_one_that_is_there(browser: Browser) -> None:
    texts = [
        ANSWER,
        "Here:\n- a\n\n  more of a\n- b\n\n1. x\n2. y\n\nEnd\n===\n\n    code\n\n***\n\n"
        "* c\n*d* and **e *f* g**\n",
        "> a\n> - b\n>\n> c\nd\n\n<div>\n**no**\n</div>\n\n~~~\n`` ` ``\n~~~\n"
        "`a` ``b`` \\* 2 * 3 * 4 [5] (6)",
        "a\r\nb\r\n\r\n| x |\r\n|---|\r\n| `|` |\r\n\r\n- [ ] c &#65;&nope;&#x1F600;",
        "> " * 3000 + "deep",
    ]
    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as tab:
        for number, text in enumerate(texts):
            for seed in range(1 if len(text) > 5000 else 12):
                drawn = await tab.page.evaluate(GROW, {"text": text, "seed": seed})
                assert drawn["grown"] == drawn["whole"], (number, seed)
                assert drawn["different"] == []
                assert drawn["source"] == text.replace("\r", "")
                if number == 0:
                    assert drawn["flickers"] == []


async def test_what_is_drawn_and_what_is_not(gemini: GeminiLive, browser: Browser) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(ANSWER)

    gemini.answer = answer
    async with serving(a_relay(grace=60)) as port:
        room = await created(port)
        async with visit(browser, port, f"/?user=guest&session={room}") as tab:
            await tab.say("# **plain**")
            await sees(tab.page, 2)
            announced = tab.page.locator("#announcer p")
            await expect(announced.filter(has_text="Agent: Plan\nGo to the site, or")).to_have_count(1)
            for sign in ("**", "](", "###", "```"):
                await expect(announced.filter(has_text=sign)).to_have_count(0)
            await expect(tab.page.locator(".message.user .text")).to_have_text("# **plain**")
            assert await violations(tab.page) == []
            await scrolls_by_itself(tab)
            await tab.page.reload()
            await sees(tab.page, 2)
        async with window(browser, port, room) as tab:
            await sees(tab.page, 3)
            assert await violations(tab.page) == []
            async with guest(port, room) as bob:
                await bob.say("again")
                await expect(tab.page.locator(".message.agent .code")).to_have_count(2)
                await expect(tab.page.locator(".message.agent a")).to_have_count(8)


async def sees(page: Page, level: int) -> None:
    text = page.locator(".message.agent .text").first
    await expect(text.locator("[href='https://three.example/']")).to_have_text("end")
    await expect(text.get_by_role("heading", level=level)).to_have_text("Plan")
    await expect(text.get_by_role("heading", level=level + 1)).to_have_text("Deep")
    links = text.get_by_role("link")
    assert [await link.get_attribute("href") for link in await links.all()] == [
        "https://one.example/a?b=1&c",
        "mailto:ann@one.example",
        "https://two.example/cat.png",
        "https://three.example/",
    ]
    for link in await links.all():
        assert await link.get_attribute("target") == "_blank"
        assert "noopener" in (await link.get_attribute("rel") or "")
    await expect(text.locator("img, [onerror]")).to_have_count(0)
    await expect(text).to_contain_text(re.compile(r"run, a cat, <img src=x onerror=xss\(\)> <b>"))
    await expect(text.locator("ul > li > ol > li")).to_have_text("inner")
    await expect(text.locator("li.task")).to_have_text("☑ two")
    await expect(text.locator("blockquote code")).to_have_text("twice")
    await expect(text.locator("pre")).to_have_text('if a < b:\n    print("**no bold**")')
    await expect(text.locator("thead th")).to_have_text(["left", "right"])
    await expect(text.locator("tbody td.right strong")).to_have_text("b")


async def scrolls_by_itself(tab: Tab) -> None:
    """What is too wide does not widen the page, and can be scrolled by keyboard."""
    await tab.page.set_viewport_size({"width": 360, "height": 640})
    wide = tab.page.locator(".message.agent pre")
    await wide.evaluate("(node) => { node.firstChild.append('x'.repeat(200)); }")
    assert await tab.page.evaluate("() => document.documentElement.scrollWidth") == 360
    await wide.focus()
    await tab.page.keyboard.press("ArrowRight")
    await until(lambda: wide.evaluate("(node) => node.scrollLeft"), lambda left: left > 0)
    await tab.page.set_viewport_size({"width": 1280, "height": 720})


async def test_what_is_selected_stays_while_an_answer_grows(browser: Browser) -> None:
    async with serving(a_relay(rehearsal())) as port, visit(browser, port) as tab:
        selected = await tab.page.evaluate(
            """async () => {
              const { AnswerText } = await import("/static/answer.js");
              const answer = new AnswerText();
              document.getElementById("messages").append(answer.element);
              answer.append("One **two** three");
              const [first, , last] = answer.element.querySelector("p").childNodes;
              getSelection().setBaseAndExtent(first, 0, last, 3);
              answer.append(" four.\\n\\n- five");
              await new Promise(requestAnimationFrame);
              answer.append(" six\\n- seven");
              answer.finish();
              return [String(getSelection()), answer.element.textContent];
            }"""
        )
        assert selected == ["One two th", "One two three four.five sixseven"]


async def test_what_others_have_made_is_unchanged() -> None:
    readme = (STATIC / "vendor" / "README.md").read_text()
    for file in (STATIC / "vendor").glob("*.js"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in readme, file.name
        assert file.with_suffix(".LICENSE.txt").is_file()
