"""Transactions: when an operation needs them, and how they begin and end on each driver."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from checkpoint_sa.engine.cursors import (
    PSYCOPG,
    PooledConnection,
    ask_for_binary,
    execute_text,
    has_listeners,
)
from checkpoint_sa.engine.engines import translation
from checkpoint_sa.engine.faults import ELSEWHERE, classify_error
from checkpoint_sa.errors import ConfigurationError
from checkpoint_sa.types import MYSQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import IsolationLevel

    from checkpoint_sa.engine.cursors import AnyConnection, CursorEngine

C = TypeVar("C", Connection, PooledConnection)
P = ParamSpec("P")
T = TypeVar("T")

_FREE_AUTOCOMMIT = PSYCOPG | {"asyncpg"}


def has_free_autocommit(engine: Engine) -> bool:
    """Whether the driver's autocommit costs no round trip, and the engine leaves the choice to us.

    With psycopg and asyncpg it is a flag in the driver, and saves two of three round trips. psycopg
    also forgets its prepared statements at each ROLLBACK. With other drivers, switching costs more
    than it saves (seven round trips for three on the MySQL family). An engine with an isolation
    level of its own keeps it: SERIALIZABLE counts for all operations, and behind a pooler in
    transaction mode asyncpg's statements need a transaction around them.
    """
    return _isolation_level(engine) is None and engine.dialect.driver in _FREE_AUTOCOMMIT


def reading_engine(engine: Engine) -> Engine:
    """Return the engine for reads; psycopg returns their results in binary form."""
    if engine.dialect.driver in PSYCOPG:
        engine = engine.execution_options()  # the listener is for our statements only
        event.listen(engine, "before_cursor_execute", _ask_for_binary)
    return engine


def _ask_for_binary(_: Connection, cursor: Any, *__: Any) -> None:
    ask_for_binary(cursor)


def has_begin_listener(owner: Engine | Connection) -> bool:
    """Whether a user's listener takes part in beginning transactions: it may send BEGIN."""
    return has_listeners(owner) and bool(owner.dispatch.begin)


def transactional(engine: Engine) -> Engine:
    """Return the engine, with transactions where it was made for AUTOCOMMIT."""
    level = _level_of_transactions(engine)
    return engine if level is None else engine.execution_options(isolation_level=level)


def _level_of_transactions(engine: Engine) -> IsolationLevel | None:
    """Return the isolation level of transactions; None is that of the engine."""
    if not is_autocommit(engine):
        return None
    return "SERIALIZABLE" if engine.dialect.name == "sqlite" else "READ COMMITTED"


def writing_level(engine: Engine) -> IsolationLevel | None:
    """Return the isolation level of writes; None if `BEGIN` costs less than leaving AUTOCOMMIT."""
    if engine.dialect.name == "sqlite" or (
        engine.dialect.name in MYSQL_FAMILY and engine.dialect.skip_autocommit_rollback
    ):
        return None
    return _level_of_transactions(engine)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Open a connection whose statements all see the same rows."""
    with transactional(engine).connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def in_transaction(
    connection: C,
    function: Callable[Concatenate[C, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a function in a transaction of ours that is going to write."""
    if isinstance(connection, PooledConnection):
        connection.begin()
        try:
            begin_write(connection)
            done = function(connection, *args, **kwargs)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        return done
    connection.commit()  # a listener's statement may have begun a transaction
    transaction = connection.begin()
    try:
        begin_write(connection)
        result = function(connection, *args, **kwargs)
        transaction.commit()
    except BaseException:
        if is_autocommit(connection) and not connection.invalidated:
            # SQLAlchemy doesn't know of this transaction, so it wouldn't end it.
            try:
                connection.connection.rollback()
            except connection.dialect.loaded_dbapi.Error:
                connection.invalidate()
        with suppress(DBAPIError):  # the connection is lost, and the transaction with it
            transaction.rollback()  # close() doesn't end it after an interrupted commit
        raise
    return result


