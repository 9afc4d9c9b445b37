"""Have PostgreSQL compress values by LZ4.

Why: its own method takes the server longer than the rest of a `put`, and LZ4 a small part of that.
For PostgreSQL 14 and later that were built with it; elsewhere nothing changes.

Locks: ACCESS EXCLUSIVE on the tables for a moment, whatever their size, asked for half a second at
a time. What is stored stays as it is.

Downgrade: new values are compressed by the server's default again; those stored stay readable.

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
    """Set the method where the server has it."""
    _compress("lz4")


def downgrade() -> None:
    """Set the server's default."""
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
    # Asked for by the server, so that a script does the same.
    op.execute(
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_settings WHERE name = 'default_toast_compression'"
        f" AND 'lz4' = ANY(enumvals)) THEN {changes} END IF; END $$"
    )
