"""The last pictures of a listener: a new owner gets them again, because its model has not seen them."""

from __future__ import annotations

from collections.abc import Iterator

_MOST = 4
_BYTES = 4 * 1024 * 1024
"""How many are kept, and how many bytes; the last one in any case."""


class Pictures:
    """Keeps pictures until the answer that follows them has ended, and the one under way before that.

    Invariants:
        Those that have seen the end of an answer come first.
    """

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._answered = 0
        """How many of them have seen the end of an answer."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert 0 <= self._answered <= len(self._kept) <= _MOST

    def __iter__(self) -> Iterator[bytes]:
        """Those that are kept, the oldest first."""
        return iter(self._kept)

    def add(self, picture: bytes) -> None:
        """Takes one more."""
        self._kept.append(picture)
        while len(self._kept) > _MOST or sum(map(len, self._kept[:-1])) > _BYTES:
            del self._kept[0]
            self._answered = max(self._answered - 1, 0)

    def answered(self) -> None:
        """An answer has ended."""
        del self._kept[: self._answered]
        self._answered = len(self._kept)
