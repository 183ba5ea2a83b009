"""The lessons are a ladder: what each one adds works there, and fails in the one before."""

from __future__ import annotations

import ast
import asyncio
import difflib
import importlib.util
import itertools
import json
import logging
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from support.raw import Peer, frame, upgrade
from support.server import ROOT, serving

LESSONS = [
    "l1_asgi",
    "l2_lifecycle",
    "l3_adk_live",
    "l4_bounded_queue",
    "l5_heartbeat",
    "l6_resume",
]

ANSWER = "This is a rehearsal: no model is connected. You said: Hello"

Json = dict[str, Any]


@dataclass
class Step:
    """A lesson, and how many seconds to wait for what it should do."""

    lesson: str
    limit: float

    def load(self, **constants: Any) -> ModuleType:
        """A fresh copy of the lesson, with some of its constants changed, if it has them.

        Its agent speaks fast, unless `words_per_second` says otherwise.
        """
        words_per_second = constants.pop("words_per_second", 1000)
        spec = importlib.util.spec_from_file_location(self.lesson, ROOT / "lessons" / f"{self.lesson}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, value in ({"GRACE": 0.05} | constants).items():
            if hasattr(module, name):
                setattr(module, name, value)
        if hasattr(module, "runner"):
            module.runner.agent.model = module.Rehearsal(words_per_second=words_per_second)
        return module


def ladder(number: int, *, through: int) -> pytest.MarkDecorator:
    """Runs a test with lesson `number`, with those after it that keep what it adds, and with the one before.

    The one before has to fail, and is not waited for as long.
    """
    fails = pytest.mark.xfail(strict=True, raises=(AssertionError, TimeoutError))
    before = [pytest.param(Step(LESSONS[number - 2], 2.0), marks=fails)] if number > 1 else []
    steps = [Step(lesson, 20.0) for lesson in LESSONS[number - 1 : through]]
    return pytest.mark.parametrize("step", [*before, *steps], ids=lambda step: step.lesson)


@asynccontextmanager
async def client(port: int, path: str = "/ws/ann") -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None) as connection:
        yield connection


async def receive(connection: ClientConnection, limit: float) -> Json:
    got: Json = json.loads(await asyncio.wait_for(connection.recv(), limit))
    return got


def text(words: str) -> str:
    return json.dumps({"mime_type": "text/plain", "data": words})


async def turn(connection: ClientConnection, limit: float) -> list[Json]:
    """All messages up to the end of a turn."""
    messages: list[Json] = []
    async with asyncio.timeout(limit):
        while not (messages and messages[-1].get("turn_complete")):
            messages.append(await receive(connection, limit))
    return messages


def words(messages: list[Json]) -> str:
    return "".join(message.get("data", "") for message in messages)


async def close_of(connection: ClientConnection, limit: float) -> tuple[int, str]:
    """How the server closes a socket whose client answers nothing."""
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(limit):
            while True:
                await connection.recv()
    assert closed.value.rcvd
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def assert_end(tasks: set[asyncio.Task[Any]], limit: float) -> None:
    """All of these tasks come to an end."""
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=limit)
        assert not pending


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server has logged as an error, as it does for each traceback."""
    records = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    return [f"{record.getMessage()} {record.exc_text or ''}" for record in records]


@pytest.fixture(autouse=True)
def _no_errors(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A lesson that does what it should logs no errors; that the first one hangs is what it teaches."""
    yield
    fails = request.node.get_closest_marker("xfail")
    if not fails and "l1_asgi" not in request.node.name:
        assert errors(caplog) == []


# ---- what each lesson adds -------------------------------------------------------------------


@ladder(1, through=2)
async def test_1_files_and_an_echo(step: Step) -> None:
    async with serving(step.load().app, lifespan="auto") as port:
        for target, status in [("/README.md", 200), ("/", 404), ("/../pyproject.toml", 404)]:
            async with Peer.connected(port) as peer:
                request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                await peer.send_raw(request.encode())
                assert (await peer.head()).startswith(f"HTTP/1.1 {status} ".encode())
                if status == 200:
                    assert await peer.ended() == (ROOT / "lessons/README.md").read_bytes()
        async with client(port) as connection:
            for sent in ("Hello", b"\x00\x01"):
                await connection.send(sent)
                assert await asyncio.wait_for(connection.recv(), step.limit) == sent


@ladder(2, through=6)
async def test_2_nothing_is_left_of_a_client_that_leaves(step: Step) -> None:
    async with serving(step.load().app, lifespan="auto") as port:
        before = asyncio.all_tasks()
        async with client(port) as polite, client(port) as rude:
            await polite.send(text("Hello"))
            await rude.send(text("Hello"))
            await polite.recv()
            await rude.recv()
            rude.transport.abort()
        await assert_end(asyncio.all_tasks() - before, step.limit)


