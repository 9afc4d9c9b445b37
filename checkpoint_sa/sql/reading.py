"""Statements that read checkpoints with their parts.

If the engine can look into `channel_versions`, one statement reads all. Otherwise a first statement
reads the checkpoints and GET_PARTS the rest, in one snapshot: its last arm returns the checkpoints
that still exist. A checkpoint is deleted in one transaction with its values, so an existing
checkpoint is complete.

The rows of both have one shape: see `rows`. Those of the second statement are narrow:
PyMySQL takes 20 us for a column's description.
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
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from checkpoint_sa.deltas.cache import MAX_EXCLUDED
from checkpoint_sa.deltas.encoding import MAX_ROWS
from checkpoint_sa.rows import BLOB, DELTA, HEAD, PRESENT, SEND, WRITE
from checkpoint_sa.sql.tables import (
    FIRST_WITHOUT_SENDS,
    TASKS,
    bind,
    blob_in,
    blobs,
    checkpoint_in,
    checkpoints,
    deltas,
    in_namespace,
    same_chain,
    same_namespace,
    writes,
    zero,
)
from checkpoint_sa.types import (
    ValueLookup,
    channel_versions,
    json_text,
    metadata_contains,
    no_key,
    one_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import (
        Column,
        ColumnElement,
        CompoundSelect,
        FromClause,
        Select,
    )

    from checkpoint_sa.deltas.chain import Base

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


def blob_row(source: FromClause = blobs) -> list[ColumnElement[Any]]:
    """Return the columns of a value's row."""
    c = source.c
    return _narrow(BLOB, c.channel, c.version, c.chain, c.position, c.type, c.blob)


def _delta(source: FromClause = deltas) -> list[ColumnElement[Any]]:
    c = source.c
    return _narrow(DELTA, c.channel, _empty, c.chain, c.position, _empty, c.data)


def _checkpoint(source: FromClause) -> list[ColumnElement[Any]]:
    c = source.c
    document, metadata = json_text(c.checkpoint), json_text(c.metadata)
    return _narrow(HEAD, document, c.parent_checkpoint_id, metadata, c.rank, c.type, c.exact)


_present = _narrow(PRESENT, _empty, _empty, _empty, zero, _empty, _nothing)


def wide(source: FromClause, columns: list[ColumnElement[Any]]) -> Select[Any]:
    """Select a part with the key of its checkpoint, or with its namespace without such a key."""
    c = source.c
    checkpoint_id = c.get("checkpoint_id", _empty).label("checkpoint_id")
    return select(c.thread_id, c.checkpoint_ns, checkpoint_id, *columns)


def _up_to(value: FromClause, change: FromClause = deltas) -> ColumnElement[bool]:
    """Whether a value is rebuilt from a row of `deltas`, among others."""
    return and_(same_chain(change, value), change.c.position <= value.c.position)


def excluding(cached: Sequence[Base]) -> dict[str, Any]:
    """Return the parameters that exclude the rows of cached values."""
    places = [(tail.chain, tail.position) for tail in cached[:MAX_EXCLUDED]]
    places += [("", 0)] * (MAX_EXCLUDED - len(places))
    return {
        name: value
        for i, place in enumerate(places)
        for name, value in zip((f"cached_chain_{i}", f"cached_position_{i}"), place, strict=True)
    }


