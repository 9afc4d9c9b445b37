"""Create the table of LangGraph's long-term memory, or complete that of PostgresStore.

Why: `SQLAlchemyStore` keeps items beside the checkpoints. On PostgreSQL the table is that of
langgraph-checkpoint-postgres's PostgresStore at its schema version 3, so both work on the same
items. An existing table of that package, at any of its versions, is completed in place; its ledger
stays as it is, since its own changes are made only where they are missing. A table `store` of
another layout is an application's or another package's: it is left alone, and only
`SQLAlchemyStore` refuses to work with it.

Locks: a new table, none. On a table of PostgresStore before its version 2, PostgreSQL's ACCESS
EXCLUSIVE lock for a moment, requested for half a second at a time. Its missing indexes are built
CONCURRENTLY if it has rows, except in a transaction of the caller's.

Downgrade: drops the table if it is empty and not PostgresStore's. Earlier releases work beside it.
An offline script can't look, and drops it.

Revision ID: checkpoint_sa_0006_from_0005
Revises: checkpoint_sa_0005
Create Date: 2026-11-28
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import mysql, postgresql

revision = "checkpoint_sa_0006_from_0005"
down_revision = "checkpoint_sa_0005"
branch_labels = None
depends_on = None

_TABLE = "store"
_LEDGER = "store_migrations"
_PREFIX = "store_prefix_idx"
_EXPIRES = "idx_store_expires_at"
_KEYS = {"prefix", "key", "value", "created_at", "updated_at"}
_ADDED = ("expires_at", "ttl_minutes")


def _key(length: int) -> sa.types.TypeEngine[Any]:
    return (
        sa.String(length)
        .with_variant(sa.Text(), "postgresql", "cockroachdb", "sqlite")
        .with_variant(sa.VARBINARY(length), "mysql", "mariadb")
    )


def _json() -> sa.types.TypeEngine[Any]:
    return (
        sa.JSON()
        .with_variant(postgresql.JSONB(), "postgresql", "cockroachdb")
        .with_variant(sa.Text(), "oracle")
    )


def _time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _added() -> list[sa.Column[Any]]:
    return [sa.Column("expires_at", _time()), sa.Column("ttl_minutes", sa.Integer())]


def upgrade() -> None:
    """Create the table or what it lacks; a second run after a failure completes it."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    found = _columns(schema)
    if found is None:
        _create(schema)
    elif not _is_known(found):
        return
    elif missing := [column for column in _added() if column.name not in found]:
        first = context.script.get_revision("checkpoint_sa_0001")
        first.module._lock_tables(schema, [_TABLE])  # noqa: SLF001 - a revision stays as it is
        for column in missing:
            op.add_column(_TABLE, column, schema=schema)
    _index(schema, is_new=found is None)


def _columns(schema: str | None) -> dict[str, Any] | None:
    """Return column -> type of an existing table; None without one."""
    if op.get_context().as_sql:
        return None
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(_TABLE, schema=schema):
        return None
    return {item["name"]: item["type"] for item in inspector.get_columns(_TABLE, schema=schema)}


def _is_known(found: dict[str, Any]) -> bool:
    """Whether a table is ours, or PostgresStore's of any version."""
    if op.get_context().dialect.name == "postgresql":
        return found.keys() >= _KEYS and isinstance(found["value"], postgresql.JSONB)
    if not found.keys() >= {*_KEYS, *_ADDED}:
        return False
    # LangGraph's SqliteStore has the same columns, with text as the value.
    return isinstance(found["value"], sa.JSON) or isinstance(found["prefix"], sa.VARBINARY)


