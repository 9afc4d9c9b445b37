"""Every SQL statement, as a constant or out of a small closed set.

A statement that is built once costs 2.3 us to find in SQLAlchemy's cache; one that is built for
each call costs 165 us. Only what a caller chooses (the criteria of `list`) makes a statement vary.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Integer,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)

from checkpoint_sa.models import Checkpoint, CheckpointBlob, CheckpointWrite
from checkpoint_sa.types import (
    Reach,
    channel_versions,
    json_text,
    key,
    metadata_contains,
    no_key,
    peer_run_id,
    to_json,
)
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import (
        BindParameter,
        Column,
        ColumnElement,
        CompoundSelect,
        FromClause,
        Insert,
        Select,
        Table,
    )

checkpoints: Table = Checkpoint.__table__  # type: ignore[assignment]
blobs: Table = CheckpointBlob.__table__  # type: ignore[assignment]
writes: Table = CheckpointWrite.__table__  # type: ignore[assignment]

TASKS = "__pregel_tasks"
"""The channel of LangGraph's pending sends."""

FIRST_WITHOUT_SENDS = 4
"""The checkpoint format from which on pending sends are a channel's value."""


def _bind(name: str) -> BindParameter[str]:
    return bindparam(name, type_=key())


def _many(name: str) -> BindParameter[Any]:
    return bindparam(name, expanding=True)


def _in_namespace(table: FromClause) -> ColumnElement[bool]:
    return and_(
        table.c.thread_id == _bind("thread_id"), table.c.checkpoint_ns == _bind("checkpoint_ns")
    )


def _part(document: Column[Any], name: str) -> ColumnElement[str]:
    return json_text(document[name])


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

AT_ONCE = 16
"""Rows that one statement stores where INSERTs nest; a statement for each number of rows."""


