"""Statements on the driver's cursor: SQLAlchemy compiles each once, the driver executes it.

`Connection.execute` makes a cache key, an execution context, a result and its rows at each call.
For a get_tuple that costs as much again as the driver does. Here the text, the parameters and the
cursor are the same, and the rows are the driver's tuples. The pool and the errors stay
SQLAlchemy's.

A `Connection` and its transaction cost as much as the pool does. A `PooledConnection` stands in for
it, and makes one when a statement needs it.

A statement goes through `Connection.execute` where somebody watches (a listener of the engine's
events, `echo`), where the connection is the caller's, with any driver that isn't named here, and
where a pool leaves open what the first statement began.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Float, LargeBinary
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from enum import Enum

    from sqlalchemy import Dialect, Engine, Executable, Pool
    from sqlalchemy.engine.interfaces import IsolationLevel

    Rows: TypeAlias = Sequence[Sequence[Any]]
    Parameters: TypeAlias = Mapping[str, Any]
    Calls: TypeAlias = Sequence[tuple[str, Sequence[Any]]]
    """Statements with their parameters, row by row, as the driver takes them."""

PSYCOPG = frozenset({"psycopg", "psycopg_async"})

_DRIVERS = PSYCOPG | frozenset(
    {
        "pysqlite",
        "aiosqlite",
        "asyncpg",
        "pymysql",
        "aiomysql",
        "asyncmy",
    }
)
"""The drivers whose cursors this module was tested with."""

_SCHEMA = "checkpoint_sa_placeholder"
"""Stands for the schema in the text of a statement, which is compiled once for all schemas."""

_EVENTS = (
    "before_cursor_execute",
    "after_cursor_execute",
    "before_execute",
    "after_execute",
    "engine_connect",
    "begin",
    "commit",
    "rollback",
)
"""The events of which a `PooledConnection` doesn't tell."""

_DRIVER_EVENTS = ("do_execute", "do_executemany", "handle_error")


class CursorEngine:
    """Opens connections with statements on the driver's cursor, unless somebody watches them.

    Args:
        engine: An engine of ours, on the pool of `watched`.
        watched: The user's engine, whose listeners must see each statement.
        level: The isolation level of the connections; None is that of the engine.
        begins: Whether the first statement of a connection begins a transaction. Unless the
            operation ends it, the pool does.
    """

    def __init__(
        self, engine: Engine, watched: Engine, *, level: IsolationLevel | None = None, begins: bool
    ) -> None:
        dialect, pool = engine.dialect, engine.pool
        self.through_sqlalchemy = (
            engine if level is None else engine.execution_options(isolation_level=level)
        )
        self._engine = engine
        self._level = level
        self._watched = watched
        self._compiled = _caches.setdefault(pool, {})
        self._has_cursors = (
            dialect.driver in _DRIVERS
            and type(dialect).__module__.startswith("sqlalchemy.")
            and (not begins or _rolls_back(pool))
        )

    def connect(self) -> Connection:
        """Open a connection for an operation, or what stands in for it."""
        if not self._has_cursors or self._is_watched():
            return self.through_sqlalchemy.connect()
        return cast("Connection", PooledConnection(self._engine, self._compiled, self._level))

    def _is_watched(self) -> bool:
        watched = self._watched
        dialect = watched.dialect
        return (
            watched.logger.isEnabledFor(logging.INFO)
            or has_listeners(Connection)
            or (has_listeners(watched) and any(getattr(watched.dispatch, e) for e in _EVENTS))
            or (
                has_listeners(dialect) and any(getattr(dialect.dispatch, e) for e in _DRIVER_EVENTS)
            )
        )


def has_listeners(owner: Engine | Connection | type[Connection] | Dialect) -> bool:
    """Whether an owner of events has ever had a listener.

    SQLAlchemy has no public name for it. To look at an event takes ten times as long.
    """
    return getattr(owner, "_has_events", True)


def _rolls_back(pool: Pool) -> bool:
    """Whether a pool rolls back each connection that is returned, as it does by default."""
    # SQLAlchemy has no public name for it either.
    found: Enum | None = getattr(pool, "_reset_on_return", None)
    return found is not None and found.name == "reset_rollback"


