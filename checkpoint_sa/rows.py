"""Rows as one layer hands them to another: typed, serialized, and without a state value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from langchain_core.runnables import RunnableConfig
    from sqlalchemy import Row
    from typing_extensions import Unpack

    from checkpoint_sa.deltas.chain import DeltaValue, DeltaWrite

    AnyRow: TypeAlias = Row[Unpack[tuple[Any, ...]]]

CheckpointKey = tuple[str, str, str]
"""thread_id, checkpoint_ns, checkpoint_id."""
BlobKey = tuple[str, str, str, str]
"""thread_id, checkpoint_ns, channel, version."""


class CheckpointRows(NamedTuple):
    """The rows that one `put` stores."""

    checkpoint: dict[str, Any]
    blobs: list[dict[str, Any]]
    """Values that are stored whole."""
    deltas: Sequence[dict[str, Any]] = ()
    """Values that are stored in chains, as `deltas.encoding.encode_value` makes them."""

    @property
    def config(self) -> RunnableConfig:
        """The config that names the checkpoint."""
        key = ("thread_id", "checkpoint_ns", "checkpoint_id")
        return {"configurable": {name: self.checkpoint[name] for name in key}}


class Write(NamedTuple):
    """One pending write, as stored."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    type: str
    blob: bytes | DeltaWrite


class Stored(NamedTuple):
    """One checkpoint with all that belongs to it, as stored."""

    key: CheckpointKey
    parent_id: str | None
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    type: str | None
    exact: bytes | None
    blobs: dict[str, tuple[str, bytes | DeltaValue]]
    """Channel -> (type, bytes), for the channels that have a blob."""
    writes: list[Write]
    """In the order of `writes_sort_key`."""
    sends: list[Write]
    """Pending sends kept with the parent, for checkpoints before version 4."""


class Criteria(NamedTuple):
    """What `list` looks for; None is any."""

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    before: str | None = None
    filter_json: str | None = None


class History(NamedTuple):
    """What one channel got since its last stored value, as stored; see `delta_history`."""

    writes: list[Write]
    """Oldest first."""
    seed: tuple[str, bytes | DeltaValue, str] | None = None
    """(type, bytes, version) of the value to start from."""
    inline: dict[str, Any] | None = None
    """{channel: value} where the value to start from is part of a checkpoint's JSON."""


def versions_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return channel -> version of a checkpoint's document, as the blobs name it."""
    return {k: str(version) for k, version in (document.get("channel_versions") or {}).items()}


# A list of tuples of 1,000 keys stays below every limit on parameters and stack depth (8,000
# overflow PostgreSQL's stack); single columns go up to 10,000 (SQLite takes 32,766 parameters).
MAX_TUPLES = 1_000
MAX_SINGLES = 10_000


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """Cut a sequence into parts of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def loads_or_none(text: str | None) -> Any:
    """Return a part of a document; None where it is missing, which SQLite says as null."""
    return json.loads(text) if text and text != "{}" else None
