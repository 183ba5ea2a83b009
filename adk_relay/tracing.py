"""Exports traces by the usual variables of OpenTelemetry. It needs `pip install 'adk-relay[otel]'`.

An embedded relay needs none of this: its spans go to the provider that the host sets.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from opentelemetry import trace

from adk_relay.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_WANTED_BY = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables that ask for an export: https://opentelemetry.io/docs/languages/sdk-configuration/."""

_FLUSH = 2.0
"""Seconds that the server's end waits for the last spans to be sent."""

_provider: TracerProvider | None = None


def export_traces() -> None:
    """Sets a provider that exports spans, if the environment asks for it and there is none.

    Raises:
        SettingsError: the exporter is not installed, or is another one than OTLP over HTTP.
    """
    global _provider
    kind = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or kind == "none"
    is_wanted = any(os.environ.get(name) for name in _WANTED_BY)
    if is_disabled or not is_wanted or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    if kind != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER is {kind!r}, but relay exports to otlp, or to none")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise SettingsError(
            f"{' or '.join(_WANTED_BY)} is set, but no exporter is installed: pip install 'adk-relay[otel]'"
        ) from None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", "relay")
    _provider = TracerProvider()
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_provider)


async def flush() -> None:
    """Sends the spans that wait. To be called when the server stops: its process may end without `atexit`.

    While the collector does not answer, `force_flush` heeds no time limit. For a daemon thread nobody waits.
    """
    if not (provider := _provider):
        return
    loop, sent = asyncio.get_running_loop(), asyncio.Event()

    def send() -> None:
        provider.force_flush()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(sent.set)

    threading.Thread(target=send, daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(_FLUSH):
            await sent.wait()
