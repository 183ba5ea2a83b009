"""A real MCP server over stdio: it is started once, for all calls, and ends with the relay."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from google.adk.agents import LlmAgent

from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, need_module, serving

SERVER = """
import os
from mcp.server import MCPServer

server = MCPServer("counter")
count = 0

@server.tool()
def add() -> str:
    "Counts the calls."
    global count
    count += 1
    return f"{count} in process {os.getpid()}"

server.run()
"""


async def test_an_mcp_server_over_stdio_is_started_once(gemini: GeminiLive, tmp_path: Path) -> None:
    need_module("mcp")
    adk: Any = import_module("google.adk.tools.mcp_tool")
    mcp: Any = import_module("mcp")

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("add", {})
        await connection.say(str(result["content"][0]["text"]))

    file = tmp_path / "server.py"
    file.write_text(SERVER)
    environment = {"PYTHONPATH": ":".join(sys.path)}
    server = mcp.StdioServerParameters(command=sys.executable, args=[str(file)], env=environment)
    toolset = adk.McpToolset(connection_params=adk.StdioConnectionParams(server_params=server, timeout=60))
    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[toolset])
    async with serving(a_relay(agent)) as port:
        said = []
        for name in ("alice", "bob"):
            async with client(port, name) as who:
                said += [await who.ask("count"), await who.ask("count")]
        async with client(port, "carol") as carol, client(port, "dave") as dave:
            said += await asyncio.gather(carol.ask("count"), dave.ask("count"))
        assert [line.split()[0] for line in sorted(said)] == ["1", "2", "3", "4", "5", "6"]
        [pid] = {int(line.split()[-1]) for line in said}
        assert psutil.pid_exists(pid)
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)
