"""URLs, engines, transactions: what differs between drivers, away from the store.

Engines that we make hide statement parameters, so that no state shows up in an exception or a log.
Engines that users make are taken as they are; what they need for one operation is done there.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, ParamSpec, TypeVar, cast
from urllib.parse import quote, urlencode
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, Text, bindparam, create_engine, event, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import (
    AsyncAdaptedQueuePool,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
)
from sqlalchemy.util import await_only

from checkpoint_sa.errors import (
    ConfigurationError,
    MissingDriverError,
    SchemaError,
    ValueTooLargeError,
)
from checkpoint_sa.types import MYSQL_FAMILY, POSTGRESQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Colour = Literal["sync", "async"]
P = ParamSpec("P")
T = TypeVar("T")


class _Drivers(NamedTuple):
    sync: str
    async_: str


_DEFAULTS = {
    "sqlite": _Drivers("pysqlite", "aiosqlite"),
    "postgresql": _Drivers("psycopg", "psycopg"),
    "mysql": _Drivers("pymysql", "aiomysql"),
    "mariadb": _Drivers("pymysql", "aiomysql"),
}
"""The drivers of a URL that names none."""

_ALIASES = {"postgres": "postgresql"}
"""What people write, LangGraph's own guides among them."""

_MODULES = {
    "psycopg": "psycopg",
    "asyncpg": "asyncpg",
    "aiosqlite": "aiosqlite",
    "pymysql": "pymysql",
    "aiomysql": "aiomysql",
}
"""The drivers that have an extra, and what they are imported as."""

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

_PSYCOPG = frozenset({"psycopg", "psycopg_async"})

_FREE_AUTOCOMMIT = _PSYCOPG | {"asyncpg"}

_BUSY_MILLISECONDS = 30_000

_POOL_SIZE = 10
"""Connections of an engine that we make; operations that find none free wait in line."""

_OURS_ARE_AUTOCOMMIT = ("sqlite", "postgresql", *MYSQL_FAMILY)


def parse_url(url: str | URL, colour: Colour) -> URL:
    """Return a URL with a driver of the right colour; one without a driver gets our default.

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
            f"{shown(parsed)} needs the driver {driver}, which isn't installed."
            f' Install it: pip install "langgraph-checkpoint-sa[{driver}]".'
        )
    dialect = parsed.get_dialect()
    if dialect.is_async and colour == "sync":
        raise ConfigurationError(
            f"{shown(parsed)} names an async driver, and this saver is not async."
            f" Use {_other(backend, 'sync')}, or AsyncSQLAlchemySaver."
        )
    if colour == "async" and not (dialect.is_async or driver == "psycopg"):
        raise ConfigurationError(
            f"{shown(parsed)} names a driver that isn't async, and this saver is."
            f" Use {_other(backend, 'async')}, or SQLAlchemySaver."
        )
    return parsed


def url_of(url: str | URL) -> URL:
    """Return a URL as an object.

    Raises:
        ConfigurationError: It isn't a URL.
    """
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
    return "+" in parsed.drivername and parsed.get_dialect().is_async


def _other(backend: str, colour: Colour) -> str:
    if backend not in _DEFAULTS:
        return f"a driver of {backend} that is {colour}"
    driver = _DEFAULTS[backend].async_ if colour == "async" else _DEFAULTS[backend].sync
    more = " or postgresql+asyncpg://" if (backend, colour) == ("postgresql", "async") else ""
    return f"{backend}+{driver}://{more}"


def shown(url: URL) -> str:
    """Return a URL without its password, for messages."""
    return url.render_as_string(hide_password=True)


# Engines that we make


def make_engine(url: str | URL, **options: Any) -> Engine:
    """Create an engine for a connection string; `options` are `create_engine`'s."""
    parsed = parse_url(url, "sync")
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
    engine = create_async_engine(parsed, **_options(parsed, AsyncAdaptedQueuePool, options))
    _listen(engine.sync_engine)
    return engine


def _libpq_for_asyncpg(url: URL) -> tuple[URL, dict[str, Any]]:
    """Move libpq's parameters (`sslmode`, `application_name`, ...) to where asyncpg takes them.

    asyncpg understands them in its own form of URL; host, user and password stay where they are.
    """
    own = {name: value for name, value in url.query.items() if name in _ASYNCPG_OWN}
    libpq = {
        name: value
        for name, value in url.query.items()
        if name not in _ASYNCPG_OWN and name not in _ASYNCPG_LACKS
    }
    connect_args: dict[str, Any] = {}
    if "connect_timeout" in libpq:
        connect_args["timeout"] = float(cast("str", libpq.pop("connect_timeout")))
    if libpq:
        connect_args["dsn"] = f"postgresql://?{urlencode(libpq, doseq=True)}"
    return url.set(query=own), connect_args


