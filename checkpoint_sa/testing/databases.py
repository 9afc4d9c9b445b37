"""Private databases for tests: each process makes one, migrates it, and drops it at the end.

On PostgreSQL it is a schema, on MySQL and MariaDB a database, on SQLite a file. The name is unique
and has the time of creation, so a database that a crash left behind is dropped a day later.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from sqlalchemy import URL, Engine, MetaData, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema, DropSchema

from checkpoint_sa import (
    AsyncSQLAlchemySaver,
    AsyncSQLAlchemyStore,
    SQLAlchemySaver,
    SQLAlchemyStore,
    migrate,
)
from checkpoint_sa.engine import engines, transactions
from checkpoint_sa.errors import ConfigurationError, MissingDriverError
from checkpoint_sa.models import metadata
from checkpoint_sa.types import MYSQL_FAMILY

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

T = TypeVar("T")

PREFIX = "checkpoint_sa_test_"
"""The beginning of the names of schemas and databases; the second of their creation follows."""

LEFT_SECONDS = 24 * 60 * 60
"""The age of a schema or database after which it counts as left behind by a crash."""


class Place(NamedTuple):
    """The URL and the schema of the tables."""

    url: URL
    schema: str | None = None


class Database(Protocol):
    """A migrated database, private to a process."""

    def begin(self) -> None:
        """Empty the database for a test."""

    @property
    def place(self) -> Place:
        """Return the place of this test's tables."""

    def end(self) -> None:
        """Clean up after a test."""

    def drop(self) -> None:
        """Drop the database."""


def open_database(url: str | URL, folder: Path) -> Database:
    """Create and migrate a database for this process alone.

    Args:
        url: A server, and a user with the right to create schemas or databases. Of an SQLite URL
            only the driver and the options are used: the files are in `folder`.
        folder: An empty folder.

    Raises:
        ConfigurationError: The server can't be reached, or the user lacks the right.
        MissingDriverError: The driver isn't installed.
    """
    parsed = engines.url_of(url)
    family = engines.dialect_of(parsed)
    if family == "sqlite":
        return _Files(parsed, folder)
    if family == "postgresql":
        return _Private(parsed, "schema")
    if family in MYSQL_FAMILY:
        return _Private(parsed, "database")
    raise ConfigurationError(
        f"There is no rule for private databases on {family!r}: expected SQLite, PostgreSQL, MySQL"
        " or MariaDB. Write a fixture that makes a saver on an engine of your own."
    )


def open_saver(database: Database) -> SQLAlchemySaver:
    """Return a saver on a database; the caller disposes of its engine.

    Raises:
        ConfigurationError: There is no sync driver for the database.
    """
    engine = _engine(database)
    saver = SQLAlchemySaver(engine, schema=database.place.schema)
    saver.bind = transactions.transactional(engine)
    return saver


def open_store(database: Database) -> SQLAlchemyStore:
    """Return a long-term memory on a database; as `open_saver`."""
    engine = _engine(database)
    store = SQLAlchemyStore(engine, schema=database.place.schema)
    store.bind = transactions.transactional(engine)
    return store


def _engine(database: Database) -> Engine:
    engine = engines.make_engine(_coloured(database.place.url, "sync"))
    _never_wait_for_the_disk(engine)
    return engine


def open_async_saver(database: Database) -> AsyncSQLAlchemySaver:
    """Return an async saver on a database, for any event loop: it keeps no connection open.

    Raises:
        ConfigurationError: There is no async driver for the database.
    """
    engine = _async_engine(database)
    saver = AsyncSQLAlchemySaver(engine, schema=database.place.schema)
    saver.bind = AsyncEngine(transactions.transactional(engine.sync_engine))
    return saver


def open_async_store(database: Database) -> AsyncSQLAlchemyStore:
    """Return an async long-term memory on a database; as `open_async_saver`."""
    engine = _async_engine(database)
    store = AsyncSQLAlchemyStore(engine, schema=database.place.schema)
    store.bind = AsyncEngine(transactions.transactional(engine.sync_engine))
    return store


def _async_engine(database: Database) -> AsyncEngine:
    url = _coloured(database.place.url, "async")
    engine = engines.make_async_engine(url, poolclass=NullPool)
    _never_wait_for_the_disk(engine.sync_engine)
    return engine


