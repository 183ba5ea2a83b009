"""Spans of WebSockets, from open to close, for OpenTelemetry. Where no provider is set, nothing is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from adk_relay.wire.asgi import Scope
from adk_relay.wire.websocket import Socket

_tracer = trace.get_tracer("adk_relay")


@contextmanager
def traced(scope: Scope, socket: Socket) -> Iterator[None]:
    """A span for a socket, which is current in the task that serves it, and in those that this one begins.

    Its parent is the current span, if the host has one for the request; else the upgrade's `traceparent`
    names it (https://www.w3.org/TR/trace-context/).
    """
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield  # nobody has set a provider
        return
    parent = None
    if not trace.get_current_span().get_span_context().is_valid:
        from opentelemetry.propagate import extract  # it looks for propagators when it is imported

        headers = (
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope.get("headers", ())
        )
        parent = extract(dict(headers))
    attributes = {"relay.dialect": socket.dialect, "relay.connection.id": socket.connection_id}
    kind = trace.SpanKind.SERVER
    with _tracer.start_as_current_span("relay.socket", parent, kind, attributes) as span:
        yield
        span.set_attribute("gen_ai.conversation.id", socket.session_id)
        span.set_attribute("relay.close_code", socket.end.code)
        if socket.end.code == 1011:
            span.set_status(trace.StatusCode.ERROR, socket.end.reason)
