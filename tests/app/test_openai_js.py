"""OpenAI's Realtime API, as OpenAI's own SDKs for JavaScript speak it: `openai` and `@openai/agents`."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path

import pytest
import trustme
from google.adk.agents import LlmAgent

from support.client import Json
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.node import installed_in, node
from support.server import ROOT, a_relay, serving

PROGRAM = ROOT / "tests" / "support" / "openai_sdks"


COUNT = " ".join(f"w{number}" for number in range(200))
"""16 s of sound."""

WRITER = "Here is the writer."

ORDER = [
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.done",
]

BEGINNING = [
    ["user", "hello"],
    ["assistant", "You said: hello."],
    ["user", "Hello."],
    ["assistant", "I heard you."],
    ["user", "clock"],
    ["assistant", "It is noon."],
    ["user", "paint"],
    ["assistant", "It is dry."],
]
"""What all of them say and hear first."""


def clock() -> str:
    """Tells the time."""
    return "noon"


async def answer(connection: Connection, turn: UserTurn) -> None:
    if turn.text == "count":
        await connection.say(COUNT, complete=False)
        await asyncio.Event().wait()
    elif turn.text == "hand over":
        await connection.call_tool("transfer_to_writer", {})
        await connection.say(WRITER)
    elif "transfer_to_writer" in turn.text:  # a connection that begins after the call
        await connection.say(WRITER)
    elif turn.text in ("clock", "paint"):
        arguments = {"color": "red"} if turn.text == "paint" else {}
        result = await connection.call_tool(turn.text, arguments)
        await connection.say(f"It is {result['result']}.")
    elif turn.text:
        await connection.say(f"You said: {turn.text}.")
    else:
        was_counting = connection.texts[-1:] == ["count"]
        await connection.heard("Stop!" if was_counting else "Hello.")
        await connection.say("Yes?" if was_counting else "I heard you.")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_errors")
async def test_the_sdks_talk(gemini: GeminiLive, tmp_path: Path) -> None:
    """Each takes its turns in text and voice, interrupts, uses tools of both sides, and comes back.

    The client of `openai` speaks TLS only.
    """
    gemini.answer = answer
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "key.pem"))
    tls = {"ssl_certfile": tmp_path / "key.pem"}
    installed_in(PROGRAM)
    relay = a_relay(LlmAgent(name="tester", model="gemini-3.8-live", tools=[clock]), grace=30)
    async with serving(relay) as port, serving(relay, lifespan="off", **tls) as secure:
        given = {
            "plain": f"http://127.0.0.1:{port}",
            "secure": f"https://127.0.0.1:{secure}",
            "speech": b64encode(speech(400, 24_000)).decode(),
            "silence": b64encode(silence(500, 24_000)).decode(),
        }
        command: list[str | Path] = [*node(), PROGRAM / "talk.js", json.dumps(given)]
        process = await asyncio.create_subprocess_exec(
            *command,
            env={"PATH": "", "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca.pem")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")
    told: Json = json.loads(output)
    assert {name: each["failed"] for name, each in told.items() if "failed" in each} == {}
    for name in ("openai, ws", "openai, built-in"):
        of_openai(told[name])
    assert told["openai, beta"]["text"] == "You said: hello."
    assert {"conversation.item.created", "response.audio.delta"} < {*told["openai, beta"]["types"]}
    back = {"session": "unbroken", "asked": "count", "answer": "cancelled", "said": "You said: hello."}
    assert told["openai, reconnect"] == back
    of_agents(told["agents"])
    lines = [["user", "Hello.", "completed"], ["assistant", "I heard you.", "completed"]]
    assert told["agents, manual turns"] == {"lines": lines, "errors": []}


def of_openai(told: Json) -> None:
    assert told["order"] == ORDER
    assert told["tools"] == ["paint"]
    assert told["call"] == ["paint", '{"color":"red"}']
    said = [told[name] for name in ("text", "voice", "agentsTool", "clientsTool", "after")]
    assert said == ["You said: hello.", "I heard you.", "It is noon.", "It is dry.", "Yes?"]
    assert told["cut"] == ["cancelled", "turn_detected"]
    assert told["again"] == told["session"]
    assert told["history"] == [
        *BEGINNING,
        ["user", "count"],
        ["assistant", "w0"],
        ["user", "Stop!"],
        ["assistant", "Yes?"],
        ["user", "bye"],
        ["assistant", "You said: bye."],
    ]


def of_agents(told: Json) -> None:
    assert told["errors"] == []
    assert told["painted"] == [{"color": "red"}]
    assert told["stopped"] == "client_cancelled"
    assert (told["agent"], told["tools"]) == ("writer", [])
    lines = told["lines"]
    cut, stopped = (lines[place + 1] for place, line in enumerate(lines) if line[1] == "count")
    for each in (cut, stopped):
        assert COUNT.startswith(each[1])
        assert "w4" in each[1] != COUNT
        assert each[2] == "incomplete"
    said = [line[:2] for line in lines if line[0] != "function_call"]
    assert said == [
        *BEGINNING,
        ["user", "count"],
        cut[:2],
        ["user", "Stop!"],
        ["assistant", "Yes?"],
        ["user", "count"],
        stopped[:2],
        ["user", "hand over"],
        ["assistant", WRITER],
    ]
    assert [line[1] for line in lines if line[0] == "function_call"] == ["dry", '{"assistant":"writer"}']
    # Whoever comes back has the same history.
    again = [line[:2] for line in told["again"]]
    assert again == [*said, ["user", "bye"], ["assistant", "You said: bye."]]
