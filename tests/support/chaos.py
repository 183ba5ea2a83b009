"""Chaos: a service of several processes on one bus, to which everything happens that can, while people talk.

A seed decides what happens, and in which order. In the end everything works again, and these must hold:

- Each text is in its session once, if its client got an ack, or an answer over HTTP; any other text once at
  most. All texts of WebSockets get their acks in the end.
- No connection to the model knows a text twice: what it is told, the history that it begins with, and all
  that it resumes, together. So only a text that the session lacks, because its owner was lost before that was
  stored, is told another connection, too.
- Every client of the live dialect has what the session has, and the numbers rise on each socket.
- Each request ends.
- Never two owners write: the words of the model rise in each session and for each client, and so do the
  tokens in each log, as it is written.
- In the end nothing is left in Redis that does not expire, all processes end as they should, and none has
  logged an error that nobody expects.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from support.chaos_checks import Checks, Model, events_of
from support.chaos_clients import Client, World
from support.chaos_dialects import Asker, Chat, Live
from support.chat import created
from support.gemini import GeminiLive
from support.process import SERVE, Process, warm_relay
from support.proxy import Network, network
from support.redis_server import RedisServer, redis_server

LIMIT = 120
"""Seconds after which what must happen does not happen any more, even on a loaded machine."""

_SETTLED_SECONDS = 5.0
"""So long after Redis has lost its data, all owners have recorded anew what a new one needs."""

KINDS = {
    "kill a worker": 4,
    "stop a worker": 4,
    "drain a worker": 2,
    "kill a web process": 3,
    "stop a web process": 2,
    "cut off a worker": 3,
    "cut off a web process": 2,
    "isolate a worker": 2,
    "isolate a web process": 1,
    "kill Redis": 2,
    "pause Redis": 2,
    "flush Redis": 2,
    "empty Redis": 1,
}
"""What can happen, and how often. `cut off`: its connections to Redis break, and there are no others;
`isolate`: they stay, but nothing comes through. `empty`: it is killed, and begins without its data."""


class Fault(NamedTuple):
    """Something that happens."""

    at: float
    """Seconds since the beginning."""
    kind: str
    which: int
    """The number of the process; that of the processes of its role is the rest of a division."""
    seconds: float
    """How long it lasts."""


def plan(seed: int, seconds: float, pause: tuple[float, float]) -> list[Fault]:
    """What happens with a seed."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    at = 0.0
    while (at := at + chance.uniform(*pause)) < seconds:
        (kind,) = chance.choices([*KINDS], [*KINDS.values()])
        faults.append(Fault(at, kind, chance.randrange(60), chance.uniform(0.5, 6)))
    return faults