def _isolation_level(owner: Engine | AnyConnection) -> str | None:
    """Return the isolation level of an engine or a connection; None for the server's default."""
    level: str | None = owner.get_execution_options().get("isolation_level")
    # SQLAlchemy has no public name for the level of create_engine(isolation_level=...).
    level = level or getattr(owner.dialect, "_on_connect_isolation_level", None)
    return level and level.replace("_", " ").upper()  # as SQLAlchemy reads it


def is_autocommit(owner: Engine | AnyConnection) -> bool:
    """Whether each statement commits by itself."""
    return _isolation_level(owner) == "AUTOCOMMIT"


def check_connection(connection: Connection) -> None:
    """Refuse a connection that can't hold a transaction.

    Raises:
        ConfigurationError: It is in AUTOCOMMIT mode.
    """
    if is_autocommit(connection):
        raise ConfigurationError(
            "This connection is in AUTOCOMMIT mode, so a checkpoint couldn't be stored as a whole."
            " Pass the engine, or a connection with transactions."
        )


@contextmanager
def using_schema(connection: Connection, *, schema: str | None) -> Iterator[None]:
    """Put our tables into a schema on a connection of the caller's, for one operation."""
    if schema is None:
        yield
        return
    before = connection.get_execution_options().get("schema_translate_map")
    connection.execution_options(schema_translate_map=translation(connection, schema))
    try:
        yield
    finally:
        connection.execution_options(schema_translate_map=before)


def begin_write(connection: AnyConnection) -> None:
    """Begin a transaction that is going to write, unless the driver begins it.

    On SQLite it takes the write lock. By itself SQLite takes the lock at the first change. A
    transaction that has read before can't wait for another writer then: it fails at once with
    "database is locked".
    """
    if connection.dialect.name == "sqlite":
        driver_connection: Any = connection.connection.driver_connection
        if not driver_connection.in_transaction:
            execute_text(connection, "BEGIN IMMEDIATE")
    elif is_autocommit(connection) or _driver_commits(connection):
        execute_text(connection, "BEGIN")


def _driver_commits(connection: AnyConnection) -> bool:
    """Whether a MySQL connection was opened with `autocommit`, without SQLAlchemy's knowledge."""
    driver_connection: Any = connection.connection.driver_connection
    asked = getattr(driver_connection, "get_autocommit", None)
    return connection.dialect.name in MYSQL_FAMILY and asked is not None and bool(asked())


def connected(
    engine: CursorEngine,
    function: Callable[Concatenate[Connection, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a function with a connection; if its server can't be used any more, drop the pool's.

    Otherwise the pool would give them out as long as they are open, and never ask the address anew.
    """
    connection = engine.connect()
    try:
        return function(connection, *args, **kwargs)
    except DBAPIError as error:
        if classify_error(error) in ELSEWHERE and not connection.invalidated:
            # As SQLAlchemy does for a lost connection: connections of the same age go too.
            pool = connection.engine.pool
            pool._invalidate(connection.connection, error)  # noqa: SLF001
            connection.invalidate(error)
        raise
    finally:
        connection.close()


def committing_each(
    connection: C,
    function: Callable[Concatenate[C, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a function, each statement of which the driver commits.

    The flag is set on the driver's connection. SQLAlchemy's `isolation_level` also resets the level
    at each return, which took 9 of 20 us with psycopg.
    """
    dbapi_connection: Any = connection.connection.dbapi_connection
    before = dbapi_connection.autocommit
    dbapi_connection.commit()  # a listener's statement may have begun a transaction
    dbapi_connection.autocommit = True
    try:
        result = function(connection, *args, **kwargs)
    except BaseException:
        if not connection.invalidated:
            try:
                dbapi_connection.autocommit = before
            except connection.dialect.loaded_dbapi.Error:
                connection.invalidate()
        raise
    if not isinstance(connection, PooledConnection):
        connection.commit()  # sends nothing; a log says COMMIT, not ROLLBACK
    dbapi_connection.autocommit = before
    return result
