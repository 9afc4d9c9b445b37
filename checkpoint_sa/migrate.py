"""Alembic's upgrades and downgrades of the schema, called from Python.

Each function takes an engine, a connection or a URL. A name that begins with `a` is the async twin.
Alembic is imported only when a migration has to run.

With an engine or a URL, and with a connection outside a transaction, the changes are committed when
the call returns. With a connection in a transaction, they are part of that transaction, and the
caller commits. (On MySQL and MariaDB that is an error: they commit at each change of a table.)
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, column, event, inspect, select, table
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from sqlalchemy.types import LargeBinary

from checkpoint_sa.engine import clusters, engines, locks, transactions
from checkpoint_sa.engine.locks import migration_lock
from checkpoint_sa.errors import ConfigurationError, SchemaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from alembic.config import Config
    from sqlalchemy import ColumnClause
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.schema import SchemaItem

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "acurrent",
    "adowngrade",
    "aupgrade",
    "averify",
    "current",
    "downgrade",
    "include_object",
    "ini_path",
    "migration_lock",
    "sql",
    "upgrade",
    "verify",
]

T = TypeVar("T")

HEAD = "checkpoint_sa_0007_from_0005"
"""The revision that this release makes. Revisions sort by name."""

_NAME = re.compile(r"checkpoint_sa_(\d{4})(?:_from_(\d{4}))?")
"""A revision's name: its number, and the number of the oldest release that works with its tables.

`checkpoint_sa_0007_from_0005` only adds to the tables: releases that make 0005 and later work with
it. So an old release learns from the version table alone whether it works after an upgrade, also
from an application's `alembic_version`. A name without `_from_` is for its own release alone.
"""

VERSION_TABLE = "checkpoint_sa_version"
"""Alembic's version table for our tables: an application's own `alembic_version` is untouched."""

_APPLICATION_TABLE = "alembic_version"
"""The table of our revision when an application runs our revisions as a branch of its own."""

_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "checkpoint_deltas")

_PREFIX = "checkpoint_sa_"
_LOCK_SECONDS = locks.LOCK_SECONDS

_QUESTIONS = ("current", "verify")
"""The functions that change nothing; they create no SQLite file either."""

_log = logging.getLogger(__name__)
_accepted: set[tuple[str, str | None]] = set()
"""Later revisions, with their schema, for which this process has logged a warning."""

_process_lock = threading.Lock()  # Alembic's context is global to the process


# The public functions


def upgrade(
    bind: Engine | Connection | URL | str,
    revision: str = "head",
    *,
    schema: str | None = None,
    lock_timeout: float = _LOCK_SECONDS,
) -> None:
    """Upgrade a database to this release's revision: create the missing tables and columns.

    The call is cheap when the database is up to date. Any number of processes and threads may call
    it at the same time: one migrates, the others wait. An upgrade after a crash completes a
    half-migrated database. Tables of a later release stay as they are if this release works with
    them.

    Args:
        bind: The database.
        revision: Another revision than the latest.
        schema: The schema of all tables, the version table included; it exists already.
        lock_timeout: Seconds to wait for another migration, and for the locks of tables.

    Raises:
        SchemaError: The tables are another package's; or they are a later release's, and this
            release doesn't work with them; or a lock timed out. The message says how to go on. The
            failing revision changed nothing.
        ConfigurationError: The engine, connection or URL can't be used for a migration.
    """
    with _turn(lock_timeout):
        on_connection("upgrade", bind, partial(_upgrade, revision, schema, lock_timeout))


def downgrade(
    bind: Engine | Connection | URL | str,
    revision: str,
    *,
    schema: str | None = None,
    lock_timeout: float = _LOCK_SECONDS,
) -> None:
    """Take a database back to an earlier revision; "base" drops the tables with all checkpoints.

    Arguments and errors are those of `upgrade`.
    """
    with _turn(lock_timeout):
        on_connection("downgrade", bind, partial(_downgrade, revision, schema, lock_timeout))


def current(bind: Engine | Connection | URL | str, *, schema: str | None = None) -> str | None:
    """Return a database's revision; None if it has none of ours.

    The revision is read from our own version table, or from `alembic_version` where an application
    runs our revisions as a branch of its own.
    """
    return on_connection("current", bind, lambda connection: _found(connection, schema)[0])


def verify(bind: Engine | Connection | URL | str, *, schema: str | None = None) -> str:
    """Check that this release works with a database's tables; change nothing.

    A release works with its own revision, and with a later revision if that revision's name says
    so; then the process logs a warning.

    Returns:
        The database's revision.

    Raises:
        SchemaError: It doesn't work with them. The message names both revisions and the command to
            run.
    """
    return on_connection("verify", bind, partial(_verify, schema))


def check_revision(connection: Connection, *, schema: str | None = None) -> str:
    """`verify` without a look at the tables: for each process's first operation."""
    return _check_revision(schema, connection)


