"""Statements on the driver's cursor: SQLAlchemy compiles each once, the driver executes it.

`Connection.execute` makes a cache key, an execution context, a result and its rows at each call.
For a get_tuple that costs as much again as the driver does. Here the text, the parameters and the
cursor are the same, and the rows are the driver's tuples. The pool, transactions and errors stay
SQLAlchemy's.

A statement goes through `Connection.execute` where somebody watches (a listener of the engine's
events, `echo`), where the connection is the caller's, and with any driver that isn't named here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Float, LargeBinary
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection, Dialect, Engine, Executable, Pool

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

_OPTION = "checkpoint_sa_cursor"
"""The execution option that has the `_Statements` of a connection."""

_SCHEMA = "checkpoint_sa_placeholder"
"""Stands for the schema in the text of a statement, which is compiled once for all schemas."""


class _Statements(NamedTuple):
    """The compiled statements of a pool."""

    compiled: dict[Any, _Compiled | None]
    begins: bool
    """Whether the first statement begins a transaction."""


class CursorEngine:
    """Opens connections with statements on the driver's cursor, unless somebody watches them.

    Args:
        engine: An engine of ours, on the pool of `watched`.
        watched: The user's engine, whose listeners must see each statement.
        begins: Whether the first statement of a connection begins a transaction.
    """

    def __init__(self, engine: Engine, watched: Engine, *, begins: bool) -> None:
        dialect = engine.dialect
        self._watched = watched
        self._through_sqlalchemy = self._on_cursor = engine
        if dialect.driver in _DRIVERS and type(dialect).__module__.startswith("sqlalchemy."):
            statements = _Statements(_caches.setdefault(engine.pool, {}), begins)
            self._on_cursor = engine.execution_options(**{_OPTION: statements})

    def connect(self) -> Connection:
        """Open a connection for an operation."""
        return (self._through_sqlalchemy if self._is_watched() else self._on_cursor).connect()

    def _is_watched(self) -> bool:
        events, driver_events = self._watched.dispatch, self._watched.dialect.dispatch
        return bool(
            events.before_cursor_execute
            or events.after_cursor_execute
            or events.before_execute
            or events.after_execute
            or events.begin
            or driver_events.do_execute
            or driver_events.do_executemany
            or driver_events.handle_error
            or self._watched.logger.isEnabledFor(logging.INFO)
        )


def fetch_all(connection: Connection, statement: Executable, parameters: Parameters) -> Rows:
    """Execute a statement, and return its rows."""
    found = _prepare(connection, statement, parameters)
    if found is None:
        return connection.execute(statement, parameters).all()
    text, compiled = found
    rows = _execute(connection, text, compiled.bind(parameters))
    return compiled.decode(rows) if compiled.decoders else rows


def execute(connection: Connection, statement: Executable, rows: Sequence[Parameters]) -> None:
    """Execute a statement that returns nothing, once for each row of parameters."""
    found = _prepare(connection, statement, rows[0])
    if found is None:
        connection.execute(statement, rows if len(rows) > 1 else rows[0])
        return
    text, compiled = found
    if len(rows) == 1:
        _execute(connection, text, compiled.bind(rows[0]), fetch=False)
    else:
        _execute(connection, text, [*map(compiled.bind, rows)], many=True, fetch=False)


def execute_together(
    connection: Connection, statements: Sequence[tuple[Executable, Sequence[Parameters]]]
) -> None:
    """Execute statements that return nothing in one round trip after BEGIN's, if `has_pipeline`.

    In psycopg's pipeline mode a statement is sent before the result of the one before has arrived.
    Under READ COMMITTED each sees what was committed before the server began it. The first error
    ends them all.
    """
    calls: list[tuple[str, Sequence[Any]]] = []
    for statement, rows in statements:
        found = _prepare(connection, statement, rows[0])
        if found is not None:
            text, compiled = found
            calls.append((text, [*map(compiled.bind, rows)]))
    if len(calls) < len(statements):  # some must go through Connection.execute, in their order
        for statement, rows in statements:
            execute(connection, statement, rows)
        return
    _begin(connection)
    driver_connection: Any = connection.connection.driver_connection
    try:
        if connection.dialect.is_async:
            await_only(_send_async(driver_connection, calls))
        else:
            _send(driver_connection, calls)
    except BaseException as error:
        _raise(connection, error, ";\n".join(dict.fromkeys(text for text, _ in calls)))
        raise


def has_pipeline(dialect: Dialect) -> bool:
    """Whether several statements can be sent in one round trip."""
    driver: Any = dialect.loaded_dbapi
    return dialect.driver in PSYCOPG and bool(driver.Pipeline.is_supported())


def execute_text(connection: Connection, text: str) -> None:
    """Execute a statement of the driver's SQL that has neither parameters nor rows."""
    if _OPTION in connection.get_execution_options():
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
    connection: Connection, statement: Executable, parameters: Parameters
) -> tuple[str, _Compiled] | None:
    """Return a statement and its text, with the schema of the connection.

    Returns None where it must go through `Connection.execute`.
    """
    options = connection.get_execution_options()
    statements: _Statements | None = options.get(_OPTION)
    if statements is None:
        return None
    schemas = options.get("schema_translate_map")
    schema: str | None = schemas.get(None) if schemas else None
    # An INSERT has the columns that it gets values for.
    key = statement, schema is None, *parameters
    try:
        compiled = statements.compiled[key]
    except KeyError:
        compiled = _compile(connection, statement, [*parameters], has_schema=schema is not None)
        statements.compiled[key] = compiled
    if compiled is None:
        return None
    if schema is None:
        return compiled.text, compiled
    quoted = connection.dialect.identifier_preparer.quote_schema(schema)
    return compiled.text.replace(_SCHEMA, quoted), compiled


def _compile(
    connection: Connection, statement: Any, names: list[str], *, has_schema: bool
) -> _Compiled | None:
    """Compile a statement; None where its text depends on the values of its parameters."""
    dialect = connection.dialect
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
        if (encode := parameter.type.dialect_impl(dialect).bind_processor(dialect))
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
            # These drivers give bytes for bytes, and floats for numbers of double precision.
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
    connection: Connection, text: str, parameters: Any, *, many: bool = False, fetch: bool = True
) -> Rows:
    """Execute a statement on the cursor of a connection.

    Raises:
        DBAPIError: As from `Connection.execute`; the connection is invalidated where it was lost.
    """
    dialect: Any = connection.dialect
    cursor: Any = None
    _begin(connection)
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
        _raise(connection, error, text, cursor)
        raise
    return rows


def _begin(connection: Connection) -> None:
    """Begin a transaction as `Connection.execute` does; the connection's end ends it."""
    if connection.get_execution_options()[_OPTION].begins and not connection.in_transaction():
        connection.begin()


def _raise(connection: Connection, error: BaseException, text: str, cursor: Any = None) -> None:
    """Raise the error of a statement as `Connection.execute` does.

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


def _aiosqlite_rows(connection: Connection, text: str, parameters: Any) -> Rows:
    """Execute a statement with one hop between threads; a cursor takes four."""
    driver_connection: Any = connection.connection.driver_connection
    try:
        rows: Rows = await_only(driver_connection.execute_fetchall(text, parameters))
    except ValueError as error:  # the connection was closed
        driver: Any = connection.dialect.loaded_dbapi
        # SQLAlchemy 2.0 and 2.1 know by this text that the connection is lost.
        raise driver.OperationalError("no active connection") from error
    return rows
