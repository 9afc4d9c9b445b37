"""Single values through the serializer, with the row that a value belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpoint_sa.codec.exact_json import encode_json, exact_json, is_python_json
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.errors import CorruptDataError
from checkpoint_sa.rows import CHECKPOINT_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from langgraph.checkpoint.serde.base import SerializerProtocol

    from checkpoint_sa.encryption import Row
    from checkpoint_sa.rows import Stored

EXACT_JSON = "json"
"""Type tag of JSON that Python wrote: LangGraph's serializer reads it as well."""


class Packed(NamedTuple):
    """A value as another saver's serializer wrote it, to be stored by `AS_PACKED` as it is."""

    kind: str
    data: bytes
    is_snapshot: bool = False
    """Whether it is the snapshot of a DeltaChannel."""


class _AsPacked(JsonPlusSerializer):
    """LangGraph's serializer, which leaves a `Packed` value as it is."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return (obj.kind, obj.data) if type(obj) is Packed else super().dumps_typed(obj)


AS_PACKED = _AsPacked()


def has_plain_output(serde: SerializerProtocol) -> bool:
    """Whether a serializer's output is plain, so that small values may stand in JSON instead.

    Other serializers may encrypt, compress or sign: every value goes through them.
    """
    return type(serde).dumps_typed in (JsonPlusSerializer.dumps_typed, _AsPacked.dumps_typed)


def dump(serde: SerializerProtocol, value: Any, row: Row) -> tuple[str, bytes]:
    """Serialize a value of a row as (type, bytes).

    LangGraph's serializer turns a lone surrogate into `?` and refuses integers beyond 64 bits.
    Text, integers, lists and dicts with such parts are written as JSON under the tag `json`, which
    LangGraph's serializer reads. Any other serializer gets every value.
    """
    if has_plain_output(serde):
        return _dump_plainly(serde, value)
    if isinstance(serde, AESGCMSerializer):
        return serde.seal(*dump(serde.serde, value, row), row)
    if encrypts(serde):
        encrypting = cast("EncryptedSerializer", serde)
        kind, data = dump(encrypting.serde, value, row)
        cipher, encrypted = encrypting.cipher.encrypt(data)
        return f"{kind}+{cipher}", encrypted
    return serde.dumps_typed(value)


def _dump_plainly(serde: SerializerProtocol, value: Any) -> tuple[str, bytes]:
    try:
        dumped = serde.dumps_typed(value)
    except TypeError:
        if (exact := exact_json(value)) is None:
            raise
        return EXACT_JSON, exact
    # Only output with a `?` is searched for surrogates.
    if b"?" in dumped[1] and _has_surrogate(value) and (exact := exact_json(value)):
        return EXACT_JSON, exact
    return dumped


def _has_surrogate(value: Any) -> bool:
    if type(value) not in (str, list, tuple, dict):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (TypeError, ValueError):
        return False
    return False


def load(serde: SerializerProtocol, kind: str | None, blob: bytes, row: Row) -> Any:
    """Deserialize the output of `dump`."""
    if isinstance(serde, AESGCMSerializer):
        return load(serde.serde, *serde.unseal(kind or "", blob, row), row)
    return serde.loads_typed((cast("str", kind), blob))


def encrypts(serde: SerializerProtocol) -> bool:
    """Whether a serializer encrypts: similar values have nothing in common in its output."""
    return (
        isinstance(serde, AESGCMSerializer)
        or type(serde).dumps_typed is EncryptedSerializer.dumps_typed
    )


def dump_plain(serde: SerializerProtocol, value: Any) -> tuple[str, bytes]:
    """Serialize a value without the encryption, to compare it with another."""
    while encrypts(serde):
        serde = cast("EncryptedSerializer | AESGCMSerializer", serde).serde
    return dump(serde, value, ())


def read_back(serde: SerializerProtocol, value: Any) -> Any:
    """Serialize a value, and deserialize it."""
    return load(serde, *dump(serde, value, ()), ())


_Parts = dict[str, dict[str, Any]]


def dump_exact(
    serde: SerializerProtocol, parts: _Parts, row: Row
) -> tuple[str | None, bytes | None]:
    """Serialize the entries that JSON documents can't hold; as Python's own JSON if possible."""
    if not any(parts.values()):
        return None, None
    plain: _Parts = {}
    others: dict[str, Any] = {}
    for name, part in parts.items():
        plain[name] = {k: v for k, v in part.items() if is_python_json({k: v})}
        others[name] = {k: v for k, v in part.items() if k not in plain[name]}
    if has_plain_output(serde) and plain == parts:
        return EXACT_JSON, encode_json(plain).encode()
    said = others | {"json": encode_json(plain)}
    if isinstance(serde, AESGCMSerializer):
        return serde.seal(*serde.serde.dumps_typed(said), row)
    return serde.dumps_typed(said)


NOTHING_EXTRA: _Parts = {"checkpoint": {}, "metadata": {}}


def load_exact(serde: SerializerProtocol, stored: Stored) -> _Parts:
    """Return the entries of a checkpoint's two documents that JSON can't hold.

    Raises:
        CorruptDataError: They aren't as `dump_exact` wrote them.
    """
    if stored.exact is None:
        return NOTHING_EXTRA
    if stored.type == EXACT_JSON and type(serde).loads_typed in _READERS_OF_JSON:
        serde = _PLAIN_JSON
    parts = loaded(serde, stored.type, stored.exact, exact_row(*stored.key), stored.key)
    if not isinstance(parts, dict) or not {"checkpoint", "metadata"} <= parts.keys():
        raise CorruptDataError(
            "The stored bytes aren't as checkpoint_sa wrote them. Row:"
            f" checkpoints.exact: {describe_row(stored.key, {})}."
        )
    plain = json.loads(parts.get("json", "{}"))
    return {name: parts[name] | plain.get(name, {}) for name in ("checkpoint", "metadata")}


def exact_row(thread: str, namespace: str, checkpoint_id: str) -> Row:
    """Return the row to which a checkpoint's `exact` is bound."""
    return "checkpoints.exact", thread, namespace, checkpoint_id


