"""URLs, and the engines that we make or are given.

Engines that we make hide statement parameters, so that no state shows up in an exception or a log.
Engines that users make stay as they are.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

from sqlalchemy import (
    BINARY,
    Engine,
    Text,
    bindparam,
    create_engine,
    event,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy import cast as cast_to
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool, SingletonThreadPool

from checkpoint_sa.engine import binds
from checkpoint_sa.errors import ConfigurationError, MissingDriverError
from checkpoint_sa.types import MYSQL_FAMILY, POSTGRESQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql.elements import ColumnElement


Colour = Literal["sync", "async"]


class _Drivers(NamedTuple):
    sync: str
    async_: str


_DEFAULTS = {
    "sqlite": _Drivers("pysqlite", "aiosqlite"),
    "postgresql": _Drivers("psycopg", "psycopg"),
    "mysql": _Drivers("pymysql", "aiomysql"),
    "mariadb": _Drivers("pymysql", "aiomysql"),
}
"""The drivers for a URL without a driver."""

_ALIASES = {"postgres": "postgresql"}
"""Names that people write; LangGraph's own guides do."""

_MODULES = {
    "psycopg": "psycopg",
    "asyncpg": "asyncpg",
    "aiosqlite": "aiosqlite",
    "pymysql": "pymysql",
    "aiomysql": "aiomysql",
    "asyncmy": "asyncmy",
}
"""The drivers that have an extra, and their modules."""

_ASYNCPG_OWN = frozenset({"prepared_statement_cache_size", "prepared_statement_name_func"})
"""Parameters of SQLAlchemy's asyncpg dialect; the others of a URL are libpq's."""

_ASYNCPG_LACKS = frozenset(
    {
        "channel_binding",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "tcp_user_timeout",
    }
)
"""libpq's parameters that have no counterpart in asyncpg, which would send them to the server."""

_READS = "checkpoint_sa_reads"
"""A parameter of SQLite's URLs that `read_only` makes; SQLite ignores it."""

_BUSY_MILLISECONDS = 30_000

_POOL_SIZE = 10
"""Connections of an engine that we make; without a free connection, operations wait in line."""

_OURS_ARE_AUTOCOMMIT = ("sqlite", "postgresql", *MYSQL_FAMILY)


def parse_url(url: str | URL, colour: Colour) -> URL:
    """Return a URL with a driver of the right colour; a URL without a driver gets our default.

    Raises:
        ConfigurationError: It isn't a URL, or names a driver of the other colour.
        MissingDriverError: The driver isn't installed.
    """
    parsed = url_of(url)
    backend, _, driver = parsed.drivername.partition("+")
    backend = _ALIASES.get(backend, backend)
    if not driver and backend in _DEFAULTS:
        defaults = _DEFAULTS[backend]
        driver = defaults.async_ if colour == "async" else defaults.sync
    parsed = parsed.set(drivername=f"{backend}+{driver}" if driver else backend)
    module = _MODULES.get(driver)
    if module and importlib.util.find_spec(module) is None:
        raise MissingDriverError(
            f"{redacted(parsed)} needs the driver {driver}, which isn't installed."
            f' Install it: pip install "langgraph-checkpoint-sa[{driver}]".'
        )
    dialect = _dialect(parsed)
    if dialect.is_async and colour == "sync":
        raise ConfigurationError(
            f"{redacted(parsed)} names an async driver, and this saver is not async."
            f" Use {_other(backend, 'sync')}, or AsyncSQLAlchemySaver."
        )
    if colour == "async" and not (dialect.is_async or driver == "psycopg"):
        raise ConfigurationError(
            f"{redacted(parsed)} names a driver that isn't async, and this saver is."
            f" Use {_other(backend, 'async')}, or SQLAlchemySaver."
        )
    return parsed


