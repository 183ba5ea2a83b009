"""The client for JavaScript (clients/js), in Node: no browser, the same modules."""

from __future__ import annotations

import asyncio
import subprocess

import pytest
from app.test_waiting import agent, calling
from google.adk.agents import LlmAgent

from support.browser import rehearsal
from support.chat import http
from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn
from support.guarded import guarded
from support.node import PACKAGE, installed, node, talking
from support.proxy import network
from support.server import a_relay, serving
from support.tokens import token

REHEARSAL = "This is a rehearsal: no model is connected. "
"""What the offline agent begins with."""


@pytest.mark.parametrize("web_socket", ["built-in", "ws"])
async def test_a_tool_and_an_answer(web_socket: str) -> None:
    options = {"ws": (installed() / "ws" / "wrapper.mjs").as_uri()} if web_socket == "ws" else {}
    async with serving(a_relay(rehearsal())) as port, talking(port, user="alice", **options) as talk:
        text_id = await talk.do("say", "What time is it in Tokyo?")
        await talk.until(lambda: talk.messages("turn_end"))
        question, answer = talk.state["messages"]
        assert (question["role"], question["id"], question["mine"]) == ("user", text_id, True)
        assert answer["role"] == "agent"
        assert answer["text"].endswith("in Asia/Tokyo.")
        [tool] = answer["tools"]
        assert tool["tool_name"] == "get_current_time"
        assert "local_time" in tool["result"]
        [started] = [told for told in talk.told if told.get("message", {}).get("type") == "tool_start"]
        assert started["state"]["messages"][-1]["tools"] == [{**tool, "result": None}]
        await talk.until(lambda: not talk.state["messages"][0]["status"])  # it is stored
        assert talk.state["model"]
        assert talk.state["connection"]["name"] == "connected"
        async with talking(port, user="alice", **options) as later:  # as after a reload
            await later.until(lambda: later.state["messages"])
            told = later.state["messages"]
            assert [line["text"] for line in told] == [question["text"], answer["text"]]
            [kept] = told[1]["tools"]
            for name in ("tool_id", "tool_name", "arguments", "result"):
                assert kept[name] == tool[name]
            assert all(line["time"] for line in told)


async def test_state_that_is_set_with_a_text(gemini: GeminiLive) -> None:
    agent = LlmAgent(name="tester", model="gemini-3.8-live", instruction="Talk with {name?}.")
    async with serving(a_relay(agent)) as port, talking(port, user="alice") as talk:
        await talk.do("say", "hello", {"stateDelta": {"name": "Ann"}})
        await talk.until(lambda: talk.messages("turn_end"))
        assert "Talk with Ann." in str(gemini.connections[0].setup["systemInstruction"])


async def test_a_voice_that_the_user_chooses(gemini: GeminiLive) -> None:
    async with serving(a_relay(voices="Puck,Kore")) as port, talking(port, user="alice") as talk:
        await talk.until(lambda: talk.state["connection"]["name"] == "connected")
        assert (talk.state["voices"], talk.state["voice"]) == (["Puck", "Kore"], "")
        assert (talk.state["languages"], talk.state["language"]) == ([], "")
        assert await talk.do("configure", {"voice": "Kore"}) is True
        await talk.until(lambda: talk.state["voice"] == "Kore")
        assert await talk.do("configure", {"language": "de-DE"}) is True
        await talk.until(lambda: talk.messages("error"))
        await talk.do("say", "hello")
        await talk.until(lambda: talk.messages("turn_end"))
        assert "Kore" in str(gemini.connections[0].setup)