def blob_of(thread: str, namespace: str, channel: str, version: str) -> Row:
    """Return the row to which a channel's value is bound."""
    return "checkpoint_blobs", thread, namespace, channel, version


def write_of(thread: str, namespace: str, task_id: str, idx: int, channel: str) -> Row:
    """Return the row to which a write is bound."""
    # Without the checkpoint id: LangGraph derives the task id from it.
    return "checkpoint_writes", thread, namespace, task_id, f"{idx}", channel


class _PlainJson:
    """Reads JSON as JSON: LangGraph's serializer makes objects of some dicts."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return EXACT_JSON, encode_json(obj).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return json.loads(data[1])


_PLAIN_JSON = _PlainJson()

_READERS_OF_JSON = (JsonPlusSerializer.loads_typed, EncryptedSerializer.loads_typed)
"""The readers that read our JSON as JSON; in another serializer the tag may mean something else."""


def as_bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Return a copy of serialized data, as bytes.

    LangGraph's serializer returns a bytearray as it is. A node may change it in place on its way to
    the database, or in a saver's cache.
    """
    return bytes(data)


def refuse_plain(
    serde: SerializerProtocol,
    channels: Iterable[str],
    blobs: Collection[str],
    key: tuple[str, ...],
) -> None:
    """Refuse values that stand unencrypted in a checkpoint's JSON, under an encrypting serializer.

    Raises:
        CorruptDataError: There are such values.
    """
    if not isinstance(serde, AESGCMSerializer) or serde.allow_plain:
        return
    if plain := sorted(set(channels).difference(blobs)):
        raise CorruptDataError(
            f"Channels {plain} have values that aren't encrypted. Were they stored by another"
            f" saver? Row: checkpoints: {describe_row(key, {})}."
        )


def loaded(
    serde: SerializerProtocol,
    kind: str | None,
    blob: bytes,
    row: Row,
    key: tuple[str, ...],
    **part: object,
) -> Any:
    """Return a stored value.

    Raises:
        CorruptDataError: It can't be deserialized; the message names the row.
    """
    try:
        return load(serde, kind, blob, row)
    except Exception as error:  # noqa: BLE001 - a serializer may raise anything
        raise CorruptDataError(
            f"A value of type {kind!r} and {len(blob)} bytes can't be read"
            f" ({type(error).__name__}). Was it changed, or written with another serializer or key?"
            f" Row: {row[0]}: {describe_row(key, part)}."
        ) from None  # the cause may quote the value


def describe_row(key: Sequence[str], part: Mapping[str, object]) -> str:
    """Return the columns that name a row, for messages."""
    row = {**dict(zip(CHECKPOINT_KEY, key, strict=False)), **part}
    return ", ".join(f"{name}={value!r}" for name, value in row.items())


# Tuples: to make a union takes as long as the test.
_TEXTS = (str, bytes, bytearray)
_NUMBERS = (int, float)


def estimate_size(value: Any, depth: int = 3) -> int:
    """Estimate a value's size in bytes from a sample, in a few microseconds.

    The size decides whether to serialize in a thread. A thread costs about 100 us; without it, the
    event loop is blocked for about 1 ms for each megabyte.
    """
    if isinstance(value, _TEXTS):
        return len(value)
    if depth == 0 or value is None or isinstance(value, _NUMBERS):
        return 8
    if isinstance(value, Mapping):
        items: Sequence[Any] = list(value.values()) if len(value) <= 64 else []  # noqa: PLR2004
        return sum(estimate_size(item, depth - 1) for item in items) or 64 * len(value)
    if isinstance(value, (list, tuple)):
        if not value:
            return 8
        sample = value[:: max(1, len(value) // 4)]
        return len(value) * (
            8 + sum(estimate_size(item, depth - 1) for item in sample) // len(sample)
        )
    content = getattr(value, "__dict__", None)
    return estimate_size(content, depth - 1) if content else 64