def _create(schema: str | None) -> None:
    is_postgresql = op.get_context().dialect.name in ("postgresql", "cockroachdb")
    # The server's time, as PostgresStore has it; elsewhere each INSERT brings it, in UTC.
    default = sa.func.current_timestamp() if is_postgresql else None
    # An offline script can't look whether PostgresStore's table is there.
    is_unseen = op.get_context().as_sql and op.get_context().dialect.name == "postgresql"
    op.create_table(
        _TABLE,
        sa.Column("prefix", _key(1500), primary_key=True),
        sa.Column("key", _key(800), primary_key=True),
        sa.Column("value", _json(), nullable=False),
        sa.Column("created_at", _time(), server_default=default),
        sa.Column("updated_at", _time(), server_default=default),
        *_added(),
        schema=schema,
        if_not_exists=is_unseen or None,
    )
    if is_unseen:
        table = op.get_context().dialect.identifier_preparer.format_table(
            sa.table(_TABLE, schema=schema)
        )
        op.execute("SET LOCAL lock_timeout = '2s'")
        op.execute(
            f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS expires_at TIMESTAMP WITH TIME ZONE,"
            " ADD COLUMN IF NOT EXISTS ttl_minutes INTEGER"
        )


def _index(schema: str | None, *, is_new: bool) -> None:
    migration = op.get_context()
    wanted = [_EXPIRES, _PREFIX] if migration.dialect.name == "postgresql" else [_EXPIRES]
    missing = {name: name for name in wanted}
    if not migration.as_sql:
        second = context.script.get_revision("checkpoint_sa_0002").module
        there = sa.inspect(op.get_bind()).get_indexes(_TABLE, schema=schema)
        valid = {i["name"] for i in there if not second._is_broken(i["name"], schema)}  # noqa: SLF001
        taken = _names_of_other_tables(schema)
        missing = {f"checkpoint_sa_{name}" if name in taken else name: name for name in wanted}
        missing = {name: kind for name, kind in missing.items() if name not in valid}
    busy = bool(missing) and not is_new and _is_busy(schema)
    with migration.autocommit_block() if busy else nullcontext():
        for name, kind in missing.items():
            if busy:  # a failed CREATE INDEX CONCURRENTLY leaves an invalid index
                op.drop_index(
                    name, _TABLE, schema=schema, if_exists=True, postgresql_concurrently=True
                )
            is_prefix = kind == _PREFIX
            some = None if is_prefix else sa.text("expires_at IS NOT NULL")
            op.create_index(
                name,
                _TABLE,
                ["prefix" if is_prefix else "expires_at"],
                schema=schema,
                postgresql_ops={"prefix": "text_pattern_ops"} if is_prefix else {},
                postgresql_where=some,
                sqlite_where=some,
                postgresql_concurrently=busy,
                if_not_exists=(migration.as_sql and migration.dialect.name == "postgresql") or None,
            )


def _names_of_other_tables(schema: str | None) -> set[str | None]:
    """Return the names of other tables' indexes, where an index of ours can't have them.

    The index of a table that was renamed keeps its name.
    """
    if op.get_context().dialect.name not in ("sqlite", "postgresql"):
        return set()
    found = sa.inspect(op.get_bind()).get_multi_indexes(schema=schema)
    return {
        index["name"]
        for (_, table), indexes in found.items()
        if table != _TABLE
        for index in indexes
    }


def _is_busy(schema: str | None) -> bool:
    """Whether the table may be in use by transactions that must not wait."""
    migration = op.get_context()
    joins = bool(getattr(migration, "_in_external_transaction", False))
    if migration.dialect.name != "postgresql" or joins:
        return False
    return _has_rows(schema)


def _has_rows(schema: str | None) -> bool:
    table = sa.table(_TABLE, sa.column("prefix"), schema=schema)
    return op.get_bind().execute(sa.select(table.c.prefix).limit(1)).first() is not None


def downgrade() -> None:
    """Drop the table, unless that would lose items or take it from PostgresStore."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    if not op.get_context().as_sql:
        found = _columns(schema)
        if found is None or not _is_known(found) or _has_rows(schema):
            return
        if sa.inspect(op.get_bind()).has_table(_LEDGER, schema=schema):
            return
    op.drop_table(_TABLE, schema=schema)
