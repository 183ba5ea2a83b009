"""What others have said, in the log: one failure is one line, whoever words it."""

from __future__ import annotations


def one_line(said: object, limit: int = 500) -> str:
    """A peer's, a tool's or a service's words, in one printable line: they could forge lines otherwise."""
    text = " ".join(str(said).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
