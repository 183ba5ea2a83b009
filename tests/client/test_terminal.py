"""The client at a terminal: what a person sees, and what the commands do."""

from __future__ import annotations

import asyncio
import re
import signal
import termios
from pathlib import Path

import httpx
import pytest

from support.chat import chat
from support.client import client
from support.process import HANGS
from support.proxy import Proxy
from support.server import ROOT, serving
from support.terminal import at_terminal, connected, environment, piped, talkative


async def test_without_its_libraries_a_terminal_is_told_and_a_pipe_works(tmp_path: Path) -> None:
    for name in ("rich", "prompt_toolkit"):
        (tmp_path / f"{name}.py").write_text(f'raise ModuleNotFoundError("No module named {name}")\n')
    lacking = f"{tmp_path}:{ROOT}"
    async with serving(talkative()) as port:
        env = environment() | {"PYTHONPATH": lacking}
        code, out, err = await piped("--url", f"http://127.0.0.1:{port}", env=env)
        assert (code, err) == (0, "")
        assert "You said: hello" in out
        async with at_terminal(port, tmp_path, PYTHONPATH=lacking) as person:
            assert await person.leaves("") == 1
            await person.sees(r"\A\s*relay-client: A terminal needs: pip install 'adk-relay\[client\]'")


async def test_an_answer_is_seen_as_it_comes(tmp_path: Path) -> None:
    relay = talkative(words_per_second=15)
    async with serving(relay) as port, connected(port, tmp_path) as person:
        await person.says("good evening to all of you who are listening")
        await person.sees(r"(?m)^you +good evening to all of you")
        found = await person.sees(r"(?m)^agent +This is a rehearsal")
        assert "listening" not in person.sight[found.end() :]  # not at once
        person.types("typed meanwh")  # while it comes
        await person.sees(r"(?m)^you +> typed meanwh$")
        await person.sees(r"(?m)^agent +This is a rehearsal: .* You said: good evening to all of you who")
        await person.sees(r"(?m)listening\n+you +> typed meanwh$")
        person.types("ile\r")
        await person.sees(r"You said: typed meanwhile\n")
        assert len(re.findall("(?m)^agent", person.sight)) == 2
        assert await person.leaves() == 0


async def test_every_command(tmp_path: Path) -> None:
    relay = talkative()
    async with serving(relay) as port, connected(port, tmp_path, BROWSER="true") as person:
        await person.says("/help")
        for name in (
            *("help", "stats", "server", "health", "docs", "demo", "clear", "quit"),
            *("connect", "disconnect", "ping", "new", "join ID", "info", "sessions"),
        ):
            await person.sees(rf"(?m)^/{name} +\w")
        await person.says("/info")
        await person.sees("There is no conversation yet")
        await person.says("hello")
        await person.sees("You said: hello")
        [first] = relay.conversations._open
        await person.sees(f"connected · rehearsal · {first}")
        await person.says("/info")
        await person.sees(rf"session_id +{first}\n")
        await person.sees(r"message_count +2\n")
        await person.says("/stats")
        for line in (
            *(r"duration +\d+ s", "messages sent +1", "streams +1 succeeded, 0 failed"),
            *(r"chunks +\d+, \d+\.0 a stream", "connection attempts +1", "reconnections +0"),
            *("sessions created +1", r"response time +\d\.\d\d s", r"first-token time +\d\.\d\d s"),
            *("status +connected", f"session +{first}"),
        ):
            await person.sees(rf"(?m)^{line}")
        await person.says("/server")
        await person.sees(r"total_sessions_created +1\n")
        await person.says("/health")
        await person.sees(r"status +ok\n")
        await person.says("/ping")
        await person.sees(r"\d\.\d ms\n")
        await person.says("/docs")
        await person.sees(rf"http://127\.0\.0\.1:{port}/docs\n")
        await person.says("/demo")
        await person.sees(rf"http://127\.0\.0\.1:{port}/demo\n")
        await person.says("/new")
        second = (await person.sees(r"In the new conversation ([\w-]+)\."))[1]
        assert second != first
        await person.says("here now")
        await person.sees("You said: here now")
        await person.says("/sessions")
        await person.sees(rf"(?s)session +messages +clients.*{second} +2 +1 .*{first} +2 +0 ")
        await person.says(f"/join {first}")
        await person.sees(r"(?s)/join.*\nuser +hello\nagent +This is a rehearsal: .* You said: hello\n")
        async with chat(port, first) as other:
            await other.send(type="rewind")
            await person.sees(r"What was said last was taken back\.")
            await other.chat("from another")
            await person.sees("You said: from another")
            assert person.sight.count("from another") == 2
        await person.says("/join nowhere")
        await person.sees("There is no conversation 'nowhere'")
        await person.says("/clear")
        await person.sees(r"The conversation was cleared\.")
        await person.says("/nonsense")
        await person.sees("There is no /nonsense")
        await person.says("/disconnect")
        await person.sees("Disconnected.")
        await person.says("said meanwhile")
        await person.sees("It is sent as soon as")
        await person.says("/connect")
        await person.sees(r"You said: said meanwhile\n")
        assert person.sight.count("said meanwhile") == 2
        # What was typed is there again the next time, for nobody else to read.
        assert await person.leaves() == 0
        history = tmp_path / "relay" / "history"
        assert history.stat().st_mode & 0o777 == 0o600
    async with serving(talkative()) as port, connected(port, tmp_path) as person:
        person.types("\x1b[A\x1b[A\x1b[A")  # up
        await person.sees(r"(?m)^you +> said meanwhile$")
        person.types("\x03")  # takes it back
        await person.sees(r"(?m)^you +>$")
        assert await person.leaves("\x04") == 0


