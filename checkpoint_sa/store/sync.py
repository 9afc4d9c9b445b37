"""The store on an `Engine` or a `Connection`."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from checkpoint_sa.calls import SyncCalls
from checkpoint_sa.engine import binds, engines, transactions
from checkpoint_sa.engine.retry import RETRY_SECONDS
from checkpoint_sa.store import sqlitevec
from checkpoint_sa.store.base import BaseSQLStore
from checkpoint_sa.store.sweeping import ThreadSweeper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langgraph.store.base import IndexConfig, TTLConfig
    from sqlalchemy.engine import URL
    from typing_extensions import Self


class SQLAlchemyStore(SyncCalls, BaseSQLStore):
    """LangGraph's long-term memory in a SQL database, through an `Engine` or a `Connection`.

    With an engine, each batch takes a connection from its pool and is a transaction of its own; the
    engine stays yours, and a saver may share it. With a connection, the caller owns the
    transaction: items, checkpoints and rows of the caller's commit together.

    The async methods work as well, each in a thread.

    Args:
        bind: An `Engine` or a `Connection`.
        schema: Schema of the table; by default the connection's own.
        index: LangGraph's `IndexConfig`, for semantic search: `dims`, `embed`, `fields`; and as
            PostgresStore has them `distance_type`: cosine, l2 or inner_product, and
            `ann_index_config`, for the indexes of pgvector.
        ttl: LangGraph's `TTLConfig`: `default_ttl`, `refresh_on_read`, `sweep_interval_minutes`.
            Expired items are never returned, whatever `omit_expired` says.
        retry_seconds: Seconds during which an operation is retried after its first failure, if the
            connection is lost, the server restarts, or another transaction is in the way. 0
            disables retries. On a connection nothing is retried.

    Raises:
        ConfigurationError: The engine, the connection, `index` or `ttl` can't be used; the message
            says why.
    """

    def __init__(
        self,
        bind: Engine | Connection,
        *,
        schema: str | None = None,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        if not isinstance(bind, Engine | Connection):
            raise binds.refused(
                bind, type(self).__name__, is_async=False, sync_class="SQLAlchemyStore"
            )
        super().__init__(bind, schema=schema, index=index, ttl=ttl, retry_seconds=retry_seconds)
        self.bind = bind
        self._sweeper: ThreadSweeper | None = None

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        conn_string: str | URL,
        *,
        schema: str | None = None,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        retry_seconds: float = RETRY_SECONDS,
        **engine_options: Any,
    ) -> Iterator[Self]:
        """Open a store on a database URL; its sweeper and its engine end with it.

        Args:
            conn_string: A URL, as for `SQLAlchemySaver.from_conn_string`.
            schema: Schema of the table.
            index: LangGraph's `IndexConfig`.
            ttl: LangGraph's `TTLConfig`.
            retry_seconds: Seconds during which an operation is retried.
            **engine_options: Options of `sqlalchemy.create_engine`, such as `pool_size`.

        Raises:
            ConfigurationError: It isn't a URL, or its driver is async.
            MissingDriverError: The driver isn't installed; the message names the extra that has it.
        """
        engine = engines.make_engine(conn_string, **engine_options)
        if index is not None:
            sqlitevec.load(engine)
        try:
            store = cls(engine, schema=schema, index=index, ttl=ttl, retry_seconds=retry_seconds)
            store.bind = transactions.transactional(engine)  # as users expect
            try:
                yield store
            finally:
                store.stop_ttl_sweeper()
        finally:
            engine.dispose()

    def setup(self) -> None:
        """Create the tables, or bring them to this release's revision, as `alembic upgrade head`.

        The savers' `setup` does the same.

        Raises:
            SchemaError: The tables are a later release's or another package's, the table `store`
                is an application's own, or another session has been migrating for minutes.
            ConfigurationError: The connection is in a transaction, which the server would commit at
                the first change of a table (MySQL, MariaDB).
        """
        self._upgrade()
        self._check_tables()

    def sweep_ttl(self) -> int:
        """Delete the items that have expired, in transactions of bounded size.

        Any number of processes may sweep at once. An item that is stored again or read meanwhile
        stays.

        Returns:
            The number of deleted items.
        """
        return self._call(self._sweep_ttl)

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Delete expired items at intervals, in a thread, unless the store has no `ttl`.

        Args:
            sweep_interval_minutes: By default `sweep_interval_minutes` of the store's `ttl`,
                otherwise 5.

        Returns:
            A future that is done when the sweeper has ended; cancelling it stops the sweeper.

        Raises:
            ConfigurationError: The store is on a connection.
        """
        seconds = self._sweep_seconds(sweep_interval_minutes)
        if self.ttl_config is None:
            future: Future[None] = Future()
            future.set_result(None)
            return future
        if self._sweeper is None or not self._sweeper.is_running:
            self._sweeper = ThreadSweeper(self, seconds)
        return self._sweeper.future

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop the sweeper, and wait for a sweep that is going on.

        Args:
            timeout: Seconds to wait; None is until it has ended.

        Returns:
            Whether none is running any more.
        """
        return self._sweeper is None or self._sweeper.stop(timeout)