def sql(
    bind: Engine | Connection | AsyncEngine | AsyncConnection | URL | str,
    revision: str = "head",
    *,
    schema: str | None = None,
    downgrade: bool = False,
) -> str:
    """Return the SQL of an upgrade as a script, without a database and without its driver.

    The script can't look up the revision: run it on a database at the revision that it starts from.

    Args:
        bind: A database or its URL, of which only the dialect is used; or a dialect's name.
        revision: The target revision, or `from:to`.
        schema: The schema of all tables, the version table included.
        downgrade: Whether the script downgrades; `revision` is `from:to` then.
    """
    from alembic import command  # noqa: PLC0415 - slow to import, and rarely needed

    script = io.StringIO()
    action = command.downgrade if downgrade else command.upgrade
    with _turn(_LOCK_SECONDS):
        config = _config(schema=schema, dialect=engines.dialect_of(bind))
        config.output_buffer = script
        _alembic(partial(action, config, revision, sql=True))
    return script.getvalue()


async def aupgrade(
    bind: AsyncEngine | AsyncConnection | URL | str,
    revision: str = "head",
    *,
    schema: str | None = None,
    lock_timeout: float = _LOCK_SECONDS,
) -> None:
    """`upgrade`, async."""
    async with _aturn(lock_timeout):
        await _acall("upgrade", bind, partial(_upgrade, revision, schema, lock_timeout))


async def adowngrade(
    bind: AsyncEngine | AsyncConnection | URL | str,
    revision: str,
    *,
    schema: str | None = None,
    lock_timeout: float = _LOCK_SECONDS,
) -> None:
    """`downgrade`, async."""
    async with _aturn(lock_timeout):
        await _acall("downgrade", bind, partial(_downgrade, revision, schema, lock_timeout))


async def acurrent(
    bind: AsyncEngine | AsyncConnection | URL | str, *, schema: str | None = None
) -> str | None:
    """`current`, async."""
    return await _acall("current", bind, lambda connection: _found(connection, schema)[0])


async def averify(
    bind: AsyncEngine | AsyncConnection | URL | str, *, schema: str | None = None
) -> str:
    """`verify`, async."""
    return await _acall("verify", bind, partial(_verify, schema))


def include_object(  # noqa: PLR0913 - Alembic's hook
    item: SchemaItem,
    name: str | None,
    kind: str,
    reflected: bool,  # noqa: ARG001
    compare_to: SchemaItem | None,  # noqa: ARG001
    *,
    schema: str | None = None,
) -> bool:
    """Exclude our tables from an application's `alembic revision --autogenerate` and `check`.

    Pass it to `context.configure(include_object=...)` in the application's env.py, whether our
    metadata is part of its `target_metadata` or not. Bind `schema`, the schema of our tables, with
    `functools.partial`.
    """
    from checkpoint_sa.models import metadata  # noqa: PLC0415 - imports the ORM

    ours = {*metadata.tables, VERSION_TABLE, clusters.LOCK_TABLE}
    if kind != "table" or name not in ours or getattr(item, "schema", None) != schema:
        return True
    # An application may have a table `store` of its own.
    columns: Any = getattr(item, "columns", ())
    return name == "store" and len(columns) > 0 and "prefix" not in columns


