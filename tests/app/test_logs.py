"""The log: one line for each connection, run and error, with the ids that they are about."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from adk_relay.core import logs
from adk_relay.core.logs import JsonFormatter, TextFormatter
from support.chat import created, http
from support.client import Json, client
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.process import SERVE, UVICORN, Process, relay_process, serving_process, serving_warm, warm_relay
from support.raw import Peer, frame, upgrade
from support.server import a_relay, serving

REHEARSAL = {"RELAY_MODEL": "rehearsal"}


def told(caplog: pytest.LogCaptureFixture, part: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if part in record.getMessage()]


def ids(record: logging.LogRecord) -> tuple[str, str]:
    """The connection and the conversation that a line is about."""
    return vars(record)["connection"], vars(record)["conversation"]


async def test_a_connection_and_its_run(gemini: GeminiLive, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with serving(a_relay()) as port:
        async with client(port) as alice:
            await alice.ask("hello")
        await gemini.wait_for(lambda: not gemini.open_connections)
    me = alice.hello["connection_id"]
    (opened,), (closed,), (run,) = (
        told(caplog, part) for part in (": opened from", ", closed 1000", ": a run ended after")
    )
    assert opened.getMessage() == f"alice text {me} in live-alice: opened from 127.0.0.1"
    assert [ids(line) for line in (opened, closed, run)] == [(me, "live-alice")] * 3
    assert run.getMessage().endswith(" s: stopped")
    assert len([line for line in caplog.records if line.name.startswith("relay")]) == 3


async def test_a_request_over_http_has_an_id_too(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay")
    async with serving(a_relay()) as port, http(port) as web:
        body = {"session_id": (session_id := await created(port)), "message": "hello"}
        assert (await web.post("/api/v1/chat", json=body)).status_code == 200
        await gemini.wait_for(lambda: not gemini.open_connections)
    (run,) = told(caplog, ": a run ended after")
    connection, conversation = ids(run)
    assert connection and conversation == session_id


async def test_errors_name_what_they_are_about(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture, quick_retries: None
) -> None:
    gemini.on_connect = lambda _: Plan(http_status=403)
    async with serving(a_relay()) as port, client(port, query="&session_id=mine") as alice:
        await alice.say("hello")
        await alice.until(lambda said: said.get("type") == "error")
    (error,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ids(error)[1] == "mine"
    assert error.exc_info is None


async def test_a_tool_that_fails_names_the_conversation(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    from google.adk.agents import LlmAgent

    def broken() -> str:
        """Fails."""
        raise RuntimeError("no\nERROR: forged")

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool("broken", {})
        await connection.say("Done.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[broken])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.ask("hello")
    (error,) = told(caplog, "tool broken failed")
    assert ids(error) == (alice.hello["connection_id"], "live-alice")
    assert error.getMessage().isprintable()


# ---- the forms ----


def record(message: str, *args: object, **extra: str) -> logging.LogRecord:
    """A line as relay's logger makes it."""
    made = logging.getLogger("relay").makeRecord("relay", 20, "x.py", 1, message, args, None, extra=extra)
    for filter_ in logging.getLogger("relay").filters:
        assert isinstance(filter_, logging.Filter) and filter_.filter(made)
    return made


def test_no_line_is_forged() -> None:
    for text in ("a\nERROR:     relay: forged", "a\r\x1b[2K", "a\x85\u2028b", "50 % of it\n"):
        for made in (record("%s", text), record(text.replace("%", "%%"), *()), record(f"%s {'x'}", text)):
            line = TextFormatter().format(made)
            assert line.isprintable(), line
            assert len(JsonFormatter().format(made).splitlines()) == 1


def test_ids_are_told_once() -> None:
    assert TextFormatter().format(record("hello")) == "INFO:     relay: hello"
    library = logging.LogRecord("library", logging.WARNING, "x.py", 1, "%s", ("hello",), None)
    assert TextFormatter().format(library) == "WARNING:     library: hello"
    with_both = record("hello in one", conversation="one", connection="two")
    assert TextFormatter().format(with_both) == "INFO:     relay: hello in one (connection two)"
    fields = json.loads(JsonFormatter().format(with_both))
    assert fields.pop("time").endswith("+00:00")
    assert fields == {
        "level": "info",
        "logger": "relay",
        "message": "hello in one",
        "connection": "two",
        "conversation": "one",
    }


