"""`relay token`, and how `relay serve` takes a secret."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from adk_relay.wire.tokens import Tokens
from support.process import serving_warm, warm_relay
from support.server import ROOT
from support.tokens import SECRET, web

COMMAND = [sys.executable, "-m", "adk_relay"]


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "token", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


async def test_a_token_is_printed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"RELAY_SECRET='{SECRET}'\n")
    done = run(tmp_path, "ann@example.com", "--ttl", "60", "--name", "Ann")
    assert (done.returncode, done.stderr) == (0, "")
    read = await Tokens(SECRET, None).read(done.stdout.strip())
    assert (read.visitor.user_id, read.visitor.name) == ("ann~40example.com", "Ann")
    assert read.visitor.expires_at == pytest.approx(time.time() + 65, abs=30)


@pytest.mark.parametrize(
    ("arguments", "secret", "complaint"),
    [
        (["ann"], "", "RELAY_SECRET is not set"),
        (["ann"], "sh0rt", "has 5 bytes, but must have at least 32"),
        (["ann", "--ttl", "0"], SECRET, "must be a number of seconds"),
        (["ann", "--ttl", "nan"], SECRET, "must be a number of seconds"),
        (["a" * 129], SECRET, "a user has 1 to 128 characters"),
    ],
)
def test_a_token_that_can_not_be_made(
    tmp_path: Path, arguments: list[str], secret: str, complaint: str
) -> None:
    done = run(tmp_path, *arguments, RELAY_SECRET=secret)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert not secret or secret not in done.stderr


async def test_a_server_with_a_secret(tmp_path: Path) -> None:
    serve = [*COMMAND, "serve", "--port", "0", "--sessions", "memory://", "--log-level", "debug"]
    made = run(tmp_path, "ann", RELAY_SECRET=SECRET).stdout.strip()
    async with serving_warm(serve, tmp_path, RELAY_SECRET=SECRET) as relay:
        async with web(relay.port, None) as nobody:
            assert (await nobody.get("/sessions")).status_code == 401
            assert (await nobody.get("/sessions", params={"token": made})).status_code == 200
        await relay.says(r"GET /sessions\?token=… ")
        await relay.stop()
        assert not any(made in line or SECRET in line for line in relay.log)


async def test_a_server_with_a_short_secret_does_not_start(tmp_path: Path) -> None:
    serve = [*COMMAND, "serve", "--port", "0", "--sessions", "memory://"]
    async with warm_relay(serve, tmp_path, RELAY_SECRET="sh0rt") as relay:
        await relay.says("RELAY_SECRET.* has 5 bytes, but must have at least 32")
        assert await relay.ended() != 0
        assert not any("sh0rt" in line for line in relay.log)
