"""Index the runs of checkpoints.

Why: `delete_for_runs` finds a run's checkpoints without reading the table. The second index, on
PostgreSQL only, covers the rows that langgraph-checkpoint-postgres wrote: they have no `run_id`,
but a run in their metadata.

Locks: on PostgreSQL the indexes are built CONCURRENTLY where the table has rows, so that writers go
on; inside a transaction of the caller's that isn't possible, and writers wait for the length of the
build. MySQL and MariaDB build it online (writers go on), SQLite keeps writers waiting.

Downgrade: loses the indexes, no data.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-21
"""

from __future__ import annotations

from contextlib import nullcontext

import sqlalchemy as sa
from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_RUN = "ix_checkpoints_run_id"
_PEER_RUN = "ix_checkpoints_peer_run_id"


def _existing(schema: str | None) -> set[str | None]:
    if context.is_offline_mode():
        return set()
    inspector = sa.inspect(op.get_bind())
    # Broken ones are left by a CREATE INDEX CONCURRENTLY that failed: they are built again.
    return {
        index["name"]
        for index in inspector.get_indexes("checkpoints", schema=schema)
        if not _is_broken(index["name"], schema)
    }


def _is_broken(index: str | None, schema: str | None) -> bool:
    if op.get_context().dialect.name != "postgresql":
        return False
    valid = op.get_bind().scalar(
        sa.text(
            "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = :index"
            " AND n.nspname = coalesce(:schema, current_schema())"
        ).bindparams(sa.bindparam("schema", type_=sa.Text())),
        {"index": index, "schema": schema},
    )
    return valid is False


def _is_busy(schema: str | None) -> bool:
    """Whether the table may have writers that must not wait."""
    migration = op.get_context()
    if migration.dialect.name != "postgresql" or context.is_offline_mode():
        return False
    if context.config.attributes.get("in_transaction"):
        return False
    table = sa.table("checkpoints", sa.column("thread_id"), schema=schema)
    return op.get_bind().execute(sa.select(table.c.thread_id).limit(1)).first() is not None


def upgrade() -> None:
    """Create the indexes that are missing."""
    migration = op.get_context()
    schema = migration.version_table_schema
    there = _existing(schema)
    busy = _is_busy(schema)
    with migration.autocommit_block() if busy else nullcontext():
        if _RUN not in there:
            if busy:
                op.drop_index(_RUN, "checkpoints", schema=schema, if_exists=True)
            op.create_index(
                _RUN, "checkpoints", ["run_id"], schema=schema, postgresql_concurrently=busy
            )
        if migration.dialect.name == "postgresql" and _PEER_RUN not in there:
            if busy:
                op.drop_index(_PEER_RUN, "checkpoints", schema=schema, if_exists=True)
            op.create_index(
                _PEER_RUN,
                "checkpoints",
                [sa.text("(metadata ->> 'run_id')")],
                schema=schema,
                postgresql_where=sa.text("run_id IS NULL"),
                postgresql_concurrently=busy,
            )


def downgrade() -> None:
    """Drop the indexes."""
    schema = op.get_context().version_table_schema
    there = _existing(schema)
    if op.get_context().dialect.name == "postgresql" and (_PEER_RUN in there or not there):
        op.drop_index(_PEER_RUN, "checkpoints", schema=schema, if_exists=True)
    if _RUN in there or not there:
        op.drop_index(_RUN, "checkpoints", schema=schema)
