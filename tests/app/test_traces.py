"""Traces: the spans that an exporter gets are those of what the test did."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from adk_relay import tracing
from adk_relay.core.moderation import UserInput
from support.chat import chat, created, received
from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.process import SERVE, UVICORN, serving_warm, warm_relay
from support.server import ROOT, a_relay, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}

_exporter = InMemorySpanExporter()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is exported. A process can set a provider once, so it stays, and records only in these tests."""
    monkeypatch.setenv("ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS", "false")
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    yield _exporter
    _exporter.clear()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


async def ended(spans: InMemorySpanExporter, name: str, count: int = 1) -> list[ReadableSpan]:
    """The spans of a name, when there are so many."""
    async with asyncio.timeout(30):
        while len(found := named(spans, name)) < count:
            await asyncio.sleep(0.01)
    return found


def seconds(span: ReadableSpan) -> float:
    assert span.start_time and span.end_time
    return (span.end_time - span.start_time) / 1e9


def parent(span: ReadableSpan) -> int:
    assert span.parent
    return int(span.parent.span_id)


def id_of(span: ReadableSpan) -> int:
    assert span.context
    return int(span.context.span_id)


async def test_a_socket_its_turns_and_adks_own_spans(gemini: GeminiLive, spans: InMemorySpanExporter) -> None:
    def look() -> str:
        """Looks."""
        return "seen"

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.sleep(0.2)
        if turn.text == "look":
            await connection.call_tool("look", {})
        await connection.say(f"You said: {turn.text}.", complete=False)
        await connection.usage(10, 20)
        await asyncio.sleep(0.2)
        await connection.turn_complete()

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[look])
    async with serving(a_relay(agent)) as port:
        async with client(port, additional_headers=TRACEPARENT) as alice:
            await alice.ask("hello")
            await alice.ask("look")
        (socket,) = await ended(spans, "relay.socket")
        await gemini.wait_for(lambda: not gemini.open_connections)
        (invocation,) = await ended(spans, "invoke_agent tester")
    turns = named(spans, "relay.turn")
    assert socket.context and f"{socket.context.trace_id:032x}" == TRACE
    assert f"{parent(socket):016x}" == PARENT
    assert socket.attributes and socket.attributes["relay.close_code"] == 1000
    assert socket.attributes["relay.dialect"] == "text"
    assert socket.attributes["gen_ai.conversation.id"] == "live-alice"
    assert len(turns) == 2
    for turn in turns:
        assert parent(turn) == id_of(socket)
        assert turn.attributes and turn.attributes["relay.end"] == "complete"
        assert turn.attributes["gen_ai.usage.output_tokens"] == 20
        assert 0.4 <= seconds(turn) < 30
        (first,) = turn.events
        assert first.name == "first token"
        assert turn.start_time and first.timestamp - turn.start_time >= 0.2e9
        assert turn.end_time and turn.end_time - first.timestamp >= 0.2e9 - 5e6
    assert parent(invocation) == id_of(socket)
    assert invocation.context and invocation.context.trace_id == socket.context.trace_id
    (tool,) = named(spans, "execute_tool look")
    assert tool.context and tool.context.trace_id == socket.context.trace_id
    assert [link.context.span_id for link in tool.links] == [id_of(turns[1])]


async def test_turns_belong_to_the_socket_that_asked(gemini: GeminiLive, spans: InMemorySpanExporter) -> None:
    async with serving(a_relay(grace=30)) as port:
        async with client(port) as first:
            await first.ask("one")
        async with client(port, audio=True) as second:
            await second.socket.send(speech(300) + silence(400))
            await second.turn()
        sockets = await ended(spans, "relay.socket", 2)
    turns = named(spans, "relay.turn")
    assert [parent(turn) for turn in turns] == [id_of(socket) for socket in sockets]
    asked = [turn.attributes["relay.asked_by"] for turn in turns if turn.attributes]
    assert asked == ["text", "speech"]
    assert len({socket.context.trace_id for socket in sockets if socket.context}) == 2


async def test_turns_belong_to_the_socket_that_asked_also_if_a_host_looks_at_the_text_first(
    gemini: GeminiLive, spans: InMemorySpanExporter
) -> None:
    may_go_on = asyncio.Event()

    async def on_input(_: UserInput) -> None:
        await may_go_on.wait()

    async with serving(a_relay(on_input=on_input)) as port:
        session_id = await created(port)
        async with chat(port, session_id) as first, chat(port, session_id) as second:
            for who, text in ((first, "one"), (second, "two")):
                await who.chat(text)
                await received(who)
            may_go_on.set()
            await ended(spans, "relay.turn", 2)
        sockets = await ended(spans, "relay.socket", 2)
    turns = named(spans, "relay.turn")
    assert [parent(turn) for turn in turns] == [id_of(sockets[1]), id_of(sockets[0])]