def test_the_ids_of_the_context() -> None:
    token = logs.connection_id.set("three")
    try:
        assert ids(record("hello")) == ("three", "")
    finally:
        logs.connection_id.reset(token)


def lines_of(relay: Process) -> list[Json]:
    """The lines of a process, each of which is a JSON object."""
    return [json.loads(line) for line in relay.log]


async def test_json_from_the_first_line_to_the_last(tmp_path: Path) -> None:
    """Also those of libraries, such as one that finds nobody to export to."""
    (tmp_path / ".env").write_text("RELAY_LOG=json\n")
    spans = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with relay_process(SERVE, tmp_path, **REHEARSAL, **spans) as relay:
        await relay.started()
        async with client(relay.port) as alice, httpx.AsyncClient(trust_env=False, verify=False) as web:
            await alice.ask("hello")
            await web.get(f"http://127.0.0.1:{relay.port}/x%0Ainjected?secret")
        await relay.says("closed 1000")
        await relay.says("while exporting span batch")
        await relay.stop()
    lines = lines_of(relay)
    # Each is told once: relay's own line has more than uvicorn's.
    assert not [line for line in lines if "accepted" in line["message"]]
    assert len([line for line in lines if "open" in line["message"]]) == 1
    assert {line["logger"] for line in lines} >= {"uvicorn.error", "uvicorn.access", "relay", "relay.agent"}
    for line in lines:
        assert {"time", "level", "logger", "message"} <= line.keys()
    (closed,) = [line for line in lines if ", closed 1000" in line["message"]]
    assert (closed["connection"], closed["conversation"]) == (alice.hello["connection_id"], "live-alice")
    assert len([line for line in lines if "a run ended" in line["message"]]) == 1


async def test_json_under_uvicorn(tmp_path: Path) -> None:
    """Its first two lines come before it has loaded relay."""
    async with serving_process(UVICORN, tmp_path, RELAY_LOG="json", **REHEARSAL) as relay:
        async with client(relay.port):
            pass
        await relay.says("closed 1000")
        await relay.stop()
    first = [line for line in relay.log if not line.startswith("{")]
    assert [line.partition(":")[2].strip().partition(" [")[0] for line in first] == [
        "Started server process",
        "Waiting for application startup.",
    ]
    for line in relay.log:
        assert line in first or json.loads(line)["message"]


async def test_a_wrong_form(tmp_path: Path) -> None:
    async with warm_relay(UVICORN, tmp_path, RELAY_LOG="xml", **REHEARSAL) as relay:
        assert await relay.ended() != 0
        assert any("RELAY_LOG: log is 'xml', but must be text or json" in line for line in relay.log)


async def test_nothing_that_a_peer_does_is_worth_a_traceback(tmp_path: Path) -> None:
    async with serving_warm(SERVE, tmp_path, **REHEARSAL) as relay:
        port = relay.port
        for junk in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            b"GET /%ff%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /sessions/new HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab",
            b"GET /ws/%ff HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ):
            async with Peer.connected(port) as peer:
                await peer.send_raw(junk)
                await asyncio.sleep(0.05)
                peer.vanish()
        for broken in (
            frame(b"\xff\xfe"),  # no UTF-8
            frame(b"x", opcode=11),
            b"\xff" * 20,
            frame(b"{}", opcode=0),  # a continuation of nothing
        ):
            async with Peer.connected(port) as peer:
                await peer.send_raw(upgrade("/ws/alice"))
                await peer.head()
                await peer.send_raw(broken)
                await asyncio.sleep(0.05)
                peer.vanish()
        async with connect(f"ws://127.0.0.1:{port}/ws/alice", proxy=None) as socket:
            with pytest.raises(ConnectionClosed):
                await socket.send("x" * 20_000_000)
                while True:
                    await socket.recv()
        async with client(port) as alice:
            assert await alice.ask("hello")
        await relay.stop()
    relay.problems()  # each line has a level: there is no traceback
    assert not [line for line in relay.log if line.startswith("ERROR")], relay.log
