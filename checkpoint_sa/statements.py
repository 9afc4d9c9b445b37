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
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
    update,
)

from checkpoint_sa.deltas.cache import MAX_EXCLUDED
from checkpoint_sa.deltas.encoding import MAX_ROWS
from checkpoint_sa.models import Checkpoint, CheckpointBlob, CheckpointDelta, CheckpointWrite
from checkpoint_sa.rows import BLOB, DELTA, HEAD, PRESENT, SEND, WRITE
from checkpoint_sa.types import (
    Reach,
    byte_length,
    channel_versions,
    json_text,
    key,
    metadata_contains,
    no_key,
    one_of,
    peer_run_id,
    to_json,
    typed,
)
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import (
        CTE,
        BindParameter,
        Column,
        ColumnElement,
        CompoundSelect,
        FromClause,
        Insert,
        Select,
        Table,
    )

    from checkpoint_sa.deltas.chain import Base

checkpoints: Table = Checkpoint.__table__  # type: ignore[assignment]
blobs: Table = CheckpointBlob.__table__  # type: ignore[assignment]
writes: Table = CheckpointWrite.__table__  # type: ignore[assignment]
deltas: Table = CheckpointDelta.__table__  # type: ignore[assignment]

TASKS = "__pregel_tasks"
"""The channel of LangGraph's pending sends."""

INPUT = "__start__"
"""The channel of a graph's input."""

BRANCH = "branch:to:"
"""Begins the name of the channel by which LangGraph starts a node."""

FIRST_WITHOUT_SENDS = 4
"""The checkpoint format from which on pending sends are a channel's value."""


def _bind(name: str) -> BindParameter[str]:
    return bindparam(name, type_=key())


def _in_namespace(table: FromClause) -> ColumnElement[bool]:
    return and_(
        table.c.thread_id == _bind("thread_id"), table.c.checkpoint_ns == _bind("checkpoint_ns")
    )


def _checkpoint_in(name: str, table: FromClause) -> ColumnElement[bool]:
    return one_of(name, table.c.thread_id, table.c.checkpoint_ns, table.c.checkpoint_id)


BLOB_KEY = ("thread_id", "checkpoint_ns", "channel", "version")


def _blob_in(name: str) -> ColumnElement[bool]:
    return one_of(name, *(blobs.c[column] for column in BLOB_KEY))