async def test_a_narrow_terminal_shows_whole_ids_and_the_beginning_of_one_is_enough(tmp_path: Path) -> None:
    async with serving(talkative()) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False) as http:
            for room in ("room-1", "room-10"):
                await http.post("/api/v1/chat", json={"session_id": room, "message": f"in {room}"})
            long = (await http.post("/sessions/new")).json()["session_id"]
        async with at_terminal(port, tmp_path, width=50) as person:
            await person.says("/sessions")
            await person.sees(rf"(?m)^{long} ")
            await person.says(f"/join {long[:9]}")
            await person.sees(long[:20])  # in the line at the bottom
            await person.says("/join room")
            await person.sees("2 conversations begin with room")
            await person.says("/join room-1")
            await person.sees(r"user +in room-1\n")
            await person.says("/join room-10")
            await person.sees(r"user +in room-10\n")
            await person.says("/join nowhere")
            await person.sees("There is no conversation 'nowhere'")
            assert await person.leaves() == 0


async def test_two_in_a_room(tmp_path: Path) -> None:
    relay = talkative(words_per_second=30)
    async with serving(relay) as port, connected(port, tmp_path) as anna:
        await anna.says("/new")
        room = (await anna.sees(r"In the new conversation ([\w-]+)\."))[1]
        async with connected(port, tmp_path, "--session", room) as bert:
            guest = (await anna.sees(r"(Guest \S{4}) came\."))[1]
            bert.types("let us")
            await anna.sees(f"{guest} is typing…")
            bert.types(" go\r")
            for one in (anna, bert):
                await one.sees(r"(?m)^agent +This is a rehearsal: .* You said: let us go")
            await anna.sees(f"(?m)^{guest} +let us go$")
            bert.types("and")
            await anna.sees(f"{guest} is typing…")
            bert.types("\x03")
            await anna.says("all right")
            await bert.sees(r"(?m)^Guest \S{4} +all right$")
            for one in (anna, bert):
                await one.sees(r"You said: all right")
                assert "is typing" not in one.sight
            assert await bert.leaves() == 0
        await anna.sees(f"{guest} left")
        assert "reconnect" not in anna.sight


async def test_nothing_that_others_say_steers_the_terminal(tmp_path: Path) -> None:
    async with (
        serving(talkative()) as port,
        client(port, "guest", query="&session_id=room") as other,
    ):
        await other.ask("before")
        async with connected(port, tmp_path, "--session", "room") as person:
            await person.sees("user +before")
            await other.ask("\x1b]0;owned\x07\x1b[2J\x9b31m[red]bold[/red]\u202e :smile: \ud83d\ude00 after")
            seen = r"\]0;owned\[2J31m\[red\]bold\[/red\] :smile: \S+ +after"
            await person.sees(rf"Guest \S{{4}} +{seen}")
            await person.sees(rf"You said:\s+{seen}")
            assert b"\x1b]0;" not in person.raw
            assert b"\x1b[2J" not in person.raw
            assert "\x9b".encode() not in person.raw
            assert "\u202e".encode() not in person.raw


@pytest.mark.parametrize(
    ("how", "code"), [("Ctrl-C", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=str
)
async def test_it_leaves_in_mid_answer(how: str | signal.Signals, code: int, tmp_path: Path) -> None:
    async with (
        serving(talkative(words_per_second=5)) as port,
        connected(port, tmp_path, NO_COLOR="1") as person,
    ):
        await person.says("hello")
        await person.sees("agent +This is")
        if isinstance(how, str):
            person.types("\x03")
        else:
            person.process.send_signal(how)
        assert await person.leaves("") == code
        await person.sees("agent +This is")  # what was seen of the answer stays
        # The terminal is as it was: it echoes, and knows lines. And no color was asked for.
        usual = termios.ECHO | termios.ICANON
        assert termios.tcgetattr(person.terminal)[3] & usual == usual
        assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7])m", person.raw)


async def test_what_is_wider_than_the_terminal_is_folded(tmp_path: Path) -> None:
    address = "https://example.org/" + "/".join(f"path{n}" for n in range(30))
    words = "日本語" * 40
    async with serving(talkative()) as port, connected(port, tmp_path) as person:
        for text in (address, words):
            await person.says(text)
            await person.sees("(?m)^agent +.*You said")
            async with asyncio.timeout(HANGS):
                while re.sub(r"\s", "", person.sight).count(text) < 2:
                    await asyncio.sleep(0.01)
        assert "…" not in person.sight.partition("there is.")[2]


async def test_a_command_that_takes_too_long_is_given_up_with_ctrl_c(tmp_path: Path) -> None:
    async with (
        serving(talkative()) as port,
        Proxy(port) as between,
        connected(between.port, tmp_path) as person,
    ):
        between.lines[-1].hold()
        await person.says("/ping")
        await person.sees("(?m)^ +/ping$")
        person.types("\x03")  # there is no prompt now: it is a signal
        await person.sees("Given up")
        await person.sees(r"(?m)^you +>")
        assert person.process.returncode is None
