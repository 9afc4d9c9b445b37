"""The savers on an `AsyncEngine` or an `AsyncConnection`.

The async twins of `saver`, in the same order and wording: the same functions of the repository run
through `AsyncConnection.run_sync`.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool

from checkpoint_sa import codec, engines, migrate, repository
from checkpoint_sa.base import (
    RETRIES,
    BaseSaver,
    Paging,
    prune_strategy,
    size_of,
    store_checkpoint,
    store_only_checkpoint,
    store_writes,
)
from checkpoint_sa.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import (
        ChannelVersions,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
    from langgraph.checkpoint.serde.base import SerializerProtocol
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL
    from typing_extensions import Self

P = ParamSpec("P")
T = TypeVar("T")

_THREAD_BYTES = 256 * 1024
"""Values from this size on are serialized in a thread, so that the event loop goes on."""


async def _aside(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run CPU work here when it is small (a thread costs about 100 us), else in a thread."""
    if size < _THREAD_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


class AsyncSQLAlchemySaver(BaseSaver):
    """Checkpoints in a SQL database, through an `AsyncEngine` or an `AsyncConnection`.

    With an engine, each operation takes a connection from its pool and is a transaction of its own;
    the engine stays yours. With a connection, the caller owns the transaction: the saver takes part
    in it, in savepoints, and never commits; operations of several tasks take turns.

    It belongs to the event loop that uses it first. The sync methods work from other threads.

    Args:
        bind: An `AsyncEngine` or an `AsyncConnection`.
        serde: Serializer of state values; LangGraph's `JsonPlusSerializer` by default.
        schema: Schema of the tables; by default the connection's own.

    Raises:
        ConfigurationError: The engine or connection can't work; the message says what can.
    """

    def __init__(
        self,
        bind: AsyncEngine | AsyncConnection,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
    ) -> None:
        super().__init__(serde=serde, schema=schema)
        if isinstance(bind, AsyncEngine):
            engines.check_engine(bind.sync_engine)
            engine = engines.in_schema(bind.sync_engine, schema)
            self._once = AsyncEngine(engines.reading(engine))
            self._transaction = AsyncEngine(engines.transactional(engine))
            owner: Any = bind.sync_engine
        elif isinstance(bind, AsyncConnection):
            owner = bind.sync_connection
            if owner is None:
                raise ConfigurationError(
                    "This AsyncConnection isn't open yet. Use `async with engine.connect() as"
                    " connection`, or pass the engine."
                )
            engines.check_connection(owner)
            self._joins = True
        else:
            raise ConfigurationError(
                f"{type(self).__name__} takes an AsyncEngine or an AsyncConnection, this is"
                f" {type(bind).__name__}. For a URL use {type(self).__name__}.from_conn_string(),"
                " for an Engine SQLAlchemySaver."
            )
        self.bind = bind
        self._lock = engines.lock_for(owner, asyncio.Lock) or nullcontext()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls,
        conn_string: str | URL,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        **engine_options: Any,
    ) -> AsyncIterator[Self]:
        """Open a saver on a database URL; its engine is disposed of at the end.

        Args:
            conn_string: Any SQLAlchemy URL, or one without a driver: `postgresql://`,
                `postgres://`, `mysql://`, `mariadb://`, `sqlite://`.
            serde: Serializer of state values.
            schema: Schema of the tables.
            **engine_options: What `create_async_engine` takes, such as `pool_size`.

        Raises:
            ConfigurationError: It isn't a URL, or its driver isn't async.
            MissingDriverError: The driver isn't installed; the message names the extra that has it.
        """
        engine = engines.make_async_engine(conn_string, **engine_options)
        try:
            yield cls(engine, serde=serde, schema=schema)
        finally:
            await engine.dispose()

    async def setup(self) -> None:
        """Create the tables, or bring them to this release's revision, as `alembic upgrade head`.

        Cheap when there is nothing to do; safe from several processes at once. On a connection, it
        is part of the caller's transaction.

        Raises:
            SchemaError: The tables are a later release's or another package's, or another session
                has been migrating for minutes.
            ConfigurationError: The connection has a transaction, and the engine can't change tables
                in one (MySQL, MariaDB).
        """
        self._enter_loop()
        async with self._lock:
            if isinstance(self.bind, AsyncConnection) and not self.bind.in_transaction():
                await self.bind.begin()  # the caller's to commit
            await migrate.aupgrade(self.bind, schema=self.schema)

    # Transactions

    async def _read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._enter_loop()
        async with self._lock, self._connected() as connection:
            return await connection.run_sync(self._within, function, *args, **kwargs)

    async def _write(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._enter_loop()
        for last in (False,) * RETRIES + (True,):
            try:
                async with self._lock, self._begun() as connection:
                    return await connection.run_sync(self._within_write, function, *args, **kwargs)
            except DBAPIError as error:
                if last or self._joins or not engines.is_conflict(error):
                    raise
        raise AssertionError

    async def _write_at_once(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write by one statement, which needs no transaction around it."""
        self._enter_loop()
        async with self._lock, self._connected() as connection:
            return await connection.run_sync(self._within_write, function, *args, **kwargs)

    def _connected(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return (
            nullcontext(self.bind)
            if isinstance(self.bind, AsyncConnection)
            else self._once.connect()
        )

    def _begun(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return (
            nullcontext(self.bind)
            if isinstance(self.bind, AsyncConnection)
            else self._transaction.begin()
        )

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and not self._is_free():
            raise ConfigurationError(
                f"This {type(self).__name__} belongs to another event loop: connections of its"
                " pool can't be used in two. Make an engine and a saver for each loop, or give"
                " create_async_engine poolclass=sqlalchemy.pool.NullPool."
            )
        self._loop = loop

    def _is_free(self) -> bool:
        return isinstance(self.bind, AsyncEngine) and isinstance(self.bind.pool, NullPool)

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
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
        stored = await self._read(repository.get, *codec.address(config))
        if stored is None:
            return None
        return await _aside(size_of(stored), codec.load_checkpoint, self.serde, stored)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
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
        while paging.unfinished:
            for item in await self._next_page(paging):
                yield item

    async def _next_page(self, paging: Paging) -> Sequence[CheckpointTuple]:
        page = await self._read(repository.page, *paging.position)
        size = sum(map(size_of, page[0]))
        return await _aside(size, paging.take, self.serde, *page)

    async def aget_delta_channel_history(
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
        found = await self._read(repository.delta_history, *codec.address(config), names)
        size = sum(len(write.blob) for history in found.values() for write in history.writes)
        return await _aside(size, codec.load_history, self.serde, found)

    # Writing

    async def aput(
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
        rows = await _aside(
            codec.weigh(checkpoint["channel_values"]),
            codec.dump_checkpoint,
            self.serde,
            config,
            checkpoint,
            metadata,
            new_versions,
        )
        if self.keeps_latest_only:
            await self._write(store_only_checkpoint, rows)
        elif repository.is_one_statement(self.bind.dialect, rows.blobs):
            await self._write_at_once(store_checkpoint, rows)
        else:
            await self._write(store_checkpoint, rows)
        return rows.config

    async def aput_writes(
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
        rows = await _aside(
            codec.weigh(writes),
            codec.dump_writes,
            self.serde,
            config,
            writes,
            task_id,
            task_path,
        )
        if not rows:
            return
        if repository.is_one_statement(self.bind.dialect, rows):
            await self._write_at_once(store_writes, rows)
        else:
            await self._write(store_writes, rows)

    # Deleting and copying

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints, values and writes of a thread."""
        await self._write(repository.delete_threads, [codec.thread_id(thread_id)])

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose `metadata.run_id` is given, their writes and values.

        Checkpoints that were made from a deleted one lose their parent. A DeltaChannel can't be
        rebuilt past a deleted checkpoint.
        """
        runs = codec.run_ids(run_ids)
        if runs.indexed:
            await self._write(repository.delete_runs, *runs)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread inside the database, under the same checkpoint ids.

        Raises:
            ThreadExistsError: The target has checkpoints already; nothing was copied.
        """
        source, target = codec.thread_id(source_thread_id), codec.thread_id(target_thread_id)
        await self._write(repository.copy_thread, source, target)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
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
            await self._write(prune, thread_id)

    # Sync twins, for other threads than the event loop's

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple`, from another thread."""
        return self._from_thread(self.aget_tuple, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """`alist`, from another thread."""
        paging = Paging(codec.criteria(config, before, filter), filter, limit)
        while paging.unfinished:
            yield from self._from_thread(self._next_page, paging)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`aget_delta_channel_history`, from another thread."""
        return self._from_thread(self.aget_delta_channel_history, config=config, channels=channels)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput`, from another thread."""
        return self._from_thread(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """`aput_writes`, from another thread."""
        self._from_thread(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """`adelete_thread`, from another thread."""
        self._from_thread(self.adelete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs`, from another thread."""
        self._from_thread(self.adelete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`acopy_thread`, from another thread."""
        self._from_thread(self.acopy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`aprune`, from another thread."""
        self._from_thread(self.aprune, thread_ids, strategy=strategy)

    def _from_thread(
        self,
        method: Callable[P, Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run an async method in the saver's event loop and wait for it.

        Raises:
            asyncio.InvalidStateError: This is the loop's own thread, which would wait for itself.
            ConfigurationError: No event loop has used the saver yet.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None and running in (self._loop, None if self._loop else running):
            name = method.__name__
            call = "checkpointer.alist" if name == "_next_page" else f"await checkpointer.{name}"
            raise asyncio.InvalidStateError(
                f"Synchronous calls to {type(self).__name__} are only allowed from a different"
                " thread. From the main thread, use the async interface. For example, use"
                f" `{call}(...)` or `await graph.ainvoke(...)`."
            )
        if self._loop is None or not self._loop.is_running():
            raise ConfigurationError(
                f"No event loop is running for this {type(self).__name__}, so its sync methods have"
                " nothing to run in. Use SQLAlchemySaver with an Engine for code without asyncio."
            )
        return asyncio.run_coroutine_threadsafe(method(*args, **kwargs), self._loop).result()


class AsyncShallowSQLAlchemySaver(AsyncSQLAlchemySaver):
    """A saver that keeps only the latest checkpoint of each namespace, and what it needs.

    On the same tables. There is no history to travel in, so storage doesn't grow with the number of
    steps; each call of a subgraph is a namespace of its own and stays until `prune`. A run that was
    cancelled and finishes late doesn't replace what is newer.
    """

    keeps_latest_only = True
