"""The savers on an `Engine` or a `Connection`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from checkpoint_sa import migrate
from checkpoint_sa.base import BaseSaver
from checkpoint_sa.calls import SyncCalls
from checkpoint_sa.engine import engines, transactions
from checkpoint_sa.engine.retry import RETRY_SECONDS
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy.engine import URL
    from typing_extensions import Self


class SQLAlchemySaver(SyncCalls, BaseSaver):
    """Checkpoints in a SQL database, through an `Engine` or a `Connection`.

    With an engine, each operation takes a connection from its pool and is a transaction of its own;
    the engine stays yours. With a connection, the caller owns the transaction: the saver takes part
    in it, in savepoints, and never commits; operations from several threads take turns.

    The async methods work as well, each in a thread.

    Args:
        bind: An `Engine` or a `Connection`.
        serde: Serializer of state values; LangGraph's `JsonPlusSerializer` by default.
        schema: Schema of the tables; by default the connection's own.
        incremental: Store each new version of a channel as a delta against the version before, so
            that storage grows linearly with the conversation. LangGraph's own savers can't read
            such values; all of this package can. See docs/incremental.md.
        retry_seconds: For how long an operation is tried again, after its first failure, when the
            connection is lost, the server restarts, or another transaction is in the way; 0 is
            never. A connection's transaction is never tried again: it is the caller's.
        check_parent: Whether `put` refuses a checkpoint whose parent isn't the latest one, so that
            of two writers that go on from one checkpoint only one is heard.

    Raises:
        ConfigurationError: The engine or connection can't work; the message says which can.
    """

    def __init__(  # noqa: PLR0913 - one for each setting
        self,
        bind: Engine | Connection,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        incremental: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        check_parent: bool = False,
    ) -> None:
        if not isinstance(bind, Engine | Connection):
            raise ConfigurationError(
                f"{type(self).__name__} takes an Engine or a Connection, this is"
                f" {type(bind).__name__}. For a URL use {type(self).__name__}.from_conn_string(),"
                " for an AsyncEngine AsyncSQLAlchemySaver."
            )
        super().__init__(
            bind,
            serde=serde,
            schema=schema,
            incremental=incremental,
            retry_seconds=retry_seconds,
            check_parent=check_parent,
        )
        self.bind = bind

    @classmethod
    @contextmanager
    def from_conn_string(  # noqa: PLR0913 - one for each setting
        cls,
        conn_string: str | URL,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        incremental: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        check_parent: bool = False,
        **engine_options: Any,
    ) -> Iterator[Self]:
        """Open a saver on a database URL; its engine is disposed of at the end.

        Args:
            conn_string: Any SQLAlchemy URL, or one without a driver: `postgresql://`,
                `postgres://`, `mysql://`, `mariadb://`, `sqlite://`.
            serde: Serializer of state values.
            schema: Schema of the tables.
            incremental: Store each new version of a channel as a delta.
            retry_seconds: For how long an operation is tried again.
            check_parent: Whether `put` refuses a checkpoint whose parent isn't the latest one.
            **engine_options: Options of `sqlalchemy.create_engine`, such as `pool_size`.

        Raises:
            ConfigurationError: It isn't a URL, or its driver is async.
            MissingDriverError: The driver isn't installed; the message names the extra that has it.
        """
        engine = engines.make_engine(conn_string, **engine_options)
        try:
            saver = cls(
                engine,
                serde=serde,
                schema=schema,
                incremental=incremental,
                retry_seconds=retry_seconds,
                check_parent=check_parent,
            )
            saver.bind = transactions.transactional(engine)  # as people expect an engine to be
            yield saver
        finally:
            engine.dispose()

    def setup(self) -> None:
        """Create the tables, or bring them to this release's revision, as `alembic upgrade head`.

        Cheap when there is nothing to do; safe from several processes at once. On a connection, it
        is part of the caller's transaction.

        Raises:
            SchemaError: The tables are a later release's or another package's, or another session
                has been migrating for minutes.
            ConfigurationError: The connection has a transaction, and the engine can't change tables
                in one (MySQL, MariaDB).
        """
        with self.database.lock:
            if isinstance(self.bind, Connection) and not self.bind.in_transaction():
                self.bind.begin()  # the caller's to commit
            migrate.upgrade(self.bind, schema=self.schema)


class ShallowSQLAlchemySaver(SQLAlchemySaver):
    """A saver that keeps only the latest checkpoint of each namespace.

    On the same tables. There is no history to travel in, so storage doesn't grow with the number of
    steps; each call of a subgraph is a namespace of its own and stays until `prune`. A run that was
    cancelled and finishes late doesn't replace a newer checkpoint. `get_tuple` returns the latest
    checkpoint for the config of a replaced one.
    """

    keeps_latest_only = True
