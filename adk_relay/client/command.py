"""The command: its arguments, and whether it runs at a terminal or in a pipe."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
from base64 import urlsafe_b64decode
from collections.abc import Sequence

import httpx

from adk_relay.client.pipe import pipe
from adk_relay.client.view import Problem


def main(argv: Sequence[str] | None = None, prog: str = "relay-client") -> int:
    """Runs the client.

    Args:
        argv: the arguments after the command's name; None: those of the process.
        prog: the command's name; its help and all its lines on stderr begin with it.

    Returns:
        The exit code: 0; 1 when stderr says why; 128 and the number of the signal that ended it.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Talk with the agent of a relay server. In a pipe, the whole input is one message, and"
        " only the answer is printed.",
    )
    parser.add_argument("--url", default="http://localhost:8000", help="the server (%(default)s)")
    parser.add_argument("--session", metavar="ID", help="the conversation to go on with")
    parser.add_argument("--token", help="says who you are, if the server wants that [RELAY_TOKEN]")
    parser.add_argument("--name", default="", help="what the others are told, unless the token says it")
    arguments = parser.parse_args(argv)
    try:
        url, token = _url(arguments.url), arguments.token or os.environ.get("RELAY_TOKEN", "")
        if not re.fullmatch(r"[!-~]*", token):
            raise Problem("The token is not valid: it has other characters than letters, digits, . _ -")
        session_id = arguments.session or _invited_to(token)
        if sys.stdin and sys.stdin.isatty() and sys.stdout.isatty():
            return asyncio.run(_terminal(url, session_id, token, arguments.name))
        text = sys.stdin.buffer.read().decode(errors="replace").strip() if sys.stdin else ""
        if not text:
            raise Problem("There is nothing to ask: the input is empty.")
        return asyncio.run(pipe(url, session_id, text, prog, token, arguments.name))
    except Problem as problem:
        print(f"{prog}: {problem}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Python would flush stdout at its exit, and print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


async def _terminal(url: str, session_id: str | None, token: str, name: str) -> int:
    try:
        from adk_relay.client.terminal import Terminal  # a pipe does not need its libraries
    except ImportError as error:
        raise Problem(f"A terminal needs: pip install 'adk-relay[client]' ({error})") from None
    return await Terminal(url, session_id, token, name).run()


def _invited_to(token: str) -> str | None:
    """The conversation to which a token invites, which is not verified; None: it is no invitation."""
    try:
        claims = token.split(".")[1]
        found = json.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["invitation"]["session_id"]
        return str(found)
    except (LookupError, TypeError, ValueError):
        return None


def _url(text: str) -> str:
    """An address as people write it, as a URL to which paths can be added.

    Raises:
        Problem: it is not one.
    """
    url = re.sub("^ws", "http", text if "://" in text else f"http://{text}").rstrip("/")
    try:
        if re.match("https?://[^/]", url) and httpx.URL(url).host:
            return url
    except httpx.InvalidURL:
        pass
    raise Problem(f"{text!r} is not an http:// or https:// URL.")
