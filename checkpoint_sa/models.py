"""The ORM models of the tables, for people's own queries and for Alembic.

On PostgreSQL the tables are those of langgraph-checkpoint-postgres, with two nullable columns more
each in `checkpoints` and `checkpoint_blobs`, and a table of our own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, Integer, MetaData, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from checkpoint_sa.types import Blob, Document, UtcTime, key
from checkpoint_sa.types import key as key_type

THREAD_ID_BYTES = 512
NAMESPACE_BYTES = 2000
CHECKPOINT_ID_BYTES = 128
CHANNEL_BYTES = 400
VERSION_BYTES = 128
TASK_ID_BYTES = 255
RUN_ID_BYTES = 255
TYPE_BYTES = 255
CHAIN_BYTES = 16
ITEM_PREFIX_BYTES = 1500
ITEM_KEY_BYTES = 800
FIELD_BYTES = 300


class Base(DeclarativeBase):
    """Declarative base with a `MetaData` of its own, so that it can join an application's."""

    metadata = MetaData()
    type_annotation_map = {dict[str, Any]: Document, datetime: UtcTime}  # noqa: RUF012


class Checkpoint(Base):
    """One checkpoint of a thread: LangGraph's `Checkpoint` without the values of its channels.

    Attributes:
        thread_id: LangGraph's `thread_id`, as text.
        checkpoint_ns: '' for the root graph, `node:task_id` for a subgraph, joined by `|`.
        checkpoint_id: Sorts by time; the greatest id of a namespace is the latest.
        parent_checkpoint_id: The checkpoint from which it was made, in the same namespace.
        type: The serializer's tag of `exact`; NULL without one.
        checkpoint: The checkpoint as JSON. `channel_values` holds the small values that JSON holds
            exactly; the others are in `CheckpointBlob`, by `channel_versions`.
        checkpoint_metadata: LangGraph's `CheckpointMetadata` as JSON, as far as JSON can hold it
            (column `metadata`).
        run_id: `metadata.run_id`; '' without one; NULL in rows that
            langgraph-checkpoint-postgres wrote.
        exact: The parts of the two documents that JSON can't hold exactly, serialized; NULL
            without any.
    """

    __tablename__ = "checkpoints"

    thread_id: Mapped[str] = mapped_column(key(THREAD_ID_BYTES), primary_key=True)
    checkpoint_ns: Mapped[str] = mapped_column(key(NAMESPACE_BYTES), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(key(CHECKPOINT_ID_BYTES), primary_key=True)
    parent_checkpoint_id: Mapped[str | None] = mapped_column(key(CHECKPOINT_ID_BYTES))
    type: Mapped[str | None] = mapped_column(key(TYPE_BYTES))
    checkpoint: Mapped[dict[str, Any]]
    checkpoint_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")
    run_id: Mapped[str | None] = mapped_column(key(RUN_ID_BYTES), index=True)
    exact: Mapped[bytes | None] = mapped_column(Blob)


class CheckpointBlob(Base):
    """The value of a version of a channel; never changed once written.

    Attributes:
        version: As in the `channel_versions` of the checkpoints that use it, as text.
        type: The serializer's tag; `empty` where a channel has no value.
        blob: The serialized value.
        chain: The chain of the value in `CheckpointDelta`; `type` has a suffix then, and `blob` is
            a fingerprint, as `deltas` describes. NULL if `blob` is the value.
        position: The position of the value in the chain.
    """

    __tablename__ = "checkpoint_blobs"

    thread_id: Mapped[str] = mapped_column(key(THREAD_ID_BYTES), primary_key=True)
    checkpoint_ns: Mapped[str] = mapped_column(key(NAMESPACE_BYTES), primary_key=True)
    channel: Mapped[str] = mapped_column(key(CHANNEL_BYTES), primary_key=True)
    version: Mapped[str] = mapped_column(key(VERSION_BYTES), primary_key=True)
    type: Mapped[str] = mapped_column(key(TYPE_BYTES))
    blob: Mapped[bytes | None] = mapped_column(Blob)
    chain: Mapped[str | None] = mapped_column(key(CHAIN_BYTES))
    position: Mapped[int | None] = mapped_column(Integer)


class CheckpointDelta(Base):
    """A base value of a channel, or a delta that makes the next value; never changed once written.

    Attributes:
        chain: Names the base and the deltas that follow it.
        position: 0 for the base; the delta at p makes the value at p out of the value at p - 1.
        data: The base's bytes, or the delta, as `deltas` describes.
    """

    __tablename__ = "checkpoint_deltas"

    thread_id: Mapped[str] = mapped_column(key(THREAD_ID_BYTES), primary_key=True)
    checkpoint_ns: Mapped[str] = mapped_column(key(NAMESPACE_BYTES), primary_key=True)
    channel: Mapped[str] = mapped_column(key(CHANNEL_BYTES), primary_key=True)
    chain: Mapped[str] = mapped_column(key(CHAIN_BYTES), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    data: Mapped[bytes] = mapped_column(Blob)


class CheckpointWrite(Base):
    """A pending write of a task that ran from a checkpoint.

    Attributes:
        idx: Position among the task's writes; negative for LangGraph's special writes
            (`WRITES_IDX_MAP`).
        type: The serializer's tag.
        blob: The serialized value.
        task_path: The place of the task in the superstep; sorts first in `pending_writes`.
    """

    __tablename__ = "checkpoint_writes"

    thread_id: Mapped[str] = mapped_column(key(THREAD_ID_BYTES), primary_key=True)
    checkpoint_ns: Mapped[str] = mapped_column(key(NAMESPACE_BYTES), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(key(CHECKPOINT_ID_BYTES), primary_key=True)
    task_id: Mapped[str] = mapped_column(key(TASK_ID_BYTES), primary_key=True)
    idx: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    channel: Mapped[str] = mapped_column(key(CHANNEL_BYTES))
    type: Mapped[str | None] = mapped_column(key(TYPE_BYTES))
    blob: Mapped[bytes] = mapped_column(Blob)
    task_path: Mapped[str] = mapped_column(key())


class StoreItem(Base):
    """One item of LangGraph's long-term memory, as `SQLAlchemyStore` keeps it.

    Attributes:
        prefix: The labels of the namespace, joined by dots; `store.namespaces` has the details.
        key: The item's key in its namespace.
        value: The item's value as JSON. Entries that JSON can't hold exactly are in its entry
            `__checkpoint_sa__`, as text.
        created_at: When the item was first stored, by the server's clock.
        updated_at: When its value was last stored.
        expires_at: From when on the item isn't returned any more; NULL is never.
        ttl_minutes: By how much a read postpones `expires_at`; NULL where it is NULL.
    """

    __tablename__ = "store"

    prefix: Mapped[str] = mapped_column(key_type(ITEM_PREFIX_BYTES), primary_key=True)
    key: Mapped[str] = mapped_column(key_type(ITEM_KEY_BYTES), primary_key=True)
    value: Mapped[dict[str, Any]]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    ttl_minutes: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        Index(
            "idx_store_expires_at",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
            sqlite_where=text("expires_at IS NOT NULL"),
        ),
    )


class StoreEmbedding(Base):
    """The vector of one text of an item, for semantic search.

    Attributes:
        field_name: The path of the text in the item's value, with a number where it has several.
        embedding: The numbers of the vector, 32-bit floats, the least significant byte first.
    """

    __tablename__ = "store_embeddings"

    prefix: Mapped[str] = mapped_column(key_type(ITEM_PREFIX_BYTES), primary_key=True)
    key: Mapped[str] = mapped_column(key_type(ITEM_KEY_BYTES), primary_key=True)
    field_name: Mapped[str] = mapped_column(key_type(FIELD_BYTES), primary_key=True)
    embedding: Mapped[bytes] = mapped_column(Blob)

    __table_args__ = (
        ForeignKeyConstraint(["prefix", "key"], ["store.prefix", "store.key"], ondelete="CASCADE"),
    )


metadata = Base.metadata
