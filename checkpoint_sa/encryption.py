"""A serializer that encrypts each value for its own row."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from langgraph.checkpoint.serde.base import SerializerProtocol

Row = tuple[str, ...]
"""The row to which a value is bound: a table, and the columns of its key."""

CIPHER = "aesgcm"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12


class AESGCMSerializer:
    """Serializes through another serializer, encrypts, and binds the result to its row.

    A read raises `CorruptDataError` if a value was changed, moved to another row, thread or type,
    or encrypted with another key; also if it isn't encrypted, unless `allow_plain`.

    Encrypt no more than 2**32 values with a key: a nonce is 96 random bits.

    Args:
        key: 16, 24 or 32 secret bytes; new values are encrypted with it.
        old_keys: Earlier keys, to read the values that were encrypted with them.
        serde: The serializer; LangGraph's `JsonPlusSerializer` by default.
        allow_plain: Whether to read plain values: stored before encryption, or by anybody with
            write access to the database.

    Raises:
        ConfigurationError: A key has another length, or `cryptography` isn't installed.
    """

    def __init__(
        self,
        key: bytes,
        *,
        old_keys: Iterable[bytes] = (),
        serde: SerializerProtocol | None = None,
        allow_plain: bool = False,
    ) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigurationError(
                "AESGCMSerializer needs the package cryptography. Install it:"
                ' pip install "langgraph-checkpoint-sa[encryption]".'
            ) from None
        try:
            self._ciphers = {_id_of(each): AESGCM(each) for each in (key, *old_keys)}
        except (TypeError, ValueError):
            raise ConfigurationError(
                "A key has the wrong length or type; AES takes 16, 24 or 32 bytes."
            ) from None
        self._current = _id_of(key)
        self.serde = serde or JsonPlusSerializer()
        self.allow_plain = allow_plain

    def seal(self, kind: str, data: bytes, row: Row) -> tuple[str, bytes]:
        """Encrypt serialized data for one row."""
        kind = f"{kind}+{CIPHER}"
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, data, _associated(kind, row))
        return kind, self._current + nonce + sealed

    def unseal(self, kind: str, sealed: bytes, row: Row) -> tuple[str, bytes]:
        """Decrypt a value that `seal` made for this row.

        Raises:
            ValueError: It isn't encrypted, or its key is unknown.
            cryptography.exceptions.InvalidTag: It was changed, or is another row's.
        """
        plain_kind, plus, cipher = kind.rpartition("+")
        if not plus:
            if self.allow_plain:
                return kind, sealed
            raise ValueError("not encrypted")
        start = _KEY_ID_BYTES + _NONCE_BYTES
        key_id, nonce = sealed[:_KEY_ID_BYTES], sealed[_KEY_ID_BYTES:start]
        if cipher != CIPHER or key_id not in self._ciphers:
            raise ValueError("encrypted with another cipher or key")
        data = self._ciphers[key_id].decrypt(nonce, sealed[start:], _associated(kind, row))
        return plain_kind, data

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Serialize and encrypt a value that belongs to no row."""
        return self.seal(*self.serde.dumps_typed(obj), ())

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Read the output of `dumps_typed`."""
        return self.serde.loads_typed(self.unseal(*data, ()))

    def with_msgpack_allowlist(self, extra: Collection[tuple[str, ...]]) -> AESGCMSerializer:
        """Return a clone with more classes allowed to its serializer (LangGraph's strict mode)."""
        if not isinstance(self.serde, JsonPlusSerializer):
            return self
        clone = object.__new__(AESGCMSerializer)
        clone.__dict__ = {**self.__dict__, "serde": self.serde.with_msgpack_allowlist(extra)}
        return clone


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"checkpoint_sa key id" + key).digest()[:_KEY_ID_BYTES]


def _associated(kind: str, row: Row) -> bytes:
    return json.dumps([kind, *row]).encode()
