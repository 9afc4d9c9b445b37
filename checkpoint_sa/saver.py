"""The savers on an `Engine` or a `Connection`.

`aio` has their async twins, in the same order and wording.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from checkpoint_sa import codec, engines, migrate, repository
from checkpoint_sa.base import (
    RETRIES,
    BaseSaver,
    Paging,
    prune_strategy,
    store_checkpoint,
    store_only_checkpoint,
    store_writes,
)
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy.engine import URL
    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")


class SQLAlchemySaver(BaseSaver):
    """Checkpoints in a SQL database, through an `Engine` or a `Connection`.

    With an engine, each operation takes a connection from its pool and is a transaction of its own;
    the engine stays yours. With a connection, the caller owns the transaction: the saver takes part
    in it, in savepoints, and never commits; operations from several threads take turns.

    The async methods work as well, each in a thread.

    Args:
        bind: An `Engine` or a `Connection`.
        serde: Serializer of state values; LangGraph's `JsonPlusSerializer` by default.
        schema: Schema of the tables; by default the connection's own.

    Raises:
        ConfigurationError: The engine or connection can't work; the message says what can.
    """

    def __init__(
        self,
        bind: Engine | Connection,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(serde=serde, schema=schema)
        if isinstance(bind, Engine):
            engines.check_engine(bind)
            engine = engines.in_schema(bind, schema)
            self._once = engines.reading(engine)
            self._transaction = engines.transactional(engine)
        elif isinstance(bind, Connection):
            engines.check_connection(bind)
            self._joins = True
        else:
            raise ConfigurationError(
                f"{type(self).__name__} takes an Engine or a Connection, this is"
                f" {type(bind).__name__}. For a URL use {type(self).__name__}.from_conn_string(),"
                " for an AsyncEngine AsyncSQLAlchemySaver."
            )
        self.bind = bind
        self._lock = engines.lock_for(bind, threading.RLock) or nullcontext()

    @classmethod
    @contextmanager
    def from_conn_string(
        cls,
        conn_string: str | URL,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        **engine_options: Any,
    ) -> Iterator[Self]:
        """Open a saver on a database URL; its engine is disposed of at the end.

        Args:
            conn_string: Any SQLAlchemy URL, or one without a driver: `postgresql://`,
                `postgres://`, `mysql://`, `mariadb://`, `sqlite://`.
            serde: Serializer of state values.
            schema: Schema of the tables.
            **engine_options: What `sqlalchemy.create_engine` takes, such as `pool_size`.

        Raises:
            ConfigurationError: It isn't a URL, or its driver is async.
            MissingDriverError: The driver isn't installed; the message names the extra that has it.
        """
        engine = engines.make_engine(conn_string, **engine_options)
        try:
            yield cls(engine, serde=serde, schema=schema)
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
        with self._lock:
            if isinstance(self.bind, Connection) and not self.bind.in_transaction():
                self.bind.begin()  # the caller's to commit
            migrate.upgrade(self.bind, schema=self.schema)

    # Transactions

    def _read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._lock, self._connected() as connection:
            return self._within(connection, function, *args, **kwargs)

    def _write(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        for last in (False,) * RETRIES + (True,):
            try:
                with self._lock, self._begun() as connection:
                    return self._within_write(connection, function, *args, **kwargs)
            except DBAPIError as error:
                if last or self._joins or not engines.is_conflict(error):
                    raise
        raise AssertionError

    def _write_at_once(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write by one statement, which needs no transaction around it."""
        with self._lock, self._connected() as connection:
            return self._within_write(connection, function, *args, **kwargs)

    def _connected(self) -> AbstractContextManager[Connection]:
        return nullcontext(self.bind) if isinstance(self.bind, Connection) else self._once.connect()

    def _begun(self) -> AbstractContextManager[Connection]:
        return (
            nullcontext(self.bind)
            if isinstance(self.bind, Connection)
            else self._transaction.begin()
        )

    # Reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read one checkpoint with its values and pending writes.

        Args:
            config: Names a thread, and a checkpoint or, without `checkpoint_id`, the latest of
                the namespace (`checkpoint_ns`, '' by default).

        Returns:
            The checkpoint, or None if there is none.

        Raises:
            InvalidInputError: The config has no `thread_id`, or an id that can't be stored.
            SchemaError: The tables aren't those of this release.
            CorruptDataError: A stored value can't be deserialized.
        """
        stored = self._read(repository.get, *codec.address(config))
        return None if stored is None else codec.load_checkpoint(self.serde, stored)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Iterate over checkpoints, newest first.

        They are read in pages; no connection is held in between. What is stored or deleted
        meanwhile may or may not be seen, a checkpoint that is seen is whole.

        Args:
            config: Limits to its `thread_id`, `checkpoint_ns` and `checkpoint_id`, those that it
                has; None lists all threads.
            filter: Metadata that a checkpoint must have. A dict matches as a subset, everything
                else by JSON equality: 1 is not true, 1 equals 1.0, null is not a missing key.
            before: Only checkpoints with a smaller id than its `checkpoint_id`.
            limit: How many at the most.

        Raises:
            InvalidInputError: An id can't be stored, or `filter` isn't a dict.
        """
        paging = Paging(codec.criteria(config, before, filter), filter, limit)
        return self._iterate(paging)

    def _iterate(self, paging: Paging) -> Iterator[CheckpointTuple]:
        while paging.unfinished:
            yield from self._next_page(paging)

    def _next_page(self, paging: Paging) -> Sequence[CheckpointTuple]:
        return paging.take(self.serde, *self._read(repository.page, *paging.position))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Read what rebuilds some DeltaChannels: the nearest stored value and the writes since.

        Args:
            config: Names the checkpoint whose ancestors are walked.
            channels: Names of the channels.

        Returns:
            An entry for each channel: `writes`, oldest first, and `seed` where there is one.
        """
        if not channels:
            return {}
        names = codec.channels(channels)
        found = self._read(repository.delta_history, *codec.address(config), names)
        return codec.load_history(self.serde, found)

    # Writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, as a whole or not at all.

        Storing an id again updates the checkpoint and its metadata; parent and values stay.

        Args:
            config: Names the thread, the namespace and, as `checkpoint_id`, the parent.
            checkpoint: What to store.
            metadata: Stored beside it, joined with the metadata of the config.
            new_versions: Versions of the channels that changed: their values are stored.

        Returns:
            The config that names the stored checkpoint.

        Raises:
            InvalidInputError: An id or a version can't be stored.
            ValueTooLargeError: A value is larger than the server takes.
        """
        rows = codec.dump_checkpoint(self.serde, config, checkpoint, metadata, new_versions)
        if self.keeps_latest_only:
            self._write(store_only_checkpoint, rows)
        elif repository.is_one_statement(self.bind.dialect, rows.blobs):
            self._write_at_once(store_checkpoint, rows)
        else:
            self._write(store_checkpoint, rows)
        return rows.config

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote, to be found as `pending_writes`.

        LangGraph's special writes (`WRITES_IDX_MAP`) replace earlier ones; ordinary ones are kept
        as first written.

        Args:
            config: Names the checkpoint from which the task ran.
            writes: Pairs of channel and value.
            task_id: The task.
            task_path: Where the task stands in the superstep.

        Raises:
            InvalidInputError: An id can't be stored.
            ValueTooLargeError: A value is larger than the server takes.
        """
        rows = codec.dump_writes(self.serde, config, writes, task_id, task_path)
        if not rows:
            return
        if repository.is_one_statement(self.bind.dialect, rows):
            self._write_at_once(store_writes, rows)
        else:
            self._write(store_writes, rows)

    # Deleting and copying

    def delete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints, values and writes of a thread."""
        self._write(repository.delete_threads, [codec.thread_id(thread_id)])

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose `metadata.run_id` is given, their writes and values.

        Checkpoints that were made from a deleted one lose their parent. A DeltaChannel can't be
        rebuilt past a deleted checkpoint.
        """
        runs = codec.run_ids(run_ids)
        if runs.indexed:
            self._write(repository.delete_runs, *runs)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread inside the database, under the same checkpoint ids.

        Raises:
            ThreadExistsError: The target has checkpoints already; nothing was copied.
        """
        source, target = codec.thread_id(source_thread_id), codec.thread_id(target_thread_id)
        self._write(repository.copy_thread, source, target)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete old checkpoints of some threads, each thread in a transaction of its own.

        Args:
            thread_ids: The threads.
            strategy: "keep_latest" keeps of each namespace the latest checkpoint and what it needs:
                values, writes, and for a DeltaChannel the ancestors back to its last stored value.
                Subgraph calls go with the root checkpoint that made them. "delete" keeps nothing.

        Raises:
            InvalidInputError: `strategy` is another one, or `thread_ids` is a single string.
        """
        prune = prune_strategy(strategy)
        for thread_id in codec.thread_ids(thread_ids):
            self._write(prune, thread_id)

    # Async twins, in threads

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple` in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list`, each page in a thread."""
        paging = Paging(codec.criteria(config, before, filter), filter, limit)
        while paging.unfinished:
            for item in await asyncio.to_thread(self._next_page, paging):
                yield item

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`get_delta_channel_history` in a thread."""
        return await asyncio.to_thread(
            self.get_delta_channel_history, config=config, channels=channels
        )

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put` in a thread."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`put_writes` in a thread."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread` in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs` in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread` in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune` in a thread."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)


class ShallowSQLAlchemySaver(SQLAlchemySaver):
    """A saver that keeps only the latest checkpoint of each namespace, and what it needs.

    On the same tables. There is no history to travel in, so storage doesn't grow with the number of
    steps; each call of a subgraph is a namespace of its own and stays until `prune`. A run that was
    cancelled and finishes late doesn't replace what is newer.
    """

    keeps_latest_only = True