def url_of(url: str | URL) -> URL:
    """Return a URL as an object.

    Raises:
        ConfigurationError: It isn't a URL.
    """
    if not isinstance(url, str | URL):
        raise ConfigurationError(
            f"Expected a database URL, such as postgresql://app@localhost/app, this is"
            f" {binds.name_of(url)}. An engine or a connection of SQLAlchemy is passed to the"
            " saver's class itself: SQLAlchemySaver(engine)."
        )
    try:
        return make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "This isn't a database URL (not shown: it may hold a password)."
            " Expected dialect://user:password@host/database, such as"
            " postgresql://app@localhost/app or sqlite:///app.db."
        ) from None


def is_async(url: str | URL) -> bool:
    """Whether a URL names a driver that only works with asyncio."""
    parsed = url_of(url)
    return "+" in parsed.drivername and _dialect(parsed).is_async


def _dialect(url: URL) -> type[Dialect]:
    """Return the dialect of a URL.

    Raises:
        ConfigurationError: There is no such dialect, or no such driver of it.
    """
    try:
        return url.get_dialect()
    except NoSuchModuleError:
        raise ConfigurationError(
            f"SQLAlchemy has no dialect {url.drivername!r} here, which {redacted(url)} names."
            " Expected one such as postgresql, mysql, mariadb or sqlite; another dialect comes with"
            " its own package."
        ) from None


def _other(backend: str, colour: Colour) -> str:
    if backend not in _DEFAULTS:
        return f"a driver of {backend} that is {colour}"
    driver = _DEFAULTS[backend].async_ if colour == "async" else _DEFAULTS[backend].sync
    more = " or postgresql+asyncpg://" if (backend, colour) == ("postgresql", "async") else ""
    return f"{backend}+{driver}://{more}"


def redacted(url: URL) -> str:
    """Return a URL without its password, for messages."""
    return url.render_as_string(hide_password=True)


def make_engine(url: str | URL, **options: Any) -> Engine:
    """Create an engine for a connection string; `options` are `create_engine`'s."""
    parsed = parse_url(url, "sync")
    with _needed_driver(parsed):
        engine = create_engine(parsed, **_options(parsed, QueuePool, options))
    _listen(engine)
    return engine


def make_async_engine(url: str | URL, **options: Any) -> AsyncEngine:
    """Create an async engine for a connection string; `options` are `create_async_engine`'s."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - imports the ORM

    parsed = parse_url(url, "async")
    if parsed.drivername.endswith("+asyncpg"):
        parsed, connect_args = _libpq_for_asyncpg(parsed)
        options["connect_args"] = {**connect_args, **options.get("connect_args", {})}
    with _needed_driver(parsed):
        engine = create_async_engine(parsed, **_options(parsed, AsyncAdaptedQueuePool, options))
    _listen(engine.sync_engine)
    return engine


@contextmanager
def _needed_driver(url: URL) -> Iterator[None]:
    """Have a driver without an extra of ours that isn't installed named in the error."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDriverError(
            f"{redacted(url)} needs the Python module {error.name}, which can't be imported."
            " Install the driver's package, or name another driver in the URL."
        ) from error


def _libpq_for_asyncpg(url: URL) -> tuple[URL, dict[str, Any]]:
    """Move libpq's parameters (`sslmode`, `application_name`, ...) into a DSN for asyncpg.

    asyncpg understands them there, several hosts as a list with commas. A single host, user and
    password stay in the URL.
    """
    own = {name: value for name, value in url.query.items() if name in _ASYNCPG_OWN}
    libpq = {
        name: value if isinstance(value, str) else ",".join(value)
        for name, value in url.query.items()
        if name not in _ASYNCPG_OWN and name not in _ASYNCPG_LACKS
    }
    connect_args: dict[str, Any] = {}
    if "connect_timeout" in libpq:
        connect_args["timeout"] = float(libpq.pop("connect_timeout"))
    if libpq:
        connect_args["dsn"] = f"postgresql://?{urlencode(libpq)}"
    return url.set(query=own), connect_args


