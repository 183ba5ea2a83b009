"""A relay that has a process of its own has just one: what starts several is refused."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import shlex
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from adk_relay.settings import SETTINGS, SettingsError, load_env_files
from adk_relay.wire.asgi import Receive

_VARIABLES = ("WEB_CONCURRENCY", "GRANIAN_WORKERS")
"""What servers read the number of their processes from."""

_OPTION = re.compile(r"(-w|--workers)=?(\d*)")
"""The option of uvicorn, gunicorn, hypercorn and granian. The number may be the next argument."""

_CHILD = re.compile(r"SpawnProcess-(\d+)")
"""The names of the processes that uvicorn and hypercorn start."""

_PATIENCE = 60.0
"""Seconds after which a process ends that its parent has not ended meanwhile."""


async def check(receive: Receive) -> None:
    """Refuses to be one of several processes that take connections from the same socket, without a bus.

    Nobody could bring all sockets of a user to one of them, so a conversation would be in all.

    uvicorn, gunicorn, hypercorn and granian end all their processes, if one does not start. Where it is known
    which is the first, it alone tells why, and the others wait until they are ended.

    Args:
        receive: that of the lifespan; uvicorn's is a method of an object that has the server's configuration.

    Raises:
        SettingsError: the server has several processes.
    """
    load_env_files(Path.cwd())
    if os.environ.get(SETTINGS["bus"].variable):
        return
    config = getattr(getattr(receive, "__self__", None), "config", None)
    if getattr(config, "reload", False):  # uvicorn then starts one process, whatever else is set
        return
    asked, number = _asked(config)
    if number < 2:
        return
    child = _CHILD.fullmatch(multiprocessing.current_process().name)
    if child and child[1] != "1":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        await asyncio.sleep(_PATIENCE)
    raise SettingsError(
        f"{asked} asks for {number} processes, and a conversation lives in one process: set it to 1"
        " (or RELAY_BUS, which lets processes share conversations: see docs/production.md)"
    )


def _asked(config: Any) -> tuple[str, int]:
    """The option or variable that says how many processes there are, and what it says."""
    arguments = [*sys.argv[1:], *shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")), ""]
    for argument, following in pairwise(arguments):
        if option := _OPTION.fullmatch(argument):
            return option[1], _number(option[2] or following)
    for variable in _VARIABLES:
        if (number := _number(os.environ.get(variable, ""))) > 1:
            return variable, number
    workers = getattr(config, "workers", 1)  # given to uvicorn.run
    return "workers", workers if isinstance(workers, int) else 1


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 1
