"""The public keys of whoever signs the tokens: a JSON Web Key Set (RFC 7517), in a file or behind a URL."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from adk_relay.core.logs import failure

log = logging.getLogger("relay")

_PAUSE = 60.0
"""Seconds between two tries to read the keys, whatever the tokens ask for."""

_OLD = 3600.0
"""Seconds after which the keys are read again while they are used: one may have been withdrawn."""

_TIMEOUT = 10.0
"""Seconds that reading the keys may take."""

_MAX_BYTES = 1024 * 1024
_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3

_KINDS = {"RS256": ("RSA", None), "ES256": ("EC", "P-256")}
"""The `kty` and the `crv` of a key, by the algorithm that it is used for (RFC 7518 section 3.1)."""

ALGORITHMS = frozenset(_KINDS)


class KeysUnavailableError(Exception):
    """The keys can't be read now; the log says why."""


class _Key(NamedTuple):
    id: str | None
    algorithm: str
    key: Any


class KeySet:
    """The keys of one source. They are read in a thread, so that nothing else waits.

    Invariants:
        - At most one reading goes on, and two of them begin at least `_PAUSE` seconds apart.
        - The keys that were read last stay until another reading has succeeded.

    Args:
        source: an https:// or http:// URL, or the path of a file, which is read at once.

    Raises:
        ValueError: the file can't be read, or has no key that can be used.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._keys: list[_Key] = []
        self._tried = -_PAUSE - _OLD
        self._reading: asyncio.Task[None] | None = None
        if not self._is_url:
            try:
                self._keys = self._read()
            except (OSError, ValueError, RecursionError) as error:
                raise ValueError(f"the keys can't be read: {failure(error)}") from error
            self._tried = time.monotonic()

    @property
    def _is_url(self) -> bool:
        return self._source.startswith(("https://", "http://"))

    async def find(self, key_id: str | None, algorithm: str) -> Any | None:
        """The key that verifies a token; None: there is none.

        Args:
            key_id: the `kid` of the token; None: it has none, so there must be only one such key.

        Raises:
            KeysUnavailableError: no keys could be read so far.
        """
        found = self._known(key_id, algorithm)
        since = time.monotonic() - self._tried
        if since >= (_PAUSE if found is None else _OLD):
            reading = self._begin_reading()
            if found is None:
                await asyncio.shield(reading)
        elif found is None and self._reading and not self._reading.done():
            await asyncio.shield(self._begin_reading())
        if not self._keys:
            raise KeysUnavailableError
        return self._known(key_id, algorithm)

    def _known(self, key_id: str | None, algorithm: str) -> Any | None:
        keys = [
            each.key
            for each in self._keys
            if each.algorithm == algorithm and (key_id is None or each.id == key_id)
        ]
        return keys[0] if len(keys) == 1 or (keys and key_id is not None) else None

    def _begin_reading(self) -> asyncio.Task[None]:
        """The reading that goes on in this event loop, or a new one."""
        going_on = self._reading
        if going_on and not going_on.done() and going_on.get_loop() is asyncio.get_running_loop():
            return going_on
        self._tried = time.monotonic()
        self._reading = asyncio.create_task(self._read_again(), name="reading RELAY_JWKS")
        return self._reading

    async def _read_again(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                self._keys = await asyncio.to_thread(self._read)
        except Exception as error:
            log.error("the keys of RELAY_JWKS can't be read: %s", failure(error))

    def _read(self) -> list[_Key]:
        if not self._is_url:
            return _usable(Path(self._source).read_bytes())
        with urllib.request.urlopen(self._source, timeout=_TIMEOUT) as response:
            body: bytes = response.read(_MAX_BYTES + 1)
        if len(body) > _MAX_BYTES:
            raise ValueError(f"there are more than {_MAX_BYTES} bytes")
        return _usable(body)


def _usable(text: bytes) -> list[_Key]:
    """The keys of a set that can verify tokens.

    Raises:
        ValueError: there is none.
    """
    found = json.loads(text)
    listed = found.get("keys") if isinstance(found, dict) else None
    keys = [
        _Key(each["kid"] if isinstance(each.get("kid"), str) else None, algorithm, key)
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
        for algorithm in _KINDS
        if (key := _public_key(each, algorithm)) is not None
    ]
    if not keys:
        raise ValueError("there is no RSA key of 2048 bits or more, and no EC key P-256")
    return keys


def _public_key(fields: dict[str, Any], algorithm: str) -> Any | None:
    """The key, if its fields allow that it verifies tokens of this algorithm (RFC 7517 section 4)."""
    kind, curve = _KINDS[algorithm]
    operations = fields.get("key_ops")
    if (
        fields.get("kty") != kind
        or fields.get("crv") != curve
        or fields.get("use", "sig") != "sig"
        or fields.get("alg", algorithm) != algorithm
        or (operations is not None and "verify" not in operations)
        or "d" in fields  # a private key does not belong here
    ):
        return None
    try:
        key: Any = jwt.PyJWK(fields, algorithm).key
    except Exception:  # other keys of the set can still be used
        return None
    return key if kind == "EC" or key.key_size >= _MIN_RSA_BITS else None
