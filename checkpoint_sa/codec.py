"""Between LangGraph's objects and rows: the serializer, JSON, ids. No database.

A checkpoint becomes two JSON documents, its own and its metadata, and one blob for each channel
value that JSON can't say exactly. What JSON can't say of the documents goes into `exact`.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from checkpoint_sa import models
from checkpoint_sa.deltas.chain import DeltaValue, DeltaWrite
from checkpoint_sa.encryption import AESGCMSerializer
from checkpoint_sa.errors import CorruptDataError, InvalidInputError
from checkpoint_sa.repository import Criteria, Write, versions_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from checkpoint_sa.encryption import Row
    from checkpoint_sa.repository import History, Stored

KEY_BYTES = 2600
"""What the parts of one primary key may have together: PostgreSQL's btree ends at 2704."""

INLINE_CHARACTERS = 256
"""Longer strings become blobs: what is inline is stored again with every checkpoint."""

_JSON_DEPTH = 24
"""Deeper documents aren't given to the engine: MariaDB's JSON functions end at 32."""

_EXACT_JSON = "json"
"""Type tag of JSON that Python wrote: LangGraph's serializer reads it as well."""

encode_json = json.JSONEncoder(separators=(",", ":")).encode


class CheckpointRows(NamedTuple):
    """What one `put` stores."""

    checkpoint: dict[str, Any]
    blobs: list[dict[str, Any]]
    """Values that are stored whole."""
    deltas: Sequence[dict[str, Any]] = ()
    """Values that are stored in chains, as `deltas.encoding.encode_value` makes them."""

    @property
    def config(self) -> RunnableConfig:
        """The config that names the checkpoint."""
        row = self.checkpoint
        return config_of(row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"])


# Ids


def key(name: str, value: Any, limit: int) -> str:
    """Return an id as text that every engine stores exactly.

    Raises:
        InvalidInputError: It is longer than `limit` bytes of UTF-8, or has a NUL or a lone
            surrogate, which PostgreSQL's text can't hold.
    """
    text = value if isinstance(value, str) else str(value)
    if text.isascii() and len(text) <= limit and "\0" not in text:
        return text
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"{name} has a lone surrogate, which no database stores as text: {_shown(text)}."
            " Encode it first."
        ) from None
    if "\0" in text:
        raise InvalidInputError(
            f"{name} has a NUL character, which PostgreSQL doesn't store: {_shown(text)}."
        )
    if size > limit:
        raise InvalidInputError(
            f"{name} has {size} bytes, {limit} fit: {_shown(text)}. Use a shorter one."
        )
    return text


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")  # noqa: PLR2004


def fits(**parts: str) -> None:
    """Check that the ids of one row fit into a primary key together.

    Raises:
        InvalidInputError: They don't.
    """
    if sum(map(len, parts.values())) <= KEY_BYTES // 4:  # a character has four bytes at most
        return
    size = sum(len(part.encode()) for part in parts.values())
    if size > KEY_BYTES:
        lengths = ", ".join(f"{name} {len(part.encode())}" for name, part in parts.items())
        raise InvalidInputError(
            f"These ids have {size} bytes together, {KEY_BYTES} fit: {lengths}."
            " Use a shorter thread_id or fewer levels of subgraphs."
        )


def thread_id(value: Any) -> str:
    """Return the id of a thread as text."""
    return key("thread_id", value, models.THREAD_ID_BYTES)


def copied(serde: SerializerProtocol, source: Any, target: Any) -> tuple[str, str]:
    """Return source and target of a copy as text.

    Raises:
        InvalidInputError: The copies couldn't be read.
    """
    if isinstance(serde, AESGCMSerializer):
        raise InvalidInputError(
            "AESGCMSerializer binds values to their thread, so the database can't copy them."
            " Read the state of one thread and store it in the other with graph.update_state()."
        )
    return thread_id(source), thread_id(target)


def thread_ids(values: Sequence[Any]) -> list[str]:
    """Return the ids of threads as text, each once."""
    return list(dict.fromkeys(map(thread_id, _several("thread_ids", values))))


class RunIds(NamedTuple):
    """Ids of runs, each once."""

    indexed: list[str]
    """As `run_id` has them."""
    plain: list[str]
    """As metadata has them, as far as every engine's text can hold them."""


