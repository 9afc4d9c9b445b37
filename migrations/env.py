"""How Alembic reaches the database: a connection that Python gives it, else a URL.

The URL comes from `-x url=`, the environment variable CHECKPOINT_SA_URL, or `sqlalchemy.url` in the
ini; the schema from `-x schema=` or CHECKPOINT_SA_SCHEMA.
"""

from __future__ import annotations

import os
from logging.config import fileConfig
from typing import TYPE_CHECKING

from alembic import context

from checkpoint_sa import engines, migrate
from checkpoint_sa.models import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

config = context.config


def _given(name: str) -> str | None:
    arguments = context.get_x_argument(as_dictionary=True)
    return arguments.get(name) or os.environ.get(f"CHECKPOINT_SA_{name.upper()}") or None


def _url() -> str:
    url = _given("url") or config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit(
            "No database. Pass one: alembic -x url=postgresql://user@host/database upgrade head,"
            " or set CHECKPOINT_SA_URL."
        )
    return url


def _migrate(connection: Connection, schema: str | None) -> None:
    context.configure(
        connection=connection.execution_options(schema_translate_map={None: schema})
        if schema
        else connection,
        target_metadata=metadata,
        version_table=migrate.VERSION_TABLE,
        version_table_schema=schema,
        transaction_per_migration=True,
        include_name=migrate.only_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


def _script(schema: str | None) -> None:
    context.configure(
        url=engines.parse_url(_url(), "sync"),
        target_metadata=metadata,
        version_table=migrate.VERSION_TABLE,
        version_table_schema=schema,
        transaction_per_migration=True,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def _run() -> None:
    connection = config.attributes.get("connection")
    if connection is not None:
        _migrate(connection, config.attributes.get("schema"))
        return
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    schema = _given("schema")
    if context.is_offline_mode():
        _script(schema)
        return

    def migrate_alone(connection: Connection) -> None:
        with engines.migration_lock(connection):
            _migrate(connection, schema)

    migrate.run(_url(), migrate_alone)


_run()