def _options(url: URL, pool: type[QueuePool], options: dict[str, Any]) -> dict[str, Any]:
    backend = url.get_backend_name()
    defaults: dict[str, Any] = {"hide_parameters": True}
    if "poolclass" not in options:
        # No overflow: the pool closes such connections at their return, and opens them again.
        defaults |= {"pool_size": _POOL_SIZE, "max_overflow": 0}
    connect_args: dict[str, Any] = {}
    if backend in _OURS_ARE_AUTOCOMMIT:
        # An operation of one statement is one round trip then; others begin a transaction.
        defaults |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    if backend == "sqlite":
        connect_args["timeout"] = _BUSY_MILLISECONDS / 1000
        if is_memory(url):
            # The database is a single connection: operations use it in turn.
            defaults |= {"poolclass": pool, "pool_size": 1, "max_overflow": 0, "pool_timeout": None}
            connect_args["check_same_thread"] = False
    connect_args |= options.pop("connect_args", {})
    return {**defaults, **options, **({"connect_args": connect_args} if connect_args else {})}


def is_memory(url: URL) -> bool:
    """Whether a URL names an SQLite database that lives in a single connection."""
    database = url.database or ":memory:"
    return url.get_backend_name() == "sqlite" and (
        database == ":memory:" or url.query.get("mode") == "memory" or ":memory:" in database
    )