def _options(url: URL, pool: type[QueuePool], options: dict[str, Any]) -> dict[str, Any]:
    backend = url.get_backend_name()
    defaults: dict[str, Any] = {"hide_parameters": True}
    if "poolclass" not in options:
        # No overflow: its connections are closed as they come back, and opened again and again.
        defaults |= {"pool_size": _POOL_SIZE, "max_overflow": 0}
    connect_args: dict[str, Any] = {}
    if backend in _OURS_ARE_AUTOCOMMIT:
        # An operation of one statement is one round trip, then; others begin a transaction.
        defaults |= {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    if backend == "sqlite":
        connect_args["timeout"] = _BUSY_MILLISECONDS / 1000
        if is_memory(url):
            # One database is one connection: each operation has it to itself.
            defaults |= {"poolclass": pool, "pool_size": 1, "max_overflow": 0, "pool_timeout": None}
            connect_args["check_same_thread"] = False
    connect_args |= options.pop("connect_args", {})
    return {**defaults, **options, **({"connect_args": connect_args} if connect_args else {})}


def is_memory(url: URL) -> bool:
    """Whether a URL names an SQLite database that lives in one connection."""
    database = url.database or ":memory:"
    return url.get_backend_name() == "sqlite" and (
        database == ":memory:" or url.query.get("mode") == "memory" or ":memory:" in database
    )


def _listen(engine: Engine) -> None:
    name = engine.dialect.name
    if name == "sqlite" and engine.url.query.get("mode") != "ro":
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


# Engines and connections that users make


def check_engine(engine: Engine) -> None:
    """Refuse an engine that would lose checkpoints, and mend one that would keep SQLite locked.

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
    """Let go of SQLite's lock before a connection that was cancelled is closed.

    Closed in the middle of a statement, it would keep its transaction until the garbage collector
    finds the cursor.
    """
    with suppress(Exception, asyncio.CancelledError):  # the cancellation itself goes on
        connection.rollback()


def in_schema(engine: Engine, schema: str | None) -> Engine:
    """Return the engine, with our tables in a schema; the engine itself stays as it is."""
    if schema is None:
        return engine
    return engine.execution_options(schema_translate_map=_translation(engine, schema))


def _translation(owner: Engine | Connection, schema: str) -> dict[str | None, str | None]:
    return {**(owner.get_execution_options().get("schema_translate_map") or {}), None: schema}


def at_once(engine: Engine) -> Engine:
    """Return the engine for operations of one statement: without transactions where that is free.

    With psycopg and asyncpg AUTOCOMMIT is a flag in the driver, and saves two of three round trips.
    psycopg also forgets its prepared statements at each ROLLBACK. Elsewhere switching costs more
    than it saves (seven round trips for three on the MySQL family). An engine that was given an
    isolation level keeps it: SERIALIZABLE counts for all, and behind a pooler in transaction mode
    asyncpg's statements need a transaction around them.
    """
    driver = engine.dialect.driver
    if _isolation_level(engine) is None and driver in _FREE_AUTOCOMMIT and not begins(engine):
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    if driver in _PSYCOPG:
        engine = engine.execution_options()  # the listener is for our statements only
        event.listen(engine, "before_cursor_execute", _ask_for_binary)
    return engine


def begins(engine: Engine) -> bool:
    """Whether a listener of the user's has a say in how transactions begin: it may say BEGIN."""
    return bool(engine.dispatch.begin)


def _ask_for_binary(_: Connection, cursor: Any, *__: Any) -> None:
    """Have psycopg read results in binary form: as text, bytes are twice as long."""
    cursor = getattr(cursor, "_cursor", cursor)
    if not hasattr(cursor, "mogrify"):  # cursors that bind on the client know text only
        cursor.format = 1


def transactional(engine: Engine) -> Engine:
    """Return the engine, with transactions where it was made for AUTOCOMMIT."""
    if not is_autocommit(engine):
        return engine
    level = "SERIALIZABLE" if engine.dialect.name == "sqlite" else "READ COMMITTED"
    return engine.execution_options(isolation_level=level)


def writing(engine: Engine) -> Engine:
    """Return the engine for `writes`: as it is where `BEGIN` costs less than leaving AUTOCOMMIT."""
    if engine.dialect.name == "sqlite" or (
        engine.dialect.name in MYSQL_FAMILY and engine.dialect.skip_autocommit_rollback
    ):
        return engine
    return transactional(engine)


@contextmanager
def writes(connection: Connection) -> Iterator[None]:
    """Run a transaction of ours that is going to write."""
    transaction = connection.begin()
    try:
        begin_write(connection)
        yield
        transaction.commit()
    except BaseException:
        if is_autocommit(connection) and not connection.invalidated:
            # A transaction that SQLAlchemy doesn't know of, so it wouldn't end it.
            try:
                connection.connection.rollback()
            except connection.dialect.loaded_dbapi.Error:
                connection.invalidate()
        with suppress(DBAPIError):  # the connection is lost, and the transaction with it
            transaction.rollback()  # close() alone leaves one whose commit was interrupted
        raise


def _isolation_level(owner: Engine | Connection) -> str | None:
    """Return what an engine or a connection was given, None where it is the server's default."""
    level: str | None = owner.get_execution_options().get("isolation_level")
    # SQLAlchemy has no public name for what create_engine(isolation_level=...) was given.
    level = level or getattr(owner.dialect, "_on_connect_isolation_level", None)
    return level and level.replace("_", " ").upper()  # as SQLAlchemy reads it


def is_autocommit(owner: Engine | Connection) -> bool:
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
def joined(connection: Connection, *, schema: str | None) -> Iterator[None]:
    """Put our tables into a schema on a connection of the caller's, for one operation."""
    if schema is None:
        yield
        return
    before = connection.get_execution_options().get("schema_translate_map")
    connection.execution_options(schema_translate_map=_translation(connection, schema))
    try:
        yield
    finally:
        connection.execution_options(schema_translate_map=before)


def begin_write(connection: Connection) -> None:
    """Begin a transaction that is going to write, where the driver doesn't.

    On SQLite with its write lock. By itself SQLite takes it at the first change, and a transaction
    that has read before can't wait for another writer then: it fails with "database is locked" at
    once.
    """
    if connection.dialect.name == "sqlite":
        driver_connection: Any = connection.connection.driver_connection
        if not driver_connection.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif is_autocommit(connection) or _driver_commits(connection):
        connection.exec_driver_sql("BEGIN")


def _driver_commits(connection: Connection) -> bool:
    """Whether a MySQL connection was opened with `autocommit`, without SQLAlchemy's knowledge."""
    driver_connection: Any = connection.connection.driver_connection
    asked = getattr(driver_connection, "get_autocommit", None)
    return connection.dialect.name in MYSQL_FAMILY and asked is not None and bool(asked())


_locks: WeakKeyDictionary[object, AbstractContextManager[object]] = WeakKeyDictionary()


class _TaskLock:
    """A lock that tasks take, in greenlets of SQLAlchemy's, as threads take `threading.RLock`."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def __enter__(self) -> None:
        await_only(self._lock.acquire())

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _lock_of(owner: Engine | Connection) -> AbstractContextManager[object]:
    """Return the lock of an engine or connection, which all savers on it share."""
    found = _locks.get(owner)
    if found is None:
        made = _TaskLock() if owner.dialect.is_async else threading.RLock()
        found = _locks.setdefault(owner, made)
    return found


def lock_for(owner: Engine | Connection) -> AbstractContextManager[object] | None:
    """Return the lock of a single connection that many share; None where a pool gives out several.

    It belongs to the engine or connection, so that several savers on it take turns as well.
    """
    if isinstance(owner, Engine) and not isinstance(owner.pool, StaticPool):
        return None
    return _lock_of(owner)


def queue_for(owner: Engine | Connection) -> AbstractContextManager[object] | None:
    """Return the lock in which an SQLite engine's writers wait for each other; None elsewhere.

    SQLite has one writer at a time, and lets others sleep for milliseconds before they ask again:
    7.6 ms of a graph's turn, in which `put` and `put_writes` come from two threads at once.
    """
    if not isinstance(owner, Engine) or owner.dialect.name != "sqlite":
        return None
    # A NullPool serves several event loops, a lock of asyncio's one.
    if isinstance(owner.pool, StaticPool | NullPool):
        return None
    return _lock_of(owner)


# Faults


class Fault(Enum):
    """What has gone wrong where the same operation may work when it is tried again."""

    LOST = "the connection was lost"
    CONFLICT = "the database ended the transaction for another one's sake"
    UNREACHABLE = "the server can't be reached"
    STANDBY = "the server takes no writes: it is a standby, or read-only"


_FAULTS: dict[object, Fault] = {
    # SQLSTATEs: serialization failure, deadlock, lock_timeout
    **dict.fromkeys(("40001", "40P01", "55P03"), Fault.CONFLICT),
    # MySQL's numbers: record changed since the snapshot, lock wait timeout, deadlock; and at COMMIT
    # on a cluster, where another node was first: an error there, rolled back by a plugin
    **dict.fromkeys((1020, 1205, 1213, 1180, 3101), Fault.CONFLICT),
    # backend terminated, server crashed, idle timeouts; connection exceptions
    **dict.fromkeys(("57P01", "57P02", "57P05", "25P03"), Fault.LOST),
    **dict.fromkeys(("08000", "08003", "08006", "08007", "08P01"), Fault.LOST),
    # shutdown, a packet that didn't arrive, interrupted (MySQL's answer to KILL and KILL QUERY
    # alike, not to a time limit), killed, gone away, lost, idle timeout
    **dict.fromkeys((1053, 1158, 1317, 1927, 2006, 2013, 2055, 4031), Fault.LOST),
    # starting up or shutting down, too many connections, can't connect; a node of Galera's without
    # the others, a proxy without a server, a member that has left Group Replication (offline mode)
    **dict.fromkeys(("57P03", "53300", "08001", "08004"), Fault.UNREACHABLE),
    **dict.fromkeys((1040, 1203, 2002, 2003, 1047, 1429, 3032), Fault.UNREACHABLE),
    # read-only transaction; --read-only, --super-read-only (and other options, which don't concern
    # our statements), InnoDB is read-only
    **dict.fromkeys(("25006", 1290, 1836), Fault.STANDBY),
}


_ELSEWHERE = (Fault.UNREACHABLE, Fault.STANDBY)
"""The same operation may work on another server, which the same address leads to."""


def code(error: Exception) -> object:
    """Return a SQLSTATE, or MySQL's number, else the name of the error's class."""
    original: Any = getattr(error, "orig", None) or error
    state = getattr(original, "sqlstate", None)
    number = original.args[0] if original.args else None
    return state or (number if isinstance(number, int) else type(original).__name__)


def fault(error: Exception) -> Fault | None:
    """Return what may have passed when an operation is tried again; None for any other error."""
    if known := _FAULTS.get(code(error)):
        return known
    if not isinstance(error, DBAPIError):
        # asyncpg's own, and the operating system's through it, when it connects
        return Fault.UNREACHABLE if isinstance(error, OSError | asyncio.TimeoutError) else None
    if error.connection_invalidated:
        return Fault.LOST
    # psycopg gives no SQLSTATE when it can't connect. SQLite has waited already.
    is_bare = isinstance(error, OperationalError) and isinstance(code(error), str)
    if is_bare and error.statement is None and getattr(error.orig, "sqlstate", "") is None:
        return Fault.UNREACHABLE
    return None


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """Connect for one operation; where the server is no use any more, so are its connections.

    A pool would give them out again for as long as they are open, and never ask the address anew.
    """
    with engine.connect() as connection:
        try:
            yield connection
        except DBAPIError as error:
            if fault(error) in _ELSEWHERE and not connection.invalidated:
                # As SQLAlchemy does when one is lost: others of the pool that are as old go too.
                engine.pool._invalidate(connection.connection, error)  # noqa: SLF001
                connection.invalidate(error)
            raise


# Sizes

_LARGE = 4 * 2**20
"""Below this, no default of any server or driver is in the way."""

_ASYNCMY_BYTES = 2**24 - 1024
"""asyncmy 0.2 gives back None for a row of 16 MiB, and hangs afterwards."""

_STATEMENT_BYTES = 8192
"""What an INSERT has besides its values."""


def check_size(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a value that the server would answer by closing the connection.

    Raises:
        ValueTooLargeError: It doesn't fit into max_allowed_packet (MySQL, MariaDB).
    """
    if connection.dialect.name not in MYSQL_FAMILY:
        return
    limit = None
    for row in rows:
        parts = [value for value in row.values() if isinstance(value, str | bytes)]
        size = sum(map(len, parts))
        if size < _LARGE:
            continue
        if "channel" in row:
            what = f"The value of channel {row['channel']!r} has {size:,} bytes"
        else:
            what = f"Checkpoint {row['checkpoint_id']!r} and its metadata have {size:,} bytes"
        if connection.dialect.driver == "asyncmy" and size >= _ASYNCMY_BYTES:
            raise ValueTooLargeError(
                f"{what}; the driver asyncmy reads at most {_ASYNCMY_BYTES:,} back."
                " Use mysql+aiomysql:// instead."
            )
        if limit is None:
            limit = connection.scalar(text("SELECT @@max_allowed_packet"))
        # These drivers send text, where a byte takes one or two characters: ask them.
        driver: Any = connection.connection.driver_connection
        sent = sum(len(driver.escape(part)) for part in parts) + _STATEMENT_BYTES
        if sent > (limit or sent):
            raise ValueTooLargeError(
                f"{what}, {sent:,} as a statement; the server takes {limit:,}."
                f" Raise max_allowed_packet on the server to {sent:,} or more."
            )


# Migrations

LOCK_SECONDS = 300.0
"""How long a migration waits for another one, and for the locks of tables, by default."""

_LOCK_NAME = "checkpoint_sa.migrations."
_LOCK_NUMBER = 0x63_6B_70_74_5F_73_61  # "ckpt_sa"
_PAUSE = 0.2


@contextmanager
def migration_lock(connection: Connection, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a database's only right to migrate our tables.

    The connection has no transaction when it starts. On SQLite all that follows is one transaction,
    committed at the end.

    Raises:
        SchemaError: Another session held the lock for so long; the message says which one.
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
        # Asked for again and again: a session that waits inside pg_advisory_lock() has a snapshot,
        # for whose end the holder's CREATE INDEX CONCURRENTLY would wait in turn.
        _poll(connection, func.pg_try_advisory_lock(_LOCK_NUMBER), seconds, end=True)
        release = select(func.pg_advisory_unlock(_LOCK_NUMBER))
    elif family in MYSQL_FAMILY:
        from checkpoint_sa import clusters  # noqa: PLC0415 - it imports this module

        if reads := clusters.current_reads(connection):
            with clusters.right_to_migrate(connection, reads, seconds):
                yield
            return
        # Names are the server's, not a database's.
        name = func.concat(_LOCK_NAME, func.left(func.sha2(func.database(), 256), 32))
        if connection.scalar(select(func.get_lock(name, seconds))) != 1:
            raise locked(seconds, _mysql_holder(connection, name))
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
        SchemaError: Another session held the lock for so long; the message says which one.
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


def dialect_of(bind: Engine | Connection | AsyncEngine | AsyncConnection | URL | str) -> str:
    """Return the dialect of a database, of a URL whose driver needn't be installed, or by name.

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
    try:
        URL.create(name).get_dialect()
    except NoSuchModuleError:
        raise ConfigurationError(f"SQLAlchemy has no dialect {name!r} here.") from None
    return name


def read_only(url: URL) -> URL:
    """Return a URL with which SQLite neither makes a file nor changes the mode of its journal."""
    if url.get_backend_name() != "sqlite" or "uri" in url.query:
        return url
    name = f"file:{quote(str(url.database))}"
    return url.set(database=name, query={**url.query, "mode": "ro", "uri": "true"})


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
        raise locked(
            seconds, f"the process that writes to {connection.engine.url.database} (fuser shows it)"
        ) from error
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")


def _poll(connection: Connection, lock: ColumnElement[bool], seconds: float, *, end: bool) -> None:
    deadline = time.monotonic() + seconds
    while not connection.scalar(select(lock)):
        if time.monotonic() > deadline:
            raise locked(seconds, _postgresql_holder(connection))
        if end:
            connection.rollback()
        pause(connection, _PAUSE)


def pause(owner: Engine | Connection, seconds: float) -> None:
    """Sleep, and let the event loop of an async driver go on meanwhile."""
    if owner.dialect.is_async:
        await_only(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def aside(connection: Connection, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what takes a while on the CPU: beside the event loop of an async driver."""
    if connection.dialect.is_async:
        return await_only(asyncio.to_thread(function, *args, **kwargs))
    return function(*args, **kwargs)


def sizes_on_disk(
    connection: Connection, tables: Sequence[str], schema: str | None
) -> dict[str, int]:
    """Return the bytes that tables take with their indexes, as far as the engine tells.

    Of an SQLite file only the whole, as `total`.
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


def locked(seconds: float, holder: str) -> SchemaError:
    """Return the error of who waited in vain for the right to migrate."""
    return SchemaError(
        f"Another session has held the right to migrate this database for {seconds:g} seconds:"
        f" {holder or 'it has just ended'}. Wait until it is done, or end it, and try again."
    )
