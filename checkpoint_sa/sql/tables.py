"""The tables, and the criteria that statements share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Integer,
    and_,
    bindparam,
    literal_column,
)

from checkpoint_sa.models import Checkpoint, CheckpointBlob, CheckpointDelta, CheckpointWrite
from checkpoint_sa.rows import BLOB_KEY
from checkpoint_sa.types import (
    json_text,
    key,
    one_of,
)

if TYPE_CHECKING:
    from sqlalchemy import (
        BindParameter,
        Column,
        ColumnElement,
        FromClause,
        Table,
    )


checkpoints: Table = Checkpoint.__table__  # type: ignore[assignment]
blobs: Table = CheckpointBlob.__table__  # type: ignore[assignment]
writes: Table = CheckpointWrite.__table__  # type: ignore[assignment]
deltas: Table = CheckpointDelta.__table__  # type: ignore[assignment]

TASKS = "__pregel_tasks"
"""The channel of LangGraph's pending sends."""

INTERRUPT = "__interrupt__"
"""The channel of LangGraph's interrupts: a task waits for a person."""

INPUT = "__start__"
"""The channel of a graph's input."""

BRANCH = "branch:to:"
"""Begins the name of the channel by which LangGraph starts a node."""

FIRST_WITHOUT_SENDS = 4
"""The checkpoint format from which on pending sends are a channel's value."""


def bind(name: str) -> BindParameter[str]:
    """Return a parameter with the type of a key."""
    return bindparam(name, type_=key())


def in_namespace(table: FromClause) -> ColumnElement[bool]:
    """Return the criterion of a namespace."""
    return and_(
        table.c.thread_id == bind("thread_id"), table.c.checkpoint_ns == bind("checkpoint_ns")
    )


def checkpoint_in(name: str, table: FromClause) -> ColumnElement[bool]:
    """Return the criterion of a list of checkpoints."""
    return one_of(name, table.c.thread_id, table.c.checkpoint_ns, table.c.checkpoint_id)


def blob_in(name: str) -> ColumnElement[bool]:
    """Return the criterion of a list of values."""
    return one_of(name, *(blobs.c[column] for column in BLOB_KEY))


def same_namespace(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the criterion of a join within a namespace."""
    return and_(one.c.thread_id == other.c.thread_id, one.c.checkpoint_ns == other.c.checkpoint_ns)


def same_chain(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    """Return the criterion of a join within a chain."""
    return and_(
        same_namespace(one, other), one.c.channel == other.c.channel, one.c.chain == other.c.chain
    )


def json_part(document: Column[Any], name: str) -> ColumnElement[str]:
    """Return an entry of a document, as text."""
    return json_text(document[name])


zero = literal_column("0", Integer)


def scope(table: Table, *, namespace: bool) -> ColumnElement[bool]:
    """Return the criterion of a thread, or of a namespace of it."""
    return in_namespace(table) if namespace else table.c.thread_id == bind("thread_id")


page_size = bindparam("size", type_=Integer(), literal_execute=True)

TABLES = (deltas, blobs, writes, checkpoints)
"""In the order of storing: a checkpoint comes after all rows that it references."""

DOCUMENTS = {"checkpoint": "checkpoint_json", "metadata": "metadata_json"}
"""The parameters that have the documents as text."""
