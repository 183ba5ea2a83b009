"""Instructions, tools, push to talk and a temperature that clients set for their conversation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.adk.agents import LlmAgent
from websockets.typing import Origin

from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.core.visitor import Visitor
from adk_relay.wire.asgi import Scope
from support.chat import asking, end, http
from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]

PAINT = {
    "name": "paint",
    "description": "Paints the wall.",
    "parameters": {
        "type": "object",
        "properties": {"color": {"type": "string"}},
        "required": ["color"],
        "additionalProperties": False,
    },
}
OWN = 'Be kind.\n\nYou are an agent. Your internal name is "tester".'
"""What ADK tells the model of the agent's own."""

BRIEF = "Be brief. {Not filled in}"
DRESSED = {"instructions": BRIEF, "tools": [PAINT], "temperature": 0.5}


def clock() -> str:
    """Tells the time."""
    return "noon"


def agent() -> LlmAgent:
    return LlmAgent(name="tester", model="gemini-3.8-live", instruction="Be kind.", tools=[clock])


def instruction(connection: Connection) -> str:
    return "".join(part["text"] for part in connection.setup["systemInstruction"]["parts"])


def tools(connection: Connection) -> dict[str, Json]:
    """What the model was told of the tools, by their names."""
    listed = connection.setup.get("tools", [])
    return {each["name"]: each for tool in listed for each in tool["functionDeclarations"]}


def temperature(connection: Connection) -> float | None:
    found: float | None = connection.setup["generationConfig"].get("temperature")
    return found


async def told(who: Client, kind: str = "configured") -> Json:
    return (await who.until(lambda said: said.get("type") == kind))[-1]


async def painting(connection: Connection, turn: UserTurn) -> None:
    """Calls a tool when it hears "go", and says what it returned."""
    if turn.audio:
        await connection.say("I heard you.")
    elif turn.text == "go":
        result = await connection.call_tool("paint", {"color": "red"})
        await connection.say(f"Returned {json.dumps(result)}.")
    else:
        await connection.say(f"You said: {turn.text}.")


@pytest.mark.usefixtures("quick_retries")
async def test_each_conversation_has_its_own(gemini: GeminiLive) -> None:
    gemini.answer = painting
    async with serving(a_relay(agent())) as port, client(port, "ann") as ann, client(port, "ben") as ben:
        await ann.send(type="configure", **DRESSED)
        assert await told(ann) == {"type": "configured", "voice": "", "language": "", **DRESSED}
        # Before anything was said, it shapes the first run.
        await ann.say("go")
        call = (await ann.until(lambda said: said.get("pending")))[-1]
        assert (call["tool_name"], call["arguments"]) == ("paint", {"color": "red"})
        await ben.send(type="configure", instructions="Rhyme.")
        assert await ben.ask("hello") == "You said: hello."
        first, of_ben = gemini.connections
        assert instruction(first) == f"{OWN}\n\n{BRIEF}"
        assert instruction(of_ben) == f"{OWN}\n\nRhyme."
        assert [*tools(first)] == ["clock", "paint"]
        assert [*tools(of_ben)] == ["clock"]
        declared = tools(first)["paint"]
        assert declared["description"] == PAINT["description"]
        assert declared["parametersJsonSchema"] == PAINT["parameters"]
        assert (temperature(first), temperature(of_ben)) == (0.5, None)
        async with client(port, "ann") as late:
            assert {name: late.hello.get(name) for name in DRESSED} == DRESSED
            await ann.turn()
            await late.send(type="tool_result", tool_id=call["tool_id"], result={"done": True})
            assert words(await ann.turn()) == 'Returned {"done": true}.'
        assert [each["response"] for each in first.tool_responses] == [{"done": True}]
        # Another connection has all of it, and none of it twice.
        first.abort()
        await ann.until(lambda said: said.get("state") == "live")
        again = gemini.connections[-1]
        assert instruction(again) == f"{OWN}\n\n{BRIEF}"
        assert [*tools(again)] == ["clock", "paint"]
        assert temperature(again) == 0.5
        # What is the same already needs no connection; a change makes one at once.
        await ann.send(type="configure", tools=[PAINT])
        await told(ann)
        before = gemini.connects
        await ann.send(type="configure", tools=[], instructions="")
        assert await told(ann) == {"type": "configured", "voice": "", "language": "", "temperature": 0.5}
        plain = await gemini.connection(before)
        assert (instruction(plain), [*tools(plain)]) == (OWN, ["clock"])
        assert await ann.ask("bye") == "You said: bye."
        assert gemini.connects == before + 1