def ini_path() -> Path:
    """Return the path of alembic.ini: in the installed package, or at the top of a clone."""
    package = Path(__file__).resolve().parent
    for folder in (package, package.parent):
        if (folder / "migrations" / "env.py").is_file() and (folder / "alembic.ini").is_file():
            return folder / "alembic.ini"
    raise SchemaError(
        f"The Alembic revisions are missing: neither {package} nor its parent has a migrations"
        " folder and an alembic.ini. Reinstall langgraph-checkpoint-sa."
    )


# Functions over a connection


def _upgrade(revision: str, schema: str | None, seconds: float, connection: Connection) -> None:
    joins = connection.in_transaction()
    with _as_found(connection):
        found, _ = _found(connection, schema)
    if found == HEAD and revision in ("head", HEAD):
        return
    if found is not None and found > HEAD:
        _accept_later(found, schema)
        return
    _refuse_branch(connection, schema, "alembic upgrade heads")
    _migrate("upgrade", revision, schema, seconds, connection, joins=joins)


def _downgrade(revision: str, schema: str | None, seconds: float, connection: Connection) -> None:
    joins = connection.in_transaction()
    _refuse_branch(connection, schema, f"alembic downgrade checkpoint_sa@{revision}")
    _migrate("downgrade", revision, schema, seconds, connection, joins=joins)


def _refuse_branch(connection: Connection, schema: str | None, command: str) -> None:
    with _as_found(connection):
        owners = {name for name, _ in _revisions(connection, schema)}
    if _APPLICATION_TABLE in owners:
        raise SchemaError(
            "Here an application runs the revisions of checkpoint_sa as a branch of its own"
            f" ({_APPLICATION_TABLE} has their revision). Run the application's `{command}`."
        )


def _migrate(  # noqa: PLR0913
    action: str,
    revision: str,
    schema: str | None,
    seconds: float,
    connection: Connection,
    *,
    joins: bool,
) -> None:
    from alembic import command, context  # noqa: PLC0415 - slow to import, and rarely needed

    if hasattr(context, "config"):
        raise ConfigurationError(
            "Alembic is running in this process already, perhaps an application's env.py or"
            " revision, and it can't run twice. Call this before or after it, or add our revisions"
            " to the application's version_locations."
        )
    _refuse_unknown(connection, schema)
    config = _config(connection=connection, schema=schema, lock_timeout=seconds)
    run = partial(_alembic, partial(getattr(command, action), config, revision))
    if joins:
        transactions.check_connection(connection)
        locks.join_migration(connection, seconds=seconds)
        run()
        _tell_of_rollback(connection, action)
    else:
        with migration_lock(connection, seconds=seconds):
            run()


def _refuse_unknown(connection: Connection, schema: str | None) -> None:
    with _as_found(connection):
        if schema is None or schema in inspect(connection).get_schema_names():
            return
    raise SchemaError(
        f"There is no schema {schema!r} in this database. Make it first:"
        f" {engines.how_to_make_a_schema(connection)}."
    )


def _tell_of_rollback(connection: Connection, action: str) -> None:
    """Log a rollback of the caller's transaction, which a migration was part of."""
    committed: list[Connection] = []

    def tell(_: Connection) -> None:
        if not committed:
            _log.warning(
                "The %s of the checkpoint tables was rolled back with the transaction that it was"
                " part of. If that wasn't wanted: commit, or pass the engine.",
                action,
            )

    event.listen(connection, "commit", committed.append, once=True)
    event.listen(connection, "rollback", tell, once=True)


def _found(connection: Connection, schema: str | None) -> tuple[str | None, str]:
    """Return a database's revision and the name of its version table."""
    with _as_found(connection):
        for name, revision in _revisions(connection, schema):
            return revision, name
    return None, ""


