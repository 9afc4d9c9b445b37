"""Make a place for values that are stored as changes.

Why: with `incremental`, a version of a channel is stored as a delta, not as its whole value again.
A base value and the deltas after it are rows of `checkpoint_deltas`; two nullable columns of
`checkpoint_blobs` give the position of a version's value there. Values that are stored without
`incremental` stay as they are.

Locks: the new table, none. For the columns, PostgreSQL's ACCESS EXCLUSIVE lock for a moment,
whatever the table's size. The lock is requested for half a second at a time, so that no other
transaction queues behind it. MySQL (8.0.12) and MariaDB (10.3) add columns at once as well.

Downgrade: fails while values are stored as deltas; `checkpoint-sa rewrite --plain` makes them whole
values. A downgrade to base drops everything.

Revision ID: checkpoint_sa_0004
Revises: checkpoint_sa_0003
Create Date: 2026-11-21
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from alembic.util import CommandError
from sqlalchemy.dialects import mssql, mysql

revision = "checkpoint_sa_0004"
down_revision = "checkpoint_sa_0003"
branch_labels = None
depends_on = None

_BLOBS = "checkpoint_blobs"
_DELTAS = "checkpoint_deltas"


def _key(length: int) -> sa.types.TypeEngine[Any]:
    return (
        sa.String(length)
        .with_variant(sa.Text(), "postgresql", "cockroachdb", "sqlite")
        .with_variant(sa.VARBINARY(length), "mysql", "mariadb")
    )


def _bytes() -> sa.types.TypeEngine[Any]:
    return (
        sa.LargeBinary()
        .with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
        .with_variant(
            mssql.VARBINARY("max"),  # type: ignore[no-untyped-call]
            "mssql",
        )
    )


def upgrade() -> None:
    """Create the missing table and columns; a second run after a failure completes them."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    there = _existing(schema)
    missing = [
        column
        for column in (sa.Column("chain", _key(16)), sa.Column("position", sa.Integer()))
        if column.name not in there
    ]
    if missing and op.get_context().dialect.name == "postgresql":
        _lock(schema)
    for column in missing:
        op.add_column(_BLOBS, column, schema=schema)
    if _DELTAS not in there:
        op.create_table(
            _DELTAS,
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True),
            sa.Column("channel", _key(400), primary_key=True),
            sa.Column("chain", _key(16), primary_key=True),
            sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("data", _bytes(), nullable=False),
            schema=schema,
        )


def _existing(schema: str | None) -> set[str]:
    """Return the columns of `checkpoint_blobs`, and the new table's name if it exists."""
    if op.get_context().as_sql:
        return set()
    inspector = sa.inspect(op.get_bind())
    columns = {column["name"] for column in inspector.get_columns(_BLOBS, schema=schema)}
    return columns | ({_DELTAS} if inspector.has_table(_DELTAS, schema=schema) else set())


def _lock(schema: str | None) -> None:
    if op.get_context().as_sql:
        op.execute("SET LOCAL lock_timeout = '2s'")
    else:
        first = context.script.get_revision("checkpoint_sa_0001")
        first.module._lock_tables(schema, [_BLOBS])  # noqa: SLF001 - a revision stays as it is


def downgrade() -> None:
    """Drop the table and the columns, unless that would lose values."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    there = _existing(schema)
    if _DELTAS in there and context.get_revision_argument() is not None:
        _refuse_to_lose(schema)
    if _DELTAS in there or op.get_context().as_sql:
        op.drop_table(_DELTAS, schema=schema)
    for name in ("position", "chain"):
        if name in there or op.get_context().as_sql:
            op.drop_column(_BLOBS, name, schema=schema)


def _refuse_to_lose(schema: str | None) -> None:
    rows = sa.table(_DELTAS, sa.column("position"), schema=schema)
    if op.get_bind().execute(sa.select(rows.c.position).limit(1)).first():
        raise CommandError(
            "There are values that `incremental` stored as changes, which an earlier revision"
            " doesn't know. Run `checkpoint-sa rewrite --plain` first."
        )