def _coloured(url: URL, colour: engines.Colour) -> URL:
    """Return a URL with its own driver if that has the colour, otherwise with our default."""
    try:
        return engines.parse_url(url, colour)
    except MissingDriverError:
        raise
    except ConfigurationError:
        return engines.parse_url(url.set(drivername=url.get_backend_name()), colour)


def _never_wait_for_the_disk(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        engines.at_connect(engine, "PRAGMA synchronous=OFF")


class _Files:
    """SQLite: a migrated file, and a copy of it for each test."""

    def __init__(self, url: URL, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._template = folder / "template.db"
        engine = engines.make_engine(_coloured(self._on(self._template), "sync"))
        migrate.upgrade(engine)
        engine.dispose()  # closing the last connection writes the -wal file into the database
        self.place = Place(self._on(self._template))

    def _on(self, file: Path) -> URL:
        return self._url.set(database=str(file)).difference_update_query(("mode", "uri", "cache"))

    def begin(self) -> None:
        copy = shutil.copyfile(self._template, self._folder / f"{uuid.uuid4().hex}.db")
        self.place = Place(self._on(copy))

    def end(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.place.url.database}{suffix}").unlink(missing_ok=True)

    def drop(self) -> None:
        self._template.unlink()


class _Private:
    """A server: a schema or a database of this process, emptied for each test."""

    def __init__(self, url: URL, kind: str) -> None:
        name = f"{PREFIX}{int(time.time())}_{uuid.uuid4().hex[:12]}"
        self._kind = kind
        self._name = name
        self.place = Place(url, name) if kind == "schema" else Place(url.set(database=name))
        try:
            _call_once(url, self._create)
        except (DBAPIError, OSError) as error:
            raise ConfigurationError(
                f"{engines.redacted(url)} can't be reached: {getattr(error, 'orig', error)}."
                " Start the server, or mend the URL."
            ) from error
        tables = MetaData()
        for table in metadata.sorted_tables:
            table.to_metadata(tables, schema=name)
        self._clearing = [table.delete() for table in tables.sorted_tables]
        _call_once(self.place.url, partial(migrate.upgrade, schema=self.place.schema))
        self._admin = _admin(url)

    def _create(self, connection: Connection) -> None:
        _drop_left(connection)
        try:
            # MySQL accepts the word SCHEMA for a database as well.
            connection.execute(CreateSchema(self._name))
        except DBAPIError as error:
            raise ConfigurationError(
                f"{engines.redacted(self.place.url)}: this user can't make a {self._kind} for the"
                f" tests: {error.orig}. Grant the right to CREATE one."
            ) from error
        connection.commit()

    def begin(self) -> None:
        _call(self._admin, self._clear)

    def _clear(self, connection: Connection) -> None:
        for delete in self._clearing:
            connection.execute(delete)
        connection.commit()

    def end(self) -> None:
        pass

    def drop(self) -> None:
        _call(self._admin, partial(_drop, self._name))
        _dispose(self._admin)


def _admin(url: URL) -> Engine | URL:
    """Return an engine, or the URL itself if the only driver is async."""
    try:
        return engines.make_engine(_coloured(url, "sync"), pool_size=1)
    except MissingDriverError:
        return engines.parse_url(url, "async")


def _call(bind: Engine | URL, function: Callable[[Connection], T]) -> T:
    if isinstance(bind, Engine):
        return migrate.on_connection("upgrade", bind, function)
    with ThreadPoolExecutor(1) as thread:  # this thread may run the test's event loop
        return thread.submit(migrate.on_connection, "upgrade", bind, function).result()


def _call_once(url: URL, function: Callable[[Connection], object]) -> None:
    bind = _admin(url)
    try:
        _call(bind, function)
    finally:
        _dispose(bind)


def _dispose(bind: Engine | URL) -> None:
    if isinstance(bind, Engine):
        bind.dispose()


def _drop_left(connection: Connection) -> None:
    """Drop schemas or databases that a crash left behind a day ago or more."""
    for name in inspect(connection).get_schema_names():
        ours = re.match(rf"{PREFIX}(\d+)_", name)
        if ours and int(ours[1]) < time.time() - LEFT_SECONDS:
            _drop(name, connection)


def _drop(name: str, connection: Connection) -> None:
    # On MySQL no other object could be dropped together with the database.
    cascade = connection.dialect.name == "postgresql"
    connection.execute(DropSchema(name, cascade=cascade, if_exists=True))
    connection.commit()
