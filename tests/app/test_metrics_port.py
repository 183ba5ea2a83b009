"""The port of the metrics: of a process, of a relay in this one, and one that is taken."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from support.client import client
from support.gemini import GeminiLive
from support.metrics import scrape
from support.ports import free_port
from support.process import SERVE, UVICORN, serving_warm, warm_relay
from support.server import a_relay, serving


async def test_the_port_of_the_metrics_is_taken(tmp_path: Path) -> None:
    metrics = free_port()
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", metrics):
        with pytest.raises(OSError, match=f"can't be served on 127.0.0.1:{metrics}"):
            await a_relay(metrics_port=metrics).__aenter__()
        set_ = {"RELAY_METRICS_PORT": str(metrics), "RELAY_MODEL": "rehearsal"}
        async with warm_relay(UVICORN, tmp_path, **set_) as relay:
            assert await relay.ended() != 0
            assert any(f"relay: the metrics can't be served on 127.0.0.1:{metrics}" in x for x in relay.log)
            assert "Traceback" not in "".join(relay.log)


@pytest.mark.parametrize("command", [SERVE, UVICORN], ids=["serve", "uvicorn"])
async def test_the_metrics_of_a_process(tmp_path: Path, command: list[str]) -> None:
    metrics = free_port()
    set_ = {"RELAY_METRICS_PORT": str(metrics), "RELAY_MODEL": "rehearsal"}
    async with serving_warm(command, tmp_path, **set_) as relay, client(relay.port):
        now = await scrape(metrics)
        assert now['relay_sockets{dialect="text"}'] == 1
        assert now["process_open_fds"] > 1
        assert any(f"the metrics are at http://127.0.0.1:{metrics}/metrics" in line for line in relay.log)


async def test_the_port_of_the_metrics_takes_scrapes_and_nothing_else(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = free_port()
    async with (
        serving(a_relay(metrics_port=metrics)),
        httpx.AsyncClient(trust_env=False, verify=False) as web,
    ):
        base = f"http://127.0.0.1:{metrics}"
        assert (await web.get(f"{base}/")).status_code == 404
        refused = await web.post(f"{base}/metrics")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        head = await web.head(f"{base}/metrics")
        assert head.status_code == 200
        assert int(head.headers["content-length"]) > 1000
        for junk in (b"", b"\x16\x03\x01\r\n\r\n", b"x" * 100_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", metrics)
            writer.write(junk)
            writer.write_eof()
            with_errors = await asyncio.gather(reader.read(), return_exceptions=True)
            assert b"200 OK" not in (with_errors[0] if isinstance(with_errors[0], bytes) else b"")
            writer.close()
        assert await scrape(metrics)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
