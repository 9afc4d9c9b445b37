"""Every SQL statement, as a constant or out of a small closed set.

A statement that is built once costs 2.3 us to find in SQLAlchemy's cache; one that is built for
each call costs 165 us. Only what a caller chooses (the criteria of `list`) makes a statement vary.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    Integer,
    Text,
    and_,
    bindparam,
    delete,
    insert,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from checkpoint_sa.models import Checkpoint, CheckpointBlob, CheckpointWrite
from checkpoint_sa.types import Key, json_text, metadata_contains, no_key, peer_run_id, to_json
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, Column, ColumnElement, FromClause, Insert, Select, Table

checkpoints = cast("Table", Checkpoint.__table__)
blobs = cast("Table", CheckpointBlob.__table__)
writes = cast("Table", CheckpointWrite.__table__)

TASKS = "__pregel_tasks"
"""The channel of LangGraph's pending sends."""


def _bind(name: str) -> BindParameter[str]:
    return bindparam(name, type_=Key())


def _many(name: str) -> BindParameter[Any]:
    return bindparam(name, expanding=True)


def _in_namespace(table: FromClause) -> ColumnElement[bool]:
    return and_(
        table.c.thread_id == _bind("thread_id"), table.c.checkpoint_ns == _bind("checkpoint_ns")
    )


def _part(document: Column[Any], key: str) -> ColumnElement[str]:
    return json_text(document[key])


# Writing. Blobs are never changed: a version names one value.

PUT_BLOBS = Upsert(blobs)
PUT_CHECKPOINT = Upsert(
    checkpoints, update=("type", "checkpoint", "metadata", "run_id", "exact")
).values(
    checkpoint=to_json(bindparam("checkpoint_json", type_=Text())),
    metadata=to_json(bindparam("metadata_json", type_=Text())),
)
PUT_WRITES = Upsert(writes)
REPLACE_WRITES = Upsert(writes, update=("channel", "type", "blob", "task_path"))


# Reading checkpoints.

_CHECKPOINT = (
    checkpoints.c.thread_id,
    checkpoints.c.checkpoint_ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    json_text(checkpoints.c.checkpoint).label("checkpoint"),
    json_text(checkpoints.c.metadata).label("metadata"),
    checkpoints.c.type,
    checkpoints.c.exact,
)

GET_LATEST = (
    select(*_CHECKPOINT)
    .where(_in_namespace(checkpoints))
    .order_by(checkpoints.c.checkpoint_id.desc())
    # Spelled out: a bound LIMIT makes PostgreSQL's generic plan prefer a sort.
    .limit(literal_column("1", Integer))
)
GET_ONE = select(*_CHECKPOINT).where(
    _in_namespace(checkpoints), checkpoints.c.checkpoint_id == _bind("checkpoint_id")
)


@cache
def page(  # noqa: PLR0913 - one for each criterion
    *, thread: bool, namespace: bool, checkpoint: bool, before: bool, filtered: bool, after: bool
) -> Select[Any]:
    """Return the statement for one page of `list`, newest first.

    Each argument says whether a criterion is there. `after` continues below the last row of the
    page before: ids alone where thread and namespace are given, else ids with ties broken by thread
    and namespace, so that equal ids in two namespaces are neither skipped nor repeated.
    """
    columns = checkpoints.c
    order: list[ColumnElement[Any]] = [columns.checkpoint_id]
    if not (thread and namespace):
        order += [columns.thread_id, columns.checkpoint_ns]
    criteria: list[ColumnElement[bool]] = []
    if thread:
        criteria.append(columns.thread_id == _bind("thread_id"))
    if namespace:
        criteria.append(columns.checkpoint_ns == _bind("checkpoint_ns"))
    if checkpoint:
        criteria.append(columns.checkpoint_id == _bind("checkpoint_id"))
    if before:
        criteria.append(columns.checkpoint_id < _bind("before"))
    if filtered:
        criteria.append(metadata_contains(columns.metadata, bindparam("filter_json", type_=Text())))
    if after:
        last = [_bind("after_id"), _bind("after_thread"), _bind("after_ns")][: len(order)]
        criteria.append(order[0] < last[0] if len(order) == 1 else tuple_(*order) < tuple_(*last))
    return (
        select(*_CHECKPOINT)
        .where(*criteria)
        .order_by(*(column.desc() for column in order))
        .limit(bindparam("size", type_=Integer(), literal_execute=True))
    )