class Place:
    """A place for a process: when it has ended, another one is started, as Kubernetes would.

    Attributes:
        network: what lies between it and Redis.
        is_troubled: something happens to it now.
        logs: of those that have ended.
    """

    def __init__(self, world: World, name: str, role: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.role = role
        self.network: Network | None = None
        self.process: Process | None = None
        """None: it starts."""
        self.is_troubled = False
        self.is_over = False
        self.logs: list[list[str]] = []
        self.exits: list[int] = []
        self._world = world
        self._folder = folder
        self._environment = environment
        self._has_changed = asyncio.Event()

    async def run(self, redis_port: int) -> None:
        """Keeps a process running until it is over."""
        async with network(redis_port, is_http=False) as (self.network, port):
            environment = self._environment | {"RELAY_BUS": f"redis://127.0.0.1:{port}"}
            while not self.is_over:
                async with warm_relay(SERVE, self._folder, RELAY_ROLE=self.role, **environment) as process:
                    self.logs.append(process.log)
                    await process.started()
                    self.process = process
                    if self.role == "web":
                        self._world.ports.append(process.port)
                    self.exits.append(await process.ended(float("inf")))
                    self.process = None
                    if self.role == "web":
                        self._world.ports.remove(process.port)


@dataclass
class Chaos:
    """One run. See the module's text.

    Args:
        seconds: how long things happen.
        pause: seconds between two of them, at least and at most.
        web, workers: how many processes.
    """

    folder: Path
    seed: int
    seconds: float
    conversations: int = 50
    pause: tuple[float, float] = (1.5, 5.0)
    web: int = 2
    workers: int = 2
    world: World = field(default_factory=World)
    _all_places: list[Place] = field(default_factory=list)
    _is_settled_at: float = 0.0
    """When Redis has all again that it has lost, as `time.monotonic()`."""

    async def run(self) -> World:
        """Runs it.

        Raises:
            AssertionError: a promise was broken; the notes of the error have the seed and what happened.
        """
        try:
            await self._run()
            assert not self.world.wrong, f"{len(self.world.wrong)} promises were broken"
        except BaseException as error:
            (self.folder / "happened.txt").write_text("\n".join(self.world.happened))
            for place in self._all_places:
                for number, log in enumerate(place.logs):
                    (self.folder / f"{place.name} {number}.log").write_text("\n".join(log))
            seconds = f"--seconds {self.seconds:g} --conversations {self.conversations}"
            error.add_note(f"Again: python benchmarks/chaos.py --seed {self.seed} {seconds}")
            error.add_note("\n".join(self.world.wrong[:20]) or "No promise was broken before.")
            error.add_note("\n".join(self._events()))
            error.add_note("\n".join(self.world.happened[-60:]))
            raise
        return self.world

    async def _run(self) -> None:
        model = Model()
        async with GeminiLive(model.answer) as gemini, redis_server() as redis:
            model.gemini = gemini
            places = self._all_places = self._places(gemini)
            async with asyncio.TaskGroup() as group:
                serving = [group.create_task(place.run(redis.port)) for place in places]
                await self._until(
                    "all processes run", lambda: [place.name for place in places if not place.process]
                )
                clients, askers = await self._clients()
                everybody: list[Client | Asker] = [*clients, *askers]
                talking = [group.create_task(each.run()) for each in everybody]
                checks = Checks(self.world, self.folder / "sessions.db", redis, model, clients, askers)
                watching = group.create_task(checks.watch())
                await self._faults(places, redis, checks)
                await self._end(places, clients, askers, checks)
                self.world.is_over.set()
                await asyncio.wait(talking)
                for place in places:
                    place.is_over = True
                    if place.process:
                        self._expect(
                            await place.process.stop(within=LIMIT) == 0, f"{place.name} did not end well"
                        )
                await asyncio.wait(serving)
                watching.cancel()
            await checks.after(places)
            self._expect(gemini.violations == [], f"{gemini.violations}")

    def _events(self) -> list[str]:
        """What the sessions have of which a promise was broken."""
        began = time.time() - (time.monotonic() - self.world.began)
        events = events_of(self.folder / "sessions.db", "\n".join(self.world.wrong), began)
        (self.folder / "events.txt").write_text("\n".join(events))
        return events[:200]

    def _expect(self, is_true: bool, what: str) -> None:
        if not is_true:
            self.world.broke(what)

    async def _until(self, what: str, missing: Callable[[], Sequence[object]]) -> None:
        """Waits until nothing is missing."""
        try:
            async with asyncio.timeout(LIMIT):
                while missing():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {LIMIT} s: {what}, but for {missing()}") from None

    def _places(self, gemini: GeminiLive) -> list[Place]:
        environment = {
            "RELAY_SESSIONS": f"sqlite:///{self.folder}/sessions.db",
            "RELAY_APP_NAME": "tester",
            "RELAY_DRAIN": "5",
            "RELAY_GRACE": "3",
            **gemini.env,
        }
        roles = ["worker"] * self.workers + ["web"] * self.web
        return [
            Place(self.world, f"{role} {number}", role, self.folder, environment)
            for number, role in enumerate(roles)
        ]

    async def _clients(self) -> tuple[list[Client], list[Asker]]:
        """Of five conversations, one is a room with two writers, one is asked over HTTP, and three are a
        user's, two of them with a second client."""
        clients: list[Client] = []
        askers: list[Asker] = []
        for number in range(self.conversations):
            name = f"c{number}"
            if number % 5 == 0:
                name = await created(self.world.ports[0])
                clients += [
                    Chat(self.world, number * 2 + at, name, f"member {at}", writes=True) for at in range(2)
                ]
                user, writes = "guest", False
            elif number % 5 == 1:
                askers.append(Asker(self.world, number * 2, name))
                user, writes = "guest", False
            else:
                user, writes = f"u{number}", True
            for at in range(2 if number % 5 in (2, 3) else 1):
                clients.append(
                    Live(
                        *(self.world, number * 2, name, f"client {at}"),
                        writes=writes and not at,
                        user=user,
                        has_sound=number % 10 == 2,
                    )
                )
        return clients, askers

    # ---- what happens ----

    async def _faults(self, places: Sequence[Place], redis: RedisServer, checks: Checks) -> None:
        began = time.monotonic()
        troubled = asyncio.Lock()
        async with asyncio.TaskGroup() as group:
            for fault in plan(self.seed, self.seconds, self.pause):
                await asyncio.sleep(began + fault.at - time.monotonic())
                if fault.kind.endswith("Redis"):
                    group.create_task(self._redis_fault(fault, redis, troubled, checks))
                else:
                    group.create_task(self._place_fault(fault, places))
            await asyncio.sleep(began + self.seconds - time.monotonic())

    async def _place_fault(self, fault: Fault, places: Sequence[Place]) -> None:
        role = "worker" if "worker" in fault.kind else "web"
        place = [each for each in places if each.role == role][fault.which % getattr(self, _COUNTS[role])]
        process, between = place.process, place.network
        if place.is_troubled or not process or not between:
            return
        if role == "worker" and time.monotonic() < self._is_settled_at:
            return  # nothing is promised if Redis and an owner lose what they know at the same time
        place.is_troubled = True
        self._begin(fault, place.name)
        if role == "worker":
            self.world.worker_faults.append(time.monotonic())
        try:
            match fault.kind.partition(" ")[0]:
                case "kill":
                    process.kill()
                    await self._until(
                        "it runs again", lambda: [] if place.process not in (None, process) else [place.name]
                    )
                case "drain":
                    code = await process.stop(within=LIMIT)
                    self._expect(code == 0, f"{place.name} ended with {code}")
                    await self._until(
                        "it runs again", lambda: [] if place.process not in (None, process) else [place.name]
                    )
                case "stop":
                    process.pause()
                    await asyncio.sleep(fault.seconds)
                    process.go_on()
                case "cut":
                    between.cut()
                    await asyncio.sleep(fault.seconds)
                    between.mend()
                case "isolate":
                    between.up.clear()
                    between.down.clear()
                    await asyncio.sleep(fault.seconds)
                    between.mend()
        finally:
            place.is_troubled = False
            self.world.note(f"over: {fault.kind} ({place.name})")

    async def _redis_fault(
        self, fault: Fault, redis: RedisServer, troubled: asyncio.Lock, checks: Checks
    ) -> None:
        loses_data = "flush" in fault.kind or "empty" in fault.kind
        workers = [place for place in self._all_places if place.role == "worker"]
        if troubled.locked() or (loses_data and any(each.is_troubled for each in workers)):
            return
        async with troubled:
            if loses_data:
                self._is_settled_at = time.monotonic() + _SETTLED_SECONDS + fault.seconds
            self._begin(fault, "Redis")
            match fault.kind.partition(" ")[0]:
                case "kill":
                    await redis.kill()
                    await asyncio.sleep(fault.seconds)
                    await redis.start()
                case "empty":
                    await redis.kill()
                    checks.emptied()
                    await asyncio.sleep(fault.seconds)
                    await redis.start(with_data=False)
                case "pause":
                    redis.pause()
                    await asyncio.sleep(fault.seconds)
                    redis.go_on()
                case "flush":
                    await redis.ask("FLUSHALL")
                    checks.emptied()
            self.world.note(f"over: {fault.kind}")

    def _begin(self, fault: Fault, whom: str) -> None:
        self.world.counts[fault.kind] += 1
        self.world.note(f"{fault.kind} ({whom}), {fault.seconds:.1f} s")

    # ---- the end ----

    async def _end(
        self, places: Sequence[Place], clients: list[Client], askers: list[Asker], checks: Checks
    ) -> None:
        """Everything works again: all that waits comes to its end, and each conversation goes on."""
        world = self.world
        world.note("everything works again")
        await self._until("all processes run", lambda: [place.name for place in places if not place.process])
        world.is_quiet.set()
        await self._until(
            "all texts have acks", lambda: [(each.name, each.owed) for each in clients if each.owed]
        )
        await self._until("all requests end", lambda: [each.name for each in askers if not each.is_done])
        for client in clients:
            if client.writes:
                client.awaits = f"t{client.number}-0"
                client.say(client.awaits)
                await client.send_owed()
        last = {client.session_id: client.awaits for client in clients if client.writes}
        last |= {asker.session_id: asker.said[-1] for asker in askers}
        for client in clients:
            client.awaits = client.awaits or last[client.session_id]
        await self._until(
            "each conversation goes on",
            lambda: [each.missing for each in clients if not each.has_answer],
        )
        await checks.in_the_end()


_COUNTS = {"worker": "workers", "web": "web"}