def _isnt_cached(value: FromClause) -> ColumnElement[bool]:
    """Whether a value has another place than every cached value.

    The caller compares fingerprints: naming their column here would make InnoDB read every blob.
    """
    return not_(
        or_(
            *(
                and_(
                    value.c.chain == bind(f"cached_chain_{i}"),
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
    found: Select[Any], lookup: ValueLookup, *, chains: bool = False
) -> Select[Any] | CompoundSelect[Any]:
    """Return the statement that reads checkpoints and, as far as it reaches, their parts.

    With `chains`, also the chains of their values, except those of cached values.
    """
    if lookup is ValueLookup.SECOND_STATEMENT:
        heads = found.subquery("found")
        return wide(heads, _checkpoint(heads))
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
    twice = chains and lookup is ValueLookup.JOIN
    used: FromClause = used_.cte("used") if twice else used_.subquery("used")
    # Short names: psycopg converts a statement of more than 4,096 characters at each execution.
    write, blob = writes.alias("w"), blobs.alias("b")
    is_used = and_(
        same_namespace(blob, used),
        blob.c.channel == used.c.channel,
        blob.c.version == used.c.version,
    )
    if lookup is ValueLookup.LATERAL:
        one = select(blob).where(is_used).limit(literal_column("1", Integer)).lateral("one")
        joined = used.join(one, true())
        values = [wide(one, blob_row(one)).select_from(joined)]
        if chains:
            value = select(*one.c).select_from(joined).cte("value")
            rows = _first_deltas(value)
            changes = wide(rows, _delta(rows)).select_from(value.join(rows, true()))
            values = [wide(value, blob_row(value)), changes.where(_isnt_cached(value))]
    else:
        values = [wide(blob, blob_row(blob)).join(used, is_used)]
        if chains:
            joined = used.join(blob, is_used).join(deltas, _up_to(blob))
            values.append(wide(deltas, _delta()).select_from(joined).where(_isnt_cached(blob)))
    return union_all(
        wide(write, _write(WRITE, write)).join(
            found_,
            and_(same_namespace(write, found_), write.c.checkpoint_id == found_.c.checkpoint_id),
        ),
        wide(write, _write(SEND, write))
        .join(
            found_,
            and_(
                same_namespace(write, found_),
                write.c.checkpoint_id == found_.c.parent_checkpoint_id,
            ),
        )
        .where(
            write.c.channel == TASKS,
            func.coalesce(found_.c.checkpoint["v"].as_integer(), 1)
            < literal_column(str(FIRST_WITHOUT_SENDS), Integer),
        ),
        *values,
        wide(found_, _checkpoint(found_)),
    )


newest_first = checkpoints.c.checkpoint_id.desc()

# Spelled out: a bound LIMIT makes PostgreSQL's generic plan prefer a sort.
_only_one = literal_column("1", Integer)


def _latest(*columns: Any) -> Select[Any]:
    latest = select(*columns).where(in_namespace(checkpoints))
    return latest.order_by(newest_first).limit(_only_one)


def _one(*columns: Any) -> Select[Any]:
    return select(*columns).where(
        in_namespace(checkpoints), checkpoints.c.checkpoint_id == bind("checkpoint_id")
    )


_first = literal_column("0", Integer).label("rank")

_WAYS = [
    (lookup, chains)
    for lookup in (ValueLookup.JOIN, ValueLookup.LATERAL)
    for chains in (False, True)
]

GET_LATEST = {way: _with_parts(_latest(*_COLUMNS, _first), way[0], chains=way[1]) for way in _WAYS}

GET_ONE = {way: _with_parts(_one(*_COLUMNS, _first), way[0], chains=way[1]) for way in _WAYS}

GET_LATEST_ID = _latest(checkpoints.c.checkpoint_id)

HEAD_COLUMNS = (
    checkpoints.c.checkpoint_id,
    checkpoints.c.parent_checkpoint_id,
    json_text(checkpoints.c.checkpoint).label("checkpoint"),
    json_text(checkpoints.c.metadata).label("metadata"),
    checkpoints.c.type,
    checkpoints.c.exact,
)

GET_LATEST_HEAD = _latest(*HEAD_COLUMNS)

GET_HEAD = _one(*HEAD_COLUMNS)

MAX_UNROLLED = 16
"""The most values that are looked up without an expanding IN, which is written at each call."""


@cache
def parts(count: int | None, *, chains: bool) -> CompoundSelect[Any]:
    """Return the statement for the parts of a checkpoint, with `count` or any number of values.

    With `chains`, also the chains of the values, except those of cached values.

    An arm returns a row if the checkpoint still exists. `sends_of` names the parent, or is '' if
    its pending sends aren't wanted.
    """
    wanted: ColumnElement[bool]
    if count is None:
        wanted = one_of("versions", blobs.c.channel, blobs.c.version)
    else:
        wanted = or_(
            *(
                and_(
                    blobs.c.channel == bind(f"wanted_channel_{i}"),
                    blobs.c.version == bind(f"wanted_version_{i}"),
                )
                for i in range(count)
            )
        )
    writes_of = and_(in_namespace(writes), writes.c.checkpoint_id == bind("writes_of"))
    sends_of = and_(in_namespace(writes), writes.c.checkpoint_id == bind("sends_of"))
    arms = [
        select(*_write(WRITE)).where(writes_of),
        select(*_write(SEND)).where(sends_of, writes.c.channel == TASKS),
        select(*blob_row()).where(in_namespace(blobs), wanted),
        _one(*_present).select_from(checkpoints),
    ]
    if chains:
        joined = deltas.join(blobs, _up_to(blobs))
        changes = select(*_delta()).select_from(joined)
        arms.append(changes.where(in_namespace(blobs), wanted, _isnt_cached(blobs)))
    return union_all(*arms)


@cache
def page(  # noqa: PLR0913 - an argument for each criterion
    *,
    lookup: ValueLookup,
    thread: bool,
    namespace: bool,
    checkpoint: bool,
    before: bool,
    filtered: bool,
    after: bool,
    size: int,
) -> Select[Any] | CompoundSelect[Any]:
    """Return the statement for a page of `list`; the rank is the order, newest first.

    `size` is a part of the statement, which the driver's cursor can take so; there are 100 sizes.
    Each other argument says whether its criterion is given. `after` continues below the last row of
    the page before. The order is that of ids; unless thread and namespace are given, these break
    ties, so that equal ids in two namespaces are neither skipped nor repeated.
    """
    columns = checkpoints.c
    order: list[Column[Any]] = [columns.checkpoint_id]
    if not (thread and namespace):
        order += [columns.thread_id, columns.checkpoint_ns]
    criteria: list[ColumnElement[bool]] = []
    if thread:
        criteria.append(columns.thread_id == bind("thread_id"))
    if namespace:
        criteria.append(columns.checkpoint_ns == bind("checkpoint_ns"))
    if checkpoint:
        criteria.append(columns.checkpoint_id == bind("checkpoint_id"))
    if before:
        criteria.append(columns.checkpoint_id < bind("before"))
    if filtered:
        criteria.append(metadata_contains(columns.metadata, bindparam("filter_json", type_=Text())))
    if after:
        last = [bind("after_id"), bind("after_thread"), bind("after_ns")][: len(order)]
        criteria.append(order[0] < last[0] if len(order) == 1 else tuple_(*order) < tuple_(*last))
    # Only keys are sorted if the index doesn't have the order; filters read the rows anyway.
    sorts = len(order) > 1 and not filtered
    newest = (
        select(*(checkpoints.primary_key if sorts else _COLUMNS))
        .where(*criteria)
        .order_by(*(column.desc() for column in order))
        .limit(literal_column(str(size), Integer))
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
    return _with_parts(found, lookup)


GET_PARTS = union_all(
    wide(writes, _write(WRITE)).where(checkpoint_in("checkpoint_keys", writes)),
    wide(writes, _write(SEND)).where(checkpoint_in("send_keys", writes), writes.c.channel == TASKS),
    wide(blobs, blob_row()).where(blob_in("blob_keys")),
    wide(checkpoints, _present).where(checkpoint_in("present_keys", checkpoints)),
)

_named = select(blobs).where(blob_in("blob_keys")).subquery("named")

_of_named = _first_deltas(_named)

_joined_deltas = wide(deltas, _delta()).join(blobs, _up_to(blobs)).where(blob_in("blob_keys"))

GET_DELTAS = {
    ValueLookup.SECOND_STATEMENT: _joined_deltas,
    ValueLookup.JOIN: _joined_deltas,
    ValueLookup.LATERAL: wide(_of_named, _delta(_of_named)).select_from(
        _named.join(_of_named, true())
    ),
}
