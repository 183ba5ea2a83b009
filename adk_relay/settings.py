"""The settings. Each is told once, in `SETTINGS`.

The environment has them as RELAY_<NAME>, `relay serve` as --<name>, and `relay.Relay` takes most of them as
keyword arguments. An option beats the environment, and the environment beats the file `.env`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger("relay")


class SettingsError(ValueError):
    """A setting is wrong, or the agent can't be had; the text says which and what would be right."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: as `Relay` spells it.
        type: what its text is read as.
        default: what it is if it is not set; None: see `help`.
        help: one line that says what it is, and in what unit.
        range: which numbers are right.
        is_argument: whether `Relay` takes it. The others choose the agent and the run configuration,
            which `Relay` takes as objects.
    """

    name: str
    type: type[str] | type[int] | type[float]
    default: str | int | float | None
    help: str
    range: Literal["> 0", ">= 0"] | None = None
    is_argument: bool = True

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"RELAY_{self.name.upper()}"

    @property
    def option(self) -> str:
        """Its name as an option of the command."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def default_text(self) -> str:
        """Its default, as people write it: 10, not 10.0."""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def read(self, text: str) -> Any:
        """The value that a text means.

        Raises:
            ValueError: none; the text says what it must be.
        """
        try:
            return self.type(text)
        except ValueError:
            raise ValueError("must be a whole number" if self.type is int else "must be a number") from None

    def check(self, value: float) -> None:
        """Raises ValueError if the value is out of the range."""
        # Both are asked so that NaN, for which no comparison is true, is an error too.
        if self.range == "> 0" and not value > 0:
            raise ValueError(f"{self.name} is {value}, but must be above 0")
        if self.range == ">= 0" and not value >= 0:
            raise ValueError(f"{self.name} is {value}, but must not be negative")


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(
            "agent",
            str,
            None,
            "module:attribute of the agent; if empty, the one in the folder agent/, or else the built-in one",
            is_argument=False,
        ),
        Setting(
            "model",
            str,
            "gemini-3.8-live",
            "The live model of the built-in agent; rehearsal: the offline one",
            is_argument=False,
        ),
        Setting(
            "voice", str, None, "Name of a prebuilt voice; if empty, the model chooses", is_argument=False
        ),
        Setting(
            "language",
            str,
            None,
            "BCP-47 code of the language that is spoken; if empty, the model chooses",
            is_argument=False,
        ),
        Setting(
            "sessions",
            str,
            "sqlite:///.adk/session.db",
            "URI of ADK's session service: memory://, sqlite:///file.db; postgresql:// needs google-adk[db]",
        ),
        Setting("queue_bytes", int, 4 * 1024 * 1024, "Bytes that may wait to be sent to one socket", "> 0"),
        Setting(
            "slow_timeout",
            float,
            10.0,
            "Seconds that sending one frame may take before the socket is closed",
            "> 0",
        ),
        Setting(
            "ping_interval", float, 25.0, "Seconds without a frame from a client before it is pinged", "> 0"
        ),
        Setting(
            "pong_timeout",
            float,
            10.0,
            "Seconds that a client has to answer a ping, if it has answered one before",
            "> 0",
        ),
        Setting(
            "idle_timeout",
            float,
            600.0,
            "Seconds without content before a conversation is ended; 0: never",
            ">= 0",
        ),
        Setting("mic_ms", float, 40.0, "Milliseconds of sound that are sent to the model at once", ">= 0"),
        Setting(
            "grace",
            float,
            30.0,
            "Seconds that a conversation stays in memory after its last socket has left; 0: it ends at once",
            ">= 0",
        ),
        Setting(
            "replay_bytes",
            int,
            4 * 1024 * 1024,
            "Bytes of its last messages that a conversation keeps, for sockets that come back; 0: none",
            ">= 0",
        ),
        Setting("replay_seconds", float, 60.0, "Seconds that a conversation keeps its last messages", ">= 0"),
    )
}
"""All settings, by name, in the order in which they are shown."""


def check(**values: float) -> None:
    """Raises ValueError if a value, by its setting's name, is out of that setting's range."""
    for name, value in values.items():
        SETTINGS[name].check(value)


def from_environment() -> dict[str, Any]:
    """The settings that the environment has, by name. An empty variable counts as not set.

    Raises:
        SettingsError: one of them can't be read. Ranges are not checked.
    """
    values = {}
    for name, setting in SETTINGS.items():
        if text := os.environ.get(setting.variable):
            try:
                values[name] = setting.read(text)
            except ValueError as error:
                raise SettingsError(f"{setting.variable} is {text!r}, but {error}") from None
    return values


def load_env_files(folder: Path) -> None:
    """Adds what `.env` has to the environment, which wins.

    If RELAY_AGENT is not set, agent/.env is read, too: `adk create` puts an agent's credentials there.
    """
    from dotenv import load_dotenv  # only who asks for the environment needs it

    load_dotenv(folder / ".env")
    if not os.environ.get("RELAY_AGENT"):
        load_dotenv(folder / "agent" / ".env")


def show_logs() -> None:
    """Shows what relay logs if nobody has asked for logs: servers set up their own loggers only."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.getLogger("uvicorn.error").level or logging.INFO)  # --log-level
    if not logging.getLogger().handlers and not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s:     relay: %(message)s"))
        log.addHandler(handler)
