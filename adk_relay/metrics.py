"""Metrics: what the layers have counted (`core/stats.py`), in the form of Prometheus.

Nothing is computed before somebody asks. No label has a value that a client can choose: no user, no id. Names
of tools, which come from the agent or the model, are bounded (`Tally`), and so are reasons and codes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from math import inf
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector as PrometheusCollector

from adk_relay import __version__
from adk_relay.core.interfaces import Conversations
from adk_relay.core.stats import Histogram
from adk_relay.core.whole import Whole
from adk_relay.wire.http import SECURITY, Response, with_length
from adk_relay.wire.websocket import Socket

log = logging.getLogger("relay")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the answer: https://prometheus.io/docs/instrumenting/exposition_formats/."""

_EVERY = 0.25
"""Seconds between two measurements of how late the event loop is."""

_MOST_SCRAPES = 16
"""Connections to the metrics' own port at a time."""

_HEAD_BYTES = 16 * 1024
_HEAD_SECONDS = 10.0
"""Bytes and seconds that the head of a request to that port may have."""

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Counted(Protocol):
    """What a `Relay` has for its metrics."""

    @property
    def served(self) -> Conversations: ...

    @property
    def sockets(self) -> Collection[Socket]: ...

    @property
    def together(self) -> Whole | None: ...


class Collector(PrometheusCollector):
    """Collects the metrics of one or several relays of this process, for a registry of `prometheus_client`.

    Args:
        relays: by name. The name is the label `relay` of all samples, so two relays do not collide.
    """

    def __init__(self, relays: Mapping[str, Counted]) -> None:
        self._relays = relays

    def collect(self) -> Iterator[Family]:
        """The metrics as they are now. It may be called in any thread."""
        page = _Page()
        for name, relay in self._relays.items():
            page.relay = name
            _process(page, relay)
            _sockets(page, relay)
            _conversations(page, relay)
            _runs(page, relay)
            _bus(page, relay)
        yield from page.families.values()