def run_ids(values: Sequence[Any]) -> RunIds:
    """Return the ids of runs in both forms."""
    texts = list(dict.fromkeys(map(str, _several("run_ids", values))))
    return RunIds([run_id(text) for text in texts], [text for text in texts if _json_says(text)])


def channels(values: Sequence[Any]) -> list[str]:
    """Return the names of channels, each once."""
    names = _several("channels", values)
    return list(dict.fromkeys(key("channel", name, models.CHANNEL_BYTES) for name in names))


def _several(name: str, values: Sequence[Any]) -> Sequence[Any]:
    if isinstance(values, str | bytes):
        raise InvalidInputError(
            f"{name} is a single {type(values).__name__}, and each character would count as an id."
            " Pass a list of ids."
        )
    return values


def run_id(value: Any) -> str:
    """Return what stands for a run in its index: its id, or a digest where that doesn't fit."""
    text = str(value)
    raw = text.encode("utf-8", "surrogatepass")
    # Not '': that is the column's word for no run.
    if 0 < len(raw) <= models.RUN_ID_BYTES and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def address(
    config: RunnableConfig, *, needs_checkpoint: bool = False
) -> tuple[str, str, str | None]:
    """Return thread_id, checkpoint_ns and checkpoint_id of a config.

    Raises:
        InvalidInputError: `configurable` has no `thread_id`, or an id can't be stored.
    """
    configurable = config.get("configurable") or {}
    if configurable.get("thread_id") is None:
        raise InvalidInputError(
            "The config has no thread_id. Pass one: {'configurable': {'thread_id': 'some-id'}}."
        )
    thread = thread_id(configurable["thread_id"])
    namespace = key(
        "checkpoint_ns", configurable.get("checkpoint_ns") or "", models.NAMESPACE_BYTES
    )
    checkpoint_id = configurable.get("checkpoint_id") or None
    if checkpoint_id is not None:
        checkpoint_id = key("checkpoint_id", checkpoint_id, models.CHECKPOINT_ID_BYTES)
    elif needs_checkpoint:
        raise InvalidInputError(
            "The config has no checkpoint_id, so there is nothing to attach the writes to."
            " Pass the config that put() returned."
        )
    return thread, namespace, checkpoint_id