async def test_what_a_client_sets_of_how_the_agent_answers(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(str((await connection.call_tool("paint", {"color": "red"}))["result"]))

    gemini.answer = answer
    tool = {"name": "paint", "parameters": {"type": "object"}}
    async with serving(a_relay()) as port, talking(port, user="alice") as talk:
        await talk.until(lambda: talk.state["connection"]["name"] == "connected")
        assert (talk.state["instructions"], talk.state["clientTools"]) == ("", [])
        choice = {"instructions": "Be brief.", "tools": [tool], "pushToTalk": True, "temperature": 0.5}
        assert await talk.do("configure", choice) is True
        await talk.until(lambda: talk.state["pushToTalk"])
        names = ("instructions", "clientTools", "mustPushToTalk", "temperature")
        assert [talk.state[name] for name in names] == ["Be brief.", [tool], True, 0.5]
        await talk.do("say", "go")
        await talk.until(lambda: talk.state["waiting"])
        [call] = talk.state["waiting"]
        assert (call["tool_name"], call["arguments"]) == ("paint", {"color": "red"})
        await talk.do("answerTool", call["tool_id"], "It is red.")
        await talk.until(lambda: talk.lines[-1] == "It is red.")
        assert await talk.do("configure", {"tools": [], "instructions": "", "pushToTalk": False}) is True
        await talk.until(lambda: not talk.state["pushToTalk"])
        assert [talk.state[name] for name in names] == ["", [], False, 0.5]


async def test_a_text_is_taken_back_and_edited(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"You said: {turn.text}.", complete=turn.text != "two")

    gemini.answer = answer
    async with serving(a_relay()) as port, talking(port, user="alice") as talk, client(port, "alice") as bob:
        await talk.do("say", "one")
        await talk.until(lambda: talk.messages("turn_end"))
        two = await talk.do("say", "two")
        await talk.until(lambda: talk.lines[-1] == "You said: two.")
        assert await talk.do("rewind", two) is True
        await talk.do("say", "three")
        await talk.reads("one", "You said: one.", "three", "You said: three.")
        await talk.until(lambda: not talk.state["expecting"])
        await bob.ask("four")
        await talk.reads("one", "You said: one.", "three", "You said: three.", "four", "You said: four.")
        assert await talk.do("rewind") is True  # it is another's, in one's own conversation
        await talk.reads("one", "You said: one.", "three", "You said: three.")
        assert await talk.do("rewind", two) is True
        await talk.until(lambda: talk.messages("error"))
        assert len(talk.lines) == 4


async def test_the_example_for_a_terminal() -> None:
    async with serving(a_relay(rehearsal())) as port:
        process = await asyncio.create_subprocess_exec(
            *(*node(), "examples/terminal.js", f"http://127.0.0.1:{port}", "hello"),
            cwd=PACKAGE,
            stdout=subprocess.PIPE,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode().endswith("You said: hello\n")


async def test_nothing_is_lost_and_nothing_comes_twice(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One,", complete=False)
        await go_on.wait()
        await connection.say(f" {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        network(port) as (between, there),
        talking(there, user="alice") as talk,
    ):
        await talk.do("say", "two")
        await talk.until(lambda: talk.lines == ["two", "One,"])
        between.up.clear()
        unsure = await talk.do("say", "unsure")
        await talk.until(lambda: {"type": "sent", "id": unsure} in talk.messages("sent"))
        between.cut()
        await talk.until(lambda: talk.state["connection"]["name"] == "waiting")
        assert await talk.do("cancel", unsure) is False  # it may have arrived
        await talk.do("say", "meanwhile")
        not_this = await talk.do("say", "not this")
        assert talk.state["messages"][-1]["status"] == "waiting"
        assert await talk.do("cancel", not_this) is True
        assert await talk.do("cancel", not_this) is False
        go_on.set()
        between.mend()
        await talk.until(lambda: talk.lines[-1] == "One, meanwhile.")  # it may interrupt the one before
        assert talk.lines[:3] == ["two", "One, two.", "unsure"]
        assert [line["text"] for line in talk.state["messages"] if line["mine"]] == [
            "two",
            "unsure",
            "meanwhile",
        ]
        assert await talk.do("cancel", talk.state["messages"][0]["id"]) is False
        await talk.until(lambda: not any(line["status"] for line in talk.state["messages"]))
    assert gemini.connections[0].texts == ["two", "unsure", "meanwhile"]


async def test_an_answer_that_is_stopped_and_others_in_the_conversation(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with (
        serving(a_relay(grace=30)) as port,
        talking(port, user="alice", audio=True) as talk,
        client(port, "alice", query="&name=Bob") as bob,
    ):
        await talk.until(lambda: talk.state["connections"] == 2)
        await talk.do("say", "count")
        await talk.until(lambda: sum(each["samples"] for each in talk.messages("sound")) == 4 * 960)
        assert talk.lines == ["count", "One two"]
        await talk.do("interrupt")
        await talk.until(lambda: talk.messages("turn_end"))
        assert talk.state["messages"][-1]["interrupted"]
        [end] = talk.messages("turn_end")
        await talk.do("heard", 100, end["seq"])  # of 160
        await talk.until(lambda: talk.lines == ["count", "One"])
        await bob.send(type="typing_start")
        await talk.until(lambda: talk.state["typing"] == [bob.hello["connection_id"]])
        await bob.send(mime_type="text/plain", data="hello")
        await talk.reads("count", "One", "hello", "You said: hello.")
        line = talk.state["messages"][2]
        assert (line["name"], line["mine"], line["role"]) == ("Bob", False, "user")
        assert talk.messages("sound")
        # Who comes later gets the conversation so far.
        async with talking(port, user="alice") as late:
            await late.reads("count", "One", "hello", "You said: hello.")


async def test_where_no_websocket_gets_through() -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        network(port) as (between, there),
    ):
        between.takes_upgrades = False
        async with talking(there) as talk:
            await talk.do("say", "early")
            await talk.until(lambda: talk.state["beside"])
            await talk.reads("early", REHEARSAL + "You said: early")
            await talk.do("say", "What time is it in Tokyo?")
            await talk.until(lambda: len(talk.messages("turn_end")) == 2)
            answer = talk.state["messages"][-1]
            assert answer["beside"]
            assert "local_time" in answer["tools"][0]["result"]
            between.takes_upgrades = True
            await talk.do("retry")
            await talk.until(lambda: talk.state["connection"]["name"] == "connected")
            assert not talk.state["beside"]
            assert len(talk.lines) == 4
            # The other way: the server goes, and comes back.
            sent = len(talk.messages("state"))
            between.cut()
            await talk.until(lambda: len(talk.messages("state")) > sent + 3)
            between.mend()
            await talk.until(lambda: talk.state["connection"]["name"] == "connected")

        between.takes_upgrades = False
        async with talking(there, fallbackSession="beside") as talk:
            await talk.do("say", "a long " * 1000)
            await talk.until(lambda: talk.messages("sent"))
            await talk.do("say", "another")
        # It was closed in the middle of an answer, and has said nothing more.
        async with http(port) as guest:
            history = (await guest.get("/sessions/beside")).json()["history"]
        assert [line["text"][:7] for line in history if line["role"] == "user"] == ["a long "]


async def test_a_tool_that_waits_for_the_user(gemini: GeminiLive) -> None:
    gemini.answer = calling("ask_office", {"amount": 5})
    async with (
        serving(a_relay(agent(), grace=30)) as port,
        talking(port, user="alice") as talk,
        talking(port, user="alice") as other,
    ):
        await talk.do("say", "go")
        for each in (talk, other):
            await each.until(lambda: each.state["waiting"])  # noqa: B023
        [asked] = talk.state["waiting"]
        assert (asked["tool_name"], asked["arguments"], asked["result"]) == (
            "ask_office",
            {"amount": 5},
            None,
        )
        assert await other.do("answerTool", asked["tool_id"], {"approved": True}) is True
        for each in (talk, other):
            await each.until(lambda: not each.state["waiting"])  # noqa: B023
        await talk.until(lambda: "approved" in talk.lines[-1] and not talk.state["answering"])
        # It is told whoever comes late to answer.
        await talk.do("answerTool", asked["tool_id"], {"approved": False})
        await talk.until(lambda: talk.state["error"])
        assert talk.state["error"]["code"] == "unknown_tool"


async def test_a_token() -> None:
    async with guarded() as port, talking(port) as talk:
        await talk.until(lambda: talk.state["connection"]["name"] == "ended")
        assert "token" in talk.state["connection"]["reason"]
        await talk.do("renew", token("ann@example.com"))
        await talk.until(lambda: talk.messages("hello"))
        assert talk.messages("hello")[0]["user_id"] == "ann~40example.com"
        await talk.do("stream", {"session_id": "s", "message": "hello"})
        await talk.until(talk.heard)
        [(name, why)] = talk.heard()  # the stream was given no token
        assert name == "onError"
        assert "token" in why


@pytest.mark.parametrize("way", ["WebSocket", "HTTP"])
async def test_one_question_and_its_events(way: str) -> None:
    async with (
        serving(a_relay(rehearsal())) as port,
        network(port) as (between, there),
        talking(port) as talk,
    ):
        between.takes_upgrades = way == "WebSocket"
        url = f"http://127.0.0.1:{there}/"
        await talk.do("stream", {"session_id": "kitchen", "message": "What time is it in Tokyo?"}, url)
        await talk.until(lambda: any(name == "onDone" for name, _ in talk.heard()))
        (start, started), (complete, completed), (response, answer), (done, _) = talk.heard()
        assert [start, complete, response, done] == ["onToolStart", "onToolComplete", "onResponse", "onDone"]
        assert started["result"] is None
        assert completed == started | {"result": completed["result"]}
        assert "local_time" in completed["result"]
        assert answer["content"].endswith("in Asia/Tokyo.")
        assert [call["tool_id"] for call in answer["tool_calls"]] == [started["tool_id"]]

        await talk.do("stream", {"session_id": "kitchen", "message": ""}, url)
        await talk.until(lambda: len(talk.heard()) > 4)
        assert talk.heard()[4][0] == "onError"
        await talk.do("stream", {"session_id": "kitchen", "message": "a long story"}, url)
        await talk.do("closeStream")
        assert len(talk.heard()) == 5