class _Page:
    """The families of a scrape. A family is made with its first sample, which has all of its labels."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self.relay = ""

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        names = ["relay", *labels]
        family = self.families.setdefault(name, GaugeMetricFamily(name, text, labels=names))
        assert isinstance(family, GaugeMetricFamily)
        family.add_metric([self.relay, *labels.values()], value)

    def counter(self, name: str, text: str, value: float, **labels: str) -> None:
        names = ["relay", *labels]
        family = self.families.setdefault(name, CounterMetricFamily(name, text, labels=names))
        assert isinstance(family, CounterMetricFamily)
        family.add_metric([self.relay, *labels.values()], value)

    def histogram(self, name: str, text: str, histogram: Histogram, **labels: str) -> None:
        names = ["relay", *labels]
        family = self.families.setdefault(name, HistogramMetricFamily(name, text, labels=names))
        assert isinstance(family, HistogramMetricFamily)
        buckets, total = [], 0
        for bound, count in zip((*histogram.bounds, inf), histogram.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == inf else str(bound), float(total)))
        family.add_metric([self.relay, *labels.values()], buckets, histogram.sum)


def _process(page: _Page, relay: Counted) -> None:
    labels = {"version": __version__, "model": relay.served.model}
    page.gauge("relay_info", "1, with the version and the model as labels", 1, **labels)
    lag = relay.served.stats.loop_lag
    page.histogram("relay_event_loop_lag_seconds", "How late the event loop is, every quarter second", lag)


def _sockets(page: _Page, relay: Counted) -> None:
    stats = relay.served.stats
    open_, queued, attended = Counter[str](), Counter[str](), dict[str, set[int]]()
    for socket in [*relay.sockets]:  # a copy: it may be another thread that asks
        open_[socket.dialect] += 1
        conversation, waiting = socket.gauges
        queued[socket.dialect] += waiting
        if conversation:
            attended.setdefault(socket.dialect, set()).add(id(conversation))
    dropped_ms = 0.0
    for dialect, traffic in [*stats.traffic.items()]:
        dropped_ms += traffic.dropped_ms
        for code, count in [*traffic.errors.items()]:
            text = "Errors that clients were told, by code"
            page.counter("relay_errors", text, count, dialect=dialect, code=code)
        if dialect == "http":
            continue
        label = {"dialect": dialect}
        page.gauge("relay_sockets", "WebSockets that are open", open_[dialect], **label)
        text = "Conversations that at least one socket of the dialect attends"
        page.gauge("relay_conversations_attended", text, len(attended.get(dialect, ())), **label)
        page.gauge("relay_queue_bytes", "Bytes that wait to be sent to sockets", queued[dialect], **label)
        page.counter("relay_sockets_opened", "WebSockets that were accepted", traffic.opened, **label)
        text = "WebSocket messages: in: from clients; out: to clients"
        page.counter("relay_frames", text, traffic.frames_in, **label, direction="in")
        page.counter("relay_frames", text, traffic.frames_out, **label, direction="out")
        text = "Payload of WebSocket messages: in: from clients; out: to clients"
        page.counter("relay_bytes", text, traffic.bytes_in, **label, direction="in")
        page.counter("relay_bytes", text, traffic.bytes_out, **label, direction="out")
        text = "Sockets of clients that came back: whole: they got all that they had missed; gap: not all"
        whole = traffic.returned - traffic.gaps
        page.counter("relay_client_reconnects", text, whole, **label, replay="whole")
        page.counter("relay_client_reconnects", text, traffic.gaps, **label, replay="gap")
    for reason, count in [*stats.refused.items()]:
        page.counter("relay_refused", "WebSockets that were refused, by reason", count, reason=reason)
    for status, count in [*stats.responses.items()]:
        page.counter("relay_http_responses", "HTTP responses, by status", count, status=status)
    text = "From an accepted WebSocket until its conversation is open"
    page.histogram("relay_open_seconds", text, stats.opening)
    text = "Sound that was given up: in: on the way to the model; out: on the way to clients"
    page.counter("relay_sound_dropped_seconds", text, stats.dropped_up_ms / 1000, direction="in")
    page.counter("relay_sound_dropped_seconds", text, dropped_ms / 1000, direction="out")


def _conversations(page: _Page, relay: Counted) -> None:
    stats = relay.served.stats
    page.gauge("relay_conversations", "Conversations that run in this process", relay.served.active)
    page.counter("relay_conversations_created", "Conversations that were made", stats.created)
    text = "Requests whose answer a client waited for"
    page.counter("relay_requests", text, stats.successful, result="successful")
    page.counter("relay_requests", text, stats.failed, result="failed")
    for end, count in [*stats.turns.items()]:
        page.counter("relay_turns", "Turns that have ended, by how", count, end=end)
    for kind, histogram in [*stats.first_piece.items()]:
        text = "From the end of the user's input to the first piece of the answer"
        page.histogram("relay_first_token_seconds", text, histogram, input=kind)
    for kind, histogram in [*stats.turn.items()]:
        text = "From the end of the user's input to the end of the answer"
        page.histogram("relay_turn_seconds", text, histogram, input=kind)
    for token, count in [*stats.tokens.items()]:
        page.counter("relay_tokens", "Tokens, as the model reports them", count, kind=token)
    for tool, count in [*stats.tools_called.items()]:
        page.counter("relay_tool_calls", "Calls of tools", count, tool=tool)
    for tool, count in [*stats.tools_failed.items()]:
        page.counter("relay_tool_failures", "Tools that have raised an error", count, tool=tool)
    for tool, histogram in [*stats.tools.items()]:
        page.histogram("relay_tool_seconds", "How long tools took that have returned", histogram, tool=tool)


def _runs(page: _Page, relay: Counted) -> None:
    stats = relay.served.stats
    page.gauge("relay_runs", "Runs under way", stats.runs_begun - sum(stats.runs_ended.values()))
    for how, count in [*stats.runs_ended.items()]:
        text = (
            "Runs that have ended: done, stopped; another follows: renewed, as planned; lost, after a failure"
        )
        page.counter("relay_runs_ended", text, count, how=how)
    for code, count in [*stats.failures.items()]:
        text = "Conversations that ended because the agent or the model failed"
        page.counter("relay_conversation_failures", text, count, code=code)
    text = "Handshake and setup of the connections to the model"
    page.histogram("relay_model_connect_seconds", text, stats.connecting)
    for way, count in [*stats.connections.items()]:
        text = "Connections to the model, by the way of the model's sound: short: past ADK; long: through it"
        page.counter("relay_model_connections", text, count, way=way)
    for direction, sound in (("in", stats.sound_up), ("out", stats.sound_down)):
        text = "Sound: in: to the model; out: from the model; short: past ADK; long: through it"
        page.counter("relay_sound_seconds", text, sound.short, direction=direction, way="short")
        page.counter("relay_sound_seconds", text, sound.long, direction=direction, way="long")


def _bus(page: _Page, relay: Counted) -> None:
    if not (whole := relay.together):
        return
    page.gauge("relay_bus_up", "1: the other processes can be reached; 0: Redis is away", whole.is_reached)
    text = "Processes on the bus, by role, as far as this one knows"
    for role, count in Counter(process.role for process in whole.processes).items():
        page.gauge("relay_processes", text, count, role=role)


class MetricsServer:
    """Measures the event loop's lag, and answers scrapes on a port of its own, from `start` to `aclose`.

    Args:
        collector: collects the metrics.
        lag: how late the event loop is.
        host, port: where it listens; port 0: nowhere.
    """

    def __init__(self, collector: Collector, lag: Histogram, host: str, port: int) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._lag = lag
        self._host = host
        self._port = port
        self._timer: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        self._connections = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # where it has started

    async def start(self) -> None:
        """Starts, if it has not started.

        Raises:
            OSError: it can't listen there.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._port:
            try:
                self._server = await asyncio.start_server(
                    self._serve, self._host, self._port, limit=_HEAD_BYTES
                )
            except (OSError, OverflowError) as error:
                raise OSError(f"the metrics can't be served on {self._host}:{self._port}: {error}") from None
            log.info("the metrics are at http://%s:%d/metrics", self._host, self._port)
        self._loop = loop
        self._timer = loop.call_later(_EVERY, self._measure, loop.time() + _EVERY)

    def close(self) -> None:
        """Ends."""
        if self._timer:
            self._timer.cancel()
        if self._server:
            self._server.close()
        self._timer = self._server = self._loop = None

    def text(self) -> bytes:
        """The metrics as they are now, as `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def response(self) -> Response:
        """The same as an HTTP response, for relay's own port."""
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store"), *SECURITY]
        return with_length(200, self.text(), headers)

    def _measure(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._lag.observe(max(now - due, 0.0))
        self._timer = loop.call_later(_EVERY, self._measure, now + _EVERY)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request. HTTP/1.1 lets a server close the connection after it."""
        self._connections += 1
        try:
            if self._connections <= _MOST_SCRAPES:
                # A peer that sends something else, or nothing, or too much, is not worth a line in the log.
                with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(_HEAD_SECONDS):
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._answer(head))
                        await writer.drain()
        finally:
            self._connections -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            status, body = "404 Not Found", b"The metrics are at /metrics.\n"
        elif method not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed\r\nAllow: GET, HEAD", b"Allowed: GET, HEAD.\n"
        else:
            status, body = "200 OK", self.text()
        headers = f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close"
        start = f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode()
        return start if method == b"HEAD" else start + body
