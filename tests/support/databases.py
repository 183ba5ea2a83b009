"""Real database servers, each in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.ports import free_port
from support.server import need


class Server:
    """A database server that can be stopped and started again.

    Args:
        uri: how relay reaches it.
        command: starts it in the foreground.
        user: the user that it runs as, if these tests are root's.
    """

    def __init__(self, uri: str, port: int, command: Sequence[str], user: str | None) -> None:
        self.uri = uri
        self._port = port
        self._command = command
        self._user = user
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            user=self._user,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    assert self._process.returncode is None, f"{self._command[0]} did not start"
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    async def stop(self) -> None:
        """Stops it, and waits for its end."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGINT if "postgresql" in self.uri else signal.SIGTERM)
            await self._process.wait()


def needs_modules(*names: str) -> None:
    """Skips the test where one of these modules is not installed; in CI, it fails."""
    for name in names:
        if not find_spec(name):
            message = f"{name} is missing: pip install 'google-adk[db]' asyncpg aiomysql"
            pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)


@asynccontextmanager
async def database(kind: str) -> AsyncIterator[Server]:
    """A running server with an empty database "relay"."""
    driver = {"postgresql": "asyncpg", "mariadb": "aiomysql"}[kind]
    needs_modules("sqlalchemy", driver)
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="relay-"))
    try:
        server = await (_postgresql if kind == "postgresql" else _mariadb)(folder, port)
        try:
            yield server
        finally:
            await server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _postgresql(folder: Path, port: int) -> Server:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    postgres = Path(str(found[-1]) if found else need("postgres", "postgresql"))
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to be root
    if user:
        shutil.chown(folder, user)
    data = str(folder / "data")
    await _run(str(postgres.with_name("initdb")), "-D", data, "-U", "relay", "-A", "trust", user=user)
    command = [str(postgres), "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    server = Server(f"postgresql+asyncpg://relay@127.0.0.1:{port}/relay", port, command, user)
    await server.start()
    await _run(
        str(postgres.with_name("createdb")),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-U",
        "relay",
        "relay",
        again=True,
    )
    return server


async def _mariadb(folder: Path, port: int) -> Server:
    mariadbd = need("mariadbd", "mariadb-server")
    user = ["--user=root"] if os.geteuid() == 0 else []
    data = f"--datadir={folder}/data"
    await _run("mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=normal", *user)
    init = folder / "init.sql"
    init.write_text(
        "CREATE DATABASE IF NOT EXISTS relay;\n"  # a statement a line
        "CREATE USER IF NOT EXISTS relay@'127.0.0.1';\n"
        "GRANT ALL ON relay.* TO relay@'127.0.0.1';\n"
    )
    options = [
        data,
        f"--socket={folder}/s",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--init-file={init}",
    ]
    command = [mariadbd, "--no-defaults", *options, "--skip-name-resolve", *user]
    server = Server(f"mysql+aiomysql://relay@127.0.0.1:{port}/relay", port, command, None)
    await server.start()
    return server


async def _run(*command: str, user: str | None = None, again: bool = False) -> None:
    """Runs a program to its end; `again`: until it succeeds."""
    async with asyncio.timeout(60):
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, user=user, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            told, _ = await process.communicate()
            if process.returncode == 0:
                return
            assert again, told.decode()
            await asyncio.sleep(0.1)