def config_of(thread: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """Return the config that names one checkpoint."""
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


# Values


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


def _says_all(serde: SerializerProtocol) -> bool:
    """Whether a serializer's output is plain, so that small values may stand in JSON instead.

    Another one may encrypt, compress or sign: then every value goes through it.
    """
    return type(serde).dumps_typed in (JsonPlusSerializer.dumps_typed, _AsPacked.dumps_typed)


def dump(serde: SerializerProtocol, value: Any, row: Row) -> tuple[str, bytes]:
    """Serialize a value of a row as (type, bytes).

    LangGraph's serializer turns a lone surrogate into `?` and refuses integers beyond 64 bits.
    Text, integers, lists and dicts of that kind are written as JSON under its own `json` tag, which
    it reads. A serializer that extends it gets every value.
    """
    if isinstance(serde, AESGCMSerializer):
        return serde.seal(*dump(serde.serde, value, row), row)
    if encrypts(serde):
        encrypting = cast("EncryptedSerializer", serde)
        kind, data = dump(encrypting.serde, value, row)
        cipher, encrypted = encrypting.cipher.encrypt(data)
        return f"{kind}+{cipher}", encrypted
    if not _says_all(serde):
        return serde.dumps_typed(value)
    try:
        dumped = serde.dumps_typed(value)
    except TypeError:
        if (exact := _exact_json(value)) is None:
            raise
        return _EXACT_JSON, exact
    # Whether the `?` was a surrogate is asked only where there is one.
    if b"?" in dumped[1] and _has_surrogate(value) and (exact := _exact_json(value)):
        return _EXACT_JSON, exact
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


def _exact_json(value: Any) -> bytes | None:
    """Return a value as JSON that LangGraph's serializer reads back exactly; None without one."""
    if not _python_json_says(value):
        return None
    raw = encode_json(value).encode()
    return None if b'"lc":' in raw else raw  # it makes an object of such a dict


def _python_json_says(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(k) is str and _python_json_says(v) for k, v in value.items())
    if kind in (list, tuple):
        return all(map(_python_json_says, value))
    return kind in (str, int, float, bool, type(None))


def load(serde: SerializerProtocol, kind: str | None, blob: bytes, row: Row) -> Any:
    """Deserialize what `dump` made."""
    if isinstance(serde, AESGCMSerializer):
        return load(serde.serde, *serde.unseal(kind or "", blob, row), row)
    return serde.loads_typed((cast("str", kind), blob))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_int64(value: int) -> bool:
    return -(2**63) <= value < 2**63


def encrypts(serde: SerializerProtocol) -> bool:
    """Whether two values have nothing in common once they are serialized."""
    return (
        isinstance(serde, AESGCMSerializer)
        or type(serde).dumps_typed is EncryptedSerializer.dumps_typed
    )


# JSON


def _json_says(value: Any, depth: int = _JSON_DEPTH) -> bool:  # noqa: PLR0911 - one for each type
    """Whether every engine's JSON gives back exactly this value.

    Not NUL and lone surrogates (PostgreSQL and MySQL refuse them), not integers beyond 64 bits
    (MySQL makes them floats), not NaN, infinities, -0.0 or floats that are written with an exponent
    (PostgreSQL makes 1e22 an integer). A tuple counts as the list that LangGraph's serializer
    makes of it.
    """
    kind = type(value)
    if kind is str:
        return "\0" not in value and (value.isascii() or _is_text(value))
    if kind is bool or value is None:
        return True
    if kind is int:
        return _is_int64(value)
    if kind is float:
        shown = repr(value)
        return shown != "-0.0" and shown.strip("-0123456789.") == ""
    # Lists: generators take twice as long, at every put.
    if depth > 0 and kind is dict:
        return all(
            [  # noqa: C419
                _json_names(k) and _json_says(v, depth - 1) for k, v in value.items()
            ]
        )
    if depth > 0 and (kind is list or kind is tuple):
        return all([_json_says(item, depth - 1) for item in value])  # noqa: C419
    return False


_JSON_NAME = 65_535 // 4
"""MySQL refuses longer names in an object; it counts bytes, four a character at most."""


def _json_names(name: Any) -> bool:
    """Whether every engine's JSON takes this as the name of an entry."""
    return (
        type(name) is str
        and len(name) <= _JSON_NAME
        and "\0" not in name
        and (name.isascii() or _is_text(name))
    )


class _Unsayable(Exception):  # noqa: N818 - never leaves this module
    pass


def _sayable(value: Any, depth: int = _JSON_DEPTH) -> Any:
    """Return as much of a value as an engine's JSON takes, for its filters.

    Numbers stay, even where the engine rounds them. An entry of a dict that can't be said is left
    out; a list is all or nothing.
    """
    value = _plain(value)
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int:
        if abs(value) < 2**1023:  # MySQL refuses what no double can hold
            return value
        raise _Unsayable
    if type(value) not in (dict, list, tuple) and _json_says(value):
        return value
    if depth > 0 and type(value) is dict:
        said = {}
        for name, item in value.items():
            if _json_names(name):
                with suppress(_Unsayable):
                    said[name] = _sayable(item, depth - 1)
        return said
    if depth > 0 and type(value) in (list, tuple):
        return [_sayable(item, depth - 1) for item in value]
    raise _Unsayable


def _plain(value: Any) -> Any:
    """Return the text or number that an instance of a subclass is, such as an Enum's member."""
    for base in (str, int, float):
        if isinstance(value, base) and type(value) not in (base, bool):
            return base.__str__(value) if base is str else base(value)
    return value


def _split(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a document into what JSON takes and the entries it can't say exactly."""
    inexact = {k: v for k, v in document.items() if not (_json_names(k) and _json_says(v))}
    return (_sayable(dict(document)) if inexact else dict(document)), inexact


_Parts = dict[str, dict[str, Any]]


def _dump_exact(
    serde: SerializerProtocol, parts: _Parts, row: Row
) -> tuple[str | None, bytes | None]:
    """Serialize what JSON documents couldn't say: as Python's own JSON, as far as that can."""
    if not any(parts.values()):
        return None, None
    plain: _Parts = {}
    others: dict[str, Any] = {}
    for name, part in parts.items():
        plain[name] = {k: v for k, v in part.items() if _python_json_says({k: v})}
        others[name] = {k: v for k, v in part.items() if k not in plain[name]}
    if _says_all(serde) and plain == parts:
        return _EXACT_JSON, encode_json(plain).encode()
    said = others | {"json": encode_json(plain)}
    if isinstance(serde, AESGCMSerializer):
        return serde.seal(*serde.serde.dumps_typed(said), row)
    return serde.dumps_typed(said)


_CHECKPOINT_KEY = ("thread_id", "checkpoint_ns", "checkpoint_id")

_ALL_SAID: _Parts = {"checkpoint": {}, "metadata": {}}


def _load_exact(serde: SerializerProtocol, stored: Stored) -> _Parts:
    if stored.exact is None:
        return _ALL_SAID
    if stored.type == _EXACT_JSON and type(serde).loads_typed in _READERS_OF_JSON:
        serde = _PLAIN_JSON
    parts = _loaded(serde, stored.type, stored.exact, _exact_row(*stored.key), stored.key)
    if not isinstance(parts, dict) or not {"checkpoint", "metadata"} <= parts.keys():
        raise CorruptDataError(
            "What is stored isn't what checkpoint_sa wrote. Row:"
            f" checkpoints.exact: {_named(stored.key, {})}."
        )
    plain = json.loads(parts.get("json", "{}"))
    return {name: parts[name] | plain.get(name, {}) for name in ("checkpoint", "metadata")}


def _exact_row(thread: str, namespace: str, checkpoint_id: str) -> Row:
    return "checkpoints.exact", thread, namespace, checkpoint_id


def _blob_of(thread: str, namespace: str, channel: str, version: str) -> Row:
    return "checkpoint_blobs", thread, namespace, channel, version


def _write_of(thread: str, namespace: str, write: Write) -> Row:
    # Without the checkpoint, whose id is part of what LangGraph makes a task's id of.
    row = (thread, namespace, write.task_id, f"{write.idx}", write.channel)
    return "checkpoint_writes", *row


class _PlainJson:
    """Reads JSON as JSON: LangGraph's serializer makes objects of some dicts."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return _EXACT_JSON, encode_json(obj).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return json.loads(data[1])


_PLAIN_JSON = _PlainJson()

_READERS_OF_JSON = (JsonPlusSerializer.loads_typed, EncryptedSerializer.loads_typed)
"""What reads our JSON as JSON; another serializer may have given the tag a meaning of its own."""


# Checkpoints

_STRUCTURE = frozenset({"v", "id", "ts", "channel_versions", "versions_seen", "updated_channels"})
"""What a checkpoint has besides state."""


def dump_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> CheckpointRows:
    """Make the rows of one checkpoint.

    Small strings, numbers, booleans and None go into the checkpoint's JSON as with LangGraph's
    Postgres saver, which has them there at every checkpoint; other values become blobs when their
    version is new.

    Raises:
        InvalidInputError: An id or a version can't be stored.
    """
    place = address(config)
    return checkpoint_rows(serde, place, checkpoint, merge_metadata(config, metadata), new_versions)


def checkpoint_rows(
    serde: SerializerProtocol,
    place: tuple[str, str, str | None],
    checkpoint: Checkpoint,
    metadata: Mapping[str, Any],
    new_versions: ChannelVersions,
) -> CheckpointRows:
    """Make the rows of one checkpoint as `dump_checkpoint` does, its metadata as it is.

    Args:
        serde: What serializes.
        place: Thread, namespace, and the id of the parent.
        checkpoint: The checkpoint.
        metadata: All of its metadata.
        new_versions: The channels whose values are stored, with their versions.

    Raises:
        InvalidInputError: An id or a version can't be stored.
    """
    thread, namespace, parent = place
    checkpoint_id = key("checkpoint id", checkpoint["id"], models.CHECKPOINT_ID_BYTES)
    fits(thread_id=thread, checkpoint_ns=namespace, checkpoint_id=checkpoint_id)
    versions = checkpoint["channel_versions"]
    plain = _says_all(serde)
    inline: dict[str, Any] = {}
    blobs = []
    for channel, value in checkpoint["channel_values"].items():
        version = new_versions.get(channel, versions.get(channel))
        small = value is None or isinstance(value, str | int | float | bool)
        if small and plain and inlines(value):
            inline[key("channel", channel, models.CHANNEL_BYTES)] = value
            continue
        if isinstance(value, _DeltaSnapshot) or (isinstance(value, Packed) and value.is_snapshot):
            inline[channel] = True  # LangGraph's marker; the blob is the value
        # A small value may so far stand in the JSON of older checkpoints only.
        if version is not None and (channel in new_versions or small):
            row = _blob_of(thread, namespace, channel, str(version))
            blobs.append(blob_row(thread, namespace, channel, version, dump(serde, value, row)))
    blobs.sort(key=lambda row: (row["channel"], row["version"]))

    document = {k: v for k, v in checkpoint.items() if k != "channel_values"}
    hidden = {} if plain else {k: v for k, v in document.items() if k not in _STRUCTURE and v}
    said, inexact = _split({k: v for k, v in document.items() if k not in hidden})
    if "channel_versions" in inexact or any(type(v) is bool for v in versions.values()):
        raise InvalidInputError(
            "channel_versions has a channel or a version that can't be stored exactly."
            " Versions are text, integers of 64 bits or plain floats; see get_next_version()."
        )
    said_metadata, inexact_metadata = _split(metadata)
    exact_type, exact = _dump_exact(
        serde,
        {"checkpoint": hidden | inexact, "metadata": inexact_metadata},
        _exact_row(thread, namespace, checkpoint_id),
    )
    run = metadata.get("run_id")
    return CheckpointRows(
        checkpoint={
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
            "parent_checkpoint_id": parent,
            "type": exact_type,
            "checkpoint_json": encode_json(said | {"channel_values": inline}),
            "metadata_json": encode_json(said_metadata),
            "run_id": "" if run is None else run_id(run),
            "exact": exact,
        },
        blobs=blobs,
    )


def inlines(value: Any) -> bool:
    """Whether a small value stands in a checkpoint's JSON."""
    return _json_says(value) and (type(value) is not str or len(value) <= INLINE_CHARACTERS)


def blob_row(
    thread: str, namespace: str, channel: str, version: Any, dumped: tuple[str, bytes | None]
) -> dict[str, Any]:
    """Make the row of a channel's value."""
    channel = key("channel", channel, models.CHANNEL_BYTES)
    version = key("version", version, models.VERSION_BYTES)
    fits(thread_id=thread, checkpoint_ns=namespace, channel=channel, version=version)
    return {
        "thread_id": thread,
        "checkpoint_ns": namespace,
        "channel": channel,
        "version": version,
        "type": key("type", dumped[0], models.TYPE_BYTES),
        "blob": None if dumped[1] is None else _bytes(dumped[1]),
    }


def _bytes(data: bytes | bytearray | memoryview) -> bytes:
    """Return what was serialized as bytes that stay: of a bytearray, LangGraph's gives the value.

    A node may change it in place while it is on its way, or while a saver remembers it.
    """
    return bytes(data)


def merge_metadata(config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
    """Join metadata with that of the config, as LangGraph does, but keep NUL characters."""
    merged = cast("dict[str, Any]", get_serializable_checkpoint_metadata(config, metadata))
    sources = (metadata, config.get("metadata") or {}, config.get("configurable") or {})
    for name, value in merged.items():
        if isinstance(value, str):
            merged[name] = next(
                (s[name] for s in cast("tuple[dict[str, Any], ...]", sources) if name in s), value
            )
    return merged


def load_metadata(serde: SerializerProtocol, stored: Stored) -> dict[str, Any]:
    """Return a checkpoint's metadata exactly as it was stored."""
    return stored.metadata | _load_exact(serde, stored)["metadata"]


def load_checkpoint(serde: SerializerProtocol, stored: Stored) -> CheckpointTuple:
    """Make LangGraph's tuple of what was stored.

    Raises:
        CorruptDataError: A row can't be deserialized; the message names it.
    """
    thread, namespace, _ = stored.key
    document = dict(stored.checkpoint)
    exact = _load_exact(serde, stored)
    values = dict(document.get("channel_values") or {})
    _refuse_plain(serde, values.keys(), stored.blobs, stored.key)
    named = versions_of(document)
    for channel, (kind, blob) in stored.blobs.items():
        if kind != "empty":
            row = _blob_of(thread, namespace, channel, named[channel])
            values[channel] = _loaded(serde, kind, blob, row, stored.key, channel=channel)
    document |= exact["checkpoint"]
    document["channel_values"] = values
    if stored.sends:
        versions = dict(document.get("channel_versions") or {})
        values[TASKS] = [
            _loaded(serde, send.type, send.blob, _write_of(thread, namespace, send), stored.key)
            for send in stored.sends
        ]
        versions[TASKS] = max(versions.values(), default=next_version(None))
        document["channel_versions"] = versions
    return CheckpointTuple(
        config=config_of(*stored.key),
        checkpoint=cast("Checkpoint", document),
        metadata=cast("CheckpointMetadata", stored.metadata | exact["metadata"]),
        parent_config=config_of(thread, namespace, stored.parent_id) if stored.parent_id else None,
        pending_writes=[
            (
                write.task_id,
                write.channel,
                _loaded(
                    serde,
                    write.type,
                    write.blob,
                    _write_of(thread, namespace, write),
                    stored.key,
                    task_id=write.task_id,
                    idx=write.idx,
                ),
            )
            for write in stored.writes
        ],
    )


def _refuse_plain(
    serde: SerializerProtocol,
    channels: Iterable[str],
    blobs: Collection[str],
    key: tuple[str, ...],
) -> None:
    if not isinstance(serde, AESGCMSerializer) or serde.allow_plain:
        return
    if plain := sorted(set(channels).difference(blobs)):
        raise CorruptDataError(
            f"Channels {plain} have values that aren't encrypted. Were they stored by another"
            f" saver? Row: checkpoints: {_named(key, {})}."
        )


def _loaded(
    serde: SerializerProtocol,
    kind: str | None,
    blob: bytes | DeltaValue | DeltaWrite,
    row: Row,
    key: tuple[str, ...],
    **part: object,
) -> Any:
    if isinstance(blob, DeltaValue):
        blob = blob.read()
    elif isinstance(blob, DeltaWrite):
        try:
            blob = blob.read()
        except CorruptDataError as error:
            raise CorruptDataError(
                f"A write can't be read: {error}. Row: {row[0]}: {_named(key, part)}."
            ) from None
    try:
        return load(serde, kind, blob, row)
    except Exception as error:  # noqa: BLE001 - a serializer may raise anything
        raise CorruptDataError(
            f"A value of type {kind!r} and {len(blob)} bytes can't be read"
            f" ({type(error).__name__}). Was it changed, or written with another serializer or key?"
            f" Row: {row[0]}: {_named(key, part)}."
        ) from None  # the cause may quote the value


def _named(key: Sequence[str], part: Mapping[str, object]) -> str:
    row = {**dict(zip(_CHECKPOINT_KEY, key, strict=False)), **part}
    return ", ".join(f"{name}={value!r}" for name, value in row.items())


def next_version(current: str | float | None) -> str:
    """Return a version greater than `current`, in the form of LangGraph's Postgres saver.

    The random part keeps two forks of one checkpoint from giving one version to two values.
    """
    if current is None:
        number = 0
    elif isinstance(current, str):
        number = int(current.split(".")[0])
    else:
        number = int(current)
    return f"{number + 1:032}.{random.random():016}"  # noqa: S311 - no secret


# Writes


def dump_writes(
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
) -> list[dict[str, Any]]:
    """Make the rows of a task's writes, sorted by primary key so that no two writers deadlock.

    Raises:
        InvalidInputError: An id can't be stored.
    """
    thread, namespace, checkpoint_id = address(config, needs_checkpoint=True)
    task = key("task_id", task_id, models.TASK_ID_BYTES)
    path = key("task_path", task_path, 2**24 - 1)
    fits(
        thread_id=thread,
        checkpoint_ns=namespace,
        checkpoint_id=cast("str", checkpoint_id),
        task_id=task,
    )
    rows: dict[int, dict[str, Any]] = {}
    for position, (channel, value) in enumerate(writes):
        idx = WRITES_IDX_MAP.get(channel, position)
        row = Write(path, task, idx, key("channel", channel, models.CHANNEL_BYTES), "", b"")
        kind, blob = dump(serde, value, _write_of(thread, namespace, row))
        rows[idx] = {  # of several special writes of one kind, the last one counts
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
            "task_id": task,
            "idx": idx,
            "channel": row.channel,
            "type": key("type", kind, models.TYPE_BYTES),
            "blob": _bytes(blob),
            "task_path": path,
        }
    return [rows[idx] for idx in sorted(rows)]


def load_history(
    serde: SerializerProtocol,
    config: RunnableConfig,
    histories: Mapping[str, History],
) -> dict[str, DeltaChannelHistory]:
    """Make LangGraph's per-channel histories of what was stored."""
    thread, namespace, _ = address(config)
    return {
        channel: _history(serde, thread, namespace, channel, found)
        for channel, found in histories.items()
    }


def _history(
    serde: SerializerProtocol, thread: str, namespace: str, channel: str, found: History
) -> DeltaChannelHistory:
    history = DeltaChannelHistory(
        writes=[
            (
                write.task_id,
                channel,
                _loaded(
                    serde,
                    write.type,
                    write.blob,
                    _write_of(thread, namespace, write),
                    (thread, namespace),
                    channel=channel,
                    task_id=write.task_id,
                ),
            )
            for write in found.writes
        ]
    )
    seed = None
    if found.seed is not None:
        kind, blob, version = found.seed
        row = _blob_of(thread, namespace, channel, version)
        seed = _loaded(serde, kind, blob, row, row[1:3], channel=channel)
    elif found.inline is not None:
        _refuse_plain(serde, found.inline, (), (thread, namespace))
        seed = found.inline[channel]
    if seed is not None:  # a stored None ends the walk, and the channel begins empty
        history["seed"] = seed
    return history


# Filters


def criteria(
    config: RunnableConfig | None,
    before: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
) -> Criteria:
    """Make what `list` looks for.

    Raises:
        InvalidInputError: An id can't be stored, or `filter` isn't a mapping.
    """
    configurable = (config or {}).get("configurable") or {}
    earlier = ((before or {}).get("configurable") or {}).get("checkpoint_id")
    if filter is not None and not isinstance(filter, Mapping):
        raise InvalidInputError(
            f"filter is a {type(filter).__name__}; pass a dict of metadata keys and values."
        )

    def given(name: str, limit: int) -> str | None:
        value = configurable.get(name)
        return None if value is None else key(name, value, limit)

    return Criteria(
        thread_id=given("thread_id", models.THREAD_ID_BYTES),
        checkpoint_ns=given("checkpoint_ns", models.NAMESPACE_BYTES),
        checkpoint_id=given("checkpoint_id", models.CHECKPOINT_ID_BYTES) or None,
        before=key("before", earlier, models.CHECKPOINT_ID_BYTES) if earlier else None,
        filter_json=encode_json(said) if (said := _prefilter(filter or {})) else None,
    )


def _prefilter(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a filter that every engine's JSON compares alike.

    It may let too many rows through, never too few: strings, booleans, None and small integers
    under plain keys; `matches` decides.
    """
    return {
        name: value
        for name, value in wanted.items()
        if _json_names(name)
        and name.isascii()
        and name.isidentifier()
        and (
            value is None
            or type(value) is bool
            or (type(value) is int and abs(value) < 2**53)
            or (type(value) is str and value.isascii() and value.isprintable())
        )
    }


def matches(metadata: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether metadata has everything a filter names.

    A dict matches as a subset, nested ones too. Everything else by JSON's equality: 1 is not true,
    1 equals 1.0, null is null and not a missing key.
    """
    return all(
        name in metadata and _matches(metadata[name], value)
        for name, value in (wanted or {}).items()
    )


def _matches(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and matches(found, wanted)
    return _equal(found, wanted)


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(_equal(found[k], wanted[k]) for k in wanted)
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(_equal, found, wanted))
    return bool(found == wanted)


def weigh(value: Any, depth: int = 3) -> int:
    """Estimate a value's size in bytes from a sample, in a few microseconds.

    Says whether serializing is worth a thread: a hop costs about 100 us, the event loop stands
    still for about 1 ms a megabyte without it.
    """
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if depth == 0:
        return 8
    if isinstance(value, Mapping):
        items: Sequence[Any] = list(value.values()) if len(value) <= 64 else []  # noqa: PLR2004
        return sum(weigh(item, depth - 1) for item in items) or 64 * len(value)
    if isinstance(value, list | tuple):
        if not value:
            return 8
        sample = value[:: max(1, len(value) // 4)]
        return len(value) * (8 + sum(weigh(item, depth - 1) for item in sample) // len(sample))
    content = getattr(value, "__dict__", None)
    return weigh(content, depth - 1) if content else 64