# What belongs to checkpoints that were just read, in one statement and so in one snapshot. The last
# arm says which of them are still there: a checkpoint goes in one transaction with its blobs, so
# one that is still there is whole.

WRITE, SEND, BLOB, CHECKPOINT = range(4)


def _arm(  # noqa: PLR0913
    kind: int,
    table: Table,
    *,
    checkpoint_id: ColumnElement[Any] | None = None,
    channel: ColumnElement[Any] | None = None,
    version: ColumnElement[Any] | None = None,
    task: bool = False,
    content: bool = True,
) -> Select[Any]:
    columns = table.c
    return select(
        literal_column(str(kind), Integer).label("kind"),
        columns.thread_id,
        columns.checkpoint_ns,
        (no_key() if checkpoint_id is None else checkpoint_id).label("checkpoint_id"),
        (no_key() if channel is None else channel).label("channel"),
        (no_key() if version is None else version).label("version"),
        (columns.task_path if task else no_key()).label("task_path"),
        (columns.task_id if task else no_key()).label("task_id"),
        (columns.idx if task else literal_column("0", Integer)).label("idx"),
        (columns.type if content else no_key()).label("type"),
        (columns.blob if content else null()).label("blob"),
    )


def _checkpoint_key(table: Table) -> ColumnElement[Any]:
    return tuple_(table.c.thread_id, table.c.checkpoint_ns, table.c.checkpoint_id)


def _blob_key() -> ColumnElement[Any]:
    return tuple_(blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.version)


_WRITES = _arm(
    WRITE, writes, checkpoint_id=writes.c.checkpoint_id, channel=writes.c.channel, task=True
)
GET_PARTS = union_all(
    _WRITES.where(_checkpoint_key(writes).in_(_many("checkpoint_keys"))),
    _arm(
        SEND, writes, checkpoint_id=writes.c.checkpoint_id, channel=writes.c.channel, task=True
    ).where(_checkpoint_key(writes).in_(_many("send_keys")), writes.c.channel == TASKS),
    _arm(BLOB, blobs, channel=blobs.c.channel, version=blobs.c.version).where(
        _blob_key().in_(_many("blob_keys"))
    ),
    _arm(CHECKPOINT, checkpoints, checkpoint_id=checkpoints.c.checkpoint_id, content=False).where(
        _checkpoint_key(checkpoints).in_(_many("present_keys"))
    ),
)


# The chain of parents, for DeltaChannel: followed in the database, so that only ancestors are read
# and no order of ids is assumed.

_start = (
    select(
        checkpoints.c.checkpoint_id,
        checkpoints.c.parent_checkpoint_id,
        literal_column("0", Integer).label("depth"),
    )
    .where(_in_namespace(checkpoints), checkpoints.c.checkpoint_id == _bind("checkpoint_id"))
    .cte("chain", recursive=True)
)
_parent = checkpoints.alias("parent")
_chain = _start.union_all(
    select(_parent.c.checkpoint_id, _parent.c.parent_checkpoint_id, _start.c.depth + 1).where(
        _in_namespace(_parent),
        _parent.c.checkpoint_id == _start.c.parent_checkpoint_id,
        _start.c.depth < bindparam("depth", type_=Integer()),
    )
)
GET_CHAIN = (
    select(
        checkpoints.c.checkpoint_id,
        checkpoints.c.parent_checkpoint_id,
        _part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
        _part(checkpoints.c.checkpoint, "channel_values").label("inline"),
    )
    .where(_in_namespace(checkpoints), checkpoints.c.checkpoint_id == _chain.c.checkpoint_id)
    .order_by(_chain.c.depth)
)
GET_BLOB_VERSIONS = select(blobs.c.channel, blobs.c.version).where(
    _in_namespace(blobs),
    blobs.c.channel.in_(_many("channels")),
    blobs.c.version.in_(_many("versions")),
    blobs.c.type != "empty",
)
GET_CHANNEL_WRITES = _WRITES.where(
    _in_namespace(writes),
    writes.c.checkpoint_id.in_(_many("checkpoint_ids")),
    writes.c.channel.in_(_many("channels")),
)
GET_BLOBS = _arm(BLOB, blobs, channel=blobs.c.channel, version=blobs.c.version).where(
    _blob_key().in_(_many("blob_keys"))
)


