"""How Alembic reaches the database: through a connection that Python passes, or a URL.

The URL comes from `-x url=`, the environment variable CHECKPOINT_SA_URL, or `sqlalchemy.url` in the
ini; the schema from `-x schema=` or CHECKPOINT_SA_SCHEMA; how many seconds to wait for another
migration from `-x lock_timeout=` or CHECKPOINT_SA_LOCK_TIMEOUT.
"""

from __future__ import annotations

import os
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import MetaData

from checkpoint_sa import migrate
from checkpoint_sa.engine import engines, locks
from checkpoint_sa.errors import CheckpointError
from checkpoint_sa.models import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

config = context.config

NOT_IN_MODELS = frozenset(
    {
        "ix_checkpoints_peer_run_id",  # PostgreSQL's only
        "store_prefix_idx",  # PostgreSQL's only
        # langgraph-checkpoint-postgres has these, which duplicate the primary keys.
        "checkpoints_thread_id_idx",
        "checkpoint_blobs_thread_id_idx",
        "checkpoint_writes_thread_id_idx",
    }
)


def _given(name: str) -> str | None:
    arguments = context.get_x_argument(as_dictionary=True)
    return arguments.get(name) or os.environ.get(f"CHECKPOINT_SA_{name.upper()}") or None


def _url() -> str:
    url = _given("url") or config.get_main_option("sqlalchemy.url")
    if not url:
        raise CommandError(
            "No database. Pass a URL: alembic -x url=postgresql://user@host/database upgrade head,"
            " or set CHECKPOINT_SA_URL."
        )
    return url


def _options(schema: str | None) -> dict[str, Any]:
    models = metadata
    if schema:
        # By default an index's name would have the schema in it.
        models = MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s"})
        for table in metadata.tables.values():
            table.to_metadata(models, schema=schema)

    def is_ours(name: str | None, kind: str, _: Mapping[Any, Any]) -> bool:
        """Limit `alembic check` to our tables: the database may have others."""
        if kind == "schema":
            return name == schema
        if kind == "table":
            return name in metadata.tables
        return name not in NOT_IN_MODELS

    return {
        "target_metadata": models,
        "include_schemas": schema is not None,
        "include_name": is_ours,
        "version_table": migrate.VERSION_TABLE,
        "version_table_schema": schema,
        "transaction_per_migration": True,
        "checkpoint_sa_schema": schema,
    }


def _migrate(connection: Connection, schema: str | None, seconds: float) -> None:
    context.configure(connection=connection, checkpoint_sa_lock_timeout=seconds, **_options(schema))
    with context.begin_transaction():
        context.run_migrations()


def _write_script(dialect: str, schema: str | None) -> None:
    context.configure(dialect_name=dialect, literal_binds=True, **_options(schema))
    # Nobody fetches from a script, and Oracle's RETURNING would need a variable.
    context.get_context().dialect.insert_returning = False
    with context.begin_transaction():
        context.run_migrations()


def _run_command() -> None:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    schema = _given("schema")
    if context.is_offline_mode():
        _write_script(engines.dialect_of(_url()), schema)
        return
    seconds = float(_given("lock_timeout") or locks.LOCK_SECONDS)

    def migrate_alone(connection: Connection) -> None:
        if _is_upgrade_to_head() and migrate.is_later(connection, schema):
            return  # `alembic upgrade head` of the release before, after a rollback
        with locks.migration_lock(connection, seconds=seconds):
            _migrate(connection, schema, seconds)

    migrate.on_connection("upgrade", _url(), migrate_alone)


def _is_upgrade_to_head() -> bool:
    given: Any = config.cmd_opts  # None, and without a command, where Python calls Alembic
    command = getattr(given, "cmd", None)
    if command is None or command[0].__name__ != "upgrade":
        return False
    return bool(given.revision.startswith("head"))


def _run() -> None:
    given = config.attributes
    if "connection" in given:
        seconds = given.get("lock_timeout", locks.LOCK_SECONDS)
        _migrate(given["connection"], given.get("schema"), seconds)
    elif "dialect" in given:
        _write_script(given["dialect"], given.get("schema"))
    else:
        try:
            _run_command()
        except CheckpointError as error:
            raise CommandError(str(error)) from error


_run()