def _listen(engine: Engine) -> None:
    name = engine.dialect.name
    if name == "sqlite" and _READS in engine.url.query:
        at_connect(engine, "PRAGMA query_only=ON")
    elif name == "sqlite" and engine.url.query.get("mode") != "ro":
        # Readers and a writer at the same time; no effect on a database in memory.
        at_connect(engine, "PRAGMA journal_mode=WAL")
    elif name in MYSQL_FAMILY:
        # Their default, REPEATABLE READ, takes gap locks: writers of other threads deadlock.
        at_connect(engine, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")


def at_connect(engine: Engine, statement: str) -> None:
    """Execute a statement on each new connection."""

    def execute(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()

    event.listen(engine, "connect", execute)


def check_engine(engine: Engine) -> None:
    """Refuse an engine that would lose checkpoints; keep an engine from leaving SQLite locked.

    Raises:
        ConfigurationError: An SQLite database in memory with a connection for each Python thread.
    """
    if isinstance(engine.pool, SingletonThreadPool):
        raise ConfigurationError(
            "This SQLite engine gives each Python thread an empty database of its own, and"
            " LangGraph writes from several. Use SQLAlchemySaver.from_conn_string('sqlite://'), or"
            " create_engine('sqlite://', poolclass=sqlalchemy.pool.StaticPool,"
            " connect_args={'check_same_thread': False})."
        )
    if engine.dialect.name == "sqlite" and not event.contains(engine, "invalidate", _roll_back):
        event.listen(engine, "invalidate", _roll_back)


def _roll_back(connection: Any, _: object, __: object) -> None:
    """Release SQLite's lock before a cancelled connection is closed.

    A connection that is closed in the middle of a statement would keep its transaction until the
    garbage collector finds the cursor.
    """
    with suppress(Exception, asyncio.CancelledError):  # the cancellation itself goes on
        connection.rollback()


def in_schema(engine: Engine, schema: str | None) -> Engine:
    """Return the engine, with our tables in a schema; the engine itself stays as it is."""
    if schema is None:
        return engine
    return engine.execution_options(schema_translate_map=translation(engine, schema))


def translation(owner: Engine | Connection, schema: str) -> dict[str | None, str | None]:
    """Return the owner's `schema_translate_map`, with our tables in a schema."""
    return {**(owner.get_execution_options().get("schema_translate_map") or {}), None: schema}


def dialect_of(bind: Engine | Connection | AsyncEngine | AsyncConnection | URL | str) -> str:
    """Return the name of a dialect, from a database, a URL or a name; no driver is needed.

    Raises:
        ConfigurationError: There is no such dialect, or it isn't a URL.
    """
    if not isinstance(bind, URL | str):
        return bind.dialect.name
    if isinstance(bind, str) and bind.isidentifier():
        name = bind
    else:
        name = url_of(bind).get_backend_name()
    name = _ALIASES.get(name, name)
    _dialect(URL.create(name))
    return name


def read_only(url: URL) -> URL:
    """Return a URL with which SQLite makes no database, and changes none.

    A connection that may write is one for which writing is switched off (`query_only`): at its end
    SQLite removes the files that it has made beside a database in WAL mode. Where nothing can be
    written, SQLite needs no such files if no writer has left one (`immutable`).
    """
    path = sqlite_file(url)
    if path is None or "mode" in url.query:
        return url
    more = {"mode": "ro", "uri": "true"}
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        more |= {"mode": "rw", _READS: "only"}
    elif path.exists() and not path.with_name(f"{path.name}-wal").exists():
        more["immutable"] = "1"
    name = url.database if "uri" in url.query else f"file:{quote(str(url.database))}"
    return url.set(database=name, query={**url.query, **more})


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite database; None for other engines, and for one in memory."""
    if url.get_backend_name() != "sqlite" or is_memory(url):
        return None
    name = str(url.database)
    if "uri" in url.query and name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    return Path(name)


def how_to_make_a_schema(connection: Connection) -> str:
    """Return the SQL command that makes a schema, for messages."""
    return "ATTACH a file" if connection.dialect.name == "sqlite" else "CREATE SCHEMA"


def read_times_in_utc(connection: Connection) -> None:
    """Have a session of the MySQL family read TIMESTAMP columns in UTC, not in its own zone."""
    if connection.dialect.name in MYSQL_FAMILY:
        connection.exec_driver_sql("SET time_zone = '+00:00'")


def spellings(connection: Connection, column: ColumnElement[str], value: str) -> list[str]:
    """Return the texts in a column that the engine compares as equal to one of them.

    On the MySQL family, whose collations may ignore case, accents and trailing blanks, they are
    read; elsewhere it is the one.
    """
    if connection.dialect.name not in MYSQL_FAMILY:
        return [value]
    exact = cast_to(func.convert(column.op("USING")(literal_column("utf8mb4"))), BINARY)
    found = connection.scalars(select(exact).distinct().where(column == value))
    return sorted(bytes(each).decode() for each in found)


def sizes_on_disk(
    connection: Connection, tables: Sequence[str], schema: str | None
) -> dict[str, int]:
    """Return the bytes that tables take with their indexes, as far as the engine tells.

    For SQLite only the size of the file, as `total`.
    """
    dialect = connection.dialect
    if dialect.name == "sqlite":
        whole = text(
            "SELECT page_count * page_size FROM pragma_page_count(:file), pragma_page_size(:file)"
        )
        return {"total": int(connection.scalar(whole, {"file": schema or "main"}) or 0)}
    if dialect.name in POSTGRESQL_FAMILY:
        quoted = dialect.identifier_preparer.quote
        names = {table: f"{quoted(schema)}.{table}" if schema else table for table in tables}
        size = func.pg_total_relation_size(func.to_regclass(bindparam("name", type_=Text())))
        return {
            table: int(connection.scalar(select(size), {"name": name}) or 0)
            for table, name in names.items()
        }
    if dialect.name in MYSQL_FAMILY:
        found = connection.execute(
            text(
                "SELECT table_name AS name, data_length + index_length AS bytes"
                " FROM information_schema.tables"
                " WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name IN :tables"
            ).bindparams(bindparam("tables", expanding=True)),
            {"schema": schema, "tables": list(tables)},
        )
        return {row.name: int(row.bytes or 0) for row in found}
    return {}