class PooledConnection:
    """A connection of the pool that stands in for a SQLAlchemy `Connection`.

    It has the attributes of a `Connection` that a transaction of ours needs. Any other comes from a
    `Connection` on the same connection of the pool, which is made for it.

    Args:
        engine: The engine.
        compiled: The compiled statements of its pool.
        level: The isolation level until it is closed; None is that of the engine.
    """

    __slots__ = ("_full", "_is_open", "_level", "compiled", "connection", "dialect", "engine")

    def __init__(
        self,
        engine: Engine,
        compiled: dict[Any, _Compiled | None],
        level: IsolationLevel | None,
    ) -> None:
        self.engine = engine
        self.dialect = dialect = engine.dialect
        self.compiled = compiled
        self._full: Connection | None = None
        self._is_open = False
        """Whether a transaction was begun, and has not ended."""
        self._level = level
        try:
            self.connection = engine.raw_connection()
            if level is not None:
                self._set_level(level)
        except dialect.loaded_dbapi.Error as error:
            # As `Connection` does; SQLAlchemy has no public name for it. It always raises.
            refuse: Any = Connection._handle_dbapi_exception_noconnection  # noqa: SLF001
            refuse(error, dialect, engine)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.full, name)

    def _set_level(self, level: IsolationLevel | None) -> None:
        """Set the isolation level, or that of the engine; drop a connection that stays between."""
        dbapi_connection: Any = self.connection.dbapi_connection
        try:
            if level is None:
                self.dialect.reset_isolation_level(dbapi_connection)
            else:
                self.dialect.set_isolation_level(dbapi_connection, level)
        except BaseException as error:
            self.invalidate(error)
            raise

    @property
    def full(self) -> Connection:
        """A SQLAlchemy connection on this one, which ends with it."""
        if self._full is None:
            self._full = Connection(self.engine, connection=self.connection)
            self._full.begin()  # without it, SQLAlchemy rolls back at each error
        return self._full

    @property
    def invalidated(self) -> bool:
        """Whether the connection was lost, or dropped."""
        return not self.connection.is_valid

    def invalidate(self, exception: BaseException | None = None) -> None:
        """Drop the connection."""
        self.full.invalidate(exception)

    def check(self) -> None:
        """Refuse to go on with a connection that was lost, as `Connection` does.

        Raises:
            PendingRollbackError: The connection was lost, and the transaction with it.
        """
        if self.invalidated:
            raise PendingRollbackError("The connection was lost, and the transaction with it.")

    def get_execution_options(self) -> Mapping[str, Any]:
        """Return the options of the engine, with the isolation level of this connection."""
        options = self.engine.get_execution_options()
        return options if self._level is None else {**options, "isolation_level": self._level}

    def begin(self) -> None:
        """Begin a transaction, as a driver does at the next statement."""
        self._is_open = True

    def commit(self) -> None:
        """Commit the driver's transaction.

        Raises:
            DBAPIError: It wasn't committed, or the answer was lost.
            PendingRollbackError: The connection was lost before.
        """
        self.check()
        try:
            self.dialect.do_commit(self.connection)
        except BaseException as error:
            _raise(self.full, error, None)
            raise
        self._is_open = False

    def rollback(self) -> None:
        """Roll the driver's transaction back; a connection that can't is dropped."""
        if not self.invalidated:
            try:
                self.connection.rollback()
            except self.dialect.loaded_dbapi.Error as error:
                self.invalidate(error)
        self._is_open = False

    def close(self) -> None:
        """Return the connection to the pool as it was, or drop it."""
        if self._is_open and not self.invalidated:
            self.invalidate()  # the rollback was interrupted
        # No transaction is open here: on MySQL, a change of autocommit would commit it.
        if self._level is not None and not self.invalidated:
            with suppress(self.dialect.loaded_dbapi.Error):  # what was committed, is
                self._set_level(None)
        if not self.invalidated:
            self.connection.close()


AnyConnection: TypeAlias = "Connection | PooledConnection"


def full(connection: AnyConnection) -> Connection:
    """Return SQLAlchemy's own connection, as `inspect` wants it."""
    return connection.full if isinstance(connection, PooledConnection) else connection


def fetch_all(connection: AnyConnection, statement: Executable, parameters: Parameters) -> Rows:
    """Execute a statement, and return its rows."""
    if isinstance(connection, PooledConnection):
        found = _prepare(connection, statement, parameters)
        if found is not None:
            text, compiled = found
            rows = _execute(connection, text, compiled.bind(parameters))
            return compiled.decode(rows) if compiled.decoders else rows
    return connection.execute(statement, parameters).all()


def execute(connection: AnyConnection, statement: Executable, rows: Sequence[Parameters]) -> None:
    """Execute a statement that returns nothing, once for each row of parameters."""
    if isinstance(connection, PooledConnection):
        found = _prepare(connection, statement, rows[0])
        if found is not None:
            text, compiled = found
            if len(rows) == 1:
                _execute(connection, text, compiled.bind(rows[0]), fetch=False)
            else:
                _execute(connection, text, [*map(compiled.bind, rows)], many=True, fetch=False)
            return
    connection.execute(statement, rows if len(rows) > 1 else rows[0])


