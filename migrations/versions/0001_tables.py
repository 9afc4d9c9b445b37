"""Create the three tables, or complete those of langgraph-checkpoint-postgres.

Why: on PostgreSQL the tables are those of langgraph-checkpoint-postgres at its schema version 9, so
both savers work on the same database. Existing tables of that package, at any of its versions, are
completed in place, and its ledger then says 9. Two nullable columns of `checkpoints` are ours:
`run_id` finds a run's checkpoints, `exact` holds the values that JSON can't represent. The MySQL
family has VARBINARY keys, because its collations fold case and accents or pad with blanks.

Locks: new tables, none. On existing tables, PostgreSQL's ACCESS EXCLUSIVE lock for a moment,
whatever their size: the changes rewrite no row. While a long transaction holds the table, the lock
is requested again and again, for half a second each time, so that no other transaction queues
behind it. MySQL (8.0.12) and MariaDB (10.3) add columns at once as well.

Downgrade: drops the three tables with every checkpoint in them, also the checkpoints of another
package, and empties that package's ledger, so that its setup() creates its tables again.

Revision ID: checkpoint_sa_0001
Revises:
Create Date: 2026-11-21
"""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError
from sqlalchemy.dialects import mssql, mysql, postgresql

revision = "checkpoint_sa_0001"
down_revision = None
branch_labels = ("checkpoint_sa",)
depends_on = None

