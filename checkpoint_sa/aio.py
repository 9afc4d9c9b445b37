"""The savers on an `AsyncEngine` or an `AsyncConnection`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from checkpoint_sa.base import BaseSaver
from checkpoint_sa.calls import AsyncCalls
from checkpoint_sa.engine import binds, engines, transactions
from checkpoint_sa.engine.retry import RETRY_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy.engine import URL
    from typing_extensions import Self

    from checkpoint_sa.state import Revisions

_ITERATORS = ("list", "threads")


class AsyncSQLAlchemySaver(AsyncCalls, BaseSaver):
    """Checkpoints in a SQL database, through an `AsyncEngine` or an `AsyncConnection`.

    With an engine, each operation takes a connection from its pool and is a transaction of its own;
    the engine stays yours. With a connection, the caller owns the transaction: the saver takes part
    in it, in savepoints, and never commits; operations of several tasks take turns.

    A saver belongs to the event loop that uses it first. Its sync methods work from other threads.

    Args:
        bind: An `AsyncEngine` or an `AsyncConnection`.
        serde: Serializer of state values; LangGraph's `JsonPlusSerializer` by default.
        schema: Schema of the tables; by default the connection's own.
        incremental: Store each new version of a channel as a delta against the version before, so
            that storage grows linearly with the conversation. LangGraph's own savers can't read
            such values; all savers of this package can. See docs/incremental.md.
        retry_seconds: Seconds during which an operation is retried after its first failure, if the
            connection is lost, the server restarts, or another transaction is in the way. 0
            disables retries. On a connection nothing is retried: the caller owns the transaction.
        check_parent: Whether `put` refuses a checkpoint unless its parent is the latest checkpoint.
            If two writers continue the same checkpoint, only the first succeeds.
        upgrade_state: Revisions of state by name, in their order. States of earlier revisions are
            read in the newest shape; checkpoints and writes are stored with the newest name. See
            docs/state.md.

    Raises:
        ConfigurationError: The saver can't use this engine or connection; the message says which
            kind it can use.
        InvalidInputError: `upgrade_state` isn't a mapping of names and functions.
    """

    sync_class = "SQLAlchemySaver"

    def __init__(  # noqa: PLR0913 - an argument for each setting
        self,
        bind: AsyncEngine | AsyncConnection,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        incremental: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        check_parent: bool = False,
        upgrade_state: Revisions | None = None,
    ) -> None:
        super().__init__(
            self._sync_bind(bind),
            serde=serde,
            schema=schema,
            incremental=incremental,
            retry_seconds=retry_seconds,
            check_parent=check_parent,
            upgrade_state=upgrade_state,
        )
        self.bind = bind

    @classmethod
    @asynccontextmanager
    async def from_conn_string(  # noqa: PLR0913 - an argument for each setting
        cls,
        conn_string: str | URL,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        incremental: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        check_parent: bool = False,
        upgrade_state: Revisions | None = None,
        **engine_options: Any,
    ) -> AsyncIterator[Self]:
        """Open a saver on a database URL; its engine is disposed of at the end.

        Args:
            conn_string: Any SQLAlchemy URL. The driver may be left out: `postgresql://`,
                `postgres://`, `mysql://`, `mariadb://`, `sqlite://`.
            serde: Serializer of state values.
            schema: Schema of the tables.
            incremental: Store each new version of a channel as a delta.
            retry_seconds: Seconds during which an operation is retried.
            check_parent: Whether `put` refuses a checkpoint unless its parent is the latest.
            upgrade_state: Revisions of state by name, in their order.
            **engine_options: Options of `create_async_engine`, such as `pool_size`.

        Raises:
            ConfigurationError: It isn't a URL, or its driver isn't async; or `pipeline=True` is
                given.
            MissingDriverError: The driver isn't installed; the message names the extra that has it.
        """
        options = binds.without_pipeline(engine_options, cls.__name__)
        engine = engines.make_async_engine(conn_string, **options)
        try:
            saver = cls(
                engine,
                serde=serde,
                schema=schema,
                incremental=incremental,
                retry_seconds=retry_seconds,
                check_parent=check_parent,
                upgrade_state=upgrade_state,
            )
            # Users expect an engine with transactions.
            saver.bind = AsyncEngine(transactions.transactional(engine.sync_engine))
            yield saver
        finally:
            await engine.dispose()

    async def setup(self) -> None:
        """Create the tables, or bring them to this release's revision, as `alembic upgrade head`.

        The call is cheap if the tables are up to date, and safe from several processes at once. On
        a connection, it is part of the caller's transaction.

        Raises:
            SchemaError: The tables are a later release's or another package's, or another session
                has been migrating for minutes.
            ConfigurationError: The connection is in a transaction, which the server would commit at
                the first change of a table (MySQL, MariaDB).
        """
        await self._acall(self._upgrade)

    @staticmethod
    def _async_call(operation: str) -> str:
        is_iterator = operation in _ITERATORS
        return f"{'' if is_iterator else 'await '}checkpointer.a{operation}(...)"


class AsyncShallowSQLAlchemySaver(AsyncSQLAlchemySaver):
    """A saver that keeps only the latest checkpoint of each namespace.

    It uses the same tables. There is no history for time travel, so storage doesn't grow with the
    number of steps. Each call of a subgraph has a namespace of its own, which stays until `prune`.
    A cancelled run that finishes late doesn't replace a newer checkpoint. For the config of a
    replaced checkpoint, `get_tuple` returns the latest checkpoint.
    """

    keeps_latest_only = True
