"""The fingerprint by which a value is checked: its size and a digest."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from checkpoint_sa.deltas.diff import header_size

if TYPE_CHECKING:
    from hashlib import _Hash

    from checkpoint_sa.deltas.chain import Base

FINGERPRINT = struct.Struct(">Q32s")


def fingerprint(value: bytes | bytearray, body: _Hash | None = None) -> bytes:
    """Return the fingerprint of a value.

    Args:
        value: The value.
        body: Its `body_digest`, if that is known.
    """
    whole = body_digest(value) if body is None else body.copy()
    start = header_size(value)
    whole.update(value[:start] + bytes([start]))
    return FINGERPRINT.pack(len(value), whole.digest())


def body_digest(value: bytes | bytearray, base: Base | None = None) -> _Hash:
    """Return the SHA-256 of the bytes behind a value's header.

    If a value only adds bytes to its base, only these bytes are hashed.
    """
    # SHA-256 has instructions of its own on today's processors: 0.24 ms for 450 KB, BLAKE2b 0.35.
    start = header_size(value)
    if base is not None:
        body = memoryview(base.value)[header_size(base.value) :]
        if value.startswith(body, start):
            digest = base.body.copy()
            digest.update(memoryview(value)[start + len(body) :])
            return digest
    return hashlib.sha256(memoryview(value)[start:])


def size_of(fingerprint: bytes) -> int:
    """Return the size of the value with this fingerprint."""
    return int.from_bytes(fingerprint[:8], "big")