TABLES = {
    "checkpoints": {"thread_id", "checkpoint_ns", "checkpoint_id", "checkpoint", "metadata"},
    "checkpoint_blobs": {"thread_id", "checkpoint_ns", "channel", "version", "type", "blob"},
    "checkpoint_writes": {"thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "blob"},
}
"""The tables, and the columns that a table must have to be completed."""

PEER_VERSION = 9
"""The schema version of langgraph-checkpoint-postgres that our tables are."""


def _key(length: int | None) -> sa.types.TypeEngine[Any]:
    text: sa.types.TypeEngine[Any] = sa.String(length) if length else sa.Text()
    binary: sa.types.TypeEngine[Any] = sa.VARBINARY(length) if length else mysql.MEDIUMBLOB()
    return text.with_variant(sa.Text(), "postgresql", "cockroachdb", "sqlite").with_variant(
        binary, "mysql", "mariadb"
    )


def _json() -> sa.types.TypeEngine[Any]:
    return (
        sa.JSON()
        .with_variant(postgresql.JSONB(), "postgresql", "cockroachdb")
        .with_variant(sa.Text(), "oracle")
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


def _default(value: str, *dialects: str) -> sa.TextClause | None:
    return sa.text(f"'{value}'") if op.get_context().dialect.name in dialects else None


def upgrade() -> None:
    """Create the missing tables and columns; a second run after a failure completes them."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    there = _existing(schema)
    _refuse_other_layouts(there)
    _create(schema, there)
    _complete(schema, there)
    if _is_postgresql():
        if op.get_context().as_sql:
            _complete_unseen(schema)
        else:
            _complete_ledger(schema)


def _existing(schema: str | None) -> dict[str, dict[str, Any]]:
    """Return table -> column -> description, of our existing tables."""
    if op.get_context().as_sql:
        return {}
    inspector = sa.inspect(op.get_bind())
    return {
        table: {column["name"]: column for column in inspector.get_columns(table, schema=schema)}
        for table in TABLES
        if inspector.has_table(table, schema=schema)
    }


def _refuse_other_layouts(there: dict[str, dict[str, Any]]) -> None:
    checkpoint = there.get("checkpoints", {}).get("checkpoint")
    if checkpoint and isinstance(checkpoint["type"], sa.LargeBinary):
        raise CommandError(
            "This database has the tables of langgraph-checkpoint-sqlite, which are laid out"
            " otherwise: nothing was changed. Upgrade a new database, and copy the checkpoints"
            " into it with `checkpoint-sa import`."
        )
    for table, columns in there.items():
        if missing := TABLES[table] - columns.keys():
            raise CommandError(
                f"There is a table {table} without {', '.join(sorted(missing))}: another"
                " application's, or that of a shallow saver of another package. Nothing was"
                " changed. Give checkpoint_sa a schema or a database of its own."
            )


def _create(schema: str | None, there: dict[str, dict[str, Any]]) -> None:
    # A script for PostgreSQL may meet tables of langgraph-checkpoint-postgres.
    options: dict[str, Any] = {"schema": schema, "if_not_exists": _is_postgresql() or None}
    no_namespace = _default("", "postgresql", "cockroachdb", "sqlite", "mysql", "mariadb")
    if "checkpoints" not in there:
        op.create_table(
            "checkpoints",
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True, server_default=no_namespace),
            sa.Column("checkpoint_id", _key(128), primary_key=True),
            sa.Column("parent_checkpoint_id", _key(128)),
            sa.Column("type", _key(255)),
            sa.Column("checkpoint", _json(), nullable=False),
            sa.Column(
                "metadata",
                _json(),
                nullable=False,
                server_default=_default("{}", "postgresql", "cockroachdb"),
            ),
            sa.Column("run_id", _key(255)),
            sa.Column("exact", _bytes()),
            **options,
        )
    if "checkpoint_blobs" not in there:
        op.create_table(
            "checkpoint_blobs",
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True, server_default=no_namespace),
            sa.Column("channel", _key(400), primary_key=True),
            sa.Column("version", _key(128), primary_key=True),
            sa.Column("type", _key(255), nullable=False),
            sa.Column("blob", _bytes()),
            **options,
        )
    if "checkpoint_writes" not in there:
        op.create_table(
            "checkpoint_writes",
            sa.Column("thread_id", _key(512), primary_key=True),
            sa.Column("checkpoint_ns", _key(2000), primary_key=True, server_default=no_namespace),
            sa.Column("checkpoint_id", _key(128), primary_key=True),
            sa.Column("task_id", _key(255), primary_key=True),
            sa.Column("idx", sa.Integer(), primary_key=True, autoincrement=False),
            sa.Column("channel", _key(400), nullable=False),
            sa.Column("type", _key(255)),
            sa.Column("blob", _bytes(), nullable=False),
            _task_path(),
            **options,
        )


def _task_path() -> sa.Column[Any]:
    default = _default("", "postgresql", "cockroachdb")
    return sa.Column("task_path", _key(None), nullable=False, server_default=default)


def _complete(schema: str | None, there: dict[str, dict[str, Any]]) -> None:
    missing = [
        (table, column)
        for table, column in (
            ("checkpoints", sa.Column("run_id", _key(255))),
            ("checkpoints", sa.Column("exact", _bytes())),
            ("checkpoint_writes", _task_path()),
        )
        if table in there and column.name not in there[table]
    ]
    blob = there.get("checkpoint_blobs", {}).get("blob")
    is_strict = blob is not None and not blob["nullable"]
    tables = {table for table, _ in missing} | ({"checkpoint_blobs"} if is_strict else set())
    if tables and op.get_context().dialect.name == "postgresql":
        _lock_tables(schema, sorted(tables))
    for table, column in missing:
        op.add_column(table, column, schema=schema)
    if is_strict:
        op.alter_column(
            "checkpoint_blobs", "blob", nullable=True, existing_type=_bytes(), schema=schema
        )


def _complete_unseen(schema: str | None) -> None:
    place = op.get_context().dialect.identifier_preparer.format_table
    checkpoints, blobs, writes = (place(sa.table(table, schema=schema)) for table in TABLES)
    op.execute("SET LOCAL lock_timeout = '2s'")
    op.execute(
        f"ALTER TABLE {checkpoints} ADD COLUMN IF NOT EXISTS run_id TEXT,"
        " ADD COLUMN IF NOT EXISTS exact BYTEA"
    )
    op.execute(f"ALTER TABLE {blobs} ALTER COLUMN blob DROP NOT NULL")
    op.execute(f"ALTER TABLE {writes} ADD COLUMN IF NOT EXISTS task_path TEXT DEFAULT '' NOT NULL")


def _lock_tables(schema: str | None, tables: list[str]) -> None:
    """Take PostgreSQL's lock for changing tables; no transaction queues behind it for long.

    Half a second is less than PostgreSQL's deadlock_timeout. So where a writer and the migration
    each wait for a table that the other has locked, the migration gives way.
    """
    bind = op.get_bind()
    if bind.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return  # a lock would end with its statement
    format_table = bind.dialect.identifier_preparer.format_table
    names = ", ".join(format_table(sa.table(table, schema=schema)) for table in tables)
    deadline = time.monotonic() + op.get_context().opts.get("checkpoint_sa_lock_timeout", 300)
    patience = bind.scalar(sa.text("SELECT current_setting('lock_timeout')"))
    set_patience = sa.text("SELECT set_config('lock_timeout', :patience, true)")
    while True:
        try:
            with bind.begin_nested():
                bind.execute(set_patience, {"patience": "500ms"})
                bind.execute(sa.text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
                raise
            if time.monotonic() > deadline:
                raise CommandError(_blocked(bind, schema, tables)) from error
            # The server sleeps, so an event loop isn't blocked.
            bind.execute(sa.text("SELECT pg_sleep(0.5)"))
        else:
            bind.execute(set_patience, {"patience": patience})
            return


def _blocked(bind: sa.Connection, schema: str | None, tables: list[str]) -> str:
    holders = bind.execute(
        sa.text(
            "SELECT DISTINCT a.pid, a.usename, a.application_name, a.xact_start FROM pg_locks l"
            " JOIN pg_stat_activity a ON a.pid = l.pid JOIN pg_class c ON c.oid = l.relation"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE l.granted"
            " AND l.pid <> pg_backend_pid() AND c.relname = ANY(:tables)"
            " AND n.nspname = coalesce(:schema, current_schema())"
        ).bindparams(
            sa.bindparam("tables", type_=postgresql.ARRAY(sa.Text())),
            sa.bindparam("schema", type_=sa.Text()),
        ),
        {"tables": tables, "schema": schema},
    )
    who = "; ".join(
        f"backend {row.pid} (user {row.usename}, application {row.application_name!r}), in a"
        f" transaction since {row.xact_start:%Y-%m-%d %H:%M:%S}"
        for row in holders
    )
    return (
        f"Other transactions hold {' and '.join(tables)}, which must be altered:"
        f" {who or 'they have just ended'}. Wait until they are done, or end them with"
        " pg_terminate_backend(), and try again."
    )


def _complete_ledger(schema: str | None) -> None:
    """Complete the ledger of langgraph-checkpoint-postgres, so that its setup() changes nothing."""
    bind = op.get_bind()
    if not sa.inspect(bind).has_table("checkpoint_migrations", schema=schema):
        return
    ledger = sa.table("checkpoint_migrations", sa.column("v", sa.Integer), schema=schema)
    found = bind.scalar(sa.select(sa.func.max(ledger.c.v)))
    for version in range(-1 if found is None else found, PEER_VERSION):
        bind.execute(ledger.insert().values(v=version + 1))


def _is_postgresql() -> bool:
    return op.get_context().dialect.name in ("postgresql", "cockroachdb")


def downgrade() -> None:
    """Drop the tables."""
    schema = op.get_context().opts.get("checkpoint_sa_schema")
    for table in reversed(TABLES):
        op.drop_table(table, schema=schema, if_exists=not op.get_context().as_sql or None)
    if op.get_context().as_sql:
        return
    if sa.inspect(op.get_bind()).has_table("checkpoint_migrations", schema=schema):
        op.execute(sa.delete(sa.table("checkpoint_migrations", schema=schema)))