# Deleting and copying.

DELETE_THREADS = tuple(
    delete(table).where(table.c.thread_id.in_(_many("thread_ids")))
    for table in (blobs, checkpoints, writes)
)
DELETE_BLOBS = delete(blobs).where(_blob_key().in_(_many("keys")))
DELETE_CHECKPOINTS = delete(checkpoints).where(_checkpoint_key(checkpoints).in_(_many("keys")))
DELETE_WRITES = delete(writes).where(_checkpoint_key(writes).in_(_many("keys")))
DELETE_OLDER_WRITES = delete(writes).where(
    _in_namespace(writes), writes.c.checkpoint_id < _bind("checkpoint_id")
)
FORGET_PARENTS = (
    update(checkpoints)
    .where(_checkpoint_key(checkpoints).in_(_many("keys")))
    .values(parent_checkpoint_id=None)
)

GET_RUNS = select(
    checkpoints.c.thread_id, checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id
).where(
    or_(
        checkpoints.c.run_id.in_(_many("run_ids")),
        and_(
            checkpoints.c.run_id.is_(None),
            peer_run_id(checkpoints.c.metadata).in_(_many("run_ids")),
        ),
    )
)
GET_USE = select(
    checkpoints.c.thread_id,
    checkpoints.c.checkpoint_ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    _part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
).where(tuple_(checkpoints.c.thread_id, checkpoints.c.checkpoint_ns).in_(_many("namespace_keys")))
GET_CHECKPOINTS = select(*_CHECKPOINT).where(_checkpoint_key(checkpoints).in_(_many("keys")))


def _scope(table: Table, *, namespace: bool) -> ColumnElement[bool]:
    return _in_namespace(table) if namespace else table.c.thread_id == _bind("thread_id")


@cache
def family(*, namespace: bool) -> Select[Any]:
    """Return the statement for what decides which checkpoints of a thread stay."""
    return select(
        checkpoints.c.checkpoint_ns,
        checkpoints.c.checkpoint_id,
        checkpoints.c.parent_checkpoint_id,
        _part(checkpoints.c.checkpoint, "v").label("v"),
        _part(checkpoints.c.metadata, "counters_since_delta_snapshot").label("counters"),
        _part(checkpoints.c.metadata, "delta_writes_versioned").label("delta"),
    ).where(_scope(checkpoints, namespace=namespace))


@cache
def blob_keys(*, namespace: bool) -> Select[Any]:
    """Return the statement for the keys of a thread's blobs."""
    return select(blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.version).where(
        _scope(blobs, namespace=namespace)
    )


THREAD_EXISTS = union_all(
    *(
        select(literal_column("1", Integer)).where(
            select(table.c.thread_id).where(table.c.thread_id == _bind("thread_id")).exists()
        )
        for table in (blobs, checkpoints, writes)
    )
)


def _copy(table: Table) -> Insert:
    others = [column for column in table.c if column.name != "thread_id"]
    return insert(table).from_select(
        ["thread_id", *(column.name for column in others)],
        select(_bind("target").label("thread_id"), *others).where(
            table.c.thread_id == _bind("source")
        ),
    )


COPY_THREAD = tuple(_copy(table) for table in (blobs, checkpoints, writes))
