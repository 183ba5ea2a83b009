#!/usr/bin/env bash
# opentelemetry-sdk 1.44.0, opentelemetry-exporter-otlp-proto-http 1.44.0: `force_flush()` ignores its time limit.
#
# Behaviour: the limit given to TracerProvider.force_flush() is passed on to BatchSpanProcessor, which does not use
#   it. With a collector that accepts the connection and does not answer, the call returns when the exporter gives
#   up (4 s here; 10 s if nothing is configured). The span is lost, and the call returns True.
# Output seen:
#   force_flush(timeout_millis=1000) returned True after 4.0 s; the exporter failed: Read timed out
# Why it surprises: the method's documentation says "The maximum amount of time to wait for spans to be processed"
#   and "False if the timeout is exceeded, True otherwise". Neither holds, and the call blocks its thread meanwhile:
#   in a coroutine, the whole event loop.
# For a relay: a flush at the end of a run or in the lifespan's shutdown stops every conversation of the process for
#   as long as the exporter waits, or uses up the time a service manager gives for the stop. Call it in a thread
#   with a limit of your own, and set the exporter's timeout to what a stop may take.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opentelemetry-sdk==1.44.0 opentelemetry-exporter-otlp-proto-http==1.44.0

cat >check.py <<'PYTHON'
import logging
import socket
import time
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

logged = []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logging.getLogger("opentelemetry").addHandler(handler)

with socket.create_server(("127.0.0.1", 0)) as collector:  # connections are made, and nobody reads from them
    url = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/traces"
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=4)))
    provider.get_tracer("check").start_span("a turn").end()
    start = time.monotonic()
    flushed = provider.force_flush(timeout_millis=1000)
    waited = time.monotonic() - start
    provider.shutdown()

print("opentelemetry-sdk", version("opentelemetry-sdk"))
print("expected: force_flush(timeout_millis=1000) returns False after 1 s")
print(f"seen:     force_flush(timeout_millis=1000) returned {flushed} after {waited:.1f} s")
print("          the exporter logged:", *logged)
assert flushed is True and 3.5 < waited < 8, "the behaviour has changed"
assert any("Failed to export" in line and "timed out" in line for line in logged)
PYTHON
timeout 60 venv/bin/python check.py
