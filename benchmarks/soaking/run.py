"""The soak: what it does, and what it says of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from benchmarks.builds import ROOT
from benchmarks.soaking.chart import chart
from benchmarks.soaking.clients import Clients
from benchmarks.soaking.loops import run
from benchmarks.soaking.model import Model, run_model
from benchmarks.soaking.slope import Line, averages, fit
from support.metrics import Samples, samples
from support.ports import free_port
from support.tokens import SECRET

GRACE = 30.0
"""The default of RELAY_GRACE: for so long a conversation stays in memory."""

EVERY = 5.0
"""Seconds between two samples."""

STORM, BREAK = 150.0, 240.0
"""Seconds between two losses of all sockets, and of all connections to the model."""

WARM_UP = 14.0
"""Minutes that are not looked at: until as many come as leave, what is kept for a while is full, and the C
library's heap has its holes."""

MB = 1e6


@dataclass
class Sample:
    minute: float
    rss: float  # MB
    cpu: float  # of a core, since the last sample
    descriptors: int
    tasks: int
    objects: int
    visitors: int
    sockets: int
    conversations: int
    runs: int
    model_connections: int
    lag: float  # mean seconds by which the event loop was late since the start
    collections: int  # of the garbage collector, over all objects
    pause: float  # seconds that the longest of them has taken so far