def execute_together(
    connection: AnyConnection, statements: Sequence[tuple[Executable, Sequence[Parameters]]]
) -> None:
    """Execute statements that return nothing in one round trip after BEGIN's, if `has_pipeline`.

    In psycopg's pipeline mode a statement is sent before the result of the one before has arrived.
    Under READ COMMITTED each sees what was committed before the server began it. The first error
    ends them all.
    """
    if not isinstance(connection, PooledConnection) or not (
        calls := _prepare_all(connection, statements)
    ):
        for statement, rows in statements:
            execute(connection, statement, rows)
        return
    connection.check()
    driver_connection: Any = connection.connection.driver_connection
    try:
        if connection.dialect.is_async:
            await_only(_send_async(driver_connection, calls))
        else:
            _send(driver_connection, calls)
    except BaseException as error:
        _raise(connection.full, error, ";\n".join(dict.fromkeys(text for text, _ in calls)))
        raise


def _prepare_all(
    connection: PooledConnection, statements: Sequence[tuple[Executable, Sequence[Parameters]]]
) -> Calls:
    """Return all statements as the driver takes them; none if one can't go to the cursor."""
    calls: list[tuple[str, Sequence[Any]]] = []
    for statement, rows in statements:
        found = _prepare(connection, statement, rows[0])
        if found is None:
            return []
        text, compiled = found
        calls.append((text, [*map(compiled.bind, rows)]))
    return calls


def has_pipeline(dialect: Dialect) -> bool:
    """Whether several statements can be sent in one round trip."""
    driver: Any = dialect.loaded_dbapi
    return dialect.driver in PSYCOPG and bool(driver.Pipeline.is_supported())


def execute_text(connection: AnyConnection, text: str) -> None:
    """Execute a statement of the driver's SQL that has neither parameters nor rows."""
    if isinstance(connection, PooledConnection):
        _execute(connection, text, (), fetch=False)
    else:
        connection.exec_driver_sql(text)


# Statements, compiled


class _Compiled(NamedTuple):
    """The text of a statement for one dialect and schema, and its parameters and columns."""

    text: str
    names: Sequence[str] | None
    """The parameters in their order; None where the driver takes them by name."""
    constants: dict[str, Any]
    """The parameters that the statement itself has."""
    encoders: Sequence[tuple[str, Callable[[Any], Any]]]
    """How the types of parameters bind a value, where they change it."""
    decoders: Sequence[tuple[int, Callable[[Any], Any]]]
    """How the types of columns read a value, where they change it."""

    def bind(self, parameters: Parameters) -> Any:
        """Return the parameters as the driver takes them."""
        values = {**self.constants, **parameters}
        for name, encode in self.encoders:
            values[name] = encode(values[name])
        return values if self.names is None else tuple([values[name] for name in self.names])

    def decode(self, rows: Rows) -> Rows:
        """Return the rows with the values that their columns' types make of the driver's."""
        decoded = [list(row) for row in rows]
        for row in decoded:
            for i, decode in self.decoders:
                row[i] = decode(row[i])
        return decoded


_caches: WeakKeyDictionary[Pool, dict[Any, _Compiled | None]] = WeakKeyDictionary()


def _prepare(
    connection: PooledConnection, statement: Executable, parameters: Parameters
) -> tuple[str, _Compiled] | None:
    """Return a statement and its text, with the schema of the connection.

    Returns None where it must go through `Connection.execute`.
    """
    schemas = connection.get_execution_options().get("schema_translate_map")
    schema: str | None = schemas.get(None) if schemas else None
    # An INSERT has the columns that it gets values for.
    key = statement, schema is None, *parameters
    try:
        compiled = connection.compiled[key]
    except KeyError:
        dialect = connection.dialect
        compiled = _compile(dialect, statement, [*parameters], has_schema=schema is not None)
        connection.compiled[key] = compiled
    if compiled is None:
        return None
    if schema is None:
        return compiled.text, compiled
    quoted = connection.dialect.identifier_preparer.quote_schema(schema)
    return compiled.text.replace(_SCHEMA, quoted), compiled


