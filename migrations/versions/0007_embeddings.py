"""Make a place for the embeddings of items, for semantic search.

Why: a `SQLAlchemyStore` with an `index` keeps the vectors of an item's texts, as 32-bit floats, in
`store_embeddings`, and ranks them itself; so the ranking is the same on every engine, and the
server needs no extension. They go with their item: by a foreign key, on SQLite by a trigger, since
its connections don't enforce foreign keys by themselves.

Locks: a new table. For its foreign key, PostgreSQL's ACCESS EXCLUSIVE lock on `store` for a moment,
requested for half a second at a time; on the MySQL family writers of `store` wait for a moment.

Downgrade: drops the table if it is empty. Earlier releases work beside it. An offline script can't
look, and drops it.

Revision ID: checkpoint_sa_0007_from_0005
Revises: checkpoint_sa_0006_from_0005
Create Date: 2026-11-28
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mssql, mysql

revision = "checkpoint_sa_0007_from_0005"
down_revision = "checkpoint_sa_0006_from_0005"
branch_labels = None
depends_on = None

_TABLE = "store_embeddings"


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
    """Create the table, where the items are in a table that we know; again after a failure."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    if not op.get_context().as_sql:
        if not _has_items_table(schema):
            return
        if sa.inspect(op.get_bind()).has_table(_TABLE, schema=schema):
            _make_trigger(schema)
            return
        if op.get_context().dialect.name == "postgresql":
            first = context.script.get_revision("checkpoint_sa_0001").module
            first._lock_tables(schema, ["store"])  # noqa: SLF001
    elif op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '2s'")
    place = f"{schema}." if schema else ""
    op.create_table(
        _TABLE,
        sa.Column("prefix", _key(1500), primary_key=True),
        sa.Column("key", _key(800), primary_key=True),
        sa.Column("field_name", _key(300), primary_key=True),
        sa.Column("embedding", _bytes(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prefix", "key"], [f"{place}store.prefix", f"{place}store.key"], ondelete="CASCADE"
        ),
        schema=schema,
    )
    _make_trigger(schema)


def _has_items_table(schema: str | None) -> bool:
    before = context.script.get_revision("checkpoint_sa_0006_from_0005").module
    found = before._columns(schema)  # noqa: SLF001 - a revision stays as it is
    return found is not None and before._is_known(found)  # noqa: SLF001


def _make_trigger(schema: str | None) -> None:
    if op.get_context().dialect.name != "sqlite":
        return
    place = f'"{schema}".' if schema else ""
    body = 'DELETE FROM store_embeddings WHERE prefix = OLD.prefix AND "key" = OLD."key";'
    op.execute(
        f"CREATE TRIGGER IF NOT EXISTS {place}store_embeddings_of_deleted"
        f" AFTER DELETE ON store BEGIN {body} END"
    )


def downgrade() -> None:
    """Drop the table, unless that would lose embeddings."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    if not op.get_context().as_sql:
        if not sa.inspect(op.get_bind()).has_table(_TABLE, schema=schema):
            return
        table = sa.table(_TABLE, sa.column("prefix"), schema=schema)
        if op.get_bind().execute(sa.select(table.c.prefix).limit(1)).first():
            return
    if op.get_context().dialect.name == "sqlite":
        place = f'"{schema}".' if schema else ""
        op.execute(f"DROP TRIGGER IF EXISTS {place}store_embeddings_of_deleted")
    op.drop_table(_TABLE, schema=schema)