def _revisions(connection: Connection, schema: str | None) -> Iterator[tuple[str, str]]:
    """Yield each version table that has a revision of ours, and the revision."""
    for name, place in (
        (VERSION_TABLE, schema),
        (_APPLICATION_TABLE, schema),
        (_APPLICATION_TABLE, None),
    ):
        if not inspect(connection).has_table(name, schema=place):
            continue
        version: ColumnClause[str] = column("version_num")
        found = connection.scalars(select(version).select_from(table(name, schema=place)))
        ours = [revision for revision in found if name == VERSION_TABLE or _is_ours(revision)]
        if ours:
            yield name, max(ours)


def _is_ours(revision: str) -> bool:
    return revision.startswith(_PREFIX)


def _verify(schema: str | None, connection: Connection) -> str:
    found = _check_revision(schema, connection)
    with _as_found(connection):
        inspector = inspect(connection)
        missing = [name for name in _TABLES if not inspector.has_table(name, schema=schema)]
    if missing:
        raise SchemaError(
            f"The database says that it is at revision {found}, but has no table"
            f" {' and no table '.join(missing)}. Was it downgraded in another way, by an"
            " application's Alembic for example? Restore the tables, or delete the rows of"
            f" checkpoint_sa from {VERSION_TABLE} and {_APPLICATION_TABLE} and upgrade again."
        )
    return found


def _check_revision(schema: str | None, connection: Connection) -> str:
    found, owner = _found(connection, schema)
    if found == HEAD:
        return found
    place = f" in schema {schema!r}" if schema else ""
    option = f" --schema {schema}" if schema else ""
    command = f"checkpoint-sa upgrade{option}, alembic upgrade head or the saver's setup()"
    if owner == _APPLICATION_TABLE:
        command = "the application's `alembic upgrade heads`"
    if found is None:
        raise SchemaError(_unstamped(connection, schema, place, command))
    if found < HEAD:
        raise SchemaError(
            f"The checkpoint tables{place} are at revision {found}, this release needs {HEAD}."
            f" Run {command}."
        )
    _accept_later(found, schema)
    return found


def is_later(connection: Connection, schema: str | None) -> bool:
    """Whether a database has tables of a later release with which this release works.

    Raises:
        SchemaError: It has tables of a later release with which this release doesn't work.
    """
    found, _ = _found(connection, schema)
    if found is None or found <= HEAD:
        return False
    _accept_later(found, schema)
    return True


def _accept_later(found: str, schema: str | None) -> None:
    """Log that the tables are a later release's; raise an error if this release can't use them."""
    place = f" in schema {schema!r}" if schema else ""
    own, later = _NAME.fullmatch(HEAD), _NAME.fullmatch(found)
    oldest = later[2] if later else None
    if own is None or oldest is None or oldest > own[1]:
        raise SchemaError(
            f"The checkpoint tables{place} are at revision {found}, with which this release can't"
            f" work: it needs {HEAD}. Install the release of langgraph-checkpoint-sa that made it."
        )
    if (found, schema) in _accepted:  # a probe asks every few seconds
        return
    _accepted.add((found, schema))
    _log.warning(
        "The checkpoint tables%s are at revision %s of a later release; this release makes %s and"
        " works with them",
        place,
        found,
        HEAD,
    )


def _unstamped(connection: Connection, schema: str | None, place: str, command: str) -> str:
    """Return the message about a database without a revision of ours."""
    needed = f": it is at no revision, this release needs {HEAD}. Run {command}."
    with _as_found(connection):
        inspector = inspect(connection)
        if not inspector.has_table("checkpoints", schema=schema):
            return f"This database has no checkpoint tables of checkpoint_sa{place}{needed}"
        columns = {c["name"]: c["type"] for c in inspector.get_columns("checkpoints", schema)}
    if isinstance(columns.get("checkpoint"), LargeBinary):
        return (
            f"This database has the tables of langgraph-checkpoint-sqlite{place}, another layout."
            " `checkpoint-sa import` brings its threads into a database of checkpoint_sa."
        )
    if not {"thread_id", "checkpoint_id"} <= columns.keys():
        return (
            f"This database has a table `checkpoints` of another application{place}. Give"
            " checkpoint_sa a schema or a database of its own."
        )
    return f"This database has checkpoint tables that aren't migrated yet{place}{needed}"