@ladder(2, through=5)  # in lesson 6, a conversation goes on until its grace is over
async def test_2_a_client_that_never_closes_does_not_hold_up_the_server(
    step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stays:
        async with serving(step.load(GRACE=60.0).app, lifespan="auto") as port:
            silent = await stays.enter_async_context(Peer.connected(port))
            await silent.send_raw(upgrade("/ws/ann"))
            assert (await silent.head()).startswith(b"HTTP/1.1 101 ")
        assert errors(caplog) == []  # uvicorn logs one when it has to cancel what does not end
        await assert_end(asyncio.all_tasks() - before, step.limit)


@ladder(2, through=6)
async def test_2_a_client_that_leaves_while_it_is_sent_something_is_no_error(step: Step) -> None:
    """Played by hand, as ASGI 2.4 has it: uvicorn keeps this exception from its log, other servers do not."""
    events: asyncio.Queue[Json] = asyncio.Queue()
    events.put_nowait({"type": "websocket.connect"})
    events.put_nowait({"type": "websocket.receive", "text": text("Hello")})

    async def send(event: Json) -> None:
        if event["type"] != "websocket.accept":
            events.put_nowait({"type": "websocket.disconnect", "code": 1006})
            raise OSError

    app = step.load().app
    scope = {"type": "websocket", "path": "/ws/ann", "query_string": b""}
    before = asyncio.all_tasks()
    serving_it = asyncio.create_task(app(scope, events.get, send))
    await asyncio.wait({serving_it}, timeout=step.limit)
    assert serving_it.done() and serving_it.exception() is None
    await assert_end(asyncio.all_tasks() - before, step.limit)


@ladder(2, through=2)
async def test_2_an_application_that_is_stopped_closes_its_sockets(step: Step) -> None:
    app = step.load().app
    to_app: asyncio.Queue[Json] = asyncio.Queue()
    from_app: asyncio.Queue[Json] = asyncio.Queue()
    async with serving(app, lifespan="off") as port:
        lifespan = asyncio.create_task(app({"type": "lifespan"}, to_app.get, from_app.put))
        to_app.put_nowait({"type": "lifespan.startup"})
        async with client(port) as connection:
            await connection.send("Hello")
            await connection.recv()
            to_app.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait({lifespan}, timeout=step.limit)
            assert lifespan.done() and not lifespan.exception()
            assert await close_of(connection, step.limit) == (1001, "the server is stopping")
    answers = [from_app.get_nowait()["type"] for _ in range(from_app.qsize())]
    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@ladder(3, through=6)
async def test_3_an_agent_answers(step: Step) -> None:
    async with serving(step.load().app, lifespan="auto") as port, client(port) as connection:
        await connection.send(text("Hello"))
        messages = await turn(connection, step.limit)
        assert words(messages) == ANSWER
        assert all(message["mime_type"] == "text/plain" for message in messages if "data" in message)
        assert messages[-1]["turn_complete"] is True


@ladder(3, through=6)
async def test_3_it_speaks_and_is_spoken_to_at_the_same_time(step: Step) -> None:
    async with (
        serving(step.load(words_per_second=2).app, lifespan="auto") as port,
        client(port) as connection,
    ):
        await connection.send(text("Hello"))
        while (await receive(connection, step.limit)).get("data") != "This ":
            pass
        await connection.send(text("Stop"))
        messages = [await receive(connection, step.limit)]
        while not messages[-1].get("interrupted"):
            messages.append(await receive(connection, step.limit))
        assert "Hello" not in words(messages)  # with which the answer would have ended


@ladder(4, through=5)
@pytest.mark.usefixtures("small_send_buffer")
async def test_4_a_client_that_does_not_read_is_given_up(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.adk.rehearsal._LONGEST_QUOTE", sys.maxsize)
    lesson = step.load(QUEUE_BYTES=100_000)
    async with (
        serving(lesson.app, lifespan="auto") as port,
        Peer.connected(port) as stalled,
        client(port, "/ws/bob") as bob,
    ):
        bobs = asyncio.all_tasks()
        await stalled.send_raw(upgrade("/ws/ann"))
        assert (await stalled.head()).startswith(b"HTTP/1.1 101 ")
        await stalled.send_raw(frame(text(" ".join(["x" * 50_000] * 40)).encode()))
        await bob.send(text("Hello"))
        assert words(await turn(bob, 20)) == ANSWER  # nobody else feels it
        anns = asyncio.all_tasks() - bobs
        speaking = {task for task in anns if getattr(task.get_coro(), "__name__", "") == "speak"}
        await assert_end(speaking, step.limit)  # though the client has not read anything
        got = await stalled.rest(step.limit)
        assert got[-1] == {"type": "close", "code": 1013, "reason": "too slow"}
        assert len(words(got)) < 500_000  # of 2 MB: the rest was nowhere kept


@ladder(5, through=5)
async def test_5_a_silent_client_is_pinged(step: Step) -> None:
    lesson = step.load(PING_INTERVAL=0.05, PONG_TIMEOUT=20.0)
    async with serving(lesson.app, lifespan="auto") as port, client(port) as connection:
        for _ in range(3):
            assert await receive(connection, step.limit) == {"type": "ping"}
            await connection.send('{"type": "pong"}')
        await connection.send(text("Hello"))
        assert ANSWER in words(await turn(connection, step.limit))


@ladder(5, through=5)
async def test_5_a_dead_client_is_closed(step: Step) -> None:
    lesson = step.load(PING_INTERVAL=0.05, PONG_TIMEOUT=0.05)
    async with serving(lesson.app, lifespan="auto") as port, client(port) as connection:
        assert await close_of(connection, step.limit) == (4410, "no pong")


@ladder(5, through=5)
@pytest.mark.usefixtures("small_send_buffer")
async def test_5_so_is_one_that_does_not_even_read(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.adk.rehearsal._LONGEST_QUOTE", sys.maxsize)
    lesson = step.load(PING_INTERVAL=0.05, PONG_TIMEOUT=0.05)
    async with serving(lesson.app, lifespan="auto") as port, Peer.connected(port) as stalled:
        before = asyncio.all_tasks()
        await stalled.send_raw(upgrade("/ws/ann"))
        assert (await stalled.head()).startswith(b"HTTP/1.1 101 ")
        await stalled.send_raw(frame(text("x" * 500_000).encode()))
        await assert_end(asyncio.all_tasks() - before, step.limit)


@ladder(5, through=5)
async def test_5_an_idle_client_is_closed(step: Step) -> None:
    lesson = step.load(PING_INTERVAL=0.05, PONG_TIMEOUT=20.0, IDLE_TIMEOUT=0.2)
    async with serving(lesson.app, lifespan="auto") as port, client(port) as connection:
        pings = 0
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(step.limit):
                while True:
                    assert await receive(connection, step.limit) == {"type": "ping"}
                    pings += 1
                    await connection.send('{"type": "pong"}')
        assert closed.value.rcvd
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4408, "idle")
        assert pings > 1


@ladder(6, through=6)
async def test_6_a_dropped_socket_loses_nothing(step: Step) -> None:
    lesson = step.load(GRACE=60.0, words_per_second=20)
    async with serving(lesson.app, lifespan="auto") as port:
        async with client(port) as connection:
            await connection.send(text("Hello"))
            hello = await receive(connection, step.limit)
            assert hello.get("type") == "hello"
            first = [await receive(connection, step.limit) for _ in range(3)]
            connection.transport.abort()
        conversation = lesson.conversations["ann"]
        while conversation.seq < 6:  # the agent speaks on while nobody is there
            await asyncio.wait_for(conversation.news.wait(), step.limit)
            conversation.news.clear()
        async with client(port, f"/ws/ann?after={hello['epoch']}.{first[-1]['seq']}") as connection:
            assert (await receive(connection, step.limit))["epoch"] == hello["epoch"]
            assert conversation.grace.cancelled()
            rest = await turn(connection, step.limit)
    assert words(first + rest) == ANSWER
    assert [message["seq"] for message in first + rest] == [*range(1, len(first + rest) + 1)]


async def test_6_a_conversation_ends_after_its_grace() -> None:
    step = Step("l6_resume", 20.0)
    lesson = step.load(GRACE=0.1)
    async with serving(lesson.app, lifespan="auto") as port:
        before = asyncio.all_tasks()
        async with client(port) as connection:
            hello = await receive(connection, step.limit)
            await connection.send(text("Hello"))
            await turn(connection, step.limit)
        await assert_end(asyncio.all_tasks() - before, step.limit)
        assert not lesson.conversations
        async with client(port, f"/ws/ann?after={hello['epoch']}.1") as connection:
            again = await receive(connection, step.limit)
            assert again["epoch"] != hello["epoch"]
            assert again["seq"] == 0
            await connection.send(text("Hello"))
            assert words(await turn(connection, step.limit)).startswith(ANSWER)  # a new epoch: all of it


async def test_6_all_who_attend_are_told_the_same() -> None:
    step = Step("l6_resume", 20.0)
    async with serving(step.load().app, lifespan="auto") as port, client(port) as one, client(port) as other:
        for connection in (one, other):
            assert (await receive(connection, step.limit))["type"] == "hello"
        await one.send(text("Hello"))
        assert await turn(one, step.limit) == await turn(other, step.limit)


async def test_6_who_was_away_for_too_long_gets_what_is_kept() -> None:
    step = Step("l6_resume", 20.0)
    lesson = step.load(GRACE=60.0)
    async with serving(lesson.app, lifespan="auto") as port:
        async with client(port) as connection:
            epoch = (await receive(connection, step.limit))["epoch"]
            await connection.send(text("Hello"))
            messages = await turn(connection, step.limit)
        conversation = lesson.conversations["ann"]
        conversation.journal = deque(conversation.journal, maxlen=3)
        async with client(port, f"/ws/ann?after={epoch}.1") as connection:
            await receive(connection, step.limit)
            assert await turn(connection, step.limit) == messages[-3:]


# ---- each runs by itself, and is short ---------------------------------------------------------


@pytest.mark.parametrize("lesson", LESSONS)
async def test_it_runs_by_itself(lesson: str) -> None:
    """As its docstring says, with all that uvicorn does by default."""
    command = [sys.executable, "-m", "uvicorn", f"lessons.{lesson}:app", "--port", "0"]
    server = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
    assert server.stderr
    try:
        async with asyncio.timeout(60):
            line = b""
            while not (found := re.search(rb"running on http://127\.0\.0\.1:(\d+)", line)):
                line = await server.stderr.readline()
                assert line
            async with client(int(found[1])) as connection:
                await connection.send(text("Hello"))
                while "Hello" not in (await receive(connection, 60)).get("data", ""):
                    pass
            server.send_signal(signal.SIGINT)
            log = b""
            while line := await server.stderr.readline():
                log += line
                if b"background tasks" in line and lesson == "l1_asgi":
                    server.send_signal(signal.SIGINT)  # once more, as its docstring says
            await server.wait()
            assert b"Traceback" not in log or lesson == "l1_asgi", log.decode()
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


def source(lesson: str) -> str:
    return (ROOT / "lessons" / f"{lesson}.py").read_text()


def docstring(lesson: str) -> str:
    return ast.get_docstring(ast.parse(source(lesson)), clean=False) or ""


@pytest.mark.parametrize("lesson", LESSONS)
def test_it_is_short(lesson: str) -> None:
    """At most 120 lines, whatever is in them."""
    assert len(source(lesson).splitlines()) <= 120


@pytest.mark.parametrize(("before", "lesson"), [*itertools.pairwise(LESSONS)])
def test_it_adds_little(before: str, lesson: str) -> None:
    """At most 50 lines are new: those that `difflib` marks with a plus, against the lesson before.

    Neither blank lines are counted nor the docstring at the top, which is all new in each.
    """
    old, new = (source(name).replace(docstring(name), "", 1).splitlines() for name in (before, lesson))
    added = [line for line in difflib.ndiff(old, new) if line.startswith("+ ") and line.strip() != "+"]
    assert len(added) <= 50


@pytest.mark.parametrize("lesson", LESSONS)
def test_its_docstring_says_how_to_run_it_and_what_comes_next(lesson: str) -> None:
    text = docstring(lesson)
    assert text.startswith(f"Lesson {lesson[1]}: ")
    assert f"uvicorn lessons.{lesson}:app" in text
    assert "python -m websockets" in text
    _, breaks, last = text.partition("What still breaks: ")
    assert breaks
    files = re.findall(r"[\w/]+\.py", last.partition("In full: ")[2])
    assert files
    for file in files:
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("lesson", LESSONS)
def test_it_stands_alone(lesson: str) -> None:
    """Of this project, it imports the rehearsal model only."""
    for node in ast.walk(ast.parse(source(lesson))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name != "adk_relay.adk.rehearsal":
                assert name.partition(".")[0] in {*sys.stdlib_module_names, "google"}, name


def test_the_readme_names_them_all() -> None:
    readme = (ROOT / "lessons/README.md").read_text()
    assert re.findall(r"\((l\d_\w+)\.py\)", readme) == LESSONS
    assert len(readme.splitlines()) <= 40
    package = (ROOT / "lessons/__init__.py").read_text()
    assert re.findall(r"l\d_\w+", package) == LESSONS
    assert sorted(file.stem for file in (ROOT / "lessons").glob("l*.py")) == LESSONS