async def test_a_run_belongs_to_the_socket_that_it_began_for(
    gemini: GeminiLive, spans: InMemorySpanExporter
) -> None:
    async with serving(a_relay(grace=30)) as port:
        async with client(port) as first:
            await first.ask("one")
        await gemini.connections[0].die(1000)  # the service ends the first run at rest
        await ended(spans, "invoke_agent tester")
        async with client(port) as second:
            await second.ask("two")
        sockets = await ended(spans, "relay.socket", 2)
    runs = await ended(spans, "invoke_agent tester", 2)
    assert [parent(run) for run in runs] == [id_of(socket) for socket in sockets]


async def test_a_hosts_own_span_is_the_parent(gemini: GeminiLive, spans: InMemorySpanExporter) -> None:
    relay = a_relay()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            with trace.get_tracer("host").start_as_current_span("host"):
                await relay(scope, receive, send)
        else:
            await relay(scope, receive, send)

    async with serving(app) as port:
        async with client(port, additional_headers=TRACEPARENT):
            pass
        (host,) = await ended(spans, "host")
    (socket,) = named(spans, "relay.socket")
    assert parent(socket) == id_of(host)


async def test_no_span_has_what_was_said(gemini: GeminiLive, spans: InMemorySpanExporter) -> None:
    async with serving(a_relay()) as port:
        async with client(port) as alice:
            await alice.ask("secrettext")
        await gemini.wait_for(lambda: not gemini.open_connections)
        await ended(spans, "relay.socket")
        relays = [span for span in spans.get_finished_spans() if span.name.startswith("relay.")]
    assert len(relays) == 2
    assert not any("secret" in span.to_json() for span in relays)


# ---- exported by a process ----


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[int, list[ExportTraceServiceRequest]]]:
    """A collector of OTLP over HTTP; yields its port and what it has got."""
    got: list[ExportTraceServiceRequest] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
        body = await reader.readexactly(length)
        if "content-encoding: gzip" not in head:
            got.append(ExportTraceServiceRequest.FromString(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], got


@pytest.mark.parametrize("command", [SERVE, UVICORN], ids=["serve", "uvicorn"])
async def test_spans_are_exported_by_the_usual_variables(tmp_path: Path, command: list[str]) -> None:
    async with collecting() as (collector, got):
        set_ = {
            "RELAY_MODEL": "rehearsal",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
            "OTEL_SERVICE_NAME": "my-relay",
        }
        async with serving_warm(command, tmp_path, **set_) as relay:
            async with client(relay.port) as alice:
                await alice.ask("hello")
            await relay.stop()  # what waits is sent before the end
            assert [line for line in relay.problems() if "the rehearsal agent" not in line] == []
        spans = [
            span.name
            for request in got
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        services = {
            attribute.value.string_value
            for request in got
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }
    assert {"relay.socket", "relay.turn", "invoke_agent rehearsal"} <= set(spans)
    assert services == {"my-relay"}


async def test_a_stop_does_not_wait_for_a_collector_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter alone would wait for ten seconds."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(tracing, "_provider", provider)
    writers: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0) as silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1/traces"
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
        provider.get_tracer("test").start_span("one").end()
        began = time.monotonic()
        await tracing.flush()
        assert time.monotonic() - began < 8
        for writer in writers:
            writer.close()
    await asyncio.to_thread(provider.shutdown)


async def test_another_exporter_is_refused_at_the_start(tmp_path: Path) -> None:
    set_ = {"RELAY_MODEL": "rehearsal", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    async with warm_relay(UVICORN, tmp_path, **set_, OTEL_TRACES_EXPORTER="zipkin") as relay:
        assert await relay.ended() != 0
        assert any("relay exports to otlp, or to none" in line for line in relay.log), relay.log


def test_nothing_is_set_up_where_nothing_is_set() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import json, sys, relay; from adk_relay import tracing; tracing.export_traces()\n"
            "from opentelemetry import trace\n"
            "print(json.dumps([type(trace.get_tracer_provider()).__name__, *sys.modules]))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    provider, *modules = json.loads(done.stdout)
    assert provider == "ProxyTracerProvider"
    assert not [name for name in modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
