"""The statements that store a checkpoint and writes. Pure: nothing is sent here.

The number of statements decides whether they need a transaction; see `Database.execute`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from checkpoint_sa.deltas.encoding import OutdatedError
from checkpoint_sa.engine.statements import Statement
from checkpoint_sa.errors import ParentConflictError
from checkpoint_sa.rows import BLOB_KEY
from checkpoint_sa.sql import reading as reading_sql
from checkpoint_sa.sql import tables
from checkpoint_sa.sql import writing as sql
from checkpoint_sa.upsert import supports_insert_ctes, supports_insert_select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Table

    from checkpoint_sa.engine.cursors import Rows
    from checkpoint_sa.rows import CheckpointRows

TURN_CHANNEL = "__checkpoint_sa_turn__"
_TURN = {"channel": TURN_CHANNEL, "version": "", "type": "empty"}
"""A row of a namespace that each writer locks until its commit. No checkpoint uses it.

Each writer changes its bytes. A lock is local to a node of a cluster, which compares the changes of
two nodes: a row that was locked and not changed is no change.
"""


def put(dialect: Dialect, rows: CheckpointRows) -> list[Statement]:
    """Return the statements that store a checkpoint and its new values: one, or up to five.

    Executing them raises OutdatedError or IntegrityError if a base was deleted, if another delta
    was appended to it, or if a version in a chain is stored already.
    """
    plain, deltas = rows.blobs, rows.deltas
    if supports_insert_ctes(dialect) and max(len(plain), len(deltas)) <= sql.MAX_INSERTED:
        parameters = (
            rows.checkpoint
            | sql.bind_rows(plain, sql.SHARED_BLOB_COLUMNS)
            | sql.bind_rows(deltas, sql.SHARED_BLOB_COLUMNS, "chained_")
        )
        return [Statement(sql.put_at_once(len(plain), len(deltas)), parameters)]
    statements = _put_deltas(dialect, deltas) if deltas else []
    if 1 < len(plain) <= sql.MAX_INSERTED and supports_insert_select(dialect):
        clause = sql.put_blobs_at_once(len(plain))
        statements.append(Statement(clause, sql.bind_rows(plain, sql.SHARED_BLOB_COLUMNS)))
    elif plain:
        statements.append(Statement(sql.PUT_BLOBS, plain))
    return [*statements, Statement(sql.PUT_CHECKPOINT, rows.checkpoint)]


def _put_deltas(dialect: Dialect, rows: Sequence[dict[str, Any]]) -> list[Statement]:
    if supports_insert_select(dialect) and len(rows) <= sql.MAX_INSERTED:
        parameters = sql.bind_rows(rows, sql.SHARED_BLOB_COLUMNS, "chained_")
        deltas = [Statement(sql.put_deltas(len(rows)), parameters)]
    else:
        deltas = [*lock_bases(rows), Statement(sql.PUT_DELTAS, columns_of(tables.deltas, rows))]
    return [*deltas, Statement(sql.PUT_CHAINED, columns_of(tables.blobs, rows))]


def lock_bases(rows: Sequence[dict[str, Any]]) -> list[Statement]:
    """Return the statement that locks the bases of rows, if they have bases.

    Executing it raises OutdatedError if a base isn't stored any more.
    """
    bases = {
        (row["channel"], row["base_version"], row["base_blob"]): row
        for row in rows
        if row["base_version"]
    }
    if not bases:
        return []
    found = list(bases.values())
    wanted = {name: found[0][name] for name in ("thread_id", "checkpoint_ns")}
    wanted["channels"] = sorted({row["channel"] for row in found})
    wanted["chains"] = sorted({row["chain"] for row in found})
    wanted["versions"] = sorted({row["base_version"] for row in found})

    def check(rows: Rows) -> None:
        if bases.keys() - {(channel, version, bytes(blob)) for channel, version, blob in rows}:
            raise OutdatedError

    return [Statement(sql.LOCK_BASES, wanted, check)]


def columns_of(table: Table, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with only the columns of a table."""
    return [{column.name: row[column.name] for column in table.c} for row in rows]


def put_writes(dialect: Dialect, rows: Sequence[dict[str, Any]]) -> list[Statement]:
    """Return the statements that store a task's writes: one for each kind of write.

    Special writes replace earlier writes; ordinary writes stay as first written.
    """
    statements = []
    special = [row for row in rows if row["idx"] < 0]
    ordinary = [row for row in rows if row["idx"] >= 0] if special else rows
    for same, clause in ((ordinary, sql.PUT_WRITES), (special, sql.REPLACE_WRITES)):
        if 1 < len(same) <= sql.MAX_INSERTED and supports_insert_select(dialect):
            at_once = sql.put_writes_at_once(len(same), special=same is special)
            statements.append(Statement(at_once, sql.bind_rows(same, sql.SHARED_WRITE_COLUMNS)))
        elif same:
            statements.append(Statement(clause, same))
    return statements


def expect_latest(checkpoint: Mapping[str, Any]) -> list[Statement]:
    """Return the statements that wait for other writers, and check the parent of a checkpoint.

    They are two more statements for a put. Only writers that check take turns. Executing them
    raises ParentConflictError if the parent isn't the latest checkpoint.
    """
    namespace = {name: checkpoint[name] for name in ("thread_id", "checkpoint_ns")}
    return [
        Statement(sql.LOCK_NAMESPACE, {**namespace, **_TURN, "blob": uuid4().bytes}),
        Statement(reading_sql.GET_LATEST_ID, namespace, partial(_check_parent, checkpoint)),
    ]


def _check_parent(checkpoint: Mapping[str, Any], rows: Rows) -> None:
    latest = rows[0][0] if rows else None
    parent = checkpoint["parent_checkpoint_id"]
    if latest not in (parent, checkpoint["checkpoint_id"]):
        raise ParentConflictError(
            f"Checkpoint {checkpoint['checkpoint_id']!r} was made from {parent!r}, but the latest"
            f" is {latest!r} (thread_id={checkpoint['thread_id']!r},"
            f" checkpoint_ns={checkpoint['checkpoint_ns']!r}). Another writer has continued the"
            " thread: read it again, or use a saver without check_parent to fork it."
        )


def without_stored(connection: Connection, rows: CheckpointRows) -> CheckpointRows:
    """Leave out the stored values: a version is never stored twice."""
    keys = [tuple(row[name] for name in BLOB_KEY) for row in rows.deltas]
    found = connection.execute(sql.GET_EXISTING, {"blob_keys": keys}) if keys else ()
    there = {(row.channel, row.version) for row in found}
    left = [row for row in rows.deltas if (row["channel"], row["version"]) not in there]
    return rows._replace(deltas=left)
