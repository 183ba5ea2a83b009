"""What others have said, in the log: one failure is one line, whoever words it."""

from __future__ import annotations


def failure(error: BaseException | None) -> str:
    """What kind of error it was, and its own words."""
    return one_line(f"{type(error).__name__}: {error}")


def one_line(said: object, limit: int = 500) -> str:
    """A peer's, a tool's or a service's words, in one printable line: they could forge lines otherwise."""
    text = " ".join(str(said).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
