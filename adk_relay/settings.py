"""The settings. Each is defined once, in `SETTINGS`.

In the environment a setting is RELAY_<NAME>, for `relay serve` it is --<name>, and `relay.Relay` takes most
of them as keyword arguments. Options override the environment, which overrides the file `.env`.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from adk_relay.core.logs import one_line

if TYPE_CHECKING:
    from google.adk.artifacts import BaseArtifactService
    from google.adk.memory import BaseMemoryService
    from google.adk.sessions import BaseSessionService

log = logging.getLogger("relay")


class SettingsError(ValueError):
    """A setting is wrong, or there is no agent to serve. The text says what is wrong, and what to do."""


class Options(TypedDict, total=False):
    """The settings that `relay.Relay` takes as keyword arguments. `SETTINGS` has the meaning of each."""

    sessions: str | BaseSessionService
    app_name: str | None
    shared_store: str
    bus: str | None
    role: str
    artifacts: str | BaseArtifactService
    memory: str | BaseMemoryService
    queue_bytes: int
    slow_timeout: float
    ping_interval: float
    pong_timeout: float
    idle_timeout: float
    voices: str | None
    languages: str | None
    state_delta: str
    client_tools: str
    mic_ms: float
    grace: float
    replay_bytes: int
    replay_seconds: float
    sound: str
    drain: float
    metrics_port: int
    metrics_host: str
    secret: str | None
    jwks: str | None
    one_use: str
    twilio_token: str | None
    origins: str | None
    hosts: str | None
    max_sockets: int
    user_sockets: int
    address_sockets: int
    max_conversations: int
    max_requests: int
    message_rate: float
    user_message_rate: float
    sound_rate: float
    user_sound_rate: float
    user_sound_day: float


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: the name of `Relay`'s argument.
        type: the type that its text is converted to.
        default: its value if it is not set; None: `help` describes it.
        help: its meaning and unit, in one line.
        range: the numbers that are allowed.
        least: the smallest useful number. Below it nothing would work: with one byte in a queue, for example.
        choices: the words that are allowed; if empty, all are.
        is_argument: whether `Relay` takes it. The others choose the agent and the run configuration,
            which `Relay` takes as objects.
    """

    name: str
    type: type[str] | type[int] | type[float]
    default: str | int | float | None
    help: str
    range: Literal["> 0", ">= 0"] | None = None
    least: float = 0
    choices: tuple[str, ...] = ()
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
        """Converts a text to the setting's type.

        Raises:
            ValueError: this is not possible. The error's text says what the setting must be.
        """
        try:
            return self.type(text)
        except ValueError:
            raise ValueError("must be a whole number" if self.type is int else "must be a number") from None

    def check(self, value: Any) -> None:
        """Raises ValueError if the value is out of the range, or not one of the choices."""
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}, but must be {' or '.join(self.choices)}")
        # Written with `not`, so that NaN is an error too: every comparison with NaN is false.
        if self.range == "> 0" and not value > 0:
            raise ValueError(f"{self.name} is {value}, but must be above 0")
        if self.range == ">= 0" and not value >= 0:
            raise ValueError(f"{self.name} is {value}, but must not be negative")
        if self.range and value < self.least:
            raise ValueError(f"{self.name} is {value}, but must be at least {self.least:g}")


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(
            "agent",
            str,
            None,
            "module:attribute of the agent or App; if empty, of the folder agent/, or else the built-in one",
            is_argument=False,
        ),
        Setting(
            "model",
            str,
            "gemini-3.8-live",
            "The live model of the built-in agent; rehearsal: the offline model, for any agent",
            is_argument=False,
        ),
        Setting(
            "voice", str, None, "Name of a prebuilt voice; if empty, the model chooses", is_argument=False
        ),
        Setting(
            "language",
            str,
            None,
            "BCP-47 code of the spoken language; if empty, the model chooses",
            is_argument=False,
        ),
        Setting(
            "log",
            str,
            "text",
            "text: a log for people; json: one JSON object a line, uvicorn's lines too",
            choices=("text", "json"),
            is_argument=False,
        ),
        Setting(
            "sessions",
            str,
            "sqlite:///.adk/session.db",
            "URI of ADK's session service: memory://, sqlite:///file.db; postgresql:// needs google-adk[db]",
        ),
        Setting(
            "app_name",
            str,
            None,
            "Name under which the sessions are kept; if empty, the name of the App or the agent",
        ),
        Setting(
            "shared_store",
            str,
            "false",
            "true: several processes share the sessions without a bus; a proxy brings all of a user to one",
            choices=("false", "true"),
        ),
        Setting(
            "bus",
            str,
            None,
            "URL of the Redis through which processes share conversations: redis://host:6379; if empty, none",
        ),
        Setting(
            "role",
            str,
            "both",
            "With a bus: both; web: sockets and requests only; worker: runs the agent only",
            choices=("both", "web", "worker"),
        ),
        Setting(
            "artifacts",
            str,
            "memory://",
            "URI of ADK's artifact service: memory:// (64 MiB at most), file:///folder, gs://bucket",
        ),
        Setting(
            "memory",
            str,
            "memory://",
            "URI of ADK's memory service: memory:// (bounded), rag://corpus, agentengine://id",
        ),
        Setting(
            "queue_bytes", int, 4 * 1024 * 1024, "Bytes that may wait to be sent to one socket", "> 0", 1000
        ),
        Setting(
            "slow_timeout",
            float,
            10.0,
            "Seconds that sending one frame may take before the socket is closed",
            "> 0",
            0.01,
        ),
        Setting(
            "ping_interval",
            float,
            25.0,
            "Seconds without a frame from a client before it is pinged",
            "> 0",
            0.01,
        ),
        Setting(
            "pong_timeout",
            float,
            10.0,
            "Seconds that a client has to answer a ping, if it has answered one before",
            "> 0",
            0.01,
        ),
        Setting(
            "idle_timeout",
            float,
            600.0,
            "Seconds without content before a conversation ends; 0: never",
            ">= 0",
        ),
        Setting(
            "voices",
            str,
            None,
            "Voices that users may choose for a conversation, separated by commas; if empty, none",
        ),
        Setting(
            "languages",
            str,
            None,
            "BCP-47 codes of the languages that users may choose, separated by commas; if empty, none",
        ),
        Setting(
            "state_delta",
            str,
            "session",
            "Which state clients may set with a text: session; all: ADK's app: and user: keys too; off: none",
            choices=("session", "all", "off"),
        ),
        Setting(
            "client_tools",
            str,
            "loopback",
            "Who may set instructions and tools: loopback: clients on this machine; on: all; off: none",
            choices=("loopback", "on", "off"),
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
            "Bytes of its last messages that a conversation keeps, for clients that come back; 0: none",
            ">= 0",
        ),
        Setting("replay_seconds", float, 60.0, "Seconds that a conversation keeps its last messages", ">= 0"),
        Setting(
            "sound",
            str,
            "short",
            "short: sound goes past ADK unless somebody in ADK wants to see it; long: always through ADK",
            choices=("short", "long"),
        ),
        Setting(
            "drain",
            float,
            5.0,
            "Seconds that answers under way get when relay serve is told to stop; 0: none",
            ">= 0",
        ),
        Setting("metrics_port", int, 0, "Port of /metrics, for Prometheus; 0: none", ">= 0"),
        Setting(
            "metrics_host", str, "127.0.0.1", "Address that the metrics are served on; 0.0.0.0: all of them"
        ),
        Setting(
            "secret",
            str,
            None,
            "Secret of at least 32 bytes that signs tokens (HS256); if set, clients need a token",
        ),
        Setting(
            "jwks",
            str,
            None,
            "File or URL of the keys that verify tokens (RS256, ES256); if set, clients need a token",
        ),
        Setting(
            "one_use",
            str,
            "false",
            "true: tokens open one WebSocket; without a bus, one a process",
            choices=("false", "true"),
        ),
        Setting(
            "twilio_token",
            str,
            None,
            "Auth token of the Twilio account whose calls are taken; if set, each has to be signed with it",
        ),
        Setting(
            "origins",
            str,
            None,
            "Origins whose pages may use the server, besides its own; separated by commas",
        ),
        Setting(
            "hosts",
            str,
            None,
            "Names under which the server is reached; if empty, on a loopback address only the machine's own",
        ),
        Setting("max_sockets", int, 10_000, "WebSockets that may be open at once; 0: any number", ">= 0"),
        Setting("user_sockets", int, 500, "WebSockets of one user who signs in; 0: any number", ">= 0"),
        Setting(
            "address_sockets",
            int,
            500,
            "WebSockets from one address (IPv6: /64) but this machine's; 0: any number",
            ">= 0",
        ),
        Setting(
            "max_conversations",
            int,
            1000,
            "Conversations in memory, most with a connection to the model; 0: any number",
            ">= 0",
        ),
        Setting(
            "max_requests", int, 1000, "HTTP requests that may be under way at once; 0: any number", ">= 0"
        ),
        Setting(
            "message_rate",
            float,
            100.0,
            "Messages a second from one WebSocket, without sound; 0: any number",
            ">= 0",
        ),
        Setting(
            "user_message_rate",
            float,
            500.0,
            "Messages and HTTP requests a second of one user who signs in; 0: any number",
            ">= 0",
        ),
        Setting(
            "sound_rate",
            float,
            2.0,
            "Seconds of sound that are read from one WebSocket in a second; 0: any number",
            ">= 0",
        ),
        Setting(
            "user_sound_rate",
            float,
            50.0,
            "Seconds of sound of one user who signs in, in a second; 0: any number",
            ">= 0",
        ),
        Setting(
            "user_sound_day",
            float,
            0.0,
            "Seconds of sound of one user who signs in, in a day (UTC); 0: any number",
            ">= 0",
        ),
    )
}
"""All settings, by name, in the order in which they are shown."""

