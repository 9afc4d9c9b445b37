"""Rows as the layers exchange them: typed, serialized, and without a state value."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from sqlalchemy import Row
    from typing_extensions import Unpack

    AnyRow: TypeAlias = Row[Unpack[tuple[Any, ...]]]

CHECKPOINT_KEY = ("thread_id", "checkpoint_ns", "checkpoint_id")
CheckpointKey = tuple[str, str, str]
"""The values of `CHECKPOINT_KEY`."""
BLOB_KEY = ("thread_id", "checkpoint_ns", "channel", "version")
BlobKey = tuple[str, str, str, str]
"""The values of `BLOB_KEY`."""
TASK_KEY = (*CHECKPOINT_KEY, "task_id")
"""The key of a write, without its index."""


REVISION_KEY = "checkpoint_sa_revision"
"""The entry of a checkpoint's document that names its revision of state."""
REVISION_MARK = "\x01"
"""Stands between a write's task path and its revision of state; sorts before any other text."""


class CheckpointRows(NamedTuple):
    """The rows that a `put` stores."""

    checkpoint: dict[str, Any]
    blobs: list[dict[str, Any]]
    """Values that are stored whole."""
    deltas: Sequence[dict[str, Any]] = ()
    """Values that are stored in chains, as `deltas.encoding.encode_value` makes them."""

    @property
    def config(self) -> RunnableConfig:
        """The config that names the checkpoint."""
        row = self.checkpoint
        return {
            "configurable": {
                "thread_id": row["thread_id"],
                "checkpoint_ns": row["checkpoint_ns"],
                "checkpoint_id": row["checkpoint_id"],
            }
        }


class LazyValue(Protocol):
    """The serialized bytes of a value or a write, which may have to be rebuilt from deltas."""

    is_delta: ClassVar[bool]
    """Whether it is stored as a delta, or in a chain of them."""

    @property
    def size(self) -> int:
        """The number of bytes, known without reading them."""

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            CorruptDataError: They can't be rebuilt; the message names the rows.
        """


class WholeValue:
    """Bytes that are stored as they are."""

    __slots__ = ("_data",)

    is_delta: ClassVar[bool] = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self._data)

    def read(self) -> bytes:
        """Return the bytes."""
        return self._data


NOTHING = WholeValue(b"")

TypedValue: TypeAlias = tuple[str, LazyValue]
"""The serializer's tag, and the value."""
Values: TypeAlias = dict[tuple[str, str], TypedValue]
"""(channel, version) -> the serializer's tag, and the value."""


# Checkpoints and their parts are read as rows of one shape, so that a statement can return rows of
# several kinds. The columns are named after their type only; a reader gives them their names:
#
#     kind      text_1      text_2      text_3      number      tag      data
#
#     WRITE     channel     task_path   task_id     idx         type     blob
#     SEND      the same, of a pending send
#     BLOB      channel     version     chain       position    type     blob
#     DELTA     channel                 chain       position             data
#     HEAD      checkpoint  parent_id   metadata    rank        type     exact
#     PRESENT
#
# This is the narrow row, for the parts of a checkpoint. The wide row, for several checkpoints,
# begins with thread_id, checkpoint_ns and checkpoint_id; BLOB and DELTA have '' for the last.

WRITE, SEND, BLOB, DELTA, HEAD, PRESENT = range(6)


class Write(NamedTuple):
    """A pending write, as stored."""

    task_path: str
    task_id: str
    idx: int
    channel: str
    type: str
    blob: LazyValue
    revision: str = ""
    """The revision of state under which it was stored; "" is before the first."""


class Head(NamedTuple):
    """A checkpoint without its document, values and writes."""

    parent_id: str | None
    metadata: str
    """JSON."""
    rank: int
    """The place of this checkpoint among those that a statement reads."""
    type: str | None
    """The serializer's tag of `exact`."""
    exact: bytes | None


def as_bytes(data: Any) -> bytes:
    """Return a driver's binary value as bytes."""
    return data if type(data) is bytes else bytes(data or b"")


class Stored(NamedTuple):
    """A checkpoint with all its parts, as stored."""

    key: CheckpointKey
    parent_id: str | None
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    type: str | None
    exact: bytes | None
    blobs: dict[str, TypedValue]
    """Channel -> (type, value), for the channels that have a blob."""
    writes: list[Write]
    """In the order of `writes_sort_key`."""
    sends: list[Write]
    """Pending sends kept with the parent, for checkpoints before version 4."""

    @property
    def revision(self) -> str:
        """The revision of state; "" is before the first."""
        return str(self.checkpoint.get(REVISION_KEY) or "")


class Criteria(NamedTuple):
    """The criteria of `list`; None matches anything."""

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    before: str | None = None
    filter_json: str | None = None


class History(NamedTuple):
    """The writes of a channel since its last stored value, as stored; see `delta_history`."""

    writes: list[Write]
    """Oldest first."""
    seed: tuple[str, LazyValue, str] | None = None
    """(type, value, version) of the value to start from."""
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
    """Return a part of a document; None if it is missing, for which SQLite returns null."""
    return json.loads(text) if text and text != "{}" else None
