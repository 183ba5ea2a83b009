"""Tokens that were used and may open nothing more."""

from __future__ import annotations

import hashlib
import heapq
import time

from adk_relay.wire.tokens import Token

_MAX_USED = 100_000
"""How many tokens that were used and have not expired are remembered: about 20 MB."""


class Used:
    """The tokens that were used and have not expired.

    Invariants: `_until` and `_ids` have the same ids, at most `_MAX_USED`.
    """

    def __init__(self) -> None:
        self._ids: set[bytes] = set()
        self._until: list[tuple[float, bytes]] = []

    def check(self) -> None:
        """Asserts the invariants."""
        assert {each for _, each in self._until} == self._ids
        assert len(self._until) == len(self._ids) <= _MAX_USED

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._ids

    def add(self, digest: bytes, expires_at: float) -> bool:
        """Remembers a token that was not used before. False: no more can be remembered."""
        now = time.time()
        while self._until and self._until[0][0] < now:
            self._ids.discard(heapq.heappop(self._until)[1])
        if len(self._ids) >= _MAX_USED:
            return False
        self._ids.add(digest)
        heapq.heappush(self._until, (expires_at, digest))
        return True


def digest(token: Token) -> bytes:
    """What identifies a token, in few bytes, however long its `jti` is."""
    text = f"{token.issuer}\n{token.jti}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:16]