async def test_after_a_restart_and_in_an_emptied_conversation(gemini: GeminiLive, tmp_path: Path) -> None:
    settings = {"sessions": f"sqlite:///{tmp_path}/sessions.db"}
    async with serving(a_relay(agent(), **settings)) as port, client(port, "guest") as who:
        await who.ask("one")
        await who.send(type="configure", **DRESSED, push_to_talk=True)
        await told(who)
        await gemini.connection(1)  # it is stored
        await who.send(type="rewind")  # what was said before is taken back, and not this
        await told(who, "rewound")
    async with serving(a_relay(agent(), **settings)) as port, client(port, "guest") as who:
        assert {name: who.hello.get(name) for name in DRESSED} == DRESSED
        assert who.hello["push_to_talk"] is True
        await who.ask("two")
        assert [*tools(gemini.connections[-1])] == ["clock", "paint"]
        async with http(port) as web:
            assert (await web.post("/sessions/live-guest/clear")).status_code == 200
            await told(who, "cleared")
            await who.ask("three")
            # It is nobody's business what is in the state for it.
            assert (await web.get("/sessions/live-guest")).json()["state"] == {}
        assert instruction(gemini.connections[-1]) == f"{OWN}\n\n{BRIEF}"
        assert temperature(gemini.connections[-1]) == 0.5
    # The agent has a tool of that name now, and the operator allows no other instructions any more.
    async with (
        serving(a_relay(LlmAgent(name="tester", model="gemini-3.8-live", tools=[paint]), **settings)) as port,
        client(port, "guest") as who,
    ):
        assert "tools" not in who.hello
        assert who.hello["instructions"] == BRIEF
    relay = a_relay(agent(), client_tools="off", **settings)
    async with serving(relay) as port, client(port, "guest") as who:
        assert not {"tools", "instructions"} & who.hello.keys()
        assert who.hello["temperature"] == 0.5


def paint(color: str) -> str:
    """Paints."""
    return color


async def test_what_the_model_refuses_is_taken_back(gemini: GeminiLive) -> None:
    """Otherwise a tool whose schema the model does not take would end the conversation for good."""
    refused = Plan(close_before_setup=(1007, "Request contains an invalid argument."))
    gemini.on_connect = {1: refused, 3: refused}.get
    async with serving(a_relay(agent())) as port, client(port, "guest") as who:
        await who.send(type="configure", tools=[PAINT])
        await told(who)
        async with asking(
            port, "live-guest", "one"
        ) as one:  # the request has its answer, and no error before it
            frames, code = await end(one)
        assert (code, [frame for frame in frames if frame["type"] == "error"]) == (1000, [])
        assert (await told(who, "error"))["code"] == "shape_refused"
        assert await told(who) == {"type": "configured", "voice": "", "language": ""}
        assert words(await who.turn()) == "You said: one."
        assert [[*tools(each)] for each in gemini.connections] == [["clock", "paint"], ["clock"]]
        # At once, in the middle of a conversation.
        await who.send(type="configure", instructions=BRIEF)
        assert (await told(who))["instructions"] == BRIEF
        assert (await told(who, "error"))["code"] == "shape_refused"
        assert await told(who) == {"type": "configured", "voice": "", "language": ""}
        assert await who.ask("two") == "You said: two."
        assert [*map(instruction, gemini.connections[2:])] == [f"{OWN}\n\n{BRIEF}", OWN]


@pytest.mark.voice
async def test_push_to_talk_in_one_conversation(gemini: GeminiLive) -> None:
    gemini.answer = painting
    async with serving(a_relay(agent())) as port, client(port, "ann", audio=True) as ann:
        async with client(port, "ben", audio=True) as ben:
            await ann.send(type="configure", push_to_talk=True)
            assert (await told(ann))["push_to_talk"] is True
            for _ in range(2):
                await ann.send(type="activity_start")
                await gemini.wait_for(lambda: any(each.is_listening for each in gemini.connections))
                await ann.socket.send(speech(200))
                await ann.socket.send(silence(400))  # ends nothing
                await ann.send(type="activity_end")
                assert words(await ann.turn()) == "I heard you."
            await ben.socket.send(speech(200) + silence(400))
            assert words(await ben.turn()) == "I heard you."
        manual = [each for each in gemini.connections if not each.detects_speech]
        assert [each.activities for each in manual] == [[speech(200) + silence(400)] * 2]
        await ann.send(type="configure", push_to_talk=False)
        assert "push_to_talk" not in await told(ann)
        await ann.socket.send(speech(200) + silence(400))
        assert words(await ann.turn()) == "I heard you."
        assert gemini.connections[-1].detects_speech