def numbered(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters of several rows under the names that `at_once` statements have."""
    return {f"{name}_{i}": value for i, row in enumerate(rows) for name, value in row.items()}


def _rows(table: Table, count: int) -> Select[Any] | CompoundSelect[Any]:
    rows = [
        select(*(cast(bindparam(f"{c.name}_{i}", type_=c.type), c.type) for c in table.c))
        for i in range(count)
    ]
    return rows[0] if count == 1 else union_all(*rows)


@cache
def put_at_once(count: int) -> Insert:
    """Return the statement that stores a checkpoint and `count` blobs."""
    stored = Upsert(blobs).from_select([c.name for c in blobs.c], _rows(blobs, count))
    return PUT_CHECKPOINT.add_cte(stored.cte("stored_blobs"))


@cache
def put_writes_at_once(count: int, *, special: bool) -> Insert:
    """Return the statement that stores `count` writes of one kind."""
    names = [c.name for c in writes.c]
    update = REPLACE_WRITES.update if special else ()
    return Upsert(writes, update=update).from_select(names, _rows(writes, count))


# Reading checkpoints, with what belongs to them.
#
# Where the engine can look into `channel_versions`, one statement reads all. Elsewhere a first one
# reads the checkpoints and GET_PARTS the rest, in one snapshot: its last arm says which of them are
# still there. A checkpoint goes in one transaction with its blobs, so one that is there is whole.
#
# The rows of both have one shape. `kind` says what a row is; a checkpoint has its parent, its
# documents and its rank in the columns that are named for other kinds.

WRITE, SEND, BLOB, CHECKPOINT = range(4)

_COLUMNS = (
    checkpoints.c.thread_id,
    checkpoints.c.checkpoint_ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    checkpoints.c.checkpoint,
    checkpoints.c.metadata,
    checkpoints.c.type,
    checkpoints.c.exact,
)


def _row(  # noqa: PLR0913 - one for each column
    kind: int,
    source: FromClause,
    *,
    checkpoint_id: ColumnElement[Any] | None = None,
    channel: ColumnElement[Any] | None = None,
    version: ColumnElement[Any] | None = None,
    task_path: ColumnElement[Any] | None = None,
    task_id: ColumnElement[Any] | None = None,
    idx: ColumnElement[Any] | None = None,
    blob: ColumnElement[Any] | None = None,
) -> Select[Any]:
    return select(
        literal_column(str(kind), Integer).label("kind"),
        source.c.thread_id,
        source.c.checkpoint_ns,
        (no_key() if checkpoint_id is None else checkpoint_id).label("checkpoint_id"),
        (no_key() if channel is None else channel).label("channel"),
        (no_key() if version is None else version).label("version"),
        (no_key() if task_path is None else task_path).label("task_path"),
        (no_key() if task_id is None else task_id).label("task_id"),
        (literal_column("0", Integer) if idx is None else idx).label("idx"),
        (no_key() if blob is None else source.c.type).label("type"),
        (null() if blob is None else blob).label("blob"),
    )


def _write_row(kind: int) -> Select[Any]:
    columns = writes.c
    return _row(
        kind,
        writes,
        checkpoint_id=columns.checkpoint_id,
        channel=columns.channel,
        task_path=columns.task_path,
        task_id=columns.task_id,
        idx=columns.idx,
        blob=columns.blob,
    )


def _blob_row(source: FromClause = blobs) -> Select[Any]:
    columns = source.c
    return _row(BLOB, source, channel=columns.channel, version=columns.version, blob=columns.blob)


def _checkpoint_key(table: FromClause) -> ColumnElement[Any]:
    return tuple_(table.c.thread_id, table.c.checkpoint_ns, table.c.checkpoint_id)


def _blob_key() -> ColumnElement[Any]:
    return tuple_(blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.version)


def _same_namespace(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(one.c.thread_id == other.c.thread_id, one.c.checkpoint_ns == other.c.checkpoint_ns)


def _checkpoint_row(found: FromClause) -> Select[Any]:
    return _row(
        CHECKPOINT,
        found,
        checkpoint_id=found.c.checkpoint_id,
        channel=json_text(found.c.checkpoint),
        version=found.c.parent_checkpoint_id,
        task_path=json_text(found.c.metadata),
        idx=found.c.rank,
        blob=found.c.exact,
    )


def _with_parts(found: Select[Any], reach: Reach) -> Select[Any] | CompoundSelect[Any]:
    """Return the statement that reads checkpoints and, as far as it reaches, their parts."""
    if reach is Reach.NONE:
        return _checkpoint_row(found.subquery("found"))
    found_ = found.cte("found")
    versions = channel_versions(found_.c.checkpoint).table_valued("key", "value")
    # Distinct: checkpoints of a page share most of their values.
    used = (
        select(
            found_.c.thread_id,
            found_.c.checkpoint_ns,
            versions.c.key.label("channel"),
            # SQLite's JSON keeps numbers, and a number equals no text.
            cast(versions.c.value, Text).label("version"),
        )
        .select_from(found_.join(versions, true()))
        .distinct()
        .subquery("used")
    )
    is_used = and_(
        _same_namespace(blobs, used),
        blobs.c.channel == used.c.channel,
        blobs.c.version == used.c.version,
    )
    if reach is Reach.LATERAL:
        one = select(blobs).where(is_used).limit(literal_column("1", Integer)).lateral("one")
        values = _blob_row(one).select_from(used.join(one, true()))
    else:
        values = _blob_row(blobs).join(used, is_used)
    return union_all(
        _write_row(WRITE).join(
            found_,
            and_(
                _same_namespace(writes, found_),
                writes.c.checkpoint_id == found_.c.checkpoint_id,
            ),
        ),
        _write_row(SEND)
        .join(
            found_,
            and_(
                _same_namespace(writes, found_),
                writes.c.checkpoint_id == found_.c.parent_checkpoint_id,
            ),
        )
        .where(
            writes.c.channel == TASKS,
            func.coalesce(found_.c.checkpoint["v"].as_integer(), 1)
            < literal_column(str(FIRST_WITHOUT_SENDS), Integer),
        ),
        values,
        _checkpoint_row(found_),
    )


_first = literal_column("0", Integer).label("rank")
_latest = (
    select(*_COLUMNS, _first)
    .where(_in_namespace(checkpoints))
    .order_by(checkpoints.c.checkpoint_id.desc())
    # Spelled out: a bound LIMIT makes PostgreSQL's generic plan prefer a sort.
    .limit(literal_column("1", Integer))
)
_one = select(*_COLUMNS, _first).where(
    _in_namespace(checkpoints), checkpoints.c.checkpoint_id == _bind("checkpoint_id")
)
GET_LATEST = {reach: _with_parts(_latest, reach) for reach in Reach}
GET_ONE = {reach: _with_parts(_one, reach) for reach in Reach}
GET_LATEST_ID = (
    select(checkpoints.c.checkpoint_id)
    .where(_in_namespace(checkpoints))
    .order_by(checkpoints.c.checkpoint_id.desc())
    .limit(literal_column("1", Integer))
)


@cache
def page(  # noqa: PLR0913 - one for each criterion
    *,
    reach: Reach,
    thread: bool,
    namespace: bool,
    checkpoint: bool,
    before: bool,
    filtered: bool,
    after: bool,
) -> Select[Any] | CompoundSelect[Any]:
    """Return the statement for one page of `list`; the rank says the order, newest first.

    Each argument says whether a criterion is there. `after` continues below the last row of the
    page before: ids alone where thread and namespace are given, else ids with ties broken by thread
    and namespace, so that equal ids in two namespaces are neither skipped nor repeated.
    """
    columns = checkpoints.c
    order: list[Column[Any]] = [columns.checkpoint_id]
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
    # Numbered after the LIMIT: numbering first, the MySQL family reads and sorts the whole thread.
    newest = (
        select(*_COLUMNS)
        .where(*criteria)
        .order_by(*(column.desc() for column in order))
        .limit(bindparam("size", type_=Integer(), literal_execute=True))
        .subquery("newest")
    )
    newest_first = [newest.c[column.name].desc() for column in order]
    found = select(*newest.c, func.row_number().over(order_by=newest_first).label("rank"))
    return _with_parts(found, reach)


GET_PARTS = union_all(
    _write_row(WRITE).where(_checkpoint_key(writes).in_(_many("checkpoint_keys"))),
    _write_row(SEND).where(
        _checkpoint_key(writes).in_(_many("send_keys")), writes.c.channel == TASKS
    ),
    _blob_row().where(_blob_key().in_(_many("blob_keys"))),
    _row(CHECKPOINT, checkpoints, checkpoint_id=checkpoints.c.checkpoint_id).where(
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
    # A look-up for each step: joined, PostgreSQL reads the whole thread at each one where its
    # statistics know only small threads. A missing ancestor drops out below.
    select(
        _start.c.parent_checkpoint_id,
        select(_parent.c.parent_checkpoint_id)
        .where(_in_namespace(_parent), _parent.c.checkpoint_id == _start.c.parent_checkpoint_id)
        .correlate(_start)
        .scalar_subquery(),
        _start.c.depth + 1,
    ).where(
        _start.c.parent_checkpoint_id.is_not(None),
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
GET_CHANNEL_WRITES = _write_row(WRITE).where(
    _in_namespace(writes),
    writes.c.checkpoint_id.in_(_many("checkpoint_ids")),
    writes.c.channel.in_(_many("channels")),
)
GET_BLOBS = _blob_row().where(_blob_key().in_(_many("blob_keys")))


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
            peer_run_id(checkpoints.c.metadata).in_(_many("peer_run_ids")),
        ),
    )
)
GET_SENDERS = (
    select(writes.c.checkpoint_ns, writes.c.checkpoint_id)
    .where(_checkpoint_key(writes).in_(_many("keys")), writes.c.channel == TASKS)
    .distinct()
)
GET_USE = select(
    checkpoints.c.thread_id,
    checkpoints.c.checkpoint_ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    _part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
    _part(checkpoints.c.checkpoint, "channel_values").label("inline"),
).where(tuple_(checkpoints.c.thread_id, checkpoints.c.checkpoint_ns).in_(_many("namespace_keys")))


def _scope(table: Table, *, namespace: bool) -> ColumnElement[bool]:
    return _in_namespace(table) if namespace else table.c.thread_id == _bind("thread_id")


@cache
def family(*, namespace: bool) -> Select[Any]:
    """Return the statement for what decides which checkpoints of a thread stay."""
    return (
        select(
            checkpoints.c.checkpoint_ns,
            checkpoints.c.checkpoint_id,
            checkpoints.c.parent_checkpoint_id,
            _part(checkpoints.c.checkpoint, "v").label("v"),
            _part(checkpoints.c.metadata, "counters_since_delta_snapshot").label("counters"),
            _part(checkpoints.c.metadata, "delta_writes_versioned").label("delta"),
            _part(checkpoints.c.metadata, "parents").label("parents"),
        )
        .where(_scope(checkpoints, namespace=namespace))
        .order_by(checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id)
    )


@cache
def blob_keys(*, namespace: bool) -> Select[Any]:
    """Return the statement for the keys of a thread's blobs."""
    return select(blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.version, blobs.c.type).where(
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
