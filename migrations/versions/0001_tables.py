"""Create the three tables, or complete those of langgraph-checkpoint-postgres.

Why: on PostgreSQL the tables are those of langgraph-checkpoint-postgres at its schema version 9, so
that both savers work on one database; tables that it made, at any of its versions, are completed in
place. Ours are two nullable columns of `checkpoints`: `run_id` finds a run's checkpoints, `exact`
holds what JSON can't say. The MySQL family has VARBINARY keys, because its collations fold case and
accents or pad with blanks.

Locks: new tables, none. On tables that exist, ADD COLUMN without a rewrite and DROP NOT NULL take
PostgreSQL's ACCESS EXCLUSIVE lock for a moment, whatever their size.

Downgrade: drops the three tables with every checkpoint in them.

Revision ID: 0001
Revises:
Create Date: 2026-11-21
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mssql, mysql, postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _key(length: int | None) -> sa.types.TypeEngine[Any]:
    text: sa.types.TypeEngine[Any] = sa.String(length) if length else sa.Text()
    binary: sa.types.TypeEngine[Any] = sa.VARBINARY(length) if length else mysql.MEDIUMBLOB()
    return text.with_variant(sa.Text(), "postgresql", "cockroachdb", "sqlite").with_variant(
        binary, "mysql", "mariadb"
    )


def _json() -> sa.types.TypeEngine[Any]:
    return sa.JSON().with_variant(postgresql.JSONB(), "postgresql", "cockroachdb")


def _bytes() -> sa.types.TypeEngine[Any]:
    return (
        sa.LargeBinary()
        .with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
        .with_variant(
            mssql.VARBINARY("max"),  # type: ignore[no-untyped-call]
            "mssql",
        )
    )


def _existing(schema: str | None) -> dict[str, dict[str, Any]]:
    """Return table -> column -> description, of our tables that are there."""
    if context.is_offline_mode():
        return {}
    inspector = sa.inspect(op.get_bind())
    return {
        table: {column["name"]: column for column in inspector.get_columns(table, schema=schema)}
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
        if inspector.has_table(table, schema=schema)
    }


def upgrade() -> None:
    """Create what is missing; running it again after a failure completes it."""
    schema = op.get_context().version_table_schema
    there = _existing(schema)
    empty = sa.text("''") if op.get_context().dialect.name != "mssql" else None

    if "checkpoints" not in there:
        op.create_table(
            "checkpoints",
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True, server_default=empty),
            sa.Column("checkpoint_id", _key(128), primary_key=True),
            sa.Column("parent_checkpoint_id", _key(128)),
            sa.Column("type", _key(255)),
            sa.Column("checkpoint", _json(), nullable=False),
            sa.Column("metadata", _json(), nullable=False, server_default=_empty_document()),
            sa.Column("run_id", _key(255)),
            sa.Column("exact", _bytes()),
            schema=schema,
        )
    else:
        if "run_id" not in there["checkpoints"]:
            op.add_column("checkpoints", sa.Column("run_id", _key(255)), schema=schema)
        if "exact" not in there["checkpoints"]:
            op.add_column("checkpoints", sa.Column("exact", _bytes()), schema=schema)

    if "checkpoint_blobs" not in there:
        op.create_table(
            "checkpoint_blobs",
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True, server_default=empty),
            sa.Column("channel", _key(400), primary_key=True),
            sa.Column("version", _key(128), primary_key=True),
            sa.Column("type", _key(255), nullable=False),
            sa.Column("blob", _bytes()),
            schema=schema,
        )
    elif not there["checkpoint_blobs"]["blob"]["nullable"]:
        op.alter_column(
            "checkpoint_blobs", "blob", nullable=True, existing_type=_bytes(), schema=schema
        )

    if "checkpoint_writes" not in there:
        op.create_table(
            "checkpoint_writes",
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True, server_default=empty),
            sa.Column("checkpoint_id", _key(128), primary_key=True),
            sa.Column("task_id", _key(255), primary_key=True),
            sa.Column("idx", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("channel", _key(400), nullable=False),
            sa.Column("type", _key(255)),
            sa.Column("blob", _bytes(), nullable=False),
            sa.Column("task_path", _key(None), nullable=False, server_default=_empty_path()),
            schema=schema,
        )
    elif "task_path" not in there["checkpoint_writes"]:
        op.add_column(
            "checkpoint_writes",
            sa.Column("task_path", sa.Text(), nullable=False, server_default=sa.text("''")),
            schema=schema,
        )


def _empty_document() -> sa.TextClause | None:
    return sa.text("'{}'") if _is_postgresql() else None


def _empty_path() -> sa.TextClause | None:
    return sa.text("''") if _is_postgresql() else None


def _is_postgresql() -> bool:
    return op.get_context().dialect.name in ("postgresql", "cockroachdb")


def downgrade() -> None:
    """Drop the tables."""
    schema = op.get_context().version_table_schema
    for table in ("checkpoint_writes", "checkpoint_blobs", "checkpoints"):
        op.drop_table(table, schema=schema, if_exists=True)
