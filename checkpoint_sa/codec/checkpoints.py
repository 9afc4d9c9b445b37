"""LangGraph's checkpoints, writes and histories as rows, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from checkpoint_sa import models
from checkpoint_sa.codec.exact_json import encode_document, is_exact_json, split_exact
from checkpoint_sa.codec.ids import (
    address,
    check_key_size,
    config_of,
    next_version,
    run_id,
    validate_id,
)
from checkpoint_sa.codec.values import (
    Packed,
    as_bytes,
    blob_of,
    dump,
    dump_exact,
    exact_row,
    has_plain_output,
    load_exact,
    loaded,
    refuse_plain,
    write_of,
)
from checkpoint_sa.errors import InvalidInputError
from checkpoint_sa.rows import (
    BLOB_KEY,
    CHECKPOINT_KEY,
    REVISION_KEY,
    REVISION_MARK,
    TASK_KEY,
    CheckpointRows,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from checkpoint_sa.rows import History, Stored

_SMALL = (str, int, float)
"""The types of small values; a bool is an int."""

INLINE_CHARACTERS = 256
"""Longer strings become blobs: inline values are stored again with every checkpoint."""

_STRUCTURE = frozenset(
    {"v", "id", "ts", "channel_versions", "versions_seen", "updated_channels", REVISION_KEY}
)
"""The fields of a checkpoint besides state."""


def dump_checkpoint(
    serde: SerializerProtocol,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> CheckpointRows:
    """Make the rows of a checkpoint.

    Small strings, numbers, booleans and None are stored in the JSON of every checkpoint, as in
    LangGraph's Postgres saver. Other values become blobs when their version is new.

    Raises:
        InvalidInputError: An id or a version can't be stored.
    """
    place = address(config)
    return checkpoint_rows(serde, place, checkpoint, merge_metadata(config, metadata), new_versions)


def checkpoint_rows(
    serde: SerializerProtocol,
    place: tuple[str, str, str | None],
    checkpoint: Checkpoint,
    metadata: dict[str, Any],
    new_versions: ChannelVersions,
) -> CheckpointRows:
    """Make the rows of a checkpoint as `dump_checkpoint` does, with its metadata unchanged.

    Args:
        serde: The serializer.
        place: Thread, namespace, and the id of the parent.
        checkpoint: The checkpoint.
        metadata: All of its metadata.
        new_versions: The channels with a value to store, and their versions.

    Raises:
        InvalidInputError: An id or a version can't be stored.
    """
    thread, namespace, parent = place
    checkpoint_id = validate_id("checkpoint id", checkpoint["id"], models.CHECKPOINT_ID_BYTES)
    check_key_size(CHECKPOINT_KEY, thread, namespace, checkpoint_id)
    versions = checkpoint["channel_versions"]
    plain = has_plain_output(serde)
    inline: dict[str, Any] = {}
    blobs = []
    for channel, value in checkpoint["channel_values"].items():
        version = new_versions.get(channel, versions.get(channel))
        small = value is None or isinstance(value, _SMALL)
        if small and plain and inlines(value):
            inline[validate_id("channel", channel, models.CHANNEL_BYTES)] = value
            continue
        if isinstance(value, _DeltaSnapshot) or (isinstance(value, Packed) and value.is_snapshot):
            inline[channel] = True  # LangGraph's marker; the blob is the value
        # Older checkpoints may have a small value only in their JSON, so it gets a blob as well.
        if version is not None and (channel in new_versions or small):
            row = blob_of(thread, namespace, channel, str(version))
            blobs.append(blob_row(thread, namespace, channel, version, dump(serde, value, row)))
    blobs.sort(key=lambda row: (row["channel"], row["version"]))

    document: dict[str, Any] = {k: v for k, v in checkpoint.items() if k != "channel_values"}
    hidden = {} if plain else {k: v for k, v in document.items() if k not in _STRUCTURE and v}
    for name in hidden:
        del document[name]
    document_json, inexact = split_exact(document)
    if "channel_versions" in inexact or bool in map(type, versions.values()):
        raise InvalidInputError(
            "channel_versions has a channel or a version that can't be stored exactly."
            " Versions are text, integers of 64 bits or plain floats; see get_next_version()."
        )
    metadata_json, inexact_metadata = split_exact(metadata)
    exact_type, exact = dump_exact(
        serde,
        {"checkpoint": hidden | inexact, "metadata": inexact_metadata},
        exact_row(thread, namespace, checkpoint_id),
    )
    run = metadata.get("run_id")
    return CheckpointRows(
        checkpoint={
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
            "parent_checkpoint_id": parent,
            "type": exact_type,
            "checkpoint_json": encode_document(document_json | {"channel_values": inline}),
            "metadata_json": encode_document(metadata_json),
            "run_id": "" if run is None else run_id(run),
            "exact": None if exact is None else as_bytes(exact),
        },
        blobs=blobs,
    )


def inlines(value: Any) -> bool:
    """Whether a small value stands in a checkpoint's JSON."""
    return is_exact_json(value) and (type(value) is not str or len(value) <= INLINE_CHARACTERS)


def blob_row(
    thread: str, namespace: str, channel: str, version: Any, dumped: tuple[str, bytes | None]
) -> dict[str, Any]:
    """Make the row of a channel's value."""
    channel = validate_id("channel", channel, models.CHANNEL_BYTES)
    version = validate_id("version", version, models.VERSION_BYTES)
    check_key_size(BLOB_KEY, thread, namespace, channel, version)
    return {
        "thread_id": thread,
        "checkpoint_ns": namespace,
        "channel": channel,
        "version": version,
        "type": validate_id("type", dumped[0], models.TYPE_BYTES),
        "blob": None if dumped[1] is None else as_bytes(dumped[1]),
    }


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
    return stored.metadata | load_exact(serde, stored)["metadata"]


