"""The schema's revisions, from Python: what `alembic upgrade head` does, on a connection at hand.

Alembic is imported when there is something to do, not before.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import column, inspect, select, table
from sqlalchemy.pool import NullPool

from checkpoint_sa import engines
from checkpoint_sa.errors import SchemaError
from checkpoint_sa.models import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

HEAD = "0002"
"""The revision that this release works with."""

VERSION_TABLE = "checkpoint_sa_version"
"""Alembic's version table for our tables: an application's own `alembic_version` is untouched."""

_TABLES = frozenset({*metadata.tables, VERSION_TABLE})

process_lock = threading.Lock()
"""Alembic's context is global to the process."""


def only_ours(name: str | None, kind: str, parents: Mapping[Any, Any]) -> bool:  # noqa: ARG001
    """Limit Alembic's comparison to our tables: the database may have others (`include_name`).

    One index isn't in the models, because only PostgreSQL has it.
    """
    return name in _TABLES if kind == "table" else name != "ix_checkpoints_peer_run_id"


def current(connection: Connection, *, schema: str | None = None) -> str | None:
    """Return the revision a database is at; None where it has no version table of ours."""
    if not inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    versions = table(VERSION_TABLE, column("version_num"), schema=schema)
    return connection.scalar(select(versions.c.version_num))


def verify(connection: Connection, *, schema: str | None = None) -> None:
    """Check that a database is at this release's revision; change nothing.

    Raises:
        SchemaError: It isn't. The message names both revisions and the command to run.
    """
    found = current(connection, schema=schema)
    if found == HEAD:
        return
    where = f" in schema {schema!r}" if schema else ""
    command = "saver.setup(), or alembic upgrade head"
    if found is None:
        raise SchemaError(
            f"This database has no checkpoint tables of checkpoint_sa{where}: it is at no revision,"
            f" this release needs {HEAD}. Run {command}."
        )
    if found < HEAD:
        raise SchemaError(
            f"The checkpoint tables{where} are at revision {found}, this release needs {HEAD}."
            f" Run {command}."
        )
    raise SchemaError(
        f"The checkpoint tables{where} are at revision {found}, which this release doesn't know:"
        f" it needs {HEAD}. Install the release of langgraph-checkpoint-sa that made them."
    )


def upgrade(connection: Connection, *, schema: str | None = None, owned: bool = True) -> None:
    """Bring a database to this release's revision; the caller holds `process_lock`.

    Args:
        connection: Where to run.
        schema: The schema of all tables, the version table included; None is the default one.
        owned: Whether the connection is ours to commit. Otherwise all happens in the caller's
            transaction.
    """
    if current(connection, schema=schema) == HEAD:
        return
    from alembic import command  # noqa: PLC0415 - slow to import, and rarely needed

    if not owned:
        connection.begin() if not connection.in_transaction() else None
        command.upgrade(_config(connection, schema, in_transaction=True), "head")
        return
    connection.rollback()  # of the question above: Alembic would never commit in its transaction
    with engines.migration_lock(connection):
        command.upgrade(_config(connection, schema), "head")


def _config(connection: Connection, schema: str | None, **attributes: Any) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config(ini_path())
    config.attributes.update(connection=connection, schema=schema, **attributes)
    return config


def ini_path() -> Path:
    """Return where the alembic.ini lies: in the installed package, or at the top of a clone."""
    package = Path(__file__).resolve().parent
    for folder in (package, package.parent):
        if (folder / "migrations" / "env.py").is_file() and (folder / "alembic.ini").is_file():
            return folder / "alembic.ini"
    raise SchemaError(
        f"The Alembic revisions are missing: neither {package} nor its parent has a migrations"
        " folder and an alembic.ini. Reinstall langgraph-checkpoint-sa."
    )


def run(url: str | URL, function: Callable[[Connection], None]) -> None:
    """Call a function with a connection of our own to a database; an async driver's URL is fine."""
    if not engines.is_async(url):
        engine = engines.make_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            function(connection)
        return

    async def call() -> None:
        async_engine = engines.make_async_engine(url, poolclass=NullPool)
        async with async_engine.connect() as connection:
            await connection.run_sync(function)

    asyncio.run(call())