def _same_namespace(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(one.c.thread_id == other.c.thread_id, one.c.checkpoint_ns == other.c.checkpoint_ns)


def _same_chain(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(
        _same_namespace(one, other), one.c.channel == other.c.channel, one.c.chain == other.c.chain
    )


def _part(document: Column[Any], name: str) -> ColumnElement[str]:
    return json_text(document[name])


# Writing. Blobs are never changed: a version names one value.

PUT_BLOBS = Upsert(blobs)
TAKE_TURN = Upsert(blobs, update=("blob",))
PUT_CHECKPOINT = Upsert(
    checkpoints, update=("type", "checkpoint", "metadata", "run_id", "exact")
).values(
    checkpoint=to_json(bindparam("checkpoint_json", type_=Text())),
    metadata=to_json(bindparam("metadata_json", type_=Text())),
)
PUT_WRITES = Upsert(writes)
REPLACE_WRITES = Upsert(writes, update=("channel", "type", "blob", "task_path"))

AT_ONCE = 16
"""Rows that one statement stores; there is a statement for each number of rows."""

OF_ALL_BLOBS = frozenset({"thread_id", "checkpoint_ns"})
OF_ALL_WRITES = OF_ALL_BLOBS | {"checkpoint_id", "task_id", "task_path"}
"""What the rows that one statement stores have in common: sent once."""


def _name(column: str, i: int, common: frozenset[str], prefix: str) -> str:
    return f"all_{column}" if column in common else f"{prefix}{column}_{i}"


def several(
    rows: Sequence[Mapping[str, Any]], common: frozenset[str], prefix: str = ""
) -> dict[str, Any]:
    """Return the parameters of several rows for an `at_once` statement."""
    return {
        _name(column, i, common, prefix): value
        for i, row in enumerate(rows)
        for column, value in row.items()
    }


def _value(
    column: Column[Any], i: int, common: frozenset[str], prefix: str = ""
) -> ColumnElement[Any]:
    return typed(bindparam(_name(column.name, i, common, prefix), type_=column.type))


def _rows(
    columns: Sequence[Column[Any]], count: int, common: frozenset[str], prefix: str = ""
) -> Select[Any] | CompoundSelect[Any]:
    rows = [select(*(_value(c, i, common, prefix) for c in columns)) for i in range(count)]
    return rows[0] if count == 1 else union_all(*rows)


_PLAIN = [column for column in blobs.c if column.name not in ("chain", "position")]
"""The columns of a value that stands in no chain."""


def _plain_at_once(count: int) -> CTE:
    rows = _rows(_PLAIN, count, OF_ALL_BLOBS)
    return Upsert(blobs).from_select([c.name for c in _PLAIN], rows).cte("stored_blobs")


@cache
def put_writes_at_once(count: int, *, special: bool) -> Insert:
    """Return the statement that stores `count` writes of one task and of one kind."""
    names = [c.name for c in writes.c]
    update = REPLACE_WRITES.update if special else ()
    rows = _rows([*writes.c], count, OF_ALL_WRITES)
    return Upsert(writes, update=update).from_select(names, rows)


# Writing values into chains, for `chains`.
#
# A change is appended only while the value that it changes is there. That one's row and the first
# one of its chain, which those who delete lock first as well, are locked until the commit. Who
# appends to the same value at the same time meets the primary key, and so does a version that is
# there already.

_base = blobs.alias("base")
_head = deltas.alias("head")
_zero = literal_column("0", Integer)
_locked = (
    select(_head.c.channel, _base.c.version, _base.c.blob)
    .select_from(_head.join(_base, _same_chain(_base, _head)))
    .where(_head.c.position == _zero)
    .with_for_update(read=True)
)
LOCK_BASES = _locked.where(
    _in_namespace(_head),
    one_of("channels", _head.c.channel),
    one_of("chains", _head.c.chain),
    one_of("versions", _base.c.version),
)
PUT_DELTAS = insert(deltas)
PUT_CHAINED = insert(blobs)
GET_EXISTING = select(blobs.c.channel, blobs.c.version).where(_blob_in("blob_keys"))


@cache
def put_deltas(count: int) -> Insert:
    """Return the statement that stores `count` changes.

    It fails on the position of a change, which is NULL, if the value that it changes is gone.
    """
    changes = []
    for i in range(count):
        row = {c.name: _value(c, i, OF_ALL_BLOBS, "chained_") for c in deltas.c}
        position = (
            _locked.with_only_columns(_base.c.position + literal_column("1", Integer))
            .where(
                _head.c.thread_id == row["thread_id"],
                _head.c.checkpoint_ns == row["checkpoint_ns"],
                _head.c.channel == row["channel"],
                _head.c.chain == row["chain"],
                _base.c.version == bindparam(f"chained_base_version_{i}", type_=key()),
                _base.c.blob == bindparam(f"chained_base_blob_{i}", type_=blobs.c.blob.type),
            )
            .scalar_subquery()
        )
        row["position"] = case((row["position"] == _zero, _zero), else_=position)
        changes.append(select(*row.values()))
    return PUT_DELTAS.from_select(
        [c.name for c in deltas.c], changes[0] if count == 1 else union_all(*changes)
    )


@cache
def put_at_once(plain: int, chained: int) -> Insert:
    """Return the statement that stores a checkpoint and its values, where INSERTs nest.

    Args:
        plain: How many values are stored whole.
        chained: How many are stored in chains.
    """
    statement: Insert = PUT_CHECKPOINT
    if chained:
        named = PUT_CHAINED.from_select(
            [c.name for c in blobs.c], _rows([*blobs.c], chained, OF_ALL_BLOBS, "chained_")
        )
        statement = statement.add_cte(
            put_deltas(chained).cte("stored_deltas"), named.cte("stored_chained")
        )
    return statement.add_cte(_plain_at_once(plain)) if plain else statement


# Reading checkpoints, with what belongs to them.
#
# Where the engine can look into `channel_versions`, one statement reads all. Elsewhere a first one
# reads the checkpoints and GET_PARTS the rest, in one snapshot: its last arm says which of them are
# still there. A checkpoint goes in one transaction with its blobs, so one that is there is whole.
#
# The rows of both have one shape: see `rows.decode`.

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


_PART = ("kind", "text_1", "text_2", "text_3", "number", "tag", "data")
_empty = no_key()
_nothing = null()


def _narrow(kind: int, *columns: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    named = zip(_PART, (literal_column(str(kind), Integer), *columns), strict=True)
    return [column.label(name) for name, column in named]


def _write(kind: int, source: FromClause = writes) -> list[ColumnElement[Any]]:
    c = source.c
    return _narrow(kind, c.channel, c.task_path, c.task_id, c.idx, c.type, c.blob)


def _blob(source: FromClause = blobs) -> list[ColumnElement[Any]]:
    c = source.c
    return _narrow(BLOB, c.channel, c.version, c.chain, c.position, c.type, c.blob)


def _delta(source: FromClause = deltas) -> list[ColumnElement[Any]]:
    c = source.c
    return _narrow(DELTA, c.channel, _empty, c.chain, c.position, _empty, c.data)


def _checkpoint(source: FromClause) -> list[ColumnElement[Any]]:
    c = source.c
    document, metadata = json_text(c.checkpoint), json_text(c.metadata)
    return _narrow(HEAD, document, c.parent_checkpoint_id, metadata, c.rank, c.type, c.exact)


_present = _narrow(PRESENT, _empty, _empty, _empty, _zero, _empty, _nothing)


def _wide(source: FromClause, columns: list[ColumnElement[Any]]) -> Select[Any]:
    """Select a part with the key of its checkpoint, or with its namespace where it has none."""
    c = source.c
    checkpoint_id = c.get("checkpoint_id", _empty).label("checkpoint_id")
    return select(c.thread_id, c.checkpoint_ns, checkpoint_id, *columns)


def _up_to(value: FromClause, change: FromClause = deltas) -> ColumnElement[bool]:
    """Whether a row of `deltas` is one of those that a value is put together from."""
    return and_(_same_chain(change, value), change.c.position <= value.c.position)


def excluding(cached: Sequence[Base]) -> dict[str, Any]:
    """Return the parameters by which the rows of cached values are left out."""
    places = [(tail.chain, tail.position) for tail in cached[:MAX_EXCLUDED]]
    places += [("", 0)] * (MAX_EXCLUDED - len(places))
    return {
        name: value
        for i, place in enumerate(places)
        for name, value in zip((f"cached_chain_{i}", f"cached_position_{i}"), place, strict=True)
    }


def _isnt_cached(value: FromClause) -> ColumnElement[bool]:
    """Whether a value stands elsewhere than all the cached ones.

    The reader compares the references: InnoDB would read all blobs if they were named here.
    """
    return not_(
        or_(
            *(
                and_(
                    value.c.chain == _bind(f"cached_chain_{i}"),
                    value.c.position == bindparam(f"cached_position_{i}", type_=Integer()),
                )
                for i in range(MAX_EXCLUDED)
            )
        )
    )


def _first_deltas(value: FromClause) -> FromClause:
    change = deltas.alias("d")
    limit = literal_column(str(MAX_ROWS), Integer)
    return select(change).where(_up_to(value, change)).limit(limit).lateral("rows")


def _with_parts(
    found: Select[Any], reach: Reach, *, chains: bool = False
) -> Select[Any] | CompoundSelect[Any]:
    """Return the statement that reads checkpoints and, as far as it reaches, their parts.

    With `chains`, those that their values stand in as well, but for cached values.
    """
    if reach is Reach.NONE:
        heads = found.subquery("found")
        return _wide(heads, _checkpoint(heads))
    found_ = found.cte("found")
    versions = channel_versions(found_.c.checkpoint).table_valued("key", "value")
    # Distinct: checkpoints of a page share most of their values.
    used_ = (
        select(
            found_.c.thread_id,
            found_.c.checkpoint_ns,
            versions.c.key.label("channel"),
            # SQLite's JSON keeps numbers, and a number equals no text.
            cast(versions.c.value, Text).label("version"),
        )
        .select_from(found_.join(versions, true()))
        .distinct()
    )
    twice = chains and reach is Reach.JOIN
    used: FromClause = used_.cte("used") if twice else used_.subquery("used")
    # Short names: psycopg converts a statement of more than 4,096 characters at each execution.
    write, blob = writes.alias("w"), blobs.alias("b")
    is_used = and_(
        _same_namespace(blob, used),
        blob.c.channel == used.c.channel,
        blob.c.version == used.c.version,
    )
    if reach is Reach.LATERAL:
        one = select(blob).where(is_used).limit(literal_column("1", Integer)).lateral("one")
        joined = used.join(one, true())
        values = [_wide(one, _blob(one)).select_from(joined)]
        if chains:
            value = select(*one.c).select_from(joined).cte("value")
            rows = _first_deltas(value)
            changes = _wide(rows, _delta(rows)).select_from(value.join(rows, true()))
            values = [_wide(value, _blob(value)), changes.where(_isnt_cached(value))]
    else:
        values = [_wide(blob, _blob(blob)).join(used, is_used)]
        if chains:
            joined = used.join(blob, is_used).join(deltas, _up_to(blob))
            values.append(_wide(deltas, _delta()).select_from(joined).where(_isnt_cached(blob)))
    return union_all(
        _wide(write, _write(WRITE, write)).join(
            found_,
            and_(_same_namespace(write, found_), write.c.checkpoint_id == found_.c.checkpoint_id),
        ),
        _wide(write, _write(SEND, write))
        .join(
            found_,
            and_(
                _same_namespace(write, found_),
                write.c.checkpoint_id == found_.c.parent_checkpoint_id,
            ),
        )
        .where(
            write.c.channel == TASKS,
            func.coalesce(found_.c.checkpoint["v"].as_integer(), 1)
            < literal_column(str(FIRST_WITHOUT_SENDS), Integer),
        ),
        *values,
        _wide(found_, _checkpoint(found_)),
    )


_newest_first = checkpoints.c.checkpoint_id.desc()
# Spelled out: a bound LIMIT makes PostgreSQL's generic plan prefer a sort.
_only_one = literal_column("1", Integer)


def _latest(*columns: Any) -> Select[Any]:
    latest = select(*columns).where(_in_namespace(checkpoints))
    return latest.order_by(_newest_first).limit(_only_one)


def _one(*columns: Any) -> Select[Any]:
    return select(*columns).where(
        _in_namespace(checkpoints), checkpoints.c.checkpoint_id == _bind("checkpoint_id")
    )


_first = literal_column("0", Integer).label("rank")
_WAYS = [(reach, chains) for reach in (Reach.JOIN, Reach.LATERAL) for chains in (False, True)]
GET_LATEST = {way: _with_parts(_latest(*_COLUMNS, _first), way[0], chains=way[1]) for way in _WAYS}
GET_ONE = {way: _with_parts(_one(*_COLUMNS, _first), way[0], chains=way[1]) for way in _WAYS}
GET_LATEST_ID = _latest(checkpoints.c.checkpoint_id)

# In two statements. Their rows are narrow: PyMySQL takes 20 us for a column's description.

_HEAD = (
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    json_text(checkpoints.c.checkpoint).label("checkpoint"),
    json_text(checkpoints.c.metadata).label("metadata"),
    checkpoints.c.type,
    checkpoints.c.exact,
)
GET_LATEST_HEAD = _latest(*_HEAD)
GET_HEAD = _one(*_HEAD)

FEW = 16
"""Up to so many values are looked up without an expanding IN, which is written at each call."""


@cache
def parts(count: int | None, *, chains: bool) -> CompoundSelect[Any]:
    """Return the statement for the parts of one checkpoint, with `count` or any number of values.

    With `chains`, those that the values stand in as well, but for cached values.

    Its last arm says whether the checkpoint is still there. `sends_of` names the parent, or is ''
    where its pending sends aren't wanted.
    """
    wanted: ColumnElement[bool]
    if count is None:
        wanted = one_of("versions", blobs.c.channel, blobs.c.version)
    else:
        wanted = or_(
            *(
                and_(
                    blobs.c.channel == _bind(f"wanted_channel_{i}"),
                    blobs.c.version == _bind(f"wanted_version_{i}"),
                )
                for i in range(count)
            )
        )
    writes_of = and_(_in_namespace(writes), writes.c.checkpoint_id == _bind("writes_of"))
    sends_of = and_(_in_namespace(writes), writes.c.checkpoint_id == _bind("sends_of"))
    arms = [
        select(*_write(WRITE)).where(writes_of),
        select(*_write(SEND)).where(sends_of, writes.c.channel == TASKS),
        select(*_blob()).where(_in_namespace(blobs), wanted),
        _one(*_present).select_from(checkpoints),
    ]
    if chains:
        joined = deltas.join(blobs, _up_to(blobs))
        changes = select(*_delta()).select_from(joined)
        arms.append(changes.where(_in_namespace(blobs), wanted, _isnt_cached(blobs)))
    return union_all(*arms)


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
    # Keys alone are sorted where the index doesn't have the order; filters read the rows anyway.
    sorts = len(order) > 1 and not filtered
    newest = (
        select(*(checkpoints.primary_key if sorts else _COLUMNS))
        .where(*criteria)
        .order_by(*(column.desc() for column in order))
        .limit(bindparam("size", type_=Integer(), literal_execute=True))
        .subquery("newest")
    )
    # Numbered after the LIMIT: numbering first, the MySQL family reads and sorts the whole thread.
    newest_first = [newest.c[column.name].desc() for column in order]
    rank = func.row_number().over(order_by=newest_first).label("rank")
    if sorts:
        same = and_(*(newest.c[column.name] == column for column in checkpoints.primary_key))
        found = select(*_COLUMNS, rank).select_from(newest.join(checkpoints, same))
    else:
        found = select(*newest.c, rank)
    return _with_parts(found, reach)


GET_PARTS = union_all(
    _wide(writes, _write(WRITE)).where(_checkpoint_in("checkpoint_keys", writes)),
    _wide(writes, _write(SEND)).where(
        _checkpoint_in("send_keys", writes), writes.c.channel == TASKS
    ),
    _wide(blobs, _blob()).where(_blob_in("blob_keys")),
    _wide(checkpoints, _present).where(_checkpoint_in("present_keys", checkpoints)),
)
_named = select(blobs).where(_blob_in("blob_keys")).subquery("named")
_of_named = _first_deltas(_named)
_joined_deltas = _wide(deltas, _delta()).join(blobs, _up_to(blobs)).where(_blob_in("blob_keys"))
GET_DELTAS = {
    Reach.NONE: _joined_deltas,
    Reach.JOIN: _joined_deltas,
    Reach.LATERAL: _wide(_of_named, _delta(_of_named)).select_from(_named.join(_of_named, true())),
}


# The chain of parents, for DeltaChannel.

GET_OLDER = (
    select(
        checkpoints.c.checkpoint_id,
        checkpoints.c.parent_checkpoint_id,
        _part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
        _part(checkpoints.c.checkpoint, "channel_values").label("inline"),
    )
    .where(_in_namespace(checkpoints), checkpoints.c.checkpoint_id <= _bind("checkpoint_id"))
    .order_by(_newest_first)
    .limit(bindparam("size", type_=Integer(), literal_execute=True))
)
GET_BLOB_VERSIONS = select(blobs.c.channel, blobs.c.version).where(
    _in_namespace(blobs),
    one_of("channels", blobs.c.channel),
    one_of("versions", blobs.c.version),
    blobs.c.type != "empty",
)
GET_CHANNEL_WRITES = select(
    writes.c.checkpoint_id,
    writes.c.channel,
    writes.c.task_path,
    writes.c.task_id,
    writes.c.idx,
    writes.c.type,
    writes.c.blob,
).where(
    _in_namespace(writes),
    one_of("checkpoint_ids", writes.c.checkpoint_id),
    one_of("channels", writes.c.channel),
)
GET_BLOBS = _wide(blobs, _blob()).where(_blob_in("blob_keys"))


# Deleting and copying.

_delete_threads = {
    table: delete(table).where(one_of("thread_ids", table.c.thread_id))
    for table in (deltas, blobs, checkpoints, writes)
}
# Twice: with the first rows nobody appends to a chain any more, then all that there is goes.
DELETE_THREADS = (_delete_threads[deltas], *_delete_threads.values())
DELETE_BLOBS = delete(blobs).where(_blob_in("keys"))
DELETE_CHECKPOINTS = delete(checkpoints).where(_checkpoint_in("keys", checkpoints))
DELETE_WRITES = delete(writes).where(_checkpoint_in("keys", writes))
DELETE_OLDER_WRITES = delete(writes).where(
    _in_namespace(writes), writes.c.checkpoint_id < _bind("checkpoint_id")
)
CLEAR_PARENT = (
    update(checkpoints).where(_checkpoint_in("keys", checkpoints)).values(parent_checkpoint_id=None)
)

GET_VALUES = select(
    *(blobs.c[name] for name in (*BLOB_KEY, "type", "chain", "position")),
    func.length(blobs.c.blob).label("size"),
    case((blobs.c.chain.is_not(None), blobs.c.blob)).label("reference"),
).where(blobs.c.thread_id == _bind("thread_id"))
LOCK_VALUES = (
    select(*(blobs.c[name] for name in BLOB_KEY), *(c for c in blobs.c if c.name not in BLOB_KEY))
    .where(_blob_in("blob_keys"))
    .order_by(*(blobs.c[name] for name in BLOB_KEY))
    .with_for_update()
)
REWRITE_VALUE = update(blobs).where(*(blobs.c[name] == _bind(f"key_{name}") for name in BLOB_KEY))

GET_CHANGED_WRITES = (
    select(writes.c.checkpoint_ns, writes.c.checkpoint_id)
    .where(writes.c.thread_id == _bind("thread_id"), writes.c.type.like(_bind("pattern")))
    .distinct()
)
REWRITE_WRITE = update(writes).where(
    *(
        column == bindparam(f"key_{column.name}", type_=column.type)
        for column in writes.primary_key.columns
    )
)

_chain_key = (deltas.c.thread_id, deltas.c.checkpoint_ns, deltas.c.channel, deltas.c.chain)

GET_CHAINS = (
    select(blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.chain)
    .where(_blob_in("blob_keys"), blobs.c.chain.is_not(None))
    .distinct()
)
LOCK_CHAINS = (
    select(deltas.c.thread_id, deltas.c.checkpoint_ns, deltas.c.channel, deltas.c.chain)
    .where(one_of("chain_keys", *_chain_key), deltas.c.position == _zero)
    .order_by(*_chain_key)
    .with_for_update()
)
# Locked, so that it is the newest also in a transaction that reads as of its beginning.
GET_CHAINED = (
    select(
        blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel, blobs.c.chain, blobs.c.position
    )
    .where(
        one_of("channel_keys", blobs.c.thread_id, blobs.c.checkpoint_ns, blobs.c.channel),
        one_of("chains", blobs.c.chain),
    )
    .with_for_update(read=True)
)
DELETE_CHAINS = delete(deltas).where(one_of("keys", *_chain_key))
DELETE_TAIL = delete(deltas).where(
    deltas.c.thread_id == _bind("thread_id"),
    deltas.c.checkpoint_ns == _bind("checkpoint_ns"),
    deltas.c.channel == _bind("channel"),
    deltas.c.chain == _bind("chain"),
    deltas.c.position > bindparam("position", type_=Integer()),
)

_of_runs = or_(
    one_of("run_ids", checkpoints.c.run_id),
    and_(
        checkpoints.c.run_id.is_(None),
        one_of("peer_run_ids", peer_run_id(checkpoints.c.metadata)),
    ),
)
GET_RUNS = select(
    checkpoints.c.thread_id, checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id
).where(_of_runs)
CHECKPOINTS_WITH_SENDS = (
    select(writes.c.checkpoint_ns, writes.c.checkpoint_id)
    .where(_checkpoint_in("keys", writes), writes.c.channel == TASKS)
    .distinct()
)
GET_WRITTEN = (
    select(writes.c.checkpoint_ns, writes.c.channel, writes.c.checkpoint_id)
    .where(
        writes.c.thread_id == _bind("thread_id"),
        one_of("namespaces", writes.c.checkpoint_ns),
    )
    .distinct()
)
GET_REFERENCES = select(
    checkpoints.c.thread_id,
    checkpoints.c.checkpoint_ns,
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    _part(checkpoints.c.checkpoint, "channel_versions").label("versions"),
    _part(checkpoints.c.checkpoint, "channel_values").label("inline"),
).where(one_of("namespace_keys", checkpoints.c.thread_id, checkpoints.c.checkpoint_ns))


def _scope(table: Table, *, namespace: bool) -> ColumnElement[bool]:
    return _in_namespace(table) if namespace else table.c.thread_id == _bind("thread_id")


@cache
def thread_checkpoints(*, namespace: bool, times: bool = False) -> Select[Any]:
    """Return the statement for a thread's checkpoints, with all that decides which of them stay.

    With `times`, when each was made as well. The versions and inline values, which are much to read
    in a long thread, come with each checkpoint of one namespace, else with the latest of each.
    """
    columns = checkpoints.c
    found: FromClause = checkpoints
    versions = _part(columns.checkpoint, "channel_versions")
    inline = _part(columns.checkpoint, "channel_values")
    if not namespace:
        latest = (
            select(columns.checkpoint_ns, func.max(columns.checkpoint_id).label("checkpoint_id"))
            .where(_scope(checkpoints, namespace=False))
            .group_by(columns.checkpoint_ns)
            .subquery("latest")
        )
        is_latest = and_(
            latest.c.checkpoint_ns == columns.checkpoint_ns,
            latest.c.checkpoint_id == columns.checkpoint_id,
        )
        found = checkpoints.outerjoin(latest, is_latest)
        versions = case((latest.c.checkpoint_id.is_not(None), versions))
        inline = case((latest.c.checkpoint_id.is_not(None), inline))
    made = (_part(columns.checkpoint, "ts").label("ts"),) if times else ()
    return (
        select(
            columns.checkpoint_ns,
            columns.checkpoint_id,
            columns.parent_checkpoint_id,
            _part(columns.checkpoint, "v").label("v"),
            _part(columns.metadata, "counters_since_delta_snapshot").label("counters"),
            _part(columns.metadata, "delta_writes_versioned").label("delta"),
            _part(columns.metadata, "parents").label("parents"),
            _part(columns.metadata, "source").label("source"),
            versions.label("versions"),
            inline.label("inline"),
            *made,
        )
        .select_from(found)
        .where(_scope(checkpoints, namespace=namespace))
        .order_by(columns.checkpoint_ns, columns.checkpoint_id)
    )


@cache
def blob_keys(*, namespace: bool) -> Select[Any]:
    """Return the statement for the keys of a thread's blobs."""
    columns = (c for c in blobs.c if c.name not in ("thread_id", "blob"))
    return select(*columns).where(_scope(blobs, namespace=namespace))


GET_DELTA_SIZES = select(
    deltas.c.checkpoint_ns,
    deltas.c.channel,
    deltas.c.chain,
    deltas.c.position,
    func.length(deltas.c.data).label("size"),
).where(deltas.c.thread_id == _bind("thread_id"))
GET_WRITE_SIZES = (
    select(
        writes.c.checkpoint_ns,
        writes.c.checkpoint_id,
        func.count().label("rows"),
        func.sum(func.length(writes.c.blob)).label("bytes"),
    )
    .where(writes.c.thread_id == _bind("thread_id"))
    .group_by(writes.c.checkpoint_ns, writes.c.checkpoint_id)
)


@cache
def metadata_of(*, filtered: bool) -> Select[Any]:
    """Return the statement for the metadata of some threads' checkpoints."""
    columns = checkpoints.c
    found = select(
        columns.thread_id,
        columns.checkpoint_ns,
        columns.checkpoint_id,
        json_text(columns.metadata).label("metadata"),
        columns.type,
        columns.exact,
    ).where(one_of("thread_ids", columns.thread_id))
    if filtered:
        wanted = bindparam("filter_json", type_=Text())
        found = found.where(metadata_contains(columns.metadata, wanted))
    return found


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


COPY_THREAD = tuple(_copy(table) for table in (deltas, blobs, checkpoints, writes))


# Looking at what is stored. Sizes are those of serialized values and of documents as text; nothing
# of a value is read.

_size = bindparam("size", type_=Integer(), literal_execute=True)
_document_bytes = (
    byte_length(json_text(checkpoints.c.checkpoint))
    + byte_length(json_text(checkpoints.c.metadata))
    + func.coalesce(byte_length(checkpoints.c.exact), _zero)
)
_BYTES: dict[Table, ColumnElement[int]] = {
    checkpoints: _document_bytes,
    blobs: byte_length(blobs.c.blob),
    deltas: byte_length(deltas.c.data),
    writes: byte_length(writes.c.blob),
}
_said_time = func.nullif(checkpoints.c.checkpoint["ts"].as_string(), "")


@cache
def thread_ids(*tables: Table, after: bool, of_runs: bool = False) -> Select[Any]:
    """Return the statement for a page of the threads that have rows in one of some tables.

    With `after`, those behind a thread; with `of_runs`, those with checkpoints of some runs.
    """
    pages = []
    for table in tables:
        thread = table.c.thread_id
        page = select(thread).distinct().order_by(thread).limit(_size)
        if after:
            page = page.where(thread > _bind("after"))
        if of_runs:
            page = page.where(_of_runs)
        pages.append(page)
    if len(pages) == 1:
        return pages[0]
    found = union(*(select(page.subquery()) for page in pages)).subquery()
    return select(found.c.thread_id).order_by(found.c.thread_id).limit(_size)


@cache
def candidates(*, filtered: bool, after: bool, inside: bool) -> Select[Any]:
    """Return the statement for a page of checkpoints whose metadata is looked at, by thread.

    `after` a thread; or `inside` it, after one of its checkpoints.
    """
    columns = checkpoints.c
    page = (
        select(*checkpoints.primary_key, *_HEAD[3:]).order_by(*checkpoints.primary_key).limit(_size)
    )
    if filtered:
        wanted = bindparam("filter_json", type_=Text())
        page = page.where(metadata_contains(columns.metadata, wanted))
    if inside:
        last = (_bind("after"), _bind("after_ns"), _bind("after_id"))
        # The MySQL family looks up one column in the index, of a tuple none.
        page = page.where(
            columns.thread_id >= last[0], tuple_(*checkpoints.primary_key) > tuple_(*last)
        )
    elif after:
        page = page.where(columns.thread_id > _bind("after"))
    return page


def _of_threads(table: Table, *more: ColumnElement[Any]) -> Select[Any]:
    return (
        select(
            table.c.thread_id,
            func.count().label("rows"),
            func.sum(_BYTES[table]).label("bytes"),
            *more,
        )
        .where(one_of("thread_ids", table.c.thread_id))
        .group_by(table.c.thread_id)
    )


SUMMARIZE_CHECKPOINTS = _of_threads(
    checkpoints,
    func.count(checkpoints.c.checkpoint_ns.distinct()).label("namespaces"),
    func.min(_said_time).label("first_time"),
    func.max(_said_time).label("last_time"),
    func.min(checkpoints.c.checkpoint_id).label("first_id"),
    func.max(checkpoints.c.checkpoint_id).label("last_id"),
)
SUMMARIZE_OTHERS = {table: _of_threads(table) for table in (blobs, deltas, writes)}

GET_STEPS = (
    select(checkpoints.c.checkpoint_ns, *_HEAD[:4], _document_bytes.label("bytes"))
    .where(checkpoints.c.thread_id == _bind("thread_id"))
    .order_by(checkpoints.c.checkpoint_ns, checkpoints.c.checkpoint_id)
)
GET_TABLE_SIZES = {
    table.name: select(func.count().label("rows"), func.sum(size).label("bytes")).select_from(table)
    for table, size in _BYTES.items()
}
_of_channels = union_all(
    *(
        select(table.c.channel, _BYTES[table].label("bytes")).select_from(table)
        for table in (blobs, deltas)
    )
).subquery("stored")
GET_CHANNEL_SIZES = (
    select(
        _of_channels.c.channel,
        func.count().label("rows"),
        func.sum(_of_channels.c.bytes).label("bytes"),
    )
    .group_by(_of_channels.c.channel)
    .order_by(func.sum(_of_channels.c.bytes).desc(), _of_channels.c.channel)
    .limit(_size)
)


# Rows as they are stored, on their way to another database

TABLES = (deltas, blobs, writes, checkpoints)
"""A checkpoint comes after all that it refers to."""

DOCUMENTS = {"checkpoint": "checkpoint_json", "metadata": "metadata_json"}
"""The parameters that have the documents as text."""

STORE_ROWS: dict[Table, Upsert] = {
    deltas: Upsert(deltas),
    blobs: PUT_BLOBS,
    writes: PUT_WRITES,
    checkpoints: Upsert(checkpoints).values(
        {name: to_json(bindparam(parameter, type_=Text())) for name, parameter in DOCUMENTS.items()}
    ),
}
GET_CHECKPOINT_KEYS = select(*checkpoints.primary_key).where(
    checkpoints.c.thread_id == _bind("thread_id")
)


@cache
def stored_sizes(table: Table, *, after: bool) -> Select[Any]:
    """Return the statement for the sizes of a page of a thread's rows, `after` one of them."""
    return _page_of_thread(select(_BYTES[table].label("bytes")), table, after=after)


@cache
def stored_rows(table: Table, *, after: bool) -> Select[Any]:
    """Return the statement for a page of a thread's rows, `after` one of them.

    Documents are text, under the names of `STORE_ROWS`' parameters.
    """
    columns = (
        json_text(column).label(DOCUMENTS[column.name]) if column.name in DOCUMENTS else column
        for column in table.c
    )
    return _page_of_thread(select(*columns), table, after=after)


def _page_of_thread(page: Select[Any], table: Table, *, after: bool) -> Select[Any]:
    thread, *rest = table.primary_key
    page = page.where(thread == _bind("thread_id")).order_by(thread, *rest).limit(_size)
    if not after:
        return page
    last = [bindparam(f"after_{column.name}", type_=column.type) for column in rest]
    # The MySQL family looks up one column in the index, of a tuple none.
    return page.where(rest[0] >= last[0], tuple_(*rest) > tuple_(*last))
