"""Foreign texts in the log: each is made one printable line."""

from __future__ import annotations


def failure(error: BaseException | None) -> str:
    """The type of an error and its own text, in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def one_line(value: object, limit: int = 500) -> str:
    """The text of a peer, a tool or a service as one printable line, so that it can't forge log lines."""
    text = " ".join(str(value).split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:limit])
