"""The names of what is in Redis. In a cluster, all keys of a process share a slot, or of a conversation."""

from __future__ import annotations

from urllib.parse import quote

CLAIMS = "relay:claims"
"""Begins the name of a stream: conversations that need an owner. See `for_version`."""

CALLS = "relay:calls"
"""The same: questions that any worker can answer."""

CENSUS = "relay:census"
"""Hash: what each process tells of itself."""


def for_version(key: str, protocol: str) -> str:
    """The same key for the processes with this `codec.PROTOCOL`."""
    return f"{key}:{protocol}"


def inbox(process: str) -> str:
    """Stream: what others send to a process."""
    return f"relay:p:{{{process}}}"


def lease(process: str) -> str:
    """It is there while a process lives."""
    return f"relay:p:{{{process}}}:alive"


def stopped(process: str) -> str:
    """It is there for a while after a process was stopped by plan."""
    return f"relay:p:{{{process}}}:stopped"


def owner(conversation: str) -> str:
    """Who owns a conversation: `<token> <process>`."""
    return f"relay:c:{{{_safe(conversation)}}}:owner"


def log(conversation: str) -> str:
    """Stream: the journal of a conversation."""
    return f"relay:c:{{{_safe(conversation)}}}:log"


def limits(whose: str) -> str:
    """Hash: what a user or an address has and takes."""
    return f"relay:limits:{whose}"


def once(name: str) -> str:
    """It is there if something was taken that can be taken once only."""
    return f"relay:once:{name}"


def _safe(name: str) -> str:
    """A brace in a name would end the hash tag, and half of a surrogate pair can't be sent."""
    return quote(name.encode(errors="surrogatepass"), safe="/")
