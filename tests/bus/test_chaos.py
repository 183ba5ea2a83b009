"""Everything that can happen to the processes of a service and to their Redis, while people talk."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.chaos import Chaos


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [16, 19])
async def test_no_promise_is_broken(seed: int, tmp_path: Path) -> None:
    """`benchmarks/chaos.py` does the same for as long as one likes, with any seed."""
    await Chaos(tmp_path, seed, seconds=30, conversations=25).run()