async def test_what_is_refused(gemini: GeminiLive) -> None:
    huge = {"type": "object", "description": "x" * 70_000}
    async with serving(a_relay(agent())) as port, client(port) as who:
        for frame, why in (
            ({"instructions": 1}, "instructions must be a string."),
            ({"tools": {}}, "tools must be a list of objects."),
            ({"tools": [{}]}, "The name of a tool must be a string."),
            ({"tools": [PAINT | {"description": 1}]}, "The description of a tool must be a string."),
            ({"tools": [PAINT | {"parameters": []}]}, "must be a JSON schema: an object."),
            ({"push_to_talk": 1}, "push_to_talk must be true or false."),
            ({"temperature": True}, "temperature must be a number."),
            ({"temperature": 3}, "temperature must be a number from 0 to 2."),
            ({"instructions": "ä" * 20_000}, "The instructions have 40000 bytes; at most 32768 are allowed."),
            ({"instructions": "\0"}, "The instructions must have no NUL character."),
            ({"instructions": "\ud800"}, "The instructions must be valid Unicode."),
            ({"tools": [PAINT | {"name": "a b"}]}, "must have 1 to 64 of A-Z a-z 0-9 _ -"),
            ({"tools": [{"name": "adk_request_confirmation"}]}, "ADK needs this name itself."),
            ({"tools": [{"name": "transfer_to_agent"}]}, "ADK needs this name itself."),
            ({"tools": [{"name": "clock"}]}, "The agent has a tool 'clock' already: choose another name."),
            ({"tools": [PAINT, PAINT]}, "Two tools are named 'paint': each needs a name of its own."),
            ({"tools": [{"name": f"f{n}"} for n in range(129)]}, "There are 129 tools; at most 128"),
            ({"tools": [PAINT | {"parameters": huge}]}, "bytes; at most 65536 are allowed."),
        ):
            await who.send(type="configure", **frame)
            error = await told(who, "error")
            assert error["code"] == "bad_data", frame
            assert why in error["message"], frame
        await who.ask("hello")
        connection = gemini.connections[0]
        assert (instruction(connection), [*tools(connection)]) == (OWN, ["clock"])


def as_guest(scope: Scope) -> Visitor:
    """Who comes is what its name says: `ann`, or somebody whom she has invited to this role."""
    name = scope["path"].rpartition("/")[2]
    if name == "ann":
        return Visitor("ann")
    return Visitor("ann", name, "live-ann", may_manage=name == "manage")


async def test_who_may_set_instructions_and_tools(gemini: GeminiLive) -> None:
    async def may(who: Client) -> str:
        """Why not; "": it may. Everybody who may write may set the rest."""
        await who.send(type="configure", temperature=0.7)
        assert (await told(who))["temperature"] == 0.7
        for frame in ({"instructions": BRIEF}, {"tools": [PAINT]}):
            await who.send(type="configure", **frame)
            said = (await who.until(lambda said: said.get("type") in ("configured", "error")))[-1]
            if said["type"] == "error":
                assert said["code"] == "not_allowed"
                return str(said["message"])
        return ""

    only_here = "Only clients on the server's own machine may set instructions and tools:"
    async with serving(a_relay(agent()), proxy_headers=False) as port:
        async with client(port) as who:
            assert await may(who) == ""
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto"):
            async with client(port, additional_headers={name: "1.2.3.4"}) as who:
                assert (await may(who)).startswith(only_here)
    async with serving(a_relay(agent(), hosts="relay.example,localhost")) as port:
        async with client(port, host="relay.example") as who:
            assert (await may(who)).startswith(only_here)
        async with client(port, host="localhost") as who:
            assert await may(who) == ""
    # A page that the operator has allowed, of another machine and of this one.
    async with serving(a_relay(agent(), origins="https://www.example.com,http://app.localhost")) as port:
        async with client(port, origin=Origin("https://www.example.com")) as who:
            assert (await may(who)).startswith(only_here)
        async with client(port, origin=Origin("http://app.localhost")) as who:
            assert await may(who) == ""
    relay, through = a_relay(agent(), hosts="relay.example", client_tools="on"), {"Via": "1.1 proxy"}
    async with (
        serving(relay) as port,
        client(port, host="relay.example", additional_headers=through) as who,
    ):
        assert await may(who) == ""
    async with serving(a_relay(agent(), client_tools="off")) as port, client(port) as who:
        assert "RELAY_CLIENT_TOOLS forbids it" in await may(who)
    async with (
        serving(a_relay(agent(), authenticate=as_guest)) as port,
        client(port, "ann") as ann,
        client(port, "write") as write,
        client(port, "manage") as manage,
    ):
        assert "Only the user whose conversation this is" in await may(write)
        assert await may(ann) == await may(manage) == ""


@pytest.mark.alone
async def test_the_rehearsal_agent_calls_a_clients_tool_and_follows_an_instruction() -> None:
    model = Rehearsal(words_per_second=200, pace=50)
    async with serving(a_relay(LlmAgent(name="tester", model=model))) as port, client(port) as who:
        await who.send(type="configure", instructions="Be kind.\nSay: So long!", tools=[PAINT])
        await who.say('paint {"color": "red"}')
        call = (await who.until(lambda said: said.get("pending")))[-1]
        await who.turn()
        await who.send(type="tool_result", tool_id=call["tool_id"], result="It is red.")
        answer = words(await who.turn())
        assert "It is red." in answer
        assert answer.endswith("So long!")
