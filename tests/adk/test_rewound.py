"""What is taken back, as it is stored: also when the process that has the conversation dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from adk.test_takeover import an_owner, lines, the_next, told
from google.adk.events import Event, EventActions
from google.genai import types

from adk_relay.adk.calls import WAITING
from adk_relay.adk.lines import Lines, said_by, said_in
from adk_relay.adk.marks import mark
from adk_relay.adk.rewound import changes_state, rewinding, rewound
from adk_relay.core.messages import Gap, Place, UserText
from adk_relay.core.rewind import Rewind, Rewound
from support.gemini import GeminiLive
from support.owners import check_numbers
from support.process import HANGS


@pytest.mark.parametrize("at", ["begun", "stored", "told"])
async def test_the_next_owner_takes_it_back(gemini: GeminiLive, tmp_path: Path, at: str) -> None:
    async with an_owner(tmp_path) as first:
        alice, bob = first.attend(), first.attend("bob")
        for text in ("one", "two"):
            alice.say(UserText(text, id=text))
            await bob.turn(1 if text == "one" else 2)
        if at == "told":
            alice.say(Rewind("two"))
            await bob.until(lambda message: isinstance(message, Rewound))
        elif at == "stored":
            dead = first.cut_when(lambda event: bool(said_by(event).rewinds))
            alice.say(Rewind("two"))
            async with asyncio.timeout(HANGS):
                await dead.wait()
        else:
            begun = asyncio.Event()

            async def never(*_: Any, **__: Any) -> Event:
                begun.set()
                await asyncio.Event().wait()
                raise AssertionError

            first.service.append_event = never  # type: ignore[method-assign]
            alice.say(Rewind("two"))
            async with asyncio.timeout(HANGS):
                await begun.wait()
        await first.kill()
        async with the_next(first) as second:
            new, bobs = second.attend(after=alice), second.attend("bob", after=bob)
            assert await second.stored() == lines("one", "You said: one.")
            for before, after in ((alice, new), (bob, bobs)):
                [gone] = [*told(before, Rewound), *told(after, Rewound)]
                assert isinstance(gone, Rewound)
                assert (gone.id, gone.messages, gone.message_count) == ("two", 2, 2)
                assert told(after, Gap) == []
                check_numbers(before, after)
            new.say(UserText("three", id="three"))
            await bobs.turn(1)
            assert await second.stored() == lines("one", "You said: one.", "three", "You said: three.")
            assert second.conversation
            history = second.conversation.room.history
            assert history.message_count == history.next_place == 4
            asked = [text for role, text in gemini.connections[-1].context if role == "user"]
            assert asked == ["one", "three"]


def event(text: str, author: str, seq: int, **state: Any) -> Event:
    content = types.Content(role="user" if author == "user" else "model", parts=[types.Part(text=text)])
    made = Event(author=author, content=content, actions=EventActions(state_delta=state))
    mark(made, Place("e", seq))
    return made


def test_the_events_that_count() -> None:
    call = Event(author="tester", actions=EventActions(state_delta={"noted": 2}))
    events = [
        event("one", "user", 1, name="Ann"),
        event("two", "user", 5, name="Bob", city="Rome", **{"user:x": 1}),
        event("First", "tester", 2),  # the second text has cut it: it is stored late
        call,
        event("Second", "tester", 6),
    ]
    assert changes_state(Place("e", 5), events)
    assert not changes_state(Place("e", 6), events)
    state = {WAITING: {"a": [{"id": call.id, "author": "t"}], "b": [{"id": events[0].id, "author": "t"}]}}
    taken = rewinding(Place("e", 5), events, state, frozenset({"city"}))
    assert taken.actions.state_delta == {"name": "Ann", "noted": None, WAITING: {"b": state[WAITING]["b"]}}
    assert rewound([*events, taken]) == [events[0], events[2]]
    later = event("three", "user", 9)
    assert rewound([*events, taken, later]) == [events[0], events[2], later]
    again = rewinding(Place("e", 1), rewound([*events, taken]), {}, frozenset())
    assert rewound([*events, taken, again, later]) == [later]


def test_the_messages_that_count() -> None:
    whole = Lines()
    stored = [
        event("one", "user", 1),
        event("two", "user", 5),
        event("First", "tester", 2),
        event("Second", "tester", 6),
    ]
    stored.append(rewinding(Place("e", 5), stored, {}, frozenset()))
    stored.append(event("three", "user", 9))
    for each in stored:
        assert said_by(each) == said_in(each.model_dump(mode="json", exclude_none=True))
        whole.add(said_by(each))
    assert [line.text for line in whole.kept] == ["one", "First", "three"]
    assert (whole.count, whole.by_user) == (3, 2)