@contextmanager
def _as_found(connection: Connection) -> Iterator[None]:
    """End the transaction that the first SELECT begins, unless the caller has begun one.

    Otherwise a migration would take it for the caller's transaction.
    """
    joins = connection.in_transaction()
    try:
        yield
    finally:
        if not joins:
            connection.rollback()


# Alembic


def _config(**attributes: Any) -> Config:
    from alembic.config import Config  # noqa: PLC0415

    config = Config(ini_path())
    config.attributes.update(attributes)
    return config


def _alembic(action: Callable[[], None]) -> None:
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        action()
    except CommandError as error:
        raise SchemaError(str(error)) from error


# Connections


def on_connection(
    name: str,
    bind: Engine | Connection | URL | str,
    function: Callable[[Connection], T],
) -> T:
    """Call a function with a connection, made from any kind of `bind`; `name` is for errors."""
    if isinstance(bind, Connection):
        return function(bind)
    if isinstance(bind, Engine):
        with transactions.transactional(bind).connect() as connection:
            return function(connection)
    if not isinstance(bind, URL | str):
        raise ConfigurationError(
            f"migrate.{name} takes an Engine, a Connection or a URL, this is"
            f" {type(bind).__name__}. Use `await migrate.a{name}(...)`."
        )
    if engines.is_async(bind):
        if _in_loop():
            raise ConfigurationError(
                f"This URL names an async driver, and an event loop is running here. Use"
                f" `await migrate.a{name}(...)`."
            )
        return asyncio.run(_acall(name, bind, function))
    engine = engines.make_engine(_url(name, bind), poolclass=NullPool)
    return on_connection(name, engine, function)


async def _acall(
    name: str,
    bind: AsyncEngine | AsyncConnection | URL | str,
    function: Callable[[Connection], T],
) -> T:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine  # noqa: PLC0415 - imports the ORM

    if isinstance(bind, AsyncConnection):
        return await bind.run_sync(function)
    if isinstance(bind, AsyncEngine):
        async with AsyncEngine(
            transactions.transactional(bind.sync_engine)
        ).connect() as connection:
            return await connection.run_sync(function)
    if not isinstance(bind, URL | str):
        raise ConfigurationError(
            f"migrate.a{name} takes an AsyncEngine, an AsyncConnection or a URL, this is"
            f" {type(bind).__name__}. Use migrate.{name}(...)."
        )
    if not engines.is_async(bind):
        return await asyncio.to_thread(on_connection, name, bind, function)
    engine = engines.make_async_engine(_url(name, bind), poolclass=NullPool)
    return await _acall(name, engine, function)


def _url(name: str, bind: URL | str) -> URL:
    url = engines.url_of(bind)
    if engines.is_memory(url):
        raise ConfigurationError(
            "An SQLite database in memory would be gone when this returns. Pass the engine that"
            " will use it."
        )
    return engines.read_only(url) if name in _QUESTIONS else url


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _turn(seconds: float) -> Iterator[None]:
    if not _process_lock.acquire(timeout=seconds):
        raise _busy(seconds)
    try:
        yield
    finally:
        _process_lock.release()


@asynccontextmanager
async def _aturn(seconds: float) -> AsyncIterator[None]:
    deadline = time.monotonic() + seconds
    while not _process_lock.acquire(blocking=False):
        if time.monotonic() > deadline:
            raise _busy(seconds)
        await asyncio.sleep(0.02)  # its holder may be a task of this very loop
    try:
        yield
    finally:
        _process_lock.release()


def _busy(seconds: float) -> SchemaError:
    return SchemaError(
        f"Another thread or task of this process has been migrating for {seconds:g} seconds, and"
        " Alembic runs once in a process. Wait until it is done, and try again."
    )
