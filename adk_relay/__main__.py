"""The command: `relay serve`, `chat`, `token` and `version`; `python -m adk_relay` is the same."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from adk_relay import __version__
from adk_relay.settings import SETTINGS, Setting, load_env_files

_HELP = """\
Serve a Google ADK live agent over WebSockets, or talk with the agent of a server.

commands:
  serve    serve the page and an agent: relay serve --help
  chat     talk with the agent of a server: relay chat --help
  token    print a token for a user: relay token --help
  version  print the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        argv: the arguments after the command's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="relay",
        usage="relay [-h] {serve,chat,token,version} ...",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("serve", "chat", "token", "version")
    parser.add_argument("command", nargs="?", choices=commands, help=argparse.SUPPRESS)
    # Each command parses its own arguments, --help included.
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parsed = parser.parse_args(argv)
    match parsed.command:
        case None:
            parser.error(f"a command is missing: {', '.join(commands)}")
        case "serve":
            serve(parsed.arguments)
        case "chat":
            # Imported here, because a server does not need the client.
            from adk_relay.client.command import main as chat

            return chat(parsed.arguments, prog="relay chat")
        case "token":
            token(parsed.arguments)
        case _:
            print(__version__)
    return 0


def serve(argv: Sequence[str], prog: str = "relay serve") -> None:
    """Runs the server until it is stopped, then ends the process. It also ends it if the server can't start.

    This is `uvicorn relay:app` with the server of `adk_relay/server.py`, and with an option for each setting.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] [option ...]",  # naming all options would take seven lines before each error
        description="Serve the page and an ADK live agent.",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=28),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all of them (%(default)s)"
    )
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0: any (%(default)s)")
    parser.add_argument(
        "--log-level",
        choices=("critical", "error", "warning", "info", "debug", "trace"),
        default="info",
        help="debug shows every frame (%(default)s)",
    )
    parser.add_argument(
        "--forwarded-allow-ips",
        metavar="IPS",
        help="proxies whose X-Forwarded-For is believed; *: all (127.0.0.1) [FORWARDED_ALLOW_IPS]",
    )
    settings = parser.add_argument_group(
        "settings", "Each can also be set in the environment, or in the file .env."
    )
    for setting in SETTINGS.values():
        default = "" if setting.default is None else f" ({setting.default_text})"
        settings.add_argument(
            setting.option,
            metavar={str: "TEXT", int: "N", float: "X"}[setting.type],
            type=_checked(setting),
            help=f"{setting.help}{default} [{setting.variable}]".replace("%", "%%"),
        )
    arguments = parser.parse_args(argv)
    for name, setting in SETTINGS.items():
        if (text := getattr(arguments, name)) is not None:
            os.environ[setting.variable] = text  # `app` reads it from there when the server starts

    from adk_relay import server  # it imports uvicorn, which is slow, and --help does not need it

    load_env_files(Path.cwd())  # it may set RELAY_LOG
    config = server.config(
        "relay:app", arguments.host, arguments.port, arguments.log_level, arguments.forwarded_allow_ips
    )
    served = server.Server(config)
    served.run()
    if not served.started:
        sys.exit(server.STARTUP_FAILURE)
    server.end_process()


def token(argv: Sequence[str], prog: str = "relay token") -> None:
    """Prints a token that is signed with RELAY_SECRET, from the environment or the file .env."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print a token for a user, signed with RELAY_SECRET.",
        allow_abbrev=False,
    )
    parser.add_argument("user", help="the user")
    parser.add_argument("--ttl", type=_seconds, default=300, help="seconds that it holds (%(default)s)")
    parser.add_argument("--name", default="", help="what the others in a conversation are told")
    arguments = parser.parse_args(argv)

    # Imported here, because the other commands do not need it.
    from adk_relay.core.visitor import name_of, user_id_of
    from adk_relay.wire.tokens import Tokens

    load_env_files(Path.cwd())
    if not (secret := os.environ.get("RELAY_SECRET")):
        parser.error("RELAY_SECRET is not set, in the environment or in .env")
    try:
        user_id_of(arguments.user)
        tokens = Tokens(secret, None)
    except ValueError as error:
        parser.error(str(error))
    print(tokens.issue(arguments.user, arguments.ttl, name=name_of(arguments.name)))


def _seconds(text: str) -> float:
    """The seconds that an option's text means."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"it is {text!r}, but must be a number of seconds, at least 1")
    return seconds


def _port(text: str) -> int:
    """The port that an option's text means."""
    # The event loop would take a larger number and listen on another port than the log says.
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"it is {text!r}, but must be a whole number from 0 to 65535")
    return int(text)


def _checked(setting: Setting) -> Callable[[str], str]:
    """Returns a function for argparse, which returns an option's text unchanged if its value is valid."""

    def checked(text: str) -> str:
        try:
            value = setting.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"it is {text!r}, but {error}") from None
        try:
            setting.check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return checked


if __name__ == "__main__":
    sys.exit(main())
