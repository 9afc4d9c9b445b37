"""Statements that store a checkpoint, its values and writes.

Values are never changed: a version always names the same value.

A delta is appended only while its base exists. The row of the base and the first row of the chain,
which deletions lock first as well, are locked until the commit. The primary key refuses a second
delta on the same base, and a version that is stored already.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Integer,
    Text,
    bindparam,
    case,
    insert,
    literal_column,
    select,
    union_all,
)

from checkpoint_sa.sql.tables import (
    blob_in,
    blobs,
    checkpoints,
    deltas,
    in_namespace,
    same_chain,
    writes,
    zero,
)
from checkpoint_sa.types import (
    key,
    one_of,
    to_json,
    typed,
)
from checkpoint_sa.upsert import Upsert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import (
        Column,
        ColumnElement,
        CompoundSelect,
        Insert,
        Select,
    )


PUT_BLOBS = Upsert(blobs)

LOCK_NAMESPACE = Upsert(blobs, update=("blob",))

PUT_CHECKPOINT = Upsert(
    checkpoints, update=("type", "checkpoint", "metadata", "run_id", "exact")
).values(
    checkpoint=to_json(bindparam("checkpoint_json", type_=Text())),
    metadata=to_json(bindparam("metadata_json", type_=Text())),
)

PUT_WRITES = Upsert(writes)

REPLACE_WRITES = Upsert(writes, update=("channel", "type", "blob", "task_path"))

MAX_INSERTED = 16
"""The most rows that one statement stores; there is a statement for each number of rows."""

SHARED_BLOB_COLUMNS = frozenset({"thread_id", "checkpoint_ns"})

SHARED_WRITE_COLUMNS = SHARED_BLOB_COLUMNS | {"checkpoint_id", "task_id", "task_path"}
"""The columns with the same value in all rows that one statement stores: sent once."""


def _name(column: str, i: int, common: frozenset[str], prefix: str) -> str:
    return f"all_{column}" if column in common else f"{prefix}{column}_{i}"


@cache
def _names(
    columns: tuple[str, ...], count: int, common: frozenset[str], prefix: str
) -> tuple[str, ...]:
    return tuple(_name(column, i, common, prefix) for i in range(count) for column in columns)


def bind_rows(
    rows: Sequence[Mapping[str, Any]], common: frozenset[str], prefix: str = ""
) -> dict[str, Any]:
    """Return the parameters of several rows, with the same columns, for an `at_once` statement."""
    if not rows:
        return {}
    names = _names(tuple(rows[0]), len(rows), common, prefix)
    return dict(zip(names, chain.from_iterable(row.values() for row in rows), strict=True))


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
"""The columns of a value that isn't in a chain."""


@cache
def put_blobs_at_once(count: int) -> Insert:
    """Return the statement that stores `count` values whole."""
    rows = _rows(_PLAIN, count, SHARED_BLOB_COLUMNS)
    return Upsert(blobs).from_select([c.name for c in _PLAIN], rows)


@cache
def put_writes_at_once(count: int, *, special: bool) -> Insert:
    """Return the statement that stores `count` writes of a task, all of the same kind."""
    names = [c.name for c in writes.c]
    update = REPLACE_WRITES.update if special else ()
    rows = _rows([*writes.c], count, SHARED_WRITE_COLUMNS)
    return Upsert(writes, update=update).from_select(names, rows)


_base = blobs.alias("base")

_head = deltas.alias("head")

_locked = (
    select(_head.c.channel, _base.c.version, _base.c.blob)
    .select_from(_head.join(_base, same_chain(_base, _head)))
    .where(_head.c.position == zero)
    .with_for_update(read=True)
)

LOCK_BASES = _locked.where(
    in_namespace(_head),
    one_of("channels", _head.c.channel),
    one_of("chains", _head.c.chain),
    one_of("versions", _base.c.version),
)

PUT_DELTAS = insert(deltas)

PUT_CHAINED = insert(blobs)

GET_EXISTING = select(blobs.c.channel, blobs.c.version).where(blob_in("blob_keys"))


@cache
def put_deltas(count: int) -> Insert:
    """Return the statement that stores `count` deltas.

    It fails if the base of a delta is gone: the delta's position is NULL then.
    """
    changes = []
    for i in range(count):
        row = {c.name: _value(c, i, SHARED_BLOB_COLUMNS, "chained_") for c in deltas.c}
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
        row["position"] = case((row["position"] == zero, zero), else_=position)
        changes.append(select(*row.values()))
    return PUT_DELTAS.from_select(
        [c.name for c in deltas.c], changes[0] if count == 1 else union_all(*changes)
    )


@cache
def put_at_once(plain: int, chained: int) -> Insert:
    """Return the statement that stores a checkpoint and its values, for dialects that nest INSERTs.

    Args:
        plain: The number of values that are stored whole.
        chained: The number of values that are stored in chains.
    """
    statement: Insert = PUT_CHECKPOINT
    if chained:
        named = PUT_CHAINED.from_select(
            [c.name for c in blobs.c], _rows([*blobs.c], chained, SHARED_BLOB_COLUMNS, "chained_")
        )
        statement = statement.add_cte(
            put_deltas(chained).cte("stored_deltas"), named.cte("stored_chained")
        )
    return statement.add_cte(put_blobs_at_once(plain).cte("stored_blobs")) if plain else statement
