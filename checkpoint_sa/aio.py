"""The savers on an `AsyncEngine` or an `AsyncConnection`.

The async twins of `saver`, in the same order and wording: the same operations run in a greenlet, as
SQLAlchemy's own `run_sync` does it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.util import greenlet_spawn

from checkpoint_sa import chains, codec, engines, migrate, overview, repository
from checkpoint_sa.base import (
    BaseSaver,
    Change,
    Paging,
    ThreadPaging,
    deleting_where,
    pruning,
    size_of,
    vacuuming,
)
from checkpoint_sa.errors import ConfigurationError
from checkpoint_sa.retention import GRACE
from checkpoint_sa.retry import RETRY_SECONDS

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Coroutine,
        Generator,
        Iterator,
        Mapping,
        Sequence,
    )
    from datetime import datetime, timedelta

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

    from checkpoint_sa.overview import ThreadSummary
    from checkpoint_sa.retention import Deleted

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
        incremental: Store of a value what changed since the version before, so that storage grows
            with what is added. LangGraph's own savers can't read such values; all of this package
            can. See docs/incremental.md.
        retry_seconds: For how long an operation is tried again, after its first failure, when the
            connection is lost, the server restarts, or another transaction is in the way; 0 is
            never. A connection's transaction is never tried again: it is the caller's.
        check_parent: Whether `put` refuses a checkpoint whose parent isn't the latest one, so that
            of two writers that go on from one checkpoint only one is heard.

    Raises:
        ConfigurationError: The engine or connection can't work; the message says what can.
    """

    def __init__(  # noqa: PLR0913 - one for each setting
        self,
        bind: AsyncEngine | AsyncConnection,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        incremental: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        check_parent: bool = False,
    ) -> None:
        if not isinstance(bind, AsyncEngine | AsyncConnection):
            raise ConfigurationError(
                f"{type(self).__name__} takes an AsyncEngine or an AsyncConnection, this is"
                f" {type(bind).__name__}. For a URL use {type(self).__name__}.from_conn_string(),"
                " for an Engine SQLAlchemySaver."
            )
        owner = bind.sync_engine if isinstance(bind, AsyncEngine) else bind.sync_connection
        if owner is None:
            raise ConfigurationError(
                "This AsyncConnection isn't open yet. Use `async with engine.connect() as"
                " connection`, or pass the engine."
            )
        super().__init__(
            owner,
            serde=serde,
            schema=schema,
            incremental=incremental,
            retry_seconds=retry_seconds,
            check_parent=check_parent,
        )
        self.bind = bind
        self._lock = engines.lock_for(owner, asyncio.Lock) or nullcontext()
        self._queue = engines.queue_for(owner, asyncio.Lock) or nullcontext()
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    @classmethod
    @asynccontextmanager
    async def from_conn_string(  # noqa: PLR0913 - one for each setting
        cls,
        conn_string: str | URL,
        *,
        serde: SerializerProtocol | None = None,
        schema: str | None = None,
        incremental: bool = False,
        retry_seconds: float = RETRY_SECONDS,
        check_parent: bool = False,
        **engine_options: Any,
    ) -> AsyncIterator[Self]:
        """Open a saver on a database URL; its engine is disposed of at the end.

        Args:
            conn_string: Any SQLAlchemy URL, or one without a driver: `postgresql://`,
                `postgres://`, `mysql://`, `mariadb://`, `sqlite://`.
            serde: Serializer of state values.
            schema: Schema of the tables.
            incremental: Store of a value what changed since the version before.
            retry_seconds: For how long an operation is tried again.
            check_parent: Whether `put` refuses a checkpoint whose parent isn't the latest one.
            **engine_options: What `create_async_engine` takes, such as `pool_size`.

        Raises:
            ConfigurationError: It isn't a URL, or its driver isn't async.
            MissingDriverError: The driver isn't installed; the message names the extra that has it.
        """
        engine = engines.make_async_engine(conn_string, **engine_options)
        try:
            saver = cls(
                engine,
                serde=serde,
                schema=schema,
                incremental=incremental,
                retry_seconds=retry_seconds,
                check_parent=check_parent,
            )
            # As people expect an engine to be.
            saver.bind = AsyncEngine(engines.transactional(engine.sync_engine))
            yield saver
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

    async def _read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._enter_loop()
        async with self._lock:
            # All in one greenlet: AsyncEngine takes three, and a task, for each connection.
            return await greenlet_spawn(partial(self._run_read, function, *args, **kwargs))

    async def _write(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._queued(self._run_write, function, *args, **kwargs)

    async def _queued(self, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._enter_loop()
        async with self._lock, self._queue:
            return await greenlet_spawn(partial(run, *args, **kwargs))

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
        address = self._place(config)
        stored = await self._read(repository.get, *address, known=self._known(*address))
        if stored is None:
            return None
        return await _aside(size_of(stored), self._loaded, stored)

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
        size = 0
        while paging.unfinished:
            for stored in await self._next_page(paging):
                size += size_of(stored)
                yield await _aside(size, codec.load_checkpoint, self.serde, stored)
                size %= _THREAD_BYTES  # many small ones must not hold up the event loop either

    async def _next_page(self, paging: Paging) -> Sequence[repository.Stored]:
        return paging.take(self.serde, *await self._read(repository.page, *paging.position))

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
        return await _aside(size, codec.load_history, self.serde, config, found)

    async def athreads(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[ThreadSummary]:
        """Iterate over what there is of each thread, in the database's order of their ids.

        They are read in pages; no connection is held in between, and no value is read.

        Args:
            where: Metadata that one of its checkpoints must have, as `filter` of `alist`.
            after: Only threads behind this one, which needn't be there.
            limit: How many at the most.

        Raises:
            InvalidInputError: An id can't be stored, or `where` isn't a dict.
        """
        paging = ThreadPaging(where, after, limit)
        while paging.unfinished:
            for item in await self._next_threads(paging):
                yield item

    async def _next_threads(self, paging: ThreadPaging) -> Sequence[ThreadSummary]:
        found = paging.take(self.serde, await self._read(overview.page, paging.position))
        return await self._read(overview.summaries, found) if found else []

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
            ParentConflictError: With `check_parent`, another writer has gone on meanwhile.
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
        if self.tails is not None and not codec.encrypts(self.serde):
            await self._put_change(Change(self.tails, rows, checkpoint, new_versions))
        else:
            await self._queued(self._run_put, rows)
        return rows.config

    async def _put_change(self, change: Change) -> None:
        parent = None
        if address := change.unknown:
            parent = await self._read(repository.get, *address, known=self._known(*address))
        changes = await _aside(change.size, change.find, parent)
        try:
            await self._queued(self._run_put_changes, changes)
        except (IntegrityError, chains.OutdatedError):
            await self._queued(self._run_put_missing, await _aside(change.size, change.afresh))
        else:
            change.stored(changes)

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
        if rows:
            size = sum(len(row["blob"]) for row in rows) if self.incremental else 0
            await self._queued(self._run_put_writes, await _aside(size, self._as_changes, rows))

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
            InvalidInputError: The serializer binds values to their thread.
        """
        source, target = codec.copied(self.serde, source_thread_id, target_thread_id)
        await self._write(repository.copy_thread, source, target, set())

    async def aprune(  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: timedelta | datetime | None = None,
        idle_for: timedelta | datetime | None = None,
        keep: int | None = None,
        report: Callable[[Deleted], object] | None = None,
    ) -> None:
        """Delete old checkpoints of some threads, each thread in a transaction of its own.

        Without options it is LangGraph's `prune`: the threads are named, and `strategy` says what
        stays. With one of `older_than`, `idle_for` and `keep`, a checkpoint stays where `keep` or
        `older_than` says so; that one's values, writes and what a DeltaChannel is rebuilt from stay
        with it. A kept checkpoint may have lost its parent. After an interruption, call it again.

        Args:
            thread_ids: The threads. None is all of them, and needs one of the options.
            strategy: "keep_latest" keeps of each namespace the latest checkpoint and what it needs:
                values, writes, and for a DeltaChannel the ancestors back to its last stored value.
                Subgraph calls go with the root checkpoint that made them. "delete", or
                "delete_all" as LangGraph's server calls it, keeps nothing.
            older_than: An age, or a time: checkpoints from before go, the latest of each namespace
                stays. A checkpoint's time is its `ts`, else that of its id; one that has neither
                is never old.
            idle_for: An age, or a time: threads without a checkpoint since go as a whole.
            keep: How many of the latest checkpoints of each namespace stay at the least.
            report: Called after each thread with what went, as `Deleted`.

        Raises:
            InvalidInputError: `strategy` is another one, `thread_ids` is a single string, no thread
                and no option is given, or an option isn't what it should be.
        """
        steps = pruning(
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            report=report,
        )
        await self._go(steps, self._write)

    async def aprunable(  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: timedelta | datetime | None = None,
        idle_for: timedelta | datetime | None = None,
        keep: int | None = None,
        report: Callable[[Deleted], object] | None = None,
    ) -> Deleted:
        """Return what `prune` would delete now, with the same arguments; nothing is deleted.

        Raises:
            InvalidInputError: As from `prune`.
        """
        steps = pruning(
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            dry_run=True,
            report=report,
        )
        return await self._go(steps, self._read)

    async def adelete_where(
        self,
        metadata: Mapping[str, Any],
        *,
        whole_threads: bool = True,
        dry_run: bool = False,
        report: Callable[[Deleted], object] | None = None,
    ) -> Deleted:
        """Delete the threads that have a checkpoint with this metadata, to erase a user.

        All of such a thread goes, each in a transaction of its own: checkpoints of all namespaces,
        with this metadata or without, their values and writes. Threads in which no checkpoint has
        the metadata any more (it was pruned) aren't found.

        Args:
            metadata: What the checkpoint's metadata must have, as in the `filter` of `list`.
            whole_threads: False deletes only the checkpoints that have the metadata, with their
                writes and the values that only they used, as `delete_for_runs` does.
            dry_run: Whether to count only.
            report: Called after each thread with what went.

        Returns:
            What was deleted, or would be; `threads` is the number of threads.

        Raises:
            InvalidInputError: `metadata` is empty, or isn't a mapping.
        """
        steps = deleting_where(
            self.serde, metadata, whole_threads=whole_threads, dry_run=dry_run, report=report
        )
        return await self._go(steps, self._read if dry_run else self._write)

    async def avacuum_orphans(
        self,
        older_than: timedelta | datetime = GRACE,
        *,
        dry_run: bool = False,
        report: Callable[[Deleted], object] | None = None,
    ) -> Deleted:
        """Delete writes and values that no checkpoint has: what late writers left behind.

        Safe beside running applications, each thread in a transaction of its own. Writes go if
        their checkpoint isn't there and its id is from before; LangGraph may store writes first, so
        `older_than` should be longer than any run. An id that has no time keeps its writes. Values
        that no checkpoint of their namespace names go if all of its checkpoints are from before.

        Args:
            older_than: An age, a day by default, or a time.
            dry_run: Whether to count only.
            report: Called after each thread with what went.

        Returns:
            What was deleted, or would be.

        Raises:
            InvalidInputError: `older_than` is neither an age nor a time with a zone.
        """
        steps = vacuuming(older_than, dry_run=dry_run, report=report)
        return await self._go(steps, self._read if dry_run else self._write)

    async def arewrite(self, thread_ids: Sequence[str] | None = None, *, incremental: bool) -> int:
        """Store values as what changed, or as whole values again; a store may hold both.

        In transactions of about 4 MB, beside running applications. What is stored meanwhile is
        stored as the savers do that store it.

        Args:
            thread_ids: The threads; all of them by default.
            incremental: As what changed. False makes values that every PostgresSaver reads.

        Returns:
            How many values were rewritten.

        Raises:
            CorruptDataError: A value isn't what was stored; it and what follows stay as they are.
        """
        ids = None if thread_ids is None else codec.thread_ids(thread_ids)
        return await self._go(chains.rewriting(ids, to_chains=incremental), self._write)

    async def _go(
        self,
        steps: Generator[Callable[[Connection], Any], Any, T],
        run: Callable[[Callable[[Connection], Any]], Coroutine[Any, Any, Any]],
    ) -> T:
        """Do the steps of an operation that has many, each in a transaction of its own."""
        done = None
        while True:
            try:
                step = steps.send(done)
            except StopIteration as end:
                result: T = end.value
                return result
            done = await run(step)

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
            page = self._from_thread(self._next_page, paging)
            yield from (codec.load_checkpoint(self.serde, stored) for stored in page)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """`aget_delta_channel_history`, from another thread."""
        return self._from_thread(self.aget_delta_channel_history, config=config, channels=channels)

    def threads(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[ThreadSummary]:
        """`athreads`, from another thread."""
        paging = ThreadPaging(where, after, limit)
        while paging.unfinished:
            yield from self._from_thread(self._next_threads, paging)

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

    def prune(  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: timedelta | datetime | None = None,
        idle_for: timedelta | datetime | None = None,
        keep: int | None = None,
        report: Callable[[Deleted], object] | None = None,
    ) -> None:
        """`aprune`, from another thread."""
        self._from_thread(
            self.aprune,
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            report=report,
        )

    def prunable(  # noqa: PLR0913 - one for each option
        self,
        thread_ids: Sequence[str] | None = None,
        *,
        strategy: str = "keep_latest",
        older_than: timedelta | datetime | None = None,
        idle_for: timedelta | datetime | None = None,
        keep: int | None = None,
        report: Callable[[Deleted], object] | None = None,
    ) -> Deleted:
        """`aprunable`, from another thread."""
        return self._from_thread(
            self.aprunable,
            thread_ids,
            strategy=strategy,
            older_than=older_than,
            idle_for=idle_for,
            keep=keep,
            report=report,
        )

    def delete_where(
        self,
        metadata: Mapping[str, Any],
        *,
        whole_threads: bool = True,
        dry_run: bool = False,
        report: Callable[[Deleted], object] | None = None,
    ) -> Deleted:
        """`adelete_where`, from another thread."""
        return self._from_thread(
            self.adelete_where,
            metadata,
            whole_threads=whole_threads,
            dry_run=dry_run,
            report=report,
        )

    def vacuum_orphans(
        self,
        older_than: timedelta | datetime = GRACE,
        *,
        dry_run: bool = False,
        report: Callable[[Deleted], object] | None = None,
    ) -> Deleted:
        """`avacuum_orphans`, from another thread."""
        return self._from_thread(
            self.avacuum_orphans,
            older_than,
            dry_run=dry_run,
            report=report,
        )

    def rewrite(self, thread_ids: Sequence[str] | None = None, *, incremental: bool) -> int:
        """`arewrite`, from another thread."""
        return self._from_thread(self.arewrite, thread_ids, incremental=incremental)

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
            iterated = {
                "_next_page": "checkpointer.alist",
                "_next_threads": "checkpointer.athreads",
            }
            call = iterated.get(name, f"await checkpointer.{name}")
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
    cancelled and finishes late doesn't replace what is newer. `get_tuple` returns the latest
    checkpoint for the config of a replaced one.
    """

    keeps_latest_only = True
