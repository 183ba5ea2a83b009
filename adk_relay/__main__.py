"""The command: `relay serve`, `relay chat`, `relay version`; `python -m adk_relay` is the same."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from adk_relay import __version__
from adk_relay.settings import SETTINGS, Setting

_HELP = """\
Serve a Google ADK live agent over WebSockets, or talk with one that is served.

commands:
  serve    serve the page and an agent: relay serve --help
  chat     talk with the agent of a server: relay chat --help
  version  print the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
        argv: the arguments after the command's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="relay",
        usage="relay [-h] {serve,chat,version} ...",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("serve", "chat", "version")
    parser.add_argument("command", nargs="?", choices=commands, help=argparse.SUPPRESS)
    # Each command reads its own, --help too.
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    match asked.command:
        case None:
            parser.error(f"a command is missing: {', '.join(commands)}")
        case "serve":
            serve(asked.arguments)
        case "chat":
            # Imported here, because a server needs none of the client.
            from adk_relay.client.command import main as chat

            return chat(asked.arguments, prog="relay chat")
        case _:
            print(__version__)
    return 0


def serve(argv: Sequence[str], prog: str = "relay serve") -> None:
    """Serves until it is told to stop; then, or if it can't start, it ends the process.

    It is `uvicorn relay:app` with the server options that suit it, and an option for each setting.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description="Serve the page and an ADK live agent.", allow_abbrev=False
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all of them (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any (%(default)s)")
    parser.add_argument(
        "--log-level",
        choices=("critical", "error", "warning", "info", "debug", "trace"),
        default="info",
        help="debug shows every frame (%(default)s)",
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
            os.environ[setting.variable] = text  # where `app` looks, when the server starts

    import uvicorn  # takes a while, and --help does not need it

    uvicorn.run(
        "relay:app",
        host=arguments.host,
        port=arguments.port,
        log_level=arguments.log_level,
        # Sound does not compress; trying costs 13 % of a voice session's CPU.
        ws_per_message_deflate=False,
        # A stalled peer's connection is closed and yet never gone: without a limit it holds the process.
        timeout_graceful_shutdown=3,
    )
    # All is closed. Only a tool that blocks a thread may still run, and Python would wait for it.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _checked(setting: Setting) -> Callable[[str], str]:
    """What argparse calls with an option's text: it returns the text, if that means a right value."""

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