def load_checkpoint(serde: SerializerProtocol, stored: Stored) -> CheckpointTuple:
    """Make LangGraph's tuple of a stored checkpoint.

    Raises:
        CorruptDataError: A row can't be deserialized; the message names it.
    """
    thread, namespace, _ = stored.key
    document = dict(stored.checkpoint)
    exact = load_exact(serde, stored)
    values = dict(document.get("channel_values") or {})
    refuse_plain(serde, values.keys(), stored.blobs, stored.key)
    named = document.get("channel_versions") or {}
    for channel, (kind, blob) in stored.blobs.items():
        if kind != "empty":
            row = blob_of(thread, namespace, channel, str(named[channel]))
            values[channel] = loaded(serde, kind, blob.read(), row, stored.key, channel=channel)
    document |= exact["checkpoint"]
    document.pop(REVISION_KEY, None)
    document["channel_values"] = values
    if stored.sends:
        versions = dict(document.get("channel_versions") or {})
        parent = (thread, namespace, stored.parent_id or "")
        values[TASKS] = [_load_write(serde, parent, send) for send in stored.sends]
        versions[TASKS] = max(versions.values(), default=next_version(None))
        document["channel_versions"] = versions
    return CheckpointTuple(
        config=config_of(*stored.key),
        checkpoint=cast("Checkpoint", document),
        metadata=cast("CheckpointMetadata", stored.metadata | exact["metadata"]),
        parent_config=config_of(thread, namespace, stored.parent_id) if stored.parent_id else None,
        pending_writes=[
            (write.task_id, write.channel, _load_write(serde, stored.key, write))
            for write in stored.writes
        ],
    )


def _load_write(serde: SerializerProtocol, key: tuple[str, ...], write: Write) -> Any:
    """Return the value of a write; `key` begins with the thread and the namespace."""
    task_id, idx, channel = write.task_id, write.idx, write.channel
    row = write_of(key[0], key[1], task_id, idx, channel)
    kind, blob = write.type, write.blob.read()
    return loaded(serde, kind, blob, row, key, channel=channel, task_id=task_id, idx=idx)


def dump_writes(  # noqa: PLR0913, PLR0917 - the arguments of `put_writes`, and two settings
    serde: SerializerProtocol,
    config: RunnableConfig,
    writes: Sequence[tuple[str, Any]],
    task_id: str,
    task_path: str,
    revision: str = "",
) -> list[dict[str, Any]]:
    """Make the rows of a task's writes, sorted by primary key so that no two writers deadlock.

    Raises:
        InvalidInputError: An id can't be stored.
    """
    thread, namespace, checkpoint_id = address(config, needs_checkpoint=True)
    key = (thread, namespace, cast("str", checkpoint_id))
    task = task_columns(key, task_id, task_path, revision)
    rows: dict[int, dict[str, Any]] = {}
    for position, (channel, value) in enumerate(writes):
        idx = WRITES_IDX_MAP.get(channel, position)
        # Of several special writes of a kind, the last counts.
        rows[idx] = write_row(serde, task, idx, channel, value)
    return [rows[idx] for idx in sorted(rows)]


def task_columns(
    key: tuple[str, str, str], task_id: str, task_path: str, revision: str
) -> dict[str, str]:
    """Make the columns that all writes of a task share.

    Args:
        key: The key of the checkpoint.
        task_id: The task.
        task_path: The place of the task in the superstep.
        revision: The revision of state; "" is none.

    Raises:
        InvalidInputError: An id can't be stored.
    """
    task = validate_id("task_id", task_id, models.TASK_ID_BYTES)
    check_key_size(TASK_KEY, *key, task)
    path = f"{task_path}{REVISION_MARK}{revision}" if revision else task_path
    return {
        "thread_id": key[0],
        "checkpoint_ns": key[1],
        "checkpoint_id": key[2],
        "task_id": task,
        "task_path": validate_id("task_path", path, 2**24 - 1),
    }


def write_row(
    serde: SerializerProtocol, task: Mapping[str, str], idx: int, channel: str, value: Any
) -> dict[str, Any]:
    """Make the row of a write.

    Args:
        serde: The serializer.
        task: The columns that it shares, see `task_columns`.
        idx: Its position among the task's writes, or LangGraph's number of a special write.
        channel: The channel.
        value: The value.

    Raises:
        InvalidInputError: The channel or the serializer's tag can't be stored.
    """
    channel = validate_id("channel", channel, models.CHANNEL_BYTES)
    row = write_of(task["thread_id"], task["checkpoint_ns"], task["task_id"], idx, channel)
    kind, blob = dump(serde, value, row)
    return {
        **task,
        "idx": idx,
        "channel": channel,
        "type": validate_id("type", kind, models.TYPE_BYTES),
        "blob": as_bytes(blob),
    }


def load_history(
    serde: SerializerProtocol,
    config: RunnableConfig,
    histories: Mapping[str, History],
) -> dict[str, DeltaChannelHistory]:
    """Make LangGraph's histories, by channel, out of stored histories."""
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
            (write.task_id, channel, _load_write(serde, (thread, namespace), write))
            for write in found.writes
        ]
    )
    seed = None
    if found.seed is not None:
        kind, blob, version = found.seed
        row = blob_of(thread, namespace, channel, version)
        seed = loaded(serde, kind, blob.read(), row, row[1:3], channel=channel)
    elif found.inline is not None:
        refuse_plain(serde, found.inline, (), (thread, namespace))
        seed = found.inline[channel]
    if seed is not None:  # a stored None ends the walk, and the channel begins empty
        history["seed"] = seed
    return history