class Server:
    """`relay serve`, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, metrics: int, report: Path) -> None:
        self.port = port
        self.types = Counter[str]()  # of objects, in the last sample
        self.tasks = Counter[str]()
        self._process = psutil.Process(process.pid)
        self._metrics = metrics
        self._report = report
        self._began = time.monotonic()
        self._process.cpu_percent()

    async def _scrape(self) -> Samples:
        """With more patience than the helper of the tests has."""
        async with httpx.AsyncClient(trust_env=False, timeout=60) as web:
            return samples((await web.get(f"http://127.0.0.1:{self._metrics}/metrics")).text)

    async def sample(self, model: Model, clients: Clients | None = None, *, collect: bool = False) -> Sample:
        self._report.unlink(missing_ok=True)
        self._process.send_signal(signal.SIGUSR2 if collect else signal.SIGUSR1)
        now = await self._scrape()
        async with asyncio.timeout(60):
            while not self._report.exists():
                await asyncio.sleep(0.01)
        report = json.loads(self._report.read_text())
        self.tasks, self.types = Counter(report["tasks"]), Counter(report["objects"])
        lag = "relay_event_loop_lag_seconds"
        return Sample(
            minute=(time.monotonic() - self._began) / 60,
            rss=self._process.memory_info().rss / MB,
            cpu=self._process.cpu_percent() / 100,
            descriptors=self._process.num_fds(),
            tasks=self.tasks.total(),
            objects=self.types.total(),
            visitors=clients.connected if clients else 0,
            sockets=round(sum(value for name, value in now.items() if name.startswith("relay_sockets{"))),
            conversations=round(now["relay_conversations"]),
            runs=round(now["relay_runs"]),
            model_connections=await asyncio.to_thread(model.open_connections),
            lag=now[f"{lag}_sum"] / max(1.0, now[f"{lag}_count"]),
            collections=report["collections"],
            pause=report["pause"],
        )


@asynccontextmanager
async def serving(folder: Path, env: dict[str, str]) -> AsyncIterator[Server]:
    """Starts the server; at the end it is asked to stop, and has to exit with 0."""
    port, metrics, report = free_port(), free_port(), folder / "report.json"
    settings = {
        "RELAY_SECRET": SECRET,
        "RELAY_ONE_USE": "true",
        "RELAY_USER_SOUND_DAY": "86400",
        "RELAY_METRICS_PORT": str(metrics),
        "RELAY_LOG": "json",
        "RELAY_SESSIONS": f"sqlite:///{folder}/sessions.db",
        "RELAY_GRACE": str(GRACE),
        "ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS": "false",
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "soaking" / "server.py"), str(report)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "serve", "--port", str(port)],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **env, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # see model.py
        )
        try:
            async with asyncio.timeout(60):
                while True:
                    with suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    assert process.poll() is None, (folder / "server.log").read_text()
                    await asyncio.sleep(0.1)
            yield Server(process, port, metrics, report)
            process.terminate()
            code = await asyncio.to_thread(process.wait, 30)
            assert code == 0, f"the server has ended with {code}"
        finally:
            process.kill()
            process.wait()


async def soak(model: Model, folder: Path, minutes: float, most: int) -> bool:
    """Whether nothing was left at the end."""
    async with serving(folder, model.env) as server:
        clients = Clients(server.port, most)
        before = await server.sample(model)
        taken, storms = [before], list[float]()
        running = asyncio.create_task(clients.run())
        began = storm = broken = time.monotonic()
        while (now := time.monotonic()) - began < minutes * 60:
            await asyncio.sleep(EVERY)
            if running.done():
                running.result()
            taken.append(await server.sample(model, clients))
            if now - storm > STORM:
                storm = now
                storms.append(taken[-1].minute)
                clients.break_all()
            if now - broken > BREAK:
                broken = now
                storms.append(taken[-1].minute)
                await asyncio.to_thread(model.break_all)
            if len(taken) % 12 == 0:
                print(_line(taken[-1]), flush=True)
        middle, middle_tasks = server.types.copy(), server.tasks.copy()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        after, left = await _wait_until_gone(server, model, before)
        taken.append(after)
        _write(folder, taken, storms, minutes)
        print(f"\nclients: {dict(sorted(clients.counts.items()))}")
        print(f"the model, on purpose: {await asyncio.to_thread(model.failures)}")
        print(f"tasks before all left: {middle_tasks.most_common(40)}")
        print(f"objects at the end, most: {server.types.most_common(12)}")
        print(f"objects that went when all left, most: {(middle - server.types).most_common(5)}")
        _report(taken, minutes)
        for what in left:
            print(f"LEFT: {what}")
    return not left


async def _wait_until_gone(server: Server, model: Model, before: Sample) -> tuple[Sample, list[str]]:
    """A last sample, when nothing is left of the clients; and what is left after all."""
    deadline = time.monotonic() + GRACE + 60
    while True:
        await asyncio.sleep(2)
        sample = await server.sample(model, collect=True)
        left = [
            f"{name}: {getattr(sample, name)}, at the start {getattr(before, name)}"
            for name in ("sockets", "conversations", "runs", "model_connections", "tasks", "descriptors")
            # The store opens its file with the first conversation.
            if getattr(sample, name) > getattr(before, name) + (8 if name == "descriptors" else 0)
        ]
        if not left or time.monotonic() > deadline:
            return sample, left + ([f"tasks: {dict(server.tasks)}"] if left else [])


def _report(samples: list[Sample], minutes: float) -> None:
    steady = _steady(samples, minutes)
    if len(steady) < 3:
        print("too short for a slope")
        return
    rss, objects = _lines(samples, minutes)
    print(f"\nafter {WARM_UP:g} minutes, from {len(steady)} samples, averaged by the minute:")
    print(
        f"memory: {rss.slope * 60:+.1f} ± {rss.error * 60:.1f} MB per hour, around {rss.at(minutes):.0f} MB"
    )
    print(f"objects: {objects.slope * 60:+.0f} ± {objects.error * 60:.0f} an hour")
    for name in ("cpu", "tasks", "descriptors", "conversations", "model_connections"):
        values = [getattr(sample, name) for sample in steady]
        print(f"{name}: {min(values):.2f} to {max(values):.2f}, mean {sum(values) / len(values):.2f}")
    last = steady[-1]
    print(f"the event loop was late by {last.lag * 1000:.1f} ms on average")
    print(f"collections over all objects: {last.collections}, the longest took {last.pause * 1000:.0f} ms")


def _steady(samples: list[Sample], minutes: float) -> list[Sample]:
    return [sample for sample in samples if WARM_UP < sample.minute <= minutes and sample.visitors]


def _lines(samples: list[Sample], minutes: float) -> tuple[Line, Line]:
    steady = _steady(samples, minutes)
    rss = averages([(sample.minute, sample.rss) for sample in steady], 1)
    objects = averages([(sample.minute, float(sample.objects)) for sample in steady], 1)
    return fit(rss), fit(objects)


def _write(folder: Path, samples: list[Sample], storms: list[float], minutes: float) -> None:
    (folder / "samples.json").write_text(json.dumps([asdict(sample) for sample in samples]))
    memory = [("RSS", "#1a73e8", [(sample.minute, sample.rss) for sample in samples])]
    if len(_steady(samples, minutes)) > 2:
        line, _ = _lines(samples, minutes)
        memory.append(("fit", "#d93025", [(x, line.at(x)) for x in (WARM_UP, minutes)]))
    names = {"tasks": "#9334e6", "model_connections": "#e37400", "sockets": "#188038"}
    others = [
        (name.replace("_", " "), color, [(sample.minute, float(getattr(sample, name))) for sample in samples])
        for name, color in names.items()
    ]
    picture = chart([("memory, MB", memory), ("open", others)], samples[-1].minute, storms)
    (folder / "soak.svg").write_text(picture)


def _line(sample: Sample) -> str:
    return ", ".join(f"{name} {value:.5g}" for name, value in asdict(sample).items())


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            yield Path(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether relay keeps what it no longer needs.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--sessions", type=int, default=100, help="visitors at a time")
    parser.add_argument("--folder", type=Path, help="where samples, log and picture are kept")
    arguments = parser.parse_args()
    with _folder(arguments.folder) as folder, run_model() as model:
        print(f"load average of the minute before: {os.getloadavg()[0]:.1f}, on {os.cpu_count()} cores")
        worked = run(soak(model, folder, arguments.minutes, arguments.sessions))
        print(f"load average of the last 15 minutes: {os.getloadavg()[2]:.1f}")
    return 0 if worked else 1
