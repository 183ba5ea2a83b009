"""How much CPU time it takes to import relay, and to run its command."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
import tempfile

from benchmarks.builds import ROOT
from benchmarks.processes import CORES, Lab
from benchmarks.report import Row

_TELL_CPU = "import atexit, sys, time; atexit.register(lambda: print(time.process_time(), file=sys.stderr))"


async def imports(lab: Lab) -> list[Row]:
    """The import as an application does it, without ADK; with all that serves conversations; the command."""
    programs = {
        "nothing": "pass",
        "relay": "import relay",
        "all": "import relay, adk_relay.adk.conversations",
        "adk": _imports_of_adk(),
        "help": "sys.argv[:] = ['relay', '--help']; import adk_relay.__main__ as command; command.main()",
    }
    used: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:  # here is no .env
        for number in range(1 + (3 if lab.quick else 9)):
            for name, program in programs.items():
                milliseconds = await asyncio.to_thread(_run, folder, program)
                if number:  # the first round fills the disk's cache and compiles what is imported
                    used[name].append(milliseconds)

    def row(what: str, name: str, against: str, other: str, aim: float | None = None) -> Row:
        return Row(f"import: {what}", used[name], against, used[other], "{:.0f} ms", aim)

    adk, nothing = "what it imports of ADK and google-genai", "`python -c pass`"
    return [
        row("relay with all that serves conversations", "all", adk, "adk", 1.1),
        row("`import relay`", "relay", adk, "adk", 1.1),
        row("`import relay`", "relay", nothing, "nothing"),
        row("`relay --help`", "help", nothing, "nothing"),
    ]


def _imports_of_adk() -> str:
    """A program with the import statements for Google's packages at the tops of relay's modules."""
    statements = {
        ast.unparse(statement)
        for file in (ROOT / "adk_relay" / "adk").glob("*.py")
        for statement in ast.parse(file.read_text()).body
        if (isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("google"))
        or (isinstance(statement, ast.Import) and statement.names[0].name.startswith("google"))
    }
    return "\n".join(sorted(statements))


def _run(folder: str, program: str) -> float:
    """Milliseconds of CPU time of a Python program, which runs without the settings of the environment."""
    settings = ("GEMINI_", "GOOGLE_", "RELAY_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(settings)}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{_TELL_CPU}\n{program}"],
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if CORES:
        os.sched_setaffinity(process.pid, {CORES[0]})
    _, errors = process.communicate()
    if process.returncode:
        raise AssertionError(f"{program!r} ended with {process.returncode}: {errors}")
    return float(errors.split()[-1]) * 1000
