"""How the log of relay's own process looks. An embedded relay leaves that to its host."""

from __future__ import annotations

import logging
import os
from typing import Any

from adk_relay.core.logs import JsonFormatter, NoRepeats, NoTraceback, TextFormatter
from adk_relay.settings import SETTINGS, SettingsError

log = logging.getLogger("relay")


def show_logs() -> None:
    """Shows log lines if logging is not configured: ASGI servers configure only their own loggers.

    Warnings of libraries are shown, too. With RELAY_LOG=json, uvicorn's lines get the same form.

    Raises:
        SettingsError: RELAY_LOG is wrong.
    """
    try:
        SETTINGS["log"].check(form := os.environ.get("RELAY_LOG") or SETTINGS["log"].default)
    except ValueError as error:
        raise SettingsError(f"RELAY_LOG: {error}") from None
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addFilter(NoRepeats())
    logging.getLogger("uvicorn.error").addFilter(NoTraceback())
    formatter = JsonFormatter() if form == "json" else TextFormatter()
    if log.level == logging.NOTSET:
        log.setLevel(logging.getLogger("uvicorn.error").level or logging.INFO)  # uvicorn's --log-level
    if not logging.getLogger().handlers and not log.handlers:
        logging.getLogger().addHandler(shown := logging.StreamHandler())
        shown.setFormatter(formatter)
    if form == "json":
        logging.captureWarnings(True)
        for name in ("uvicorn", "uvicorn.access"):
            for handler in logging.getLogger(name).handlers:
                handler.setFormatter(formatter)


def log_config(uvicorns: dict[str, Any]) -> dict[str, Any]:
    """How uvicorn is to configure its loggers: as `uvicorns` says, but with RELAY_LOG=json in JSON."""
    if os.environ.get("RELAY_LOG") != "json":
        return uvicorns
    formatter = {"()": "adk_relay.core.logs.JsonFormatter"}
    return {**uvicorns, "formatters": dict.fromkeys(uvicorns["formatters"], formatter)}
