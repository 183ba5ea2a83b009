"""What was not heard of an answer, as it is stored: also when a connection is lost, or the process dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from adk.test_rewound import event
from adk.test_several import by_agent, family
from adk.test_takeover import an_owner, the_next, told
from google.adk.events import Event
from google.genai import types

from adk_relay.adk.lines import Lines, said_by, said_in
from adk_relay.adk.marks import mark, unheard_of
from adk_relay.adk.rewound import rewinding, rewound
from adk_relay.core.heard import Heard, Shortened
from adk_relay.core.messages import Gap, Interrupt, Line, Place, UserText
from support.gemini import Connection, GeminiLive, UserTurn
from support.owners import Owner, check_numbers
from support.process import HANGS
from support.sound import Attendee

pytestmark = pytest.mark.usefixtures("quick_retries")

COUNT = "One two three four five."
WORD_MS = 80
"""How long the stand-in speaks each word."""


async def answer(connection: Connection, turn: UserTurn) -> None:
    if turn.text == "count":
        await connection.say(COUNT, complete=False)
        await asyncio.Event().wait()
    await connection.say(f"You said: {turn.text}.")


async def counted(owner: Owner) -> Attendee:
    """Somebody who listens has asked, and has got the whole answer, which goes on."""
    alice = owner.attend(is_audio=True)
    alice.say(UserText("count", id="count"))
    await alice.until(lambda _: len(alice.sound) == 48 * WORD_MS * 5)
    return alice


def texts(lines: list[Line]) -> list[tuple[str, bool]]:
    return [(line.text, line.interrupted) for line in lines]


def known(gemini: GeminiLive) -> str:
    return " ".join(text for role, text in gemini.connections[-1].context if role == "model")


async def test_the_next_connection_gets_what_was_heard(gemini: GeminiLive, tmp_path: Path) -> None:
    """Not what the service itself remembers. It is told again if it could not be stored at once."""
    gemini.answer = answer
    async with an_owner(tmp_path) as owner:
        alice = await counted(owner)
        alice.say(Heard(2.5 * WORD_MS))  # before its end
        append, failed = owner.service.append_event, 0

        async def fails(*args: Any, **named: Any) -> Event:
            nonlocal failed
            [stored] = [each for each in (*args, *named.values()) if isinstance(each, Event)]
            if not said_by(stored).unheard:
                return await append(*args, **named)
            failed += 1
            raise OSError("the disk is full")

        owner.service.append_event = fails  # type: ignore[method-assign]
        alice.say(Interrupt())
        await alice.until(lambda message: isinstance(message, Shortened))
        [shortened] = told(alice, Shortened)
        assert isinstance(shortened, Shortened) and shortened.text == "One two"
        alice.say(UserText("more", id="more"))
        await alice.turn(2)
        assert failed == 1
        await gemini.wait_for(lambda: gemini.handles)
        await gemini.connections[0].go_away(30)
        await gemini.wait_for(lambda: len(gemini.connections) == 2)
        alice.say(UserText("again", id="again"))
        await alice.turn(3)
        assert gemini.connections[-1].handle is None
        assert "One two" in known(gemini) and "three" not in known(gemini)
        owner.service.append_event = append  # type: ignore[method-assign]
        assert owner.conversation
        owner.conversation.detach(owner.listeners[0], at_once=True)
        await owner.conversation.ended()
        assert ("One two", True) in texts(await owner.stored())


async def test_an_agent_that_takes_over_gets_what_was_heard(gemini: GeminiLive, tmp_path: Path) -> None:
    """In the same run, whose own session does not have it."""

    async def speaks(connection: Connection, turn: UserTurn) -> None:
        await (answer if turn.text == "count" else by_agent)(connection, turn)

    gemini.answer = speaks
    async with an_owner(tmp_path, family()) as owner:
        alice = await counted(owner)
        alice.say(Interrupt())
        alice.say(Heard(2.5 * WORD_MS))
        alice.say(UserText("hand over", id="hand over"))
        await gemini.wait_for(lambda: len(gemini.connections) == 2 and gemini.connections[1].said)
        assert "One two" in (known := str(gemini.connections[1].context)) and "three" not in known


@pytest.mark.parametrize("at", ["told", "stored"])
async def test_the_next_owner_knows_what_was_heard(gemini: GeminiLive, tmp_path: Path, at: str) -> None:
    gemini.answer = answer
    async with an_owner(tmp_path) as first:
        alice = await counted(first)
        alice.say(Interrupt())
        if at == "told":

            async def never(*_: Any, **__: Any) -> Event:
                await asyncio.Event().wait()
                raise AssertionError

            first.service.append_event = never  # type: ignore[method-assign]
            alice.say(Heard(2.5 * WORD_MS))
            await alice.until(lambda message: isinstance(message, Shortened))
        else:
            dead = first.cut_when(lambda event: said_by(event).unheard is not None)
            alice.say(Heard(2.5 * WORD_MS))
            async with asyncio.timeout(HANGS):
                await dead.wait()
        await first.kill()
        async with the_next(first) as second:
            new = second.attend(after=alice)
            expected = [("count", False), ("One two", True)]
            assert texts(await second.stored()) == expected
            assert second.conversation and texts(second.conversation.room.history.lines()) == expected
            new.say(UserText("more", id="more"))
            await new.turn()
            assert texts(await second.stored()) == [*expected, ("more", False), ("You said: more.", False)]
            assert "One two" in known(gemini) and "three" not in known(gemini)
            assert told(new, Gap) == []
            check_numbers(alice, new)


def spoken(text: str, seq: int, tool: str = "") -> Event:
    made = Event(author="tester", output_transcription=types.Transcription(text=text, finished=True))
    if tool:
        call = types.Part(function_call=types.FunctionCall(id=tool, name=tool, args={}))
        content = types.Content(role="model", parts=[types.Part(text=text), call])
        made = Event(author="tester", content=content)
    mark(made, Place("e", seq))
    return made


def words(events: list[Event]) -> list[str]:
    return [said.text + said.spoken for said in map(said_by, events)]


def test_the_words_that_count() -> None:
    """For the model and for everybody else, whatever is stored first."""
    heard = unheard_of(Shortened(9, "One two three", 3, 1), "e")
    one, rest = spoken("One two", 3, tool="clock"), spoken(" three four", 3)
    asked, other = event("one", "user", 2), event("next", "user", 10)
    orders = [0, 1, 2, 3, 4], [0, 3, 1, 4, 2], [3, 0, 1, 2, 4]
    stored = [asked, one, rest, heard, other]
    for order in ([stored[index] for index in each] for each in orders):
        lines = Lines()
        for each in order:
            assert said_by(each) == said_in(each.model_dump(mode="json", exclude_none=True))
            lines.add(said_by(each))
        assert [(line.text, line.interrupted) for line in lines.kept][:2] == [
            ("one", False),
            ("One two three", True),
        ]
        assert [text for text in words(rewound(order)) if text] == [
            text.replace(" four", "") for text in words(order) if text
        ]
    assert words([one, rest]) == ["One two", " three four"], "what is stored stays as it is"
    nothing = unheard_of(Shortened(9, "", 3, 1), "e")
    left = rewound([asked, one, rest, nothing, other])
    assert words(left) == ["one", "", "", "next"] and left[1].get_function_calls()
    assert words(rewound([asked, rest, unheard_of(Shortened(9, "", 3, 1), "f")])) == [
        "one",
        " three four",
        "",
    ]


def test_what_was_not_heard_stays_unheard_when_the_question_after_it_is_taken_back() -> None:
    heard = unheard_of(Shortened(9, "One", 3, 1), "e")
    first, second = event("one", "user", 2), event("two", "user", 8)
    events = [first, second, spoken("One two", 3), heard, spoken("Two", 10)]
    events.append(rewinding(Place("e", 8), rewound(events), {}, frozenset()))
    assert [text for text in words(rewound(events)) if text] == ["one", "One"]
    lines = Lines()
    for each in events:
        lines.add(said_by(each))
    assert [line.text for line in lines.kept] == ["one", "One"]
