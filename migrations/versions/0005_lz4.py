"""Have PostgreSQL compress values by LZ4.

Why: PostgreSQL's default method takes the server longer than the rest of a `put`; LZ4 takes a small
part of that time. It is set on PostgreSQL 14 and later, if built with LZ4; other engines have
nothing to change.

Locks: ACCESS EXCLUSIVE on the tables for a moment, whatever their size, requested for half a second
at a time. Stored values stay as they are.

Downgrade: new values are compressed by the server's default again; stored values stay readable.

Revision ID: checkpoint_sa_0005
Revises: checkpoint_sa_0004
Create Date: 2026-11-21
"""

from __future__ import annotations

from alembic import context, op

revision = "checkpoint_sa_0005"
down_revision = "checkpoint_sa_0004"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("checkpoint_blobs", "blob"),
    ("checkpoint_deltas", "data"),
    ("checkpoint_writes", "blob"),
    ("checkpoints", "checkpoint"),
    ("checkpoints", "exact"),
    ("checkpoints", "metadata"),
)


def upgrade() -> None:
    """Set the compression method if the server has it."""
    _compress("lz4")


def downgrade() -> None:
    """Set the server's default compression method."""
    _compress("default")


def _compress(method: str) -> None:
    migration = op.get_context()
    if migration.dialect.name != "postgresql":
        return
    schema = migration.opts.get("checkpoint_sa_schema")
    if migration.as_sql:
        op.execute("SET LOCAL lock_timeout = '2s'")
    else:
        first = context.script.get_revision("checkpoint_sa_0001")
        tables = list(dict.fromkeys(table for table, _ in _COLUMNS))
        first.module._lock_tables(schema, tables)  # noqa: SLF001 - a revision stays as it is
    quote = migration.dialect.identifier_preparer.quote
    prefix = f"{quote(schema)}." if schema else ""
    changes = " ".join(
        f"ALTER TABLE {prefix}{table} ALTER COLUMN {column} SET COMPRESSION {method};"
        for table, column in _COLUMNS
    )
    # The server checks the setting, so that an offline script does the same.
    op.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression'"
        f" AND 'lz4' = ANY(enumvals)) THEN {changes} END IF; END $$"
    )
