"""Scrapes a relay's metrics, as Prometheus does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[str, float]
"""Values by name and labels, but without the label `relay`: `relay_sockets{dialect="text"}`."""


def samples(text: str) -> Samples:
    """The samples of a scrape."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "relay"}
            told = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
            key = f"{sample.name}{{{told}}}" if told else sample.name
            assert key not in found, key
            found[key] = sample.value
    return found


async def scrape(port: int) -> Samples:
    """The samples that are served at a port."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as web:
        response = await web.get(f"http://127.0.0.1:{port}/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(response.text)


async def scraped_when(port: int, done: Callable[[Samples], bool]) -> Samples:
    """The first scrape that is as `done` wants it."""
    found: Samples = {}
    try:
        async with asyncio.timeout(30):
            while True:
                found = await scrape(port)
                if done(found):
                    return found
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"the metrics stay {found}") from None
