"""The metrics: their numbers equal what the test did."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from google.adk.agents import LlmAgent
from prometheus_client import CollectorRegistry, generate_latest
from websockets.exceptions import InvalidStatus

from adk_relay.core.stats import MOST_NAMES, Tally, Timings
from adk_relay.core.visitor import Visitor
from adk_relay.metrics import Collector
from adk_relay.wire.admission import Admission
from adk_relay.wire.dialects.live import live
from adk_relay.wire.limits import Limits
from adk_relay.wire.quotas import Rates
from adk_relay.wire.websocket import Socket
from support.chat import created, http
from support.client import client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.metrics import samples, scrape, scraped_when
from support.ports import free_port
from support.raw import Peer
from support.server import a_relay, serving


def of_text(name: str, **labels: str) -> str:
    told = ",".join(f'{name}="{value}"' for name, value in sorted({"dialect": "text", **labels}.items()))
    return f"{name}{{{told}}}"


async def test_traffic_is_what_the_client_has_seen(gemini: GeminiLive) -> None:
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)) as port:
        async with client(port) as alice, client(port, "bob", audio=True):
            before = await scrape(metrics)
            assert before[of_text("relay_sockets")] == 1
            assert before['relay_sockets{dialect="audio"}'] == 1
            assert before[of_text("relay_conversations_attended")] == 1
            assert before["relay_conversations"] == 2
            assert before[of_text("relay_sockets_opened_total")] == 1
            assert before[of_text("relay_queue_bytes")] == 0
            assert before["relay_open_seconds_count"] == 2
            seen, sent = [], 0

            async def read() -> None:
                async for frame in alice.socket:
                    seen.append(frame if isinstance(frame, bytes) else frame.encode())
                    if json.loads(seen[-1]).get("turn_complete"):
                        return

            text = '{"mime_type": "text/plain", "data": "gr\u00fc\u00df dich"}'
            sent += len(text.encode())
            await alice.socket.send(text)
            await asyncio.wait_for(read(), 60)
            after = await scraped_when(metrics, lambda now: now['relay_turns_total{end="complete"}'] == 1)

            def grown(name: str, **labels: str) -> float:
                return after[of_text(name, **labels)] - before[of_text(name, **labels)]

            assert grown("relay_frames_total", direction="in") == 1
            assert grown("relay_bytes_total", direction="in") == sent
            assert grown("relay_frames_total", direction="out") == len(seen)
            assert grown("relay_bytes_total", direction="out") == sum(map(len, seen))
        gone = await scraped_when(metrics, lambda now: now[of_text("relay_sockets")] == 0)
        assert gone[of_text("relay_sockets_opened_total")] == 1
    with pytest.raises(httpx.ConnectError):
        await scrape(metrics)  # it ends with the relay


async def test_turns_runs_and_tokens(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.sleep(0.3)
        await connection.say(f"You said: {turn.text}.", complete=False)
        await connection.usage(10, 20)
        await asyncio.sleep(0.3)
        await connection.turn_complete()

    gemini.answer = answer
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)) as port:
        async with client(port) as alice:
            for text in ("one", "two"):
                assert await alice.ask(text) == f"You said: {text}."
            now = await scrape(metrics)
            assert now["relay_runs"] == 1
        done = await scraped_when(metrics, lambda now: now["relay_runs"] == 0)
    assert now['relay_turns_total{end="complete"}'] == 2
    assert now['relay_first_token_seconds_count{input="text"}'] == 2
    assert 0.6 <= now['relay_first_token_seconds_sum{input="text"}'] < 30
    assert now['relay_first_token_seconds_bucket{input="text",le="0.2"}'] == 0
    assert now['relay_turn_seconds_count{input="text"}'] == 2
    assert now['relay_turn_seconds_sum{input="text"}'] >= 1.2
    assert now['relay_first_token_seconds_count{input="speech"}'] == 0
    assert now['relay_tokens_total{kind="input"}'] == 20
    assert now['relay_tokens_total{kind="output"}'] == 40
    assert now['relay_tokens_total{kind="thoughts"}'] == now['relay_tokens_total{kind="other"}'] == 0
    assert now["relay_model_connect_seconds_count"] == len(gemini.connections) == 1
    assert done['relay_runs_ended_total{how="stopped"}'] == 1


@pytest.mark.voice
async def test_speech_and_the_way_of_sound(gemini: GeminiLive, sound: None) -> None:
    relay = a_relay(metrics_port=(metrics := free_port()))
    way = "short" if relay.conversations.runner.plugin_manager.sound._is_open else "long"
    other = "long" if way == "short" else "short"
    async with serving(relay) as port, client(port, audio=True) as alice:
        await alice.socket.send(said := speech(400))
        await gemini.wait_for(lambda: gemini.connections and len(gemini.connections[0].audio) >= len(said))
        await asyncio.sleep(0.5)  # time in which nothing is said: it counts
        await alice.socket.send(silence(800))
        frames = await alice.turn()
        assert words(frames) == "I heard you."
        now = await scraped_when(metrics, lambda now: now['relay_turns_total{end="complete"}'] == 1)
    assert now['relay_first_token_seconds_count{input="speech"}'] == 1
    assert 0.5 <= now['relay_first_token_seconds_sum{input="speech"}'] < 30
    assert now['relay_turn_seconds_count{input="speech"}'] == 1
    assert now[f'relay_model_connections_total{{way="{way}"}}'] == 1
    down = now[f'relay_sound_seconds_total{{direction="out",way="{way}"}}']
    assert down == pytest.approx(len(alice.audio) / 48_000)
    assert now[f'relay_sound_seconds_total{{direction="out",way="{other}"}}'] == 0
    assert now[f'relay_sound_seconds_total{{direction="in",way="{way}"}}'] == pytest.approx(1.2, abs=0.05)
    assert now[f'relay_sound_seconds_total{{direction="in",way="{other}"}}'] == 0


async def test_tools_are_counted_and_timed(gemini: GeminiLive) -> None:
    async def slow() -> str:
        """Takes its time."""
        await asyncio.sleep(0.3)
        return "done"

    def broken() -> str:
        """Fails."""
        raise RuntimeError("no")

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool(turn.text, {})
        await connection.say("Done.")

    gemini.answer = answer
    metrics = free_port()
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[slow, broken])
    async with serving(a_relay(agent, metrics_port=metrics)) as port, client(port) as alice:
        for tool in ("slow", "slow", "broken"):
            await alice.ask(tool)
        now = await scrape(metrics)
    assert now['relay_tool_calls_total{tool="slow"}'] == now['relay_tool_seconds_count{tool="slow"}'] == 2
    assert 0.6 <= now['relay_tool_seconds_sum{tool="slow"}'] < 30
    assert now['relay_tool_calls_total{tool="broken"}'] == 1
    assert now['relay_tool_failures_total{tool="broken"}'] == 1
    assert 'relay_tool_failures_total{tool="slow"}' not in now


async def test_an_interruption_and_one_before_the_first_piece(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "long":
            await connection.say("It begins", complete=False)
        await asyncio.sleep(60)

    gemini.answer = answer
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)) as port, client(port) as alice:
        await alice.say("long")
        await alice.until(lambda said: said.get("mime_type") == "text/plain")
        await alice.send(type="interrupt")
        await alice.turn()
        now = await scrape(metrics)
        assert now['relay_turns_total{end="interrupted"}'] == 1
        assert now['relay_turn_seconds_count{input="text"}'] == 1
        await alice.say("silence")
        await gemini.wait_for(lambda: len(gemini.connections[-1].texts) == 2)
        await alice.send(type="interrupt")
        await alice.turn()
        now = await scrape(metrics)
    assert now['relay_turns_total{end="unanswered"}'] == 1
    assert now['relay_first_token_seconds_count{input="text"}'] == 1


async def test_lost_runs_failures_and_errors(gemini: GeminiLive, quick_retries: None) -> None:
    def plan(number: int) -> Plan | None:
        return Plan(http_status=403) if number == 3 else None

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One", complete=False)
            connection.abort()
        elif turn.text == "die":
            connection.abort()
        else:
            await connection.say("Two")

    gemini.on_connect = plan
    gemini.answer = answer
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)) as port, client(port) as alice:
        await alice.say("hello")
        await alice.until(lambda said: said.get("turn_complete"))
        assert (await scrape(metrics))['relay_runs_ended_total{how="lost"}'] == 1
        await alice.socket.send("nonsense")
        await alice.until(lambda said: said.get("type") == "error")
        now = await scrape(metrics)
        assert now[of_text("relay_errors_total", code=alice.frames[-1]["code"])] == 1
    relay = a_relay(metrics_port=metrics)
    gemini.on_connect = lambda _: Plan(http_status=403)
    async with serving(relay) as port, client(port) as alice:
        await alice.say("hello")
        await alice.until(lambda said: said.get("type") == "error")
        now = await scrape(metrics)
    assert now['relay_conversation_failures_total{code="model_refused"}'] == 1
    assert now[of_text("relay_errors_total", code="model_refused")] == 1


async def test_refusals_and_responses(gemini: GeminiLive) -> None:
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)) as port, http(port) as web:
        for user in ("a%0Ab", "%20"):
            with pytest.raises(InvalidStatus):
                async with client(port, user, subprotocol=False):
                    pass
        await web.get("/nothing")
        body = {"session_id": await created(port), "message": "hello"}
        accept = {"accept": "text/event-stream"}
        assert (await web.post("/api/v1/chat", json=body, headers=accept)).status_code == 200
        now = await scrape(metrics)
        assert now['relay_refused_total{reason="not found"}'] == 2
        assert now['relay_http_responses_total{status="404"}'] == 1
        assert now['relay_http_responses_total{status="200"}'] == 2
        assert now["relay_conversations_created_total"] == 1
        assert (await web.get("/metrics")).status_code == 404  # not where everybody can ask


async def test_clients_that_come_back(gemini: GeminiLive) -> None:
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics, grace=30)) as port:
        async with client(port) as alice:
            await alice.ask("hello")
            epoch = alice.hello["epoch"]
        # The last one is what a page names that comes for the first time.
        for after in (f"{epoch}.1", "other.1", "0.0"):
            async with client(port, query=f"&after={after}"):
                pass
        now = await scrape(metrics)
    assert now[of_text("relay_client_reconnects_total", replay="whole")] == 1
    assert now[of_text("relay_client_reconnects_total", replay="gap")] == 1


@pytest.mark.usefixtures("small_send_buffer")
async def test_dropped_sound_and_what_waits(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_audio(1_000)
        await connection.turn_complete()

    gemini.answer = answer
    metrics = free_port()
    relay = a_relay(metrics_port=metrics, queue_bytes=100_000, slow_timeout=60)
    async with serving(relay) as port, Peer.upgraded(port, audio=True) as stalled:
        await stalled.send(mime_type="text/plain", data="go")
        dropped = 'relay_sound_dropped_seconds_total{direction="out"}'
        now = await scraped_when(metrics, lambda now: now['relay_turns_total{end="complete"}'] == 1)
        (socket,) = relay.sockets
        assert now[dropped] == pytest.approx(socket._outbox.dropped_ms / 1000)
        assert now[dropped] > 1
        assert 0 < now['relay_queue_bytes{dialect="audio"}'] <= 100_000

        gemini.on_connect = lambda _: Plan(hang="setup")
        async with client(port, "bob", audio=True) as bob:
            for _ in range(20):
                await bob.socket.send(speech(5_000))
            told = (await bob.until(lambda said: said.get("type") == "dropped"))[-1]["audio_ms"] / 1000
            now = await scrape(metrics)
        assert 5 <= told <= now['relay_sound_dropped_seconds_total{direction="in"}'] <= 100


async def test_the_lag_of_the_event_loop(gemini: GeminiLive) -> None:
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)):
        name = "relay_event_loop_lag_seconds"
        before = await scraped_when(metrics, lambda now: now[f"{name}_count"] >= 2)
        time.sleep(1)
        await asyncio.sleep(0)
        now = await scraped_when(metrics, lambda now: now[f"{name}_count"] > before[f"{name}_count"])
    assert now[f"{name}_sum"] - before[f"{name}_sum"] > 0.7


# ---- in a host ----


async def test_two_relays_in_one_registry(gemini: GeminiLive) -> None:
    one, two = a_relay(), a_relay()
    registry = CollectorRegistry(auto_describe=True)
    registry.register(Collector({"support": one, "sales": two}))
    async with serving(one) as port, client(port) as alice:
        await alice.ask("hello")
        text = generate_latest(registry).decode()
    assert 'relay_turns_total{end="complete",relay="support"} 1.0' in text
    assert 'relay_turns_total{end="complete",relay="sales"} 0.0' in text
    assert text.count("# TYPE relay_turns_total counter") == 1


async def test_one_relay_in_a_hosts_registry(gemini: GeminiLive) -> None:
    relay, registry = a_relay(), CollectorRegistry(auto_describe=True)
    registry.register(relay.metrics())
    async with serving(relay) as port, client(port) as alice:
        await alice.ask("hello")
        now = samples(generate_latest(registry).decode())
    assert now['relay_turns_total{end="complete"}'] == 1
    assert 'relay="tester"' in generate_latest(registry).decode()


# ---- bounds ----


def test_names_are_bounded() -> None:
    tally, timings = Tally(), Timings()
    for number in range(3 * MOST_NAMES):
        tally.count(f"tool {number}\nrelay_sockets 1")
        timings.observe(f"tool {number}", 1.0)
    assert len(tally) == len(timings) == MOST_NAMES + 1
    assert tally["other"] == 2 * MOST_NAMES
    assert all(name.isprintable() for name in tally)


async def test_no_label_has_what_a_client_has_sent(gemini: GeminiLive) -> None:
    metrics = free_port()
    async with serving(a_relay(metrics_port=metrics)) as port:
        async with client(port, "secretuser", query="&session_id=secretsession") as alice:
            await alice.ask("secrettext")
            await alice.send(type="secrettype")
            await alice.until(lambda said: said.get("type") == "error")
        with pytest.raises(InvalidStatus):
            async with client(port, "secret%20path", subprotocol=False):
                pass
        async with httpx.AsyncClient(trust_env=False, verify=False) as web:
            text = (await web.get(f"http://127.0.0.1:{metrics}/metrics")).text
    assert "relay_turns_total" in text
    assert "secret" not in text


async def test_a_scrape_looks_once_at_each_socket(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it costs little, however many there are, and says as much: `benchmarks/exposed.py` has the time."""
    looks = 0
    gauges: Any = vars(Socket)["gauges"]

    def counted(socket: Socket) -> Any:
        nonlocal looks
        looks += 1
        return gauges.fget(socket)

    monkeypatch.setattr(Socket, "gauges", property(counted))
    relay = a_relay()
    limits = Limits(1_000_000, 10, 25, 10, 600)

    async def nothing(*_: Any) -> Any: ...

    async with relay:
        conversation = await relay.conversations.open("alice")
        dialects = [live(is_audio=is_audio, binary=True, newest=False) for is_audio in (True, False)]
        admission = Admission(Visitor(), nothing, Rates())
        sockets = [
            Socket(relay.conversations, limits, dialects[number % 2], admission, nothing, nothing)
            for number in range(2000)
        ]
        for socket in sockets:
            socket.conversation = conversation
        texts = []
        for attending in (sockets[:2], sockets):
            relay._sockets.clear()
            relay._sockets.update(attending)
            looks = 0
            texts.append(relay._metrics.text().decode().splitlines())
            assert looks == len(attending)
        relay._sockets.clear()
        for socket in sockets:
            socket.conversation = None
    assert 'relay_sockets{dialect="audio",relay="tester"} 1000.0' in texts[1]
    assert 'relay_conversations_attended{dialect="audio",relay="tester"} 1.0' in texts[1]
    assert len(texts[0]) == len(texts[1])