_KUBERNETES = re.compile(r"RELAY_(SERVICE|PORT)_|RELAY_PORT=tcp:")
"""What Kubernetes sets in all containers if a service is named `relay`."""


def complete(options: Options) -> Options:
    """The options with the defaults of those that are not given.

    Raises:
        TypeError: there is no such setting.
        ValueError: a value is out of its setting's range or choices.
    """
    values = {name: setting.default for name, setting in SETTINGS.items() if setting.is_argument}
    for name, value in options.items():
        if name not in values:
            raise TypeError(f"Relay has no setting {name!r}")
        SETTINGS[name].check(value)
        values[name] = cast(Any, value)
    return cast(Options, values)


def from_environment() -> dict[str, Any]:
    """The settings that the environment has, by name. An empty variable counts as not set.

    A variable that looks like a setting and is none is a warning, with the name that was probably meant.

    Raises:
        SettingsError: one of them can't be read. Ranges are not checked.
    """
    known = [setting.variable for setting in SETTINGS.values()]
    for variable, value in sorted(os.environ.items()):
        is_known = variable in known or _KUBERNETES.match(f"{variable}={value}")
        if variable.startswith("RELAY_") and not is_known:
            near = get_close_matches(variable.removeprefix("RELAY_").lower(), SETTINGS, n=1)
            meant = f" Did you mean {SETTINGS[near[0]].variable}?" if near else ""
            log.warning("%s is no setting of relay, and does nothing.%s", one_line(variable), meant)
    values = {}
    for name, setting in SETTINGS.items():
        if text := os.environ.get(setting.variable):
            try:
                values[name] = setting.read(text)
            except ValueError as error:
                raise SettingsError(f"{setting.variable} is {text!r}, but {error}") from None
    return values


def load_env_files(folder: Path) -> None:
    """Adds the variables of `.env` to the environment, except those that are set already.

    If RELAY_AGENT is not set, agent/.env is read, too: `adk create` puts an agent's credentials there.
    """
    from dotenv import load_dotenv  # imported here, because an embedded relay does not need it

    load_dotenv(folder / ".env")
    if not os.environ.get("RELAY_AGENT"):
        load_dotenv(folder / "agent" / ".env")
