"""The benchmarks run. What they measure depends on the machine; that they measure does not."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.builds import check_out_earlier

ROOT = Path(__file__).resolve().parents[2]


async def test_the_smallest_measurement_prints_its_table() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "replay"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    versions, *lines = output.decode().splitlines()
    header, _, row = [line for line in lines if line.startswith("|")]
    assert re.match(r"Python [\d.]+, google-adk [\d.]+, google-genai [\d.]+, uvicorn [\d.]+", versions)
    assert header == "| what | measured | against | ratio | long | aim |"
    assert re.fullmatch(
        r"\| replay: .* \| [\d.]+ ms \| .*: [\d.]+ ms \| [\d.]+ \([\d. to]+\) \|  \|  \|", row
    )


def test_without_the_earlier_commit_there_is_no_earlier_build(tmp_path: Path) -> None:
    with check_out_earlier(tmp_path) as tree:
        assert tree is None
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with check_out_earlier(tmp_path) as tree:
        assert tree is None
