"""The right to migrate: one process at a time, on each engine."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from checkpoint_sa.engine import clusters
from checkpoint_sa.engine.transactions import begin_write
from checkpoint_sa.engine.waiting import lock_timeout, pause
from checkpoint_sa.errors import ConfigurationError
from checkpoint_sa.types import MYSQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection


LOCK_SECONDS = 300.0
"""Seconds that a migration waits for another migration, and for the locks of tables, by default."""

_LOCK_NAME = "checkpoint_sa.migrations."

_LOCK_NUMBER = 0x63_6B_70_74_5F_73_61  # "ckpt_sa"

_PAUSE = 0.2


@contextmanager
def migration_lock(connection: Connection, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a database's only right to migrate our tables.

    The connection has no transaction when it starts. On SQLite the whole context is one
    transaction, committed at the end.

    Raises:
        SchemaError: Another session held the lock for `seconds`; the message names the session.
    """
    family = connection.dialect.name
    if family == "sqlite":
        _lock_file(connection, seconds)
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
        return
    if family == "postgresql":
        # Polled: a session that waits inside pg_advisory_lock() has a snapshot, and the holder's
        # CREATE INDEX CONCURRENTLY would wait for the end of that snapshot.
        _poll(connection, func.pg_try_advisory_lock(_LOCK_NUMBER), seconds, end=True)
        release = select(func.pg_advisory_unlock(_LOCK_NUMBER))
    elif family in MYSQL_FAMILY:
        if reads := clusters.current_reads(connection):
            with clusters.right_to_migrate(connection, reads, seconds):
                yield
            return
        # All databases of a server share the names of its locks.
        name = func.concat(_LOCK_NAME, func.left(func.sha2(func.database(), 256), 32))
        if connection.scalar(select(func.get_lock(name, seconds))) != 1:
            raise lock_timeout(seconds, _mysql_holder(connection, name))
        release = select(func.release_lock(name))
    else:
        yield
        return
    connection.rollback()  # the lock belongs to the session; Alembic begins its own transactions
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(release)
        connection.rollback()


def join_migration(connection: Connection, *, seconds: float = LOCK_SECONDS) -> None:
    """Take the right to migrate our tables until the end of the caller's transaction.

    Raises:
        ConfigurationError: The engine ends a transaction at the first change of a table.
        SchemaError: Another session held the lock for `seconds`; the message names the session.
    """
    family = connection.dialect.name
    if family == "sqlite":
        begin_write(connection)
    elif family == "postgresql":
        _poll(connection, func.pg_try_advisory_xact_lock(_LOCK_NUMBER), seconds, end=False)
    elif family in MYSQL_FAMILY:
        raise ConfigurationError(
            "This connection has a transaction open, which the server would commit at the first"
            " change of a table. Pass the engine, or commit first."
        )


def _lock_file(connection: Connection, seconds: float) -> None:
    patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
    driver_connection: Any = connection.connection.driver_connection
    if driver_connection.in_transaction:
        connection.exec_driver_sql("ROLLBACK")  # of an application's own "begin" event
    try:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
    except OperationalError as error:
        connection.rollback()
        raise lock_timeout(
            seconds, f"the process that writes to {connection.engine.url.database} (fuser shows it)"
        ) from error
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")


def _poll(connection: Connection, lock: ColumnElement[bool], seconds: float, *, end: bool) -> None:
    deadline = time.monotonic() + seconds
    while not connection.scalar(select(lock)):
        if time.monotonic() > deadline:
            raise lock_timeout(seconds, _postgresql_holder(connection))
        if end:
            connection.rollback()
        pause(connection, _PAUSE)


def _postgresql_holder(connection: Connection) -> str:
    holders = connection.execute(
        text(
            "SELECT l.pid, a.usename, a.application_name, a.client_addr FROM pg_locks l"
            " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
            " JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            " AND (CAST(l.classid AS bigint) << 32) + CAST(l.objid AS bigint) = :number"
        ),
        {"number": _LOCK_NUMBER},
    )
    return " and ".join(
        f"backend {row.pid} (user {row.usename}, application {row.application_name!r},"
        f" from {row.client_addr or 'this machine'};"
        f" SELECT pg_terminate_backend({row.pid}) ends it)"
        for row in holders
    )


def _mysql_holder(connection: Connection, name: ColumnElement[str]) -> str:
    holder = connection.scalar(select(func.is_used_lock(name)))
    # MySQL's information_schema.processlist fails while any session's statement is not valid UTF-8.
    rows = connection.execute(text("SHOW PROCESSLIST"))
    who = next((f" (user {row[1]}, from {row[2]})" for row in rows if row[0] == holder), "")
    return f"connection {holder}{who}; KILL {holder} ends it"
