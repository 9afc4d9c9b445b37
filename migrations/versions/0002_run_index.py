"""Index the runs of checkpoints.

Why: `delete_for_runs` finds a run's checkpoints without reading the whole table. The second index,
on PostgreSQL only, covers the rows of langgraph-checkpoint-postgres: they have no `run_id`, but a
run in their metadata.

Locks: on PostgreSQL the indexes are built CONCURRENTLY if the table has rows, so readers and
writers continue. The build waits for older transactions, and blocks no other. Inside a transaction
of the caller's that isn't possible, and writers wait until the build ends. MySQL and MariaDB build
the index online (writers continue); on SQLite writers wait.

Downgrade: drops the indexes, no data.

Revision ID: checkpoint_sa_0002
Revises: checkpoint_sa_0001
Create Date: 2026-11-21
"""

from __future__ import annotations

from contextlib import nullcontext

import sqlalchemy as sa
from alembic import op

revision = "checkpoint_sa_0002"
down_revision = "checkpoint_sa_0001"
branch_labels = None
depends_on = None

_RUN = "ix_checkpoints_run_id"
_PEER_RUN = "ix_checkpoints_peer_run_id"


def upgrade() -> None:
    """Create the missing indexes."""
    migration = op.get_context()
    schema = migration.opts.get("checkpoint_sa_schema")
    there = _existing(schema)
    busy = _is_busy(schema)
    with migration.autocommit_block() if busy else nullcontext():
        if _RUN not in there:
            _create(_RUN, sa.text("run_id"), schema, busy=busy)
        if migration.dialect.name == "postgresql" and _PEER_RUN not in there:
            _create(
                _PEER_RUN,
                sa.text("(metadata ->> 'run_id')"),
                schema,
                busy=busy,
                where=sa.text("run_id IS NULL"),
            )


def _existing(schema: str | None) -> set[str | None]:
    if op.get_context().as_sql:
        return set()
    inspector = sa.inspect(op.get_bind())
    # A failed CREATE INDEX CONCURRENTLY leaves an invalid index: it is built again.
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
    """Whether the table may be in use by transactions that must not wait."""
    migration = op.get_context()
    if migration.dialect.name != "postgresql" or _is_joined():
        return False
    if migration.as_sql:
        return True
    table = sa.table("checkpoints", sa.column("thread_id"), schema=schema)
    return op.get_bind().execute(sa.select(table.c.thread_id).limit(1)).first() is not None


def _is_joined() -> bool:
    """Whether this runs in a caller's transaction, which can't be left to build an index."""
    return bool(getattr(op.get_context(), "_in_external_transaction", False))


def _create(
    name: str,
    element: sa.TextClause,
    schema: str | None,
    *,
    busy: bool,
    where: sa.TextClause | None = None,
) -> None:
    if busy:
        _drop(name, schema, busy=True)
    op.create_index(
        name,
        "checkpoints",
        [element],
        schema=schema,
        postgresql_where=where,
        postgresql_concurrently=busy,
    )


def _drop(name: str, schema: str | None, *, busy: bool) -> None:
    op.drop_index(
        name,
        "checkpoints",
        schema=schema,
        if_exists=op.get_context().dialect.name == "postgresql" or None,
        postgresql_concurrently=busy,
    )


def downgrade() -> None:
    """Drop the indexes."""
    migration = op.get_context()
    schema = migration.opts.get("checkpoint_sa_schema")
    there = _existing(schema)
    busy = _is_busy(schema)
    with migration.autocommit_block() if busy else nullcontext():
        if migration.dialect.name == "postgresql":
            _drop(_PEER_RUN, schema, busy=busy)
        if _RUN in there or migration.as_sql or migration.dialect.name == "postgresql":
            _drop(_RUN, schema, busy=busy)
