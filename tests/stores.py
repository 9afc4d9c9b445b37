"""One shape for every engine under test: a `Store` drives a sync or an async saver alike.

The methods of the async saver run to completion in an event loop of the store's own, so that a test
reads the same for all engines and still goes through the saver's native methods.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from checkpoint_sa import (
    AsyncShallowSQLAlchemySaver,
    AsyncSQLAlchemySaver,
    ShallowSQLAlchemySaver,
    SQLAlchemySaver,
    testing,
)
from checkpoint_sa.engine.engines import make_async_engine, make_engine
from checkpoint_sa.engine.transactions import transactional
from checkpoint_sa.testing import id_of, thread
from checkpoint_sa.testing.store import Listed, Saver, Summaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    Rows = list[Any]

T = TypeVar("T")

__all__ = ["KINDS", "Kind", "Listed", "Saver", "Store", "Summaries", "id_of", "thread"]


class Kind(NamedTuple):
    """An engine under test."""

    server: str
    """postgresql, mariadb, mysql; '' for SQLite."""
    driver: str
    is_async: bool


KINDS = {
    "sqlite": Kind("", "sqlite+pysqlite", is_async=False),
    "aiosqlite": Kind("", "sqlite+aiosqlite", is_async=True),
    "pg-psycopg": Kind("postgresql", "postgresql+psycopg", is_async=False),
    "pg-psycopg-async": Kind("postgresql", "postgresql+psycopg", is_async=True),
    "pg-asyncpg": Kind("postgresql", "postgresql+asyncpg", is_async=True),
    "mariadb-pymysql": Kind("mariadb", "mariadb+pymysql", is_async=False),
    "mariadb-async": Kind("mariadb", "mariadb+aiomysql", is_async=True),
    "mysql-pymysql": Kind("mysql", "mysql+pymysql", is_async=False),
    "mysql-async": Kind("mysql", "mysql+aiomysql", is_async=True),
}
ALL_DRIVERS = os.environ.get("CHECKPOINT_SA_ALL_DRIVERS") == "1"
if ALL_DRIVERS:
    KINDS |= {
        "mariadb-asyncmy": Kind("mariadb", "mariadb+asyncmy", is_async=True),
        "mysql-asyncmy": Kind("mysql", "mysql+asyncmy", is_async=True),
    }


# What SQL alone decides can't differ between two drivers of one server: test modules about it are
# marked `kinds(...)` with one of these, and CHECKPOINT_SA_ALL_DRIVERS=1 runs them on all nine. How
# savers, drivers and transactions work is tested on all nine always. asyncmy, which a URL must
# name, is tested with CHECKPOINT_SA_ALL_DRIVERS=1 only.

ONE_PER_PROTOCOL = ("sqlite", "pg-psycopg", "pg-asyncpg", "mariadb-pymysql", "mysql-async")
"""Each server, and PostgreSQL with each driver: psycopg and asyncpg send parameters' types in two
ways. Two of them are async."""

ONE_PER_SERVER = ("sqlite", "pg-asyncpg", "mariadb-pymysql", "mysql-async")
"""A driver for each kind of server."""


@dataclass
class Statements:
    """The SQL statements that were sent while counting; an executemany is one."""

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)


class Store(testing.Store):
    """A saver on one engine, with the methods of the contract in their sync form."""

    def __init__(self, kind: Kind, url: str, **engine_options: Any) -> None:
        self.kind = kind
        self.url = url
        # As from_conn_string() has them: the saver's own engine, and with transactions for others.
        make: Any = make_async_engine if kind.is_async else make_engine
        self.own = make(url, **engine_options)
        self.root: Engine = self.own.sync_engine if self.kind.is_async else self.own
        self.engine = transactional(self.root)
        self.async_engine = AsyncEngine(self.engine) if kind.is_async else None
        super().__init__(self.make_saver())

    @property
    def is_async(self) -> bool:  # of other projects' savers too
        return self.kind.is_async

    def make_saver(self, *, shallow: bool = False, **options: Any) -> Saver:
        """Make another saver on the same engine."""
        if self.kind.is_async:
            async_class = AsyncShallowSQLAlchemySaver if shallow else AsyncSQLAlchemySaver
            return async_class(self.own, **options)
        sync_class = ShallowSQLAlchemySaver if shallow else SQLAlchemySaver
        return sync_class(self.own, **options)

    def sql(self, statement: str, **parameters: Any) -> Rows:
        """Run a statement of the test's own in a transaction, on a connection of its own."""

        def execute(connection: Connection) -> Rows:
            result = connection.execute(text(statement), parameters)
            return list(result) if result.returns_rows else []

        return self.in_transaction(execute)

    def in_transaction(self, function: Callable[[Connection], T]) -> T:
        """Call a function with a connection of its own, in a transaction."""
        if self.async_engine is None:
            with self.engine.begin() as connection:
                return function(connection)

        async def call() -> T:
            assert self.async_engine is not None
            async with self.async_engine.begin() as connection:
                return await connection.run_sync(function)

        return self.run(call())  # type: ignore[no-any-return]

    def count(self, table: str) -> int:
        """Count the rows of a table, on a connection of its own."""
        return int(self.sql(f"SELECT count(*) FROM {table}")[0][0])

    def rows(self) -> tuple[int, int, int]:
        """Count checkpoints, blobs and writes."""
        return (
            self.count("checkpoints"),
            self.count("checkpoint_blobs"),
            self.count("checkpoint_writes"),
        )

    def clear(self, *more: str) -> None:
        """Empty the tables of checkpoints, and more, in one transaction: each test begins so."""
        tables = (
            "checkpoint_writes",
            "checkpoint_deltas",
            "checkpoint_blobs",
            "checkpoints",
            *more,
        )

        def delete(connection: Connection) -> None:
            for table in tables:
                connection.exec_driver_sql(f"DELETE FROM {table}")

        try:
            self.in_transaction(delete)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self.in_transaction(delete)  # a test before may have ended sessions of this pool

    @contextmanager
    def statements(self) -> Iterator[Statements]:
        """Collect the statements that the engine sends."""
        collected = Statements([])

        def collect(_: Any, __: Any, statement: str, *___: Any) -> None:
            collected.texts.append(statement)

        event.listen(self.root, "before_cursor_execute", collect)
        try:
            yield collected
        finally:
            event.remove(self.root, "before_cursor_execute", collect)

    def close(self) -> None:
        """Dispose of the engine and the loop."""
        if self.async_engine is not None:
            self.run(self.own.dispose())
        self.root.dispose()
        super().close()


def exact(value: Any) -> Any:
    """Return a form whose equality is identity of content: 1, 1.0 and True differ, NaN is NaN."""
    if isinstance(value, dict):
        return {(type(name).__name__, name): exact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(item) for item in value]
    return type(value).__name__, repr(value) if isinstance(value, float) else value