def _compile(
    dialect: Dialect, statement: Any, names: list[str], *, has_schema: bool
) -> _Compiled | None:
    """Compile a statement; None where its text depends on the values of its parameters."""
    compiled = statement.compile(
        dialect=dialect,
        column_keys=names,
        schema_translate_map={None: _SCHEMA} if has_schema else None,
        render_schema_translate=has_schema,
    )
    if compiled.post_compile_params or compiled.literal_execute_params:
        return None
    encoders = {  # a parameter that stands twice is bound once
        name: encode
        for parameter, name in compiled.bind_names.items()
        # These drivers take bytes, and give bytes.
        if not isinstance(impl := parameter.type.dialect_impl(dialect), LargeBinary)
        and (encode := impl.bind_processor(dialect))
    }
    columns = [column.type for column in getattr(statement, "selected_columns", ())]
    return _Compiled(
        compiled.string,
        compiled.positiontup if compiled.positional else None,
        {name: value for name, value in compiled.params.items() if name not in names},
        [*encoders.items()],
        [
            (i, decode)
            for i, type_ in enumerate(columns)
            # They give floats for numbers of double precision.
            if not isinstance(type_, Float)
            and not isinstance(impl := type_.dialect_impl(dialect), LargeBinary)
            and (decode := impl.result_processor(dialect, None))
        ],
    )


# The driver


def ask_for_binary(cursor: Any) -> None:
    """Have psycopg read results in binary form: as text, bytes are twice as long."""
    cursor = getattr(cursor, "_cursor", cursor)
    if not hasattr(cursor, "mogrify"):  # cursors that bind on the client know text only
        cursor.format = 1


def _execute(
    connection: PooledConnection,
    text: str,
    parameters: Any,
    *,
    many: bool = False,
    fetch: bool = True,
) -> Rows:
    """Execute a statement on the cursor of a connection.

    Raises:
        DBAPIError: As from `Connection.execute`; the connection is invalidated where it was lost.
    """
    dialect: Any = connection.dialect
    cursor: Any = None
    connection.check()
    try:
        if dialect.driver == "aiosqlite" and not many:
            return _aiosqlite_rows(connection, text, parameters)
        cursor = connection.connection.cursor()
        if dialect.driver == "asyncpg":
            # As SQLAlchemy's execution context does, so that plans are made anew after a DDL.
            cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof  # noqa: SLF001
        elif dialect.driver in PSYCOPG:
            ask_for_binary(cursor)
        if many:
            cursor.executemany(text, parameters)
        else:
            cursor.execute(text, parameters)
        rows = cursor.fetchall() if fetch else ()
        cursor.close()
    except BaseException as error:
        _raise(connection.full, error, text, cursor)
        raise
    return rows


def _raise(
    connection: Connection, error: BaseException, text: str | None, cursor: Any = None
) -> None:
    """Raise the error of a statement, or of a commit, as `Connection.execute` does.

    Raises:
        DBAPIError: The error is the driver's; a lost connection is invalidated.
    """
    dialect: Any = connection.dialect
    driver = dialect.loaded_dbapi
    is_drivers = isinstance(error, driver.Error)
    if dialect.driver == "asyncpg" and isinstance(
        error, driver.InvalidCachedStatementError | driver.InternalServerError
    ):
        dialect._invalidate_schema_cache()  # noqa: SLF001
    # SQLAlchemy has no public name for it: it makes a DBAPIError of the driver's error, tells
    # listeners, and invalidates a lost connection. It always raises.
    handle: Any = connection._handle_dbapi_exception  # noqa: SLF001
    handle(error, text if is_drivers else None, None, cursor, None)


def _send(connection: Any, calls: Calls) -> None:
    with connection.pipeline(), connection.cursor() as cursor:
        for text, rows in calls:
            if len(rows) == 1:
                cursor.execute(text, rows[0])
            else:
                cursor.executemany(text, rows)


async def _send_async(connection: Any, calls: Calls) -> None:
    async with connection.pipeline(), connection.cursor() as cursor:
        for text, rows in calls:
            if len(rows) == 1:
                await cursor.execute(text, rows[0])
            else:
                await cursor.executemany(text, rows)


def _aiosqlite_rows(connection: PooledConnection, text: str, parameters: Any) -> Rows:
    """Execute a statement with one hop between threads; a cursor takes four."""
    driver_connection: Any = connection.connection.driver_connection
    try:
        rows: Rows = await_only(driver_connection.execute_fetchall(text, parameters))
    except ValueError as error:  # the connection was closed
        driver: Any = connection.dialect.loaded_dbapi
        # SQLAlchemy 2.0 and 2.1 know by this text that the connection is lost.
        raise driver.OperationalError("no active connection") from error
    return rows
